"""Each runtime that is here, sampling the same volume from the same seed; times side by side from one run.

    x2ct export chest --format torchscript --format aoti      # once: what torch runs
    python benchmarks/runtimes.py chest -o benchmarks/results/runtimes-cpu

Rows take turns, round by round, so that the machine's mood falls on all of them; medians and spreads over the rounds,
after one round that warms up and is not counted. Differences are to the first row's volume, in HU. A row whose volume
is farther away than its bound ends the benchmark with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np

import x2ct
from x2ct.errors import MissingRuntimeError
from x2ct.io.report import markdown_table

DEMO = Path(x2ct.__file__).resolve().parent / "models" / "demo"
Row = tuple[str, str, str]
ROWS: tuple[Row, ...] = (
    ("openvino", "", "f32"),
    ("onnxruntime", "", "f32"),
    ("torch", "torchscript", "f32"),
    ("torch", "aoti", "f32"),
    ("openvino", "", "bf16"),
)
"""Backend, what of it, and precision."""
BOUND_HU = {"f32": 0.5, "bf16": 5.0}
"""Mean absolute difference of a whole sample: f32 differs by the order of sums, bf16 by rounding."""


def main() -> None:
    """Print the table and write it as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("-n", "--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    table = measure(args.bundle, args.rounds, args.threads)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(table))
    print(markdown(table))
    far = [row for row in table["rows"] if row["mean_abs_difference_hu"] > row["bound_hu"]]
    if far:
        sys.exit(f"runtimes.py: {far[0]['runtime']}: farther from the first row than its bound")


def measure(bundle: str, rounds: int, threads: int) -> dict[str, Any]:
    xrays = {name: x2ct.XRay.load(DEMO / f"{name}.npy") for name in ("ap", "lateral")}
    samplers: dict[Row, x2ct.Sampler] = {}
    first: dict[Row, x2ct.Result] = {}
    missing = {}
    for row in ROWS:
        try:
            sampler = x2ct.Sampler(bundle, backend=row[0], provider=row[1], precision=row[2], threads=threads)
            sampler.set_xrays(**xrays)
            first[row] = sampler.run(seed=0)
            samplers[row] = sampler
        except MissingRuntimeError as error:
            missing[" ".join(filter(None, row))] = str(error)
    times: dict[Row, list[dict[str, Any]]] = {row: [] for row in samplers}
    for number in range(rounds):
        for row, sampler in samplers.items():
            times[row].append(sampler.run(seed=1 + number).report["timings"])
    reference = next(iter(first.values())).volume.hu
    report = next(iter(first.values())).report
    return {
        "grid": report["grid"]["shape"],
        "model": report["model"]["sha256"],
        "solver": report["solver"],
        "evaluations": report["evaluations"],
        "threads": threads,
        "rounds": rounds,
        "rows": [entry(row, first[row], times[row], reference) for row in samplers],
        "missing": missing,
    }


def entry(row: Row, first: x2ct.Result, times: list[dict[str, Any]], reference: np.ndarray) -> dict[str, Any]:
    away = np.abs(first.volume.hu - reference)
    seconds = [one["per_evaluation_s"] for one in times]
    return {
        "runtime": " ".join(filter(None, (row[0], first.report["runtime"], *row[1:]))),
        "per_evaluation_s": round(statistics.median(seconds), 4),
        "min_s": round(min(seconds), 4),
        "max_s": round(max(seconds), 4),
        "compile_s": round(first.report["timings"]["compile_s"], 3),
        "condition_s": round(first.report["timings"]["condition_s"], 3),
        "mean_abs_difference_hu": round(float(away.mean()), 4),
        "max_abs_difference_hu": round(float(away.max()), 2),
        "bound_hu": BOUND_HU[row[2]],
    }


def markdown(table: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    fastest = table["rows"][0]["per_evaluation_s"]
    lines = [
        f"Grid {table['grid']}, {table['solver']}, {table['evaluations']} evaluations, {table['threads']} threads; "
        f"medians of {table['rounds']}.",
        "",
    ]
    columns = ["runtime", "s per evaluation", "min to max", "times the first", "compile s", "condition s"]
    rows = []
    for row in table["rows"]:
        times = f"{row['per_evaluation_s']:.3f}", f"{row['min_s']:.3f} to {row['max_s']:.3f}"
        starts = f"{row['per_evaluation_s'] / fastest:.2f}", f"{row['compile_s']:.2f}", f"{row['condition_s']:.2f}"
        apart = f"{row['mean_abs_difference_hu']:.4f}", f"{row['max_abs_difference_hu']:.2f}", f"{row['bound_hu']:g}"
        rows.append((row["runtime"], *times, *starts, *apart))
    lines += markdown_table([*columns, "mean HU apart", "max", "bound"], rows)
    lines += [f"\nMissing: {name}: {reason}" for name, reason in table["missing"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
