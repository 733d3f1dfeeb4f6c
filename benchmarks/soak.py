"""Many runs of one sampler on a small volume, or of many kinds: memory must stay flat.

    python benchmarks/soak.py [--runs 1000] [-o benchmarks/results/soak]
    python benchmarks/soak.py --mixed --runs 500 -o benchmarks/results/soak-mixed
    python benchmarks/soak.py --mixed --runs 100 --leak 256      # must fail: each run leaves 256 KiB behind

Every run has another seed; every tenth another pair of X-rays, so that encoder and lift run again; every seventh draws
previews; every thirteenth is cancelled, and every seventeenth ends by an exception from its callback. Resident memory
is read after every tenth of the runs; what counts is its growth from the first such reading to the highest later one.

A mixed soak draws for each run, from a fixed seed, one of the samplers (of several grids, one of them in tiles), a
solver, steps, one view or two, consistency, several samples, and a cancellation or an exception. Before a reading each
sampler runs what it ran before the first one, so that the same things are there, and must give the same bytes.

What a program has freed, malloc may keep for its next use: after a mixed run that is up to a few dozen MiB, more or
less with each run's sizes. So memory is read twice, as it is and after malloc has been told to give back what is free,
and neither may grow. What is leaked is not free and can't be given back. Huge pages are off meanwhile: whether the
kernel has any to give changes from moment to moment, and with them the memory resident for the same volumes, in steps
of 2 MiB.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import x2ct
from x2ct import _core
from x2ct.geometry.grid import Grid

_PR_SET_THP_DISABLE = 41  # linux/prctl.h
LIMIT = 0.02
TILED_BYTES = 382 << 20
"""A budget that the largest grid does not fit whole, and most solvers in tiles of another size."""
WARM_STEPS = 4
"""With so many, each solver keeps all the volumes that it ever will."""


class EnoughError(Exception):
    """A callback raises it to end a run."""


def resident_bytes() -> int:
    """Return the process's resident memory, as the kernel counts it now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmRSS")


def give_back_freed() -> None:
    """Let malloc return what the program has freed; only glibc's has to be told."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def without_huge_pages() -> None:
    """For this process from now on; only Linux has to be told."""
    ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def xrays(sampler: x2ct.Sampler, seed: int) -> dict[str, x2ct.XRay]:
    shape, random = sampler.bundle.xray.shape, np.random.default_rng(seed)
    return {name: x2ct.XRay.of(random.uniform(0, 6, shape).astype(np.float32)) for name in ("ap", "lateral")}


def one_run(sampler: x2ct.Sampler, study: dict[str, x2ct.XRay], number: int) -> None:
    """Do one run; its number decides its kind."""
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
    """Return an image of a small ball of water in air, which every grid contains, as consistency wants it."""
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
        grid = Grid((stride * 8, stride * 8, stride * 32), spacing)
        self.samplers.append(x2ct.Sampler(bundle, threads=threads, grid=grid, halo=stride, memory=TILED_BYTES))
        self.chance = np.random.default_rng(0)
        self.study = {name: x2ct.XRay.of(_ball(bundle.xray.shape)) for name in ("ap", "lateral")}
        self.kinds = {"done": 0, "cancelled": 0, "ended by an exception": 0, "refused": 0}

    def warm_up(self) -> None:
        """Run all kinds, after which each sampler has had all the memory that it ever will."""
        for sampler in self.samplers:
            for solver in _core.solvers():
                sampler.sample(**self.study, solver=solver["name"], steps=WARM_STEPS)
            sampler.sample(**self.study, samples=2, consistency="last")
        if self.samplers[-1].run(**self.study).report["tiles"] is None:
            raise SystemExit("soak: found the whole of the largest grid within its budget, expected tiles")
        self.known = self.again()

    def again(self) -> list[str]:
        """Repeat one run of each sampler; return the checksums of the results."""
        volumes = (sampler.sample(**self.study, seed=1).hu for sampler in self.samplers)
        return [hashlib.sha256(hu.tobytes()).hexdigest() for hu in volumes]

    def run(self, number: int) -> None:
        """Do one run, of a kind drawn by chance."""
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


def soak_mixed(mixed: Mixed, runs: int, leak: int = 0) -> tuple[list[int], list[int]]:
    """Resident bytes after each tenth of the runs, and with what malloc keeps; `leak` is each run's."""
    readings, with_freed = [], []
    leaked = []
    mixed.warm_up()
    for number in range(runs):
        mixed.run(number)
        leaked.append(b"x" * leak)
        if (number + 1) % (runs // 10) == 0:
            if mixed.again() != mixed.known:
                raise SystemExit(f"after run {number}: another result than before for the same study and seed")
            with_freed.append(resident_bytes())
            give_back_freed()
            readings.append(resident_bytes())
    return readings, with_freed


def growth(readings: list[int]) -> float:
    """From the first reading to the highest later one, as a share of the first."""
    return max(readings[1:]) / readings[0] - 1


def _mib(readings: list[int]) -> list[float]:
    return [round(reading / 2**20, 2) for reading in readings]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--mixed", action="store_true", help="runs of all kinds")
    parser.add_argument("--leak", type=int, default=0, metavar="KIB", help="a leak in each mixed run, to see it found")
    parser.add_argument("--size", type=int, default=32, help="voxels along each axis")
    parser.add_argument("--model", default="chest")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="also write NAME.json")
    asked = parser.parse_args()
    without_huge_pages()
    bundle = x2ct.Bundle.load(asked.model)
    started = time.perf_counter()
    found: dict[str, Any] = {"runs": asked.runs, "model": bundle.checksum}
    if asked.mixed:
        mixed = Mixed(asked.model, asked.threads)
        readings, with_freed = soak_mixed(mixed, asked.runs, asked.leak << 10)
        found |= {"grids": [list(one.grid.shape) for one in mixed.samplers], "kinds": mixed.kinds}
        found |= {"rss_with_freed_mib": _mib(with_freed)}
        counted = [readings, with_freed]
    else:
        grid = Grid((asked.size,) * 3, bundle.grid.spacing_mm)
        readings = soak(x2ct.Sampler(replace(bundle, grid=grid), threads=asked.threads), asked.runs)
        found |= {"grid": list(grid.shape)}
        counted = [readings]
    found |= {
        "rss_mib": _mib(readings),
        "growth": round(max(growth(one) for one in counted), 5),
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
