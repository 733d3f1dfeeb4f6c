"""From a request to what the loop needs: networks compiled for what it keeps, and conditioned on its X-rays."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.conditioning import Conditions, conditions
from x2ct.consistency import correction
from x2ct.grid import Grid
from x2ct.networks import Budget, Networks
from x2ct.request import Request
from x2ct.runtimes import Choice


@dataclass(frozen=True)
class Study:
    """X-rays, and what encoder and lift made of them, to be used again for other seeds.

    Attributes:
        given: the X-rays and the geometry by name.
        conditions: what the encoder saw.
        seconds: that it took.
        reused: whether it did before.
    """

    given: tuple[tuple[str, object], ...]
    conditions: Conditions
    seconds: float
    reused: bool = False

    def is_of(self, given: tuple[tuple[str, object], ...]) -> bool:
        """Whether these are the very same objects under the same names."""
        mine, theirs = ([(name, id(item)) for name, item in items] for items in (self.given, given))
        return mine == theirs


@dataclass(frozen=True)
class Ready:
    """What the loop needs to answer one request."""

    networks: Networks
    study: Study
    correction: _core.Consistency | None


class Preparation:
    """Compiles when it must and conditions when the X-rays are others than the last; used by one thread at a time.

    Args:
        bundle: the model.
        grid: what to fill.
        choice: backend, device and precision.
        threads: of the runtime; 0 leaves it to the runtime.
        budget: the memory.
    """

    def __init__(self, bundle: Bundle, grid: Grid, choice: Choice, threads: int, budget: Budget) -> None:
        self._bundle, self._grid, self._choice, self._threads, self._budget = bundle, grid, choice, threads, budget
        self._networks: Networks | None = None
        self._study: Study | None = None

    def networks(self, volumes: int) -> Networks:
        """Compiled for runs that keep so many volumes.

        Raises:
            X2CTError: as `Networks`.
        """
        if self._networks is None or not self._networks.are_for(volumes):
            self._networks = self._study = None
            self._networks = Networks(self._bundle, self._grid, self._choice, self._threads, self._budget, volumes)
        return self._networks

    def ready(self, request: Request, *, preview: bool) -> Ready:
        """Networks that know the request's X-rays, and what is done to D after an evaluation.

        Args:
            request: what is asked for.
            preview: whether D is looked at on the way.

        Raises:
            X2CTError: as `Networks`; or X-rays, geometry or consistency that can't be.
        """
        networks = self.networks(request.volumes(preview))
        study = self._study_of(networks, request)
        applied = correction(
            request.pull,
            request.xrays,
            request.geometry,
            study.conditions,
            self._bundle,
            self._grid,
            request.table.evaluations,
            self._threads,
        )
        return Ready(networks, study, applied)

    def _study_of(self, networks: Networks, request: Request) -> Study:
        """Encoder and lift on these X-rays, unless they were the last ones already."""
        given = (*request.xrays.items(), ("geometry", request.geometry))
        if self._study is not None and self._study.is_of(given):
            return replace(self._study, reused=True)
        started = time.perf_counter()
        self._study = None  # what follows may fail half-way
        made = conditions(self._bundle, request.xrays, request.geometry)
        networks.condition_on(made)
        self._study = Study(given, made, time.perf_counter() - started)
        return self._study
