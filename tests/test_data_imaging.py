"""Laws of the radiographs that training sees: what each stage may change, and that none acts at no strength."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from x2ct.data import imaging
from x2ct.data.imaging import Display, Physics, RadiographConfig
from x2ct.io.xray import degradation, exposure
from x2ct.io.xray.radiograph import XRay

FloatImage = npt.NDArray[np.float32]
PITCH = (2.0, 2.0)
TOP = 6.0
STILL = RadiographConfig(
    physics=1.0, scatter=0.0, glare=0.0, blur_mm=0.0, photons=(0.0, 0.0),
    display=1.0, gamma=0.0, clip=0.0, eight_bit=0.0, collimate=0.0, marker=0.0,
)  # fmt: skip


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def detected(image: FloatImage, config: RadiographConfig, seed: int) -> FloatImage:
    """The detector's physics with strengths and noise from a seed."""
    generator = torch.Generator().manual_seed(seed)
    physics = imaging.draw_physics(config, rng(seed))
    return np.asarray(imaging.detected(torch.from_numpy(image), PITCH, physics, generator))


def displayed(image: FloatImage, config: RadiographConfig, seed: int = 0) -> FloatImage:
    """A display picture, read back."""
    display = imaging.draw_display(config, image.shape, rng(seed))
    return np.asarray(imaging.displayed(torch.from_numpy(image), TOP, display))


@pytest.fixture(scope="module")
def image() -> FloatImage:
    """A trunk of up to 5 between two lungs, with ribs; air at the sides."""
    rows, columns = np.mgrid[-1:1:160j, -1.25:1.25:160j]
    trunk = 5 * np.sqrt(np.clip(1 - columns**2, 0, 1)) * (1 - 0.2 * rows**2)
    lungs = 3 * np.exp(-((np.abs(columns) - 0.5) ** 2 + 0.3 * rows**2) / 0.08)
    return np.asarray(np.clip(trunk - lungs + 0.2 * np.cos(30 * rows) * (trunk > 1), 0, None), np.float32)


def test_without_strength_it_is_the_x_ray(image: FloatImage) -> None:
    assert np.abs(detected(image, STILL, 0) - image).max() < 1e-5


def test_the_same_seed_gives_the_same_picture(image: FloatImage) -> None:
    config = RadiographConfig(physics=1.0, display=1.0, collimate=1.0, marker=1.0)
    a, b, c = (displayed(detected(image, config, seed), config, seed) for seed in (3, 3, 4))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert a.dtype == np.float32 and a.shape == image.shape and np.isfinite(a).all()


def test_the_physics_are_those_that_evaluation_tests_with(image: FloatImage) -> None:
    """One definition in two libraries: evaluation does without PyTorch, training without copies to the host."""
    spread, blur = (40.0 / 2, 40.0 / 2), (1.5 / 2, 1.5 / 2)
    expected = degradation.blur(degradation.veiling_glare(degradation.scatter(image, 0.1, spread), 0.03, spread), blur)
    physics = Physics(scatter=0.1, glare=0.03, spread_mm=40.0, blur_mm=1.5, photons=0.0)
    seen = imaging.detected(torch.from_numpy(image), PITCH, physics, torch.Generator())
    assert np.abs(seen.numpy() - expected).max() < 2e-5
    toned = imaging.toned(torch.from_numpy(image), 0.8, 1.1)
    assert np.abs(toned.numpy() - degradation.gamma(image, 0.8, 1.1)).max() < 2e-5


@pytest.mark.parametrize("blades", [None, (12, 0, 0, 20)])
def test_a_display_picture_is_read_as_the_sampler_reads_it(
    image: FloatImage, blades: tuple[int, int, int, int] | None
) -> None:
    display = Display(gamma=1.2, clip=(1.0, 0.5), blades=blades, levels=255, marker=None)
    thick = torch.from_numpy(image + np.float32(0.5))
    grey = imaging.display_picture(thick, display)
    read = exposure.run(exposure.intensity_stages(TOP), XRay(grey.numpy(), calibrated=False)).image
    assert np.abs(imaging.displayed(thick, TOP, display).numpy() - read).max() < 1e-5
    assert (read == 0).sum() > 12 * 160 or blades is None


def test_percentiles_are_numpy_s(image: FloatImage) -> None:
    for per_cent in (0.0, 0.37, 50.0, 99.0, 100.0):
        seen = float(imaging._percentile(torch.from_numpy(image), per_cent))
        assert seen == pytest.approx(np.percentile(image, per_cent), abs=1e-6)


def test_scatter_only_adds_intensity(image: FloatImage) -> None:
    """The more the less comes through directly: contrast is lost where the body is thick."""
    seen = detected(image, replace(STILL, scatter=0.2), 1)
    assert (seen < image + 1e-6).all()
    loss = image - seen
    assert loss[image > 4].mean() > 3 * loss[image < 1].mean()


@pytest.mark.parametrize("change", [{"glare": 0.2, "spread_mm": 6.0}, {"blur_mm": 3.0}])
def test_glare_and_blur_move_intensity_about(image: FloatImage, change: dict[str, float]) -> None:
    inside = np.full(image.shape, 9.0, np.float32)  # a dark frame, so that nothing crosses the border
    inside[40:-40, 40:-40] = image[40:-40, 40:-40]
    seen = detected(inside, replace(STILL, **change), 2)
    assert not np.allclose(seen, inside, atol=0.05)
    assert np.exp(-seen).sum() == pytest.approx(np.exp(-inside).sum(), rel=1e-3)


def test_fewer_photons_are_noisier_and_not_denser(image: FloatImage) -> None:
    errors = {}
    for photons in (1e4, 1e6):
        seen = detected(image, replace(STILL, photons=(photons, photons)), 2)
        errors[photons] = float((np.exp(-seen) - np.exp(-image)).std())
        assert np.exp(-seen).mean() == pytest.approx(np.exp(-image).mean(), rel=2e-3)
    assert errors[1e4] == pytest.approx(10 * errors[1e6], rel=0.1)


def test_a_display_picture_keeps_the_shape_and_loses_the_scale(image: FloatImage) -> None:
    shown = displayed(image, STILL)
    assert np.percentile(shown, 99) == pytest.approx(TOP, rel=1e-3)
    assert np.corrcoef(shown.ravel(), image.ravel())[0, 1] > 0.9999
    assert np.allclose(displayed(2.5 * image, STILL), shown, atol=2e-3)


def test_a_tone_curve_keeps_the_order_of_densities(image: FloatImage) -> None:
    shown = displayed(image, replace(STILL, gamma=0.5), 5)
    order = np.argsort(image.ravel(), kind="stable")
    assert (np.diff(shown.ravel()[order]) >= -2e-4).all()
    assert np.abs(shown - displayed(image, STILL)).max() > 0.3


def test_eight_bits_are_256_levels(image: FloatImage) -> None:
    assert len(np.unique(displayed(image, replace(STILL, eight_bit=1.0), 0))) <= 256
    assert len(np.unique(displayed(image, STILL))) > 2000


def test_a_window_cuts_the_ends_alone(image: FloatImage) -> None:
    shown = displayed(image, replace(STILL, clip=10.0), 3)
    low, high = np.percentile(image, (12, 88))
    between = (image > low) & (image < high)
    assert np.corrcoef(shown[between], image[between])[0, 1] > 0.9999
    assert (shown == shown.max()).mean() > 0.02


def test_a_letter_lies_towards_a_corner(image: FloatImage) -> None:
    shown = displayed(image, replace(STILL, marker=1.0), 0)
    plain = displayed(image, STILL)
    ratio = np.median(plain[60:100, 60:100] / shown[60:100, 60:100])  # lead may move the 99th percentile
    assert np.allclose(shown[60:100, 60:100] * ratio, plain[60:100, 60:100], atol=1e-3)
    assert np.abs(shown * ratio - plain).max() > 0.5


def test_blades_are_read_as_the_sampler_reads_them(image: FloatImage) -> None:
    """Found, and taken as air; what is exposed keeps its shape."""
    thick = image + np.float32(0.5)  # no air at the border
    found = 0
    for seed in range(6):
        shown = displayed(thick, replace(STILL, collimate=1.0, blade=0.2), seed)
        field = shown > 0
        found += not field.all()
        assert np.corrcoef(shown[60:100, 60:100].ravel(), thick[60:100, 60:100].ravel())[0, 1] > 0.999
    assert found >= 4  # sometimes no blade is closed
