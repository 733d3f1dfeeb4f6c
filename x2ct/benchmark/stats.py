"""Samples of a time, summarised; ratios with intervals; exponents. No percentile that its samples can't carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

CV_LIMIT = 0.025
"""Above this coefficient of variation a row gets a warning."""

_RESAMPLES = 4000
_PERCENTILES = {"p90": 0.90, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Summary:
    """What samples of one time say.

    Attributes:
        n: how many there are.
        min, median: in the samples' unit.
        p90, p95, p99: by nearest rank; None below 10, 20 and 100 samples, where they would be the maximum's other name.
        cv: the coefficient of variation, standard deviation over mean; None of one sample.
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
        values = np.sort(np.asarray(samples, np.float64))
        n = len(values)
        ranks = {name: _nearest_rank(values, share) for name, share in _PERCENTILES.items()}
        cv = float(values.std(ddof=1) / values.mean()) if n > 1 and values.mean() > 0 else None
        return cls(n, float(values[0]), float(np.median(values)), **ranks, cv=cv)

    @property
    def unsteady(self) -> bool:
        """Whether the samples vary more than a figure should."""
        return self.cv is not None and self.cv > CV_LIMIT

    def to_json(self) -> dict[str, float | int | None]:
        """As JSON has it."""
        return asdict(self)


def _nearest_rank(values: npt.NDArray[np.float64], share: float) -> float | None:
    """The smallest value that `share` of all do not exceed; None where not even one sample may lie beyond it."""
    n = len(values)
    if n * (1 - share) < 1 - 1e-9:
        return None
    return float(values[math.ceil(share * n - 1e-9) - 1])


@dataclass(frozen=True)
class Ratio:
    """New over old: of the medians, with a 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def slower_than(self, threshold: float) -> bool:
        """Whether the ratio is past 1 + threshold, and not by the samples' spread alone (the interval is above 1)."""
        return self.value > 1 + threshold and self.low > 1


def ratio(new: Sequence[float], old: Sequence[float]) -> Ratio:
    """Of the medians of two sets of samples; each is resampled by itself, from a fixed seed."""
    random = np.random.default_rng(0)

    def medians(samples: Sequence[float]) -> npt.NDArray[np.float64]:
        values = np.asarray(samples, np.float64)
        drawn = random.integers(0, len(values), (_RESAMPLES, len(values)))
        return np.asarray(np.median(values[drawn], axis=1), np.float64)

    drawn = medians(new) / medians(old)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Ratio(float(np.median(new) / np.median(old)), float(low), float(high))


def exponent(x: Sequence[float], y: Sequence[float]) -> float | None:
    """p of y ~ x^p, by least squares of the logarithms; None of fewer than two different x."""
    if len(set(x)) < 2 or min(*x, *y) <= 0:
        return None
    slope, _ = np.polyfit(np.log(np.asarray(x, np.float64)), np.log(np.asarray(y, np.float64)), 1)
    return float(slope)
