"""Contact sheets of shards: one PNG for each patient, as the training sees the patient, and overviews of many."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from x2ct.data.shards import Patient, resample
from x2ct.files import atomic
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume
from x2ct.render.panels import Panel, page, png
from x2ct.render.preview import preview

METHOD = 1  # raised when the same shard would give another sheet, so that old sheets are made again
_COLUMNS, _ROWS, _WIDTH_PX = 4, 6, 480  # of an overview
_OVERVIEW = "_overview"  # no patient's id begins with an underscore


def heading(patient: Patient, grid: Grid) -> str:
    """Return the line above a patient's sheet: id, region, lungs found, voxels, body and grid."""
    lungs, body, bone = patient.lungs_mm, patient.body_mm, patient.details.get("bone_share")
    parts = [
        f"{patient.id}: {patient.region}",
        "no lungs" if lungs is None else f"lungs {_size(lungs[1] - lungs[0])} mm",
        f"{_size(patient.shape)} voxels of {_size(patient.spacing_mm)} mm",
        "" if body is None else f"body {_size(body[1] - body[0])} mm",
        "" if bone is None else f"bone {bone:.1%}",
        f"grid {_size(grid.shape)} of {_size(grid.spacing_mm)} mm",
    ]
    return ", ".join(filter(None, parts))


def key_of(patient: Patient, grid: Grid) -> str:
    """Return a checksum of all that decides a patient's sheet."""
    text = f"{METHOD} {patient.sha256} {patient.index_to_mm.tolist()} {heading(patient, grid)}"
    return hashlib.sha256(text.encode()).hexdigest()


def sheet(patient: Patient, grid: Grid) -> bytes:
    """Return a patient's contact sheet as a PNG: the grid's centre slices and bones, and X-rays of the whole CT."""
    xrays = patient.xrays(Geometry.parallel())
    volume = Volume(resample(patient, grid), grid.index_to_mm)
    return png(preview(volume, xrays, synthetic=False, heading=heading(patient, grid)))


def write_overviews(folder: Path, sheets: Sequence[tuple[str, Path]]) -> None:
    """Write `_overview1.png` and so on, each of up to 24 sheets made small, in place of those of an earlier run.

    `sheets` are the title and the PNG of each patient. Raises X2CTError where a write fails.
    """
    from PIL import Image

    written: list[Path] = []
    for first in range(0, len(sheets), _COLUMNS * _ROWS):
        panels = []
        for title, path in sheets[first : first + _COLUMNS * _ROWS]:
            with Image.open(path) as picture:
                size = (_WIDTH_PX, max(1, round(picture.height * _WIDTH_PX / picture.width)))
                panels.append(Panel(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), title))
        rows = [panels[start : start + _COLUMNS] for start in range(0, len(panels), _COLUMNS)]
        target = folder / f"{_OVERVIEW}{len(written) + 1}.png"
        written.append(atomic.write_atomically(target, png(page(rows, f"{len(sheets)} patients"))))
    for stale in set(folder.glob(f"{_OVERVIEW}*.png")) - set(written):
        stale.unlink(missing_ok=True)


def _size(sides: Sequence[float]) -> str:
    return " x ".join(f"{round(float(side), 2):g}" for side in sides)
