"""`x2ct prepare`: CTs to training shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, Quiet
from x2ct.jobs.options import SHAPE, VOXEL, Centre, KeepCouch, option


def prepare(
    cts: Path = typer.Argument(
        ..., help="Folder of CT files and DICOM folders, one for each patient; or an nnU-Net or BIDS dataset."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="Shard folder to write. An interrupted run is continued."),
    shape: Annotated[Any, option(None, "Voxels of the grid.", **SHAPE)] = "128,128,128",
    voxel: Annotated[Any, option(None, "Voxel size of the grid: MM, or X,Y,Z in mm.", **VOXEL)] = "2.5",
    validation: list[str] | None = typer.Option(
        None, help="Patient (file name) to keep for validation. May be repeated. Default: one in ten."
    ),
    patients: Path | None = typer.Option(
        None,
        help="CSV file with columns id, split (train, validation, leave-out), region, reason; or BIDS' "
        "participants.tsv.",
    ),
    centre: Centre = "lungs",
    keep_couch: KeepCouch = False,
    preview: bool = typer.Option(
        False, "--preview", help="Write a contact sheet of each patient, ID.png, and overviews."
    ),
    shapes: bool = typer.Option(
        False, "--shapes", help="Register the training patients to one another, so that training can mix their shapes."
    ),
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make training shards from CTs. A CT that can't be used is reported and skipped; the exit code is then 1."""
    with terminal.extra("train"), terminal.progress("patients", quiet) as display:
        from x2ct.data.prepare import PrepareOptions
        from x2ct.data.prepare import prepare as run
        from x2ct.geometry.grid import Grid

        display.stage("preparing")
        result = run(
            cts,
            output,
            grid=Grid(shape, voxel),
            options=PrepareOptions(centre, keep_couch=keep_couch),
            validation=validation,
            patients=patients,
            preview=preview,
            shapes=shapes,
            progress=display.step,
        )
    for source, reason in result.failures:
        terminal.note("warning", f"{source} left out: {reason}", quiet)
    for name, reason in result.left_out:
        terminal.note("note", f"{name} left out: {reason}", quiet)
    text = f"{output}: {len(result.patients)} patients ({len(result.kept)} from before)"
    text += f", for validation: {', '.join(result.validation) or 'none'}"
    terminal.result(vars(result), text, json, quiet)
    if result.failures:
        raise typer.Exit(1)
