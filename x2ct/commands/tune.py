"""Commands that find numbers for a model and store them in its bundle.

`x2ct tune` finds noise levels for few steps, `quantize` ranges for int8, `statistics` what training X-rays look like,
`calibrate` what the samples' standard deviation is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import FoundReport, Json, OtherBundle, Quiet
from x2ct.jobs.options import SHAPE, Threads, setting


def tune(
    bundle: str = typer.Argument(
        ..., help="Bundle folder, in which the noise levels are stored; or a model that comes with x2ct, with -o."
    ),
    shards: Path = typer.Argument(..., help="Shard folder of `x2ct prepare`. Its validation patients are used."),
    steps: list[int] | None = setting(
        None, "Number of steps to tune for. May be repeated. Default: 1 to 6, 8, 10 and 16.", min=1
    ),
    solver: str | None = setting(None, "Solver to tune for; it becomes the model's default. Default: the model's own."),
    samples: int = setting(1, "Number of random seeds for each patient.", min=1),
    shape: tuple[int, int, int] | None = setting(
        None, "Number of voxels at the grid's centre to use. Default: all.", **SHAPE
    ),
    fine: int = setting(64, "Number of steps of the reference trajectory."),
    refine: int = setting(
        24, "Number of measured runs that refine each list of noise levels. 0: no refinement.", min=0
    ),
    output: OtherBundle = None,
    report: FoundReport = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Tune noise levels for few steps, and store them in the bundle as its default for that number of steps."""
    from x2ct.tuning import search as tuning

    with terminal.progress("evaluations", quiet) as display:
        display.stage("tuning")
        options: dict[str, Any] = {"solver": solver, "samples": samples, "fine": fine, "refine": refine, "shape": shape}
        options |= {"counts": steps or tuning.COUNTS, "threads": threads, "progress": display.step}
        result = _stored(bundle, shards, output, report, partial(tuning.tune, **options))
    terminal.result(result.to_json(), tuning.markdown(result), json, quiet)


def quantize(
    bundle: str = typer.Argument(
        ..., help="Bundle folder, in which the ranges are stored; or a model that comes with x2ct, with -o."
    ),
    shards: Path = typer.Argument(
        ...,
        help="Shard folder of `x2ct prepare`. Ranges come from its training patients and are checked on the others.",
    ),
    patches: int = setting(24, "Number of patches to measure ranges on.", min=1),
    side: int = setting(48, "Side of a patch in voxels, a multiple of the model's stride.", min=8),
    output: OtherBundle = None,
    report: FoundReport = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Calibrate a model's denoiser for int8, and store the ranges in the bundle."""
    with terminal.extra("train"), terminal.progress("steps", quiet) as display:
        from x2ct.export.quantise import markdown, quantise

        options: dict[str, Any] = {"patches": patches, "side": side, "threads": threads, "say": display.stage}
        result = _stored(bundle, shards, output, report, partial(quantise, **options))
    terminal.result(result.to_json(), markdown(result), json, quiet)


def statistics(
    bundle: Path = typer.Argument(..., help="A bundle's folder; it gets the statistics that are found."),
    shards: Path = typer.Argument(..., help="A folder that `x2ct prepare` wrote; its training patients are projected."),
    region: str = setting("chest", "The patients' region that the model is for; the others tell what it is not for."),
    studies: int = setting(36, "Random poses and exposures of each patient.", min=3),
    output: OtherBundle = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find what a model's X-rays look like, so that `sample` knows others, and store it in the model."""
    from x2ct.tuning.xraystatistics import statistics as find

    with terminal.progress("patients", quiet) as display:
        options: dict[str, Any] = {"region": region, "studies": studies, "say": display.stage}
        result = _stored(bundle, shards, output, None, partial(find, **options))
    count = sum(map(len, result.numbers.values()))
    text = f"{count} numbers from {result.studies} studies of {len(result.patients)} patients"
    terminal.result(result.to_json(), text, json, quiet)


def calibrate(
    bundle: str = typer.Argument(
        ..., help="Bundle folder, in which the factors are stored; or a model that comes with x2ct, with -o."
    ),
    shards: Path = typer.Argument(..., help="Shard folder of `x2ct prepare`. Its validation patients are used."),
    samples: int = setting(8, "Number of samples of each patient.", min=4),
    steps: list[int] | None = setting(
        None, "Number of steps to find a factor for. May be repeated. Default: the model's own.", min=1
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
        options: dict[str, Any] = {"counts": steps, "samples": samples, "threads": threads, "progress": display.step}
        result = _stored(bundle, shards, output, report, partial(deviation.calibrate, **options))
    terminal.result(result.to_json(), deviation.markdown(result), json, quiet)


def _stored(
    bundle: str | Path, shards: Path, output: Path | None, report: Path | None, find: Callable[..., Any]
) -> Any:
    """Find something for a bundle on shards; store it in the bundle, if it is one's own, or in another; and report."""
    from x2ct.bundle import improve
    from x2ct.bundle.folder import find as find_bundle
    from x2ct.data.shards import ShardSet
    from x2ct.errors import InputError

    folder = find_bundle(bundle)
    if output is None and folder != Path(bundle):
        hint = "write another: -o NAME.x2ct"
        raise InputError.of(bundle, "output", found="a bundled model", expected="a bundle of one's own", hint=hint)
    return improve(bundle, output or folder, lambda opened: find(opened, ShardSet.open(shards)), report)
