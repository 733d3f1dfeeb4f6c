"""Shapes: a registration finds a known displacement, and a study takes on another patient's shape."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests import phantom
from tests.tiny_run import GRID
from x2ct.data.augment import AugmentConfig, body_of, draw_plan, render
from x2ct.data.prepare import prepare
from x2ct.data.shapes import FILE, NODES, REGISTERED, Shapes, registered
from x2ct.data.shards import ShardSet
from x2ct.errors import InputError
from x2ct.geometry import Geometry, View
from x2ct.io.ct.volume import Volume

TOPS = (6.0, 8.0)
STILL = AugmentConfig(
    rotation_deg=0, scale=0, shift_mm=0, warp_mm=0, flip=0, density=0, crop=0, cone=0, view_deg=0, unknown_deg=0,
    noise=0, uncalibrated=0, drop=(0, 0),
)  # fmt: skip
VIEWS = Geometry(
    (
        View.parallel("ap", 0.0, shape=(64, 64), spacing_mm=(6.0, 6.0)),
        View.parallel("lateral", 90.0, shape=(64, 64), spacing_mm=(6.0, 6.0)),
    )
)


def picture(seed: int) -> np.ndarray:
    hu = phantom.chest(REGISTERED, seed, marker=False)
    return ((np.clip(hu, -1000, 400) + 1000) / 1400).astype(np.float32)


def test_a_registration_finds_a_known_displacement() -> None:
    chest = picture(0)
    moved = np.roll(chest, 4, axis=0)  # 20 mm towards +x
    field = registered(chest, moved)
    assert field.shape == (3, *NODES.shape)
    mm = NODES.index_to_mm[0, 0] * np.arange(20) + NODES.index_to_mm[0, 3]
    body = np.abs(mm) < 60
    inside = field[:, body][:, :, body][:, :, :, body].mean((1, 2, 3))
    assert inside == pytest.approx([20.0, 0.0, 0.0], abs=4.0)


def test_a_chest_takes_on_another_s_shape_and_keeps_its_own_at_part_zero(shaped_shards: Path) -> None:
    train = ShardSet.open(shaped_shards).select("train")
    shapes = Shapes.load(shaped_shards)
    assert shapes.ids == tuple(p.id for p in train)

    class Towards(Shapes):
        def towards(self, patient: str, rng: np.random.Generator, most: float) -> np.ndarray:
            return self.between(patient, self.ids[1], most)

    def study(patient: int, part: float) -> np.ndarray:
        forced = Towards(shapes.ids, shapes.displacement_mm)
        config = dataclasses.replace(STILL, shape=part)
        plan = draw_plan(train[patient], GRID, VIEWS, config, np.random.default_rng(0), TOPS, forced)
        return np.clip(render(body_of(train[patient]), plan).hu.numpy(), -1000, 400)

    own, other = study(0, 0.0), study(1, 0.0)
    away = [float(np.square(study(0, part) - other).mean()) for part in (0.0, 0.5, 1.0)]
    assert away[2] < 0.6 * away[0] and away[1] < away[0]
    assert float(np.square(study(0, 1e-6) - own).mean()) < 1e-3 * away[0]


def test_a_shape_is_drawn_between_a_patient_and_each_other() -> None:
    """In a part from none to the most that is asked for; someone who was not registered keeps the own shape."""
    fields = np.arange(3, dtype=np.float32).repeat(3 * NODES.shape[0] ** 3).reshape(3, 3, *NODES.shape)
    shapes, rng = Shapes(("a", "b", "c"), fields), np.random.default_rng(0)
    drawn = []
    for _ in range(200):
        displacement = shapes.towards("b", rng, 0.8)
        assert displacement is not None and np.ptp(displacement) == 0
        drawn.append(float(displacement.flat[0]))  # towards a (0 mm) from b (1 mm), towards c (2 mm), or b itself
    assert min(drawn) == pytest.approx(-0.8, abs=0.05) and max(drawn) == pytest.approx(0.8, abs=0.05)
    assert np.mean(np.abs(drawn) < 0.4) == pytest.approx((1 + 2 * 0.5) / 3, abs=0.1)
    assert shapes.towards("d", rng, 0.8) is None


def test_no_shape_leaves_the_plan_as_it_was(shaped_shards: Path) -> None:
    patient = ShardSet.open(shaped_shards).patients[0]
    plans = [
        draw_plan(patient, GRID, VIEWS, AugmentConfig(), np.random.default_rng(3), TOPS, shapes)
        for shapes in (None, Shapes.load(shaped_shards))
    ]
    assert np.array_equal(plans[0].positions, plans[1].positions) and plans[0].views == plans[1].views


def test_shapes_are_of_training_patients_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("x2ct.data.shapes.LEVELS", ((4, 5),))  # whose and when, not how well
    grid = dataclasses.replace(GRID, spacing_mm=(8.0, 8.0, 8.0))
    for seed in range(4):
        hu = phantom.chest(grid, seed, marker=False)
        (tmp_path / "cts").mkdir(exist_ok=True)
        Volume(hu, grid.index_to_mm).save(tmp_path / f"cts/p{seed}.nii.gz")
    out = tmp_path / "shards"
    prepare(tmp_path / "cts", out, validation=["p3"], shapes=True)
    assert Shapes.load(out).ids == ("p0", "p1", "p2")
    before = (out / FILE).stat().st_mtime_ns
    prepare(tmp_path / "cts", out, validation=["p3"], shapes=True)
    assert (out / FILE).stat().st_mtime_ns == before
    prepare(tmp_path / "cts", out, validation=["p2"], shapes=True)
    assert Shapes.load(out).ids == ("p0", "p1", "p3")


def test_missing_and_damaged_shapes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shapes\.npz: file: .*make it with x2ct prepare --shapes"):
        Shapes.load(tmp_path)
    (tmp_path / FILE).write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"shapes\.npz: file") as caught:
        Shapes.load(tmp_path)
    assert "\n" not in str(caught.value)
