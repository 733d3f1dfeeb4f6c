"""`x2ct view`: a CT as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct.commands import terminal
from x2ct.commands.options import InvertOf, Json, Quiet, ValuesOf, reading


def view(
    ct: Annotated[Path, typer.Argument(help="CT to read: NIfTI, NRRD, MetaImage, or a folder with a DICOM series.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML page to write. Default: beside the CT.")
    ] = None,
    ap: Annotated[Path | None, typer.Option(help="Frontal X-ray to show beside the CT.")] = None,
    pa: Annotated[Path | None, typer.Option(help="Frontal X-ray, source behind the patient.")] = None,
    lateral: Annotated[Path | None, typer.Option(help="Lateral X-ray to show beside the CT.")] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Volume to show below, plane by plane, such as the true CT or NAME_std. May be repeated."),
    ] = None,
    invert: InvertOf = None,
    values: ValuesOf = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a CT as an HTML page that works offline: planes, projections, window presets, the X-rays."""
    from x2ct.io import report as reports
    from x2ct.render.viewer import view_files

    with terminal.progress("stages", quiet) as display:
        display.stage("reading")
        given = {name: path for name, path in (("ap", ap), ("pa", pa), ("lateral", lateral)) if path is not None}
        page = view_files(ct, output, given, reading(list(given), invert=invert, values=values), beside or ())
    if json:
        terminal.show(reports.to_json({"outputs": [reports.file_record(page)]}).rstrip())
        return
    terminal.show(str(page), quiet)
