"""Digitally reconstructed radiographs: the X-rays that a CT would have given.

A CT is projected whole. Each view becomes two files: NAME.npy holds line integrals (float32, dimensionless, what
`x2ct sample` reads as calibrated), NAME.png the same as a picture (16 bit, dense tissue bright, with its pixel pitch).
geometry.json says where both were taken from, and where the CT lies. `x2ct.jobs.sample.drr_files` does all of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as images
from PIL.PngImagePlugin import PngInfo

from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.geometry import MU_WATER_PER_MM, Geometry, Image, attenuation, project
from x2ct.io.xray.radiograph import XRay
from x2ct.io.xray.readers import DENSE_BRIGHT, DENSE_KEY

GEOMETRY_FILE = "geometry.json"
WHITE_PERCENTILE = 99.9  # of the line integrals: above it lies metal, which may be as white as it likes
SEEN = 0.05  # a line integral above this (2.5 mm of water) has met more than air

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Drr:
    """The result of projecting a CT to files."""

    files: tuple[Path, ...]  # what was written, geometry.json last
    geometry: Geometry  # the views, and where the CT lies
    notes: tuple[str, ...]  # what the detectors do not show of the CT, one sentence each


def geometry_of(geometry: str | os.PathLike[str], views: Sequence[str | float] | None = None) -> Geometry:
    """Return the geometry that "parallel" or "cone" (the defaults of `Geometry`) or a geometry file stands for.

    `views` are names (ap, pa, lateral) or angles in degrees, by default ap and lateral; of a file, the names of those
    to take, by default all. Raises InputError: another word, no geometry file, or a view that it does not have.
    """
    if geometry in ("parallel", "cone"):
        beam = Geometry.parallel if geometry == "parallel" else Geometry.cone
        return beam(views or ("ap", "lateral"))
    if isinstance(geometry, str) and not Path(geometry).suffix and not Path(geometry).exists():
        raise InputError.of("geometry", "kind", found=geometry, expected="parallel, cone, or a geometry file")
    loaded = Geometry.load(geometry)
    return Geometry(tuple(loaded.view(str(name)) for name in views)) if views else loaded


def radiographs(
    hu: npt.ArrayLike,
    index_to_mm: npt.ArrayLike,
    geometry: Geometry,
    *,
    mu_water: float = MU_WATER_PER_MM,
    threads: int = 0,
    progress: Progress = lambda *_: None,
) -> dict[str, Image]:
    """Return line integrals through a CT, (rows, columns) float32, dimensionless, by view name.

    `hu` is (x, y, z) HU, `index_to_mm` 4x4 from voxel index to patient mm, `mu_water` the attenuation of water per mm.
    The result does not depend on `threads`, of which 0 takes every processor; `progress` is called with the views done
    and the views in all. Raises InputError: a view in which nothing of the CT is seen, or a mu_water that is not
    positive.
    """
    if not 0 < mu_water < 10:
        raise InputError.of("mu_water", "attenuation per mm", found=mu_water, expected="above 0 and below 10")
    mu = attenuation(hu, mu_water)
    images: dict[str, Image] = {}
    for number, view in enumerate(geometry.views):
        image = project(mu, index_to_mm, view, threads)
        if not image.any():
            hint = "see --centre for where the origin of patient mm lies in the CT"
            raise InputError.of(f"view {view.name}", "rays", found="none that meets the CT", expected="some", hint=hint)
        images[view.name] = image
        progress(number + 1, len(geometry.views))
    return images


def cut_off(geometry: Geometry, images: Mapping[str, Image]) -> tuple[str, ...]:
    """Return a sentence for each view at whose edges the detector cuts the CT off."""
    notes = []
    for view in geometry.views:
        image = images[view.name]
        edges = {"upper": image[0], "lower": image[-1], "left": image[:, 0], "right": image[:, -1]}
        sides = [name for name, values in edges.items() if values.max() > SEEN]
        if sides:
            height, width = (n * step / view.magnification for n, step in zip(view.shape, view.spacing_mm, strict=True))
            notes.append(
                f"{view.name}: the detector, which shows {width:.0f} x {height:.0f} mm, cuts the CT off at its "
                f"{' and '.join(sides)} edge; a geometry file can name a larger one"
            )
    return tuple(notes)


def calibrated(geometry: Geometry, images: Sequence[Image], source: str) -> dict[str, XRay]:
    """Return line integrals on a geometry's detectors as X-rays."""
    return {
        view.name: XRay(image=image, calibrated=True, spacing_mm=view.spacing_mm, source=source, view=view.name)
        for view, image in zip(geometry.views, images, strict=True)
    }


def check_folder(folder: str | os.PathLike[str], geometry: Geometry) -> Path:
    """Return a folder, absent or not, unless it is known before a long run that X-rays can't be written to it.

    Raises InputError: a file, a place that can't be written, or a folder with X-rays of views that `geometry` lacks:
    its geometry.json would no longer name them.
    """
    target = atomic.check_folder(folder)
    if (target / GEOMETRY_FILE).is_file():
        old, new = ({view.name for view in g.views} for g in (Geometry.load(target / GEOMETRY_FILE), geometry))
        if stale := ", ".join(sorted(old - new)):
            found = f"a {GEOMETRY_FILE} with other views ({stale})"
            raise InputError.of(target, "output", found=found, expected="a new folder, or the same views")
    return target


def save(folder: str | os.PathLike[str], images: Mapping[str, Image], geometry: Geometry) -> tuple[Path, ...]:
    """Write each view's .npy and .png, then geometry.json, each whole or not at all; raises X2CTError."""
    target, written = Path(folder), list[Path]()
    for name, image in images.items():
        array = io.BytesIO()
        np.save(array, np.ascontiguousarray(image, np.float32), allow_pickle=False)
        files = {".npy": array.getvalue(), ".png": _png(display(image), geometry.view(name).spacing_mm)}
        written += [atomic.write_atomically(target / f"{name}{suffix}", data) for suffix, data in files.items()]
    geometry.save(target / GEOMETRY_FILE)
    return (*written, target / GEOMETRY_FILE)


def display(image: Image) -> npt.NDArray[np.uint16]:
    """Return line integrals as display values: air 0, dense bright, linear up to the 99.9th percentile (white)."""
    white = float(np.percentile(image, WHITE_PERCENTILE)) or float(image.max()) or 1.0
    return np.asarray(np.rint(np.clip(image / white, 0, 1) * 65535), np.uint16)


def _png(picture: npt.NDArray[np.uint16], spacing_mm: tuple[float, float]) -> bytes:
    stream, info = io.BytesIO(), PngInfo()
    info.add_text(DENSE_KEY, DENSE_BRIGHT)
    row, column = spacing_mm
    images.fromarray(picture).save(stream, "PNG", pnginfo=info, dpi=(25.4 / column, 25.4 / row))
    return stream.getvalue()
