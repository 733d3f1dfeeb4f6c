"""Synthetic lesions inserted into a CT: nodules in the lungs, and gaps in ribs or long bones; and where they can go.

Sites are chosen from the truth alone, without chance, so that the same CT always gets the same findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from x2ct.data.body import lung_mask
from x2ct.evaluation.case import Case
from x2ct.evaluation.metrics import BONE_HU, BoolArray, FloatArray

Matrix = npt.NDArray[np.float64]
Point = npt.NDArray[np.float64]

NODULE_HU = 50.0  # solid; some 850 HU above lung
CLEARANCE_MM = 5.0  # lung between a nodule and whatever is no lung

GAP_HU = 40.0
GAP_RADIUS_MM = 12.0
MARROW_HU = 60.0  # what is denser, within a gap, is taken for bone and becomes `GAP_HU`
ROD_MM = 15.0  # a rib is looked for in balls of this radius: long one way and thin both others
_THIN_MM, _LONG_MM = 4.5, 6.5
"""Standard deviations of a rod's voxels across and along it."""
_TRIES = 400


@dataclass(frozen=True, eq=False)
class Nodule:
    """A solid ball in a lung; what is denser already stays."""

    centre: Point
    diameter_mm: float

    def put(self, hu: npt.NDArray[Any], index_to_mm: Matrix) -> FloatArray:
        """The volume with the nodule."""
        changed, box, off, voxel = _around(self.centre, self.diameter_mm / 2 + 5, hu, index_to_mm)
        share = np.clip((self.diameter_mm / 2 - np.linalg.norm(off, axis=-1)) / voxel + 0.5, 0, 1)
        here = changed[box]
        changed[box] = np.maximum(here, here + share * (NODULE_HU - here))
        return changed


@dataclass(frozen=True, eq=False)
class Gap:
    """A piece of a rod of bone, taken out across its axis and filled with soft tissue."""

    centre: Point
    axis: Point
    length_mm: float

    def put(self, hu: npt.NDArray[Any], index_to_mm: Matrix) -> FloatArray:
        """The volume with the gap."""
        changed, box, off, voxel = _around(self.centre, GAP_RADIUS_MM + self.length_mm, hu, index_to_mm)
        along = off @ self.axis
        across = np.sqrt(np.maximum(np.sum(off * off, axis=-1) - along**2, 0))
        share = np.clip((self.length_mm / 2 - np.abs(along)) / voxel + 0.5, 0, 1) * (across <= GAP_RADIUS_MM)
        here = changed[box]
        changed[box] = np.where(here > MARROW_HU, here + share * (GAP_HU - here), here)
        return changed


Finding = Nodule | Gap


def lungs(case: Case) -> BoolArray | None:
    """The lungs on the case's grid with the vessels in them, or None without any."""
    mask = lung_mask(case.truth, case.body, case.grid.spacing_mm)
    return None if mask is None else np.asarray(ndimage.binary_closing(mask, iterations=3))


def nodules(case: Case, diameter_mm: float) -> list[Nodule]:
    """At most one in each of four parts of the lungs (right, left; lower, upper): where it is farthest from the wall.

    A part without a place that has `CLEARANCE_MM` of lung around the nodule has none.
    """
    least_mm = diameter_mm / 2 + CLEARANCE_MM
    return [Nodule(place, diameter_mm) for place, depth_mm in _depths(case) if depth_mm >= least_mm]


def deepest(case: Case) -> list[Point]:
    """Return the place in each of four parts of the lungs farthest from the wall, in patient mm, the deepest first."""
    return [place for place, depth_mm in sorted(_depths(case), key=lambda pair: -pair[1]) if depth_mm > 0]


def _depths(case: Case) -> list[tuple[Point, float]]:
    """The deepest place of each quarter of the lungs, in patient mm, and how far it is from the wall, in mm."""
    mask = lungs(case)
    if mask is None:
        return []
    # Beyond the scan's end there is no lung: the array's border counts as a wall.
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), case.grid.spacing_mm)[1:-1, 1:-1, 1:-1]
    places = []
    for part in _quarters(mask):
        place = np.unravel_index(int(np.argmax(np.where(part, depth, 0))), depth.shape)
        places.append((_mm(np.asarray(place), case.grid.index_to_mm), float(depth[place])))
    return places


def gaps(case: Case, length_mm: float) -> list[Gap]:
    """At most one in each quarter (right, left; lower, upper) of the bones: where they are most like a lone rod."""
    bone = (case.truth >= BONE_HU) & case.body
    if not bone.any():
        return []
    places = np.argwhere(bone)
    points = _mm(places, case.grid.index_to_mm)
    tree = spatial.cKDTree(points)
    shape, margin = np.asarray(bone.shape), np.ceil(2 * ROD_MM / np.asarray(case.grid.spacing_mm))
    inner = np.all((places >= margin) & (places < shape - margin), axis=1)
    rods = []
    for part in _quarters(bone):
        own = np.flatnonzero(inner & part[tuple(places.T)])
        balls = (tree.query_ball_point(points[at], ROD_MM) for at in own[:: max(1, -(-len(own) // _TRIES))])
        rods_here = [rod for ball in balls if (rod := _rod(points[ball]))]
        if rods_here:
            _, middle, axis = max(rods_here, key=lambda rod: rod[0])
            rods.append(Gap(middle, axis, length_mm))
    return rods


def _rod(points: Point) -> tuple[float, Point, Point] | None:
    """How much longer than thin, the middle and the axis of points that make a rod; None where they don't."""
    if len(points) < 12:
        return None
    middle = points.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov((points - middle).T))
    thick, length = float(np.sqrt(max(variances[1], 0))), float(np.sqrt(variances[2]))
    if thick > _THIN_MM or length < _LONG_MM:
        return None
    return length / max(thick, 1e-3), middle, np.asarray(axes[:, 2], np.float64)


def _quarters(mask: BoolArray) -> Iterator[BoolArray]:
    """The mask's left and right, lower and upper parts, halved where its extent is."""
    x, _, z = (np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3))
    middle = [int(x[0] + x[-1] + 1) // 2, int(z[0] + z[-1] + 1) // 2]
    for across in (slice(None, middle[0]), slice(middle[0], None)):
        for along in (slice(None, middle[1]), slice(middle[1], None)):
            part = np.zeros(mask.shape, np.bool_)
            part[across, :, along] = mask[across, :, along]
            yield part


def _mm(index: npt.NDArray[Any], index_to_mm: Matrix) -> Point:
    return np.asarray(index @ index_to_mm[:3, :3].T + index_to_mm[:3, 3], np.float64)


def _around(
    centre: Point, reach_mm: float, hu: npt.NDArray[Any], index_to_mm: Matrix
) -> tuple[FloatArray, tuple[slice, ...], Point, float]:
    """A copy of a volume; its part within reach of a point; from there to its voxels, in mm; and its largest pitch."""
    pitch = np.linalg.norm(index_to_mm[:3, :3], axis=0)
    middle = np.linalg.inv(index_to_mm)[:3] @ np.append(centre, 1.0)
    low = np.clip(np.floor(middle - reach_mm / pitch), 0, hu.shape).astype(int)
    high = np.clip(np.ceil(middle + reach_mm / pitch) + 1, 0, hu.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    indices = np.moveaxis(np.mgrid[box], 0, -1)
    return np.array(hu, np.float32), box, _mm(indices, index_to_mm) - centre, float(pitch.max())
