"""Real runs of a model on patients, and how far from the converged solution they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.data.shards import Patient
from x2ct.engine.sampler import Sampler
from x2ct.geometry.grid import Grid
from x2ct.render.drr import calibrated_views
from x2ct.tuning.stepsearch import SOLVER

FloatArray = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Progress = Callable[[int, int, float], None]
XRays = dict[str, Any]  # XRay by the name of its view

VOXELS = 1 << 17  # of the trajectory that errors are measured on, evenly spread: enough for three digits of an RMS


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
    """A model that samples, perhaps on the middle of its grid only."""

    def __init__(self, bundle: Bundle, shape: tuple[int, int, int] | None, threads: int) -> None:
        self.bundle, self.threads = bundle, threads
        self.shape = shape or bundle.grid.shape
        grid = Grid(self.shape, bundle.grid.spacing_mm)
        self.sampler = Sampler(bundle, precision="f32", threads=threads, grid=grid)

    def xrays(self, patient: Patient) -> XRays:
        """The bundle's own views of a patient, projected from the whole CT."""
        geometry = self.bundle.geometry
        return calibrated_views(patient.hu(), patient.index_to_mm, geometry, patient.id, self.threads)

    def sample(
        self, seed: int, schedule: str | Sequence[float], steps: int, solver: str, progress: Progress
    ) -> FloatArray:
        """Return one sample of the X-rays that the sampler was given last, float32 [X, Y, Z] in HU."""
        options: dict[str, Any] = {"schedule": schedule, "steps": steps, "solver": solver, "seed": seed}
        return self.sampler.sample(**options, progress=progress).hu

    def fine(self, seed: int, levels: Sequence[float], progress: Progress) -> Fine:
        """Sample with a level after the other, and keep each D; the states follow from them, as in the core's loop."""
        some = slice(None, None, max(1, int(np.prod(self.shape)) // VOXELS) | 1)  # odd: no fixed column of the grid
        denoised: list[Matrix] = []
        x = self.sampler.sample(
            raw=True,
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


class Studies:
    """Patients and noise seeds, each with its converged solution.

    Args:
        runner: what samples.
        patients: whose X-rays.
        samples: seeds a patient.
        levels: of the fine trajectory.
        progress: called after each evaluation, of these runs and of all that follow.
    """

    def __init__(
        self, runner: Runner, patients: Sequence[Patient], samples: int, levels: Sequence[float], progress: Progress
    ) -> None:
        self._runner, self._progress = runner, progress
        self._xrays = [runner.xrays(patient) for patient in patients]
        self._seeds = range(samples)
        self._runs = [runner.fine(seed, levels, progress) for seed in self._each()]

    def __len__(self) -> int:
        return len(self._xrays) * len(self._seeds)

    def _each(self) -> Iterator[int]:
        """Yield the seeds of one patient after the other, whose X-rays the sampler has been given."""
        for xrays in self._xrays:
            self._runner.sampler.set_xrays(**xrays, force=True)
            yield from self._seeds

    def products(self) -> Matrix:
        """The sum of all trajectories' inner products; see `Fine.products`."""
        return np.asarray(np.sum([run.products() for run in self._runs], axis=0))

    def error(self, sigmas: str | Sequence[float], steps: int, solver: str) -> float:
        """How far runs on these levels end from the converged solutions: RMS in % of the HU window."""
        squares = [
            np.mean(
                np.square(self._runner.sample(seed, sigmas, steps, solver, self._progress) - run.end), dtype=np.float64
            )
            for seed, run in zip(self._each(), self._runs, strict=True)
        ]
        low, high = self._runner.bundle.intensity.window_hu
        return float(100 * np.sqrt(np.mean(squares)) / (high - low))
