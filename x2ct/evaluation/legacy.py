"""Figures as much of this field prints them, for old tables to be read beside ours, and for nothing else.

PSNR with a peak of 4095 on values that span 2500, averaged over the slices of all three axes (Ying et al. 2019,
X2CT-GAN, and those who compare with it), and SSIM with that data range, slice by slice. Slices of nothing but air count
as perfect. The same error gives a PSNR some 4 to 11 dB higher than `metrics.psnr`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from x2ct.evaluation.metrics import WINDOW_HU, Window, pair

PEAK = 4095.0
PERFECT_DB = 100.0
"""What a slice without any error counts."""

SIDE = 7
"""Voxels along the side of SSIM's square window."""


def slice_psnr(truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window = WINDOW_HU) -> float:
    """PSNR with a peak of 4095 in dB: the mean over the slices of an axis, and over the three axes."""
    a, b = pair(truth, estimate, window)
    squared = (a - b) ** 2
    axes = []
    for others in ((1, 2), (0, 2), (0, 1)):
        error = np.mean(squared, axis=others, dtype=np.float64)
        decibel = 10 * np.log10(PEAK**2 / np.where(error == 0, 1.0, error))
        axes.append(np.mean(np.where(error == 0, PERFECT_DB, decibel)))
    return float(np.mean(axes))


def slice_ssim(truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window = WINDOW_HU) -> float:
    """SSIM in 2D with a data range of 4095 and flat 7 x 7 windows: the mean over all slices of the three axes.

    NaN where an axis is shorter than the window.
    """
    a, b = (volume.astype(np.float64) - window[0] for volume in pair(truth, estimate, window))  # not negative
    if min(a.shape) < SIDE:
        return math.nan
    axes = []
    for axis in range(3):
        slices = zip(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0), strict=True)
        axes.append(np.mean([structural_similarity(x, y, win_size=SIDE, data_range=PEAK) for x, y in slices]))  # type: ignore[no-untyped-call]
    return float(np.mean(axes))
