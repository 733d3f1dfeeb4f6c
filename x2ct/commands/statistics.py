"""`x2ct statistics`: what a model's training X-rays look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, OtherBundle, Quiet


def statistics(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder; it gets the statistics that are found.")],
    shards: Annotated[
        Path, typer.Argument(help="A folder that `x2ct prepare` wrote; its training patients are projected.")
    ],
    region: Annotated[
        str, typer.Option(help="The patients' region that the model is for; the others tell what it is not for.")
    ] = "chest",
    studies: Annotated[int, typer.Option(min=3, help="Random poses and exposures of each patient.")] = 9,
    output: OtherBundle = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find what a model's X-rays look like, so that `sample` knows others, and store it in the model."""
    from x2ct.io import report as reports
    from x2ct.tuning.xraystatistics import statistics_files

    with terminal.progress("patients", quiet) as display:
        done = statistics_files(bundle, shards, output or bundle, region=region, studies=studies, say=display.stage)
    told = (
        f"{sum(map(len, done.numbers.values()))} numbers from {done.studies} studies of {len(done.patients)} patients"
    )
    facts = {"patients": list(done.patients), "studies": done.studies, "numbers": done.numbers}
    terminal.show(reports.to_json(facts).rstrip() if json else told, quiet and not json)
