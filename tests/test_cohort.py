"""Many studies: each gives what it gives alone, a bad one hurts no other, nothing finished is done twice or lost."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests import tiny_bundle
from x2ct.cli import app
from x2ct.errors import Cancelled, InputError
from x2ct.io.xray.readoptions import ReadOptions
from x2ct.jobs.cohort import Outcome, read_manifest, sample_cohort
from x2ct.jobs.cohort.studies import check_folder, job_of
from x2ct.jobs.sample import SampleJob

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = "id,ap,lateral,seed\na,a.npy,b.npy,\nb,b.npy,,7\nbroken,broken.npy,,\nmissing,nothing.npy,,\nc,,c.npy,\n"


@pytest.fixture
def folder(tiny_path: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_path, tmp_path / "tiny.x2ct")
    rng = np.random.default_rng(0)
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", rng.uniform(0, 5, tiny_bundle.DETECTOR).astype(np.float32))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "cases.csv").write_text(MANIFEST)
    return tmp_path


def base(folder: Path, name: str = "out") -> SampleJob:
    return SampleJob(folder / name, model=str(folder / "tiny.x2ct"), threads=1)


def cohort(folder: Path, *options: str) -> Result:
    given = ["sample", "--manifest", str(folder / "cases.csv"), "-o", str(folder / "out")]
    return CliRunner().invoke(app, [*given, "-m", str(folder / "tiny.x2ct"), "--threads", "1", *options])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".gz"}


def states(outcomes: tuple[Outcome, ...]) -> dict[str, str]:
    return {outcome.id: outcome.state for outcome in outcomes}


def test_the_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b", {}, resume=False)
    assert (tmp_path / "a" / "b").is_dir()


def test_bad_studies_are_told_and_the_others_go_on(folder: Path) -> None:
    result = cohort(folder)
    assert result.exit_code == 1
    with (folder / "out" / "summary.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == ["a", "b", "broken", "missing", "c"]
    assert [row["state"] for row in rows] == ["done", "done", "failed", "failed", "done"]
    assert [row["code"] for row in rows] == ["0", "0", "2", "2", "0"]
    assert "nothing.npy" in rows[3]["error"]
    assert "broken failed with code 2" in result.stderr
    kept = {"a.json", "a.nii.gz", "b.json", "b.nii.gz", "c.json", "c.nii.gz", "summary.csv"}
    assert {path.name for path in (folder / "out").iterdir()} == kept


def test_a_study_gives_what_it_gives_alone_whatever_the_order_and_the_workers(folder: Path) -> None:
    first = sample_cohort(folder / "cases.csv", base(folder))
    lines = MANIFEST.splitlines()
    (folder / "cases.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    second = sample_cohort(folder / "cases.csv", base(folder, "again"), jobs=2)
    assert states(first.outcomes) == states(second.outcomes)
    assert contents(folder / "out") == contents(folder / "again")
    alone = ["sample", "--ap", str(folder / "b.npy"), "--seed", "7", "-o", str(folder / "b.nii.gz")]
    CliRunner().invoke(app, [*alone, "-m", str(folder / "tiny.x2ct"), "--threads", "1"])
    assert (folder / "b.nii.gz").read_bytes() == (folder / "out" / "b.nii.gz").read_bytes()


def test_continue_does_only_what_is_not_done(folder: Path) -> None:
    sample_cohort(folder / "cases.csv", base(folder))
    before = contents(folder / "out")
    (folder / "out" / "c.nii.gz").unlink()  # gone
    (folder / "out" / "a.nii.gz").write_bytes(before["a.nii.gz"][:-10])  # damaged
    np.save(folder / "broken.npy", np.load(folder / "a.npy"))  # mended
    again = sample_cohort(folder / "cases.csv", base(folder), resume=True)
    expected = {"a": "done", "b": "kept", "broken": "done", "missing": "failed", "c": "done"}
    assert states(again.outcomes) == expected
    assert contents(folder / "out").items() >= before.items()


def test_other_settings_or_another_xray_are_not_taken_for_done(folder: Path) -> None:
    sample_cohort(folder / "cases.csv", base(folder))
    np.save(folder / "c.npy", np.load(folder / "c.npy") + 1)
    assert states(sample_cohort(folder / "cases.csv", base(folder), resume=True).outcomes)["c"] == "done"
    mean = SampleJob(folder / "out", model=str(folder / "tiny.x2ct"), threads=1, mean=True)
    assert states(sample_cohort(folder / "cases.csv", mean, resume=True).outcomes)["a"] == "done"


def test_a_line_says_how_to_read_its_xrays(folder: Path) -> None:
    """As the options of one study say it, for the views of the line or for one of them."""
    rng = np.random.default_rng(1)
    np.save(folder / "shown.npy", rng.integers(0, 4000, (140, 140)))
    np.save(folder / "scaled.npy", rng.uniform(0, 0.4, (140, 140)))
    (folder / "cases.csv").write_text(
        "id,ap,lateral,invert,values\nplain,a.npy,,,\ndark,shown.npy,,yes,\n"
        "both,shown.npy,scaled.npy,ap=no lateral=yes,lateral=display\nunsaid,shown.npy,,,\n"
    )
    studies = {study.id: study for study in read_manifest(folder / "cases.csv")}
    assert studies["plain"].reading == {}
    assert studies["both"].reading == {"ap": {"invert": False}, "lateral": {"invert": True, "values": "display"}}
    done = sample_cohort(folder / "cases.csv", base(folder))
    assert states(done.outcomes) == {"plain": "done", "dark": "done", "both": "done", "unsaid": "failed"}
    alone = ["sample", "--ap", str(folder / "shown.npy"), "--invert", "yes", "-o", str(folder / "dark.nii.gz")]
    CliRunner().invoke(app, [*alone, "-m", str(folder / "tiny.x2ct"), "--threads", "1"])
    assert (folder / "dark.nii.gz").read_bytes() == (folder / "out" / "dark.nii.gz").read_bytes()


def test_a_line_says_all_that_options_say_of_an_xray(folder: Path) -> None:
    """Tabs or semicolons part columns as well as commas."""
    rows = [
        ["id", "ap", "lateral", "spacing", "rotate", "flip", "frame", "sdd", "sod", "angle"],
        ["one", "a.npy", "b.npy", "7.0", "ap=90", "lateral=vertical", "", "1800", "1500 lateral=1400", "lateral=80"],
        ["two", "a.npy", "", "7.0,7.1", "", "", "1", "", "", ""],
    ]
    for mark in "\t;":
        (folder / "cases.tsv").write_text("\n".join(mark.join(row) for row in rows) + "\n")
        one, two = read_manifest(folder / "cases.tsv")
        beam = {"sdd": 1800.0, "sod": 1500.0}
        assert one.reading["ap"] == {"spacing": (7.0, 7.0), "rotate": 90, **beam}
        side = {"spacing": (7.0, 7.0), "flip": "vertical", **beam, "sod": 1400.0, "angle": 80.0}
        assert one.reading["lateral"] == side
        assert two.reading == {"ap": {"spacing": (7.0, 7.1), "frame": 1}}
    said = replace(base(folder), reading={"ap": ReadOptions(spacing=3.0, flip="horizontal")})
    options = job_of(said, one).reading["ap"]
    assert options == ReadOptions((7.0, 7.0), 90, "horizontal", sod=1500.0, sdd=1800.0)  # the line goes first


def test_a_folder_with_results_is_not_written_into_unless_asked(folder: Path) -> None:
    cohort(folder)
    before = contents(folder / "out")
    result = cohort(folder, "--seed", "1")
    assert result.exit_code == 2
    assert "go on with --continue" in result.stderr
    assert contents(folder / "out") == before


def test_a_dicom_series_left_by_a_killed_run_is_made_again(folder: Path) -> None:
    job = SampleJob(folder / "out", model=str(folder / "tiny.x2ct"), threads=1, format="dicom")
    sample_cohort(folder / "cases.csv", job)
    assert len(list((folder / "out" / "a").iterdir())) == tiny_bundle.GRID[2]
    (folder / "out" / "a.json").unlink()
    again = sample_cohort(folder / "cases.csv", job, resume=True)
    assert states(again.outcomes) | {"missing": "", "broken": ""} == {
        "a": "done",
        "b": "kept",
        "c": "kept",
        "broken": "",
        "missing": "",
    }


def test_a_cancelled_run_keeps_what_is_finished(folder: Path) -> None:
    def stop(done: int, total: int, name: str) -> None:
        raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        sample_cohort(folder / "cases.csv", base(folder), progress=stop)
    assert set(contents(folder / "out")) == {"a.nii.gz"}
    again = sample_cohort(folder / "cases.csv", base(folder), resume=True)
    assert states(again.outcomes)["a"] == "kept"


def test_a_killed_run_is_gone_on_with(folder: Path) -> None:
    lines = ["id,ap", *(f"s{k:03d},a.npy" for k in range(300))]
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    given = [sys.executable, "cli.py", "sample", "--manifest", str(folder / "cases.csv"), "-o", str(folder / "out")]
    process = subprocess.Popen([*given, "-m", str(folder / "tiny.x2ct"), "--threads", "1", "--quiet"], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not (folder / "out" / "s002.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path.stem for path in (folder / "out").glob("s*.json")}
    assert 3 <= len(finished) < 300
    (folder / "cases.csv").write_text("\n".join(lines[: len(finished) + 3]) + "\n")
    again = sample_cohort(folder / "cases.csv", base(folder), resume=True)
    assert {outcome.id for outcome in again.outcomes if outcome.state == "kept"} == finished
    assert not again.failed


def test_reports_name_no_patient(folder: Path) -> None:
    sample_cohort(folder / "cases.csv", base(folder))
    told = json.loads((folder / "out" / "a.json").read_text())
    assert told["study"]["id"] == "a"
    assert str(folder) not in json.dumps({key: told[key] for key in ("inputs", "outputs", "study")})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 studies"),
        ("id,ap\n", "0 studies"),
        ("id,ap,nurse\na,a.npy,x\n", "columns: found nurse"),
        ("ap\na.npy\n", "an id column"),
        ("id,ap\na,a.npy\nA,b.npy\n", "found a twice"),
        ("id,ap\n../a,a.npy\n", "line 2: id: found '../a'"),
        ("id,ap\nsummary,a.npy\n", "line 2: id"),
        ("id,ap\na,\n", "line 2: X-rays: found none"),
        ("id,ap,seed\na,a.npy,-1\n", "line 2: seed: found '-1'"),
        ("id,ap\na,a.npy,more\n", "line 2: columns"),
        ("id,ap,rotate\na,a.npy,45\n", "line 2: rotate"),
        ("id,ap,sdd\na,a.npy,lateral=1800\n", "line 2: sdd: view: found lateral, expected ap"),
        ("id,ap,frame\na,a.npy,first\n", "line 2: frame: found 'first', expected a whole number"),
        ("id,ap,invert\na,a.npy,maybe\n", "line 2: invert: found 'maybe', expected yes or no"),
        ("id,ap,values\na,a.npy,lateral=display\n", "line 2: values: view: found lateral, expected ap"),
        ('id,ap\n"a,a.npy\n', "content"),
        ('id,"two\nlines\x1b[2J"\na,b\n', "columns: found two lines?[2J"),
    ],
)
def test_a_wrong_manifest_is_one_line_and_nothing_is_made(folder: Path, text: str, words: str) -> None:
    (folder / "cases.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_manifest(folder / "cases.csv")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert cohort(folder).exit_code == 2
    assert not (folder / "out").exists()


@pytest.mark.parametrize("extra", [["--ap", "a.npy"], ["--report", "run.json"], ["--preview", "ct.png"]])
def test_options_of_one_study_are_refused_for_many(folder: Path, extra: list[str]) -> None:
    assert cohort(folder, *extra).exit_code == 2
    assert not (folder / "out").exists()


def test_continue_without_a_manifest_is_refused(folder: Path) -> None:
    given = ["sample", "--ap", str(folder / "a.npy"), "-o", str(folder / "ct.nii.gz"), "--continue"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert "--manifest" in result.stderr


def test_samples_of_one_study_and_another_of_that_name_are_refused(folder: Path) -> None:
    (folder / "cases.csv").write_text("id,ap\na,a.npy\na_000,b.npy\n")
    result = cohort(folder, "--samples", "2")
    assert result.exit_code == 2
    assert "the name of another output" in result.stderr


def test_a_model_that_cannot_be_had_fails_once(folder: Path) -> None:
    job = SampleJob(folder / "out", model=str(folder / "nothing.x2ct"))
    with pytest.raises(InputError, match=r"nothing\.x2ct"):
        sample_cohort(folder / "cases.csv", job)


# ------------------------------------------------------------------------------------------------ other layouts


def files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def views(manifest: Path) -> dict[str, dict[str, str]]:
    folder = manifest if manifest.is_dir() else manifest.parent
    return {
        study.id: {view: path.relative_to(folder).as_posix() for view, path in study.inputs.items()}
        for study in read_manifest(manifest)
    }


def test_a_folder_of_nnunet_is_a_manifest(tmp_path: Path) -> None:
    files(tmp_path, *(f"imagesTs/{name}.png" for name in ("a_0000", "a_0001", "b_1_0001", "c_0002")))
    about = {"channel_names": {"0": "PA", "1": "lateral"}, "file_ending": ".png"}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    assert views(tmp_path / "imagesTs") == {
        "a": {"pa": "a_0000.png", "lateral": "a_0001.png"},
        "b_1": {"lateral": "b_1_0001.png"},
    }


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (None, "imagesTs: manifest: found a folder without dataset.json beside it, expected a CSV"),
        ({"channel_names": {"0": "CT"}, "file_ending": ".png"}, "channel_names: found {'0': 'CT'}"),
        ({"channel_names": {"ap": "ap"}, "file_ending": ".png"}, "channel_names"),
        ({"channel_names": ["ap"], "file_ending": ".png"}, "channel_names"),
        ({"channel_names": {"0": "ap"}, "file_ending": "*"}, "file_ending: found *"),
        ({"channel_names": {"0": "ap"}, "file_ending": ".npy"}, "found 0 studies"),
    ],
)
def test_a_wrong_description_of_nnunet_is_one_line(tmp_path: Path, about: dict | None, words: str) -> None:
    files(tmp_path, "imagesTs/a_0000.png")
    if about is not None:
        (tmp_path / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path / "imagesTs")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_participants_of_bids_are_a_manifest(tmp_path: Path) -> None:
    one = "sub-1/ses-a/mod-rx/sub-1_ses-a_run-1_bp-chest_vp-{}_dx"
    files(tmp_path, f"{one.format('pa')}.png", f"{one.format('pa')}.json", f"{one.format('ll')}.nii.gz")
    files(
        tmp_path,
        "sub-1/ses-b/sub-1_ses-b_vp-ap_cr.dcm",
        "sub-2/sub-2_vp-lateral_cr.png",
        "sub-2/sub-2_vp-oblique_cr.png",
    )
    files(tmp_path, "sub-3/sub-3_vp-ap_cr.png", "sub-1/ses-b/sub-1_ses-b_ct.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-1\t60\nsub-2\tn/a\n")
    first = "sub-1_ses-a_run-1_bp-chest"
    assert views(tmp_path / "participants.tsv") == {
        first: {"pa": f"{one.format('pa')}.png", "lateral": f"{one.format('ll')}.nii.gz"},
        "sub-1_ses-b": {"ap": "sub-1/ses-b/sub-1_ses-b_vp-ap_cr.dcm"},
        "sub-2": {"lateral": "sub-2/sub-2_vp-lateral_cr.png"},
    }
    files(tmp_path, "sub-2/sub-2_vp-lat_dx.png")
    with pytest.raises(InputError, match=r"line 3: lateral: found .*sub-2_vp-lat_dx.png.*, expected one file"):
        read_manifest(tmp_path / "participants.tsv")
    (tmp_path / "participants.tsv").write_text("participant_id\nsub-9\n")
    with pytest.raises(
        InputError, match=r"line 2: X-rays: found none, expected sub-9_\.\.\._vp-VIEW_\.\.\.; leave the line out"
    ):
        read_manifest(tmp_path / "participants.tsv")
    (tmp_path / "participants.tsv").write_text("participant_id\n../sub-9\n")
    with pytest.raises(InputError, match="participant_id"):
        read_manifest(tmp_path / "participants.tsv")


def test_a_table_with_tabs_is_a_manifest(folder: Path) -> None:
    (folder / "cases.tsv").write_text(MANIFEST.replace(",", "\t"))
    assert read_manifest(folder / "cases.tsv") == read_manifest(folder / "cases.csv")
