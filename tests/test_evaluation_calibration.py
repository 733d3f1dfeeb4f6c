"""What samples say about their error: against closed forms for Gaussians, and against plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from x2ct.errors import InputError
from x2ct.evaluation import calibration
from x2ct.evaluation.calibration import central_interval, crps, expected_coverage, ranks, reliability

SHAPE = (40, 40, 40)
ALL = np.ones(SHAPE, bool)


def ensemble(count: int, spread: float = 50.0, seed: int = 1) -> tuple[np.ndarray, list[np.ndarray]]:
    """A truth and samples from the same distribution, or with another spread about the same mean."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(-300, 300, SHAPE)
    truth = (mean + rng.normal(0, 50, SHAPE)).astype(np.float32)
    return truth, [(mean + rng.normal(0, spread, SHAPE)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("count", [2, 4, 8, 9, 20])
def test_calibrated_samples_cover_what_they_should(count: int) -> None:
    truth, samples = ensemble(count)
    found = calibration.calibration(truth, samples, ALL)
    assert found["std_hu"] == pytest.approx(50, rel=0.01)
    assert found["rmse_hu"] == pytest.approx(50 * math.sqrt(1 + 1 / count), rel=0.01)
    assert found["coverage_expected"] == pytest.approx(min(0.8, (count - 1) / (count + 1)))
    assert found["coverage"] == pytest.approx(found["coverage_expected"], abs=0.01)
    assert found["interval_coverage"] == pytest.approx(0.8, abs=0.01)
    assert found["ranks"] == pytest.approx([1 / (count + 1)] * (count + 1), abs=0.008)
    for expected, observed in reliability(found["ranks"]):
        assert observed == pytest.approx(expected, abs=0.012)


def test_samples_that_are_too_sure_show_it() -> None:
    truth, samples = ensemble(9, spread=20.0)
    found = calibration.calibration(truth, samples, ALL)
    assert found["coverage"] < 0.5
    assert found["interval_coverage"] < 0.5
    corrected = calibration.calibration(truth, samples, ALL, deviation_scale=2.5 * math.sqrt(1 + 1 / 9) / 1.05)
    assert corrected["coverage"] == found["coverage"], "the samples are what they are"
    assert found["ranks"][0] > 0.2 and found["ranks"][-1] > 0.2  # a U
    honest = calibration.calibration(*ensemble(9), ALL)
    assert found["crps_hu"] > honest["crps_hu"]


def test_the_spread_tells_where_the_error_is() -> None:
    rng = np.random.default_rng(2)
    scale = np.where(np.arange(SHAPE[0])[:, None, None] < 20, 10.0, 100.0)
    truth, *samples = ((scale * rng.normal(size=SHAPE)).astype(np.float32) for _ in range(9))
    assert calibration.calibration(truth, samples, ALL)["correlation"] > 0.4
    assert abs(calibration.calibration(*ensemble(8), ALL)["correlation"]) < 0.02


@pytest.mark.parametrize("count", [2, 5, 8])
def test_crps_is_the_gaussian_s_closed_form_whatever_the_number_of_samples(count: int) -> None:
    rng = np.random.default_rng(3)
    sigma, y = 50.0, np.float32(30.0)
    samples = np.sort(rng.normal(0, sigma, (count, 200_000)).astype(np.float32), axis=0)
    w = 30.0 / sigma
    closed = sigma * (w * (2 * stats.norm.cdf(w) - 1) + 2 * stats.norm.pdf(w) - 1 / math.sqrt(math.pi))
    found = crps(samples, np.full(200_000, y, np.float32))
    assert found.mean() == pytest.approx(closed, rel=0.01)  # Gneiting & Raftery 2007, equation 5


def test_crps_is_the_integral_of_the_squared_difference_of_distributions() -> None:
    samples, y = np.array([-3.0, 1.0, 2.0, 7.0]), 2.5

    def squared(t: float) -> float:
        return (np.mean(samples <= t) - (t >= y)) ** 2

    integral = integrate.quad(squared, -4, 8, points=[*samples, y])[0]
    # Of the samples' own distribution; the fair estimate takes the spread over pairs of different samples.
    pairs = np.abs(samples[:, None] - samples).sum()
    fair = integral + pairs / (2 * 16) - pairs / (2 * 12)
    assert crps(samples[:, None].astype(np.float32), np.array([y], np.float32))[0] == pytest.approx(fair, abs=1e-5)


def test_crps_of_equal_samples_is_their_absolute_error() -> None:
    assert crps(np.full((4, 3), 10.0, np.float32), np.array([10, 14, 3], np.float32)) == pytest.approx([0, 4, 7])


def test_the_interval_is_made_of_order_statistics() -> None:
    nine = np.arange(1.0, 10.0, dtype=np.float32)[:, None]
    assert [float(edge[0]) for edge in central_interval(nine)] == [1.0, 9.0]
    nineteen = np.arange(1.0, 20.0, dtype=np.float32)[:, None]
    assert [float(edge[0]) for edge in central_interval(nineteen)] == pytest.approx([2.0, 18.0])
    fourteen = np.arange(1.0, 15.0, dtype=np.float32)[:, None]
    assert [float(edge[0]) for edge in central_interval(fourteen)] == pytest.approx([1.5, 13.5])
    assert expected_coverage(3) == 0.5


def test_equal_values_are_shared_among_their_ranks() -> None:
    samples = np.array([[0, 0], [0, 1], [5, 2]], np.float32)
    assert ranks(samples, np.array([0, 3], np.float32)) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    # A truth and samples that are all air say nothing: flat.
    assert ranks(np.full((3, 5), -1000, np.float32), np.full(5, -1000, np.float32)) == pytest.approx([0.25] * 4)


def test_what_can_not_be_judged_is_refused_or_undefined() -> None:
    truth, samples = ensemble(2)
    with pytest.raises(InputError, match="at least 2"):
        calibration.calibration(truth, samples[:1], ALL)
    nobody = calibration.calibration(truth, samples, ~ALL)
    assert all(math.isnan(nobody[key]) for key in ("std_hu", "rmse_hu", "coverage", "crps_hu"))
