"""PNG pictures of volumes and X-rays, drawn as a radiologist expects them, with Pillow alone.

Convention, written into each picture: the patient's right is on the left of coronal and axial pictures and of frontal
X-rays, the front on the left of sagittal pictures and lateral X-rays; the head, or the front in axial ones, is up.
A millimetre is as long in every panel of a volume, along both of its sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.geometry import MU_WATER_PER_MM
from x2ct.io.ct.volume import Volume
from x2ct.io.xray.radiograph import XRay
from x2ct.render.panels import Panel, Window, circles, page, png, window

if TYPE_CHECKING:
    from x2ct.engine.residual import Residual

HuArray = npt.NDArray[np.floating[Any]]

WIDE: Window = (-1000.0, 600.0)  # lungs, soft tissue and bone in one picture
BONE: Window = (0.0, 1200.0)  # of maximum intensity projections
DIFFERENCE: Window = (-500.0, 500.0)
RESIDUAL_MM = 50.0  # of water, from black to the brightest red or blue
_UNKNOWN = 70  # grey
WARNING = "synthetic, not for diagnosis"
CONVENTION = "R: patient's right, A: front; head up, in axial slices the front"
PLANES = ("coronal", "sagittal", "axial")
SUFFIXES = (".png",)

_ENDS = {"coronal": "RL", "sagittal": "AP", "axial": "RL"}
_VIEW_ENDS = {"ap": "RL", "pa": "RL", "lateral": "AP"}
_ACROSS = {"coronal": 1, "sagittal": 0, "axial": 2}  # the axis that a plane's slices and projections run along


def preview(
    volume: Volume,
    xrays: Mapping[str, XRay] | None = None,
    *,
    synthetic: bool = True,
    panel_px: int = 320,
    heading: str = "",
    residuals: Sequence[Residual] = (),
    spread: Volume | None = None,
) -> Image.Image:
    """Draw centre slices above, bone (maximum intensity) below, and beside them the X-rays and what these show beyond.

    `xrays` are by view name; of `residuals` (`x2ct.engine.residual`), red is where an X-ray shows more attenuation than
    the CT, blue where less, grey where the CT's grid does not hold a ray; `spread` is the standard deviation of several
    samples, whose slices go below. `synthetic` is whether the picture says that this is no scan of a patient,
    `panel_px` the longest side of the volume in pixels, `heading` a line above the panels.
    """
    scale = _Scale(volume.shape, volume.spacing_mm, panel_px)
    slices, bone = scale.slices(volume.hu), [scale.bone(volume.hu, plane) for plane in PLANES]
    height = slices[0].image.height
    pictures = xray_panels(xrays or {}, height)
    maps = _residual_panels(residuals, height)
    rows = [[*slices, *pictures[:1], *maps[:1]], [*bone, *pictures[1:2], *maps[1:2]]]
    if spread is not None:
        rows.append(scale.slices(spread.hu, "standard deviation", spread_window(spread.hu)))
    colours = "; X-ray less CT: red where the X-ray shows more, blue where less, grey where unknown" if maps else ""
    return page(rows, (f"{WARNING}; " if synthetic else "") + CONVENTION + colours, heading)


def unexplained(residuals: Sequence[Residual], xrays: Mapping[str, XRay], *, panel_px: int = 400) -> Image.Image:
    """Draw each X-ray, by view name, beside the map of what it shows beyond the CT, one view a row.

    The maps are as in `preview`, their areas numbered as in `Residual.areas`; a picture is `panel_px` high.
    """
    pictures = dict(zip(xrays, xray_panels(xrays, panel_px), strict=True))
    maps = _residual_panels(residuals, panel_px)
    rows = [[pictures[one.view], picture] for one, picture in zip(residuals, maps, strict=True)]
    return page(rows, "red: the X-ray shows more than the CT, blue: less, grey: unknown; circles: unexplained areas")


def save_unexplained(path: str | PathLike[str], residuals: Sequence[Residual], xrays: Mapping[str, XRay]) -> Path:
    """Write `unexplained` as a PNG; raises as `save`."""
    return atomic.write_atomically(atomic.check_writable(path, SUFFIXES), png(unexplained(residuals, xrays)))


def comparison(
    truth: Volume, synthesis: Volume, xrays: Mapping[str, XRay] | None = None, *, panel_px: int = 300
) -> Image.Image:
    """Draw truth, synthesis and difference in rows; three planes and the bone in columns; the X-rays at the right.

    Raises InputError where the volumes' grids differ.
    """
    if truth.shape != synthesis.shape or not np.allclose(truth.spacing_mm, synthesis.spacing_mm, rtol=1e-3):
        found = f"{synthesis.shape} voxels of {synthesis.spacing_mm} mm"
        expected = f"{truth.shape} of {truth.spacing_mm} as the truth has"
        raise InputError.of(synthesis.source, "grid", found=found, expected=expected)
    scale = _Scale(truth.shape, truth.spacing_mm, panel_px)
    rows = [scale.row(truth.hu, "truth"), scale.row(synthesis.hu, "synthesis")]
    rows.append(scale.differences(truth.hu, synthesis.hu))
    for row, picture in zip(rows, xray_panels(xrays or {}, rows[0][0].image.height), strict=False):
        row.append(picture)
    return page(rows, f"{WARNING}; {CONVENTION}; difference: red where the synthesis is higher, blue where lower")


def training_progress(
    truth: HuArray,
    denoised: HuArray,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    names: tuple[str, str] = ("truth", "denoised"),
    further: Mapping[str, HuArray] | None = None,
) -> Image.Image:
    """Draw centre slices and bone of the truth above what the network makes of it, for a glance while it trains.

    Volumes are HU (x, y, z), RAS+, of one shape; `names` are those of the first two rows, `further` has more rows by
    name. Raises InputError where a shape differs.
    """
    volumes = [*zip(names, (truth, denoised), strict=True), *(further or {}).items()]
    for _, hu in volumes:
        if hu.shape != truth.shape:
            raise InputError.of("preview", "shape", found=hu.shape, expected=truth.shape)
    scale = _Scale(truth.shape, spacing_mm, 200)
    return page([scale.row(hu, name) for name, hu in volumes], f"{WARNING}; {CONVENTION}")


def save(
    path: str | PathLike[str],
    volume: Volume,
    xrays: Mapping[str, XRay] | None = None,
    *,
    truth: Volume | None = None,
    **further: Any,
) -> Path:
    """Write `preview` (`further` are its arguments), or with a truth `comparison`, as a PNG.

    Raises InputError for a path that doesn't end with .png or can't be written, or grids that differ, and X2CTError
    where the write fails on the way.
    """
    target = atomic.check_writable(path, SUFFIXES)
    picture = preview(volume, xrays, **further) if truth is None else comparison(truth, volume, xrays)
    return atomic.write_atomically(target, png(picture))


def plane_of(hu: HuArray, plane: str) -> HuArray:
    """Return the centre slice of (x, y, z) HU in a plane of `PLANES` as (rows, columns), as it is looked at."""
    axis = _ACROSS[plane]
    return facing(np.take(hu, hu.shape[axis] // 2, axis))


def facing(slab: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn (first, second) axes in RAS+ order so that the second runs up and the first to the left."""
    return slab.T[::-1, ::-1]


def is_spread(hu: HuArray) -> bool:
    """Return whether a volume is a standard deviation, in which nothing is negative, and not a CT, which has air."""
    return float(hu.min()) >= 0


def spread_window(hu: HuArray) -> Window:
    """Return the window of a standard deviation: from 0 to the 99.5th percentile, rounded up to 10 HU."""
    return 0.0, max(10.0, float(np.ceil(np.percentile(hu, 99.5) / 10) * 10))


@dataclass(frozen=True)
class _Scale:
    """Draws planes of volumes of one grid, a millimetre as long in all of them."""

    shape: Sequence[int]
    spacing_mm: Sequence[float]
    panel_px: int  # the longest side of the volume

    def panel(self, pixels: npt.NDArray[np.uint8], plane: str, title: str, limits: Window | None = None) -> Panel:
        """Return pixels of a plane as a panel; the window's limits stand behind the title of the first plane."""
        sides = [size * step for size, step in zip(self.shape, self.spacing_mm, strict=True)]
        scale = self.panel_px / max(sides)
        width, height = (max(1, round(side * scale)) for axis, side in enumerate(sides) if axis != _ACROSS[plane])
        picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.BICUBIC)
        text = f", {limits[0]:g} to {limits[1]:g} HU" if limits and plane == PLANES[0] else ""
        return Panel(picture.convert("RGB"), title + text, _ENDS[plane])

    def slices(self, hu: HuArray, name: str = "", limits: Window = WIDE) -> list[Panel]:
        """Return the centre slices."""
        lead = f"{name}: " if name else ""
        return [self.panel(window(plane_of(hu, plane), limits), plane, lead + plane, limits) for plane in PLANES]

    def bone(self, hu: HuArray, plane: str) -> Panel:
        """Return the maximum intensity projection across a plane."""
        return self.panel(window(facing(hu.max(axis=_ACROSS[plane])), BONE), plane, "bone (MIP)", BONE)

    def row(self, hu: HuArray, name: str) -> list[Panel]:
        """Return the centre slices and the bone from the front."""
        return [*self.slices(hu, name), self.bone(hu, "coronal")]

    def differences(self, truth: HuArray, synthesis: HuArray) -> list[Panel]:
        """Return the differences of two volumes' slices and bone, as `row`."""
        errors = {plane: plane_of(synthesis, plane).astype(np.float32) - plane_of(truth, plane) for plane in PLANES}
        slices = [self.panel(diverging(error), plane, "difference", DIFFERENCE) for plane, error in errors.items()]
        bone = facing(synthesis.max(axis=1).astype(np.float32) - truth.max(axis=1))
        return [*slices, self.panel(diverging(bone), "coronal", "bone (MIP)")]


def diverging(error: npt.NDArray[Any], most: float = DIFFERENCE[1]) -> npt.NDArray[np.uint8]:
    """Colour differences: 0 is black, above it red, below it blue, white-hot at `most` and beyond."""
    level = np.clip(error / most, -1, 1)
    above, below = np.maximum(level, 0), np.maximum(-level, 0)
    red, blue = np.minimum(1, 1.6 * above), np.minimum(1, 1.6 * below)
    green = 0.45 * above + 0.55 * below
    colour = np.stack([red + 0.3 * below, green, blue + 0.2 * above], -1)
    return np.asarray(np.rint(colour.clip(0, 1) * 255), np.uint8)


def xray_panels(xrays: Mapping[str, XRay], height: int) -> list[Panel]:
    """Return X-rays, `height` pixels high in their own aspect, in grey between their 0.5th and 99.5th percentile."""
    panels = []
    for name, xray in xrays.items():
        picture = _picture(window(xray.image), xray.spacing_mm or (1.0, 1.0), height, "LANCZOS")
        panels.append(Panel(picture, f"X-ray, {name}", _VIEW_ENDS.get(name, "")))
    return panels


def _residual_panels(residuals: Sequence[Residual], height: int) -> list[Panel]:
    """Return the signed maps on the encoder's detector, areas circled and numbered, unknown rays in grey."""
    panels = []
    for residual in residuals:
        water = residual.difference / MU_WATER_PER_MM
        finite = np.isfinite(water)
        pixels = np.where(finite[..., None], diverging(np.where(finite, water, 0), RESIDUAL_MM), _UNKNOWN)
        picture = _picture(pixels.astype(np.uint8), residual.pitch_mm, height, "BOX")
        sides_mm = [count * pitch for count, pitch in zip(water.shape, residual.pitch_mm, strict=True)]
        circles(picture, [(area.down_mm, area.across_mm, area.area_mm2) for area in residual.areas], sides_mm)
        scale = f", -{RESIDUAL_MM:g} to {RESIDUAL_MM:g} mm of water" if finite.any() else ": could not be compared"
        title = f"X-ray less CT, {residual.view}{scale}"
        panels.append(Panel(picture, title, _VIEW_ENDS.get(residual.view, "")))
    return panels


def _picture(pixels: npt.NDArray[np.uint8], pitch_mm: tuple[float, float], height: int, resampling: str) -> Image.Image:
    """Return pixels of a detector in their own aspect, no wider than twice their height."""
    rows, columns = pixels.shape[:2]
    width = min(2 * height, max(1, round(height * columns * pitch_mm[1] / (rows * pitch_mm[0]))))
    return Image.fromarray(pixels).resize((width, height), Image.Resampling[resampling]).convert("RGB")
