"""Bones: pieces of a real skeleton, and surface distances against ITK's and a closed form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from x2ct.evaluation import metrics
from x2ct.io.ct.volume import Volume

SPACING = (4.0, 4.0, 5.0)


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    return Volume.load(Path(__file__).parent / "data" / "chest_4mm.nii.gz").hu


def distance_by_itk(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """The 95% Hausdorff distance by ITK's contours and distance maps."""

    def image(mask: np.ndarray) -> sitk.Image:
        # ITK's contour takes the array's border for a face; a replicated rim keeps it from doing so.
        made = sitk.GetImageFromArray(np.pad(mask, 1, mode="edge").astype(np.uint8).transpose(2, 1, 0))
        made.SetSpacing(spacing)
        return made

    surfaces = [sitk.LabelContour(image(mask), fullyConnected=False) for mask in (a, b)]
    inner = (slice(1, -1),) * 3
    marks = [sitk.GetArrayFromImage(s).astype(bool)[inner] for s in surfaces]
    distances = []
    for mine, other in ((0, 1), (1, 0)):
        cropped = sitk.GetImageFromArray(marks[other].astype(np.uint8))
        cropped.SetSpacing(spacing)
        options = {"squaredDistance": False, "useImageSpacing": True, "insideIsPositive": False}
        away = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(cropped, **options))
        distances.append(np.percentile(np.maximum(away, 0)[marks[mine]], 95))
    return float(max(distances))


def test_surface_distance_agrees_with_itk_on_a_real_chest(chest: np.ndarray) -> None:
    noisy = chest + np.random.default_rng(0).normal(0, 60, chest.shape).astype(np.float32)
    for estimate in (noisy, np.roll(chest, 3, axis=0), np.roll(chest, 2, axis=2)):
        distance = metrics.bone_surface_95(chest, estimate, SPACING)
        assert distance == pytest.approx(distance_by_itk(chest >= 200, estimate >= 200, SPACING), rel=1e-4)
        assert distance > 0


def test_what_is_missing_counts_like_what_is_too_much() -> None:
    # A rod through the whole array: its sides lie on the array's border, which is no face of it.
    rod, half = (np.full((70, 4, 4), -1000.0, np.float32) for _ in range(2))
    rod[10:60], half[10:20] = 500.0, 500.0
    # Of the long rod's two faces one is met exactly, and one is 40 voxels from the short one's.
    assert metrics.bone_surface_95(rod, half, (1.0, 1.0, 1.0)) == 40.0
    assert metrics.bone_surface_95(half, rod, (1.0, 1.0, 1.0)) == 40.0


@pytest.mark.parametrize("swap", [False, True])
def test_the_percentile_is_the_95th_in_either_direction(swap: bool) -> None:
    # A hundred surface voxels; the other has them too, and ten more, 1 to 10 mm away.
    plain = np.full((30, 10, 10), -1000.0, np.float32)
    plain[5] = 500.0
    moved = plain.copy()
    for k in range(10):
        moved[6 + k, 0, k] = 500.0
    a, b = (moved, plain) if swap else (plain, moved)
    spacing = (1.0, 100.0, 100.0)
    expected = np.percentile([0] * 100 + list(range(1, 11)), 95)
    assert metrics.bone_surface_95(a, b, spacing) == pytest.approx(expected)
    assert expected > 4


@pytest.mark.parametrize("shift", [0, 1, 3, 7])
def test_the_distance_of_shifted_plates_is_the_shift(shift: int) -> None:
    truth = np.full((40, 12, 12), -1000.0, np.float32)
    truth[10:12] = 500.0
    assert metrics.bone_surface_95(truth, np.roll(truth, shift, axis=0), (2.0, 5.0, 5.0)) == pytest.approx(2.0 * shift)


def test_a_few_stray_voxels_are_not_the_distance_and_no_bone_has_none() -> None:
    truth = np.full((30, 30, 30), -1000.0, np.float32)
    truth[5:15, 5:15, 5:15] = 500.0
    stray = truth.copy()
    stray[28, 28, 28] = 500.0
    assert metrics.bone_surface_95(truth, stray, (1.0, 1.0, 1.0)) == 0.0
    assert math.isnan(metrics.bone_surface_95(truth, np.full_like(truth, -1000.0), (1.0, 1.0, 1.0)))


def test_a_real_skeleton_falls_into_pieces_of_bone_only(chest: np.ndarray) -> None:
    labels = metrics.bone_pieces(chest, SPACING)
    count = int(labels.max())
    assert 15 <= count <= 60
    assert sorted(np.unique(labels)) == list(range(count + 1))
    assert (chest[labels > 0] >= 200).all()
    assert (labels > 0).sum() > 0.8 * (chest >= 200).sum()
    assert np.bincount(labels.ravel())[1:].min() * np.prod(SPACING) >= 1000
    assert np.array_equal(labels, metrics.bone_pieces(chest, SPACING))


def test_two_lumps_that_touch_are_two_pieces() -> None:
    hu = np.full((40, 30, 30), -1000.0, np.float32)
    hu[6:16, 10:20, 10:20] = 600.0
    hu[20:30, 10:20, 10:20] = 600.0
    hu[16:20, 14:16, 14:16] = 600.0  # a bridge: one connected component
    labels = metrics.bone_pieces(hu, (2.5, 2.5, 2.5))
    assert labels.max() == 2
    assert {int(labels[8, 15, 15]), int(labels[28, 15, 15])} == {1, 2}


def test_a_piece_is_there_by_any_voxel_or_by_a_quarter_of_them() -> None:
    labels = np.zeros((8, 10, 10), np.int32)
    labels[1], labels[4], labels[6] = 1, 2, 3
    estimate = np.full(labels.shape, -1000.0)
    assert metrics.pieces_present(labels, estimate) == {"any": 0.0, "quarter": 0.0}
    estimate[1, 0, 0] = 200.0  # one voxel
    estimate[4, :5, :5] = 900.0  # a quarter
    estimate[0] = 900.0  # beside any
    assert metrics.pieces_present(labels, estimate) == pytest.approx({"any": 2 / 3, "quarter": 1 / 3})
    assert metrics.pieces_present(labels, np.full(labels.shape, 300.0)) == {"any": 1.0, "quarter": 1.0}
    assert all(
        math.isnan(v) for v in metrics.pieces_present(np.zeros((3, 3, 3), np.int32), np.zeros((3, 3, 3))).values()
    )


def test_no_bone_has_no_pieces() -> None:
    assert not metrics.bone_pieces(np.full((12, 12, 12), -1000.0, np.float32), (2.5, 2.5, 2.5)).any()
