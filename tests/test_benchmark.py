"""`x2ct bench`: what its figures mean, that a slower one is noticed, and that it runs from end to end."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from typer.main import get_command

from benchmarks.refresh import MEASUREMENTS, ROOT, arguments
from tests.commandline import run
from x2ct import _core
from x2ct.benchmark import document
from x2ct.benchmark.cases import EDM, KEYS, PLAIN, Case, cases_of, labels
from x2ct.benchmark.document import compare
from x2ct.benchmark.fleet import Effort, Row, Worker, measure
from x2ct.benchmark.stats import Summary, ratio
from x2ct.benchmark.worker import TRANSFERS, Subject
from x2ct.cli import app
from x2ct.commands.bench import parse_threshold
from x2ct.errors import InputError, MemoryLimitError
from x2ct.runtimes import machine
from x2ct.runtimes.discovery import choose
from x2ct.runtimes.machine import Neighbours, clock_facts, resident_bytes

# ------------------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize(("percentile", "least"), [("p90", 10), ("p95", 20), ("p99", 100)])
def test_a_percentile_needs_a_sample_that_may_lie_beyond_it(percentile: str, least: int) -> None:
    samples = list(range(1, least + 1))
    assert getattr(Summary.of(samples), percentile) == least - 1  # one of them lies beyond
    assert getattr(Summary.of(samples[:-1]), percentile) is None


def test_a_summary_says_what_varies_too_much() -> None:
    steady, unsteady = Summary.of([1.0, 1.01, 0.99]), Summary.of([1.0, 1.03, 0.97])
    assert steady.cv == pytest.approx(0.01) and not steady.unsteady
    assert unsteady.cv == pytest.approx(0.03) and unsteady.unsteady
    assert Summary.of([2.0]).cv is None and not Summary.of([2.0]).unsteady
    assert (Summary.of([3, 1, 2]).min, Summary.of([3, 1, 2]).median) == (1, 2)


def test_a_ratio_is_a_regression_when_it_is_past_the_threshold_and_not_by_chance() -> None:
    random = np.random.default_rng(1)
    old = list(1 + 0.01 * random.standard_normal(30))
    slow = ratio([1.1 * value for value in old], old)
    assert slow.value == pytest.approx(1.1) and slow.low < 1.1 < slow.high and slow.slower_than(0.05)
    assert not slow.slower_than(0.2)
    assert not ratio(old, old).slower_than(0.0)
    wild = ratio([0.5, 1.2, 1.9], [0.4, 1.1, 1.8])
    assert wild.value > 1.05 and not wild.slower_than(0.05)  # any of it may be chance


# ------------------------------------------------------------------------------------------------ sweeps


def test_a_sweep_makes_all_combinations_and_the_plain_loop_is_a_row_of_each_grid() -> None:
    cases = cases_of(["grid=32,64x32x96", "precision=f32,bf16"], threads=2)
    ours = [case for case in cases if not case.plain]
    assert {(case.grid, case.precision) for case in ours} == {
        (grid, precision) for grid in ((32, 32, 32), (64, 32, 96)) for precision in ("f32", "bf16")
    }
    plain = [case for case in cases if case.plain]
    assert {(case.backend, case.grid) for case in plain} == {
        (backend, grid) for backend in PLAIN for grid in ((32, 32, 32), (64, 32, 96))
    }
    assert all((case.solver, case.schedule, case.steps) == ("heun", "edm", 18) for case in plain)
    assert len(set(labels(cases))) == len(cases)
    assert not any(case.plain for case in cases_of(["grid=32"], plain=False))


def test_without_a_sweep_each_backend_and_precision_that_is_here_is_a_row() -> None:
    rows = {(case.backend, case.precision) for case in cases_of([], plain=False)}
    told = {one["name"]: one for one in _core.backends({"openvino": choose().runtime_dir})}
    assert {("openvino", precision) for precision in told["openvino"]["precisions"]["cpu"]} <= rows
    assert cases_of([])[0].is_reference


def test_rows_of_one_task_have_one_reference() -> None:
    row = Case(backend="onnxruntime", precision="bf16", steps=4, threads=1, tiles=1 << 30, halo=8)
    assert row.task == Case(backend="openvino", precision="f32", device="cpu", steps=4)
    assert row.task.is_reference and not row.is_reference
    assert msgspec.convert(json.loads(json.dumps(vars(row))), Case) == row


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ("speed=1", "--sweep: key: found 'speed=1', expected KEY=VALUE"),
        ("precision", "--sweep: key: found 'precision'"),
        ("precision=f33", "--sweep: precision: found 'f33', expected auto, f32"),
        ("grid=32x32", "--sweep: grid: found '32x32', expected voxels"),
        ("steps=0", "--sweep: steps: found '0', expected a whole number from 1"),
        ("tiles=much", "--sweep: tiles: found 'much', expected whole, or a size"),
        ("threads=1,1", "--sweep: threads: found 1,1, expected each value once"),
        ("backend=torchscript9", "--sweep: backend: found 'torchscript9', expected auto, openvino"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_one_line_and_exit_code_2(sweep: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        cases_of([sweep])
    assert str(raised.value).startswith(words)
    done = run("bench", "--sweep", sweep)
    assert isinstance(done.exception, InputError) or done.exit_code == 2


def test_a_key_is_swept_once() -> None:
    with pytest.raises(InputError, match="--sweep: steps: found it twice"):
        cases_of(["steps=1", "steps=2"])
    with pytest.raises(InputError, match="--plain-runs: value: found 0"):
        Effort(plain_runs=0)
    assert set(KEYS) == set(vars(Case()))


# ------------------------------------------------------------------------------------------------ from end to end


@pytest.fixture(scope="module")
def made(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of the tiny bundle, by the command."""
    name = tmp_path_factory.mktemp("bench") / "figures"
    options = ["-n", 2, "--cold", 1, "--warmup", 0, "--threads", 1, "-o", name]
    done = run(
        "bench", tiny_path, "--sweep", "steps=2,3", "--sweep", "precision=f32", "--sweep", "backend=openvino", *options
    )
    assert done.exit_code == 0, done.output
    return name


def test_a_benchmark_has_every_figure_and_all_its_samples(made: Path) -> None:
    read = document.read(f"{made}.json")
    ours = [row for row in read["rows"] if row["status"] == "measured"]
    assert [row["case"]["steps"] for row in ours] == [2, 3]
    for row in ours:
        assert set(row) == {
            "label", "case", "status", "facts", "cold_start", "summary", "memory", "parity", "samples"
        }  # fmt: skip
        steps = row["case"]["steps"]
        assert len(row["samples"]["end_to_end_s"]) == 2
        assert [len(between) for between in row["samples"]["evaluation_s"]] == [steps - 1] * 2
        assert row["summary"]["end_to_end_s"] == vars(Summary.of(row["samples"]["end_to_end_s"]))
        assert row["summary"]["evaluations_per_s"] == pytest.approx(steps / row["summary"]["loop_s"]["median"])
        assert row["parity"] == {"mean_abs_hu": 0.0, "rms_hu": 0.0, "max_abs_hu": 0.0}
        assert set(row["cold_start"][0]) == {"start_s", "load_s", "build_s", "first_run_s"}
        assert 0 < row["memory"]["base_bytes"] < row["memory"]["peak_bytes"]
        assert row["facts"]["transfers"].startswith("none")
    assert read["environment"]["versions"]["openvino"] == ours[0]["facts"]["runtime"]


def test_a_run_is_timed_without_its_residual(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """End to end is encoder, lift and loop; what the host would then project is no part of these."""

    def refuse(*_: object) -> None:
        raise AssertionError("projected")

    for name in ("project", "rays_within"):
        monkeypatch.setattr(_core, name, refuse)
    subject = Subject(str(tiny_path), Case(steps=2, threads=1))
    subject.load()
    subject.build()
    assert subject.run(0).facts["evaluations"] == 2


def test_the_plain_loop_is_a_row_even_where_it_can_not_run(made: Path) -> None:
    read = document.read(f"{made}.json")
    plain = [row for row in read["rows"] if row["status"] == "missing"]
    assert [row["case"]["backend"] for row in plain] == list(PLAIN)
    assert all(row["reason"].startswith("PyTorch can't have this network") for row in plain)
    assert any(warning.startswith("pytorch-eager f32: missing:") for warning in read["warnings"])


def test_the_page_says_the_same(made: Path) -> None:
    text = Path(f"{made}.md").read_text()
    assert "## Latency" in text and "## Cold start" in text and "| openvino f32 steps=3 |" in text


def row_of(case: Case, end_to_end_s: float, loop_s: float) -> Row:
    row = Row(case, case.backend, facts={"grid": [32, 32, 32]})
    row.samples |= {"end_to_end_s": [end_to_end_s], "loop_s": [loop_s]}
    return row


def test_times_faster_are_the_plain_loops_time_over_the_fastest_rows() -> None:
    plain = row_of(Case(backend=PLAIN[0], **EDM), 50.0, 40.0)
    rows = [row_of(Case(backend="openvino"), 1.0, 0.05), row_of(Case(backend="onnxruntime"), 0.5, 0.1), plain]
    found = document.headline(rows)
    assert found is not None
    assert found["fastest"]["label"] == "onnxruntime"
    assert found["fastest"]["times_faster_than"] == {PLAIN[0]: {"end_to_end": 100.0, "loop": 400.0}}
    assert document.against(found).rows == [["fastest row", "onnxruntime", PLAIN[0], "100.0", "400.0"]]
    assert document.headline(rows[:2]) is None


def changed(made: Path, factor: float) -> Path:
    read = document.read(f"{made}.json")
    for row in read["rows"]:
        for name in ("end_to_end_s", "evaluation_s") if row["status"] == "measured" else ():
            row["samples"][name] = [
                [factor * value for value in sample] if isinstance(sample, list) else factor
                for sample in row["samples"][name]
            ]
    path = made.with_name(f"times{factor}.json")
    path.write_text(json.dumps(read))
    return path


def test_a_regression_past_the_threshold_ends_with_exit_code_1(made: Path) -> None:
    old, slower, faster = changed(made, 1.0), changed(made, 1.2), changed(made, 0.8)
    same = run("bench", "--reuse", old, "--compare", old)
    assert same.exit_code == 0 and "1.000 (1.000 to 1.000)" in same.output
    worse = run("bench", "--reuse", slower, "--compare", old, "--threshold", "5%")
    assert worse.exit_code == 1 and "end to end takes 1.200 times as long" in worse.output
    assert run("bench", "--reuse", slower, "--compare", old, "--threshold", "0.25").exit_code == 0
    assert run("bench", "--reuse", faster, "--compare", old).exit_code == 0


def test_a_comparison_says_what_makes_two_benchmarks_unlike(made: Path) -> None:
    old = document.read(f"{made}.json")
    new = copy.deepcopy(old)
    new["environment"]["processor"] = "another"
    new["bundle"]["sha256"] = "0"
    new["rows"] = new["rows"][1:]
    found = compare(new, old)
    assert any(note.startswith("processor:") for note in found["notes"]) and "the bundle is another" in found["notes"]
    assert found["alone"] == ["openvino f32 steps=2: gone"]
    with pytest.raises(InputError, match="found no row in common"):
        compare({**new, "rows": []}, old)


def test_a_grid_just_measured_is_the_same_case_as_one_that_was_read() -> None:
    """JSON turns a tuple into a list."""
    machine = dict.fromkeys(("processor", "processors", "affinity", "instructions"))
    row = {"label": "a", "status": "measured", "case": vars(Case(grid=(32, 32, 32)))}
    row["samples"] = {"end_to_end_s": [1.0], "evaluation_s": [[0.1, 0.1]], "loop_s": [0.2]}
    new = {"environment": {**machine, "versions": {}}, "bundle": {"sha256": "0"}, "rows": [row]}
    comparison = compare(new, json.loads(json.dumps(new)))
    assert (len(comparison["rows"]), comparison["alone"], comparison["notes"]) == (1, [], [])


@pytest.mark.parametrize("text", ["fast", "-1%", "2000%", ""])
def test_a_threshold_is_a_share(text: str) -> None:
    assert (parse_threshold("5%"), parse_threshold("0.05")) == (0.05, 0.05)
    with pytest.raises(InputError, match="--threshold: value"):
        parse_threshold(text)


def test_another_file_is_no_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"schema": 1}')
    with pytest.raises(InputError, match="expected 'x2ct bench', schema 1"):
        document.read(path)


def test_wrong_use_is_raised_and_not_a_row(tiny_path: Path) -> None:
    cases = [Case(precision="f32", grid=grid, threads=1) for grid in ((32, 32, 32), (33, 32, 32))]
    with pytest.raises(InputError, match="multiples of the model's stride"):
        measure(str(tiny_path), cases, Effort(runs=1, warmup=0, cold=1), lambda _: None, parity=False)


def test_a_process_that_is_killed_is_out_of_memory(tiny_path: Path) -> None:
    worker = Worker(str(tiny_path), Case(precision="f32", threads=1))
    try:
        worker.start()
        worker._process.kill()
        with pytest.raises(MemoryLimitError, match="killed"):
            worker.run(1)
    finally:
        worker.close()


def test_clocks_that_can_not_be_read_are_said_to_be_so() -> None:
    blind = {"mhz": None, "throttled": None, "gpu": None}
    assert clock_facts(blind, blind)["notes"] == ["clocks: not readable here", "throttling: not readable here"]
    hot = {"mhz": {"min": 1.0, "max": 2.0, "source": "cpufreq"}, "throttled": 3, "gpu": None}
    assert clock_facts(hot, {**hot, "throttled": 5})["throttled"] == 2


GPU_LINES = """\
1980, 2619, 612.40, 51, 0x0000000000000004
345, 2619, [N/A], 40, 0x0000000000000001
1980, 26"""


def test_a_gpu_that_slowed_down_is_said_to_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the driver's tool, whose last line may be cut off when it is stopped."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '%s' '{GPU_LINES}'\ntouch {tmp_path}/said\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    watch = machine.GpuWatch()
    for _ in range(600):
        if (tmp_path / "said").exists():
            break
        time.sleep(0.05)
    facts = watch.facts()
    assert facts is not None
    assert facts["clocks.sm"] == {"min": 345.0, "max": 1980.0}
    assert facts["power.draw"] == {"min": 612.4, "max": 612.4}
    assert facts["throttled_by"] == ["its power limit"]
    tool.write_text("#!/bin/sh\necho 'Field \"clocks.sm\" is not a valid field to query.'\n")
    blind = machine.GpuWatch()
    assert blind._tool is not None
    blind._tool.wait()
    facts = blind.facts()
    assert facts is not None
    assert facts["throttled_by"] is None, "no reading is not 'was not throttled'"
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert machine.GpuWatch().facts() is None


def test_a_gpus_rows_are_with_copies_and_without_and_the_page_says_how_it_ran() -> None:
    """Latency and GPU compute time, as trtexec names them; the first run apart, and parity beside each row."""
    result = document.read(ROOT / "benchmarks" / "results" / "bench.json")
    row = next(row for row in result["rows"] if row["status"] == "measured")
    row["facts"] |= {"device": "cuda:0", "transfers": TRANSFERS["cuda"]}
    row["summary"]["compute_s"] = msgspec.to_builtins(Summary.of([0.004, 0.005]))
    span = {"min": 345.0, "max": 1980.0}
    gpu = {"clocks.sm": span, "clocks.mem": None, "power.draw": {"min": 90.0, "max": 612.4}, "temperature.gpu": span}
    result["rows"] = [row]
    result["environment"]["gpu"] = ["NVIDIA H200, 580.65.06"]
    result["clocks"]["gpu"] = {**gpu, "throttled_by": ["its power limit"]}
    text = document.page("benchmark", result, document.tables_of(result))
    for words in (
        "latency, end to end",
        "GPU compute time | 2 | 4.0",
        "X-rays come from the host's memory",
        "first run",
    ):
        assert words in text
    assert "NVIDIA H200, 580.65.06: 345 to 1980 MHz, 90 to 612.4 W, " in text
    assert "the GPU was throttled meanwhile, by its power limit" in machine.doubts(
        result["environment"], result["clocks"]
    )
    assert f"{row['parity']['mean_abs_hu']:.4f}" in text
    result["clocks"]["gpu"]["throttled_by"] = None
    assert "throttling not readable here" in machine.describe(result["environment"], result["clocks"])
    assert not any("GPU was throttled" in line for line in machine.doubts(result["environment"], result["clocks"]))


def test_a_device_is_swept_with_its_own_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without the PyTorch loop, which runs on CPUs alone."""
    here = {"name": "onnxruntime", "available": True, "precisions": {"cpu": ["f32"], "cuda": ["tf32", "bf16"]}}
    monkeypatch.setattr(_core, "backends", lambda folders: [here])
    cases = cases_of(["device=cuda"])
    assert [(case.precision, case.device) for case in cases] == [("tf32", "cuda"), ("bf16", "cuda")]
    assert {case.precision for case in cases_of(["device=cpu"], plain=False)} == {"f32"}


def test_resident_memory_is_what_the_system_says() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    assert resident_bytes() == pytest.approx(1024 * kilobytes, rel=0.05)


def test_neighbours_are_all_that_was_busy_but_this_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    times = psutil.cpu_times()._asdict()
    clock = SimpleNamespace(now=0.0, busy=5.0, own=1.0)
    system = SimpleNamespace(
        cpu_times=lambda: SimpleNamespace(
            _asdict=lambda: {**dict.fromkeys(times, 0.0), "idle": 9.0, "user": clock.busy}
        ),
        Process=lambda: SimpleNamespace(cpu_times=lambda: (clock.own / 2, 0.0, clock.own / 4, clock.own / 4, 0.0)),
        cpu_count=lambda: 2,
    )
    monkeypatch.setattr(machine, "psutil", system)
    monkeypatch.setattr(machine, "time", SimpleNamespace(monotonic=lambda: clock.now))
    neighbours = Neighbours()
    clock.now, clock.busy, clock.own = 10.0, 5.0 + 8.0, 1.0 + 3.0
    assert neighbours.share() == pytest.approx((8 - 3) / (10 * 2))


# ------------------------------------------------------------------------------------------------ the plain loop


def test_the_plain_loop_takes_the_steps_of_the_cores_heun() -> None:
    """Two programs of one algorithm, on a network that is no straight line."""
    import torch

    from x2ct.export.plainloop import heun

    sigmas = [*_core.schedule("edm", 5, 0.2, 20.0), 0.0]

    def denoise(x: Any, sigma: Any) -> Any:
        return 0.5 * np.tanh(np.asarray(x)) / (1 + np.asarray(sigma).reshape(-1)[0])

    noise = _core.normal((4, 4, 4), 7)
    table = _core.Table.make("heun", sigmas[:-1])
    wanted = _core.run(lambda x, sigma: denoise(x, sigma).astype(np.float32), table, (4, 4, 4), seed=7)
    x, ends = heun(
        lambda x, sigma: torch.from_numpy(denoise(x.numpy(), sigma.numpy())),
        torch.from_numpy(noise).reshape(1, 1, 4, 4, 4),
        sigmas,
    )
    assert len(ends) == 9  # two evaluations a step, one in the last
    np.testing.assert_allclose(x[0, 0].numpy(), wanted, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------ the tables


def test_the_tables_are_what_their_json_says() -> None:
    """Where this fails, `make benchmarks` was forgotten after something was measured."""
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, root / "benchmarks" / "tables.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "command", sorted({one for each in MEASUREMENTS for one in each.commands if not one.startswith("make ")})
)
def test_a_measurement_is_a_command_of_this_checkout(command: str) -> None:
    """Its script or command is here and knows its options, and SHARDS and CTS become the folders that are given."""
    program, *rest = arguments(command, Path("/s"), Path("/c"))
    assert program == sys.executable
    assert rest.count("/s") + rest.count("/c") == command.count("SHARDS") + command.count("CTS")
    if rest[:2] == ["-m", "x2ct"]:
        known = {
            name
            for option in get_command(app).commands[rest[2]].params
            for name in (*option.opts, *option.secondary_opts)
        }
    else:
        script = (ROOT / rest[0]).read_text()
        shared = (ROOT / "benchmarks" / "cases.py").read_text() if "from benchmarks.cases import" in script else ""
        known = set(re.findall(r'"(--?[a-z-]+)"', script + shared))
    assert {word for word in rest[2:] if word.startswith("-")} <= known
