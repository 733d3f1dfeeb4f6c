"""A cohort on a Ray cluster gives what this machine alone gives, and a lost worker costs no study.

All tests share one cluster: that of RAY_ADDRESS, or one that is started here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner, Result

from tests import tiny_bundle
from tests.processes import kill_titled
from x2ct.cli import app
from x2ct.errors import Cancelled, InputError
from x2ct.jobs.cohort import Cohort, ray_engine, sample_cohort
from x2ct.jobs.cohort.ray_engine import Worker, placement
from x2ct.jobs.cohort.studies import SUMMARY_FILE, fingerprint, job_of, read_manifest
from x2ct.jobs.sample import SampleJob

ROOT = Path(__file__).resolve().parent.parent
STUDIES = 12


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_engine.connected(""):
        yield


@pytest.fixture
def folder(tiny_path: Path, tmp_path: Path) -> Path:
    """A model, X-rays, and a manifest of studies that take a while, each with a seed of its own."""
    shutil.copytree(tiny_path, tmp_path / "tiny.x2ct")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.uniform(0, 5, tiny_bundle.DETECTOR).astype(np.float32))
    lines = ["id,ap,seed", *(f"s{k:02d},a.npy,{k}" for k in range(STUDIES))]
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def base(folder: Path, name: str = "out", steps: int = 60) -> SampleJob:
    return SampleJob(folder / name, model=str(folder / "tiny.x2ct"), threads=1, steps=steps, solver="euler")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}


def run(folder: Path, *options: str) -> Result:
    settings = ["-o", str(folder / "out"), "-m", str(folder / "tiny.x2ct"), "--threads", "1", "--engine", "ray"]
    return CliRunner().invoke(app, ["sample", "--manifest", str(folder / "cases.csv"), *settings, *options])


def lost_in_the_middle(folder: Path) -> Cohort:
    """The studies, two at a time; after the second one, the worker of another is killed in the middle of it."""
    killer = threading.Thread(target=kill_titled, args=("ray::Worker.sample",))

    def progress(done: int, total: int, name: str) -> None:
        if done == 2:
            killer.start()

    cohort = sample_cohort(folder / "cases.csv", base(folder), jobs=2, engine="ray", progress=progress)
    killer.join()
    return cohort


# ------------------------------------------------------------------------------------------------ on a cluster


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_is_replaced_loses_nothing_and_nothing_is_done_twice(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started, start = list[ray_engine.RayEngine](), ray_engine.RayEngine._start

    def noted(engine: ray_engine.RayEngine) -> None:
        started.append(engine)
        start(engine)

    monkeypatch.setattr(ray_engine.RayEngine, "_start", noted)
    cohort = lost_in_the_middle(folder)
    assert capfd.readouterr() == ("", "")
    assert len(started) == 2 + 1
    assert [(outcome.id, outcome.state) for outcome in cohort.outcomes] == [(f"s{k:02d}", "done") for k in range(12)]
    assert sum(outcome.retries for outcome in cohort.outcomes) == 1
    sample_cohort(folder / "cases.csv", base(folder, "alone"))
    assert contents(folder / "out") == contents(folder / "alone")
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").glob("s[0-9]*")}
    again = sample_cohort(folder / "cases.csv", base(folder), resume=True, jobs=2, engine="ray")
    assert {outcome.state for outcome in again.outcomes} == {"kept"}
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").glob("s[0-9]*")} == before


@pytest.mark.usefixtures("cluster")
def test_a_study_that_loses_every_worker_fails_and_the_others_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "RETRIES", 0)
    cohort = lost_in_the_middle(folder)
    (failed,) = cohort.failed
    assert failed.code == 1
    assert failed.error.startswith(f"{failed.id}: its worker was lost 1 times, the last time: ")
    assert "\n" not in failed.error
    assert set(contents(folder / "out")) == {f"s{k:02d}.nii.gz" for k in range(12)} - {f"{failed.id}.nii.gz"}
    again = sample_cohort(folder / "cases.csv", base(folder), resume=True)  # on this machine alone
    assert [outcome.id for outcome in again.outcomes if outcome.state == "done"] == [failed.id]


@pytest.mark.usefixtures("cluster")
def test_the_command_tells_bad_studies_and_relative_paths_hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("cases.csv").write_text("id,ap\na,a.npy\nmissing,nothing.npy\n")
    result = run(Path(), "--jobs", "2", "--steps", "2")
    assert result.exit_code == 1, result.stderr
    assert "missing failed with code 2: nothing.npy: file" in result.stderr.replace(f"{folder}/", "")
    assert {path.name for path in Path("out").iterdir()} == {"a.nii.gz", "a.json", SUMMARY_FILE}


@pytest.mark.usefixtures("cluster")
def test_a_cancelled_run_keeps_what_is_finished_and_frees_the_cluster(folder: Path) -> None:
    def stop(done: int, total: int, name: str) -> None:
        raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        sample_cohort(folder / "cases.csv", base(folder), jobs=2, engine="ray", progress=stop)
    finished = {path.stem for path in (folder / "out").glob("s*.json")}
    assert 1 <= len(finished) <= 2  # the other worker may just have ended a study
    again = sample_cohort(folder / "cases.csv", base(folder), resume=True, jobs=2, engine="ray")
    assert {outcome.id for outcome in again.outcomes if outcome.state == "kept"} == finished
    assert not again.failed


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jobs", "999"], "--jobs: workers: found 999 of 1 core each, expected at most"),
        (["--device", "cuda:1"], "--device: name: found cuda:1, expected cuda; Ray chooses the GPUs"),
    ],
)
def test_what_a_cluster_cannot_give_is_one_line(folder: Path, options: list[str], words: str) -> None:
    result = run(folder, *options)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.skipif("RAY_ADDRESS" in os.environ, reason="a cluster is given")
def test_a_cluster_of_its_own_listens_here_alone_and_ends_with_the_command(folder: Path) -> None:
    (folder / "cases.csv").write_text("\n".join(["id,ap", *(f"s{k},a.npy" for k in range(500))]) + "\n")
    command = [sys.executable, "cli.py", "sample", "--manifest", str(folder / "cases.csv"), "--engine", "ray", "-q"]
    settings = ["-o", str(folder / "out"), "-m", str(folder / "tiny.x2ct"), "--threads", "1", "--jobs", "1"]
    process = psutil.Popen([*command, *settings], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (folder / "out" / "s1.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    others = process.children(recursive=True)
    places = [
        socket.laddr.ip.removeprefix("::ffff:")
        for one in (process, *others)
        for socket in one.net_connections()
        if socket.laddr
    ]
    environments = [one.environ() for one in others]  # a worker that Ray renames has written its name over its own
    reporting = {one["RAY_USAGE_STATS_ENABLED"] for one in environments if "PATH" in one}
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "x2ct: terminated\n")
    assert set(places) <= {"127.0.0.1", "::1"} and places
    assert reporting == {"0"}
    _, alive = psutil.wait_procs(others, timeout=30)
    assert not alive


# ------------------------------------------------------------------------------------------------ without one


def test_without_ray_the_extra_is_named_and_nothing_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run(folder)
    assert result.exit_code == 3
    assert result.stderr == "x2ct: error: ray is not installed: pip install 'x2ct[ray]'\n"
    assert not (folder / "out").exists()


def test_options_of_ray_need_ray(folder: Path) -> None:
    assert run(folder, "--engine", "slurm").exit_code == 2
    result = run(folder, "--engine", "local", "--ray-address", "127.0.0.1:6379")
    assert result.exit_code == 2
    assert "--ray-address" in result.stderr
    alone = CliRunner().invoke(app, ["sample", "--ap", "a.npy", "-o", "ct.nii.gz", "--engine", "ray"])
    assert alone.exit_code == 2
    assert "--manifest" in alone.stderr


def worker_of(folder: Path, expected: str = "") -> tuple[Worker, SampleJob, str]:
    """A worker in this process, its first study's job, and the model's checksum."""
    bundle = tiny_bundle.Bundle.load(folder / "tiny.x2ct")
    (folder / "out").mkdir()
    worker = Worker(base(folder, steps=2), expected or ray_engine._version(bundle))
    return worker, job_of(base(folder, steps=2), read_manifest(folder / "cases.csv")[0]), bundle.checksum


def test_a_study_whose_worker_was_lost_after_its_report_is_not_sampled_again(folder: Path) -> None:
    worker, job, checksum = worker_of(folder)
    (folder / "out" / SUMMARY_FILE).touch()
    worker.open()
    mark = fingerprint(checksum, job)
    first = worker.sample("s00", job, mark)
    before = {path: path.stat().st_mtime_ns for path in job.outputs}
    assert worker.sample("s00", job, mark) == first
    assert {path: path.stat().st_mtime_ns for path in job.outputs} == before
    job.output.write_bytes(b"half")  # lost before its report could have been true
    worker.sample("s00", job, mark)
    assert job.output.stat().st_size > 4


def test_a_worker_refuses_a_folder_that_is_not_shared_and_another_version(folder: Path) -> None:
    worker, _, _ = worker_of(folder, "x2ct 0 and model 0")
    with pytest.raises(InputError, match="all machines must share its path"):
        worker.open()
    (folder / "out" / SUMMARY_FILE).touch()
    with pytest.raises(InputError, match="expected x2ct 0 and model 0, as where the run began"):
        worker.open()


@pytest.mark.parametrize(
    ("cores", "jobs", "threads", "expected"),
    [
        ((8,), None, 0, (1, 8)),
        ((8, 8), None, 0, (2, 8)),
        ((0, 8, 8), None, 0, (2, 8)),  # a head that takes no work
        ((8, 8), 4, 0, (4, 4)),
        ((3, 3), 3, 0, (3, 1)),  # two cores each would leave the third without
        ((8, 6), None, 4, (3, 4)),
        ((8, 8), 3, 2, (3, 2)),
    ],
)
def test_workers_fill_the_cores(cores: tuple[int, ...], jobs: int | None, threads: int, expected: object) -> None:
    assert placement([{"CPU": count} for count in cores], jobs, threads, gpu=False) == expected


def test_each_gpu_gets_a_worker() -> None:
    nodes = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 2.0, "GPU": 8.0}, {"CPU": 64.0}]
    assert placement(nodes, None, 0, gpu=True) == (6, 1)
    assert placement(nodes, None, 4, gpu=True) == (4, 4)
    with pytest.raises(InputError, match=r"found 7 of 1 core and a GPU each, expected at most 6: .*2 cores and 8 GPUs"):
        placement(nodes, 7, 0, gpu=True)
    with pytest.raises(InputError, match="at most 0: the cluster's machines have 64 cores and 0 GPUs"):
        placement(nodes[2:], None, 0, gpu=True)
    with pytest.raises(InputError, match="no cores"):
        placement([], None, 0, gpu=False)
