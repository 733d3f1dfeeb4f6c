"""`x2ct xray`: an X-ray file to line integrals, each stage of the way to be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct.commands import terminal
from x2ct.commands.options import (
    AngleOf,
    FlipOf,
    FrameOf,
    InvertOf,
    Json,
    Quiet,
    RotateOf,
    SddOf,
    SodOf,
    SpacingOf,
    Strict,
    ValuesOf,
    option,
    reading,
)


def xray(
    file: Annotated[Path, typer.Argument(help="X-ray to read: DICOM, PNG, JPEG, TIFF, .npy or NIfTI.")],
    view: Annotated[str | None, option("Input", "View: ap, pa or lateral. Default: the file's, else ap.")] = None,
    geometry: Annotated[Path | None, option("Input", "Geometry file (JSON): position of source and detector.")] = None,
    spacing: SpacingOf = None,
    rotate: RotateOf = None,
    flip: FlipOf = None,
    frame: FrameOf = None,
    sdd: SddOf = None,
    sod: SodOf = None,
    angle: AngleOf = None,
    invert: InvertOf = None,
    values: ValuesOf = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Model whose detector and scale are used: a bundle folder, or a model that comes with x2ct.",
        ),
    ] = "chest",
    stages: Annotated[Path | None, option("Output", "Draw each processing stage to this .png file.")] = None,
    output: Annotated[
        Path | None, option("Output", "Write the line integrals, float32, to this .npy or .tif file.", "--output", "-o")
    ] = None,
    strict: Strict = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show how an X-ray file is read, and write the line integrals that `x2ct sample` uses."""
    from x2ct.io.xray.readoptions import VIEWS
    from x2ct.jobs.xray_stages import XRayJob, summary, xray_file

    if view is not None and view not in VIEWS:
        raise typer.BadParameter(f"--view: found {view!r}, expected {' or '.join(VIEWS)}")
    options = reading(
        [view] if view else VIEWS,
        spacing=spacing,
        rotate=rotate,
        flip=flip,
        frame=frame,
        sdd=sdd,
        sod=sod,
        angle=angle,
        invert=invert,
        values=values,
    )
    result = xray_file(XRayJob(file, view, geometry, options, model, stages, output, strict))
    terminal.result(result, summary(result), json, quiet)
    terminal.remarks(result, quiet or json)
