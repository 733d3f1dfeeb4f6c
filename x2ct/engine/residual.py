"""What the X-rays show and the CT does not: each X-ray less the projection of the CT that was made from it.

Every run projects its CT along the X-rays' own rays, before any data-consistency step, and compares line integrals:

    r = y - A z    of a calibrated X-ray y,    r = (y - b) / a - A z    of one that is not,

A z the line integrals of the CT's attenuation z, a and b the least squares fit of y = a A z + b over the judged rays.
A ray is judged where the detector measured it and it can be taken to meet the body within the grid, as for data
consistency (`rays_within` in csrc/core). r over the attenuation of water is a length: mm of water that the CT lacks.

Unexplained attenuation is where r, smoothed by a Gaussian of 2.5 mm against noise, rises by 5 mm of water or more above
its surroundings, a Gaussian mean of 40 mm in which what differs by more counts as 5 mm: a CT is too dense or too thin
over large parts of it, which would hide what is missing. An area is what hangs together around such a peak at half of
its height or above, 50 mm^2 or more. Within 10 mm of the edge of what is judged none is sought: where the body, the
grid or the scan ends, an outline that is off by a millimetre makes a large residual. A ball of diameter d and
attenuation m above its surroundings that is missing from the CT makes an area at its centre, of 3/4 of its disc, with
an excess of d m / mu_water, to 11% up to 50 mm. Places are in mm at the isocentre, where an X-ray's pixels are as large
as the body's.

An area of more than `WARNS_MM` is a warning: CTs of validation patients have none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.geometry import MU_WATER_PER_MM
from x2ct.geometry.grid import Grid

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

SMOOTHING_MM, SURROUNDINGS_MM = 2.5, 40.0
LEAST_EXCESS_MM = 5.0
LEAST_AREA_MM2 = 50.0
EDGE_MM = 10.0
MOST_AREAS = 5
WARNS_MM = 50.0
"""An area of unexplained attenuation of more, in mm of water, is a warning. The highest of four samples each of the two
validation patients' CTs has 49.5 mm (benchmarks/results/unexplained-chest.md)."""
_APART_MM = 10.0  # between two peaks


@dataclass(frozen=True)
class Area:
    """Where an X-ray shows more attenuation than the CT."""

    across_mm: float  # from the X-ray's middle to the area's centre of mass, along its rows; positive to the right
    down_mm: float  # the same along its columns; positive downwards
    area_mm2: float  # of the part that has at least half of the excess
    excess_mm: float  # the highest excess in it over its surroundings, after smoothing, in mm of water

    @property
    def place(self) -> str:
        """Where it is, for a message."""
        down, across = ("below" if self.down_mm > 0 else "above"), ("right" if self.across_mm > 0 else "left")
        return f"{abs(self.down_mm):.0f} mm {down} and {abs(self.across_mm):.0f} mm {across} of the X-ray's middle"


@dataclass(frozen=True, eq=False)
class Residual:
    """One X-ray less the CT's projection."""

    view: str  # the X-ray's name
    difference: FloatArray  # (rows, columns) float32, r as a line integral; NaN where a ray is not judged
    pitch_mm: tuple[float, float]  # row and column pitch of `difference` at the isocentre
    rays: float  # the share that is judged of the rays that meet body and grid, 0 to 1
    fit: tuple[float, float] | None  # a and b of an X-ray that is not calibrated; None for a calibrated one
    areas: tuple[Area, ...]  # of unexplained attenuation, the highest excess first, `MOST_AREAS` at most

    def figures(self) -> dict[str, Any] | None:
        """Return the report's figures: root mean square, mean, areas. None where no ray is judged."""
        values = self.difference[np.isfinite(self.difference)].astype(np.float64)
        if not values.size:
            return None
        rms, mean = math.sqrt(float(np.mean(values**2))), float(np.mean(values))
        figures: dict[str, Any] = {
            "rms": round(rms, 6),
            "mean": round(mean, 6),
            "rms_mm_water": round(rms / MU_WATER_PER_MM, 3),
            "mean_mm_water": round(mean / MU_WATER_PER_MM, 3),
        }
        if self.fit is not None:
            figures["fit"] = {"scale": round(self.fit[0], 6), "offset": round(self.fit[1], 6)}
        rounded = [{key: round(value, 2) for key, value in asdict(area).items()} for area in self.areas]
        return {**figures, "unexplained": rounded}


class Rays:
    """The rays of a patient's X-rays that a CT on `grid` is judged along, found once for all runs.

    `views` are the X-rays on the encoder's picture, of row and column pitch `pitch_mm` at the isocentre. For each,
    `judged` (rows, columns) has the rays that the detector measured and that meet the body within the grid, and
    `shares` their share, 0 to 1, of the rays that meet body and grid. 0 threads take every processor.
    """

    def __init__(self, views: Sequence[_core.MeasuredView], bundle: Bundle, grid: Grid, threads: int = 0) -> None:
        self._grid, self._threads = grid, threads
        self.pitch_mm = bundle.xray.spacing_mm
        self.views = list(views)
        within = _core.rays_within(grid.shape, grid.index_to_mm, self.views, threads)
        lengths = self.project(np.ones(grid.shape, np.float32))
        bodies = [
            (length > 0) & (np.asarray(view[2]) > _core.AIR_INTEGRAL)
            for length, view in zip(lengths, self.views, strict=True)
        ]
        self.judged: list[BoolArray] = [body & counts for body, counts in zip(bodies, within, strict=True)]
        self.shares = [
            float(judged.sum() / max(1, body.sum())) for judged, body in zip(self.judged, bodies, strict=True)
        ]

    def project(self, mu: npt.ArrayLike) -> list[FloatArray]:
        """Return line integrals (rows, columns) of attenuation per mm (X, Y, Z), one image a view."""
        rows, columns = np.shape(self.views[0][2])
        return [
            _core.project(mu, self._grid.index_to_mm, matrix, rows, columns, self._threads)
            for _, matrix, *_ in self.views
        ]


class Reprojection:
    """A patient's X-rays, compared with the CT that one run makes of them.

    `seconds` are what it took so far: finding the rays, if this run had to, projecting and comparing.
    """

    def __init__(self, rays: Rays, seconds: float = 0.0) -> None:
        self._rays, self.seconds = rays, seconds
        self._uncorrected: list[list[FloatArray]] = []

    def add(self, sample: int, mu: npt.ArrayLike) -> None:
        """Take a sample's number and its attenuation per mm (X, Y, Z) before any data-consistency step."""
        started = time.perf_counter()
        self._uncorrected.append(self._rays.project(mu))
        self.seconds += time.perf_counter() - started

    def finish(self, mu: npt.ArrayLike) -> tuple[tuple[Residual, ...], tuple[Residual, ...] | None]:
        """Return the residuals before any data-consistency step, and after; None where there was no such step.

        `mu` is the attenuation per mm (X, Y, Z) of the CT that the run returns: of several samples, their mean.
        """
        started = time.perf_counter()
        last = self._residuals(self._rays.project(mu))
        first = None
        if self._uncorrected:
            first = self._residuals([np.mean(images, axis=0) for images in zip(*self._uncorrected, strict=True)])
        self.seconds += time.perf_counter() - started
        return (last, None) if first is None else (first, last)

    def _residuals(self, projections: Sequence[npt.NDArray[np.floating[Any]]]) -> tuple[Residual, ...]:
        residuals = []
        rays = self._rays
        parts = zip(rays.views, projections, rays.judged, rays.shares, strict=True)
        for (name, _, image, _, calibrated), projection, judged, share in parts:
            target, fit = np.asarray(image, np.float32), None
            judged = judged if share >= _core.FEWEST_RAYS else np.zeros_like(judged)
            if not calibrated:
                fit = _fit(target[judged], projection[judged])
                judged = judged if fit else np.zeros_like(judged)
                target = (target - fit[1]) / fit[0] if fit else target
            difference = np.where(judged, target - projection, np.nan).astype(np.float32)
            areas = unexplained(difference / MU_WATER_PER_MM, rays.pitch_mm)
            residuals.append(Residual(name, difference, rays.pitch_mm, share, fit, areas))
        return tuple(residuals)


def unexplained(excess_mm: npt.NDArray[Any], pitch_mm: tuple[float, float]) -> tuple[Area, ...]:
    """Return the areas of unexplained attenuation, see the module; the highest excess first.

    `excess_mm` (rows, columns), of this pitch, are the mm of water that the X-ray shows beyond the CT; NaN is unknown.
    """
    from scipy import ndimage

    known = np.isfinite(excess_mm)
    values = np.where(known, excess_mm, 0.0).astype(np.float64)

    def mean(image: npt.NDArray[np.float64], mm: float) -> npt.NDArray[np.float64]:
        total, weight = (
            ndimage.gaussian_filter(part, [mm / pitch for pitch in pitch_mm])
            for part in (np.where(known, image, 0.0), known.astype(np.float64))
        )
        return np.asarray(total / np.maximum(weight, 1e-12), np.float64)

    rough = mean(values, SURROUNDINGS_MM)
    around = mean(np.clip(values, rough - LEAST_EXCESS_MM, rough + LEAST_EXCESS_MM), SURROUNDINGS_MM)
    depth_mm = ndimage.distance_transform_edt(np.pad(known, 1), pitch_mm)[1:-1, 1:-1]
    smooth = np.where(depth_mm > EDGE_MM, mean(values, SMOOTHING_MM) - around, -np.inf)
    apart = [2 * int(_APART_MM / pitch) + 1 for pitch in pitch_mm]
    peaks = np.argwhere((smooth >= LEAST_EXCESS_MM) & (smooth == ndimage.maximum_filter(smooth, apart)))
    occupied, areas = np.zeros(known.shape, np.bool_), list[Area]()
    middle = (np.asarray(known.shape) - 1) / 2
    for peak in sorted(map(tuple, peaks), key=lambda place: -smooth[place]):
        labels, _ = ndimage.label(smooth >= smooth[peak] / 2)
        here = labels == labels[peak]
        area_mm2 = float(here.sum() * pitch_mm[0] * pitch_mm[1])
        if area_mm2 < LEAST_AREA_MM2 or (here & occupied).any():
            continue  # too small, or the shoulder of a higher one
        occupied |= here
        places = np.argwhere(here)
        down, across = (np.average(places, axis=0, weights=smooth[here]) - middle) * np.asarray(pitch_mm)
        areas.append(Area(float(across), float(down), area_mm2, float(smooth[peak])))
        if len(areas) == MOST_AREAS:
            break
    return tuple(areas)


def warnings(before: Sequence[Residual]) -> list[str]:
    """Return a line for each area of a CT, before any data-consistency step, that is beyond `WARNS_MM`."""
    return [
        f"{one.view}: shows attenuation that the CT lacks, {area.place}: {area.excess_mm:.0f} mm of water over "
        f"{area.area_mm2:.0f} mm^2 (expected at most {WARNS_MM:g} mm); look there in the X-ray, and in --preview"
        for one in before
        for area in one.areas
        if area.excess_mm > WARNS_MM
    ]


def facts(before: Sequence[Residual], after: Sequence[Residual] | None) -> list[dict[str, Any]]:
    """Return what a run's report says of each view, before any data-consistency step and after, where there was one."""
    entries = [{"view": one.view, "rays": round(one.rays, 6), "before": one.figures()} for one in before]
    for entry, one in zip(entries, after or (), strict=False):
        entry["after"] = one.figures()
    return entries


def _fit(values: FloatArray, projection: npt.NDArray[np.floating[Any]]) -> tuple[float, float] | None:
    """Return a and b of values = a projection + b by least squares; None where the two do not go together."""
    if values.size < 2:
        return None
    y, p = values.astype(np.float64), projection.astype(np.float64)
    covariance = np.cov(p, y)
    spread = math.sqrt(covariance[0, 0] * covariance[1, 1])
    if not spread > 0 or covariance[0, 1] < _core.WEAKEST_CORRELATION * spread:
        return None
    scale = float(covariance[0, 1] / covariance[0, 0])
    return scale, float(y.mean() - scale * p.mean())
