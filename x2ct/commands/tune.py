"""`x2ct tune`: noise levels for few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct import terminal
from x2ct.commands.options import FoundReport, Json, OtherBundle, Quiet, Threads, own_bundle, parse_shape


def tune(
    bundle: Annotated[
        str,
        typer.Argument(
            help="A bundle's folder, which gets the noise levels that are found; or a bundled model, with -o."
        ),
    ],
    shards: Annotated[Path, typer.Argument(help="A folder that `x2ct prepare` wrote; its validation people are used.")],
    steps: Annotated[
        list[int] | None,
        typer.Option(min=1, help="How many noise levels; may be repeated. By default 1 to 6, 8, 10 and 16."),
    ] = None,
    solver: Annotated[
        str | None, typer.Option(help="Find them for this solver, and make it the model's; by default the model's own.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Noise seeds a person.")] = 1,
    shape: Annotated[
        Any,
        typer.Option(
            parser=parse_shape, metavar="X,Y,Z", help="Only so many voxels, at the grid's centre; by default all."
        ),
    ] = None,
    fine: Annotated[int, typer.Option(help="Steps of the reference trajectory.")] = 64,
    refine: Annotated[
        int, typer.Option(min=0, help="Runs a list to move its levels by what is measured; 0 leaves them as found.")
    ] = 24,
    output: OtherBundle = None,
    report: FoundReport = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find a model's noise levels for few steps, and store them in it as the default for that number of steps."""
    from x2ct import report as reports
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
