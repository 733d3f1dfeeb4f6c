"""Commands that read a CT, to X-rays (`x2ct drr`), a surface (`mesh`) or a page (`view`); or an X-ray (`xray`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from x2ct.commands import terminal
from x2ct.commands.options import CT, Json, Quiet, Reading
from x2ct.jobs.options import Centre, KeepCouch, Threads, XRayJob, setting


def drr(
    ct: CT,
    output: Path = setting(..., "Folder to write: PNG, .npy and geometry.json.", "--output", "-o"),
    geometry: str = setting("parallel", "Geometry: parallel, cone, or a geometry file."),
    view: Sequence[str] = setting(
        (), "View: ap, pa, lateral, or an angle in degrees. May be repeated.", metavar="VIEW"
    ),
    centre: Centre = "lungs",
    keep_couch: KeepCouch = False,
    mu_water: float = setting(0.02, "Attenuation of water per mm. 0.02 corresponds to 70 keV."),
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
    output: Path = setting(..., "Mesh file to write: .stl (binary), .ply or .obj.", "--output", "-o"),
    hu: float = setting(200.0, "Threshold in HU. The surface encloses voxels at or above it."),
    smooth: float = setting(
        0.0, "Standard deviation in mm of a Gaussian filter applied before. 0: none.", metavar="MM"
    ),
    keep_largest: bool = setting(False, "Keep only the largest piece."),
    min_volume: float = setting(0.0, "Drop pieces smaller than this volume in cubic mm.", metavar="MM3"),
    coordinates: str = setting("lps", "Axes, in mm: lps (DICOM, meshes of 3D Slicer) or ras (NIfTI)."),
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
    output: Path | None = setting(None, "HTML page to write. Default: beside the CT.", "--output", "-o"),
    ap: Path | None = setting(None, "Frontal X-ray to show beside the CT."),
    pa: Path | None = setting(None, "Frontal X-ray, source behind the patient."),
    lateral: Path | None = setting(None, "Lateral X-ray to show beside the CT."),
    beside: list[Path] | None = setting(
        None, "Volume to show below, plane by plane, such as the true CT or NAME_std. May be repeated."
    ),
    unexplained: Path | None = setting(
        None, "What the X-rays show beyond the CT: the .png file that `x2ct sample --unexplained` wrote."
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
        page = view_files(ct, output, xrays, reading.by_view(list(xrays)), beside or (), unexplained)
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
