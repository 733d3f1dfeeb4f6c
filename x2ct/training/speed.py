"""How fast a training computes: the operations of a step, counted once, against the device's own matrix rate."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

SIDE = 2048
"""Side of the matrices whose product measures the device's matrix rate."""

ROUNDS = 5


class WorkMeter:
    """Counts the floating-point operations of training passes.

    Counting is done on a forward pass of its own, because it changes which kernels PyTorch takes, and once for each
    number of voxels; a backward pass costs twice the forward one.

    Args:
        device: where the training computes.
        dtype: data type of its matrices.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._flop: dict[int, int] = {}
        self._rate: float | None = None
        self.total_flop = 0

    def add(self, voxels: int, forward: Callable[[], object]) -> None:
        """Add a forward and a backward pass over `voxels` voxels to `total_flop`; `forward` computes the first."""
        if voxels not in self._flop:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                forward()
            self._flop[voxels] = 3 * counter.get_total_flops()
        self.total_flop += self._flop[voxels]

    def matrix_rate(self) -> float:
        """Return the device's rate for a product of two square matrices, FLOP/s; the best of a few, measured once."""
        if self._rate is None:
            a = torch.ones(SIDE, SIDE, dtype=self._dtype, device=self._device)
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                product = a @ a
                float(product[0, 0])  # waits for the device
                times.append(time.perf_counter() - start)
            self._rate = 2 * SIDE**3 / min(times)
        return self._rate
