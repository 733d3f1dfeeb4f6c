"""The voxel grid that a model fills, and its patient mm: the one definition that data, networks and sampler share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError


def centred_affine(shape: Sequence[int], spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the 4x4 affine from a grid's voxel index to patient mm: the origin at index (N - 1) / 2."""
    spacing = np.asarray(spacing_mm, np.float64)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = spacing * (1 - np.asarray(shape, np.float64)) / 2
    return affine


def rotation(angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the 3x3 rotation about x, then y, then z, by angles in radians."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (k for k in range(3) if k != axis)
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


@dataclass(frozen=True)
class Grid:
    """A voxel grid; its patient mm have their origin at index (N - 1) / 2. InputError for sizes that can't be."""

    shape: tuple[int, int, int] = (128, 128, 128)  # voxels along x, y, z
    spacing_mm: tuple[float, float, float] = (2.5, 2.5, 2.5)

    def __post_init__(self) -> None:
        shape, spacing = tuple(self.shape), tuple(self.spacing_mm)
        if np.shape(shape) != (3,) or any(n < 1 for n in shape):
            raise InputError.of("grid", "shape", found=shape, expected="three sizes of at least 1")
        if np.shape(spacing) != (3,) or not all(0 < s < float("inf") for s in spacing):
            raise InputError.of("grid", "spacing_mm", found=spacing, expected="three positive lengths in mm")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "spacing_mm", spacing)

    @property
    def size_mm(self) -> tuple[float, float, float]:
        """The grid's extent along x, y, z, between the outer faces of its voxels."""
        x, y, z = (n * s for n, s in zip(self.shape, self.spacing_mm, strict=True))
        return x, y, z

    @property
    def index_to_mm(self) -> npt.NDArray[np.float64]:
        """4x4, voxel index -> patient mm."""
        return centred_affine(self.shape, self.spacing_mm)

    def coordinates(self) -> npt.NDArray[np.float32]:
        """Return what the lift reads: each voxel's centre in patient mm / 100, float32 [3, X, Y, Z], C-contiguous."""
        sides = zip(self.shape, self.spacing_mm, strict=True)
        axes = [(np.arange(n) - (n - 1) / 2) * s / 100 for n, s in sides]
        return np.ascontiguousarray(np.stack(np.meshgrid(*axes, indexing="ij")), np.float32)
