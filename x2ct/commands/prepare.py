"""`x2ct prepare`: CTs to training shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct import terminal
from x2ct.commands.options import Json, Quiet


def prepare(
    cts: Annotated[Path, typer.Argument(help="Folder of CT files and DICOM folders, one for each patient.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Shard folder to write. An interrupted run is continued.")
    ],
    shape: Annotated[tuple[int, int, int], typer.Option(help="Number of voxels of the grid along x, y and z.")] = (
        128,
        128,
        128,
    ),
    spacing: Annotated[
        tuple[float, float, float], typer.Option(help="Voxel size of the grid in mm along x, y and z.")
    ] = (2.5, 2.5, 2.5),
    validation: Annotated[
        list[str] | None,
        typer.Option(help="Patient (file name) to keep for validation. May be repeated. Default: one in ten."),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(help="CSV file with columns id, split (train, validation, leave-out), region and reason."),
    ] = None,
    centre: Annotated[str, typer.Option(help="Centre of the grid: lungs or body.")] = "lungs",
    preview: Annotated[
        bool, typer.Option("--preview", help="Write a contact sheet of each patient, ID.png, and overviews.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make training shards from CTs. A CT that can't be used is reported and skipped; the exit code is then 1."""
    from x2ct import report as reports

    with terminal.training_packages(), terminal.progress("patients", quiet) as display:
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
    told = (
        f"{output}: {len(done.people)} patients ({len(done.kept)} from before), {len(done.validation)} for validation"
    )
    terminal.show(reports.to_json(vars(done)).rstrip() if json else told, quiet and not json)
    if done.failures:
        raise typer.Exit(1)
