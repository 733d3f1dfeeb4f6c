"""Summaries of a time's samples, and ratios of two times with their confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CV_LIMIT = 0.025  # coefficient of variation above which a row gets a warning


@dataclass(frozen=True)
class Summary:
    """Samples of one time in a few figures, in their unit; `cv` is standard deviation over mean, None of one sample.

    Percentiles are by nearest rank; None below 10, 20 and 100 samples, where they would be the maximum's other name.
    """

    n: int
    min: float
    median: float
    p90: float | None
    p95: float | None
    p99: float | None
    cv: float | None

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        """Summarise at least one sample."""
        values = np.asarray(samples, np.float64)
        n, mean = len(values), float(values.mean())
        p90, p95, p99 = (
            float(np.quantile(values, share, method="inverted_cdf")) if n * (1 - share) > 0.999 else None
            for share in (0.90, 0.95, 0.99)
        )
        cv = float(values.std(ddof=1)) / mean if n > 1 and mean > 0 else None
        return cls(n, float(values.min()), float(np.median(values)), p90, p95, p99, cv)

    @property
    def unsteady(self) -> bool:
        """True where the samples vary more than a figure should."""
        return self.cv is not None and self.cv > CV_LIMIT


@dataclass(frozen=True)
class Ratio:
    """Ratio of two medians, new over old, with its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def slower_than(self, threshold: float) -> bool:
        """True where the ratio is past 1 + threshold and its interval above 1: slower, and not by chance."""
        return self.value > 1 + threshold and self.low > 1


def ratio(new: Sequence[float], old: Sequence[float]) -> Ratio:
    """Return the ratio of the medians of two sets of samples, each resampled by itself from a fixed seed."""

    def of_medians(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(np.median(a, axis) / np.median(b, axis))

    # SciPy refuses a set of one sample; doubled, it is resampled to itself.
    pair = tuple(np.repeat(np.asarray(samples, np.float64), 2 if len(samples) == 1 else 1) for samples in (new, old))
    edges = stats.bootstrap(pair, of_medians, n_resamples=4000, method="percentile", rng=0).confidence_interval
    return Ratio(float(np.median(new) / np.median(old)), float(edges.low), float(edges.high))
