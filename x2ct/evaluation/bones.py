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
    """Return a CT's bones by pieces: 0 where there is none, 1, 2, ... on the bone voxels of each."""
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
    """Return the shares of the truth's pieces of bone of which the estimate has "any" voxel, and a "quarter" of them.

    Grain gives a single voxel too. NaN without a piece.
    """
    bone = np.asarray(estimate, np.float32) >= BONE_HU
    sizes = np.bincount(labels.ravel())[1:]
    if not len(sizes):
        return {"any": math.nan, "quarter": math.nan}
    hit = np.bincount(labels[bone], minlength=len(sizes) + 1)[1:]
    return {"any": float(np.mean(hit > 0)), "quarter": float(np.mean(hit >= QUARTER * sizes))}


def surface_distance_95(truth: npt.ArrayLike, estimate: npt.ArrayLike, spacing_mm: Spacing) -> float:
    """Return the 95% Hausdorff distance of the two bones' surfaces in mm; NaN where one has no bone.

    Surface voxels are those of the bone that have a face to what is none (the array's border is no face). For each of
    one, the distance to the nearest of the other; the larger of the two directions' 95th percentiles.
    """
    a, b = pair(truth, estimate, None)
    first, second = (bone & ~ndimage.binary_erosion(bone, border_value=1) for bone in (a >= BONE_HU, b >= BONE_HU))
    if not first.any() or not second.any():
        return math.nan
    ways = (first, second), (second, first)
    distances = (ndimage.distance_transform_edt(~other, spacing_mm)[one] for one, other in ways)
    return max(float(np.percentile(distance, 95)) for distance in distances)


def renumbered(labels: Labels, least: float) -> Labels:
    """Return the labels without pieces of fewer voxels than `least`, numbered without gaps."""
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = sizes >= least
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return np.asarray(numbers[labels])
