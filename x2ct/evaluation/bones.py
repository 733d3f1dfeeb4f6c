"""What PSNR does not see: whether the bones are there, and where their surfaces lie.

Bone is what has at least 200 HU. That takes contrast-filled vessels, calcifications and metal along, in the truth as in
the estimate. A skeleton is one connected piece, so it is cut into pieces at its narrow places: closed over gaps of up
to two voxels, filled in each axial slice, and divided by a watershed of the distance to its surface. A chest falls into
some dozens of pieces: most ribs are one or two of them, and the spine is chunks of one to a few vertebrae.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from x2ct.evaluation.metrics import BONE_HU, pair

Spacing = tuple[float, float, float]
Labels = npt.NDArray[np.int32]

APART_MM = 15.0  # two pieces' middles are at least that far apart
THINNEST_MM = 2.5  # a piece has a place at least that far from its surface
SMALLEST_ML = 1.0  # smaller pieces are calcifications and noise

QUARTER = 0.25


def pieces(truth: npt.NDArray[np.float32], spacing_mm: Spacing) -> Labels:
    """The bones of a CT by pieces: 0 where there is none, 1, 2, ... on the bone voxels of each."""
    bone = np.asarray(truth) >= BONE_HU
    if not bone.any():
        return np.zeros(bone.shape, np.int32)
    solid = bone | ndimage.binary_closing(bone, iterations=2)
    solid = np.stack([ndimage.binary_fill_holes(solid[:, :, k]) for k in range(bone.shape[2])], axis=2)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(solid, spacing_mm), 1.0)
    apart = max(1, round(APART_MM / float(np.mean(spacing_mm))))
    middles = peak_local_max(depth, min_distance=apart, threshold_abs=THINNEST_MM, labels=solid.astype(np.int32))  # type: ignore[no-untyped-call]
    seeds = np.zeros(bone.shape, np.int32)
    seeds[tuple(middles.T)] = np.arange(1, len(middles) + 1)
    labels = np.where(bone, watershed(-depth, seeds, mask=solid), 0).astype(np.int32)  # type: ignore[no-untyped-call]
    return renumbered(labels, SMALLEST_ML * 1000 / float(np.prod(spacing_mm)))


def present(labels: Labels, estimate: npt.ArrayLike) -> dict[str, float]:
    """Of the truth's pieces of bone, the share that the estimate has at all, and the share it has a quarter of.

    "any" asks for a single voxel of 200 HU within the piece, which grain gives too; "quarter" for a quarter of its
    voxels. NaN without a piece.
    """
    bone = np.asarray(estimate, np.float32) >= BONE_HU
    count = int(labels.max())
    if count == 0:
        return {"any": math.nan, "quarter": math.nan}
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    hit = np.bincount(labels[bone].ravel(), minlength=count + 1)[1:]
    return {"any": float(np.mean(hit > 0)), "quarter": float(np.mean(hit >= QUARTER * sizes))}


def surface_distance_95(truth: npt.ArrayLike, estimate: npt.ArrayLike, spacing_mm: Spacing) -> float:
    """The 95% Hausdorff distance of the two bones' surfaces in mm.

    Surface voxels are those of the bone that have a face to what is none (the array's border is no face). For each of
    one, the distance to the nearest of the other; the larger of the two directions' 95th percentiles. NaN where one has
    no bone.
    """
    a, b = pair(truth, estimate, None)
    first, second = _surface(a >= BONE_HU), _surface(b >= BONE_HU)
    if not first.any() or not second.any():
        return math.nan
    to_second = ndimage.distance_transform_edt(~second, spacing_mm)[first]
    to_first = ndimage.distance_transform_edt(~first, spacing_mm)[second]
    return max(float(np.percentile(to_second, 95)), float(np.percentile(to_first, 95)))


def _surface(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=1))


def renumbered(labels: Labels, least: float) -> Labels:
    """Without the pieces of fewer voxels, numbered without gaps."""
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = sizes >= least
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return np.asarray(numbers[labels])
