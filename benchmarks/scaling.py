"""Time and peak memory against voxels, steps, batch and threads: each point in a process of its own, alone.

    python benchmarks/scaling.py chest --threads 2 -o benchmarks/results/scaling
    python benchmarks/scaling.py chest --side 64 128 --memory 6GiB

Each axis varies one thing and leaves the rest as the model has it. Exponents p of y ~ x^p are fitted to the logarithms
of the points without tiles, for voxels from 64^3 on, because small grids take the same time whatever their size. There
is no parity beside these points: they compute what the rows of `x2ct bench` do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np

from x2ct.benchmark import document
from x2ct.benchmark.cases import Case
from x2ct.benchmark.document import mib, ms, page
from x2ct.benchmark.fleet import Effort, Row, Say, measure
from x2ct.bundle import Bundle
from x2ct.io.report import Table
from x2ct.runtimes.discovery import parse_bytes

SIDES = (32, 64, 96, 128, 192, 256, 512)
STEPS = (1, 2, 4, 8, 16)
BATCH = (1, 2, 4)
LEAST_FITTED = 64**3

_FITTED = {"loop_s": "loop", "condition_s": "encoder and lift", "peak_bytes": "peak memory"}
_FITTED |= {"working_bytes": "peak less what the process begins with"}
_UNITS: dict[str, Callable[[float], str]] = {
    "voxels": lambda x: f"{round(x ** (1 / 3))}^3" if round(x ** (1 / 3)) ** 3 == x else f"{x:g}",
}


def main() -> None:
    """Print the tables and write them as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="chest")
    parser.add_argument("-o", "--output", type=Path, help="NAME: writes NAME.json and NAME.md")
    parser.add_argument("--side", type=int, nargs="+", default=SIDES, help="of the cubes, in voxels")
    parser.add_argument(
        "--memory", type=parse_bytes, help="a process may take so much; larger grids are cut into tiles"
    )
    parser.add_argument("-n", "--runs", type=int, default=2, help="of each point")
    parser.add_argument(
        "--threads", type=int, default=0, help="where they are not what varies; 0 leaves it to the runtime"
    )
    options = parser.parse_args()
    session = document.Session(Bundle.load(options.bundle), options.threads)
    base = Case(threads=options.threads)
    effort = Effort(runs=options.runs, warmup=0, cold=1, together=False)
    figures = {"axes": scaling(options.bundle, base, effort, print, sides=options.side, memory=options.memory)}
    figures = session.facts() | figures
    if options.output:
        document.write(figures, markdown(figures), options.output)
    print(markdown(figures))


def scaling(
    source: str, base: Case, effort: Effort, say: Say, *, sides: Sequence[int] = SIDES, memory: int | None = None
) -> dict[str, Any]:
    """Measure the four axes.

    Args:
        source: the bundle's folder or name.
        base: backend, precision and threads of all points.
        effort: how often a point is measured.
        say: is called with a line on what is being done.
        sides: of the cubes, in voxels.
        memory: bytes that a process may take, by which grids are cut into tiles; by default what is free.

    Raises:
        X2CTError: not one point of an axis can be measured.
    """
    processors = len(os.sched_getaffinity(0))
    threads = [2**i for i in range(processors.bit_length()) if 2**i <= processors]
    axes = {
        "voxels": [replace(base, grid=(side,) * 3, steps=2, tiles=memory) for side in sides],
        "steps": [replace(base, steps=steps) for steps in STEPS],
        "batch": [replace(base, batch=batch) for batch in BATCH],
        "threads": [replace(base, threads=count) for count in threads],
    }
    return {axis: _axis(axis, measure(source, cases, effort, say, parity=False)[0]) for axis, cases in axes.items()}


def _axis(axis: str, rows: Sequence[Row]) -> dict[str, Any]:
    points = [_point(axis, row) for row in rows]
    fitted = [p for p in points if p["status"] == "measured" and (axis != "voxels" or p["x"] >= LEAST_FITTED)]
    whole = [point for point in fitted if point["tiles"] is None]
    x = [point["x"] for point in whole]
    exponents = {name: exponent(x, [point[name] for point in whole]) for name in _FITTED}
    return {"points": points, "exponents": exponents, "fitted": x}


def _point(axis: str, row: Row) -> dict[str, Any]:
    case = row.case
    x = prod(case.grid or (0,)) if axis == "voxels" else getattr(case, axis)
    if row.error:
        return {"x": x, "status": row.status, "reason": str(row.error)}
    peak, base = row.memory["peak_bytes"] or 0, row.memory["base_bytes"] or 0
    times = ("loop_s", "condition_s", "end_to_end_s")
    return {
        "x": x,
        "status": row.status,
        "grid": row.facts["grid"],
        "evaluations": row.facts["evaluations"],
        "n": len(row.samples["loop_s"]),
        **{name: row.median(name) for name in times},
        "peak_bytes": peak,
        "working_bytes": peak - base,
        "tiles": row.facts["tiles"],
        "samples": {name: row.samples[name] for name in times},
    }


def exponent(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return p of y ~ x^p, by least squares of the logarithms; None of fewer than two different x."""
    if len(set(x)) < 2 or min(*x, *y) <= 0:
        return None
    return float(np.polyfit(np.log(np.asarray(x, np.float64)), np.log(np.asarray(y, np.float64)), 1)[0])


def markdown(figures: dict[str, Any]) -> str:
    """Return the figures as a page of Markdown."""
    return page("scaling", figures, tables(figures))


def tables(result: dict[str, Any]) -> list[Table]:
    """Return a table for each axis."""
    return [_table(axis, points) for axis, points in result["axes"].items()]


def _table(axis: str, result: dict[str, Any]) -> Table:
    rows = []
    for point in result["points"]:
        x = _UNITS.get(axis, str)(point["x"])
        if point["status"] != "measured":
            rows.append([x, point["status"], point["reason"], *["-"] * 5])
            continue
        cut = point["tiles"]
        tiles = " x ".join(map(str, cut["count"])) + " of " + " x ".join(map(str, cut["shape"])) if cut else "whole"
        times = (point["loop_s"], point["loop_s"] / point["evaluations"], point["condition_s"], point["end_to_end_s"])
        rows.append([x, str(point["n"]), tiles, *(ms(value) for value in times), mib(point["peak_bytes"])])
    exponents = {name: value for name, value in result["exponents"].items() if value is not None}
    fits = "; ".join(f"{_FITTED[name]} ~ {axis}^{round(value, 2) + 0.0:.2f}" for name, value in exponents.items())
    notes = [
        "Each point in a process of its own; medians. "
        + (f"Fitted over {len(result['fitted'])} points without tiles: {fits}." if fits else "Too few points to fit.")
    ]
    columns = [axis, "n", "tiles", "loop ms", "per evaluation", "encoder and lift", "end to end", "peak MiB"]
    return Table(f"Scaling with {axis}", columns, rows, notes)


if __name__ == "__main__":
    main()
