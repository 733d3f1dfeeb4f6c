"""`x2ct view`: a CT as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct import terminal
from x2ct.commands.options import InvertOf, Json, Quiet, ValuesOf, reading


def view(
    ct: Annotated[Path, typer.Argument(help="A CT: NIfTI, NRRD, MetaImage, or a folder with a DICOM series.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page, .html; by default beside the CT.")
    ] = None,
    ap: Annotated[Path | None, typer.Option(help="Show this frontal X-ray beside it.")] = None,
    pa: Annotated[Path | None, typer.Option(help="Show this frontal X-ray, source behind, beside it.")] = None,
    lateral: Annotated[Path | None, typer.Option(help="Show this lateral X-ray beside it.")] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Show this volume below, plane by plane: the true CT, a NAME_std; may be repeated."),
    ] = None,
    invert: InvertOf = None,
    values: ValuesOf = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a page of a CT for any browser, offline: three planes or projections, windows, the X-rays."""
    from x2ct import report as reports
    from x2ct.webpage import view_files

    with terminal.progress("stages", quiet) as display:
        display.stage("reading")
        given = {name: path for name, path in (("ap", ap), ("pa", pa), ("lateral", lateral)) if path is not None}
        page = view_files(ct, output, given, reading(list(given), invert=invert, values=values), beside or ())
    if json:
        terminal.show(reports.to_json({"outputs": [reports.file_record(page)]}).rstrip())
        return
    terminal.show(str(page), quiet)
