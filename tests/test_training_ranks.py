"""Laws of training on several ranks: who computes changes, what is computed does not, and errors are one line."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_run import CONFIG, GRID
from x2ct.data import ShardSet
from x2ct.errors import InputError
from x2ct.training import TrainConfig, load_run, ranks, train
from x2ct.training.checkpoint import CHECKPOINT_FILE
from x2ct.training.runs import open_run
from x2ct.training.studies import StudyPool

STOP = 3
TINY = TrainConfig.from_json(CONFIG)
CONFIGURATION = dataclasses.replace(
    TINY, steps=5, pools=2, validate_every=100, optim=dataclasses.replace(TINY.optim, accumulate=2, muon=0.02)
)

PROGRAM = """
import dataclasses, json, os, shutil, signal, sys, torch
from pathlib import Path
from x2ct.errors import X2CTError
from x2ct.training import TrainConfig, monitor, train
from x2ct.training.optimizer import Optimizer
from x2ct.training.ranks import joined
monitor.SIDE = 128
torch.set_num_threads(1)
shards, folder = Path(sys.argv[1]), Path(sys.argv[2])
config = TrainConfig.load(folder / "config.json")
seen = {}

def run(name, config=config, at_step=lambda step: None, resume=False):
    seen[name] = {"losses": []}
    def progress(step, total, loss):
        seen[name]["losses"].append(loss)
        at_step(step)
    own = folder / f"{name}{group.index}"  # of which only rank 0's is to be written
    try:
        result = train(shards, own, config, resume=resume, device=group.device, ranks=group, progress=progress)
        seen[name] |= {"steps": result.steps, "signal": result.signal}
    except X2CTError as error:
        seen[name] |= {"error": str(error), "kind": type(error).__name__}

with joined("cpu") as group:
    second = group.index == 1
    run("whole")
    run("stopped", at_step=lambda step: os.kill(os.getpid(), signal.SIGTERM) if second and step == STOP - 1 else None)
    if group.first:
        shutil.copytree(folder / "stopped0", folder / "resumed0")
    run("resumed", resume=True)
    run("clock", dataclasses.replace(config, steps=0, minutes=0.02, checkpoint_every=10**9))
    rate = dataclasses.replace(config.optim, rate=0.5 if second else config.optim.rate)
    run("different", dataclasses.replace(config, optim=rate))
    if second:
        step = Optimizer.step
        Optimizer.step = lambda self, share: step(self, 1.01 * share)
    run("drifting")
tasks = Path("/proc/self/task").glob("*/comm")  # Linux names a thread there
seen["threads"] = [name for name in (task.read_text().strip() for task in tasks) if "gloo" in name or "store" in name]
(folder / f"seen{group.index}.json").write_text(json.dumps(seen))
""".replace("STOP", str(STOP))


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun sets for a process."""
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in values.items()}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Iterator[Path]:
    """Where two ranks have run `PROGRAM`; until the tests end, this process has one thread, and rounds, as they do."""
    folder = tmp_path_factory.mktemp("ranks")
    CONFIGURATION.save(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(shards), str(folder)],
            stderr=subprocess.PIPE, text=True, env={**os.environ, **environment(rank, 2, port)},
        )
        for rank in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=1800)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(threads)


def seen(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each rank has seen of a run."""
    return [json.loads((folder / f"seen{rank}.json").read_text())[name] for rank in range(2)]


def require_equal_but_for_rounding(one: Path, two: Path) -> None:
    a, b = (load_file(path / CHECKPOINT_FILE) for path in (one, two))
    assert a.keys() == b.keys()
    for name in a:
        # Muon multiplies matrices in bfloat16, whose rounding the last bit of a gradient can turn.
        assert float((a[name] - b[name]).abs().max()) <= 2e-3 * float(a[name].abs().max()), name


def test_two_ranks_with_a_study_each_are_one_process_with_both(folder: Path, shards: Path) -> None:
    """The losses of all steps, the weights, both optimisers' moments and the averages."""
    losses: list[float] = []
    train(shards, folder / "one", CONFIGURATION, device="cpu", progress=lambda step, total, loss: losses.append(loss))
    first, second = seen(folder, "whole")
    assert len(losses) == CONFIGURATION.steps and first["losses"] == second["losses"]
    np.testing.assert_allclose(first["losses"], losses, rtol=1e-4)
    require_equal_but_for_rounding(folder / "one", folder / "whole0")


def test_ranks_that_are_done_leave_no_thread_of_the_exchange(folder: Path) -> None:
    """A thread of Gloo's that outlives the interpreter can abort the process, after a training that succeeded."""
    assert seen(folder, "threads") == [[], []]


def test_rank_0_alone_writes(folder: Path) -> None:
    assert (folder / "whole0" / "validation.jsonl").is_file() and load_run(folder / "whole0")
    assert not (folder / "whole1").exists()


def test_a_signal_to_one_rank_stops_all_after_its_step_and_one_process_or_two_go_on(folder: Path, shards: Path) -> None:
    """A rank that goes on has nothing of its own: all that it knows is of rank 0's checkpoint."""
    assert [(row["steps"], row["signal"]) for row in seen(folder, "stopped")] == [(STOP, "SIGTERM")] * 2
    assert [row["steps"] for row in seen(folder, "resumed")] == [CONFIGURATION.steps] * 2
    assert train(shards, folder / "stopped0", resume=True, device="cpu").finished
    for name in ("stopped0", "resumed0"):
        require_equal_but_for_rounding(folder / "whole0", folder / name)


def test_ranks_that_train_by_the_clock_go_by_that_of_rank_0(folder: Path) -> None:
    first, second = seen(folder, "clock")
    assert first == second and first["steps"] > 0


def test_ranks_with_different_configurations_are_one_line_of_rank_0(folder: Path) -> None:
    first, second = seen(folder, "different")
    assert first["error"].startswith("rank 1: train: optim.rate: found 0.5, expected 0.02 as on rank 0; start all")
    assert (first["kind"], second["kind"]) == ("InputError", "ReportedElsewhere")
    assert not (folder / "different0").exists()


def test_ranks_whose_weights_differ_do_not_go_on(folder: Path) -> None:
    first, second = seen(folder, "drifting")
    assert first["error"].startswith("rank 1: weights at step 1: checksum: found ")
    assert second["kind"] == "ReportedElsewhere" and first["losses"] == second["losses"] and len(first["losses"]) == 1


def test_torchrun_trains_with_the_command_and_rank_0_speaks_for_all(shards: Path, tmp_path: Path) -> None:
    """A new run of one study a step has one for each rank; the same command again is one line."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**CONFIG, "steps": 1}))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "x2ct", "train", str(shards), "-o", str(tmp_path / "run"), "--config", str(config), "--device=cpu"]
    trained, refused = (
        subprocess.run([*torchrun, *command], capture_output=True, text=True, timeout=1800, check=False)
        for _ in range(2)
    )
    assert trained.returncode == 0 and trained.stdout.count("1 steps in") == 1, trained.stderr
    assert trained.stderr.count("2 ranks take 2 studies a step") == 1
    assert TrainConfig.load(tmp_path / "run").optim.accumulate == 2
    lines = [line for line in refused.stderr.splitlines() if line.startswith("x2ct: error")]
    assert refused.returncode != 0 and len(lines) == 1 and "--resume" in lines[0], refused.stderr


def test_a_number_of_ranks_that_does_not_divide_the_studies_is_one_line(shards: Path, tmp_path: Path) -> None:
    shard_set = ShardSet.open(shards)
    said = "torchrun: ranks: found 2, expected a divisor of 3, the studies of a step"
    three = dataclasses.replace(TINY, optim=dataclasses.replace(TINY.optim, accumulate=3))
    with pytest.raises(InputError, match=said):
        open_run(tmp_path, three, shard_set, resume=False, ranks=2)
    assert not list(tmp_path.iterdir())
    config = open_run(tmp_path, TINY, shard_set, resume=False, ranks=3)
    assert (config.optim.accumulate, config.pools) == (3, 3)
    (tmp_path / CHECKPOINT_FILE).touch()
    with pytest.raises(InputError, match=said):
        open_run(tmp_path, None, shard_set, resume=True, ranks=2)


@pytest.mark.parametrize(
    ("changes", "device", "said"),
    [
        ({"RANK": None}, "cpu", "environment: RANK: found nothing, expected a number below WORLD_SIZE 2; start"),
        ({"RANK": "2"}, "cpu", "environment: RANK: found '2', expected a number below WORLD_SIZE 2; start"),
        ({"LOCAL_RANK": "x"}, "cpu", "environment: LOCAL_RANK: found 'x'"),
    ],
)
def test_an_incomplete_environment_is_one_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], device: str, said: str
) -> None:
    for name, value in {**environment(0, 2, 1), **changes}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as caught, ranks.joined(device):
        pass
    assert str(caught.value).startswith(said)


def test_each_rank_has_a_gpu_of_its_own_or_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    assert [ranks._device(name, 1, 2) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(InputError, match="ranks on this machine: found 3, expected at most 2, the number of GPUs"):
        ranks._device("auto", 0, 3)
    with pytest.raises(InputError, match="--device: device: found cuda:0, expected auto, cpu or cuda"):
        ranks._device("cuda:0", 0, 2)


def test_draws_of_different_pools_make_different_studies(shards: Path) -> None:
    """So ranks share the making of studies; the draws of one pool are those without the other."""
    config = dataclasses.replace(TINY, grid=GRID, display_p99=(6.0, 8.0), pool=2, refresh=1, seed=3, workers=0, pools=2)
    both, one = (StudyPool(ShardSet.open(shards).select("train"), config) for _ in range(2))
    for draw in (0, 2, 4):
        study, other = both.draw(draw)[0], both.draw(draw + 1)[0]
        assert not torch.equal(study.hu, other.hu) and torch.equal(study.hu, one.draw(draw)[0].hu)
    assert {index % 2 for index in one._studies} == {0} and {index // 2 for index in one._studies} <= {2, 3}
