"""The table's one command, end to end: a bundle, training shards and test CTs in; JSON, Markdown and pictures out."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests import tiny_bundle
from x2ct.data import phantom
from x2ct.data.prepare import prepare
from x2ct.grid import Grid
from x2ct.volume import Volume

SOURCE = Grid((44, 40, 36), (9.0, 9.0, 9.0))


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "quality.py"
    spec = importlib.util.spec_from_file_location("quality", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of four phantom chests, and CTs of two others."""
    root = tmp_path_factory.mktemp("quality")
    for seed in range(6):
        place = root / ("test" if seed > 3 else "train")
        place.mkdir(exist_ok=True)
        Volume(phantom.chest(SOURCE, seed), SOURCE.index_to_mm).save(place / f"person{seed}.nii.gz")
    grid = Grid(tiny_bundle.GRID, tiny_bundle.SPACING_MM)
    prepare(root / "train", root / "shards", grid=grid, validation=["person3"])
    return root


def test_a_bundle_meets_the_baselines(quality: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tiny_bundle.write(folder / "tiny.x2ct").path
    out = folder / "report"
    arguments = [str(bundle), "--train", str(folder / "shards"), "--test", str(folder / "test"), "-o", str(out)]
    assert quality.main([*arguments, "--samples", "2", "--threads", "1"]) == 0
    table = json.loads((out / "quality.json").read_text())
    assert table["training_people"] == ["person0", "person1", "person2"]  # not the one for validation
    assert [case["id"] for case in table["cases"]] == ["person4", "person5"]
    methods = [
        "mean estimate",
        "mean volume",
        "nearest patient",
        "linear regression",
        "single sample",
        "mean of 2 samples",
    ]
    for case in table["cases"]:
        assert sorted(case["methods"]) == sorted(methods)
        assert (out / f"{case['id']}.png").is_file()
        figures = case["methods"]
        assert figures["linear regression"]["psnr_db"] > 15
        assert figures["mean estimate"]["psnr_db"] > figures["single sample"]["psnr_db"]
        assert figures["mean of 2 samples"]["psnr_db"] > figures["single sample"]["psnr_db"]
        # The tiny bundle's samples differ by the spread that it was made with, in the body as everywhere.
        hu_per_x = 1250
        assert case["spread"]["std_hu"] == pytest.approx(tiny_bundle.SIGMA_DATA * hu_per_x, rel=0.25)
    assert "linear regression" in capsys.readouterr().out


def test_the_baselines_alone_need_no_bundle(quality: ModuleType, folder: Path) -> None:
    out = folder / "baselines"
    arguments = ["--train", str(folder / "shards"), "--test", str(folder / "test"), "-o", str(out), "--case", "person5"]
    assert quality.main([*arguments, "--geometry", "cone", "--threads", "1"]) == 0
    table = json.loads((out / "quality.json").read_text())
    assert [case["id"] for case in table["cases"]] == ["person5"]
    assert list(table["mean"]) == ["mean volume", "nearest patient", "linear regression"]
    assert table["bundle"] is None


def test_training_people_are_no_test_people(
    quality: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "renamed.nii.gz").write_bytes((folder / "train" / "person1.nii.gz").read_bytes())
    for test in (folder / "train", tmp_path):
        arguments = [
            "--train",
            str(folder / "shards"),
            "--test",
            str(test),
            "-o",
            str(tmp_path / "out"),
            "--threads",
            "1",
        ]
        assert quality.main(arguments) == 2
        assert "one of the training people" in capsys.readouterr().err
        assert not (tmp_path / "out" / "quality.json").exists()


def test_what_is_wrong_is_one_line_and_its_code(
    quality: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--train", str(folder / "nothing"), "--test", str(folder / "test"), "-o", str(folder / "x")]
    assert quality.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
