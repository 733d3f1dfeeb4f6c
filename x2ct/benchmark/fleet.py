"""The parent's side: a process for each case, started, warmed up, and asked for one run at a time in turn."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct.benchmark.cases import Case, labels
from x2ct.benchmark.machine import GpuWatch, clock_facts, clocks
from x2ct.benchmark.stats import Summary
from x2ct.errors import InputError, MemoryLimitError, MissingRuntimeError, X2CTError

Say = Callable[[str], None]

_ERRORS = {error.exit_code: error for error in (X2CTError, InputError, MissingRuntimeError, MemoryLimitError)}
_COLD = ("start_s", "load_s", "build_s", "first_run_s")
_MEMORY = ("base_bytes", "steady_bytes", "peak_bytes", "device_bytes")
_TIMES = ("end_to_end_s", "condition_s", "loop_s", "compute_s", "evaluation_s")


@dataclass(frozen=True)
class Effort:
    """How often things are measured.

    Attributes:
        runs: of each row, after the warm-up.
        warmup: runs of each row after its first, not counted; the PyTorch loop's first is long enough to be its own.
        cold: processes of each row whose start is timed; the last one goes on to be measured.
        plain_runs: of the PyTorch loop, which takes so much longer; it has one cold start.
        together: start all rows first and let them take turns; otherwise one after another, each alone on the machine.

    Raises:
        InputError: a number is too small.
    """

    runs: int = 10
    warmup: int = 1
    cold: int = 3
    plain_runs: int = 2
    together: bool = True

    def __post_init__(self) -> None:
        for name, least in {"runs": 1, "warmup": 0, "cold": 1, "plain_runs": 1}.items():
            if (value := getattr(self, name)) < least:
                option = f"--{name.replace('_', '-')}"
                raise InputError.of(option, "value", found=value, expected=f"{least} or more")

    def of(self, case: Case) -> Effort:
        """Return the effort for one case."""
        return replace(self, runs=self.plain_runs, warmup=0, cold=1) if case.plain else self


class Worker:
    """The process of one case."""

    def __init__(self, bundle: str, case: Case) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - close() ends it
        self._request = {"bundle": bundle, "case": case.to_json(), "at": time.monotonic(), "seed": 0}
        module = "x2ct.export.plainloop" if case.plain else "x2ct.benchmark.worker"
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        self._process = subprocess.Popen([sys.executable, "-m", module], text=True, **pipes)

    def start(self, keep: Path | None = None) -> dict[str, Any]:
        """Load, build and run once with seed 0; the CT goes to `keep`. Raises X2CTError."""
        return self._ask(self._request | {"keep": str(keep) if keep else None})

    def run(self, seed: int) -> dict[str, Any]:
        """Run once. Raises X2CTError."""
        return self._ask({"seed": seed})

    def close(self) -> None:
        """End the process, and wait until it has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        line = ""
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _ERRORS.get(answer["exit_code"], X2CTError)(answer["error"])
        return answer

    def _death(self) -> X2CTError:
        """Return why a process ended without an answer, as far as its exit code and its last line show."""
        code = self._process.wait()
        if code == -9:
            return MemoryLimitError("its process was killed, as the system does where memory runs out")
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return X2CTError(f"its process ended with {code}: {lines[-1].strip() if lines else 'no message'}")


@dataclass
class Row:
    """The result of one case; docs/benchmark.md describes the fields."""

    case: Case
    label: str
    status: str = "measured"
    reason: str = ""
    exit_code: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    cold: list[dict[str, float]] = field(default_factory=list)
    samples: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _TIMES})
    memory: dict[str, int | None] = field(default_factory=dict)
    parity: dict[str, Any] | None = None

    @property
    def measured(self) -> bool:
        """True where there are figures."""
        return self.status == "measured"

    def fail(self, error: X2CTError) -> None:
        """Note why there are no figures. Wrong use is not noted but raised."""
        if isinstance(error, InputError):
            raise error
        self.status = "missing" if isinstance(error, MissingRuntimeError) else "failed"
        self.reason, self.exit_code = str(error), error.exit_code

    def began(self, answer: dict[str, Any]) -> None:
        """Add one cold start, without its first run's times."""
        self.cold.append({name: answer[name] for name in _COLD})
        self.ran(answer, counts=False)

    def ran(self, answer: dict[str, Any], counts: bool = True) -> None:
        """Take over facts and memory of the latest run, and its times if it counts."""
        self.facts = answer["facts"]
        self.memory |= {name: answer[name] for name in _MEMORY if name in answer}
        for name, values in self.samples.items() if counts else ():
            values.append(answer[name])

    def median(self, name: str) -> float:
        """Return the median of one time, in seconds."""
        return Summary.of(times_of(self.samples, name)).median

    def to_json(self) -> dict[str, Any]:
        """Return the row as the document has it."""
        head = {"label": self.label, "case": self.case.to_json(), "status": self.status}
        if not self.measured:
            return head | {"reason": self.reason}
        summary: dict[str, Any] = {name: Summary.of(times_of(self.samples, name)).to_json() for name in _TIMES}
        summary["volumes_per_s"] = self.case.batch / self.median("end_to_end_s")
        summary["evaluations_per_s"] = self.case.batch * self.facts["evaluations"] / self.median("loop_s")
        figures = {name: getattr(self, name) for name in ("memory", "parity", "samples")}
        return head | {"facts": self.facts, "cold_start": self.cold, "summary": summary} | figures


def times_of(samples: dict[str, list[Any]], name: str) -> list[float]:
    """Return a row's samples of one time; of evaluations those of all runs, or the loops where a run has only one."""
    if name != "evaluation_s":
        return list(samples[name])
    return [value for run in samples[name] for value in run] or list(samples["loop_s"])


def measure(
    bundle: str, cases: Sequence[Case], effort: Effort, say: Say, parity: bool = True, against: Path | None = None
) -> tuple[list[Row], dict[str, Any]]:
    """Measure all cases.

    Args:
        bundle: its folder or name.
        cases: the rows.
        effort: how often.
        say: is called with a line on what is being done.
        parity: compare each row's CT of seed 0 with that of the f32 reference of the same task.
        against: compare with this CT instead.

    Returns:
        The rows, and the clocks over the run (`machine.clock_facts`).

    Raises:
        InputError: a case that the model can't be asked for.
        X2CTError: not one row could be measured; the first one's error.
    """
    rows = [Row(case, label) for case, label in zip(cases, labels(cases), strict=True)]
    before, gpu = clocks(), GpuWatch()
    with tempfile.TemporaryDirectory(prefix="x2ct-bench-") as name:
        kept = {id(row): Path(name) / f"{number}.npy" for number, row in enumerate(rows)} if parity else {}
        for group in [rows] if effort.together else [[row] for row in rows]:
            _take_turns(bundle, group, effort, say, kept)
        facts = clock_facts(before, clocks()) | {"gpu": gpu.facts()}
        if parity:
            _compare(bundle, [row for row in rows if row.measured], kept, against, say)
    if not any(row.measured for row in rows):
        raise _ERRORS.get(rows[0].exit_code, X2CTError)(f"{rows[0].label}: {rows[0].reason}")
    return rows, facts


def volume_of(bundle: str, case: Case, path: Path) -> Path:
    """Write a case's CT of seed 0 to a .npy file; nothing is timed. Raises X2CTError."""
    with closing(Worker(bundle, case)) as worker:
        worker.start(path)
    return path


def _take_turns(bundle: str, rows: Sequence[Row], effort: Effort, say: Say, kept: dict[int, Path]) -> None:
    """Start all rows, then run each of them once a turn, so that background load affects all rows alike."""
    with ExitStack() as stack:
        running: dict[int, Worker] = {}
        for row in rows:
            say(f"{row.label}: starting")
            try:
                for _ in range(effort.of(row.case).cold - 1):
                    with closing(Worker(bundle, row.case)) as worker:
                        row.began(worker.start())
                running[id(row)] = worker = stack.enter_context(closing(Worker(bundle, row.case)))
                row.began(worker.start(kept.get(id(row))))
                for _ in range(effort.of(row.case).warmup):
                    row.ran(worker.run(0), counts=False)
            except X2CTError as error:
                row.fail(error)
        for turn in range(max(effort.of(row.case).runs for row in rows)):
            for row in rows:
                runs = effort.of(row.case).runs
                if not row.measured or turn >= runs:
                    continue
                say(f"{row.label}: run {turn + 1} of {runs}")
                try:
                    row.ran(running[id(row)].run(1 + turn))
                except X2CTError as error:
                    row.fail(error)


def _compare(bundle: str, rows: Sequence[Row], kept: dict[int, Path], against: Path | None, say: Say) -> None:
    """Set each row's parity; the reference of a task that is no row is computed for it."""
    references: dict[Case, Path | X2CTError] = {
        row.case.task: kept[id(row)] for row in rows if row.case.is_reference and row.facts["tiles"] is None
    }
    for row in rows:
        task = row.case.task
        if against is None and task not in references:
            say(f"{row.label}: the f32 reference")
            try:
                references[task] = volume_of(bundle, task, kept[id(row)].with_suffix(".reference.npy"))
            except X2CTError as error:
                references[task] = error
        reference = against or references[task]
        if isinstance(reference, X2CTError):
            row.parity = {"none": str(reference)}
        else:
            row.parity = difference(np.load(kept[id(row)], mmap_mode="r"), np.load(reference, mmap_mode="r"))


def difference(hu: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return the mean, RMS and largest absolute difference of two CTs, in HU."""
    off = hu.astype(np.float32) - reference
    return {
        "mean_abs_hu": float(np.abs(off).mean(dtype=np.float64)),
        "rms_hu": float(np.sqrt(np.square(off).mean(dtype=np.float64))),
        "max_abs_hu": float(np.abs(off).max()),
    }
