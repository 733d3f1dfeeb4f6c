"""What benchmarks/gpu/train.py promises of a machine that may stop at any moment. Runs on a CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import pack, slim
from benchmarks.gpu.train import layered
from tests.tiny_run import CONFIG, GRID
from x2ct.data import ShardSet, resample
from x2ct.data.shapes import Shapes
from x2ct.errors import InputError
from x2ct.training import TrainConfig, load_run, train
from x2ct.training.checkpoint import CHECKPOINT_FILE

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def archive(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom patients, packed."""
    path = tmp_path_factory.mktemp("packed") / "patients.tar"
    pack.pack(shards, path)
    return path


def test_packing_loses_nothing_but_the_rounding(shards: Path, archive: Path, tmp_path: Path) -> None:
    pack.unpack(archive, tmp_path)
    before, after = ShardSet.open(shards), ShardSet.open(tmp_path)
    assert after.grid == before.grid and [p.id for p in after.patients] == [p.id for p in before.patients]
    inside = (np.abs(GRID.coordinates()) < 0.95).all(0)  # within the patients' box
    for old, new in zip(before.patients, after.patients, strict=True):
        new.verify()
        assert (old.split, old.region) == (new.split, new.region)
        change = np.abs(np.clip(resample(old, GRID), *pack.WINDOW_HU) - resample(new, GRID))
        assert change[inside].max() <= pack.STEP_HU / 2 + 1e-3


def test_shapes_are_packed_with_their_patients(shaped_shards: Path, tmp_path: Path) -> None:
    """The recipe mixes patients' shapes, and a training without them does not start."""
    pack.pack(shaped_shards, tmp_path / "patients.tar")
    pack.unpack(tmp_path / "patients.tar", tmp_path / "there")
    before, after = Shapes.load(shaped_shards), Shapes.load(tmp_path / "there")
    assert after.ids == before.ids and np.array_equal(after.displacement_mm, before.displacement_mm)


def test_encoding_is_lossless() -> None:
    hu = pack.quantised(np.random.default_rng(0).uniform(-1500, 2500, (7, 6, 5)).astype(np.float32))
    assert np.array_equal(pack.decode(pack.encode(hu), (7, 6, 5)), hu)
    assert hu.min() == pack.WINDOW_HU[0] and hu.max() == pack.WINDOW_HU[1]


def test_a_gpu_trains_by_the_recipe_but_for_its_batch() -> None:
    """What a GPU machine starts from is the recipe of the bundled model, whatever that becomes."""
    recipe = TrainConfig.load(ROOT / "benchmarks" / "chest.json")
    there = layered([ROOT / "benchmarks" / "chest.json", ROOT / "benchmarks" / "gpu" / "chest.json"])
    assert replace(there.optim, accumulate=recipe.optim.accumulate) == recipe.optim
    assert replace(there.patch, voxels=recipe.patch.voxels) == recipe.patch
    writing = ("refresh", "pool", "validate_every", "checkpoint_every", "checkpoint_minutes")
    own = {name: getattr(recipe, name) for name in ("optim", "patch", *writing)}
    assert replace(there, **own) == recipe
    assert there.model == recipe.model and there.model.gated
    assert there.checkpoint_minutes > 0


def test_an_unknown_field_of_what_is_laid_over_is_named(tmp_path: Path) -> None:
    (tmp_path / "over.json").write_text('{"optim": {"acumulate": 2}}')
    with pytest.raises(InputError, match="acumulate"):
        layered([ROOT / "benchmarks" / "chest.json", tmp_path / "over.json"])


@pytest.mark.parametrize("wait_s", [0.05, 1.7])
def test_whatever_is_killed_the_last_average_is_outside(archive: Path, tmp_path: Path, wait_s: float) -> None:
    """SIGKILL of all processes, at some moment after the first average came."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**CONFIG, "checkpoint_every": 1, "validate_every": 3, "display_p99": [6.0, 8.0]}))
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "benchmarks/gpu/train.py"), str(archive), str(out), "--every=0.1"]
    command += [f"--until={time.time() + 600}", f"--config={config}", f"--work={tmp_path / 'work'}", "--device=cpu"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        while not (out / "checkpoint.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(wait_s)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) <= 6 and max(path.stat().st_size for path in files) < 16 * 2**20
    slim.join(out, tmp_path / "home")
    loaded, model = load_run(tmp_path / "home")
    assert loaded.name == "tiny" and all(bool(value.isfinite().all()) for value in model.parameters())


def test_an_average_comes_home_in_parts_and_is_joined(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is small enough; parts of different steps, as a kill between them leaves, are refused."""
    run, out = tmp_path / "run", tmp_path / "out"
    train(shards, run, TrainConfig.from_json({**CONFIG, "steps": 2}))
    out.mkdir()
    monkeypatch.setattr(slim, "MOST_BYTES", 2**18 + 85_000)
    slim.average(run / CHECKPOINT_FILE, out / CHECKPOINT_FILE)
    assert len(list(out.glob("checkpoint*"))) > 1
    slim.join(out, tmp_path / "joined")
    pairs = zip(load_run(run)[1].parameters(), load_run(tmp_path / "joined")[1].parameters(), strict=True)
    assert all(np.allclose(a.detach(), b.detach(), atol=1e-2) for a, b in pairs)
    assert (tmp_path / "joined" / "validation.jsonl").read_text() == (run / "validation.jsonl").read_text()
    monkeypatch.setattr(slim, "MOST_PARTS", 1)
    with pytest.raises(InputError, match="found 2 parts, expected at most 1"):
        slim.average(run / CHECKPOINT_FILE, tmp_path / "never")
    assert not (tmp_path / "never").exists()
    monkeypatch.undo()
    monkeypatch.setattr(slim, "MOST_BYTES", 2**18 + 85_000)
    train(shards, run, resume=True, steps=3)
    slim.average(run / CHECKPOINT_FILE, tmp_path / CHECKPOINT_FILE)
    (tmp_path / CHECKPOINT_FILE).replace(out / CHECKPOINT_FILE)
    with pytest.raises(InputError, match="step 2, expected step 3"):
        slim.join(out, tmp_path / "torn")
    (out / "checkpoint-2.safetensors").unlink()
    slim.average(run / CHECKPOINT_FILE, out / "best.safetensors")
    [problem] = slim.join(out, tmp_path / "other")  # a part is missing; the other average is whole
    assert "checkpoint-2.safetensors" in str(problem)
    assert load_run(tmp_path / "other", best=True)[0].name == "tiny"
