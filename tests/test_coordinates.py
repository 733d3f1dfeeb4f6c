"""One coordinate system for one's own tools: what drr, sample and evaluate make of a CT lies where the CT lies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import commandline, phantom, tiny_bundle
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume

SOURCE = Grid((44, 40, 36), (9.0, 9.0, 9.0))
GRID = Grid(tiny_bundle.GRID, tiny_bundle.SPACING_MM)
WORLD_MM = np.array([120.0, -35.0, 900.0])  # where the scanner had the middle of what is the patient's part of the file
BEHIND = 6  # slices behind the patient's part: air, and in the second of them the couch


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT far from the world's origin, whose patient lies off the file's middle, on a couch; a model; its views."""
    folder = tmp_path_factory.mktemp("coordinates")
    hu = np.pad(phantom.chest(SOURCE, 0), ((0, 0), (BEHIND, 0), (0, 0)), constant_values=-1000.0)
    hu[:, 1] = 300.0
    affine = SOURCE.index_to_mm
    affine[:3, 3] += WORLD_MM - [0, BEHIND * 9.0, 0]
    (folder / "cts").mkdir()
    Volume(hu, affine).save(folder / "cts" / "patient.nii.gz")
    tiny_bundle.write(folder / "tiny.x2ct")
    views = Geometry.parallel(shape=tiny_bundle.DETECTOR, spacing_mm=tiny_bundle.DETECTOR_MM)
    views.save(folder / "views.json")
    return folder


def run(*arguments: object) -> str:
    done = commandline.run(*arguments, "--threads", 1)
    assert done.exit_code == 0, done.stderr
    return done.stderr


def xrays(study: Path, out: Path, *options: object) -> Geometry:
    run("drr", study / "cts" / "patient.nii.gz", "-o", out, "--geometry", study / "views.json", *options)
    return Geometry.load(out / "geometry.json")


def judged(study: Path, out: Path, *options: object) -> tuple[dict, str]:
    """The first method's figures but for re-projection, which depends on the views; and what stderr told."""
    told = run("evaluate", "--data", study / "cts", "-o", out, *options)
    methods = json.loads((out / "evaluation.json").read_text())["cases"][0]["methods"]
    return methods.get("prediction") or methods["single sample"], told


@pytest.mark.parametrize("placed", [(), ("--centre", "file", "--keep-couch")], ids=["default", "as it is"])
def test_one_s_own_x_rays_sampled_and_judged_give_what_evaluate_gives_by_itself(
    study: Path, tmp_path: Path, placed: tuple[str, ...]
) -> None:
    xrays(study, tmp_path / "x", *placed)
    views = ("--ap", tmp_path / "x/ap.npy", "--lateral", tmp_path / "x/lateral.npy")
    options = ("--geometry", tmp_path / "x/geometry.json", "-m", study / "tiny.x2ct")
    run("sample", *views, *options, "-o", tmp_path / "preds" / "patient.nii.gz")
    grid = ("--shape", ",".join(map(str, GRID.shape)), "--voxel", GRID.spacing_mm[0])
    mine, told = judged(study, tmp_path / "a", "--predictions", tmp_path / "preds", *grid, *placed)
    alone, _ = judged(study, tmp_path / "b", study / "tiny.x2ct", "--samples", 1, *placed)
    assert "warning" not in told
    assert mine["psnr_db"] == pytest.approx(alone["psnr_db"], abs=0.005)  # int16 HU in the file
    assert mine["bone_dice"] == pytest.approx(alone["bone_dice"], abs=0.005)
    assert mine["mae_hu"]["body"] == pytest.approx(alone["mae_hu"]["body"], abs=0.5)


def test_a_ct_from_one_s_own_x_rays_lies_over_its_ct(study: Path, tmp_path: Path) -> None:
    geometry = xrays(study, tmp_path / "x")
    options = ("--geometry", tmp_path / "x/geometry.json", "-m", study / "tiny.x2ct", "--mean")
    report = tmp_path / "ct.json"
    run("sample", "--ap", tmp_path / "x/ap.npy", *options, "-o", tmp_path / "ct.nii.gz", "--report", report)
    ct = Volume.load(tmp_path / "ct.nii.gz")
    # In the phantom the patient's middle is the phantom's, but for what its arms and marks move it by.
    assert np.allclose(geometry.origin_world_mm, WORLD_MM, atol=45)
    assert np.allclose(ct.affine @ [*(np.array(GRID.shape) - 1) / 2, 1], [*geometry.origin_world_mm, 1], atol=1e-3)
    assert json.loads(report.read_text())["grid"]["origin_world_mm"] == list(geometry.origin_world_mm)


def test_the_couch_goes_and_the_centre_is_the_chosen_one(study: Path, tmp_path: Path) -> None:
    without, kept = xrays(study, tmp_path / "a"), xrays(study, tmp_path / "b", "--keep-couch")
    assert without == kept
    images = [np.load(tmp_path / name / "lateral.npy") for name in "ab"]
    extra = images[1] - images[0]
    # Column 0 of a lateral is the front: the couch is in the last columns, as wide as the CT, and nowhere else.
    behind = without.origin_world_mm[1] - (WORLD_MM[1] - (BEHIND - 1) * 9.0 - 19.5 * 9.0)
    column = round(31.5 + behind / tiny_bundle.DETECTOR_MM[1])
    assert extra[32, column] == pytest.approx(0.02 * 1.3 * 44 * 9.0, rel=0.35)
    assert np.abs(extra[:, : column - 3]).max() < 0.5  # soft skin, thinner than a voxel, goes too
    by_file = xrays(study, tmp_path / "c", "--centre", "file")
    assert np.allclose(by_file.origin_world_mm, WORLD_MM - [0, BEHIND * 9.0 / 2, 0])
    refused = commandline.run("drr", study / "cts/patient.nii.gz", "-o", tmp_path / "d", "--centre", "heart")
    assert refused.exit_code == 2
    assert "--centre: value: found heart, expected lungs or body or file" in refused.stderr


def test_a_gross_misplacement_is_found_and_named(study: Path, tmp_path: Path) -> None:
    from x2ct.evaluation import predictions
    from x2ct.evaluation.case import make_case

    case = make_case(study / "cts/patient.nii.gz", GRID, Geometry.load(study / "views.json"), threads=1)
    blurred = 0.6 * case.truth - 300
    assert predictions.misplaced(case, "prediction", blurred) == ""
    assert (
        predictions.misplaced(case, "prediction", np.roll(blurred, 1, axis=0)) == ""
    )  # 10 mm, as any depth may be off
    moved = np.roll(np.roll(blurred, -2, axis=1), 3, axis=2)
    assert predictions.misplacement(case, moved) == (0, -20, 30)
    (tmp_path / "preds").mkdir()
    affine = case.to_world @ GRID.index_to_mm
    Volume(moved, affine).save(tmp_path / "preds" / "patient.nii.gz")
    grid = ("--shape", ",".join(map(str, GRID.shape)), "--voxel", GRID.spacing_mm[0])
    _, told = judged(study, tmp_path / "a", "--predictions", tmp_path / "preds", *grid)
    line = "patient: the prediction lies 20 mm to the back and 30 mm to the head of the CT"
    assert f"warning: {line}" in told
    assert line in json.loads((tmp_path / "a/evaluation.json").read_text())["warnings"][0]
    assert line in (tmp_path / "a/card.md").read_text()
