"""`x2ct prepare`: CTs to training shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct import terminal
from x2ct.commands.options import Json, Quiet


def prepare(
    cts: Annotated[
        Path,
        typer.Argument(help="Folder of CT files and DICOM folders, each one patient; or an nnU-Net or BIDS dataset."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The shard folder; an interrupted run goes on.")],
    shape: Annotated[tuple[int, int, int], typer.Option(help="The grid's voxels along x, y and z.")] = (128, 128, 128),
    spacing: Annotated[tuple[float, float, float], typer.Option(help="The grid's voxel size in mm.")] = (2.5, 2.5, 2.5),
    validation: Annotated[
        list[str] | None,
        typer.Option(help="A person (by file name) to set aside; may be repeated. By default one in ten."),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(
            help="CSV of patients: id, split (train, validation, leave-out), region, reason; or BIDS' participants.tsv."
        ),
    ] = None,
    centre: Annotated[str, typer.Option(help="What the grid is centred on: lungs or body.")] = "lungs",
    preview: Annotated[
        bool, typer.Option("--preview", help="Also write each patient's contact sheet, ID.png, and overviews.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make training shards from CTs. A CT that can't be used is named, the others go on, and the exit code is 1."""
    from x2ct import report as reports

    with terminal.training_packages(), terminal.progress("people", quiet) as display:
        from x2ct.data.prepare import PrepareOptions
        from x2ct.data.prepare import prepare as run
        from x2ct.grid import Grid

        display.stage("preparing")
        done = run(
            cts,
            output,
            grid=Grid(shape, spacing),
            options=PrepareOptions(centre),
            validation=validation,
            patients=patients,
            preview=preview,
            progress=display.step,
        )
    for source, reason in done.failures:
        terminal.note("warning", f"{source} left out: {reason}", quiet)
    for name, reason in done.left_out:
        terminal.note("note", f"{name} left out: {reason}", quiet)
    told = f"{output}: {len(done.people)} people ({len(done.kept)} from before), {len(done.validation)} for validation"
    terminal.show(reports.to_json(vars(done)).rstrip() if json else told, quiet and not json)
    if done.failures:
        raise typer.Exit(1)
