"""What it would gain to evaluate several samples at once: the denoiser at batch 1, 2 and 4, in one process, in turn.

    python benchmarks/batch.py chest -o benchmarks/results/batch

`--samples K` takes one sample after the other. The denoiser's graph leaves the batch free, so this can be measured:
each round evaluates every batch once, in a changing order, and what counts is the time per sample, of batch B against
that of batch 1. A batch's samples differ, and each must come out as it does alone. Exit code 1 if one doesn't.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np

import x2ct
from x2ct import _core
from x2ct.benchmark.stats import Summary, ratio
from x2ct.errors import MissingRuntimeError
from x2ct.io.report import markdown_table
from x2ct.runtimes.discovery import choose
from x2ct.runtimes.machine import environment

SIDES = (32, 64, 128)
PRECISIONS = ("f32", "bf16")
BATCHES = (1, 2, 4)
WORTH = 0.05
"""A gain from which on it would be worth the memory of a second sample."""
LEAST_ROUNDS = 5
BOUND = {"f32": 1e-4, "bf16": 0.05}
"""Of the largest difference between a sample in a batch and the same alone, in the network's unit."""


def main() -> int:
    """Print the table and write it as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("-o", "--output", type=Path, help="path without suffix")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--seconds", type=float, default=20, help="of measuring, for each grid and precision")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    table = measure(asked.bundle, asked.sides, asked.seconds, asked.threads)
    print(markdown(table))
    if asked.output:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
        asked.output.with_suffix(".md").write_text(markdown(table))
    return 1 if any(row["max_difference"] > BOUND[row["precision"]] for row in table["rows"]) else 0


def measure(name: str, sides: Sequence[int], seconds: float, threads: int) -> dict[str, Any]:
    """Every grid in every precision that is here."""
    bundle = x2ct.Bundle.load(name)
    rows: list[dict[str, Any]] = []
    missing = {}
    for precision in PRECISIONS:
        for side in sides:
            try:
                rows += _rows(bundle, (side,) * 3, precision, seconds, threads)
            except MissingRuntimeError as error:
                missing[precision] = str(error)
    return {"environment": environment(threads), "model": bundle.checksum, "rows": rows, "missing": missing}


def _rows(
    bundle: x2ct.Bundle, grid: tuple[int, int, int], precision: str, seconds: float, threads: int
) -> list[dict[str, Any]]:
    given = {batch: _inputs(bundle, grid, batch) for batch in BATCHES}
    networks = {batch: _network(bundle, precision, threads, given[batch]) for batch in BATCHES}
    made = {batch: networks[batch](given[batch])["denoised"] for batch in BATCHES}  # warms up, too
    spent: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(spent[1]) < LEAST_ROUNDS:
        first = len(spent[1]) % len(BATCHES)
        for batch in (*BATCHES[first:], *BATCHES[:first]):
            started = time.perf_counter()
            networks[batch](given[batch])
            spent[batch].append((time.perf_counter() - started) / batch)
    return [
        {
            "grid": list(grid),
            "precision": precision,
            "batch": batch,
            "per_sample_s": vars(Summary.of(spent[batch])),
            "of_batch_1": vars(ratio(spent[batch], spent[1])),
            "max_difference": float(np.abs(made[batch] - made[BATCHES[-1]][:batch]).max()),
        }
        for batch in BATCHES
    ]


def _inputs(bundle: x2ct.Bundle, grid: tuple[int, int, int], batch: int) -> dict[str, np.ndarray]:
    """Return the inputs of the first samples of one row; conditions are a sample's own here, as the graph has it."""
    sizes = dict(zip("XYZ", grid, strict=True)) | {"N": batch}
    inputs = {}
    for number, tensor in enumerate(bundle.networks.denoiser.inputs):
        shape = [_extent(axis, sizes) for axis in tensor.shape]
        random = [np.random.default_rng((number, sample)) for sample in range(batch)]
        each = [one.standard_normal(shape[1:], np.float32) for one in random]
        inputs[tensor.name] = np.ascontiguousarray(np.stack(each), np.float32)
    inputs["sigma"] = np.ones(batch, np.float32)
    return inputs


def _extent(axis: int | str, sizes: dict[str, int]) -> int:
    """Return the length of an axis as a bundle declares it: 96, "N", "X/4"."""
    if isinstance(axis, int):
        return axis
    letter, _, factor = axis.partition("/")
    return sizes[letter] // int(factor or 1)


def _network(bundle: x2ct.Bundle, precision: str, threads: int, inputs: dict[str, np.ndarray]) -> _core.Network:
    choice = choose("cpu", "openvino", precision)
    return _core.Network(
        str(bundle.path / bundle.networks.denoiser.file),
        "openvino",
        "cpu",
        precision,
        threads,
        {name: array.shape for name, array in inputs.items()},
        choice.runtime_dir,
    )


def markdown(table: dict[str, Any]) -> str:
    """Return the table and its verdict as Markdown."""
    where, rows = table["environment"], table["rows"]
    gains = [row for row in rows if row["batch"] > 1 and row["of_batch_1"]["high"] < 1 - WORTH]
    verdict = "; ".join(f"{_size(row)} {row['precision']} at batch {row['batch']}" for row in gains) or "nowhere"
    lines = [
        f"{where['processor']}, {where['threads']} threads. An evaluation's time per sample, against that of batch 1 "
        "in the same rounds, with a 95% interval; the largest difference of a sample from the same in another batch, "
        "in the network's unit.",
        "",
        f"A batch takes at least {100 * WORTH:g}% less, beyond the interval: {verdict}.",
        "",
    ]
    columns = "grid", "precision", "batch", "n", "ms per sample", "CV", "of batch 1", "interval", "largest difference"
    cells = []
    for row in rows:
        time_, of = row["per_sample_s"], row["of_batch_1"]
        spread = "-" if time_["cv"] is None else f"{100 * time_['cv']:.1f}%"
        interval = "-" if row["batch"] == 1 else f"{of['low']:.3f} to {of['high']:.3f}"
        facts = _size(row), row["precision"], row["batch"], time_["n"], f"{1e3 * time_['median']:.2f}"
        cells.append((*facts, spread, f"{of['value']:.3f}", interval, f"{row['max_difference']:.2g}"))
    lines += markdown_table(columns, cells)
    lines += [f"\nMissing: {precision}: {reason}" for precision, reason in table["missing"].items()]
    return "\n".join(lines) + "\n"


def _size(row: dict[str, Any]) -> str:
    return " x ".join(map(str, row["grid"]))


if __name__ == "__main__":
    sys.exit(main())
