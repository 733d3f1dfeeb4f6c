"""Patches of a study: Patch Diffusion's sizes, on origins that are multiples of the network's stride."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from x2ct.geometry.grid import Grid
from x2ct.training.config import PatchConfig


@dataclass(frozen=True)
class Patch:
    """A box of the grid: first voxel and number of voxels along x, y, z."""

    origin: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into a volume [X, Y, Z]."""
        return self.cells(1)

    def cells(self, stride: int) -> tuple[slice, slice, slice]:
        """The box as an index into a volume at a stride that divides the patch's own."""
        x, y, z = (slice(o // stride, (o + n) // stride) for o, n in zip(self.origin, self.shape, strict=True))
        return x, y, z


def draw_patches(
    grid: Grid, config: PatchConfig, stride: int, rng: np.random.Generator, progress: float = 0.0
) -> list[Patch]:
    """Patches of one drawn size, as many as fill the configured number of voxels.

    Args:
        grid: that they are cut from.
        config: sizes and how they are drawn.
        stride: origins are multiples of it.
        rng: where the chances come from.
        progress: share of the run that is done, for the progressive schedule.
    """
    size = int(rng.choice(config.sizes, p=size_probabilities(config, progress)))
    x, y, z = grid.shape
    shape = (x, y, min(size, z)) if config.shape == "slab" else (min(size, x), min(size, y), min(size, z))
    count = max(1, config.voxels // int(np.prod(shape)))
    patches = []
    for _ in range(count):
        i, j, k = (int(rng.integers(0, (n - s) // stride + 1)) * stride for n, s in zip(grid.shape, shape, strict=True))
        patches.append(Patch((i, j, k), shape))
    return patches


def size_probabilities(config: PatchConfig, progress: float) -> tuple[float, ...]:
    """How often each size is drawn at this point of the run; once progressive, one size at a time."""
    if config.schedule == "stochastic":
        return config.probabilities
    ends = np.cumsum(config.probabilities)
    now = min(int(np.searchsorted(ends, progress, side="right")), len(ends) - 1)
    return tuple(float(index == now) for index in range(len(ends)))
