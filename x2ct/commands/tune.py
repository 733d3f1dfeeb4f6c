"""Commands that find numbers for a model and store them in its bundle.

`x2ct tune` finds noise levels for few steps, `quantize` ranges for int8, `statistics` what training X-rays look like,
`calibrate` what the samples' standard deviation is worth.
"""
# Without `from __future__ import annotations`: Typer needs the types of the fields.

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, Quiet
from x2ct.jobs.options import SHAPE, Threads, setting

if TYPE_CHECKING:
    from x2ct.bundle import Bundle
    from x2ct.data.shards import ShardSet


@dataclass(frozen=True)
class Storing:
    """The options that these commands share: where the numbers go, and how they are found and printed."""

    output: Path | None = setting(None, "Write a new bundle here instead of changing this one.", "--output", "-o")
    report: Path | None = setting(None, "Write the results to this .json file.")
    threads: Threads = 0
    quiet: Quiet = False
    json: Json = False

    def store(self, bundle: str, shards: Path, find: "Callable[[Bundle, ShardSet], Any]") -> Any:
        """Return what `find` returns of a bundle and shards, stored in the bundle, or in another one, and the report.

        Raises InputError: a bundled model without `output`.
        """
        from x2ct.bundle import improve
        from x2ct.bundle.folder import find as folder_of
        from x2ct.data.shards import ShardSet
        from x2ct.errors import InputError

        folder = folder_of(bundle)
        if self.output is None and folder != Path(bundle):
            hint = "write another: -o NAME.x2ct"
            raise InputError.of(bundle, "output", found="a bundled model", expected="a bundle of one's own", hint=hint)
        return improve(bundle, self.output or folder, lambda opened: find(opened, ShardSet.open(shards)), self.report)


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
    *,
    storing: Storing,
) -> None:
    """Tune noise levels for few steps, and store them in the bundle as its default for that number of steps."""
    from x2ct.tuning import search as tuning

    with terminal.progress("evaluations", storing.quiet) as display:
        display.stage("tuning")
        options: dict[str, Any] = {"solver": solver, "samples": samples, "fine": fine, "refine": refine, "shape": shape}
        options |= {"counts": steps or tuning.COUNTS, "threads": storing.threads, "progress": display.step}
        result = storing.store(bundle, shards, partial(tuning.tune, **options))
    terminal.result(result.to_json(), tuning.markdown(result), storing.json, storing.quiet)


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
    *,
    storing: Storing,
) -> None:
    """Calibrate a model's denoiser for int8, and store the ranges in the bundle."""
    with terminal.extra("train"), terminal.progress("steps", storing.quiet) as display:
        from x2ct.export.quantise import markdown, quantise

        options: dict[str, Any] = {"patches": patches, "side": side, "threads": storing.threads, "say": display.stage}
        result = storing.store(bundle, shards, partial(quantise, **options))
    terminal.result(result.to_json(), markdown(result), storing.json, storing.quiet)


def statistics(
    bundle: Path = typer.Argument(..., help="A bundle's folder; it gets the statistics that are found."),
    shards: Path = typer.Argument(..., help="A folder that `x2ct prepare` wrote; its training patients are projected."),
    region: str = setting("chest", "The patients' region that the model is for; the others tell what it is not for."),
    studies: int = setting(36, "Random poses and exposures of each patient.", min=3),
    *,
    storing: Annotated[Storing, "output", "quiet", "json"],
) -> None:
    """Find what a model's X-rays look like, so that `sample` knows others, and store it in the model."""
    from x2ct.tuning.xraystatistics import statistics as find

    with terminal.progress("patients", storing.quiet) as display:
        options: dict[str, Any] = {"region": region, "studies": studies, "say": display.stage}
        result = storing.store(str(bundle), shards, partial(find, **options))
    count = sum(map(len, result.numbers.values()))
    text = f"{count} numbers from {result.studies} studies of {len(result.patients)} patients"
    terminal.result(result.to_json(), text, storing.json, storing.quiet)


def calibrate(
    bundle: str = typer.Argument(
        ..., help="Bundle folder, in which scale and factors are stored; or a model that comes with x2ct, with -o."
    ),
    shards: Path = typer.Argument(..., help="Shard folder of `x2ct prepare`. Its validation patients are used."),
    samples: int = setting(8, "Number of samples of each patient.", min=4),
    steps: list[int] | None = setting(
        None, "Number of steps to find a factor for. May be repeated. Default: the model's own.", min=1
    ),
    *,
    storing: Storing,
) -> None:
    """Store the scale on which samples have the HU of true CTs, and the factor of their standard deviation."""
    from x2ct.tuning import deviation

    with terminal.progress("evaluations", storing.quiet) as display:
        display.stage("sampling")
        options: dict[str, Any] = {"counts": steps, "samples": samples, "threads": storing.threads}
        result = storing.store(bundle, shards, partial(deviation.calibrate, **options, progress=display.step))
    terminal.result(result.to_json(), deviation.markdown(result), storing.json, storing.quiet)
