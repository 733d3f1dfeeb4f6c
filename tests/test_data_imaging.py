"""Laws of the radiographs that training sees: what each stage may change, and that none acts at no strength."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from x2ct.data.imaging import NONE, FloatImage, RadiographConfig, detected, displayed, radiograph

PITCH = (2.0, 2.0)
TOP = 6.0
STILL = RadiographConfig(
    physics=1.0, scatter=0.0, glare=0.0, blur_mm=0.0, photons=(0.0, 0.0),
    display=1.0, gamma=0.0, clip=0.0, eight_bit=0.0, collimate=0.0, marker=0.0,
)  # fmt: skip


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def image() -> FloatImage:
    """A trunk of up to 5 between two lungs, with ribs; air at the sides."""
    rows, columns = np.mgrid[-1:1:160j, -1.25:1.25:160j]
    trunk = 5 * np.sqrt(np.clip(1 - columns**2, 0, 1)) * (1 - 0.2 * rows**2)
    lungs = 3 * np.exp(-((np.abs(columns) - 0.5) ** 2 + 0.3 * rows**2) / 0.08)
    return np.asarray(np.clip(trunk - lungs + 0.2 * np.cos(30 * rows) * (trunk > 1), 0, None), np.float32)


def test_without_chances_or_strength_it_is_the_x_ray(image: FloatImage) -> None:
    assert np.array_equal(radiograph(image, PITCH, TOP, NONE, rng()), image)
    assert np.array_equal(radiograph(image, PITCH, TOP, replace(STILL, display=0.0), rng()), image)


def test_the_same_generator_state_gives_the_same_picture(image: FloatImage) -> None:
    config = RadiographConfig(physics=1.0, display=1.0, collimate=1.0, marker=1.0)
    a, b, c = (radiograph(image, PITCH, TOP, config, rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert a.dtype == np.float32 and a.shape == image.shape and np.isfinite(a).all()


def test_scatter_only_adds_intensity(image: FloatImage) -> None:
    """The more the less comes through directly: contrast is lost where the body is thick."""
    seen = detected(image, PITCH, replace(STILL, scatter=0.2), rng(1))
    assert (seen < image + 1e-6).all()
    loss = image - seen
    assert loss[image > 4].mean() > 3 * loss[image < 1].mean()


@pytest.mark.parametrize("change", [{"glare": 0.2, "spread_mm": 6.0}, {"blur_mm": 3.0}])
def test_glare_and_blur_move_intensity_about(image: FloatImage, change: dict[str, float]) -> None:
    inside = np.full(image.shape, 9.0, np.float32)  # a dark frame, so that nothing crosses the border
    inside[40:-40, 40:-40] = image[40:-40, 40:-40]
    seen = detected(inside, PITCH, replace(STILL, **change), rng(2))
    assert not np.allclose(seen, inside, atol=0.05)
    assert np.exp(-seen).sum() == pytest.approx(np.exp(-inside).sum(), rel=1e-3)


def test_fewer_photons_are_noisier_and_not_denser(image: FloatImage) -> None:
    errors = {}
    for photons in (1e4, 1e6):
        seen = detected(image, PITCH, replace(STILL, photons=(photons, photons)), rng(2))
        errors[photons] = float((np.exp(-seen) - np.exp(-image)).std())
        assert np.exp(-seen).mean() == pytest.approx(np.exp(-image).mean(), rel=2e-3)
    assert errors[1e4] == pytest.approx(10 * errors[1e6], rel=0.1)


def test_a_display_picture_keeps_the_shape_and_loses_the_scale(image: FloatImage) -> None:
    shown = displayed(image, TOP, STILL, rng())
    assert np.percentile(shown, 99) == pytest.approx(TOP, rel=1e-3)
    assert np.corrcoef(shown.ravel(), image.ravel())[0, 1] > 0.9999
    assert np.allclose(displayed(2.5 * image, TOP, STILL, rng()), shown, atol=2e-3)


def test_a_tone_curve_keeps_the_order_of_densities(image: FloatImage) -> None:
    shown = displayed(image, TOP, replace(STILL, gamma=0.5), rng(5))
    order = np.argsort(image.ravel(), kind="stable")
    assert (np.diff(shown.ravel()[order]) >= -2e-4).all()
    assert np.abs(shown - displayed(image, TOP, STILL, rng())).max() > 0.3


def test_eight_bits_are_256_levels(image: FloatImage) -> None:
    assert len(np.unique(displayed(image, TOP, replace(STILL, eight_bit=1.0), rng()))) <= 256
    assert len(np.unique(displayed(image, TOP, STILL, rng()))) > 2000


def test_a_window_cuts_the_ends_alone(image: FloatImage) -> None:
    shown = displayed(image, TOP, replace(STILL, clip=10.0), rng(3))
    low, high = np.percentile(image, (12, 88))
    between = (image > low) & (image < high)
    assert np.corrcoef(shown[between], image[between])[0, 1] > 0.9999
    assert (shown == shown.max()).mean() > 0.02


def test_a_letter_lies_towards_a_corner(image: FloatImage) -> None:
    shown = displayed(image, TOP, replace(STILL, marker=1.0), rng(0))
    plain = displayed(image, TOP, STILL, rng(0))
    ratio = np.median(plain[60:100, 60:100] / shown[60:100, 60:100])  # lead may move the 99th percentile
    assert np.allclose(shown[60:100, 60:100] * ratio, plain[60:100, 60:100], atol=1e-3)
    assert np.abs(shown * ratio - plain).max() > 0.5


def test_blades_are_read_as_the_sampler_reads_them(image: FloatImage) -> None:
    """Found, and taken as air; what is exposed keeps its shape."""
    thick = image + np.float32(0.5)  # no air at the border
    found = 0
    for seed in range(6):
        shown = displayed(thick, TOP, replace(STILL, collimate=1.0, blade=0.2), rng(seed))
        field = shown > 0
        found += not field.all()
        assert np.corrcoef(shown[60:100, 60:100].ravel(), thick[60:100, 60:100].ravel())[0, 1] > 0.999
    assert found >= 4  # sometimes no blade is closed
