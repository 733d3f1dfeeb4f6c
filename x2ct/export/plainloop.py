"""The sampling loop as it is usually written: PyTorch, eager or compiled, EDM's deterministic Heun.

It stands here to be measured: `x2ct bench` runs it in a process of its own (`python -m` this) as one row among the
others. The loop is Algorithm 1 of Karras et al. 2022 with their defaults (18 steps of rho 7, 35 evaluations) on the
bundle's network, started from the same noise as the core's sampler. The network is folded to plain convolutions first,
and nothing else is done to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from x2ct import _core
from x2ct.benchmark.cases import PLAIN, Case
from x2ct.benchmark.worker import TRANSFERS, Run, Subject, serve
from x2ct.engine.conditioning import study_of
from x2ct.errors import InputError, MissingRuntimeError
from x2ct.export.inverse import load_bundle_model
from x2ct.geometry.grid import Grid

STEPS = 18

_DTYPES = {"auto": None, "f32": None, "bf16": torch.bfloat16}

Denoise = Callable[[Tensor, Tensor], Tensor]


def heun(denoise: Denoise, noise: Tensor, sigmas: list[float]) -> tuple[Tensor, list[float]]:
    """Return a sample, and the clock after each evaluation, by Algorithm 1 of Karras et al. 2022 with sigma(t) = t.

    `denoise` takes x [N, 1, X, Y, Z] and sigma [N], twice a step and once in the last; `noise` is standard normal, of
    x's shape; `sigmas` fall to 0.
    """
    x, ends = noise * sigmas[0], list[float]()
    for sigma, after in pairwise(sigmas):
        slope = (x - denoise(x, torch.full(x.shape[:1], sigma))) / sigma
        euler = x + (after - sigma) * slope
        ends.append(time.perf_counter())
        if after > 0:
            corrected = (euler - denoise(euler, torch.full(x.shape[:1], after))) / after
            euler = x + (after - sigma) * (slope + corrected) / 2
            ends.append(time.perf_counter())
        x = euler
    return x, ends


class PlainLoop(Subject):
    """The loop as a subject of `x2ct.benchmark.worker`."""

    def __init__(self, name: str, case: Case) -> None:
        if case.precision not in _DTYPES:
            raise MissingRuntimeError(f"{case.backend}: precision {case.precision}: this loop knows f32 and bf16")
        if case.device not in ("auto", "cpu"):
            raise MissingRuntimeError(f"{case.backend}: device {case.device}: this loop runs on the cpu")
        super().__init__(name, case)
        self._autocast = _DTYPES[case.precision]
        if case.threads:
            torch.set_num_threads(case.threads)

    def load(self) -> None:
        """Read the bundle, bring its weights back into PyTorch, read the X-rays."""
        super().load()
        try:
            self._model = load_bundle_model(self._bundle)
        except InputError as error:  # a bundle that PyTorch can't have is not wrong use: the other rows go on
            raise MissingRuntimeError(f"PyTorch can't have this network: {error}") from error
        spacing = self._bundle.grid.spacing_mm
        self._grid = Grid(self._case.grid, spacing) if self._case.grid else self._bundle.grid
        diffusion = self._bundle.diffusion
        steps = self._case.steps or STEPS
        self._sigmas = [*_core.schedule("edm", steps, diffusion.sigma_min, diffusion.sigma_max), 0.0]

    def build(self) -> None:
        """Compile, where that was asked for, by evaluating once; nothing in eager mode."""
        self._denoiser: Any = self._model.denoiser
        if self._case.backend == PLAIN[1]:
            torch.compiler.config.force_disable_caches = True  # a cold start is cold
            self._denoiser = torch.compile(self._model.denoiser)
            with torch.no_grad(), self._precision():
                self._denoiser(torch.zeros(1, 1, *self._grid.shape), torch.ones(1), *self._condition())

    def run(self, seed: int) -> Run:
        """Condition once, then Heun."""
        started, shape = time.perf_counter(), self._grid.shape
        with torch.no_grad(), self._precision():
            condition = self._condition()
            conditioned = time.perf_counter()
            noise = torch.from_numpy(_core.normal(shape, seed)).reshape(1, 1, *shape)
            x, ends = heun(lambda x, sigma: self._denoiser(x, sigma, *condition), noise, self._sigmas)
        looped = time.perf_counter()
        hu = self._bundle.intensity.to_hu(np.ascontiguousarray(x[0, 0].float().numpy()))
        facts = {
            "device": "cpu",
            "backend": self._case.backend,
            "runtime": str(torch.__version__),
            "precision": "f32" if self._autocast is None else "bf16",
            "grid": list(shape),
            "solver": "heun",
            "schedule": "edm",
            "evaluations": len(ends),
            "tiles": None,
            "transfers": TRANSFERS["cpu"],
        }
        between = [after - before for before, after in pairwise(ends)]
        return Run(hu, conditioned - started, looped - conditioned, between, facts)

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", self._autocast or torch.bfloat16, enabled=self._autocast is not None)

    def _condition(self) -> tuple[Tensor, Tensor]:
        """Return what encoder and lift compute, in f32 as in the core's sampler."""
        ready = study_of(self._bundle, self._xrays)
        coords = self._grid.coordinates()[None]
        parts = (torch.from_numpy(np.array(part)) for part in (ready.views, ready.valid, ready.matrices, coords))
        with torch.autocast("cpu", enabled=False):
            return self._model.condition(*parts)


if __name__ == "__main__":
    serve(PlainLoop)
