"""Commands that find numbers for a model and store them in its bundle.

`x2ct tune` finds noise levels for few steps, `quantize` ranges for int8, `statistics` what training X-rays look like,
`calibrate` what the samples' standard deviation is worth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import FoundReport, Json, OtherBundle, Quiet, own_bundle
from x2ct.jobs.options import SHAPE, Threads, option


def tune(
    bundle: str = typer.Argument(
        ..., help="Bundle folder, in which the noise levels are stored; or a model that comes with x2ct, with -o."
    ),
    shards: Path = typer.Argument(..., help="Shard folder of `x2ct prepare`. Its validation patients are used."),
    steps: list[int] | None = typer.Option(
        None, min=1, help="Number of steps to tune for. May be repeated. Default: 1 to 6, 8, 10 and 16."
    ),
    solver: str | None = typer.Option(
        None, help="Solver to tune for; it becomes the model's default. Default: the model's own."
    ),
    samples: int = typer.Option(1, min=1, help="Number of random seeds for each patient."),
    shape: Annotated[Any, option(None, "Number of voxels at the grid's centre to use. Default: all.", **SHAPE)] = None,
    fine: int = typer.Option(64, help="Number of steps of the reference trajectory."),
    refine: int = typer.Option(
        24, min=0, help="Number of measured runs that refine each list of noise levels. 0: no refinement."
    ),
    output: OtherBundle = None,
    report: FoundReport = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Tune noise levels for few steps, and store them in the bundle as its default for that number of steps."""
    from x2ct.tuning import markdown
    from x2ct.tuning import tune_files as run

    with terminal.progress("evaluations", quiet) as display:
        display.stage("tuning")
        result = run(
            bundle,
            shards,
            own_bundle(bundle, output),
            report=report,
            counts=steps,
            solver=solver,
            samples=samples,
            fine=fine,
            refine=refine,
            shape=shape,
            threads=threads,
            progress=display.step,
        )
    terminal.result(result.to_json(), markdown(result), json, quiet)


def quantize(
    bundle: str = typer.Argument(
        ..., help="Bundle folder, in which the ranges are stored; or a model that comes with x2ct, with -o."
    ),
    shards: Path = typer.Argument(
        ...,
        help="Shard folder of `x2ct prepare`. Ranges come from its training patients and are checked on the others.",
    ),
    patches: int = typer.Option(24, min=1, help="Number of patches to measure ranges on."),
    side: int = typer.Option(48, min=8, help="Side of a patch in voxels, a multiple of the model's stride."),
    output: OtherBundle = None,
    report: FoundReport = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Calibrate a model's denoiser for int8, and store the ranges in the bundle."""
    with terminal.extra("train"), terminal.progress("steps", quiet) as display:
        from x2ct.export.quantise import markdown, quantise_files

        result = quantise_files(
            bundle,
            shards,
            own_bundle(bundle, output),
            report=report,
            patches=patches,
            side=side,
            threads=threads,
            say=display.stage,
        )
    terminal.result(result.to_json(), markdown(result), json, quiet)


def statistics(
    bundle: Path = typer.Argument(..., help="A bundle's folder; it gets the statistics that are found."),
    shards: Path = typer.Argument(..., help="A folder that `x2ct prepare` wrote; its training patients are projected."),
    region: str = typer.Option(
        "chest", help="The patients' region that the model is for; the others tell what it is not for."
    ),
    studies: int = typer.Option(9, min=3, help="Random poses and exposures of each patient."),
    output: OtherBundle = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find what a model's X-rays look like, so that `sample` knows others, and store it in the model."""
    from x2ct.tuning.xraystatistics import statistics_files

    with terminal.progress("patients", quiet) as display:
        result = statistics_files(bundle, shards, output or bundle, region=region, studies=studies, say=display.stage)
    count = sum(map(len, result.numbers.values()))
    text = f"{count} numbers from {result.studies} studies of {len(result.patients)} patients"
    facts = {"patients": list(result.patients), "studies": result.studies, "numbers": result.numbers}
    terminal.result(facts, text, json, quiet)


def calibrate(
    bundle: str = typer.Argument(
        ..., help="Bundle folder, in which the factors are stored; or a model that comes with x2ct, with -o."
    ),
    shards: Path = typer.Argument(..., help="Shard folder of `x2ct prepare`. Its validation patients are used."),
    samples: int = typer.Option(8, min=4, help="Number of samples of each patient."),
    steps: list[int] | None = typer.Option(
        None, min=1, help="Number of steps to find a factor for. May be repeated. Default: the model's own."
    ),
    output: OtherBundle = None,
    report: FoundReport = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find the factor that brings the samples' standard deviation up to their error, and store it in the bundle."""
    from x2ct.tuning import deviation

    with terminal.progress("evaluations", quiet) as display:
        display.stage("sampling")
        result = deviation.calibrate_files(
            bundle,
            shards,
            own_bundle(bundle, output),
            report=report,
            counts=steps,
            samples=samples,
            threads=threads,
            progress=display.step,
        )
    terminal.result(result, deviation.markdown(result), json, quiet)
