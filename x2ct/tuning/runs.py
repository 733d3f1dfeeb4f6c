"""Real runs of a model on patients, and how far from the converged solution they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

VOXELS = 1 << 17  # of the trajectory that errors are measured on, evenly spread: enough for three digits of an RMS


class Studies:
    """Patients and noise seeds, each with its converged solution.

    Args:
        bundle: the model.
        shape: voxels to sample, at the grid's centre; None for all.
        patients: whose X-rays: the bundle's own views, projected from the whole CT.
        samples: seeds a patient.
        levels: of the fine trajectory.
        threads: of the runtime.
        progress: called after each evaluation, of these runs and of all that follow.
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
        self._xrays: list[dict[str, Any]] = [
            calibrated_views(patient.hu(), patient.index_to_mm, bundle.geometry, patient.id, threads)
            for patient in patients
        ]
        self._seeds = range(samples)
        products, self._ends = zip(*(self._fine(seed, levels) for seed in self._each()), strict=True)
        self.products: Matrix = np.sum(products, axis=0)
        """All trajectories' inner products, added up; see `_fine`."""

    def __len__(self) -> int:
        return len(self._xrays) * len(self._seeds)

    def _each(self) -> Iterator[int]:
        """Yield the seeds of one patient after the other, whose X-rays the sampler has been given."""
        for xrays in self._xrays:
            self._sampler.set_xrays(**xrays, force=True)
            yield from self._seeds

    def _fine(self, seed: int, levels: Sequence[float]) -> tuple[Matrix, FloatArray]:
        """Sample with a level after the other; return what `Trajectory` takes as products, and the end in HU.

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
