"""Metrics of a synthesised CT against the true one, in HU, over the whole volume.

All are 3D. The peak of PSNR and the data range of SSIM are the HU window's width, so that the same error gives the
same figure whatever else is in the picture. PSNR is blind to bone: whether bones are there, and where their surfaces
lie, is measured apart. Bone has at least 200 HU, which takes contrast-filled vessels, calcifications and metal along,
in the truth as in the estimate.

`slice_psnr` and `slice_ssim` are for old tables to be read beside ours, and for nothing else: with a peak of 4095 on
values that span 2500, averaged over the slices of all three axes (Ying et al. 2019, X2CT-GAN, and those who compare
with it), those of air counting as perfect. The same error gives a PSNR some 4 to 11 dB higher.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.metrics import structural_similarity
from skimage.segmentation import watershed

from x2ct.bundle.intensity import BONE_HU as BONE_HU
from x2ct.errors import InputError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Window = tuple[float, float]
Spacing = tuple[float, float, float]
Labels = npt.NDArray[np.int32]

WINDOW_HU: Window = (-1000.0, 1500.0)
LEGACY_PEAK = 4095.0
PERFECT_DB = 100.0  # what a slice without any error counts in `slice_psnr`
APART_MM = 15.0  # two pieces' middles are at least that far apart
THINNEST_MM = 2.5  # a piece has a place at least that far from its surface
SMALLEST_ML = 1.0  # smaller pieces are calcifications and noise
SIDE = 7  # voxels along the side of the square window of `slice_ssim`
BANDS_HU: dict[str, Window] = {"lung": (-math.inf, -500.0), "soft": (-200.0, BONE_HU), "bone": (BONE_HU, math.inf)}
"""Tissue by the truth's HU, inside the body: lower bound included, upper bound not. Partial volumes are in none."""


def psnr(truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window = WINDOW_HU) -> float:
    """Return the PSNR in dB: 10 log10(width^2 / MSE) over all voxels, clipped to the window; inf for no error."""
    a, b = pair(truth, estimate, window)
    error = float(np.mean((a - b) ** 2, dtype=np.float64))
    return math.inf if error == 0 else 10 * math.log10((window[1] - window[0]) ** 2 / error)


def ssim(truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window = WINDOW_HU) -> float:
    """Return the structural similarity (Wang et al. 2004) in 3D: Gaussian weights of sigma 1.5, range = width.

    It is computed on HU from the window's lower end up, because its luminance term takes intensities for non-negative:
    on signed HU it breaks down around 0, in soft tissue.

    Raises InputError: an axis is shorter than the weights' 11 voxels.
    """
    a, b = pair(truth, estimate, window)
    if min(a.shape) < 11:
        raise InputError.of("ssim", "shape", found=a.shape, expected="at least 11 voxels along each axis")
    width, a, b = window[1] - window[0], a - np.float32(window[0]), b - np.float32(window[0])
    options = {"data_range": width, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a, b, **options))  # type: ignore[no-untyped-call]


def mae_hu(
    truth: npt.ArrayLike, estimate: npt.ArrayLike, body: BoolArray | None = None, window: Window = WINDOW_HU
) -> dict[str, float]:
    """Return the mean absolute error in HU of "all", "body" and its `BANDS_HU`; NaN without a voxel or mask."""
    a, b = pair(truth, estimate, window)
    error = np.abs(a - b)
    inside = np.zeros(a.shape, np.bool_) if body is None else body
    bands = {"all": np.ones(a.shape, np.bool_), "body": inside}
    bands |= {name: inside & (a >= low) & (a < high) for name, (low, high) in BANDS_HU.items()}
    errors = {name: error[mask] for name, mask in bands.items()}
    return {name: float(np.mean(part, dtype=np.float64)) if part.size else math.nan for name, part in errors.items()}


def bone_dice(truth: npt.ArrayLike, estimate: npt.ArrayLike) -> float:
    """Return the Dice overlap 2 |A and B| / (|A| + |B|) of the bones; NaN if neither has any."""
    a, b = pair(truth, estimate, None)
    bone, guess = a >= BONE_HU, b >= BONE_HU
    total = int(bone.sum()) + int(guess.sum())
    return math.nan if total == 0 else 2 * int((bone & guess).sum()) / total


def bone_pieces(truth: npt.NDArray[np.float32], spacing_mm: Spacing) -> Labels:
    """Return a CT's bones by pieces: 0 where there is none, 1, 2, ... on the bone voxels of each.

    A skeleton is one connected piece, so it is cut at its narrow places: closed over gaps of up to two voxels, filled
    in each axial slice, and divided by a watershed of the distance to its surface. A chest falls into some dozens of
    pieces: most ribs are one or two of them, and the spine is chunks of one to a few vertebrae.
    """
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


def pieces_present(labels: Labels, estimate: npt.ArrayLike) -> dict[str, float]:
    """Return the shares of the truth's pieces of bone of which the estimate has "any" voxel, and a "quarter" of them.

    Grain gives a single voxel too. NaN without a piece.
    """
    bone = np.asarray(estimate, np.float32) >= BONE_HU
    sizes = np.bincount(labels.ravel())[1:]
    if not len(sizes):
        return {"any": math.nan, "quarter": math.nan}
    hit = np.bincount(labels[bone], minlength=len(sizes) + 1)[1:]
    return {"any": float(np.mean(hit > 0)), "quarter": float(np.mean(hit >= sizes / 4))}


def bone_surface_95(truth: npt.ArrayLike, estimate: npt.ArrayLike, spacing_mm: Spacing) -> float:
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


def reprojection_error(image: npt.ArrayLike, projected: npt.ArrayLike, rays: BoolArray | None = None) -> float:
    """Return the root mean square difference of two X-rays' line integrals over the given rays; NaN if none."""
    a, b = pair(image, projected, None)
    error = (a - b) ** 2
    errors = error if rays is None else error[rays]
    return float(np.sqrt(np.mean(errors, dtype=np.float64))) if errors.size else math.nan


def slice_psnr(truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window = WINDOW_HU) -> float:
    """Return the PSNR in dB at a peak of 4095: mean over an axis's slices, then over axes. For old tables."""
    a, b = pair(truth, estimate, window)
    squared = (a - b) ** 2
    axes = []
    for others in ((1, 2), (0, 2), (0, 1)):
        error = np.mean(squared, axis=others, dtype=np.float64)
        decibel = 10 * np.log10(LEGACY_PEAK**2 / np.where(error == 0, 1.0, error))
        axes.append(np.mean(np.where(error == 0, PERFECT_DB, decibel)))
    return float(np.mean(axes))


def slice_ssim(truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window = WINDOW_HU) -> float:
    """Return the SSIM in 2D, range 4095, flat 7 x 7 windows: mean over all slices; NaN where an axis is short."""
    a, b = (volume.astype(np.float64) - window[0] for volume in pair(truth, estimate, window))  # not negative
    if min(a.shape) < SIDE:
        return math.nan
    axes = []
    for axis in range(3):
        slices = zip(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0), strict=True)
        axes.append(np.mean([structural_similarity(x, y, win_size=SIDE, data_range=LEGACY_PEAK) for x, y in slices]))  # type: ignore[no-untyped-call]
    return float(np.mean(axes))


def pair(truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window | None) -> tuple[FloatArray, FloatArray]:
    """Return both as float32, clipped to the window if there is one. Raises InputError: other shapes, not finite."""
    a, b = np.asarray(truth, np.float32), np.asarray(estimate, np.float32)
    if a.shape != b.shape or a.size == 0:
        raise InputError.of("estimate", "shape", found=b.shape, expected=f"the truth's, {a.shape}")
    if not np.isfinite(b).all() or not np.isfinite(a).all():
        raise InputError.of("estimate", "values", found="NaN or infinite values", expected="finite values")
    return (a, b) if window is None else (np.clip(a, *window), np.clip(b, *window))
