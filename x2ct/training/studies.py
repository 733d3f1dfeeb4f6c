"""A rolling pool of augmented studies: made ahead by a thread, and the same for the same step after any restart."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from x2ct.data.augment import AugmentConfig, Study, augmented_study
from x2ct.data.shards import Person
from x2ct.geometry import Geometry
from x2ct.grid import Grid


class StudyPool:
    """Study k depends on (seed, k) alone; step s draws from studies s // refresh ... s // refresh + size - 1.

    Making a study costs about as much as a training step, so each is drawn from several times while it is in the pool.
    """

    def __init__(
        self,
        people: Sequence[Person],
        grid: Grid,
        geometry: Geometry,
        config: AugmentConfig,
        display_p99: Sequence[float],
        *,
        size: int,
        refresh: int,
        seed: int,
        workers: int = 1,
    ) -> None:
        self._people = people
        self._grid, self._geometry, self._config, self._display_p99 = grid, geometry, config, display_p99
        self._size, self._refresh, self._seed, self._workers = size, refresh, seed, workers
        self._studies: dict[int, Future[Study]] = {}
        self._worker = ThreadPoolExecutor(workers, thread_name_prefix="x2ct-studies", initializer=_yield_to_training)

    def __enter__(self) -> StudyPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def draw(self, step: int) -> tuple[Study, np.random.Generator]:
        """The study of a step, and the step's own random generator."""
        first = step // self._refresh
        for index in [k for k in self._studies if k < first]:
            del self._studies[index]
        for index in range(first, first + self._size + 2 * self._workers):  # each worker is two ahead
            if index not in self._studies:
                self._studies[index] = self._worker.submit(self._make, index)
        rng = np.random.default_rng([self._seed, 1, step])
        return self._studies[first + int(rng.integers(self._size))].result(), rng

    def _make(self, index: int) -> Study:
        rng = np.random.default_rng([self._seed, 0, index])
        # Everybody once in a shuffled round, so that short runs see all people equally.
        turn, place = divmod(index, len(self._people))
        order = np.random.default_rng([self._seed, 2, turn]).permutation(len(self._people))
        person = self._people[int(order[place])]
        return augmented_study(person, self._grid, self._geometry, self._config, rng, self._display_p99)


def _yield_to_training() -> None:
    """Let the training's threads go first, as each step waits for the slowest (Linux has priorities by thread)."""
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + 2, 19))
