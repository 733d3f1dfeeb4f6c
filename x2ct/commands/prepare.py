"""`x2ct prepare`: CTs to training shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct import terminal
from x2ct.commands.options import Centre, Json, KeepCouch, Quiet, parse_shape, parse_voxel


def prepare(
    cts: Annotated[Path, typer.Argument(help="A folder of CT files and DICOM folders; each is one person.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The shard folder; an interrupted run goes on.")],
    shape: Annotated[
        Any, typer.Option(parser=parse_shape, metavar="X,Y,Z", help="Voxels of the grid.")
    ] = "128,128,128",
    voxel: Annotated[
        Any, typer.Option(parser=parse_voxel, metavar="MM", help="Voxel size of the grid: MM, or X,Y,Z in mm.")
    ] = "2.5",
    validation: Annotated[
        list[str] | None,
        typer.Option(help="A person (by file name) to set aside; may be repeated. By default one in ten."),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(help="A CSV with a patient's id, split (train, validation, leave-out), region, reason a line."),
    ] = None,
    centre: Centre = "lungs",
    keep_couch: KeepCouch = False,
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
            grid=Grid(shape, voxel),
            options=PrepareOptions(centre, keep_couch=keep_couch),
            validation=validation,
            patients=patients,
            preview=preview,
            progress=display.step,
        )
    for source, reason in done.failures:
        terminal.note("warning", f"{source} left out: {reason}", quiet)
    for name, reason in done.left_out:
        terminal.note("note", f"{name} left out: {reason}", quiet)
    told = f"{output}: {len(done.people)} people ({len(done.kept)} from before)"
    told += f", for validation: {', '.join(done.validation) or 'none'}"
    terminal.show(reports.to_json(vars(done)).rstrip() if json else told, quiet and not json)
    if done.failures:
        raise typer.Exit(1)
