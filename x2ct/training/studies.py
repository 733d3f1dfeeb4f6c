"""A rolling pool of augmented studies: made ahead by threads on a CPU, when they are drawn on a GPU.

The same step draws the same study after any restart.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from x2ct.data.augment import AugmentConfig, Study, augmented_study, body_of
from x2ct.data.shapes import Shapes
from x2ct.data.shards import Patient
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid


class StudyPool:
    """Study k depends on (seed, k) alone; draw s takes one of the studies s // refresh ... s // refresh + size - 1.

    Making a study costs about as much as a training step, so each is drawn from several times while it is in the pool.
    Of n pools, pool i has the draws n s + i and the studies n k + i, as a pool of its own. So ranks that take the draws
    of different pools make different studies.

    Args:
        patients: whose bodies; one after the other in a shuffled order.
        grid: the voxels.
        geometry: the bundle's own views.
        config: how far studies differ from the patients.
        display_p99: per view, what the sampler scales a display picture's 99th percentile to.
        size: studies to draw from at a time.
        refresh: draws after which the oldest study is replaced.
        seed: of all studies and draws.
        workers: threads that make studies ahead; 0 makes each in the calling thread when it is first drawn, which is
            right for a GPU.
        shapes: of the training patients, for `config.shape`.
        pools: how many pools share the draws out among them, in turn.
        device: where studies are made and stay; on any but a CPU the bodies are kept there too, as int16.
    """

    def __init__(
        self,
        patients: Sequence[Patient],
        grid: Grid,
        geometry: Geometry,
        config: AugmentConfig,
        display_p99: Sequence[float],
        *,
        size: int,
        refresh: int,
        seed: int,
        workers: int = 1,
        shapes: Shapes | None = None,
        pools: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self._patients = patients
        self._grid, self._geometry, self._config, self._display_p99 = grid, geometry, config, display_p99
        self._size, self._refresh, self._seed, self._workers = size, refresh, seed, workers
        self._pools = pools
        self._studies: dict[int, Future[Study]] = {}
        self._shapes, self._device = shapes, torch.device(device)
        self._bodies: dict[str, Tensor] = {}
        self._threads = (
            ThreadPoolExecutor(workers, thread_name_prefix="x2ct-studies", initializer=_yield_to_training)
            if workers
            else None
        )

    def __enter__(self) -> StudyPool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def draw(self, step: int) -> tuple[Study, np.random.Generator]:
        """The study of a draw, and the draw's own random generator."""
        turn, pool = divmod(step, self._pools)
        first = turn // self._refresh
        for index in [k for k in self._studies if k % self._pools == pool and k // self._pools < first]:
            del self._studies[index]
        rng = np.random.default_rng([self._seed, 1, step])
        chosen = (first + int(rng.integers(self._size))) * self._pools + pool
        if self._threads is None:
            if chosen not in self._studies:
                self._studies[chosen] = Future()
                self._studies[chosen].set_result(self._make(chosen))
        else:
            for place in range(first, first + self._size + 2 * self._workers):  # each thread is two ahead
                index = place * self._pools + pool
                if index not in self._studies:
                    self._studies[index] = self._threads.submit(self._make, index)
        return self._studies[chosen].result(), rng

    def _make(self, index: int) -> Study:
        rng = np.random.default_rng([self._seed, 0, index])
        # Everybody once in a shuffled round, so that short runs see all patients equally.
        turn, place = divmod(index, len(self._patients))
        order = np.random.default_rng([self._seed, 2, turn]).permutation(len(self._patients))
        patient = self._patients[int(order[place])]
        body = self._body(patient)
        return augmented_study(
            patient, self._grid, self._geometry, self._config, rng, self._display_p99, body, self._shapes
        )

    def _body(self, patient: Patient) -> Tensor:
        if self._device.type == "cpu":  # the file's pages are kept by the system
            return body_of(patient)
        if patient.id not in self._bodies:
            self._bodies[patient.id] = body_of(patient, self._device)
        return self._bodies[patient.id]


def _yield_to_training() -> None:
    """Let the training's threads go first, as each step waits for the slowest (Linux has priorities by thread)."""
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + 2, 19))
