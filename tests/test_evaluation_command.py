"""`x2ct evaluate`, end to end: a bundle or predictions, test CTs and shards in; JSON, CSV, Markdown and a page out."""

from __future__ import annotations

import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import Result

from tests import commandline, phantom, tiny_bundle
from x2ct.data.prepare import prepare
from x2ct.engine.sampler import Sampler
from x2ct.errors import MissingRuntimeError
from x2ct.evaluation.model import Model
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume
from x2ct.jobs.evaluate import FILES, PAGE, EvaluateJob, evaluate_files

SOURCE = Grid((44, 40, 36), (9.0, 9.0, 9.0))
GRID = Grid(tiny_bundle.GRID, tiny_bundle.SPACING_MM)
HU_PER_X = 1250
METHODS = ["mean estimate", "mean volume", "nearest patient", "linear regression", "single sample", "mean of 2 samples"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of four phantom chests, and CTs of two others."""
    root = tmp_path_factory.mktemp("evaluate")
    for seed in range(6):
        place = root / ("test" if seed > 3 else "train")
        place.mkdir(exist_ok=True)
        Volume(phantom.chest(SOURCE, seed), SOURCE.index_to_mm).save(place / f"patient{seed}.nii.gz")
    prepare(root / "train", root / "shards", grid=GRID, validation=["patient3"])
    tiny_bundle.write(root / "tiny.x2ct")
    return root


def run(*arguments: object) -> Result:
    return commandline.run("evaluate", *arguments, "--threads", 1)


def report(out: Path) -> dict:
    return json.loads((out / "evaluation.json").read_text())


def test_a_bundle_meets_the_baselines(folder: Path) -> None:
    out = folder / "report"
    options = ["--baselines", folder / "shards", "--samples", 2, "--card"]
    done = run(folder / "tiny.x2ct", "--data", folder / "test", "-o", out, *options)
    assert done.exit_code == 0, done.stderr
    found = report(out)
    assert found["baselines"]["patients"] == ["patient0", "patient1", "patient2"]  # not the one for validation
    assert [case["id"] for case in found["cases"]] == ["patient4", "patient5"]
    for case in found["cases"]:
        assert sorted(case["methods"]) == sorted(METHODS)
        figures = case["methods"]
        assert figures["linear regression"]["psnr_db"] > 15
        assert figures["mean estimate"]["psnr_db"] > figures["single sample"]["psnr_db"]
        assert figures["mean of 2 samples"]["psnr_db"] > figures["single sample"]["psnr_db"]
        assert all(math.isfinite(figures[name]["anatomy"]["air_std_hu"]) for name in METHODS)
        assert figures["mean estimate"]["anatomy"]["spine_correlation"] is None  # this phantom's spine has no canal
        assert figures["single sample"]["anatomy"]["air_std_hu"] > figures["mean estimate"]["anatomy"]["air_std_hu"]
        # The tiny bundle's samples differ by the spread that it was made with, in the body as everywhere.
        assert case["calibration"]["std_hu"] == pytest.approx(tiny_bundle.SIGMA_DATA * HU_PER_X, rel=0.25)
    low, high = found["interval"]["mean estimate"]["psnr_db"]
    assert low < found["mean"]["mean estimate"]["psnr_db"] < high
    assert sorted(path.name for path in out.iterdir()) == sorted((*FILES, PAGE))
    assert done.stdout.strip() == (out / "card.md").read_text().strip()
    assert all(f"| {name} |" in done.stdout for name in METHODS)


def test_the_cells_of_the_step_ratio_are_the_bundle_s(folder: Path) -> None:
    assert Model(Sampler(folder / "tiny.x2ct")).stride == 2  # its condition is X/2
    assert Model(Sampler("chest")).stride == 4


class Page(HTMLParser):
    """Which elements are open at the end, and what the page would have to load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("img", "meta"):
            self.open.append(tag)
        self.pictures += tag == "img"
        self.loads += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith("data:image/png;base64,")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("img", "meta"):
            assert self.open.pop() == tag


def test_the_page_is_one_file_that_shows_everybody(folder: Path) -> None:
    out = folder / "page"
    done = run(folder / "tiny.x2ct", "--data", folder / "test", "-o", out, "--samples", 2, "--case", "patient5", "-q")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    text = (out / "index.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == [] and page.loads == []
    # truth, mean estimate, sample, mean of 2: 7 planes; difference, deviation: 3; worst slices: 3 of 3
    assert page.pictures == 4 * 7 + 2 * 3 + 9
    assert "patient5" in text and "patient4" not in text
    assert "<script" not in text
    assert text.count("<svg") == 1
    assert "not a medical device" in text
    assert text.count("<th>step ratio</th>") == 1


def test_without_the_extra_there_is_no_page_and_that_is_said_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as good as not installed
    options = ["--data", folder / "test", "--baselines", folder / "shards", "--case", "patient5"]
    done = run(*options, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    first, *_ = done.stderr.splitlines()
    assert first == "x2ct: warning: index.html is not written: matplotlib not installed: pip install 'x2ct[report]'"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    with pytest.raises(MissingRuntimeError, match=r"index\.html: matplotlib not installed: pip install"):
        evaluate_files(EvaluateJob(folder / "test", tmp_path / "none", baselines=folder / "shards"))
    assert not (tmp_path / "none").exists()


def test_other_x_rays_and_planted_findings_have_their_tables(folder: Path) -> None:
    out = folder / "hard"
    arguments = ["--samples", 0, "--case", "patient5", "--conditions", "off-5,png", "--probe"]
    done = run(folder / "tiny.x2ct", "--data", folder / "test", "-o", out, *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["conditions"]) == ["training", "off-5", "png"]
    training, off = (found["conditions"][name]["mean estimate"]["psnr_db"] for name in ("training", "off-5"))
    assert training == pytest.approx(found["mean"]["mean estimate"]["psnr_db"])
    assert training > off
    assert {row["method"] for row in found["probe"]} == {"mean estimate", "samples"}
    assert all(row["planted"] > 0 for row in found["probe"])
    text = (out / "card.md").read_text()
    assert "each view off by 5 degrees" in text and "nodule of 20 mm" in text


def test_predictions_of_any_system_are_judged_alike(folder: Path) -> None:
    # The CT itself as a prediction in the CT's own frame is the best that can be.
    theirs = folder / "theirs"
    theirs.mkdir()
    (theirs / "patient4.nii.gz").write_bytes((folder / "test" / "patient4.nii.gz").read_bytes())
    grid = ["--shape", "32,32,32", "--voxel", "10"]
    out = folder / "judged"
    done = run("--data", folder / "test", "--predictions", theirs, "--frame", "world", "-o", out, *grid)
    assert done.exit_code == 1  # patient5's is missing, patient4 is judged
    assert "patient5 left out" in done.stderr and "patient5.nii.gz" in done.stderr
    assert "| air std HU | step ratio |" in (out / "evaluation.md").read_text()
    found = report(out)
    (case,) = found["cases"]
    assert case["methods"]["prediction"]["mae_hu"]["body"] < 5  # table and padding are no body
    assert case["methods"]["prediction"]["bone_dice"] > 0.99
    assert found["failures"][0]["case"] == "patient5"


def test_what_the_sampler_writes_from_the_written_x_rays_is_what_the_bundle_gets(folder: Path) -> None:
    out, xrays, theirs = folder / "own", folder / "xrays", folder / "sampled"
    common = ["--data", folder / "test", "--case", "patient4"]
    done = run(folder / "tiny.x2ct", *common, "-o", out, "--xrays", xrays, "--samples", 1, "--steps", 9)
    assert done.exit_code == 0, done.stderr
    theirs.mkdir()
    place = xrays / "patient4"
    pair = ["--ap", place / "ap.npy", "--lateral", place / "lateral.npy", "--geometry", place / "geometry.json"]
    theirs_of = ["-m", folder / "tiny.x2ct", "-o", theirs / "patient4.nii.gz", "--samples", 2, "--steps", 9]
    assert commandline.run("sample", *pair, *theirs_of, "--threads", 1, "-q").exit_code == 0
    grid = ["--shape", "32,32,32", "--voxel", "10", "--geometry", place / "geometry.json"]
    done = run(*common, "--predictions", theirs, "-o", folder / "again", *grid)
    assert done.exit_code == 0, done.stderr
    assert report(out)["model"]["steps"] == 9
    mine, again = (report(at)["cases"][0] for at in (out, folder / "again"))
    assert list(again["methods"]) == ["prediction", "single sample", "mean of 2 samples"]
    for key in ("psnr_db", "ssim", "bone_dice"):  # a file holds whole HU, and `sample` draws both of one seed
        assert again["methods"]["prediction"][key] == pytest.approx(
            again["methods"]["mean of 2 samples"][key], rel=2e-3
        )
        assert again["methods"]["single sample"][key] == pytest.approx(mine["methods"]["single sample"][key], rel=0.1)
    assert again["calibration"]["std_hu"] == pytest.approx(tiny_bundle.SIGMA_DATA * HU_PER_X, rel=0.25)


def test_the_baselines_alone_need_no_bundle(folder: Path) -> None:
    out = folder / "baselines"
    options = ["--baselines", folder / "shards", "--case", "patient5", "--geometry", "cone"]
    done = run("--data", folder / "test", "-o", out, *options)
    assert done.exit_code == 0, done.stderr
    found = report(out)
    assert [case["id"] for case in found["cases"]] == ["patient5"]
    assert list(found["mean"]) == ["mean volume", "nearest patient", "linear regression"]
    assert found["model"] is None


def test_training_patients_are_no_test_patients(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "renamed.nii.gz").write_bytes((folder / "train" / "patient1.nii.gz").read_bytes())
    for data in (folder / "train", tmp_path):
        done = run("--baselines", folder / "shards", "--data", data, "-o", tmp_path / "out")
        assert done.exit_code == 2
        assert "one of the training patients" in done.stderr
        assert not (tmp_path / "out" / "evaluation.json").exists()
    # One among honest test patients stops everything too: it is not left out like a broken file.
    (tmp_path / "zz.nii.gz").write_bytes((folder / "test" / "patient5.nii.gz").read_bytes())
    done = run("--baselines", folder / "shards", "--data", tmp_path, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "one of the training patients" in done.stderr and "none usable" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "what to judge: found nothing"),
        (["{}/tiny.x2ct", "--predictions", "{}/test"], "a bundle and --predictions"),
        (["--predictions", "{}/nothing"], "no such folder"),
        (["--predictions", "{}/test", "--probe"], "--probe: options: found no bundle"),
        (["--predictions", "{}/test", "--conditions", "png"], "--conditions: options: found no bundle"),
        (["{}/tiny.x2ct", "--conditions", "fog"], "found fog, expected every, or some of training, frontal-alone"),
        (["{}/tiny.x2ct", "--case", "nobody"], "found nobody, expected one of patient4, patient5"),
        (["{}/tiny.x2ct", "--shape", "8,8,8"], "found a bundle"),
        (["--predictions", "{}/test", "--frame", "moon"], "found moon, expected auto or patient or world"),
        (["--baselines", "{}/nothing"], "nothing"),
        (["{}/tiny.x2ct", "--xrays", "{}/tiny.x2ct/model.json"], "model.json: output: found a file"),
    ],
)
def test_what_is_wrong_is_one_line_and_its_code(folder: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    given = [argument.replace("{}", str(folder)) for argument in arguments]
    done = run(*given, "--data", folder / "test", "-o", tmp_path / "x")
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert re.match(r"x2ct: error: ", line) and words in line
    assert not list(tmp_path.glob("x/*"))


def test_a_broken_ct_is_named_and_the_others_go_on(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "test" / "patient5.nii.gz").read_bytes()
    (tmp_path / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "whole.nii.gz").write_bytes(whole)
    done = run(folder / "tiny.x2ct", "--data", tmp_path, "-o", tmp_path / "out", "--samples", 0)
    assert done.exit_code == 1
    assert "broken left out" in done.stderr
    assert [case["id"] for case in report(tmp_path / "out")["cases"]] == ["whole"]
    done = run(folder / "tiny.x2ct", "--data", tmp_path, "--case", "broken", "-o", tmp_path / "none")
    assert done.exit_code == 2
    assert "none usable" in done.stderr
