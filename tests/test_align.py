"""The height of a patient in two views: found from the mass of their rows, whatever the shift and the intensity."""

from __future__ import annotations

import numpy as np
import pytest

from tests import tiny_body
from x2ct.bundle import Bundle
from x2ct.engine.align import heights, raised
from x2ct.engine.sampler import Sampler
from x2ct.errors import InputError
from x2ct.geometry import Geometry, View, attenuation, project
from x2ct.io.xray.radiograph import XRay

SHAPE, PITCH = (240, 160), (1.5, 1.5)


@pytest.fixture(scope="module")
def body() -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid with denser slabs and balls off its axis, attenuation per mm on voxels of 3 mm, and its affine."""
    rng = np.random.default_rng(1)
    x, y, z = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * 3.0 for n in (72, 60, 96)), indexing="ij")
    mu = 0.02 * ((x / 95) ** 2 + (y / 75) ** 2 + (z / 130) ** 2 < 1)
    for _ in range(14):
        cx, cy, cz = rng.uniform(-60, 60, 2).tolist() + [rng.uniform(-100, 100)]
        mu += rng.uniform(-0.012, 0.02) * ((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < rng.uniform(8, 20) ** 2)
    index_to_mm = np.diag([3.0, 3.0, 3.0, 1.0])
    index_to_mm[:3, 3] = [-(n - 1) * 1.5 for n in mu.shape]
    return np.maximum(mu, 0).astype(np.float32), index_to_mm


def _pair(body, higher_mm: float, cone: bool = False):
    mu, index_to_mm = body
    if cone:
        views = [View.cone(n, a, sod_mm=1500, sdd_mm=1800, shape=SHAPE) for n, a in (("ap", 0), ("lateral", 90))]
    else:
        views = [View.parallel(n, a, shape=SHAPE, spacing_mm=PITCH) for n, a in (("ap", 0), ("lateral", 90))]
    moved = index_to_mm.copy()
    moved[2, 3] += higher_mm
    images = np.stack([project(mu, index_to_mm, views[0]), project(mu, moved, views[1])])
    return images, np.stack([view.matrix for view in views])


@pytest.mark.parametrize("higher_mm", [0.0, 7.3, -22.0])
def test_parallel_views_show_the_same_mass_at_each_height(body, higher_mm) -> None:
    found = heights(*_pair(body, higher_mm))
    assert found.offset_mm == pytest.approx(higher_mm, abs=0.5) and found.correlation > 0.99


def test_the_offset_survives_a_monotonic_map_of_intensities_and_a_cone_beam(body) -> None:
    images, matrices = _pair(body, 12.0)
    assert heights(3.0 * images**0.8, matrices).offset_mm == pytest.approx(12.0, abs=0.5)
    assert heights(*_pair(body, 12.0, cone=True)).offset_mm == pytest.approx(12.0, abs=1.5)


def test_a_raised_view_sees_a_higher_patient_where_the_view_sees_the_patient() -> None:
    view = View.cone("lateral", 90, sod_mm=1500, sdd_mm=1800, shape=SHAPE)
    point = np.array([20.0, -30.0, 40.0, 1.0])
    higher = raised(view.matrix, 10.0) @ point
    assert np.allclose(higher, view.matrix @ (point + [0, 0, 10.0, 0]))
    images = np.zeros((2, *SHAPE))
    images[:, 60:180, 40:120] = 1
    images[1, 90:110] *= 3
    with pytest.raises(InputError, match="--align: X-rays: found profiles"):
        heights(np.stack([images[0], np.random.default_rng(0).random(SHAPE)]), np.stack([view.matrix] * 2))


def test_a_run_brings_the_lateral_x_ray_to_the_height_of_the_frontal_one(tiny: Bundle) -> None:
    """The same CT as from X-rays whose geometry says how much higher the patient is."""
    told = tiny.geometry
    frontal, lateral = told.views
    moved = View(lateral.name, raised(lateral.matrix, 20.0), lateral.shape, lateral.spacing_mm)
    mu = attenuation(tiny_body.body())
    pair = {v.name: XRay.of(project(mu, tiny_body.GRID.index_to_mm, v), v.spacing_mm) for v in (frontal, moved)}
    sampler = Sampler(tiny, precision="f32", threads=1)
    right = sampler.run(**pair, geometry=Geometry((frontal, moved)), mean=True).volume.hu
    aligned = sampler.run(**pair, geometry=told, mean=True, align=True)
    left = sampler.run(**pair, geometry=told, mean=True).volume.hu
    assert np.abs(aligned.volume.hu - right).mean() < 0.2 * np.abs(left - right).mean()
    assert any("lateral: shows the patient +2" in line for line in aligned.report["assumptions"])
    with pytest.raises(InputError, match="--align: X-rays: found 1"):
        sampler.run(ap=pair["ap"], mean=True, align=True)
