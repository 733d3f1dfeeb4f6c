"""Anatomy and texture: landmarks of an analytic phantom, and the order of good and bad predictions."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tests import phantom
from x2ct.errors import InputError
from x2ct.evaluation import anatomy, protocol, table
from x2ct.evaluation.anatomy import Landmarks
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume

GRID = Grid((108, 80, 88), (3.0, 3.0, 3.0))
SPINE_Y, PERIOD, DISCS = -40.0, 26.0, 4  # mm; discs at z = -4 x 26 to 4 x 26 mm
RING = (132.0, 92.0)  # the ribs' ellipse in x and y, mm
RIB_MM, COLUMN_MM = 5.0, 38.0
EMPTY = -1000.0


def points() -> list[np.ndarray]:
    axes = [GRID.index_to_mm[a, a] * np.arange(n) + GRID.index_to_mm[a, 3] for a, n in enumerate(GRID.shape)]
    return np.meshgrid(*axes, indexing="ij")


def ring_distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the ribs' ellipse in the axial plane, first order."""
    norm = np.hypot(x / RING[0], y / RING[1])
    return norm * (norm - 1) / np.maximum(np.hypot(x / RING[0] ** 2, y / RING[1] ** 2), 1e-9)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """A trunk: two lungs, a spine with canal, arch and discs, and ribs that are tori beside it; air around."""
    x, y, z = points()
    hu = np.full(GRID.shape, EMPTY)

    def add(distance: np.ndarray, value: float) -> None:
        cover = np.clip(0.5 - distance / 3.0, 0, 1)
        hu[...] += cover * (value - hu)

    add((np.hypot(x / 150, y / 110) - 1) * 110, 40)
    ring = ring_distance(x, y)
    add(np.maximum.reduce([ring + RIB_MM + 3, 32 - np.abs(x), np.abs(z) - 120]), -820)
    to_disc = np.abs((z + PERIOD / 2) % PERIOD - PERIOD / 2)
    column = np.hypot(x, y - SPINE_Y) - 18
    add(column, 80)
    add(np.maximum(column, 3 - to_disc), 450)  # end plates of 3 mm, which are the bodies' walls too
    add(np.maximum(column + 3, 6 - to_disc), 220)
    arch = np.hypot(x, y - (SPINE_Y - 27))
    add(arch - 13, 500)
    add(np.maximum(np.abs(x) - 4, np.abs(y - (SPINE_Y - 48)) - 10), 500)
    add(arch - 8, 30)
    along = np.abs((z + PERIOD) % PERIOD - PERIOD / 2)
    add(np.maximum.reduce([np.hypot(ring, along) - RIB_MM, COLUMN_MM - np.abs(x), np.abs(z) - 110]), 700)
    return hu.astype(np.float32)


@pytest.fixture(scope="module")
def landmarks(truth: np.ndarray) -> Landmarks:
    return Landmarks.of(truth, GRID.spacing_mm)


@pytest.fixture(scope="module")
def perfect(landmarks: Landmarks, truth: np.ndarray) -> anatomy.Anatomy:
    return landmarks.measure(truth)


def moved(hu: np.ndarray, mm: float, axis: int) -> np.ndarray:
    shift = [mm / GRID.spacing_mm[a] if a == axis else 0.0 for a in range(3)]
    return ndimage.shift(hu, shift, order=1, mode="nearest")


def checkered(hu: np.ndarray, step: float, stride: int = 4) -> np.ndarray:
    cells = sum(np.meshgrid(*(np.arange(n) // stride for n in hu.shape), indexing="ij"))
    return hu + np.where(cells % 2, step, -step).astype(np.float32)


def test_the_axis_runs_in_the_vertebral_bodies_and_every_disc_is_found(landmarks: Landmarks) -> None:
    mm = landmarks.axis @ GRID.index_to_mm[:3, :3].T + GRID.index_to_mm[:3, 3]
    assert np.ptp(mm[:, 2]) > GRID.shape[2] * 3.0 - 20
    assert np.abs(mm[:, 0]).max() < 2
    assert np.abs(mm[:, 1] - SPINE_Y).max() < 6
    z = mm[landmarks.gaps, 2]
    assert np.abs(z - PERIOD * np.arange(-DISCS, DISCS + 1)).max() < 2


def test_ribs_are_the_tori_and_neither_spine_nor_sternum(landmarks: Landmarks, truth: np.ndarray) -> None:
    x, y, _ = points()
    ring = ring_distance(x, y)
    ribs = landmarks.ribs > 0
    assert (truth[ribs] >= 200).all()
    assert np.abs(ring[ribs]).max() < RIB_MM + 2
    assert ribs.sum() > 0.9 * ((truth >= 200) & (np.abs(x) > COLUMN_MM + 3)).sum()
    assert (landmarks.centreline <= ribs).all()
    # A centreline: one voxel wide, a small part of the bone, within a voxel or two of the torus' own middle.
    assert 0 < landmarks.centreline.sum() < 0.15 * ribs.sum()
    assert np.median(np.abs(ring[landmarks.centreline])) < 4


def test_the_truth_itself_is_the_best_that_can_be(perfect: anatomy.Anatomy) -> None:
    assert perfect.spine_correlation == pytest.approx(1.0)
    assert (perfect.vertebrae, perfect.rib_pieces, perfect.rib_distance_mm, perfect.air_std_hu) == (1.0, 1.0, 0.0, 0.0)


def test_an_empty_prediction_has_the_documented_worst(landmarks: Landmarks) -> None:
    found = landmarks.measure(np.full(GRID.shape, EMPTY))
    assert found == anatomy.Anatomy(0.0, 0.0, 0.0, anatomy.FARTHEST_MM, 0.0, 1.0)
    water = landmarks.measure(np.zeros(GRID.shape))
    assert water == found


@pytest.mark.parametrize("how", ["blurred", "shifted across", "shifted along"])
def test_blurred_and_shifted_lie_between_perfect_and_empty(landmarks: Landmarks, truth: np.ndarray, how: str) -> None:
    estimates = {
        "blurred": [ndimage.gaussian_filter(truth, mm / 3.0) for mm in (2.0, 4.0)],
        "shifted across": [moved(truth, mm, 0) for mm in (4.0, 12.0)],
        "shifted along": [moved(truth, mm, 2) for mm in (2.0, 6.0)],
    }[how]
    little, much = (landmarks.measure(estimate) for estimate in estimates)
    assert 1.0 > little.spine_correlation > much.spine_correlation
    assert 1.0 >= little.vertebrae >= much.vertebrae
    assert 1.0 >= little.rib_pieces >= much.rib_pieces
    assert 0.0 <= little.rib_distance_mm < much.rib_distance_mm < anatomy.FARTHEST_MM
    assert all(math.isfinite(value) for found in (little, much) for value in asdict(found).values())


def test_a_gap_is_found_within_4_mm_and_not_beyond(landmarks: Landmarks, truth: np.ndarray) -> None:
    shares = [landmarks.measure(moved(truth, mm, 2)).vertebrae for mm in (-6.0, -2.0, 2.0, 6.0)]
    assert shares == [0.0, 1.0, 1.0, 0.0]


def test_a_column_without_gaps_has_no_vertebrae_and_one_gap_less_costs_two_bodies(
    landmarks: Landmarks, truth: np.ndarray
) -> None:
    rod, one = truth.copy(), truth.copy()
    column = np.hypot(*(p - c for p, c in zip(points(), (0, SPINE_Y), strict=False))) < 21
    middle = truth[:, :, [GRID.shape[2] // 2 + 4]]  # 13.5 mm above the disc at z = 0: the middle of a body
    rod[column] = np.broadcast_to(middle, truth.shape)[column]
    found = landmarks.measure(rod)
    assert abs(found.spine_correlation) < 0.2 and found.vertebrae == 0.0
    near = column & (np.abs(points()[2]) < 9)
    one[near] = rod[near]
    bodies = 2 * DISCS
    assert landmarks.measure(one).vertebrae == pytest.approx((bodies - 2) / bodies)


def test_ribs_that_are_missing_count_as_missing(landmarks: Landmarks, truth: np.ndarray) -> None:
    half = truth.copy()
    half[:54][landmarks.ribs[:54] > 0] = 0.0
    sizes = [
        np.bincount(landmarks.ribs[part].ravel(), minlength=landmarks.ribs.max() + 1)[1:]
        for part in (slice(54, None), slice(None))
    ]
    found = landmarks.measure(half)
    assert found.rib_pieces == pytest.approx(np.mean(sizes[0] >= 0.25 * sizes[1]))
    assert 0.3 < found.rib_pieces < 0.7
    assert found.rib_distance_mm > 1.0
    assert found.spine_correlation == pytest.approx(1.0, abs=0.01)


def test_air_has_the_noise_that_it_was_given_and_a_blurred_skin_is_none(
    landmarks: Landmarks, truth: np.ndarray
) -> None:
    noise = np.random.default_rng(0).normal(0, 35, truth.shape).astype(np.float32)
    assert landmarks.measure(truth + noise).air_std_hu == pytest.approx(35, rel=0.02)
    assert landmarks.measure(ndimage.gaussian_filter(truth, 2.0 / 3)).air_std_hu < 1.0
    wide = ndimage.distance_transform_edt(~landmarks.body, GRID.spacing_mm)
    assert wide[landmarks.air].min() > 10


def test_a_checker_pattern_is_seen_at_its_own_stride_only(landmarks: Landmarks) -> None:
    smooth = ndimage.gaussian_filter(np.random.default_rng(1).normal(0, 100, GRID.shape), 1.0).astype(np.float32)
    plain = landmarks.measure(smooth).step_ratio
    assert plain == pytest.approx(1.0, abs=0.05)
    weak, strong = (landmarks.measure(checkered(smooth, step)).step_ratio for step in (10.0, 40.0))
    assert 1.1 < weak < strong
    assert landmarks.measure(checkered(smooth, 40.0), stride=3).step_ratio < 0.6 * strong


def test_the_step_ratio_is_its_closed_form() -> None:
    ramp = np.cumsum(np.where(np.arange(16) % 4 == 0, 30.0, 10.0))  # steps of 30 into each cell, of 10 inside
    hu = np.broadcast_to(ramp[:, None, None], (16, 5, 5)).astype(np.float32)
    everywhere = np.ones(hu.shape, np.bool_)
    # Across: 3 borders of 25 voxels' steps of 30, and 2 x 16 x 5 of 0; within: 12 of 10, and 2 x (4 - 1) x 16 x 5 of 0.
    across, within = 3 * 25 * 30 / (3 * 25 + 2 * 80), 12 * 25 * 10 / (12 * 25 + 2 * 3 * 80)
    assert anatomy.step_ratio(hu, everywhere, 4) == pytest.approx(across / within)
    assert anatomy.step_ratio(hu, ~everywhere, 4) is None
    assert anatomy.step_ratio(hu * 0, everywhere, 4) == 1.0


def test_what_the_truth_lacks_is_none_and_left_out_of_the_mean(perfect: anatomy.Anatomy) -> None:
    grid = Grid((32, 32, 32), (5.0, 5.0, 5.0))
    ball = phantom.sphere(grid, 60.0)
    found = anatomy.anatomy(ball, ball, grid.spacing_mm)
    assert found == anatomy.Anatomy(None, None, None, None, 0.0, found.step_ratio)
    nobody = np.full(grid.shape, EMPTY)
    assert anatomy.anatomy(nobody, nobody, grid.spacing_mm) == anatomy.Anatomy(*[None] * 6)
    scores = [{"anatomy": one.figures()} for one in (found, perfect)]
    mean = protocol.average(scores)["anatomy"]
    assert mean["vertebrae"] == 1.0 and mean["rib_distance_mm"] == 0.0
    (row,) = table.of_methods({"m": scores[0]}, columns=table.ANATOMY).markdown()[2:]
    assert row.startswith("| m | - | - | - | - | 0.0 |")


def test_one_call_is_the_same_as_landmarks_and_bad_input_is_refused() -> None:
    chest = Volume.load(Path(__file__).parent / "data" / "chest_4mm.nii.gz").hu
    spacing = (4.0, 4.0, 5.0)
    blurred = ndimage.gaussian_filter(chest, 1.0)
    found = anatomy.anatomy(blurred, chest, spacing)
    landmarks = Landmarks.of(chest, spacing)
    assert found == landmarks.measure(blurred)
    assert found.spine_correlation is not None and found.rib_pieces is not None
    heights = np.diff(landmarks.gaps)
    assert len(heights) >= 4 and heights.min() >= 14 and heights.max() <= 42
    with pytest.raises(InputError, match="shape"):
        anatomy.anatomy(blurred[1:], chest, spacing)
    with pytest.raises(InputError, match="finite"):
        landmarks.measure(np.full(chest.shape, np.nan))
    with pytest.raises(InputError, match="stride"):
        landmarks.measure(blurred, stride=1)
