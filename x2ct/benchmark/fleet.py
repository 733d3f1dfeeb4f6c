"""The parent's side: a process for each case, started, warmed up, and asked for one run at a time in turn."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from x2ct.benchmark.cases import Case, labels
from x2ct.benchmark.machine import clocks
from x2ct.benchmark.stats import Summary
from x2ct.errors import InputError, MemoryLimitError, MissingRuntimeError, X2CTError

Say = Callable[[str], None]
Clocks = dict[str, Any]

_CORE, _PLAIN = "x2ct.benchmark.worker", "x2ct.export.plainloop"
_KINDS = {error.exit_code: error for error in (X2CTError, InputError, MissingRuntimeError, MemoryLimitError)}
_TIMES = ("end_to_end_s", "condition_s", "loop_s")


@dataclass(frozen=True)
class Effort:
    """How often things are measured.

    Attributes:
        runs: of each row, after the warm-up.
        warmup: runs of each row after its first, not counted; the PyTorch loop's first is long enough to be its own.
        cold: processes of each row whose start is timed; the last one goes on to be measured.
        plain_runs: of the PyTorch loop, which takes so much longer; it has one cold start.
        together: start all rows first and let them take turns; otherwise one after another, each alone on the machine.
    """

    runs: int = 10
    warmup: int = 1
    cold: int = 3
    plain_runs: int = 2
    together: bool = True

    def __post_init__(self) -> None:
        for name, least in (("runs", 1), ("warmup", 0), ("cold", 1), ("plain_runs", 1)):
            if getattr(self, name) < least:
                raise InputError.of(
                    f"--{name.replace('_', '-')}", "value", found=getattr(self, name), expected=f"{least} or more"
                )

    def runs_of(self, case: Case) -> int:
        """Counted runs of a row."""
        return self.plain_runs if case.plain else self.runs

    def warmup_of(self, case: Case) -> int:
        """Runs after a row's first that don't count."""
        return 0 if case.plain else self.warmup

    def cold_of(self, case: Case) -> int:
        """Cold starts of a row."""
        return 1 if case.plain else self.cold


class Worker:
    """One case's process."""

    def __init__(self, bundle: str, case: Case) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - close() ends it
        self._bundle, self._case = bundle, case
        self._at = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", _PLAIN if case.plain else _CORE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def start(self, keep: Path | None = None) -> dict[str, Any]:
        """Load, build and run once with seed 0; the CT goes to `keep`. Raises X2CTError."""
        asked = {"do": "start", "bundle": self._bundle, "case": self._case.to_json(), "at": self._at, "seed": 0}
        return self._ask(asked | {"keep": str(keep) if keep else None})

    def run(self, seed: int) -> dict[str, Any]:
        """One run. Raises X2CTError."""
        return self._ask({"do": "run", "seed": seed})

    def close(self) -> None:
        """End the process, and wait until it has ended."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise self._death()
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise _KINDS.get(told["exit_code"], X2CTError)(told["error"])
        return told

    def _death(self) -> X2CTError:
        """What a process that said nothing died of, as far as its last words tell."""
        code = self._process.wait()
        if code == -9:
            return MemoryLimitError("its process was killed, as the system does where memory runs out")
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip().splitlines()
        return X2CTError(f"its process ended with {code}: {words[-1].strip() if words else 'no word'}")


@contextmanager
def _working(bundle: str, case: Case) -> Iterator[Worker]:
    worker = Worker(bundle, case)
    try:
        yield worker
    finally:
        worker.close()


@dataclass
class Row:
    """What a case gave."""

    case: Case
    label: str
    status: str = "measured"
    reason: str = ""
    exit_code: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    cold: list[dict[str, float]] = field(default_factory=list)
    samples: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in (*_TIMES, "evaluation_s")})
    memory: dict[str, int | None] = field(default_factory=dict)
    parity: dict[str, Any] | None = None

    @property
    def measured(self) -> bool:
        """Whether there are figures."""
        return self.status == "measured"

    def fail(self, error: X2CTError) -> None:
        """Take note of why there are none. Wrong use is not noted but raised."""
        if isinstance(error, InputError):
            raise error
        self.status = "missing" if isinstance(error, MissingRuntimeError) else "failed"
        self.reason, self.exit_code = str(error), error.exit_code

    def began(self, told: dict[str, Any]) -> None:
        """One cold start."""
        self.facts = told["facts"]
        self.cold.append({name: told[name] for name in ("start_s", "load_s", "build_s", "first_run_s")})
        self.memory["base_bytes"] = told["base_bytes"]
        self.remember(told)

    def ran(self, told: dict[str, Any]) -> None:
        """One counted run."""
        for name, values in self.samples.items():
            values.append(told[name])
        self.remember(told)

    def remember(self, told: dict[str, Any]) -> None:
        """The memory of the latest run."""
        self.memory |= {name: told[name] for name in ("steady_bytes", "peak_bytes", "device_bytes")}

    def evaluations(self) -> list[float]:
        """All intervals between evaluations; of runs with a single one, that run's loop."""
        between = [value for run in self.samples["evaluation_s"] for value in run]
        return between or list(self.samples["loop_s"])

    def to_json(self) -> dict[str, Any]:
        """As the document has it."""
        if not self.measured:
            return {"label": self.label, "case": self.case.to_json(), "status": self.status, "reason": self.reason}
        end_to_end, evaluation = Summary.of(self.samples["end_to_end_s"]), Summary.of(self.evaluations())
        loop = Summary.of(self.samples["loop_s"])
        return {
            "label": self.label,
            "case": self.case.to_json(),
            "status": self.status,
            "facts": self.facts,
            "cold_start": self.cold,
            "summary": {
                "end_to_end_s": end_to_end.to_json(),
                "evaluation_s": evaluation.to_json(),
                "loop_s": loop.to_json(),
                "condition_s": Summary.of(self.samples["condition_s"]).to_json(),
                "volumes_per_s": self.case.batch / end_to_end.median,
                "evaluations_per_s": self.case.batch * self.facts["evaluations"] / loop.median,
            },
            "memory": self.memory,
            "parity": self.parity,
            "samples": self.samples,
        }


def measure(
    bundle: str, cases: Sequence[Case], effort: Effort, say: Say, parity: bool = True, against: Path | None = None
) -> tuple[list[Row], list[Clocks]]:
    """Measure all cases; and the clocks, read before and after.

    Args:
        bundle: its folder or name.
        cases: the rows.
        effort: how often.
        say: told what is being done.
        parity: compare each row's CT of seed 0 with that of the f32 reference of the same task.
        against: compare with this CT instead.

    Raises:
        InputError: a case that the model can't be asked for.
        X2CTError: not one row could be measured; the first one's error.
    """
    rows = [Row(case, label) for case, label in zip(cases, labels(cases), strict=True)]
    read = [clocks()]
    with tempfile.TemporaryDirectory(prefix="x2ct-bench-") as name:
        kept = {id(row): Path(name) / f"{number}.npy" for number, row in enumerate(rows)} if parity else {}
        for group in [rows] if effort.together else [[row] for row in rows]:
            _rounds(bundle, group, effort, say, kept)
        read.append(clocks())
        if parity:
            _compare(bundle, [row for row in rows if row.measured], kept, Path(name), against, say)
    if not any(row.measured for row in rows):
        raise _KINDS.get(rows[0].exit_code, X2CTError)(f"{rows[0].label}: {rows[0].reason}")
    return rows, read


def volume_of(bundle: str, case: Case, path: Path) -> Path:
    """A case's CT of seed 0, into a .npy file; nothing is timed. Raises X2CTError."""
    with _working(bundle, case) as worker:
        worker.start(path)
    return path


def _rounds(bundle: str, rows: Sequence[Row], effort: Effort, say: Say, kept: dict[int, Path]) -> None:
    with ExitStack() as stack:
        running: dict[int, Worker] = {}
        for row in rows:
            say(f"{row.label}: starting")
            try:
                for _ in range(effort.cold_of(row.case) - 1):
                    with _working(bundle, row.case) as worker:
                        row.began(worker.start())
                worker = stack.enter_context(_working(bundle, row.case))
                row.began(worker.start(kept.get(id(row))))
                for _ in range(effort.warmup_of(row.case)):
                    row.remember(worker.run(0))
            except X2CTError as error:
                row.fail(error)
            else:
                running[id(row)] = worker
        for turn in range(max(effort.runs_of(row.case) for row in rows)):
            for row in rows:
                if not row.measured or turn >= effort.runs_of(row.case):
                    continue
                say(f"{row.label}: run {turn + 1} of {effort.runs_of(row.case)}")
                try:
                    row.ran(running[id(row)].run(1 + turn))
                except X2CTError as error:
                    row.fail(error)


def _compare(
    bundle: str, rows: Sequence[Row], kept: dict[int, Path], folder: Path, against: Path | None, say: Say
) -> None:
    """Each row's parity; the reference of a task that is no row is computed for it."""
    references: dict[Case, Path | X2CTError] = {
        row.case.task: kept[id(row)] for row in rows if row.case.is_reference and row.facts["tiles"] is None
    }
    for row in rows:
        task = row.case.task
        if against is None and task not in references:
            say(f"{row.label}: the f32 reference")
            try:
                references[task] = volume_of(bundle, task, folder / f"reference{len(references)}.npy")
            except X2CTError as error:
                references[task] = error
        found = against or references[task]
        if isinstance(found, X2CTError):
            row.parity = {"none": str(found)}
        elif row.facts["weights"] != "bundle":
            row.parity = {"none": f"its weights are {row.facts['weights']}"}
        else:
            row.parity = difference(np.load(kept[id(row)], mmap_mode="r"), np.load(found, mmap_mode="r"))


def difference(hu: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> dict[str, float]:
    """How far two CTs are from each other, in HU."""
    off = hu.astype(np.float32) - reference
    return {
        "mean_abs_hu": float(np.abs(off).mean(dtype=np.float64)),
        "rms_hu": float(np.sqrt(np.square(off).mean(dtype=np.float64))),
        "max_abs_hu": float(np.abs(off).max()),
    }
