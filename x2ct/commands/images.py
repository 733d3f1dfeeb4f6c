"""Commands that read a CT, to X-rays (`x2ct drr`), a surface (`mesh`) or a page (`view`); or an X-ray (`xray`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import CT, Json, Quiet, Reading, parse_view
from x2ct.jobs.options import Centre, KeepCouch, Threads, XRayJob


def drr(
    ct: CT,
    output: Path = typer.Option(..., "--output", "-o", help="Folder to write: PNG, .npy and geometry.json."),
    geometry: str = typer.Option("parallel", help="Geometry: parallel, cone, or a geometry file."),
    view: list[Any] | None = typer.Option(
        None, parser=parse_view, metavar="VIEW", help="View: ap, pa, lateral, or an angle in degrees. May be repeated."
    ),
    centre: Centre = "lungs",
    keep_couch: KeepCouch = False,
    mu_water: float = typer.Option(0.02, help="Attenuation of water per mm. 0.02 corresponds to 70 keV."),
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Project a CT to X-rays (DRRs), with their geometry and the position of the CT."""
    from x2ct.io import report as reports
    from x2ct.jobs.sample import drr_files

    with terminal.progress("views", quiet) as display:
        display.stage("projecting")
        result = drr_files(
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
    for line in result.notes:
        terminal.note("note", line, quiet)
    facts = {"outputs": [reports.file_record(path) for path in result.files], "notes": list(result.notes)}
    terminal.result(facts, "\n".join(map(str, result.files)), json, quiet)


def mesh(
    ct: CT,
    output: Path = typer.Option(..., "--output", "-o", help="Mesh file to write: .stl (binary), .ply or .obj."),
    hu: float = typer.Option(200.0, help="Threshold in HU. The surface encloses voxels at or above it."),
    smooth: float = typer.Option(
        0.0, metavar="MM", help="Standard deviation in mm of a Gaussian filter applied before. 0: none."
    ),
    keep_largest: bool = typer.Option(False, "--keep-largest", help="Keep only the largest piece."),
    min_volume: float = typer.Option(0.0, metavar="MM3", help="Drop pieces smaller than this volume in cubic mm."),
    coordinates: str = typer.Option("lps", help="Axes, in mm: lps (DICOM, meshes of 3D Slicer) or ras (NIfTI)."),
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write the bone surface of a CT, or the surface at another HU, as a triangle mesh."""
    from x2ct.render.mesh import mesh_files, summary

    with terminal.progress("stages", quiet) as display:
        display.stage("finding the surface")
        result = mesh_files(
            ct,
            output,
            hu,
            smooth_mm=smooth,
            keep_largest=keep_largest,
            min_volume_mm3=min_volume,
            coordinates=coordinates,
        )
    terminal.result(result, summary(result), json, quiet)
    terminal.remarks(result, quiet or json)


def view(
    ct: CT,
    output: Path | None = typer.Option(None, "--output", "-o", help="HTML page to write. Default: beside the CT."),
    ap: Path | None = typer.Option(None, help="Frontal X-ray to show beside the CT."),
    pa: Path | None = typer.Option(None, help="Frontal X-ray, source behind the patient."),
    lateral: Path | None = typer.Option(None, help="Lateral X-ray to show beside the CT."),
    beside: list[Path] | None = typer.Option(
        None, help="Volume to show below, plane by plane, such as the true CT or NAME_std. May be repeated."
    ),
    *,
    reading: Annotated[Reading, "invert", "values"],
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a CT as an HTML page that works offline: planes, projections, window presets, the X-rays."""
    from x2ct.io import report as reports
    from x2ct.render.viewer import view_files

    with terminal.progress("stages", quiet) as display:
        display.stage("reading")
        xrays = {name: path for name, path in (("ap", ap), ("pa", pa), ("lateral", lateral)) if path is not None}
        page = view_files(ct, output, xrays, reading.by_view(list(xrays)), beside or ())
    terminal.result({"outputs": [reports.file_record(page)]}, str(page), json, quiet)


def xray(job: XRayJob, reading: Reading, quiet: Quiet = False, json: Json = False) -> None:
    """Show how an X-ray file is read, and write the line integrals that `x2ct sample` uses."""
    from x2ct.io.xray.readoptions import VIEWS
    from x2ct.jobs.xray_stages import summary, xray_file

    if job.view is not None and job.view not in VIEWS:
        raise typer.BadParameter(f"--view: found {job.view!r}, expected {' or '.join(VIEWS)}")
    result = xray_file(replace(job, reading=reading.by_view([job.view] if job.view else VIEWS)))
    terminal.result(result, summary(result), json, quiet)
    terminal.remarks(result, quiet or json)
