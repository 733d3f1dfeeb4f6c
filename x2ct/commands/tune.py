"""`x2ct tune`: noise levels for few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import FoundReport, Json, OtherBundle, Quiet, Threads, own_bundle, parse_shape


def tune(
    bundle: Annotated[
        str,
        typer.Argument(
            help="Bundle folder, in which the noise levels are stored; or a model that comes with x2ct, with -o."
        ),
    ],
    shards: Annotated[Path, typer.Argument(help="Shard folder of `x2ct prepare`. Its validation patients are used.")],
    steps: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Number of steps to tune for. May be repeated. Default: 1 to 6, 8, 10 and 16."),
    ] = None,
    solver: Annotated[
        str | None, typer.Option(help="Solver to tune for; it becomes the model's default. Default: the model's own.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Number of random seeds for each patient.")] = 1,
    shape: Annotated[
        Any,
        typer.Option(
            parser=parse_shape, metavar="X,Y,Z", help="Number of voxels at the grid's centre to use. Default: all."
        ),
    ] = None,
    fine: Annotated[int, typer.Option(help="Number of steps of the reference trajectory.")] = 64,
    refine: Annotated[
        int,
        typer.Option(min=0, help="Number of measured runs that refine each list of noise levels. 0: no refinement."),
    ] = 24,
    output: OtherBundle = None,
    report: FoundReport = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Tune noise levels for few steps, and store them in the bundle as its default for that number of steps."""
    from x2ct.io import report as reports
    from x2ct.tuning import markdown
    from x2ct.tuning import tune_files as run

    with terminal.progress("evaluations", quiet) as display:
        display.stage("tuning")
        done = run(
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
    terminal.show(reports.to_json(done.to_json()).rstrip() if json else markdown(done), quiet and not json)
