"""How two views of a patient lie to each other: found from the mass of their slices, whatever the intensity."""

from __future__ import annotations

import numpy as np
import pytest

from tests import tiny_body
from x2ct.bundle import Bundle
from x2ct.engine.align import Pose, align
from x2ct.engine.sampler import Sampler
from x2ct.errors import InputError
from x2ct.geometry import Geometry, View, attenuation, project
from x2ct.io.xray.radiograph import XRay

SHAPE, PITCH = (240, 160), (1.5, 1.5)
TOLD = Pose()


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


def seen(view: View, pose: Pose) -> View:
    return View(view.name, pose.matrix(view.matrix), view.shape, view.spacing_mm)


def _pair(body, frontal: Pose, lateral: Pose, cone: bool = False):
    """X-rays of views that are as the poses say, and the matrices of views that are not."""
    if cone:
        views = [View.cone(n, a, sod_mm=900, sdd_mm=1100, shape=SHAPE) for n, a in (("ap", 0), ("lateral", 90))]
    else:
        views = [View.parallel(n, a, shape=SHAPE, spacing_mm=PITCH) for n, a in (("ap", 0), ("lateral", 90))]
    images = [project(*body, seen(view, pose)) for view, pose in zip(views, (frontal, lateral), strict=True)]
    return images, [view.matrix for view in views]


@pytest.mark.parametrize("cone", [False, True], ids=["parallel", "cone"])
@pytest.mark.parametrize(
    ("frontal", "lateral"),
    [(TOLD, TOLD), (TOLD, Pose(-22.0)), (Pose(turn_deg=3), Pose(7.3, 0.95, -2)), (Pose(turn_deg=-1), Pose(0, 1.08))],
    ids=["as told", "lower", "turned and smaller", "larger"],
)
def test_views_show_the_same_mass_in_each_plane_through_both_sources(body, frontal, lateral, cone) -> None:
    alignment = align(*_pair(body, frontal, lateral, cone))
    assert alignment.correlation > 0.9998
    assert alignment.lateral.height_mm == pytest.approx(lateral.height_mm, abs=0.5)
    assert alignment.lateral.size == pytest.approx(lateral.size, abs=0.005)
    assert alignment.lateral.turn_deg == pytest.approx(lateral.turn_deg, abs=0.4)
    assert alignment.frontal == Pose(turn_deg=pytest.approx(frontal.turn_deg, abs=0.4))


def test_a_factor_and_an_offset_of_each_image_change_nothing(body) -> None:
    images, matrices = _pair(body, Pose(turn_deg=2), Pose(12.0, 1.05))
    bent = [
        np.where(image > 0.05, a * image + b, 0) for image, a, b in zip(images, (3.0, 0.7), (1.0, -0.3), strict=True)
    ]
    alignment = align(bent, matrices, calibrated=False)
    assert alignment.lateral.height_mm == pytest.approx(12.0, abs=1) and alignment.whole
    assert alignment.lateral.size == pytest.approx(1.05, abs=0.01)
    assert alignment.frontal.turn_deg == pytest.approx(2.0, abs=0.7)


def test_a_pose_moves_scales_and_turns_the_picture() -> None:
    """Height and size are those of the patient; a turn is clockwise in the picture, whichever side the source is on."""
    point = np.array([20.0, -30.0, 40.0, 1.0])
    for name, make in (("ap", View.cone), ("pa", View.cone), ("lateral", View.parallel)):
        view = make(name, shape=SHAPE)
        assert np.allclose(
            Pose(10.0, 1.1).matrix(view.matrix) @ point, view.matrix @ (point * [1.1, 1.1, 1.1, 1] + [0, 0, 10, 0])
        )
        (middle, _), _ = seen(view, Pose(turn_deg=5)).to_pixels([0.0, 0.0, 0.0])
        (head, _), _ = seen(view, Pose(turn_deg=5)).to_pixels([0.0, 0.0, 100.0])
        assert head > middle + 3  # to the picture's right
    near = View.cone("ap", sod_mm=1500 / 1.2, sdd_mm=1800, shape=SHAPE, spacing_mm=(1.5, 1.5))
    far = View.cone("ap", sod_mm=1500, sdd_mm=1800, shape=SHAPE, spacing_mm=(1.5, 1.5))
    assert np.allclose(seen(far, Pose(size=1.2)).to_pixels(point[:3])[0], near.to_pixels(point[:3])[0])


def test_pictures_that_have_nothing_in_common_are_refused(body) -> None:
    images, matrices = _pair(body, TOLD, TOLD)
    with pytest.raises(InputError, match="--align: X-rays: found profiles"):
        align([images[0], np.random.default_rng(0).random(SHAPE)], matrices)
    with pytest.raises(InputError, match="--align: detectors: found 89 mm of height"):
        align(
            [image[60:-60] for image in images], [np.array([[1, 0, 0], [0, 1, -60], [0, 0, 1]]) @ m for m in matrices]
        )


def test_a_run_brings_the_x_rays_to_agree(tiny: Bundle) -> None:
    """The same CT as from X-rays whose geometry says how the patient lies in them."""
    told = tiny.geometry
    frontal, lateral = told.views
    moved = seen(lateral, Pose(20.0))
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
