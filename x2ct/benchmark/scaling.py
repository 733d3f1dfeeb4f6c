"""Time and peak memory against voxels, steps, batch and threads: each point in a process of its own, alone.

Each axis varies one thing and leaves the rest as the model has it. Exponents p of y ~ x^p are fitted to the logarithms;
small grids cost what a run costs whatever the grid, so that voxels are fitted from 64^3 on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from x2ct.benchmark.cases import Case
from x2ct.benchmark.fleet import Effort, Row, Say, measure
from x2ct.benchmark.stats import Summary, exponent

SIDES = (32, 64, 96, 128, 192, 256, 512)
STEPS = (1, 2, 4, 8, 16)
BATCH = (1, 2, 4)
LEAST_FITTED = 64**3


def scaling(
    source: str,
    *,
    backend: str,
    precision: str,
    threads: int,
    effort: Effort,
    say: Say,
    sides: Sequence[int] = SIDES,
    memory: int | None = None,
) -> dict[str, Any]:
    """The four axes.

    Args:
        source: the bundle's folder or name.
        backend: of all points.
        precision: likewise.
        threads: where they are not what varies.
        effort: how often a point is measured; points are always alone.
        say: told what is being done.
        sides: of the cubes.
        memory: bytes that a process may take, by which grids are cut into tiles; by default what is free.

    Raises:
        X2CTError: not one point of an axis can be measured.
    """
    base = Case(backend=backend, precision=precision, threads=threads)
    alone = replace(effort, together=False, cold=1)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [2**i for i in range(processors.bit_length()) if 2**i <= processors]
    axes = {
        "voxels": [replace(base, grid=(side,) * 3, steps=2, tiles=memory) for side in sides],
        "steps": [replace(base, steps=steps) for steps in STEPS],
        "batch": [replace(base, batch=batch) for batch in BATCH],
        "threads": [replace(base, threads=count) for count in counts],
    }
    found = {}
    for axis, cases in axes.items():
        rows, _ = measure(source, cases, alone, say, parity=False)
        found[axis] = _axis(axis, rows)
    return {"backend": backend, "precision": precision, "axes": found}


def _axis(axis: str, rows: Sequence[Row]) -> dict[str, Any]:
    points = [_point(axis, row) for row in rows]
    fitted = [p for p in points if p["status"] == "measured" and (axis != "voxels" or p["x"] >= LEAST_FITTED)]
    whole = [point for point in fitted if point["tiles"] is None]
    x = [point["x"] for point in whole]
    return {
        "points": points,
        "exponents": {
            name: exponent(x, [point[name] for point in whole])
            for name in ("loop_s", "condition_s", "peak_bytes", "working_bytes")
        },
        "fitted": x,
    }


def _point(axis: str, row: Row) -> dict[str, Any]:
    case = row.case
    if not row.measured:
        x = _size(case.grid) if axis == "voxels" else getattr(case, axis)
        return {"x": x, "status": row.status, "reason": row.reason}
    x = {"voxels": _size(row.facts["grid"]), "steps": case.steps, "batch": case.batch, "threads": case.threads}[axis]
    loop = Summary.of(row.samples["loop_s"])
    peak, base = row.memory["peak_bytes"], row.memory["base_bytes"]
    return {
        "x": x,
        "status": row.status,
        "grid": row.facts["grid"],
        "evaluations": row.facts["evaluations"],
        "n": loop.n,
        "loop_s": loop.median,
        "condition_s": Summary.of(row.samples["condition_s"]).median,
        "end_to_end_s": Summary.of(row.samples["end_to_end_s"]).median,
        "peak_bytes": peak or 0,
        "working_bytes": (peak or 0) - (base or 0),
        "tiles": row.facts["tiles"],
        "samples": {name: row.samples[name] for name in ("loop_s", "condition_s", "end_to_end_s")},
    }


def _size(grid: Sequence[int] | None) -> int:
    x, y, z = grid or (0, 0, 0)
    return x * y * z
