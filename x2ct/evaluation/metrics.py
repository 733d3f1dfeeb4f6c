"""Metrics of a synthesised CT against the true one, in HU, over the whole volume.

All are 3D. The peak of PSNR and the data range of SSIM are the HU window's width, so that the same error gives the
same figure whatever else is in the picture. Slice averages and a peak of 4095, common in this field, give figures that
are 4 to 11 dB higher and are not made here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError

BoolArray = npt.NDArray[np.bool_]
Window = tuple[float, float]

WINDOW_HU: Window = (-1000.0, 1500.0)
BONE_HU = 200.0
BANDS_HU: dict[str, Window] = {
    "lung": (-math.inf, -500.0),
    "soft": (-200.0, BONE_HU),
    "bone": (BONE_HU, math.inf),
}
"""Tissue by the truth's HU, inside the body: lower bound included, upper bound not. Partial volumes are in none."""


def psnr(truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window = WINDOW_HU) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(width^2 / MSE) over all voxels, both clipped to the window.

    Infinite for a perfect estimate.
    """
    a, b = _pair(truth, estimate, window)
    error = float(np.mean((a - b) ** 2, dtype=np.float64))
    return math.inf if error == 0 else 10 * math.log10((window[1] - window[0]) ** 2 / error)


def ssim(truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window = WINDOW_HU) -> float:
    """Structural similarity (Wang et al. 2004) in 3D: Gaussian weights of sigma 1.5 voxels, data range = window width.

    Raises:
        InputError: an axis is shorter than the weights' 11 voxels.
    """
    from skimage.metrics import structural_similarity

    a, b = _pair(truth, estimate, window)
    if min(a.shape) < 11:
        raise InputError.of("ssim", "shape", found=a.shape, expected="at least 11 voxels along each axis")
    width = window[1] - window[0]
    options = {"data_range": width, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a, b, **options))  # type: ignore[no-untyped-call]


def mae_hu(
    truth: npt.ArrayLike, estimate: npt.ArrayLike, body: BoolArray | None = None, window: Window = WINDOW_HU
) -> dict[str, float]:
    """Mean absolute error in HU: "all" voxels, the "body", and its tissue bands (see `BANDS_HU`).

    A band without a voxel is NaN, and so are the body and its bands where no body mask is given.
    """
    a, b = _pair(truth, estimate, window)
    error = np.abs(a - b)
    inside = np.zeros(a.shape, np.bool_) if body is None else body
    bands = {"all": np.ones(a.shape, np.bool_), "body": inside}
    bands |= {name: inside & (a >= low) & (a < high) for name, (low, high) in BANDS_HU.items()}
    return {
        name: float(np.mean(error[mask], dtype=np.float64)) if mask.any() else math.nan for name, mask in bands.items()
    }


def bone_dice(truth: npt.ArrayLike, estimate: npt.ArrayLike, threshold_hu: float = BONE_HU) -> float:
    """Dice overlap 2 |A and B| / (|A| + |B|) of what is at least `threshold_hu`; NaN if neither has any."""
    a, b = _pair(truth, estimate, None)
    bone, guess = a >= threshold_hu, b >= threshold_hu
    total = int(bone.sum()) + int(guess.sum())
    return math.nan if total == 0 else 2 * int((bone & guess).sum()) / total


def reprojection_error(image: npt.ArrayLike, projected: npt.ArrayLike, rays: BoolArray | None = None) -> float:
    """Root mean square difference of two X-rays in line integrals (dimensionless), over the given rays; NaN if none."""
    a, b = _pair(image, projected, None)
    error = (a - b) ** 2
    counted = error if rays is None else error[rays]
    return float(np.sqrt(np.mean(counted, dtype=np.float64))) if counted.size else math.nan


def spread(
    truth: npt.ArrayLike, samples: Sequence[npt.NDArray[np.float32]], body: BoolArray, window: Window = WINDOW_HU
) -> dict[str, float]:
    """What K samples say about their own error, inside the body.

    Returns:
        "std_hu": root mean square of the samples' standard deviation (unbiased). "rmse_hu": of the samples' mean
        against the truth; for calibrated samples it is sqrt(1 + 1/K) std_hu. "coverage": the share of voxels whose
        truth lies between the lowest and highest sample. "coverage_expected": (K - 1) / (K + 1), what calibrated
        samples give, whatever their distribution.

    Raises:
        InputError: fewer than two samples, or other shapes.
    """
    if len(samples) < 2:
        raise InputError.of("spread", "samples", found=len(samples), expected="at least 2")
    if not body.any():
        return {"std_hu": math.nan, "rmse_hu": math.nan, "coverage": math.nan, "coverage_expected": math.nan}
    count = len(samples)
    stack = np.stack([_pair(truth, sample, window)[1][body] for sample in samples])
    a = np.clip(np.asarray(truth, np.float32), *window)[body]
    covered = (stack.min(axis=0) <= a) & (a <= stack.max(axis=0))
    return {
        "std_hu": float(np.sqrt(np.mean(stack.var(axis=0, ddof=1), dtype=np.float64))),
        "rmse_hu": float(np.sqrt(np.mean((stack.mean(axis=0) - a) ** 2, dtype=np.float64))),
        "coverage": float(np.mean(covered)),
        "coverage_expected": (count - 1) / (count + 1),
    }


def _pair(
    truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    a, b = np.asarray(truth, np.float32), np.asarray(estimate, np.float32)
    if a.shape != b.shape or a.size == 0:
        raise InputError.of("estimate", "shape", found=b.shape, expected=f"the truth's, {a.shape}")
    if not np.isfinite(b).all() or not np.isfinite(a).all():
        raise InputError.of("estimate", "values", found="NaN or infinite values", expected="finite values")
    return (a, b) if window is None else (np.clip(a, *window), np.clip(b, *window))
