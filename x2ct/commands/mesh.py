"""`x2ct mesh`: the surface of a CT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, Quiet


def mesh(
    ct: Annotated[Path, typer.Argument(help="CT to read: NIfTI, NRRD, MetaImage, or a folder with a DICOM series.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Mesh file to write: .stl (binary), .ply or .obj.")],
    hu: Annotated[float, typer.Option(help="Threshold in HU. The surface encloses voxels at or above it.")] = 200.0,
    smooth: Annotated[
        float, typer.Option(metavar="MM", help="Standard deviation in mm of a Gaussian filter applied before. 0: none.")
    ] = 0.0,
    keep_largest: Annotated[bool, typer.Option("--keep-largest", help="Keep only the largest piece.")] = False,
    min_volume: Annotated[
        float, typer.Option(metavar="MM3", help="Drop pieces smaller than this volume in cubic mm.")
    ] = 0.0,
    coordinates: Annotated[
        str,
        typer.Option(help="Axes, in mm: lps (DICOM, meshes of 3D Slicer) or ras (NIfTI)."),
    ] = "lps",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write the bone surface of a CT, or the surface at another HU, as a triangle mesh."""
    from x2ct.io import report as reports
    from x2ct.render.mesh import mesh_files, summary

    with terminal.progress("stages", quiet) as display:
        display.stage("finding the surface")
        done = mesh_files(
            ct,
            output,
            hu,
            smooth_mm=smooth,
            keep_largest=keep_largest,
            min_volume_mm3=min_volume,
            coordinates=coordinates,
        )
    if json:
        terminal.show(reports.to_json(done).rstrip())
        return
    terminal.show(summary(done), quiet)
    terminal.remarks(done, quiet)
