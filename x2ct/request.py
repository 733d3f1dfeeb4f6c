"""What one run of a sampler is asked for: checked where it enters, with the plan that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from x2ct import _core
from x2ct.bundle import Diffusion
from x2ct.consistency import Pull
from x2ct.errors import InputError
from x2ct.geometry import Geometry
from x2ct.radiograph import XRay
from x2ct.schedules import Plan, plan

MAX_SAMPLES = 1000


@dataclass(frozen=True)
class Request:
    """A run but for its callbacks.

    Attributes:
        diffusion: what the model says about sampling.
        ap, pa, lateral, geometry, seed, steps, solver, schedule, mean, churn, samples, consistency, gamma, strict: see
            `x2ct.Sampler.run`.

    Raises:
        InputError: one of them is wrong or contradicts another.
    """

    diffusion: Diffusion
    ap: XRay | None = None
    pa: XRay | None = None
    lateral: XRay | None = None
    geometry: Geometry | None = None
    seed: int = 0
    steps: int | None = None
    solver: str | None = None
    schedule: str | Sequence[float] | None = None
    mean: bool = False
    churn: float = 0.0
    samples: int = 1
    consistency: str | Sequence[int] = "off"
    gamma: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise InputError.of("--seed", "value", found=self.seed, expected="0 to 2^64 - 1")
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise InputError.of("--samples", "value", found=self.samples, expected=f"1 to {MAX_SAMPLES}")
        self.pull.after(self.table.evaluations)

    @cached_property
    def pull(self) -> Pull:
        """Data consistency."""
        return Pull.of(self.consistency, self.gamma)

    @cached_property
    def plan(self) -> Plan:
        """Noise levels and solver."""
        return plan(
            self.diffusion,
            steps=self.steps,
            solver=self.solver,
            schedule=self.schedule,
            mean=self.mean,
            churn=self.churn,
        )

    @property
    def table(self) -> _core.Table:
        """What the core's loop runs, for each sample."""
        return self.plan.table

    @property
    def evaluations(self) -> int:
        """Of all samples."""
        return self.samples * self.table.evaluations

    @property
    def xrays(self) -> dict[str, XRay]:
        """By view."""
        views = {"ap": self.ap, "pa": self.pa, "lateral": self.lateral}
        return {name: xray for name, xray in views.items() if xray is not None}

    def volumes(self, preview: bool) -> int:
        """How many float32 volumes it holds at once, with a preview or without."""
        many, consistency = self.samples > 1, self.pull.active
        return _core.volumes_kept(self.table, many=many, preview=preview, consistency=consistency)

    def facts(self) -> dict[str, Any]:
        """The report's fields."""
        return {"seed": self.seed, "samples": self.samples, **self.plan.facts()}
