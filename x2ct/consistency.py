"""Data consistency: the denoised volume, pulled while sampling so that it projects onto the X-rays it is made from.

Line integrals are linear in attenuation, not in the network's unit, so D is brought to attenuation mu, pulled to

    argmin_z  1/2 |z - mu|^2 + gamma / (2 s^2) |A z - y|^2     with z within the window's mu, never below 0,

and brought back. A are the line integrals along the rays that count, y the X-rays, averaged to the voxel's pitch where
their pixels are finer; s^2, the largest column sum of A^T A over the number of views, makes gamma a plain number: at
gamma 1 a ray that crosses the whole grid alone keeps half of its residual. The core solves it in closed form for
parallel views along the grid's axes whose pixels are its voxels, by conjugate gradients otherwise.

X-rays see the whole body, the grid may hold less of it. Only rays count that can be taken to meet the body within the
grid: the other views must show air beside the grid where the ray runs on (`rays_within` in csrc/core). So one view
alone is refused, unless the body fits in it whatever lies along its rays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.conditioning import SLOT_OF, Conditions, measured
from x2ct.errors import InputError
from x2ct.geometry import Geometry
from x2ct.grid import Grid
from x2ct.intensity import Intensity
from x2ct.radiograph import XRay
from x2ct.schedules import MAX_STEPS

GAMMA: float = _core.GAMMA
"""The default strength, chosen on the validation person (benchmarks/consistency.py)."""
STRONGEST = 1e6
_MOST_EVALUATIONS = 2 * MAX_STEPS  # Heun evaluates twice a step


@dataclass(frozen=True)
class Pull:
    """What is asked for.

    Attributes:
        when: "off", "last" (after the last evaluation), "every" (after each), or evaluations by number, "3,5,6".
        gamma: strength, see the module.

    Raises:
        InputError: another word, or a strength that is none.
    """

    when: str = "off"
    gamma: float = GAMMA

    def __post_init__(self) -> None:
        self.after(_MOST_EVALUATIONS)
        if not (math.isfinite(self.gamma) and 0 <= self.gamma <= STRONGEST):
            raise InputError.of("--gamma", "value", found=self.gamma, expected=f"0 to {STRONGEST:g}")

    @property
    def active(self) -> bool:
        """Whether there is anything to do."""
        return self.when != "off" and self.gamma > 0

    def after(self, evaluations: int) -> list[int]:
        """After which of a run's evaluations, from 1; none where it is off.

        Raises:
            InputError: one that there is not.
        """
        return _core.pulled_after(self.when, evaluations)

    @classmethod
    def of(cls, when: str | Sequence[int], gamma: float | None) -> Pull:
        """From options, of which gamma may be left out; evaluations may come as numbers.

        Raises:
            InputError: a gamma without anything to be done with it.
        """
        when = when if isinstance(when, str) else ",".join(map(str, when))
        if gamma is None:
            return cls(when)
        if when == "off":
            raise InputError.of("--gamma", "options", found="no consistency", expected="--consistency with it")
        return cls(when, gamma)


def correction(
    pull: Pull,
    xrays: Mapping[str, XRay],
    geometry: Geometry | None,
    ready: Conditions,
    bundle: Bundle,
    grid: Grid,
    evaluations: int,
    threads: int = 0,
) -> _core.Consistency | None:
    """What the core's loop applies to D; None if nothing is to be done.

    Args:
        pull: what is asked for.
        xrays: by view name.
        geometry: where they were taken from; None for the model's own views.
        ready: the same on the encoder's grid.
        bundle: whose network makes D.
        grid: what D fills.
        evaluations: of the run.
        threads: 0 takes every processor; the result does not depend on it.

    Raises:
        InputError: no ray is known to lie in the grid, or a chosen evaluation is none of the run's.
    """
    after = pull.after(evaluations)
    if not pull.active:
        return None
    x, mu = attenuation_knots(bundle.intensity)
    seen = measured(bundle, xrays, geometry)
    views: list[_core.MeasuredView] = []
    for name, xray in xrays.items():
        slot = SLOT_OF[name]
        views.append((name, ready.matrices[0, slot], ready.views[0, slot, 0], seen[slot], xray.calibrated))
    return _core.Consistency(grid.shape, grid.index_to_mm, x, mu, views, pull.gamma, after, threads=threads)


def attenuation_knots(intensity: Intensity) -> tuple[list[float], list[float]]:
    """The map between x and attenuation per mm (mu_water max(0, 1 + HU / 1000)) by its knots, from where mu rises."""
    return _core.attenuation_knots(intensity.hu, intensity.x)


def facts(pull: Pull, applied: _core.Consistency | None, xrays: Mapping[str, XRay], evaluations: int) -> dict[str, Any]:
    """What the report says, after a run of so many evaluations.

    For each view: `rays`, the share that counted of the rays that meet body and grid; `rms_before` and `rms_after` of
    the last application, in line integrals; and `fit`, a and b of y = a A(D) + b, where the X-ray was not calibrated.
    """
    if applied is None:
        return {"when": "off"}
    views = []
    for view in applied.views:
        entry: dict[str, Any] = {key: round(view[key], 6) for key in ("rays", "rms_before", "rms_after")}
        if not xrays[view["view"]].calibrated:
            entry["fit"] = {"scale": round(view["scale"], 6), "offset": round(view["offset"], 6)}
        views.append({"view": view["view"], **entry})
    method = "closed form" if applied.closed else "conjugate gradients"
    return {
        "when": pull.when,
        "evaluations": pull.after(evaluations),
        "gamma": pull.gamma,
        "method": method,
        "rounds": applied.rounds,
        "views": views,
    }
