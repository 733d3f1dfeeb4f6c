"""Predictions made elsewhere: wherever their voxels lie, their affine brings them onto the case's grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests import phantom
from x2ct.errors import InputError
from x2ct.evaluation import predictions
from x2ct.evaluation.case import Case, make_case
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume

SOURCE = Grid((44, 40, 36), (9.0, 9.0, 9.0))
GRID = Grid((32, 32, 32), (10.0, 10.0, 10.0))
WORLD_MM = (120.0, -35.0, 900.0)  # where the scanner's origin was


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    path = tmp_path_factory.mktemp("test") / "patient.nii.gz"
    affine = SOURCE.index_to_mm
    affine[:3, 3] += WORLD_MM
    Volume(phantom.chest(SOURCE, 0), affine).save(path)
    return make_case(path, GRID, Geometry.parallel(shape=(40, 40), spacing_mm=(12.0, 12.0)), threads=1)


def saved(folder: Path, name: str, hu: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(hu.astype(np.float32), affine), folder / name)
    return folder


def test_on_the_grid_itself_nothing_changes(case: Case, tmp_path: Path) -> None:
    folder = saved(tmp_path, "patient.nii.gz", case.truth, GRID.index_to_mm)
    found, samples = predictions.of_case(folder, case, "patient")
    assert np.array_equal(found, case.truth)
    assert samples == []


@pytest.mark.parametrize("turn", [(2, 1, 0), (1, 0, 2)])
def test_another_order_of_axes_and_another_side_are_the_same_volume(
    case: Case, tmp_path: Path, turn: tuple[int, int, int]
) -> None:
    turned = case.truth.transpose(turn)[::-1]
    affine = GRID.index_to_mm[:, [*turn, 3]].copy()
    affine[:3, 3] += affine[:3, 0] * (turned.shape[0] - 1)
    affine[:3, 0] = -affine[:3, 0]
    folder = saved(tmp_path, "patient.nii", turned, affine)
    found, _ = predictions.of_case(folder, case, "patient")
    assert np.allclose(found, case.truth, atol=1e-3)


def test_another_grid_is_resampled_where_its_affine_says(case: Case, tmp_path: Path) -> None:
    finer = Grid((80, 80, 80), (5.0, 5.0, 5.0))
    x, y, z = (finer.index_to_mm[a, a] * np.arange(80) + finer.index_to_mm[a, 3] for a in range(3))
    ramp = x[:, None, None] + 2 * y[None, :, None] - z[None, None, :]  # linear: trilinear sampling is exact
    folder = saved(tmp_path, "patient.nii.gz", ramp, finer.index_to_mm)
    found, _ = predictions.of_case(folder, case, "patient")
    gx, gy, gz = (GRID.index_to_mm[a, a] * np.arange(32) + GRID.index_to_mm[a, 3] for a in range(3))
    expected = gx[:, None, None] + 2 * gy[None, :, None] - gz[None, None, :]
    assert np.allclose(found, expected, atol=0.05)


def test_the_world_frame_is_that_of_the_ct_file(case: Case, tmp_path: Path) -> None:
    folder = saved(tmp_path, "patient.nii.gz", case.truth, case.to_world @ GRID.index_to_mm)
    found, _ = predictions.of_case(folder, case, "world")
    assert np.allclose(found, case.truth, atol=0.5)
    with pytest.raises(InputError, match=r"patient\.nii\.gz: affine: found 0% of the case's grid.*--frame world"):
        predictions.of_case(folder, case, "patient")


def test_beyond_a_smaller_prediction_is_air(case: Case, tmp_path: Path) -> None:
    part = GRID.index_to_mm
    part[:3, 3] += 4 * np.diag(part)[:3]
    folder = saved(tmp_path, "patient.nii.gz", case.truth[4:, 4:, 4:], part)
    found, _ = predictions.of_case(folder, case, "patient")
    assert np.allclose(found[4:, 4:, 4:], case.truth[4:, 4:, 4:], atol=1e-3)
    assert (found[:4] == -1000).all()


def test_numbered_files_are_samples_in_their_order_as_the_sampler_writes_them(case: Case, tmp_path: Path) -> None:
    for index in (2, 0, 1):
        saved(tmp_path, f"patient_{index:03d}.nii.gz", case.truth + index, GRID.index_to_mm)
    saved(tmp_path, "patient_std.nii.gz", case.truth, GRID.index_to_mm)
    saved(tmp_path, "patient2.nii.gz", case.truth, GRID.index_to_mm)
    alone, samples = predictions.of_case(tmp_path, case, "patient")
    assert alone is None
    assert [round(float((volume - case.truth).mean())) for volume in samples] == [0, 1, 2]
    saved(tmp_path, "patient.nii.gz", case.truth, GRID.index_to_mm)  # their mean, which `x2ct sample` puts beside them
    alone, samples = predictions.of_case(tmp_path, case, "patient")
    assert np.array_equal(alone, case.truth) and len(samples) == 3
    saved(tmp_path, "patient_001.nii", case.truth, GRID.index_to_mm)
    with pytest.raises(InputError, match=r"found patient_001 as \.nii and \.nii\.gz, expected one of them"):
        predictions.of_case(tmp_path, case, "patient")


def test_what_is_missing_or_no_ct_is_one_line(case: Case, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        predictions.find(tmp_path / "nothing")
    with pytest.raises(InputError, match="no NIfTI file"):
        predictions.find(tmp_path)
    saved(tmp_path, "somebody.nii.gz", case.truth, GRID.index_to_mm)
    with pytest.raises(InputError, match=r"predictions of patient: found none, expected patient\.nii\.gz"):
        predictions.of_case(predictions.find(tmp_path), case, "patient")
    saved(tmp_path, "patient.nii.gz", (case.truth > 0).astype(np.float32), GRID.index_to_mm)
    with pytest.raises(InputError, match="expected HU of a CT"):
        predictions.of_case(tmp_path, case, "patient")
