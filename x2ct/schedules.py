"""Which noise levels a run visits and which solver takes it there, compiled to the core's table.

The levels are those that `x2ct tune` found for this number of steps, where the bundle has them and nobody asks for
others; else a schedule that the core knows by name; or a list of one's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from x2ct import _core
from x2ct.bundle import Diffusion
from x2ct.errors import InputError

MAX_STEPS = 1000
TUNED = "tuned"


@dataclass(frozen=True)
class Plan:
    """What the core's loop is to run, and what the report says about it.

    Attributes:
        table: the coefficients, one row an evaluation.
        mean: whether it is the posterior mean, one evaluation.
        solver: its name.
        schedule: "tuned", the name of one of the core's, "explicit", or "posterior mean".
        sigmas: the noise levels, falling, in the network's unit; the final 0 is not among them.
        churn: Heun's S_churn.
    """

    table: _core.Table
    mean: bool
    solver: str
    schedule: str
    sigmas: tuple[float, ...]
    churn: float = 0.0

    def facts(self) -> dict[str, Any]:
        """The report's fields."""
        return {
            "mean": self.mean,
            "solver": self.solver,
            "schedule": self.schedule,
            "steps": len(self.sigmas),
            "evaluations": self.table.evaluations,
            "sigmas": list(self.sigmas),
            "churn": self.churn,
        }


def plan(
    diffusion: Diffusion,
    *,
    steps: int | None = None,
    solver: str | None = None,
    schedule: str | Sequence[float] | None = None,
    mean: bool = False,
    churn: float = 0.0,
) -> Plan:
    """Compile what was asked for; what was not is the bundle's.

    Args:
        diffusion: what the bundle says about sampling.
        steps: noise levels to visit.
        solver: one of the core's.
        schedule: "tuned", one of the core's, or falling noise levels, the final 0 left out. By default the tuned list
            for this number of steps, or the bundle's schedule where there is none.
        mean: the posterior mean, in place of all this.
        churn: how much noise Heun adds again on the way, S_churn of Karras et al. 2022; 0 for none.

    Raises:
        InputError: an unknown name, a number of steps that can't be had, or one option contradicts another.
    """
    if mean:
        return _posterior_mean(diffusion, steps, solver, schedule, churn or None)
    solver = solver or diffusion.solver
    known = {entry["name"]: entry for entry in _core.solvers()}
    if solver not in known:
        raise InputError.unknown("--solver", "name", found=solver, known=known)
    if schedule is not None and not isinstance(schedule, str):
        name, sigmas = "explicit", [float(sigma) for sigma in schedule]
        if steps not in (None, len(sigmas)):
            raise InputError.of("--steps", "value", found=steps, expected=f"{len(sigmas)}, as many as noise levels")
    else:
        name, sigmas = _levels(diffusion, diffusion.steps if steps is None else steps, schedule)
    time = _core.time_of(name) if known[solver]["timed"] else "sigma"
    return Plan(_core.Table.make(solver, sigmas, churn=churn, time=time), False, solver, name, tuple(sigmas), churn)


def _levels(diffusion: Diffusion, steps: int, schedule: str | None) -> tuple[str, list[float]]:
    """The schedule's name, and its noise levels."""
    if not 1 <= steps <= MAX_STEPS:
        raise InputError.of("--steps", "value", found=steps, expected=f"1 to {MAX_STEPS}")
    tuned = diffusion.schedules.get(steps)
    if tuned is not None and schedule in (None, TUNED):
        return TUNED, list(tuned)
    if schedule == TUNED:
        counts = ", ".join(map(str, sorted(diffusion.schedules))) or "no number of steps"
        expected = f"a number of steps that the model is tuned for: {counts}"
        raise InputError.of("--schedule", "tuned", found=f"--steps {steps}", expected=expected, hint="run x2ct tune")
    name = schedule or diffusion.schedule
    if name not in _core.schedules():
        raise InputError.unknown("--schedule", "name", found=name, known=[TUNED, *_core.schedules()])
    return name, _core.schedule(name, steps, diffusion.sigma_min, diffusion.sigma_max)


def _posterior_mean(diffusion: Diffusion, *others: object) -> Plan:
    if any(other is not None for other in others):
        raise InputError.of(
            "--mean", "options", found="steps, a solver, a schedule or churn", expected="none, it is one evaluation"
        )
    # One Euler step from sigma_max to 0 is D(sigma_max n, sigma_max), exactly: its weight on x is 0.
    sigmas = [diffusion.sigma_max]
    return Plan(_core.Table.make("euler", sigmas), True, "euler", "posterior mean", tuple(sigmas))
