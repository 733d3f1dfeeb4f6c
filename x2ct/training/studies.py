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

from x2ct.data.augment import Study, body_of, draw_plan, render
from x2ct.data.shapes import Shapes
from x2ct.data.shards import Patient
from x2ct.training.config import TrainConfig
from x2ct.training.runs import training_geometry


class StudyPool:
    """Study k depends on (seed, k) alone; draw s takes one of the studies s // refresh ... s // refresh + pool - 1.

    Making a study costs about as much as a training step, so each is drawn from several times while it is in the pool.
    Of n pools, pool i has the draws n s + i and the studies n k + i, as a pool of its own. So ranks that take the draws
    of different pools make different studies.

    Args:
        patients: whose bodies; one after the other in a shuffled order, each as often as `config.turns` says.
        config: of the training: grid, views, how far studies differ from the patients, and `pool` to `workers`. On a
            GPU there are no workers: each study is made in the calling thread when it is first drawn.
        shapes: of the training patients, for `config.augment.shape`.
        device: where studies are made and stay; on any but a CPU the bodies are kept there too, as int16.
    """

    def __init__(
        self,
        patients: Sequence[Patient],
        config: TrainConfig,
        shapes: Shapes | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        turns = dict(zip(config.regions, config.turns, strict=True)) if config.turns else {}
        self._patients = [patient for patient in patients for _ in range(turns.get(patient.region, 1))]
        self._config, self._geometry = config, training_geometry(config)
        self._shapes, self._device = shapes, torch.device(device)
        self._studies: dict[int, Future[Study]] = {}
        self._bodies: dict[str, Tensor] = {}
        self._threads = None
        if config.workers and self._device.type == "cpu":
            self._threads = ThreadPoolExecutor(config.workers, "x2ct-studies", initializer=_yield_to_training)

    def __enter__(self) -> StudyPool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def draw(self, step: int) -> tuple[Study, np.random.Generator]:
        """Return the study of a draw, and the draw's own random generator."""
        config = self._config
        turn, pool = divmod(step, config.pools)
        first = turn // config.refresh
        for index in [k for k in self._studies if k % config.pools == pool and k // config.pools < first]:
            del self._studies[index]
        rng = np.random.default_rng([config.seed, 1, step])
        chosen = (first + int(rng.integers(config.pool))) * config.pools + pool
        if self._threads is None:
            if chosen not in self._studies:
                self._studies[chosen] = Future()
                self._studies[chosen].set_result(self._make(chosen))
        else:
            for place in range(first, first + config.pool + 2 * config.workers):  # each thread is two ahead
                index = place * config.pools + pool
                if index not in self._studies:
                    self._studies[index] = self._threads.submit(self._make, index)
        return self._studies[chosen].result(), rng

    def _make(self, index: int) -> Study:
        config = self._config
        rng = np.random.default_rng([config.seed, 0, index])
        # Each patient once in a shuffled round, so that short runs see all patients equally.
        turn, place = divmod(index, len(self._patients))
        order = np.random.default_rng([config.seed, 2, turn]).permutation(len(self._patients))
        patient = self._patients[int(order[place])]
        body = self._bodies[patient.id] if patient.id in self._bodies else body_of(patient, self._device)
        if self._device.type != "cpu":  # where the system keeps the file's pages
            self._bodies[patient.id] = body
        scene = config.grid, self._geometry, config.augment
        return render(body, draw_plan(patient, *scene, rng, config.display_p99, self._shapes))


def _yield_to_training() -> None:
    """Let the training's threads go first, as each step waits for the slowest (Linux has priorities by thread)."""
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + 8, 19))
