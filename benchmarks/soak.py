"""Many runs of one sampler on a small volume, or of many kinds: memory must stay flat.

    python benchmarks/soak.py [--runs 1000] [-o benchmarks/results/soak]
    python benchmarks/soak.py --mixed --runs 500 -o benchmarks/results/soak-mixed

Every run has another seed; every tenth another pair of X-rays, so that encoder and lift run again; every seventh draws
previews; every thirteenth is cancelled, and every seventeenth ends by an exception from its callback. Resident memory
is read after every tenth of the runs; what counts is its growth from the first such reading to the highest later one.

A mixed soak draws for each run, from a fixed seed, one of the samplers (of several grids, one of them in tiles), a
solver, steps, one view or two, consistency, several samples, and a cancellation or an exception. Every twentieth run is
the same one, whose bytes may never change.
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
from x2ct import _core
from x2ct.grid import Grid

LIMIT = 0.02
TILED_BYTES = 360 << 20


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


def _ball(shape: tuple[int, int]) -> np.ndarray:
    """A small ball of water in air, which every grid contains, as consistency wants it."""
    rows, columns = (np.arange(size) - (size - 1) / 2 for size in shape)
    inside = np.maximum(0, 100 - rows[:, None] ** 2 - columns[None, :] ** 2)
    return (0.05 * np.sqrt(inside)).astype(np.float32)


class Mixed:
    """Runs of all kinds on samplers of several grids, and one that is repeated to see that nothing has changed."""

    def __init__(self, model: str, threads: int) -> None:
        bundle = x2ct.Bundle.load(model)
        stride, spacing = bundle.patch.stride, bundle.grid.spacing_mm
        shapes = [(stride * a, stride * b, stride * c) for a, b, c in ((2, 2, 2), (3, 2, 4), (4, 4, 2))]
        self.samplers = [x2ct.Sampler(bundle, threads=threads, grid=Grid(shape, spacing)) for shape in shapes]
        # Tiles: a budget that the whole of this grid does not fit.
        grid = Grid((stride * 12,) * 3, spacing)
        self.samplers.append(x2ct.Sampler(bundle, threads=threads, grid=grid, halo=stride, memory=TILED_BYTES))
        self.chance = np.random.default_rng(0)
        self.study = {name: x2ct.XRay.of(_ball(bundle.xray.shape)) for name in ("ap", "lateral")}
        for sampler in self.samplers:
            sampler.sample(**self.study)  # so that memory is read with all of them there
        self.first = b""
        self.kinds = {"done": 0, "cancelled": 0, "ended by an exception": 0, "refused": 0}

    def run(self, number: int) -> None:
        """The run of this number."""
        if number % 20 == 0:
            again = self.samplers[0].sample(**self.study, seed=1).hu.tobytes()
            self.first = self.first or again
            if again != self.first:
                raise SystemExit(f"run {number}: another result than before for the same study and seed")
        chance, study, token = self.chance, dict(self.study), x2ct.CancelToken()
        sampler = self.samplers[int(chance.integers(len(self.samplers)))]
        end, last = chance.choice(["go on", "go on", "cancel", "raise"]), int(chance.integers(1, 4))
        if chance.random() < 0.3:
            study.pop("lateral")

        def progress(done: int, total: int, sigma: float) -> None:
            if done >= last and end == "cancel":
                token.cancel()
            elif done >= last and end == "raise":
                raise EnoughError

        try:
            volume = sampler.sample(
                **study,
                seed=int(chance.integers(2**40)),
                solver=str(chance.choice([solver["name"] for solver in _core.solvers()])),
                steps=int(chance.integers(1, 7)),
                samples=int(chance.choice([1, 1, 2])),
                consistency=str(chance.choice(["off", "off", "last"])),
                progress=progress,
                cancel=token,
            )
            self.kinds["done"] += 1
            if not np.isfinite(volume.hu).all():
                raise SystemExit(f"run {number}: a volume that is not finite")
        except x2ct.Cancelled:
            self.kinds["cancelled"] += 1
        except EnoughError:
            self.kinds["ended by an exception"] += 1
        except x2ct.InputError:  # consistency has no ray to go by on noise
            self.kinds["refused"] += 1


def soak_mixed(mixed: Mixed, runs: int) -> list[int]:
    """Resident bytes after each tenth of the runs."""
    readings = []
    for number in range(runs):
        mixed.run(number)
        if (number + 1) % (runs // 10) == 0:
            readings.append(resident_bytes())
    return readings


def growth(readings: list[int]) -> float:
    """From the first reading to the highest later one, as a share of the first."""
    return max(readings[1:]) / readings[0] - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--mixed", action="store_true", help="runs of all kinds")
    parser.add_argument("--size", type=int, default=32, help="voxels along each axis")
    parser.add_argument("--model", default="chest")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="also write NAME.json")
    asked = parser.parse_args()
    bundle = x2ct.Bundle.load(asked.model)
    small = replace(bundle, grid=Grid((asked.size,) * 3, bundle.grid.spacing_mm))
    started = time.perf_counter()
    mixed = Mixed(asked.model, asked.threads) if asked.mixed else None
    sampler = x2ct.Sampler(small, threads=asked.threads)
    readings = soak_mixed(mixed, asked.runs) if mixed else soak(sampler, asked.runs)
    found = {
        "runs": asked.runs,
        "grid": [list(one.grid.shape) for one in mixed.samplers] if mixed else [asked.size] * 3,
        "kinds": mixed.kinds if mixed else {},
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
