"""kill -9 for workers of a Ray cluster while they sample: what is lost, what is done twice, whether bits change.

    python benchmarks/ray_lost_worker.py -o benchmarks/results/ray-lost-worker [--rows 16] [--workers 2]

One cohort of the tests' tiny model and a seed of its own for each row is sampled on this machine alone, then once for
each `--kill` on a Ray cluster of this machine, or that of a head that this process has started. A kill takes a worker
that is in the middle of a row. Lost are rows without a finished CT; twice are rows that are written again after they
were finished, or have two lines in summary.csv; the CTs of all rows must be those of this machine alone, bit for bit.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np

from tests import tiny_bundle
from tests.processes import kill_titled
from x2ct.files import atomic
from x2ct.io.report import markdown_table
from x2ct.jobs.cohort import SUMMARY_FILE, sample_cohort
from x2ct.jobs.cohort.ray_engine import connected
from x2ct.jobs.sample import SampleJob

COLUMNS = ("rows", "workers", "killed after rows", "rows begun again", "lost", "twice", "bit-equal")
KILLS = ["2", "6", "12", "2,6,10"]


class Trial:
    """One cohort whose workers are killed after some of its rows."""

    def __init__(self, folder: Path, rows: int, workers: int, kills: list[int]) -> None:
        self.rows, self.workers, self.kills, self._folder = rows, workers, kills, folder
        self._finished: dict[Path, tuple[int, int]] = {}
        self._killers: list[threading.Thread] = []

    def progress(self, done: int, total: int, name: str) -> None:
        """Note the file of a row as it is now, and kill a worker if it is time: soon, while the others go on."""
        path = self._folder / f"{name}.nii.gz"
        if path.exists():
            self._finished[path] = _state(path)
        if done in self.kills:
            self._killers.append(threading.Thread(target=kill_titled, args=("ray::Worker.sample",)))
            self._killers[-1].start()

    def result(self, retries: int, alone: dict[str, bytes]) -> tuple[object, ...]:
        """Return a row of the table, by COLUMNS."""
        with (self._folder / SUMMARY_FILE).open() as stream:
            lines = [line["id"] for line in csv.DictReader(stream) if line["state"] == "done"]
        files = contents(self._folder)
        whole = set(lines) & {name.removesuffix(".nii.gz") for name in files}
        again = sum(_state(path) != state for path, state in self._finished.items())
        twice = again + len(lines) - len(set(lines))
        kills = ", ".join(str(kill) for kill in self.kills)
        equal = "yes" if files == alone else "no"
        return (self.rows, self.workers, kills, retries, self.rows - len(whole), twice, equal)


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


def contents(folder: Path) -> dict[str, bytes]:
    """Return the CTs of a folder."""
    return {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill", action="append", metavar="N[,N...]", help=f"after N finished rows; default {KILLS}")
    parser.add_argument("--steps", type=int, default=60, help="of each row, so that it takes a while")
    args = parser.parse_args()
    cells = []
    with tempfile.TemporaryDirectory() as name, connected(""):
        work = Path(name)
        tiny_bundle.write(work / "tiny.x2ct")
        np.save(work / "a.npy", np.random.default_rng(0).uniform(0, 5, tiny_bundle.DETECTOR).astype(np.float32))
        lines = ["id,ap,seed", *(f"s{row:03d},a.npy,{row}" for row in range(args.rows))]
        (work / "cases.csv").write_text("\n".join(lines) + "\n")

        def job(folder: Path) -> SampleJob:
            return SampleJob(folder, model=str(work / "tiny.x2ct"), threads=1, steps=args.steps, solver="euler")

        sample_cohort(work / "cases.csv", job(work / "alone"))
        for number, kills in enumerate(args.kill or KILLS):
            out = work / f"out{number}"
            trial = Trial(out, args.rows, args.workers, [int(kill) for kill in kills.split(",")])
            cohort = sample_cohort(
                work / "cases.csv", job(out), jobs=args.workers, engine="ray", progress=trial.progress
            )
            retries = sum(outcome.retries for outcome in cohort.outcomes)
            cells.append(trial.result(retries, contents(work / "alone")))
            print(cells[-1], file=sys.stderr, flush=True)
    import ray

    facts = {"ray": ray.__version__, "cpus": os.cpu_count(), "steps": args.steps}
    rows = [dict(zip(COLUMNS, cell, strict=True)) for cell in cells]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_atomically(
        args.output.with_suffix(".json"), (json.dumps(facts | {"rows": rows}, indent=1) + "\n").encode()
    )
    table = markdown_table(COLUMNS, cells, text=0)
    atomic.write_atomically(args.output.with_suffix(".md"), ("\n".join(table) + "\n").encode())
    print("\n".join(table))
    return int(any(row["lost"] or row["twice"] or row["bit-equal"] != "yes" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
