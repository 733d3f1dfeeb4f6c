"""Many runs of one sampler on a small volume: memory must stay flat.

    python benchmarks/soak.py [--runs 1000] [-o benchmarks/results/soak]

Every run has another seed; every tenth another pair of X-rays, so that encoder and lift run again; every seventh draws
previews; every thirteenth is cancelled, and every seventeenth ends by an exception from its callback. Resident memory
is read after every tenth of the runs; what counts is its growth from the first such reading to the highest later one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

import x2ct
from x2ct.grid import Grid

LIMIT = 0.02


class EnoughError(Exception):
    """What a callback ends a run with."""


def resident_bytes() -> int:
    """The process's resident memory, as the kernel counts it now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmRSS")


def xrays(sampler: x2ct.Sampler, seed: int) -> dict[str, x2ct.XRay]:
    shape, random = sampler.bundle.xray.shape, np.random.default_rng(seed)
    return {name: x2ct.XRay.of(random.uniform(0, 6, shape).astype(np.float32)) for name in ("ap", "lateral")}


def one_run(sampler: x2ct.Sampler, study: dict[str, x2ct.XRay], number: int) -> None:
    """The run of this number, whatever it is that it does."""
    token = x2ct.CancelToken()
    progress: Callable[[int, int, float], None] | None = None
    if number % 13 == 12:

        def progress(done: int, total: int, sigma: float) -> None:
            token.cancel()

    elif number % 17 == 16:

        def progress(done: int, total: int, sigma: float) -> None:
            raise EnoughError

    preview = (lambda done, total, sigma, ct: None) if number % 7 == 6 else None
    with suppress(x2ct.Cancelled, EnoughError):
        sampler.sample(**study, seed=number, progress=progress, preview=preview, cancel=token)


def soak(sampler: x2ct.Sampler, runs: int) -> list[int]:
    """Resident bytes after each tenth of the runs."""
    readings = []
    study: dict[str, x2ct.XRay] = {}
    for number in range(runs):
        if number % 10 == 0:
            study = xrays(sampler, number)
        one_run(sampler, study, number)
        if (number + 1) % (runs // 10) == 0:
            readings.append(resident_bytes())
    return readings


def growth(readings: list[int]) -> float:
    """From the first reading to the highest later one, as a share of the first."""
    return max(readings[1:]) / readings[0] - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--size", type=int, default=32, help="voxels along each axis")
    parser.add_argument("--model", default="chest")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="also write NAME.json")
    asked = parser.parse_args()
    bundle = x2ct.Bundle.load(asked.model)
    small = replace(bundle, grid=Grid((asked.size,) * 3, bundle.grid.spacing_mm))
    started = time.perf_counter()
    readings = soak(x2ct.Sampler(small, threads=asked.threads), asked.runs)
    found = {
        "runs": asked.runs,
        "grid": [asked.size] * 3,
        "model": bundle.checksum,
        "rss_mib": [round(reading / 2**20, 2) for reading in readings],
        "growth": round(growth(readings), 5),
        "limit": LIMIT,
        "seconds": round(time.perf_counter() - started, 1),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if asked.output:
        asked.output.with_suffix(".json").write_text(text + "\n")
    return 0 if found["growth"] <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
