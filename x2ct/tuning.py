"""Noise levels for few evaluations, found on people who are no part of the training, and stored in the bundle.

One fine trajectory a person and seed is the converged solution. `x2ct.stepsearch` finds N of its levels by arithmetic;
where there are runs enough for it, they are then moved to where real runs end closest to the converged solution. That
list and the bundle's schedule are compared, and only lists that did better are stored.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct import report as reports
from x2ct.bundle import Bundle, check_target
from x2ct.data.shards import Person, ShardSet
from x2ct.errors import InputError
from x2ct.geometry import attenuation, project
from x2ct.grid import Grid
from x2ct.intensity import Intensity
from x2ct.output import check_writable
from x2ct.radiograph import XRay
from x2ct.sampler import Sampler
from x2ct.schedules import plan
from x2ct.stepsearch import SOLVER, Trajectory, Way, descend, shortest

FloatArray = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Progress = Callable[[int, int, float], None]
XRays = dict[str, Any]  # XRay by the name of its view

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 16)
FINE = 64
REFINE = 24
_RUNS_A_LEVEL = 4  # fewer, and Nelder-Mead's simplex has hardly moved
VOXELS = 1 << 17  # of the trajectory that errors are measured on, evenly spread: enough for three digits of an RMS
_OPEN = 1e3


@dataclass(frozen=True)
class Row:
    """One number of steps: its noise levels, and how far from the converged solution they end.

    Attributes:
        steps: how many levels.
        sigmas: the tuned levels, falling.
        tuned, untuned: RMS difference over the volumes in % of the HU window, with these levels and with the bundle's
            schedule.
        predicted: what `x2ct.stepsearch` expected of the levels it found, RMS in the network's unit.
    """

    steps: int
    sigmas: tuple[float, ...]
    tuned: float
    untuned: float
    predicted: float

    @property
    def better(self) -> bool:
        """Whether the tuned levels are worth storing."""
        return self.tuned < self.untuned


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Attributes:
        solver: what the levels were found for and the errors measured with.
        schedule: the untuned one: the bundle's.
        people: whose X-rays were used.
        samples: seeds a person.
        shape: the voxels that were sampled, at the grid's centre.
        reference_steps: of the fine trajectory, which is the converged solution.
        rows: one a number of steps.
    """

    solver: str
    schedule: str
    people: tuple[str, ...]
    samples: int
    shape: tuple[int, int, int]
    reference_steps: int
    rows: tuple[Row, ...]

    @property
    def schedules(self) -> dict[int, tuple[float, ...]]:
        """The levels to store, by their number: those that are better than the schedule's."""
        return {row.steps: row.sigmas for row in self.rows if row.better}

    def to_json(self) -> dict[str, Any]:
        """Plain data for a report."""
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
    progress: Progress | None = None,
) -> Tuned:
    """Find noise levels on the shards' validation people, and measure what they are worth there.

    Args:
        bundle: the model, whose first and last levels stay.
        shards: people; those of the training set are never used.
        counts: how many levels, one list for each.
        solver: to find them for; by default the bundle's.
        samples: noise seeds a person.
        fine: steps of the reference trajectory.
        refine: runs (of each person and seed) to move a list's levels by what is measured; lists of more than
            `refine` / 4 movable levels stay as they were found.
        shape: sample only so many voxels at the grid's centre, multiples of the model's stride; by default all.
        threads: of the runtime; 0 leaves it to the runtime.
        progress: called with (evaluations done, of how many, sigma); an exception from it ends the run.

    Raises:
        InputError: nobody to validate on, or an argument that can't be used.
    """
    counts = sorted(set(counts))
    solver, schedule = solver or bundle.diffusion.solver, bundle.diffusion.schedule
    costs = _check(bundle, counts, solver, fine, shape)
    people = shards.select("validation")
    if not people:
        raise InputError.of(shards.path, "people", found="none set aside for validation", expected="at least one")
    runner = Runner(bundle, shape, threads)
    seeds = range(samples)
    runs_of = {n: refine if 0 < _RUNS_A_LEVEL * (n - 2) <= refine else 0 for n in counts}
    evaluations = sum((2 + runs_of[n]) * cost for n, cost in costs.items())
    count = _counter(progress, len(people) * samples * (fine + evaluations))

    levels = _core.schedule("log-snr", fine, bundle.diffusion.sigma_min, bundle.diffusion.sigma_max)
    studies = [(runner.xrays(person), seed) for person in people for seed in seeds]
    runs = [runner.fine(xrays, seed, levels, count) for xrays, seed in studies]
    trajectory = Trajectory(levels, sum((run.products() for run in runs), np.zeros((2 * fine, 2 * fine))))
    ways = shortest(trajectory, counts)

    def best(steps: int) -> tuple[float, Way]:
        untuned = trajectory.nearest(_core.schedule(schedule, steps, levels[-1], levels[0]))
        starts = [ways[steps], *([untuned] if untuned else [])]
        return min(descend(trajectory, start, solver) for start in starts)

    def error(sigmas: str | Sequence[float], steps: int) -> float:
        squares = [
            np.mean(np.square(runner.sample(xrays, seed, sigmas, steps, solver, count) - run.end), dtype=np.float64)
            for (xrays, seed), run in zip(studies, runs, strict=True)
        ]
        low, high = bundle.intensity.window_hu
        return float(100 * np.sqrt(np.mean(squares)) / (high - low))

    def row(steps: int) -> Row:
        predicted, way = best(steps)
        found = tuple(levels[k] for k in way)
        tuned, sigmas = _moved(found, lambda sigmas: error(sigmas, steps), runs_of[steps])
        return Row(steps, sigmas, tuned, error(schedule, steps), predicted / len(studies) ** 0.5)

    names = tuple(person.id for person in people)
    return Tuned(solver, schedule, names, samples, runner.shape, fine, tuple(row(steps) for steps in counts))


def tune_files(
    bundle: str | os.PathLike[str],
    shards: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    report: str | os.PathLike[str] | None = None,
    counts: Sequence[int] | None = None,
    **options: Any,
) -> Tuned:
    """Open, `tune`, and write the bundle with what was found; and a report, if asked for.

    Raises:
        InputError: as `tune`; the bundle or shards can't be opened, or an output can't be written. Nothing is written.
    """
    check_target(Path(output))
    if report is not None:
        check_writable(report, (".json",))
    opened = Bundle.load(Path(bundle))
    tuned = tune(opened, ShardSet.open(shards), counts=counts or COUNTS, **options)
    store(tuned, opened, output)
    if report is not None:
        reports.write_json(tuned.to_json(), report)
    return tuned


def markdown(tuned: Tuned) -> str:
    """The errors as a table."""
    lines = [
        f"{tuned.solver}, RMS difference in % of the HU window from {tuned.reference_steps} steps",
        "",
        f"| steps | tuned | {tuned.schedule} | stored | tuned sigmas |",
        "|---|---|---|---|---|",
    ]
    for row in tuned.rows:
        sigmas = " ".join(f"{sigma:.3g}" for sigma in row.sigmas)
        lines.append(
            f"| {row.steps} | {row.tuned:.2f} | {row.untuned:.2f} | {'yes' if row.better else 'no'} | {sigmas} |"
        )
    return "\n".join(lines)


def store(tuned: Tuned, bundle: Bundle, output: str | os.PathLike[str]) -> Bundle:
    """Write the bundle with the tuned levels and their solver, whole or not at all.

    Other numbers of steps keep their levels, where these are for the same solver.

    Raises:
        InputError: the output can't be written.
    """
    measured = {row.steps for row in tuned.rows}
    kept = {n: sigmas for n, sigmas in bundle.diffusion.schedules.items() if n not in measured}
    if tuned.solver != bundle.diffusion.solver:
        kept = {}
    diffusion = replace(bundle.diffusion, solver=tuned.solver, schedules={**kept, **tuned.schedules})
    manifest = replace(bundle, diffusion=diffusion)
    return Bundle.write(output, manifest, {name: (bundle.path / name).read_bytes() for name in bundle.files})


# ---------------------------------------------------------------------------------------------- trajectories


@dataclass(frozen=True)
class Fine:
    """A fine solution: x and D at each level on some of the voxels, float64 [levels, voxels], and its end in HU."""

    states: Matrix
    denoised: Matrix
    end: FloatArray

    def products(self) -> Matrix:
        """Inner products (means over the voxels) of all states and then all denoised, [2 levels, 2 levels]."""
        both = np.concatenate([self.states, self.denoised])
        return np.asarray(both @ both.T / both.shape[1])


class Runner:
    """A model that samples in the network's unit, perhaps on the middle of its grid only."""

    def __init__(self, bundle: Bundle, shape: tuple[int, int, int] | None, threads: int) -> None:
        self.bundle, self.threads = bundle, threads
        self.shape = shape or bundle.grid.shape
        # An intensity map that changes nothing, and clips nothing that a network says.
        as_it_is = Intensity((-_OPEN, _OPEN), (-_OPEN, _OPEN))
        middle = replace(bundle, grid=Grid(self.shape, bundle.grid.spacing_mm), intensity=as_it_is)
        self.sampler = Sampler(middle, precision="f32", threads=threads)

    def xrays(self, person: Person) -> XRays:
        """The bundle's own views of a person, projected from the whole CT."""
        mu = attenuation(person.hu())
        return {
            view.name: XRay(
                image=project(mu, person.index_to_mm, view, self.threads),
                calibrated=True,
                spacing_mm=view.spacing_mm,
                source=person.id,
                view=view.name,
            )
            for view in self.bundle.geometry.views
        }

    def sample(
        self, xrays: XRays, seed: int, schedule: str | Sequence[float], steps: int, solver: str, progress: Progress
    ) -> FloatArray:
        """One sample in HU, float32 [X, Y, Z]."""
        options: dict[str, Any] = {"schedule": schedule, "steps": steps, "solver": solver, "seed": seed}
        return self.bundle.intensity.to_hu(self.sampler.sample(**xrays, **options, progress=progress).hu)

    def fine(self, xrays: XRays, seed: int, levels: Sequence[float], progress: Progress) -> Fine:
        """Sample with a level after the other, and keep each D; the states follow from them, as in the core's loop."""
        some = slice(None, None, max(1, int(np.prod(self.shape)) // VOXELS) | 1)  # odd: no fixed column of the grid
        denoised: list[Matrix] = []
        x = self.sampler.sample(
            **xrays,
            seed=seed,
            schedule=levels,
            solver=SOLVER,
            progress=progress,
            preview=lambda done, total, sigma, volume: denoised.append(volume.hu.ravel()[some].astype(np.float64)),
        ).hu
        noise = _core.normal(self.shape, seed, threads=self.threads).ravel()[some].astype(np.float64)
        table = _core.Table.make(SOLVER, levels)
        states = [table.start_scale * noise]
        for row, now in enumerate(denoised[:-1]):
            y, h0, h1 = (table.rows[row][table.columns.index(name)] for name in ("y.y", "y.H0", "y.H1"))
            states.append(y * states[-1] + h0 * now + (h1 * denoised[row - 1] if row else 0.0))
        return Fine(np.stack(states), np.stack(denoised), self.bundle.intensity.to_hu(x))


def _moved(
    sigmas: tuple[float, ...], error: Callable[[tuple[float, ...]], float], runs: int
) -> tuple[float, tuple[float, ...]]:
    """Nelder and Mead's search in ln sigma about a list whose ends stay: the least error of so many runs, and where."""
    tried = {sigmas: error(sigmas)}

    def measured(logs: Matrix) -> float:
        moved = (sigmas[0], *(float(sigma) for sigma in np.exp(logs)), sigmas[-1])
        if any(after >= before for before, after in zip(moved, moved[1:], strict=False)):
            return np.inf
        if moved not in tried:
            tried[moved] = error(moved)
        return tried[moved]

    if runs:
        from scipy.optimize import minimize

        start = np.log(sigmas[1:-1])
        steps = np.diag(0.25 * (-1.0) ** np.arange(len(start)))
        simplex = np.concatenate([start[None], start + steps])
        minimize(measured, start, method="Nelder-Mead", options={"maxfev": runs, "initial_simplex": simplex})
    best = min(tried, key=lambda moved: tried[moved])
    return tried[best], best


def _check(
    bundle: Bundle, counts: Sequence[int], solver: str, fine: int, shape: tuple[int, int, int] | None
) -> dict[int, int]:
    """The evaluations of a run with each count, if all can be run."""
    known = [info["name"] for info in _core.solvers() if not info["stochastic"]]
    if solver not in known:
        raise InputError.of("--solver", "name", found=repr(solver), expected=" or ".join(known))
    stride, grid = bundle.patch.stride, bundle.grid.shape
    if shape is not None and any(n < 1 or n % stride or n > whole for n, whole in zip(shape, grid, strict=True)):
        raise InputError.of(
            "--shape", "voxels", found=list(shape), expected=f"multiples of {stride}, at most {list(grid)}"
        )
    if not 8 <= fine <= 512:
        raise InputError.of("--fine", "value", found=fine, expected="8 to 512")
    for count in counts:
        if not 1 <= count <= fine // 2:
            raise InputError.of("--steps", "value", found=count, expected=f"1 to {fine // 2}, half of the fine steps")
    return {n: plan(bundle.diffusion, steps=n, solver=solver).table.evaluations for n in counts}


def _counter(progress: Progress | None, total: int) -> Progress:
    """Counts evaluations over several runs; `total` may be off by a few."""
    done = itertools.count(1)

    def count(_: int, __: int, sigma: float) -> None:
        if progress is not None:
            progress(min(next(done), total), total, sigma)

    return count
