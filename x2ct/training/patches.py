"""Patches of a study: Patch Diffusion's sizes, on origins that are multiples of the network's stride."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from x2ct.data.shards import Grid
from x2ct.training.config import PatchConfig

COORDINATE_SCALE = 100.0
"""The networks take patient mm divided by this."""


@dataclass(frozen=True)
class Patch:
    """A box of the grid: first voxel and number of voxels along x, y, z."""

    origin: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into a volume [X, Y, Z]."""
        x, y, z = (slice(o, o + n) for o, n in zip(self.origin, self.shape, strict=True))
        return x, y, z


def draw_patches(grid: Grid, config: PatchConfig, stride: int, rng: np.random.Generator) -> list[Patch]:
    """Patches of one drawn size, as many as fill the configured number of voxels."""
    size = int(rng.choice(config.sizes, p=config.probabilities))
    shape = tuple(min(size, n) for n in grid.shape)
    count = max(1, config.voxels // int(np.prod(shape)))
    patches = []
    for _ in range(count):
        origin = tuple(int(rng.integers(0, (n - s) // stride + 1)) * stride for n, s in zip(grid.shape, shape, strict=True))
        patches.append(Patch(origin, shape))  # type: ignore[arg-type]
    return patches


def coordinates(grid: Grid) -> Tensor:
    """The networks' coordinates of every voxel: patient mm / 100, float32 [3, X, Y, Z]."""
    axes = [
        torch.arange(n, dtype=torch.float32) * s - (n - 1) / 2 * s
        for n, s in zip(grid.shape, grid.spacing_mm, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")) / COORDINATE_SCALE
