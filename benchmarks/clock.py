"""Training by the clock: runs of a few lengths end at their minutes, with the learning rate at zero.

    python benchmarks/clock.py SHARDS -o benchmarks/results/clock
    python benchmarks/clock.py SHARDS --minutes 1 -o build/clock

The network, the grid and the options are those of the tests, small enough for one thread; the patients are those of the
shards. One run after another, each new. How many steps a run takes depends on the machine and on what else it does;
that the rate ends at zero must not. The exit code is 1 where a run ends before its minutes, more than a step after
them, or with another rate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import torch

from tests import tiny_run
from x2ct.data import ShardSet
from x2ct.files import atomic
from x2ct.io import report
from x2ct.training import TrainConfig, train
from x2ct.training.monitor import HISTORY_FILE

CONFIG = dataclasses.replace(
    TrainConfig.from_json(tiny_run.CONFIG),
    refresh=32,
    validate_every=100,
    checkpoint_every=100,
)


def measure(shards: ShardSet, run: Path, minutes: float, threads: int) -> dict[str, Any]:
    """Train a new run for so many minutes; return its steps, times in seconds, learning rate at the end and losses."""
    config = dataclasses.replace(CONFIG, steps=0, minutes=minutes)
    ends = [time.monotonic()]
    result = train(
        shards, run, config, device="cpu", threads=threads, progress=lambda *_: ends.append(time.monotonic())
    )
    losses = [json.loads(line)["loss"] for line in (run / HISTORY_FILE).read_text().splitlines()]
    share = config.optim.share(result.steps, config.progress(result.steps, result.seconds))
    return {
        "minutes": minutes,
        "steps": result.steps,
        "asked_s": 60 * minutes,
        "trained_s": result.seconds,
        "last_step_s": ends[-1] - ends[-2],
        "call_s": time.monotonic() - ends[0],
        "rate": config.optim.rate * share,
        "validations": len(losses),
        "best_loss": min(losses),
        "last_loss": losses[-1],
    }


def ends_right(row: dict[str, Any]) -> bool:
    """Return whether a run took its minutes, at most a step more, and ended with a rate of zero."""
    over = row["trained_s"] - row["asked_s"]
    return 0 <= over <= row["last_step_s"] and row["rate"] == 0


def markdown(result: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    columns: dict[str, Callable[[dict[str, Any]], object]] = {
        "minutes": lambda row: f"{row['minutes']:g}",
        "steps": lambda row: row["steps"],
        "training s": lambda row: f"{row['trained_s']:.2f}",
        "beyond its minutes s": lambda row: f"{row['trained_s'] - row['asked_s']:.2f}",
        "rate at the end": lambda row: f"{row['rate']:g}",
        "best validation loss": lambda row: f"{row['best_loss']:.4f}",
        "last validation loss": lambda row: f"{row['last_loss']:.4f}",
    }
    rows = [[value(row) for value in columns.values()] for row in result["rows"]]
    heading = (
        f"A tiny network trained by the clock on {result['patients']} patients, {result['threads']} thread(s), PyTorch "
        f"{result['torch']}. The rate at the end is the one that a further step would have."
    )
    return "\n".join([heading, "", *report.markdown_table(columns, rows)]) + "\n"


def main() -> int:
    """Train, write and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("--minutes", type=float, nargs="+", default=[3.0, 10.0, 30.0], help="length of each run")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    shards = dataclasses.replace(ShardSet.open(options.shards), grid=tiny_run.GRID)
    patients = sum(patient.region in CONFIG.regions for patient in shards.select("train"))
    result: dict[str, Any] = {"torch": torch.__version__, "threads": options.threads, "patients": patients, "rows": []}
    for minutes in options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            result["rows"].append(measure(shards, Path(folder) / "run", minutes, options.threads))
        print(json.dumps(result["rows"][-1]), file=sys.stderr, flush=True)
        report.write_json(result, options.output.with_suffix(".json"))
        atomic.write_atomically(options.output.with_suffix(".md"), markdown(result).encode())
    print(markdown(result), end="")
    return 0 if all(map(ends_right, result["rows"])) else 1


if __name__ == "__main__":
    sys.exit(main())
