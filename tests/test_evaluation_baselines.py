"""Baselines: each recovers what it must on patients for whom the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import phantom
from x2ct.data.shards import ShardSet, write_index
from x2ct.errors import InputError
from x2ct.evaluation import baselines
from x2ct.evaluation.baselines import Baselines, back_projected
from x2ct.geometry import Geometry, View, attenuation, project
from x2ct.geometry.grid import Grid
from x2ct.io.report import sha256

GRID = Grid((16, 14, 18), (8.0, 8.0, 8.0))
GEOMETRY = Geometry.parallel(shape=(24, 20), spacing_mm=(8.0, 8.0))


def xrays_of(hu: np.ndarray) -> list[np.ndarray]:
    return [project(attenuation(hu), GRID.index_to_mm, view, 1) for view in GEOMETRY.views]


def fitted(folder: Path, volumes: list[np.ndarray]) -> Baselines:
    entries = []
    for k, volume in enumerate(volumes):
        np.save(folder / f"p{k}.npy", np.rint(volume).astype(np.int16))
        entry = {"id": f"p{k}", "split": "train", "file": f"p{k}.npy", "shape": list(volume.shape)}
        affine = GRID.index_to_mm.tolist()
        entries.append({**entry, "index_to_mm": affine, "sha256": sha256(folder / f"p{k}.npy")})
    write_index(folder, GRID, entries)
    return Baselines.fit(ShardSet.open(folder).patients, GRID, GEOMETRY, threads=1)


def test_mean_and_nearest(tmp_path: Path) -> None:
    patients = [np.rint(phantom.limb(GRID, seed)) for seed in range(4)]
    base = fitted(tmp_path, patients)
    clipped = np.clip(patients, -1000, 1500)
    assert np.allclose(base.mean(), clipped.mean(axis=0), atol=1e-3)
    for k in range(4):
        # A little noise does not make another patient nearer.
        images = [image + 0.01 for image in xrays_of(patients[k])]
        assert base.nearest_id(images) == f"p{k}"
        assert np.array_equal(base.nearest(images), clipped[k].astype(np.float32))
    with pytest.raises(InputError, match="X-rays"):
        base.nearest([image[1:] for image in xrays_of(patients[0])])


def test_regression_recovers_a_linear_family_beyond_its_training(tmp_path: Path) -> None:
    # Patients who differ by one number, linearly: their X-rays do so too, and a new one is on the same line.
    basis = np.zeros(GRID.shape)
    basis[4:12, 4:10, 3:15] = 1000.0
    basis[6:9, 6:8, :] += 300.0
    member = lambda t: -1000.0 + t * basis  # noqa: E731
    base = fitted(tmp_path, [member(t) for t in (0.7, 0.8, 0.9, 1.0, 1.1)])
    truth = member(1.2)
    linear, nearest = base.linear(xrays_of(truth)), base.nearest(xrays_of(truth))
    assert base.penalty == min(baselines.PENALTIES)
    assert np.abs(linear - truth).mean() < 0.1 * np.abs(nearest - truth).mean()
    assert np.abs(base.linear(xrays_of(member(0.9))) - base.mean()).max() < 1.0


def test_regression_is_the_normal_equations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volumes = rng.normal(size=(6, 2, 3, 2)).astype(np.float32)
    train = rng.normal(size=(6, 2, 2, 3, 2)).astype(np.float32)
    test = rng.normal(size=(2, 2, 3, 2)).astype(np.float32)
    found = baselines._predict(volumes, train, test, 0.3)
    for voxel in np.ndindex(2, 3, 2):
        x, y = train[(slice(None), slice(None), *voxel)], volumes[(slice(None), *voxel)]
        # Ridge as least squares on a longer system; the intercept has no penalty.
        rows = np.vstack([np.hstack([np.ones((6, 1)), x]), np.hstack([np.zeros((2, 1)), np.sqrt(0.3 * 6) * np.eye(2)])])
        weights = np.linalg.lstsq(rows, np.concatenate([y, np.zeros(2)]), rcond=None)[0]
        assert found[voxel] == pytest.approx(weights @ [1, *test[(slice(None), *voxel)]], abs=1e-4)


@pytest.mark.parametrize("view", [*GEOMETRY.views, *Geometry.cone(shape=(80, 90), spacing_mm=(4.0, 4.0)).views])
def test_a_voxel_sees_the_pixel_that_it_is_projected_on(view: View) -> None:
    points = np.stack(np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij"), axis=-1)
    pixels, _ = view.to_pixels(points @ GRID.index_to_mm[:3, :3].T + GRID.index_to_mm[:3, 3])
    rows, cols = np.indices(view.shape).astype(np.float32)
    assert np.allclose(back_projected(cols, view, GRID), pixels[..., 0], atol=1e-3)
    assert np.allclose(back_projected(rows, view, GRID), pixels[..., 1], atol=1e-3)


def test_off_the_detector_there_is_nothing() -> None:
    view = View.parallel("ap", shape=(4, 4), spacing_mm=(8.0, 8.0))
    found = back_projected(np.ones(view.shape, np.float32), view, GRID)
    assert found[8, 7, 9] == 1.0
    assert found[0, 7, 0] == 0.0


def test_three_patients_are_the_least(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 3"):
        fitted(tmp_path, [phantom.limb(GRID, 0)] * 2)
