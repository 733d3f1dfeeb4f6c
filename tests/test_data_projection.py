"""Training's projector on any device is the core's: the same method, so only rounding may differ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage

from x2ct.data import projection
from x2ct.data.projection import attenuation, ray_sums
from x2ct.errors import InputError
from x2ct.geometry import View, project
from x2ct.geometry import attenuation as core_attenuation
from x2ct.geometry.grid import centred_affine

SHAPE = (40, 34, 30)
AFFINE = centred_affine(SHAPE, (2.5, 3.0, 2.0))
DETECTOR = {"shape": (50, 60), "spacing_mm": (2.0, 2.0)}
VIEWS = {
    "ap": View.parallel("ap", 93.0, **DETECTOR),
    "lateral": View.parallel("lateral", -2.0, **DETECTOR),
    "oblique": View.parallel("ap", 40.0, tilt_deg=30.0, **DETECTOR),
    "from above": View.parallel("ap", 90.0, tilt_deg=80.0, **DETECTOR),
    "pa cone": View.cone("pa", sod_mm=900.0, sdd_mm=1100.0, **DETECTOR),
    "wide cone": View.cone("x", 44.0, sod_mm=150.0, sdd_mm=250.0, **DETECTOR),  # rays of more than one nearest axis
}


@pytest.fixture(scope="module")
def mu() -> npt.NDArray[np.float32]:
    """Blobs that reach the border, with empty slices at both ends of x."""
    volume = ndimage.gaussian_filter(np.random.default_rng(0).random(SHAPE), 1.0).astype(np.float32) * 0.04
    volume[:5] = volume[-3:] = 0
    return volume


@pytest.mark.parametrize("name", VIEWS)
def test_it_agrees_with_the_core(mu: npt.NDArray[np.float32], name: str) -> None:
    expected = project(mu, AFFINE, VIEWS[name])
    seen = ray_sums(torch.from_numpy(mu), AFFINE, VIEWS[name]).numpy()
    assert seen.dtype == np.float32 and seen.shape == VIEWS[name].shape
    assert expected.max() > 1
    assert np.abs(seen - expected).max() < 2e-5 * expected.max()


def test_the_result_does_not_depend_on_how_many_samples_are_held(
    mu: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ray_sums(torch.from_numpy(mu), AFFINE, VIEWS["pa cone"])
    monkeypatch.setattr(projection, "SAMPLES_AT_ONCE", 1)
    assert torch.allclose(ray_sums(torch.from_numpy(mu), AFFINE, VIEWS["pa cone"]), whole, atol=1e-5)


def test_air_casts_no_shadow() -> None:
    air = attenuation(torch.full(SHAPE, -1000.0))
    assert not air.any() and not ray_sums(air, AFFINE, VIEWS["ap"]).any()


def test_attenuation_is_that_of_the_geometry() -> None:
    hu = np.linspace(-1500, 3000, 50, dtype=np.float32)
    assert np.allclose(attenuation(torch.from_numpy(hu)).numpy(), core_attenuation(hu), atol=1e-8)


def test_a_source_inside_the_volume_is_refused(mu: npt.NDArray[np.float32]) -> None:
    view = View.cone("lateral", sod_mm=30.0, sdd_mm=300.0, **DETECTOR)
    with pytest.raises(InputError, match="source outside"):
        ray_sums(torch.from_numpy(mu), AFFINE, view)
