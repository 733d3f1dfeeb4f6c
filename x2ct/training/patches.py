"""Patches of a study: Patch Diffusion's sizes, on origins that are multiples of the network's stride."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from x2ct.grid import Grid
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


def draw_patches(grid: Grid, config: PatchConfig, stride: int, rng: np.random.Generator) -> list[Patch]:
    """Patches of one drawn size, as many as fill the configured number of voxels."""
    size = int(rng.choice(config.sizes, p=config.probabilities))
    shape = tuple(min(size, n) for n in grid.shape)
    count = max(1, config.voxels // int(np.prod(shape)))
    patches = []
    for _ in range(count):
        origin = tuple(
            int(rng.integers(0, (n - s) // stride + 1)) * stride for n, s in zip(grid.shape, shape, strict=True)
        )
        patches.append(Patch(origin, shape))  # type: ignore[arg-type]
    return patches
