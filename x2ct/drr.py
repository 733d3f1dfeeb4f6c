"""Digitally reconstructed radiographs: the X-rays that a CT would have given.

A CT is projected whole, at its own resolution, with its centre voxel at the origin of patient mm. Each view becomes two
files: NAME.npy holds line integrals (float32, dimensionless, what `x2ct sample` reads as calibrated), NAME.png the same
as a picture (16 bit, dense tissue bright). geometry.json says where both were taken from.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from x2ct import output
from x2ct.errors import InputError
from x2ct.geometry import MU_WATER_PER_MM, Geometry, Image, attenuation, project
from x2ct.grid import centred_affine
from x2ct.radiograph import XRay
from x2ct.volume import Volume

GEOMETRY_FILE = "geometry.json"
WHITE_PERCENTILE = 99.9  # of the line integrals: above it lies metal, which may be as white as it likes

Progress = Callable[[int, int], None]


def drr(
    ct: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    geometry: str | os.PathLike[str] = "parallel",
    views: Sequence[str | float] | None = None,
    *,
    mu_water: float = MU_WATER_PER_MM,
    threads: int = 0,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Project a CT file to X-ray files.

    Args:
        ct: what `Volume.load` reads.
        folder: where the files go; made if it is not there. Files of the same names are replaced.
        geometry: "parallel", "cone", or a geometry file; see `geometry_of`.
        views: see `geometry_of`.
        mu_water: attenuation of water per mm.
        threads: 0 takes every processor.
        progress: called with the views done and the views in all.

    Returns:
        The files written, geometry.json last.

    Raises:
        InputError: a CT, a geometry or a folder that can't be used, or a view that misses the CT.
        X2CTError: the write failed on the way; each file is whole or not there.
    """
    wanted = geometry_of(geometry, views)
    target = check_folder(folder)
    images = radiographs(Volume.load(ct), wanted, mu_water=mu_water, threads=threads, progress=progress)
    return save(target, images, wanted)


def geometry_of(geometry: str | os.PathLike[str], views: Sequence[str | float] | None = None) -> Geometry:
    """The geometry that a word or a file stands for.

    Args:
        geometry: "parallel" or "cone" for the defaults of `Geometry`, or a geometry file.
        views: names (ap, pa, lateral) or angles in degrees, by default ap and lateral; of a file, the names of the
            views to take, by default all.

    Raises:
        InputError: neither of the words nor a geometry file, or a view that it does not have.
    """
    if geometry == "parallel":
        return Geometry.parallel(views or ("ap", "lateral"))
    if geometry == "cone":
        return Geometry.cone(views or ("ap", "lateral"))
    if isinstance(geometry, str) and not Path(geometry).suffix and not Path(geometry).exists():
        raise InputError.of("geometry", "kind", found=geometry, expected="parallel, cone, or a geometry file")
    loaded = Geometry.load(geometry)
    return Geometry(tuple(loaded.view(str(name)) for name in views)) if views else loaded


def radiographs(
    volume: Volume,
    geometry: Geometry,
    *,
    mu_water: float = MU_WATER_PER_MM,
    threads: int = 0,
    progress: Progress | None = None,
) -> dict[str, Image]:
    """Line integrals through a CT, by view name.

    Args:
        volume: the CT; its centre voxel is put at the origin of patient mm, its axes along patient mm's.
        geometry: the views.
        mu_water: attenuation of water per mm.
        threads: 0 takes every processor; the result does not depend on it.
        progress: called with the views done and the views in all.

    Returns:
        (rows, columns) float32, dimensionless.

    Raises:
        InputError: a view in which nothing of the CT is seen, or a mu_water that is not positive.
    """
    if not 0 < mu_water < 10:
        raise InputError.of("mu_water", "attenuation per mm", found=mu_water, expected="above 0 and below 10")
    mu = attenuation(volume.hu, mu_water)
    index_to_mm = centred_affine(volume.shape, volume.spacing_mm)
    images: dict[str, Image] = {}
    for done, view in enumerate(geometry.views):
        image = project(mu, index_to_mm, view, threads)
        if not image.any():
            hint = "patient mm start at the CT's centre"
            raise InputError.of(f"view {view.name}", "rays", found="none that meets the CT", expected="some", hint=hint)
        images[view.name] = image
        if progress is not None:
            progress(done + 1, len(geometry.views))
    return images


def calibrated(geometry: Geometry, images: Sequence[Image], source: str) -> dict[str, XRay]:
    """Line integrals on a geometry's detectors as X-rays."""
    return {
        view.name: XRay(image=image, calibrated=True, spacing_mm=view.spacing_mm, source=source, view=view.name)
        for view, image in zip(geometry.views, images, strict=True)
    }


def calibrated_views(
    hu: npt.ArrayLike, index_to_mm: npt.ArrayLike, geometry: Geometry, source: str, threads: int = 0
) -> dict[str, XRay]:
    """A person's X-rays, as the network sees a calibrated study: projected from the whole CT.

    Args:
        hu: (x, y, z) HU.
        index_to_mm: 4x4, voxel index to patient mm.
        geometry: the views.
        source: whose they are, as messages name it.
        threads: 0 takes every processor; the result does not depend on it.
    """
    mu = attenuation(hu)
    images = [project(mu, index_to_mm, view, threads) for view in geometry.views]
    return calibrated(geometry, images, source)


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Says, before a long run, that X-rays can't be written to a folder; an absent one may be made later.

    Raises:
        InputError: a file, or a place that can't be written.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise InputError.of(target, "output", found="a file", expected="a folder")
    # what can't hold a file can't hold a folder
    output.check_writable(target / GEOMETRY_FILE if target.is_dir() else target)
    return target


def save(folder: str | os.PathLike[str], images: dict[str, Image], geometry: Geometry) -> tuple[Path, ...]:
    """Write each view's .npy and .png, then geometry.json; each file is moved into place whole.

    Raises:
        X2CTError: a write failed.
    """
    target = Path(folder)
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError.of(target, "output", found=error.strerror, expected="a folder that can be written") from error
    written = []
    for name, image in images.items():
        written.append(output.write_atomically(target / f"{name}.npy", _npy(image)))
        written.append(output.write_atomically(target / f"{name}.png", _png(display(image))))
    geometry.save(target / GEOMETRY_FILE)
    return (*written, target / GEOMETRY_FILE)


def display(image: Image) -> npt.NDArray[np.uint16]:
    """Line integrals as display values: air 0, dense bright, linear up to the 99.9th percentile, which is white."""
    white = float(np.percentile(image, WHITE_PERCENTILE)) or float(image.max()) or 1.0
    return np.asarray(np.rint(np.clip(image / white, 0, 1) * 65535), np.uint16)


def _npy(image: Image) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(image, np.float32), allow_pickle=False)
    return stream.getvalue()


def _png(picture: npt.NDArray[np.uint16]) -> bytes:
    import PIL.Image
    from PIL.PngImagePlugin import PngInfo

    from x2ct.xrays.picture import DENSE_BRIGHT, DENSE_KEY

    stream, told = io.BytesIO(), PngInfo()
    told.add_text(DENSE_KEY, DENSE_BRIGHT)
    PIL.Image.fromarray(picture).save(stream, "PNG", pnginfo=told)
    return stream.getvalue()
