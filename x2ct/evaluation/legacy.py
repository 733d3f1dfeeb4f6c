"""Figures as much of this field prints them, for old tables to be read beside ours, and for nothing else.

PSNR with a peak of 4095 on values that span 2500, averaged over the slices of all three axes (Ying et al. 2019,
X2CT-GAN, and those who compare with it), and SSIM with that data range, slice by slice. Slices of nothing but air count
as perfect. The same error gives a PSNR some 4 to 11 dB higher than `metrics.psnr`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

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
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        error = np.mean(squared, axis=others, dtype=np.float64)
        nothing = error == 0
        decibel = 10 * np.log10(PEAK**2 / np.where(nothing, 1.0, error))
        axes.append(float(np.mean(np.where(nothing, PERFECT_DB, decibel))))
    return float(np.mean(axes))


def slice_ssim(truth: npt.ArrayLike, estimate: npt.ArrayLike, window: Window = WINDOW_HU) -> float:
    """SSIM in 2D with a data range of 4095 and flat 7 x 7 windows: the mean over all slices of the three axes.

    NaN where an axis is shorter than the window.
    """
    a, b = pair(truth, estimate, window)
    if min(a.shape) < SIDE:
        return math.nan
    a, b = a - np.float32(window[0]), b - np.float32(window[0])  # as they were stored: SSIM knows no negative level
    moments = (a, b, a * a, b * b, a * b)
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    unbiased = SIDE**2 / (SIDE**2 - 1)
    inner = slice(SIDE // 2, -(SIDE // 2))
    axes = []
    for axis in range(3):
        size = [SIDE] * 3
        size[axis] = 1
        crop = tuple(slice(None) if k == axis else inner for k in range(3))
        ma, mb, maa, mbb, mab = (ndimage.uniform_filter(moment, size)[crop].astype(np.float64) for moment in moments)
        va, vb, vab = (unbiased * (both - one) for both, one in ((maa, ma * ma), (mbb, mb * mb), (mab, ma * mb)))
        ratio = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
        axes.append(float(np.mean(ratio)))
    return float(np.mean(axes))
