"""What a tuning found: a table, and the bundle that stores it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from x2ct.bundle import Bundle
from x2ct.io import report as reports


@dataclass(frozen=True)
class Row:
    """One number of steps: its noise levels, and how far from the converged solution they end.

    Attributes:
        steps: how many levels.
        sigmas: the tuned levels, falling.
        tuned, untuned: RMS difference over the volumes in % of the HU window, with these levels and with the bundle's
            schedule.
        predicted: what `x2ct.tuning.stepsearch` expected of the levels it found, RMS in the network's unit.
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
        patients: whose X-rays were used.
        samples: seeds a patient.
        shape: the voxels that were sampled, at the grid's centre.
        reference_steps: of the fine trajectory, which is the converged solution.
        rows: one a number of steps.
    """

    solver: str
    schedule: str
    patients: tuple[str, ...]
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


def markdown(tuned: Tuned) -> str:
    """The errors as a table."""
    rows = []
    for row in tuned.rows:
        sigmas = " ".join(f"{sigma:.3g}" for sigma in row.sigmas)
        rows.append((row.steps, f"{row.tuned:.2f}", f"{row.untuned:.2f}", "yes" if row.better else "no", sigmas))
    title = f"{tuned.solver}, RMS difference in % of the HU window from {tuned.reference_steps} steps"
    columns = "steps", "tuned", tuned.schedule, "stored", "tuned sigmas"
    return "\n".join([title, "", *reports.markdown_table(columns, rows)])


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
    return Bundle.write(output, manifest, bundle.contents())
