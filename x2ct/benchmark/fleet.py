"""The parent's side: a process for each case, started, warmed up, and asked for one run at a time in turn."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct.benchmark.cases import Case, labels
from x2ct.benchmark.stats import Summary
from x2ct.errors import InputError, MemoryLimitError, MissingRuntimeError, X2CTError
from x2ct.runtimes.machine import GpuWatch, clock_facts, clocks

Say = Callable[[str], None]  # is called with a line on what is being done

_ERRORS = {error.exit_code: error for error in (X2CTError, InputError, MissingRuntimeError, MemoryLimitError)}
COLD = ("start_s", "load_s", "build_s", "first_run_s")
_MEMORY = ("base_bytes", "steady_bytes", "peak_bytes", "device_bytes")
_TIMES = ("end_to_end_s", "condition_s", "loop_s", "compute_s", "evaluation_s")


@dataclass(frozen=True)
class Effort:
    """The numbers of runs that are measured. Raises InputError where a number is too small."""

    runs: int = 10  # of each row, after the warm-up
    warmup: int = 1  # of each row after its first run, not counted
    cold: int = 3  # processes of each row whose start is timed; the last one goes on to be measured
    plain_runs: int = 2  # of the PyTorch loop, which takes so much longer; its first run is all its warm-up
    together: bool = True  # start all rows and let them take turns; otherwise each is alone on the machine

    def __post_init__(self) -> None:
        for name, least in {"runs": 1, "warmup": 0, "cold": 1, "plain_runs": 1}.items():
            if (value := getattr(self, name)) < least:
                raise InputError.of(f"--{name.replace('_', '-')}", "value", found=value, expected=f"{least} or more")

    def of(self, case: Case) -> Effort:
        """Return the effort for one case."""
        return replace(self, runs=self.plain_runs, warmup=0, cold=1) if case.plain else self


class Worker:
    """The process of one case."""

    def __init__(self, bundle: str, case: Case) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - close() ends it
        self._request = {"bundle": bundle, "case": vars(case), "at": time.monotonic()}
        module = "x2ct.export.plainloop" if case.plain else "x2ct.benchmark.worker"
        self._process = Popen([sys.executable, "-m", module], 1, text=True, stdin=PIPE, stdout=PIPE, stderr=self._log)

    def start(self, keep: Path | None = None) -> dict[str, Any]:
        """Load, build and run once with seed 0; the CT goes to `keep`. Raises X2CTError."""
        return self.run(0, **self._request, keep=str(keep) if keep else None)

    def run(self, seed: int, **request: Any) -> dict[str, Any]:
        """Run once. Raises X2CTError."""
        assert self._process.stdin is not None and self._process.stdout is not None
        line = ""
        with suppress(OSError):
            self._process.stdin.write(json.dumps({"seed": seed, **request}) + "\n")
            line = self._process.stdout.readline()
        if not line:
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _ERRORS.get(answer["exit_code"], X2CTError)(answer["error"])
        return answer

    def close(self) -> None:
        """End the process by closing its stdin, and wait until it has ended."""
        try:
            self._process.communicate(timeout=60)
        except TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()

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
    """The result of one case; docs/benchmark.md describes the fields. With an `error` there are no figures."""

    case: Case
    label: str
    error: X2CTError | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    cold: list[dict[str, float]] = field(default_factory=list)
    samples: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _TIMES})
    memory: dict[str, int | None] = field(default_factory=dict)
    parity: dict[str, Any] | None = None
    volume: Path | None = None  # its CT of seed 0, while rows are measured

    @property
    def status(self) -> str:
        """The row's status in the document."""
        failed = "missing" if isinstance(self.error, MissingRuntimeError) else "failed"
        return failed if self.error else "measured"

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note an error as why there are no figures. Wrong use is not noted but raised."""
        try:
            yield
        except InputError:
            raise
        except X2CTError as error:
            self.error = error

    def add(self, answer: dict[str, Any], counts: bool = True) -> None:
        """Take over facts and memory of the latest run; its cold start, if it was a first one, or else its times."""
        self.facts = answer["facts"]
        self.memory |= {name: answer[name] for name in _MEMORY if name in answer}
        if "start_s" in answer:
            self.cold.append({name: answer[name] for name in COLD})
        elif counts:
            for name, values in self.samples.items():
                values.append(answer[name])

    def median(self, name: str) -> float:
        """Return the median of one time, in seconds."""
        return Summary.of(times_of(self.samples, name)).median

    def to_json(self) -> dict[str, Any]:
        """Return the row as the document has it."""
        head = {"label": self.label, "case": vars(self.case), "status": self.status}
        if self.error:
            return head | {"reason": str(self.error)}
        summary: dict[str, Any] = {name: vars(Summary.of(times_of(self.samples, name))) for name in _TIMES}
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
    """Measure all cases of a bundle, a folder or a name; return their rows and the clocks over the run (`clock_facts`).

    With `parity`, each row's CT of seed 0 is compared with the f32 reference's of the same task, or with `against`.
    Raises InputError: a case that the model can't be asked for; or the first row's error where none could be measured.
    """
    rows = [Row(case, label) for case, label in zip(cases, labels(cases), strict=True)]
    before, gpu = clocks(), GpuWatch()
    with tempfile.TemporaryDirectory(prefix="x2ct-bench-") as name:
        for number, row in enumerate(rows if parity else ()):
            row.volume = Path(name) / f"{number}.npy"
        for group in [rows] if effort.together else [[row] for row in rows]:
            _take_turns(bundle, group, effort, say)
        facts = clock_facts(before, clocks()) | {"gpu": gpu.facts()}
        if parity:
            _compare(bundle, [row for row in rows if not row.error], against, say)
    if all(row.error for row in rows):
        raise type(rows[0].error or X2CTError())(f"{rows[0].label}: {rows[0].error}")
    return rows, facts


def volume_of(bundle: str, case: Case, path: Path) -> Path:
    """Write a case's CT of seed 0 to a .npy file; nothing is timed. Raises X2CTError."""
    with closing(Worker(bundle, case)) as worker:
        worker.start(path)
    return path


def _take_turns(bundle: str, rows: Sequence[Row], effort: Effort, say: Say) -> None:
    """Start all rows, then run each of them once a turn, so that background load affects all rows alike."""
    with ExitStack() as stack:
        running: list[tuple[Row, Worker, int]] = []
        for row in rows:
            say(f"{row.label}: starting")
            own = effort.of(row.case)
            with row.noting():
                for _ in range(own.cold - 1):
                    with closing(Worker(bundle, row.case)) as worker:
                        row.add(worker.start())
                worker = stack.enter_context(closing(Worker(bundle, row.case)))
                row.add(worker.start(row.volume))
                for _ in range(own.warmup):
                    row.add(worker.run(0), counts=False)
                running.append((row, worker, own.runs))
        for turn in range(max((runs for _, _, runs in running), default=0)):
            for row, worker, runs in running:
                if not row.error and turn < runs:
                    say(f"{row.label}: run {turn + 1} of {runs}")
                    with row.noting():
                        row.add(worker.run(1 + turn))


def _compare(bundle: str, rows: Sequence[Row], against: Path | None, say: Say) -> None:
    """Set each row's parity; the reference of a task that is no row is computed for it."""
    references: dict[Case, Path | X2CTError | None] = {
        row.case.task: row.volume for row in rows if row.case.is_reference and not row.facts["tiles"]
    }
    for row in rows:
        task = row.case.task
        assert row.volume is not None
        if against is None and task not in references:
            say(f"{row.label}: the f32 reference")
            try:
                references[task] = volume_of(bundle, task, row.volume.with_suffix(".reference.npy"))
            except X2CTError as error:
                references[task] = error
        reference = against or references[task]
        if isinstance(reference, X2CTError):
            row.parity = {"none": str(reference)}
        elif reference is not None:
            row.parity = difference(np.load(row.volume, mmap_mode="r"), np.load(reference, mmap_mode="r"))


def difference(hu: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return the mean, RMS and largest absolute difference of two CTs, in HU."""
    off = np.abs(hu.astype(np.float32) - reference)
    return {
        "mean_abs_hu": float(off.mean(dtype=np.float64)),
        "rms_hu": float(np.sqrt(np.square(off).mean(dtype=np.float64))),
        "max_abs_hu": float(off.max()),
    }
