"""What K samples say about their own error, against what it was.

If truth and samples come from one distribution, whichever it is, the truth's rank among K samples is any of 0 .. K
alike. Coverage and the calibration plot are counted from those ranks. The standard deviation that a run reports is the
samples' times the model's factor (`x2ct.tuning.deviation`), and is judged by the interval that a Gaussian would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from x2ct.errors import InputError
from x2ct.evaluation.metrics import WINDOW_HU, BoolArray, FloatArray, Window, pair

INTERVAL = 0.8


def calibration(
    truth: npt.ArrayLike,
    samples: Sequence[FloatArray],
    body: BoolArray,
    window: Window = WINDOW_HU,
    deviation_scale: float = 1.0,
) -> dict[str, Any]:
    """Return the samples' spread and what it is worth, inside the body.

    "std_hu": root mean square of the samples' standard deviation (n - 1). "rmse_hu": of the samples' mean against the
    truth; for calibrated samples it is sqrt(1 + 1/K) std_hu. "correlation": Pearson's, over voxels, of the standard
    deviation with the absolute error of the mean. "crps_hu": see `crps`. "coverage": the share of the truth within the
    samples' `central_interval`; "coverage_expected": that of calibrated samples. "interval_coverage": the share of the
    truth within the 80% interval of the mean and `deviation_scale` times the standard deviation, see `half_width`; 0.8
    if that is calibrated. "ranks": shares of voxels whose truth has the rank 0 .. K, a flat list if calibrated.

    Raises InputError: fewer than two samples, or other shapes.
    """
    if len(samples) < 2:
        raise InputError.of("calibration", "samples", found=len(samples), expected="at least 2")
    count = len(samples)
    if not body.any():
        names = ("std_hu", "rmse_hu", "correlation", "crps_hu", "coverage", "interval_coverage")
        settings = {"coverage_expected": expected_coverage(count), "deviation_scale": deviation_scale}
        return {**dict.fromkeys(names, math.nan), **settings, "ranks": []}
    stack = np.sort(np.stack([pair(truth, sample, window)[1][body] for sample in samples]), axis=0)
    y = np.clip(np.asarray(truth, np.float32), *window)[body]
    deviation = stack.std(axis=0, ddof=1, dtype=np.float64)
    error = stack.mean(axis=0, dtype=np.float64) - y
    low, high = central_interval(stack)
    return {
        "std_hu": float(np.sqrt(np.mean(deviation**2))),
        "rmse_hu": float(np.sqrt(np.mean(error**2))),
        "correlation": _pearson(deviation, np.abs(error)),
        "crps_hu": float(np.mean(crps(stack, y))),
        "coverage": float(np.mean((low <= y) & (y <= high))),
        "coverage_expected": expected_coverage(count),
        "deviation_scale": deviation_scale,
        "interval_coverage": float(np.mean(np.abs(error) <= half_width(count) * deviation_scale * deviation)),
        "ranks": ranks(stack, y),
    }


def crps(ordered: FloatArray, truth: FloatArray) -> npt.NDArray[np.float64]:
    """Return the continuous ranked probability score of (K, ...) samples in rising order at each voxel of (...) truth.

    mean |x_i - y| - sum_ij |x_i - x_j| / (2 K (K - 1)), in the samples' unit, lower is better: the estimate from K
    samples that is unbiased for their distribution's score, for any K (Ferro 2014, Q. J. R. Meteorol. Soc. 140).
    """
    count = len(ordered)
    miss = np.mean(np.abs(ordered - truth), axis=0, dtype=np.float64)
    # Of sorted samples, sum_ij |x_i - x_j| = 2 sum_k (2 k - K - 1) x_k, k from 1.
    weights = 2.0 * np.arange(1, count + 1) - count - 1
    apart = np.tensordot(weights, ordered.astype(np.float64), 1)
    return np.asarray(miss - apart / (count * (count - 1)))


def central_interval(ordered: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the central 80% interval of (K, ...) samples in rising order, the k-th of which is at k / (K + 1).

    Fewer than 9 samples do not reach so far: then it is from the lowest to the highest.
    """
    low, high = np.quantile(ordered, ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2), axis=0, method="weibull")
    return np.asarray(low, np.float32), np.asarray(high, np.float32)


def expected_coverage(count: int) -> float:
    """Return what `central_interval` of K calibrated samples covers: 80%, or (K - 1) / (K + 1) below 9."""
    return min(INTERVAL, (count - 1) / (count + 1))


def half_width(count: int) -> float:
    """Return half the width of the 80% interval of one more Gaussian draw, in standard deviations of K draws.

    t sqrt(1 + 1/K), t the 90% quantile of Student's distribution with K - 1 degrees of freedom.
    """
    return float(special.stdtrit(count - 1, (1 + INTERVAL) / 2)) * math.sqrt(1 + 1 / count)


def ranks(ordered: FloatArray, truth: FloatArray) -> list[float]:
    """Return the shares of voxels whose truth has the rank 0 .. K among (K, voxels) samples in rising order.

    Ties are shared out evenly.
    """
    count = len(ordered)
    below, equal = np.sum(ordered < truth, axis=0), np.sum(ordered == truth, axis=0)
    shares = np.zeros(count + 1)
    for ties in np.unique(equal):
        first = np.bincount(below[equal == ties], minlength=count + 1)
        for step in range(int(ties) + 1):
            shares[step:] += first[: count + 1 - step] / (ties + 1)
    return [float(share) for share in shares / truth.size]


def reliability(shares: Sequence[float]) -> list[tuple[float, float]]:
    """Return (expected, observed) coverage of the intervals between the k-th lowest and k-th highest sample."""
    count = len(shares) - 1
    steps = range(1, count // 2 + 1)
    return [((count + 1 - 2 * k) / (count + 1), float(sum(shares[k : count + 1 - k]))) for k in steps]


def _pearson(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(np.sum(a * a)) * float(np.sum(b * b)))
    return float(np.sum(a * b)) / scale if scale > 0 else math.nan
