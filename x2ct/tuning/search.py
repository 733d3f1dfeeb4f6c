"""`tune`: from patients and a model to noise levels, and how far real runs on them end from the converged solution."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.data.shards import Patient, ShardSet
from x2ct.engine.sampler import SampleOptions, Sampler
from x2ct.errors import InputError
from x2ct.geometry.grid import Grid
from x2ct.io import report as reports
from x2ct.tuning.stepsearch import SOLVER, Matrix, Trajectory, descend, shortest

FloatArray = npt.NDArray[np.float32]
Sigmas = tuple[float, ...]
Progress = Callable[[int, int, float], None]

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 16)
FINE = 64
REFINE = 24
VOXELS = 1 << 17  # of the trajectory that errors are measured on, evenly spread: enough for three digits of an RMS
_RUNS_A_LEVEL = 4  # fewer, and Nelder-Mead's simplex has hardly moved


@dataclass(frozen=True)
class Row:
    """One number of steps: the tuned noise levels, falling, and how far from the converged solution they end.

    `tuned` and `untuned` are RMS differences over the volumes in % of the HU window, with these levels and with the
    bundle's schedule; `predicted` is what `x2ct.tuning.stepsearch` expected, RMS in the network's unit.
    """

    steps: int
    sigmas: Sigmas
    tuned: float
    untuned: float
    predicted: float

    @property
    def better(self) -> bool:
        """Return whether the tuned levels are worth storing."""
        return self.tuned < self.untuned


@dataclass(frozen=True)
class Tuned:
    """The result of a tuning: a row for each number of steps, with a solver, beside the bundle's (untuned) schedule.

    Measured on the patients with `samples` seeds each, on `shape` voxels at the grid's centre; the converged solution
    is a trajectory of `reference_steps`.
    """

    solver: str
    schedule: str
    patients: tuple[str, ...]
    samples: int
    shape: tuple[int, int, int]
    reference_steps: int
    rows: tuple[Row, ...]

    def changes(self, bundle: Bundle) -> dict[str, Any]:
        """Return what the bundle stores: the lists that are better, and their solver.

        Other numbers of steps keep their levels and factors, where these are for the same solver.
        """
        own, counts = bundle.diffusion, {row.steps for row in self.rows}
        same = self.solver == own.solver
        others = {steps: sigmas for steps, sigmas in own.schedules.items() if same and steps not in counts}
        scales = {steps: scale for steps, scale in own.deviation_scale.items() if same and steps not in counts}
        schedules = others | {row.steps: row.sigmas for row in self.rows if row.better}
        return {"diffusion": replace(own, solver=self.solver, schedules=schedules, deviation_scale=scales)}

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a report."""
        rows = [{**vars(row), "stored": row.better} for row in self.rows]
        return {**vars(self), "rows": rows, "versions": reports.versions()}


def tune(
    bundle: Bundle,
    shards: ShardSet,
    *,
    counts: Sequence[int] = COUNTS,
    solver: str | None = None,
    samples: int = 1,
    fine: int = FINE,
    refine: int = REFINE,
    shape: tuple[int, int, int] | None = None,
    threads: int = 0,
    progress: Progress = lambda *_: None,
) -> Tuned:
    """Find noise levels on the shards' validation patients, and measure what they are worth there.

    A list of levels is found for each of `counts`, between the bundle's first and last, for `solver` (by default the
    bundle's), from a reference trajectory of `fine` steps of each patient and of `samples` noise seeds, on `shape`
    voxels at the grid's centre (multiples of the model's stride; by default all). So many as `refine` runs of each then
    move the levels by what is measured; lists of more than `refine` / 4 movable levels stay as they were found.
    `threads` are the runtime's, 0 its own choice. `progress` is called with (evaluations done, of how many, sigma); an
    exception from it ends the run. Raises InputError: no validation patients, or an argument that can't be used.
    """
    counts = sorted(set(counts))
    solver, schedule = solver or bundle.diffusion.solver, bundle.diffusion.schedule
    _check(bundle, counts, solver, fine, shape)
    patients = shards.select("validation")
    if not patients:
        raise InputError.of(shards.path, "patients", found="none set aside for validation", expected="at least one")
    moves = {n: refine if 0 < _RUNS_A_LEVEL * (n - 2) <= refine else 0 for n in counts}
    total = fine
    for n in counts:
        plan = _core.sampling_plan(bundle.diffusion, SampleOptions(steps=n, solver=solver))
        total += (2 + moves[n]) * plan.evaluations
    count = counter(progress, len(patients) * samples * total)
    levels = _core.schedule("log-snr", fine, bundle.diffusion.sigma_min, bundle.diffusion.sigma_max)
    studies = Studies(bundle, shape, patients, samples, levels, threads, count)
    trajectory = Trajectory(levels, studies.products)
    ways = shortest(trajectory, counts)

    def row(steps: int) -> Row:
        nearest = trajectory.nearest(_core.schedule(schedule, steps, levels[-1], levels[0]))
        starts = [ways[steps], *([nearest] if nearest else [])]
        predicted, way = min(descend(trajectory, start, solver) for start in starts)
        first = tuple(levels[k] for k in way)
        tuned, sigmas = moved(first, lambda sigmas: studies.error(sigmas, steps, solver), moves[steps])
        untuned = studies.error(schedule, steps, solver)
        return Row(steps, sigmas, tuned, untuned, predicted / len(studies) ** 0.5)

    names = tuple(patient.id for patient in patients)
    return Tuned(solver, schedule, names, samples, studies.shape, fine, tuple(row(steps) for steps in counts))


def counter(progress: Progress, total: int) -> Progress:
    """Return what counts evaluations over several runs; `total` may be off by a few."""
    number = itertools.count(1)

    def count(_: int, __: int, sigma: float) -> None:
        progress(min(next(number), total), total, sigma)

    return count


def _check(bundle: Bundle, counts: Sequence[int], solver: str, fine: int, shape: tuple[int, int, int] | None) -> None:
    names = [info["name"] for info in _core.solvers() if not info["stochastic"]]
    if solver not in names:
        raise InputError.of("--solver", "name", found=repr(solver), expected=" or ".join(names))
    stride, grid = bundle.patch.stride, bundle.grid.shape
    if shape is not None and any(n < 1 or n % stride or n > whole for n, whole in zip(shape, grid, strict=True)):
        expected = f"multiples of {stride}, at most {list(grid)}"
        raise InputError.of("--shape", "voxels", found=list(shape), expected=expected)
    if not 8 <= fine <= 512:
        raise InputError.of("--fine", "value", found=fine, expected="8 to 512")
    for count in counts:
        if not 1 <= count <= fine // 2:
            raise InputError.of("--steps", "value", found=count, expected=f"1 to {fine // 2}, half of the fine steps")


def markdown(tuned: Tuned) -> str:
    """Return the errors as a table."""
    rows = []
    for row in tuned.rows:
        sigmas = " ".join(f"{sigma:.3g}" for sigma in row.sigmas)
        rows.append((row.steps, f"{row.tuned:.2f}", f"{row.untuned:.2f}", "yes" if row.better else "no", sigmas))
    title = f"{tuned.solver}, RMS difference in % of the HU window from {tuned.reference_steps} steps"
    columns = "steps", "tuned", tuned.schedule, "stored", "tuned sigmas"
    return "\n".join([title, "", *reports.markdown_table(columns, rows)])


class Studies:
    """Patients and `samples` noise seeds each, with the converged solution: a fine trajectory on `levels`.

    The X-rays are the bundle's own views, projected from the whole CT; the voxels sampled are `shape` at the grid's
    centre, or all. `progress` is called after each evaluation. `products` are all trajectories' inner products, added
    up, as `Trajectory` takes them.
    """

    def __init__(
        self,
        bundle: Bundle,
        shape: tuple[int, int, int] | None,
        patients: Sequence[Patient],
        samples: int,
        levels: Sequence[float],
        threads: int,
        progress: Progress,
    ) -> None:
        self._bundle, self._threads, self._progress = bundle, threads, progress
        self.shape = shape or bundle.grid.shape
        grid = Grid(self.shape, bundle.grid.spacing_mm)
        self._sampler = Sampler(bundle, precision="f32", threads=threads, grid=grid)
        self._xrays = [patient.xrays(bundle.geometry, threads) for patient in patients]
        self._seeds = range(samples)
        products, self._ends = zip(*(self._fine(seed, levels) for seed in self._each()), strict=True)
        self.products: Matrix = np.sum(products, axis=0)

    def __len__(self) -> int:
        return len(self._xrays) * len(self._seeds)

    def _each(self) -> Iterator[int]:
        """Yield the seeds of one patient after the other, whose X-rays the sampler has been given."""
        for xrays in self._xrays:
            self._sampler.set_xrays(**xrays, force=True)
            yield from self._seeds

    def _fine(self, seed: int, levels: Sequence[float]) -> tuple[Matrix, FloatArray]:
        """Sample with a level after the other; return the trajectory's inner products, and its end in HU.

        Each D is kept on some of the voxels; the states follow from them, as in the core's loop.
        """
        some = slice(None, None, max(1, int(np.prod(self.shape)) // VOXELS) | 1)  # odd: no fixed column of the grid
        denoised: list[Matrix] = []
        x = self._sampler.sample(
            raw=True,
            seed=seed,
            schedule=levels,
            solver=SOLVER,
            progress=self._progress,
            preview=lambda done, total, sigma, volume: denoised.append(volume.hu.ravel()[some].astype(np.float64)),
        ).hu
        noise = _core.normal(self.shape, seed, threads=self._threads).ravel()[some].astype(np.float64)
        table = _core.Table.make(SOLVER, levels)
        states = [table.start_scale * noise]
        for row, now in enumerate(denoised[:-1]):
            y, h0, h1 = (table.rows[row][table.columns.index(name)] for name in ("y.y", "y.H0", "y.H1"))
            states.append(y * states[-1] + h0 * now + (h1 * denoised[row - 1] if row else 0.0))
        both = np.stack([*states, *denoised])
        return np.asarray(both @ both.T / both.shape[1]), self._bundle.intensity.to_hu(x)

    def error(self, schedule: str | Sequence[float], steps: int, solver: str) -> float:
        """Return how far runs on these levels end from the converged solutions: RMS in % of the HU window."""
        options: dict[str, Any] = {"schedule": schedule, "steps": steps, "solver": solver, "progress": self._progress}
        ends = (self._sampler.sample(**options, seed=seed).hu for seed in self._each())
        squares = [np.mean(np.square(end - fine), dtype=np.float64) for end, fine in zip(ends, self._ends, strict=True)]
        low, high = self._bundle.intensity.window_hu
        return float(100 * np.sqrt(np.mean(squares)) / (high - low))


def moved(sigmas: Sigmas, error: Callable[[Sigmas], float], runs: int) -> tuple[float, Sigmas]:
    """Return the least error of so many runs of Nelder and Mead's search in ln sigma, and the levels; the ends stay."""
    tried = {sigmas: error(sigmas)}

    def measured(logs: npt.NDArray[np.float64]) -> float:
        levels = (sigmas[0], *(float(sigma) for sigma in np.exp(logs)), sigmas[-1])
        if any(after >= before for before, after in zip(levels, levels[1:], strict=False)):
            return np.inf
        if levels not in tried:
            tried[levels] = error(levels)
        return tried[levels]

    if runs:
        start = np.log(sigmas[1:-1])
        steps = np.diag(0.25 * (-1.0) ** np.arange(len(start)))
        simplex = np.concatenate([start[None], start + steps])
        minimize(measured, start, method="Nelder-Mead", options={"maxfev": runs, "initial_simplex": simplex})
    best = min(tried, key=lambda levels: tried[levels])
    return tried[best], best
