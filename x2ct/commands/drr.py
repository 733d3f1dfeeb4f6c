"""`x2ct drr`: a CT to X-rays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Centre, Json, KeepCouch, Quiet, Threads, parse_view


def drr(
    ct: Annotated[Path, typer.Argument(help="CT to read: NIfTI, NRRD, MetaImage, or a folder with a DICOM series.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write: PNG, .npy and geometry.json.")],
    geometry: Annotated[str, typer.Option(help="Geometry: parallel, cone, or a geometry file.")] = "parallel",
    view: Annotated[
        list[Any] | None,
        typer.Option(
            parser=parse_view, metavar="VIEW", help="View: ap, pa, lateral, or an angle in degrees. May be repeated."
        ),
    ] = None,
    centre: Centre = "lungs",
    keep_couch: KeepCouch = False,
    mu_water: Annotated[float, typer.Option(help="Attenuation of water per mm. 0.02 corresponds to 70 keV.")] = 0.02,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Project a CT to X-rays (DRRs), with their geometry and the position of the CT."""
    from x2ct.io import report as reports
    from x2ct.jobs.sample import drr_files

    with terminal.progress("views", quiet) as display:
        display.stage("projecting")
        done = drr_files(
            ct,
            output,
            geometry,
            view,
            centre=centre,
            keep_couch=keep_couch,
            mu_water=mu_water,
            threads=threads,
            progress=display.step,
        )
    for line in done.notes:
        terminal.note("note", line, quiet)
    if json:
        told = {"outputs": [reports.file_record(path) for path in done.files], "notes": list(done.notes)}
        terminal.show(reports.to_json(told).rstrip())
        return
    terminal.show("\n".join(map(str, done.files)), quiet)
