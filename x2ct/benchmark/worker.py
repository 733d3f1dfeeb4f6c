"""One case in a process of its own: its cold start, runs on request, its memory. `python -m` this module.

The parent (`fleet`) writes one JSON object a line on stdin and reads one a line from what was stdout; whatever else a
runtime prints goes to stderr. A process that measures nothing but its case makes cold start and peak memory the case's
own. `x2ct.export.plainloop` serves the PyTorch loop in the same way.
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
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from x2ct.benchmark.cases import Case
from x2ct.benchmark.machine import device_bytes, resident_bytes
from x2ct.errors import MemoryLimitError, MissingRuntimeError, X2CTError
from x2ct.io import report

DEMO = Path(__file__).resolve().parent.parent / "models" / "demo"
"""The X-ray pair that every row is given; what an evaluation costs does not depend on what X-rays show."""


@dataclass(frozen=True)
class Run:
    """One run, from X-rays in memory to a CT in memory.

    Attributes:
        hu: the CT, float32 [X, Y, Z] in HU, or the mean of a batch.
        condition_s: seconds of it for encoder and lift with their inputs.
        loop_s: seconds of it for the sampling loop.
        evaluation_s: seconds from each evaluation's end to the next's, the element-wise step between included.
        facts: how it was computed, the same for all runs.
        compute_s: seconds in the loop's networks and kernels by the GPU's clock, which no copy and no wait is part of;
            None on a CPU, where the loop is nothing else.
    """

    hu: npt.NDArray[np.float32]
    condition_s: float
    loop_s: float
    evaluation_s: list[float]
    facts: dict[str, Any]
    compute_s: float | None = None


class Subject(Protocol):
    """What a worker measures."""

    def load(self) -> None:
        """Read the bundle and the X-rays."""

    def build(self) -> None:
        """Make the networks ready to run."""

    def run(self, seed: int) -> Run:
        """Compute one CT from the X-rays; nothing is kept from one run to the next."""


class SamplerSubject:
    """The core's sampler in one of its backends."""

    def __init__(self, bundle: str, case: Case) -> None:
        self._name, self._case = bundle, case

    def load(self) -> None:
        """Read the bundle and the X-rays."""
        from x2ct.bundle import Bundle
        from x2ct.io.xray.radiograph import XRay

        self._bundle = Bundle.load(self._name)
        self._xrays = {name: XRay.load(DEMO / f"{name}.npy") for name in ("ap", "lateral")}

    def build(self) -> None:
        """Compile the networks."""
        from x2ct.engine.sampler import Sampler
        from x2ct.geometry.grid import Grid

        case, grid = self._case, self._bundle.grid
        self._sampler = Sampler(
            self._bundle,
            device=case.device,
            backend=case.backend,
            precision=case.precision,
            provider=case.provider,
            threads=case.threads,
            grid=Grid(case.grid, grid.spacing_mm) if case.grid else None,
            memory=case.tiles,
            halo=case.halo,
        )
        self._sampler.compile()

    def run(self, seed: int) -> Run:
        """Sample once, encoder and lift included."""
        case, ends = self._case, list[float]()
        xrays: dict[str, Any] = self._xrays
        done = self._sampler.run(
            **xrays,
            seed=seed,
            steps=case.steps,
            solver=case.solver,
            schedule=case.schedule,
            samples=case.batch,
            progress=lambda *_: ends.append(time.perf_counter()),
        )
        record, timings = done.report, done.report["timings"]
        names = ("device", "backend", "runtime", "solver", "schedule", "evaluations", "tiles")
        facts = {name: record[name] for name in names} | {
            "precision": record["precision"]["denoiser"],
            "grid": record["grid"]["shape"],
            "transfers": transfers(record["device"]),
        }
        evaluation_s = [after - before for before, after in pairwise(ends)]
        in_networks = timings["per_evaluation_s"] * record["evaluations"] * case.batch
        compute_s = in_networks + timings["kernel_s"] * case.batch if "kernel_s" in timings else None
        return Run(done.volume.hu, timings["condition_s"], timings["loop_s"], evaluation_s, facts, compute_s)


def transfers(device: str) -> str:
    """Return which copies between host and device the end-to-end times include."""
    if device == "cpu":
        return "none to make: the networks read and write the host's memory"
    return "included: X-rays come from the host's memory, the CT ends there"


def serve(subject_of: Callable[[str, Case], Subject]) -> None:
    """Answer the parent until it closes stdin."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    subject: Subject | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "start":
                subject = subject_of(request["bundle"], Case.of_json(request["case"]))
                answer = _start(subject, request)
            else:
                assert subject is not None, "a run before its start"
                answer = _run(subject, request)
        except X2CTError as error:
            answer = {"error": str(error), "exit_code": error.exit_code}
        except ModuleNotFoundError as error:
            text = f"{error.name} is not installed: pip install 'x2ct[train]'"
            answer = {"error": text, "exit_code": MissingRuntimeError.exit_code}
        except MemoryError as error:
            answer = {"error": f"out of memory {error}".strip(), "exit_code": MemoryLimitError.exit_code}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _start(subject: Subject, request: dict[str, Any]) -> dict[str, Any]:
    """Load, build and run once; times count from the parent's decision to start a process."""
    began, base = time.monotonic(), resident_bytes()
    subject.load()
    loaded = time.monotonic()
    subject.build()
    built = time.monotonic()
    answer = _run(subject, request)
    return answer | {
        "start_s": began - request["at"],
        "load_s": loaded - began,
        "build_s": built - loaded,
        "first_run_s": answer["end_to_end_s"],
        "base_bytes": base,
    }


def _run(subject: Subject, request: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    run = subject.run(request["seed"])
    end_to_end_s = time.perf_counter() - started
    if request.get("keep"):
        np.save(request["keep"], run.hu)
    return {
        "end_to_end_s": end_to_end_s,
        "condition_s": run.condition_s,
        "loop_s": run.loop_s,
        "compute_s": run.loop_s if run.compute_s is None else run.compute_s,
        "evaluation_s": run.evaluation_s,
        "facts": run.facts,
        "steady_bytes": resident_bytes(),
        "peak_bytes": report.peak_memory_bytes() or None,
        "device_bytes": device_bytes(str(run.facts["device"])),
    }


if __name__ == "__main__":
    serve(SamplerSubject)
