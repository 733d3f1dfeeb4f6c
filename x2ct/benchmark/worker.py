"""One case in a process of its own: its cold start, runs on request, its memory. `python -m` this module.

The parent (`fleet`) writes one JSON object a line on stdin and reads one a line from what was stdout; whatever else a
runtime prints goes to stderr. `x2ct.export.plainloop` serves the PyTorch loop in the same way.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from x2ct.benchmark.cases import Case
from x2ct.errors import MemoryLimitError, MissingRuntimeError, X2CTError
from x2ct.io import report
from x2ct.runtimes.machine import device_bytes, resident_bytes

DEMO = Path(__file__).resolve().parent.parent / "models" / "demo"
"""The X-ray pair of every row: what an evaluation costs does not depend on what X-rays show."""

TRANSFERS = {
    "cpu": "none to make: the networks read and write the host's memory",
    "cuda": "included: X-rays come from the host's memory, the CT ends there",
}
"""Which copies between host and device the end-to-end times include, by the kind of device."""


@dataclass(frozen=True)
class Run:
    """One run, from X-rays in memory to a CT in memory; times in seconds."""

    hu: npt.NDArray[np.float32]  # [X, Y, Z] in HU, or the mean of a batch
    condition_s: float  # of encoder and lift, with their inputs
    loop_s: float  # of the sampling loop
    evaluation_s: list[float]  # from each evaluation's end to the next's, the element-wise step between included
    facts: dict[str, Any]  # how it was computed, the same for all runs
    compute_s: float | None = None  # of the loop's networks and kernels by the GPU's clock; on a CPU it is `loop_s`


class Subject:
    """The sampler that a worker measures: the core's in one of its backends; subclasses measure others."""

    def __init__(self, bundle: str, case: Case) -> None:
        self._name, self._case = bundle, case

    def load(self) -> None:
        """Read the bundle and the X-rays."""
        from x2ct.bundle import Bundle
        from x2ct.io.xray.radiograph import XRay

        self._bundle = Bundle.load(self._name)
        self._xrays: dict[str, Any] = {name: XRay.load(DEMO / f"{name}.npy") for name in ("ap", "lateral")}

    def build(self) -> None:
        """Make the networks ready to run."""
        from x2ct.engine.sampler import Sampler
        from x2ct.geometry.grid import Grid

        case = self._case
        own = Grid(case.grid, self._bundle.grid.spacing_mm) if case.grid else None
        names = ("device", "backend", "precision", "provider", "threads", "halo")
        options: dict[str, Any] = {name: getattr(case, name) for name in names}
        self._sampler = Sampler(self._bundle, grid=own, memory=case.tiles, **options)
        self._sampler.compile()

    def run(self, seed: int) -> Run:
        """Compute one CT from the X-rays, without comparing the two; nothing is kept from one run to the next."""
        case, batch, ends = self._case, self._case.batch, list[float]()
        options: dict[str, Any] = {"seed": seed, "steps": case.steps, "solver": case.solver, "schedule": case.schedule}
        options |= {"samples": batch, "residual": False, "progress": lambda *_: ends.append(time.perf_counter())}
        result = self._sampler.run(**self._xrays, **options)
        record, timings = result.report, result.report["timings"]
        names = ("device", "backend", "runtime", "solver", "schedule", "evaluations", "tiles")
        facts = {name: record[name] for name in names} | {
            "precision": record["precision"]["denoiser"],
            "grid": record["grid"]["shape"],
            "transfers": TRANSFERS[record["device"].partition(":")[0]],
        }
        evaluation_s = [after - before for before, after in pairwise(ends)]
        in_networks = timings["per_evaluation_s"] * record["evaluations"] * batch
        compute_s = in_networks + timings["kernel_s"] * batch if "kernel_s" in timings else None
        return Run(result.volume.hu, timings["condition_s"], timings["loop_s"], evaluation_s, facts, compute_s)


def serve(subject_of: Callable[[str, Case], Subject]) -> None:
    """Answer the parent until it closes stdin."""
    answers = os.fdopen(os.dup(1), "w", 1, encoding="utf-8")
    os.dup2(2, 1)
    subject: Subject | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if subject is None:
                subject = subject_of(request["bundle"], msgspec.convert(request["case"], Case))
                answer = _start(subject, request)
            else:
                answer = _run(subject, request)
        except X2CTError as error:
            answer = {"error": str(error), "exit_code": error.exit_code}
        except ModuleNotFoundError as error:
            text = f"{error.name} is not installed: pip install 'x2ct[train]'"
            answer = {"error": text, "exit_code": MissingRuntimeError.exit_code}
        except MemoryError as error:
            answer = {"error": f"out of memory {error}".strip(), "exit_code": MemoryLimitError.exit_code}
        answers.write(json.dumps(answer) + "\n")


def _start(subject: Subject, request: dict[str, Any]) -> dict[str, Any]:
    """Load, build and run once; times count from the parent's decision to start a process."""
    clock, base = [request["at"], time.monotonic()], resident_bytes()
    for step in (subject.load, subject.build):
        step()
        clock.append(time.monotonic())
    seconds = zip(("start_s", "load_s", "build_s"), (b - a for a, b in pairwise(clock)), strict=True)
    answer = _run(subject, request)
    return answer | dict(seconds) | {"first_run_s": answer["end_to_end_s"], "base_bytes": base}


def _run(subject: Subject, request: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    run = subject.run(request["seed"])
    end_to_end_s = time.perf_counter() - started
    if request.get("keep"):
        np.save(request["keep"], run.hu)
    times = {name: value for name, value in vars(run).items() if name != "hu"}
    return times | {
        "end_to_end_s": end_to_end_s,
        "compute_s": run.loop_s if run.compute_s is None else run.compute_s,
        "steady_bytes": resident_bytes(),
        "peak_bytes": report.peak_memory_bytes() or None,
        "device_bytes": device_bytes(str(run.facts["device"])),
    }


if __name__ == "__main__":
    serve(Subject)
