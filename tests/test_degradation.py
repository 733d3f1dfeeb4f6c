"""Degradations of X-rays: each has the law that physics gives it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from x2ct.errors import InputError
from x2ct.io.xray import degradation

SHAPE = (120, 100)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """A body of line integrals up to 6 with air beside it."""
    rows, cols = np.indices(SHAPE)
    inside = np.clip(1 - ((rows - 60) / 50) ** 2 - ((cols - 50) / 30) ** 2, 0, None)
    return (6 * np.sqrt(inside)).astype(np.float32)


@pytest.mark.parametrize(("level", "photons"), [(0.0, 1e4), (2.0, 1e5), (5.0, 1e6)])
def test_noise_is_that_of_counting_photons(level: float, photons: float) -> None:
    flat = np.full((300, 300), level, np.float32)
    noisy = degradation.poisson_noise(flat, photons, np.random.default_rng(0))
    counts = photons * math.exp(-level)
    assert noisy.mean() == pytest.approx(level, abs=2 / counts + 5 / math.sqrt(counts * flat.size))
    assert noisy.std() == pytest.approx(1 / math.sqrt(counts), rel=0.02)  # of the log, to first order
    again = degradation.poisson_noise(flat, photons, np.random.default_rng(0))
    assert np.array_equal(noisy, again)


def test_no_photon_is_not_an_infinite_line_integral() -> None:
    noisy = degradation.poisson_noise(np.full((50, 50), 20.0, np.float32), 100.0, np.random.default_rng(0))
    assert np.allclose(noisy, math.log(100))


def test_scatter_adds_its_share_of_the_primary(image: np.ndarray) -> None:
    primary = np.exp(-image.astype(np.float64))
    scattered = np.exp(-degradation.scatter(image, 0.1, 5.0).astype(np.float64))
    assert (scattered - primary).sum() == pytest.approx(0.1 * primary.sum(), rel=0.01)
    assert (degradation.scatter(image, 0.1, 5.0) <= image + 1e-6).all()  # the body looks thinner, air brighter than air
    # What is dense loses most: there the scatter of its surroundings is more than its own primary.
    lost = image - degradation.scatter(image, 0.1, 30.0)
    assert lost[60, 50] > 10 * lost[60, 2]
    assert np.allclose(degradation.scatter(image, 0.0, 5.0), image, atol=1e-5)


def test_glare_and_blur_only_move_intensity(image: np.ndarray) -> None:
    total = np.exp(-image.astype(np.float64)).sum()
    for changed in (degradation.veiling_glare(image, 0.2, 8.0), degradation.blur(image, 1.5)):
        assert np.exp(-changed.astype(np.float64)).sum() == pytest.approx(total, rel=0.01)
        assert changed.max() < image.max()
    flat = np.full(SHAPE, 3.0, np.float32)
    assert np.allclose(degradation.veiling_glare(flat, 0.5, 8.0), flat, atol=1e-5)


def test_gamma_keeps_air_and_order_and_moves_the_top(image: np.ndarray) -> None:
    top = np.percentile(image, 99)
    bent = degradation.gamma(image, 0.7, 1.2)
    assert bent[0, 0] == 0
    assert np.percentile(bent, 99) == pytest.approx(1.2 * top, rel=0.01)
    order = np.argsort(image.ravel(), kind="stable")
    assert (np.diff(bent.ravel()[order]) >= -1e-5).all()
    assert np.allclose(degradation.gamma(image, 1.0), image, atol=1e-5)


def test_a_display_picture_has_256_levels_and_dense_is_bright(image: np.ndarray) -> None:
    shown = degradation.window_8bit(image)
    assert shown.dtype == np.uint8
    assert shown.min() == 0 and shown.max() == 255
    assert shown[60, 50] == 255 and shown[0, 0] == 0
    constant = degradation.window_8bit(np.full(SHAPE, 2.0, np.float32))
    assert not constant.any()


def test_blades_cover_what_they_are_told_to(image: np.ndarray) -> None:
    covered = degradation.collimate(image, (10, 0, 0, 20), penumbra_px=0.0)
    assert np.allclose(covered[10:, :80], image[10:, :80])
    assert np.allclose(covered[:10] - image[:10], math.log(1000), atol=1e-4)
    assert np.allclose(covered[:, 80:] - image[:, 80:], math.log(1000), atol=1e-4)
    with pytest.raises(InputError, match="margins"):
        degradation.collimate(image, (60, 60, 0, 0))


def test_a_marker_is_a_letter_of_lead_where_it_was_put(image: np.ndarray) -> None:
    marked = degradation.marker(image, (20.0, 15.0), 16, "R", 4.0)
    added = marked - image
    assert added.max() == pytest.approx(4.0, abs=1e-5) and added.min() == 0
    rows, cols = np.nonzero(added > 1)
    assert abs(rows.mean() - 20) < 4 and abs(cols.mean() - 15) < 4
    assert 8 <= np.ptp(rows) <= 16


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: degradation.poisson_noise(x, 0.0, np.random.default_rng(0)),
        lambda x: degradation.scatter(x, -0.1, 5.0),
        lambda x: degradation.veiling_glare(x, 1.5, 5.0),
        lambda x: degradation.gamma(x, math.nan),
        lambda x: degradation.collimate(x, (1, 1, 1, 1), transmission=2.0),
    ],
)
def test_what_can_not_be_is_refused(wrong, image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"degradation: .* expected above"):
        wrong(image)
