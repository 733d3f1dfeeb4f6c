"""The protocol: a case's X-rays see the whole body, the table is complete, and what is undefined stays undefined."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests import phantom
from x2ct.data.prepare import prepare
from x2ct.data.shards import ShardSet, resample
from x2ct.evaluation import card, protocol, table
from x2ct.evaluation.case import Case, make_case
from x2ct.geometry import Geometry, attenuation, project
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume

SOURCE = Grid((60, 56, 48), (7.0, 7.0, 7.0))
GRID = Grid((32, 32, 32), (9.0, 9.0, 9.0))
GEOMETRY = Geometry.parallel(shape=(56, 56), spacing_mm=(8.0, 8.0))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    path = tmp_path_factory.mktemp("test") / "patient.nii.gz"
    Volume(phantom.chest(SOURCE, 0, marker=False), SOURCE.index_to_mm).save(path)
    return make_case(path, GRID, GEOMETRY, threads=1)


def test_a_case_is_what_prepare_makes_of_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "cts" / "patient.nii.gz"
    path.parent.mkdir()
    Volume(phantom.chest(SOURCE, 1), SOURCE.index_to_mm).save(path)
    prepare(path.parent, tmp_path / "shards", grid=GRID)
    patient = ShardSet.open(tmp_path / "shards").patients[0]
    case = make_case(path, GRID, GEOMETRY, threads=1)
    assert case.id == patient.id == "patient"
    assert case.region == patient.region == "chest"
    assert np.array_equal(case.truth, resample(patient, GRID))
    for view, image in zip(GEOMETRY.views, case.xrays, strict=True):
        assert np.array_equal(image, project(attenuation(patient.hu()), patient.index_to_mm, view, 1))


def test_x_rays_see_more_than_the_grid(case: Case) -> None:
    # The trunk is 361 mm wide, the grid 288 mm: lateral rays cross what it cuts off, frontal rays in its middle don't.
    ap, lateral = case.contained
    again = [project(attenuation(case.truth), GRID.index_to_mm, view, 1) for view in GEOMETRY.views]
    middle = (slice(20, 36), slice(20, 36))
    assert ap[middle].all()
    assert not lateral[middle].any()
    assert (case.xrays[1] - again[1])[middle].mean() > 0.5
    assert np.abs((case.xrays[0] - again[0])[middle].mean()) < 0.05


def test_the_truth_itself_is_the_best_that_can_be(case: Case) -> None:
    figures = protocol.score(case, case.truth, threads=1)
    assert figures["psnr_db"] == math.inf
    assert figures["bone_dice"] == 1.0
    assert figures["reprojection_grid"] == {"ap": 0.0, "lateral": 0.0}
    assert figures["reprojection"]["ap"] < 0.2  # the grid's voxels are not the CT's
    assert 0 < figures["rays"]["lateral"] < figures["rays"]["ap"] < 1
    shifted = protocol.score(case, np.roll(case.truth, 2, axis=0), threads=1)
    constant = protocol.score(case, np.full(GRID.shape, -1000.0), threads=1)
    assert shifted["psnr_db"] > constant["psnr_db"]
    assert constant["bone_dice"] == 0.0
    assert constant["reprojection_grid"]["ap"] > shifted["reprojection_grid"]["ap"] > 0.05


def test_on_a_real_chest_perfect_is_better_than_shifted_and_shifted_than_constant() -> None:
    path = Path(__file__).parent / "data" / "chest_4mm.nii.gz"
    real = make_case(path, Grid((44, 40, 40), (8.0, 8.0, 8.0)), GEOMETRY, threads=1)
    constant = np.full(real.truth.shape, float(real.truth.mean()), np.float32)
    perfect, shifted, flat = (
        table.flat(protocol.score(real, estimate, threads=1))
        for estimate in (real.truth, np.roll(real.truth, 1, axis=2), constant)
    )
    higher = ("psnr_db", "ssim", "bone_dice", "bone_pieces.any", "bone_pieces.quarter", "legacy.ssim_slices")
    lower = (
        "mae_hu.all",
        "mae_hu.body",
        "mae_hu.lung",
        "mae_hu.bone",
        "reprojection_grid.ap",
        "reprojection_grid.lateral",
    )
    for key in higher:
        assert perfect[key] >= shifted[key] > flat[key], key
    for key in lower:
        assert perfect[key] == 0.0 < shifted[key] < flat[key], key
    assert perfect["bone_surface_95_mm"] == 0.0 < shifted["bone_surface_95_mm"] <= 8.0  # by how much it was shifted
    assert math.isnan(flat["bone_surface_95_mm"])  # no bone, no surface
    assert perfect["psnr_db"] == math.inf
    # Of a constant that is the mean, the error is the truth's own variance.
    clipped = np.clip(real.truth, -1000, 1500).astype(np.float64)
    expected = 10 * math.log10(2500**2 / np.mean((clipped - constant.flat[0]) ** 2))
    assert flat["psnr_db"] == pytest.approx(expected, abs=1e-4)


def test_the_table_has_every_method_and_nothing_undefined_as_a_number(case: Case, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = [case.truth + rng.normal(0, 60, GRID.shape).astype(np.float32) for _ in range(4)]
    result = protocol.evaluate(
        case, {"mean estimate": case.truth, "air": np.full(GRID.shape, -1000.0)}, samples, threads=1
    )
    names = ["mean estimate", "air", "single sample", "mean of 4 samples"]
    assert list(result["methods"]) == names
    single, four = result["methods"]["single sample"], result["methods"]["mean of 4 samples"]
    assert single["psnr_db"] == pytest.approx(np.mean([protocol.score(case, s, threads=1)["psnr_db"] for s in samples]))
    assert four["psnr_db"] > single["psnr_db"] + 3
    assert result["calibration"]["std_hu"] == pytest.approx(60, rel=0.05)

    other = protocol.evaluate(case, {"air": np.full(GRID.shape, -1000.0)}, threads=1)
    found = table.summarise([result, other | {"id": "second"}], {"bundle": "x"})
    assert list(found["mean"]) == ["air"]
    assert found["mean"]["air"]["psnr_db"] == pytest.approx(other["methods"]["air"]["psnr_db"])
    assert found["bundle"] == "x"
    text = card.markdown(found)
    assert all(f"| {name} |" in text for name in names)
    assert "### second" in text
    assert "60% if calibrated" in text


def test_the_figures_of_a_mean_leave_out_what_is_undefined() -> None:
    assert protocol.average([{"a": 1.0, "b": {"c": math.nan}}, {"a": 3.0, "b": {"c": 5.0}}]) == {
        "a": 2.0,
        "b": {"c": 5.0},
    }
    assert math.isnan(protocol.average([{"a": math.nan}])["a"])
