"""How near a sampler ends to the solution that all samplers converge to, beside the time that it took.

The solution is that of many evaluations in f32, for one noise; two solvers' distance from each other says how far it
can be trusted. EDM's defaults are the yardstick: the fewest evaluations of ours that end as near or nearer are what
speeds are compared at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from x2ct.benchmark.cases import EDM, Case
from x2ct.benchmark.fleet import Effort, Row, Say, difference, measure, volume_of
from x2ct.benchmark.stats import Summary
from x2ct.bundle import Bundle

SOLVER, SCHEDULE = "unipc-2", "log-snr"
"""Ours beside the model's own: the best of benchmarks/solvers.py on the validation person."""

STEPS = (6, 8, 12, 16)
FINE = 64

_CONVERGED: dict[str, Any] = {"solver": "unipc-3", "schedule": "log-snr"}
_CHECK: dict[str, Any] = {"solver": "dpmpp-2m", "schedule": "log-snr"}


def agreement(
    bundle: Bundle,
    source: str,
    *,
    grid: tuple[int, int, int] | None,
    threads: int,
    effort: Effort,
    say: Say,
    steps: Sequence[int] = STEPS,
    fine: int = FINE,
) -> dict[str, Any]:
    """Errors in % of the HU window and times, for EDM's defaults and for ours.

    Args:
        bundle: the model, opened.
        source: its folder or name, for the processes.
        grid: voxels; by default the model's.
        threads: of the runtimes.
        effort: how often the rows are timed.
        say: told what is being done.
        steps: evaluations of ours to try, beside the model's own.
        fine: evaluations of the converged solution.

    Raises:
        X2CTError: a row can't be measured.
    """
    base = Case(backend="openvino", precision="f32", grid=grid, threads=threads)
    own: dict[str, Any] = {"solver": bundle.diffusion.solver, "schedule": None, "steps": bundle.diffusion.steps}
    ours: list[dict[str, Any]] = [own, *({"solver": SOLVER, "schedule": SCHEDULE, "steps": count} for count in steps)]
    # EDM's and the model's own in f32 too: what the solver costs in agreement, and what the precision does.
    cases = [replace(base, **EDM), replace(base, **own), *(replace(base, precision="auto", **one) for one in ours)]
    cases = list(dict.fromkeys(cases))
    with TemporaryDirectory(prefix="x2ct-agree-") as name:
        say("the converged solution")
        converged = volume_of(source, replace(base, steps=fine, **_CONVERGED), Path(name) / "converged.npy")
        check = volume_of(source, replace(base, steps=fine, **_CHECK), Path(name) / "check.npy")
        low, high = bundle.intensity.window_hu

        def percent(rms_hu: float) -> float:
            return 100 * rms_hu / (high - low)

        rows, _ = measure(source, cases, effort, say, against=Path(name) / "converged.npy")
        found = [_row(row, percent) for row in rows if row.measured]
        apart = percent(difference(np.load(check), np.load(converged))["rms_hu"])
    yardstick = found[0]["error_percent"]
    near = [row for row in found[1:] if row["error_percent"] <= yardstick]
    return {
        "converged": {**_CONVERGED, "evaluations": fine},
        "check": {**_CHECK, "evaluations": fine, "apart_percent": apart},
        "rows": found,
        "as_near_as_edm": min(near, key=lambda row: float(row["end_to_end_s"])) if near else None,
    }


def _row(row: Row, percent: Any) -> dict[str, Any]:
    assert row.parity is not None
    return {
        "solver": row.facts["solver"],
        "schedule": row.facts["schedule"],
        "precision": row.facts["precision"],
        "evaluations": row.facts["evaluations"],
        "error_percent": percent(row.parity["rms_hu"]),
        "end_to_end_s": Summary.of(row.samples["end_to_end_s"]).median,
        "loop_s": Summary.of(row.samples["loop_s"]).median,
    }
