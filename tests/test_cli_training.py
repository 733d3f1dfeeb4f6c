"""From CT files to a CT out of X-rays, all by commands: prepare, train, resume, export, info, sample."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import phantom, tiny_run
from tests.commandline import run
from x2ct.bundle import Bundle
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume

CT_GRID = Grid((45, 35, 40), (9.0, 9.0, 8.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantom patients as NIfTI, one of them cut short, and a small configuration."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "cts").mkdir()
    for seed in range(3):
        hu = phantom.chest(CT_GRID, seed, marker=False)
        Volume(hu, CT_GRID.index_to_mm).save(folder / f"cts/patient{seed}.nii.gz")
    whole = (folder / "cts/patient0.nii.gz").read_bytes()
    (folder / "cts/damaged.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "config.json").write_text(json.dumps(tiny_run.CONFIG))
    return folder


def test_the_whole_way_by_commands(folder: Path) -> None:
    grid = ["--shape", "32,32,32", "--voxel", "10", "--validation", "patient2"]
    prepared = run("prepare", folder / "cts", "-o", folder / "shards", *grid, "--json")
    assert prepared.exit_code == 1, prepared.stderr  # one could not be used, and the others are there
    assert json.loads(prepared.stdout)["patients"] == ["patient0", "patient1", "patient2"]
    assert "damaged.nii.gz left out" in prepared.stderr

    new = ["train", folder / "shards", "-o", folder / "run", "--threads", 1]
    first = run(*new, "--config", folder / "config.json", "--steps", 3, "--name", "thorax", "--json")
    assert first.exit_code == 0, first.stderr
    assert json.loads(first.stdout)["finished"]
    again = run(*new, "--config", folder / "config.json")
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    resumed = run(*new, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "3 steps" in resumed.stdout

    (folder / "card.json").write_text(json.dumps({"data": "phantoms"}))
    refused = run("export", folder / "run", "-o", folder / "t.x2ct", "--ema", 0.3)
    assert refused.exit_code == 2 and "ema: found 0.3, expected 0.05, 0.1" in refused.stderr
    exported = run("export", folder / "run", "-o", folder / "t.x2ct", "--provenance", folder / "card.json")
    assert exported.exit_code == 0, exported.stderr
    made = Bundle.load(folder / "t.x2ct")
    tuned = replace(made.diffusion, solver="unipc-2", steps=2, schedules={2: (made.diffusion.sigma_max, 0.5)})
    tuned = replace(tuned, sigma_min=0.5)
    made.save_as(folder / "t.x2ct", diffusion=tuned)
    facts = json.loads(run("info", folder / "t.x2ct", "--json").stdout)
    assert facts["bundle"]["name"] == "thorax"
    assert facts["bundle"]["provenance"]["data"] == "phantoms"

    more = run(
        "train", folder / "shards", "-o", folder / "more", "--init", folder / "t.x2ct", "--steps", 1, "--threads", 1
    )
    assert more.exit_code == 0, more.stderr
    first_config, own = (json.loads((folder / run / "config.json").read_text()) for run in ("run", "more"))
    assert own["model"] == first_config["model"] and own["steps"] == 1  # weights keep their configuration
    again = run("export", folder / "more", "-o", folder / "further.x2ct")
    assert again.exit_code == 0, again.stderr
    parent, child = Bundle.load(folder / "t.x2ct"), Bundle.load(folder / "further.x2ct")
    assert child.name == "further"
    assert child.provenance["parent"] == {"name": "thorax", "sha256": parent.checksum, "data": "phantoms"}
    assert child.diffusion == parent.diffusion

    np.save(folder / "ap.npy", 5 * np.random.default_rng(0).random((64, 64), np.float32))
    sampled = run("sample", "--ap", folder / "ap.npy", "-m", folder / "t.x2ct", "-o", folder / "ct.nii.gz")
    assert sampled.exit_code == 0, sampled.stderr
    assert Volume.load(folder / "ct.nii.gz").shape == (32, 32, 32)


def test_a_patient_table_and_contact_sheets_by_command(folder: Path, tmp_path: Path) -> None:
    marks = tmp_path / "patients.csv"
    marks.write_text("id,split,reason\ndamaged,leave-out,half of the file is missing\npatient1,validation,\n")
    command = ["prepare", folder / "cts", "-o", tmp_path / "shards", "--patients", marks, "--preview"]
    done = run(*command, "--json")
    assert done.exit_code == 0, done.stderr
    assert "note: damaged left out: half of the file is missing" in done.stderr
    result = json.loads(done.stdout)
    assert result["left_out"] == [["damaged", "half of the file is missing"]]
    assert result["validation"] == ["patient1"]
    assert {p.name for p in (tmp_path / "shards").glob("*.png")} >= {"patient0.png", "_overview1.png"}
    marks.write_text("id,split\npatient9,train\n")
    wrong = run(*command)
    assert wrong.exit_code == 2
    assert "patient9" in wrong.stderr and len(wrong.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["train", "nowhere", "-o", "run"], "nowhere"),
        (["train", "nowhere", "-o", "run", "--config", "nowhere.json"], "nowhere.json"),
        (["train", "nowhere", "-o", "run", "--resume", "--seed", "3"], "--seed"),
        (["train", "nowhere", "-o", "run", "--init", "elsewhere"], "elsewhere"),
        (["prepare", "nowhere", "-o", "shards"], "nowhere"),
        (["prepare", ".", "-o", "shards", "--centre", "mind"], "mind"),
        (["export", "nowhere", "-o", "a.x2ct"], "nowhere"),
        (["export", "nowhere", "-o", "a.x2ct", "--provenance", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_use_is_one_line_with_its_code(
    arguments: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert word in result.stderr
    assert not list(tmp_path.iterdir())
