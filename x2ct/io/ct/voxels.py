"""Shared by the formats of CT volumes: limits, checks before anything is decoded, int16; nothing knows of X-rays."""

from __future__ import annotations

import math
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError

FloatArray = npt.NDArray[np.float64]

MAX_VOXELS = 1_000_000_000  # 4 GB of float32; checked in the header, before anything is decoded
SPACING_MM = (0.01, 50.0)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM and ITK count world mm towards the patient's left and back, NIfTI and x2ct towards right and front."""

SYNTHETIC = "synthetic CT by x2ct, not for diagnosis"
"""What a file says that is no scan of a patient; a reader knows it again by this."""


class Stored(NamedTuple):
    """A CT as a file holds it."""

    values: npt.NDArray[Any]  # (i, j, k) in the file's order of axes
    affine: FloatArray  # 4x4 from that index to RAS+ mm
    notes: tuple[str, ...] = ()  # what was assumed on reading
    synthetic: bool = False  # whether the file says that it is no scan of a patient


def check_shape(source: str | PathLike[str], shape: tuple[int, ...]) -> None:
    """Three axes, and no more than MAX_VOXELS. Raises InputError."""
    if len(shape) != 3 or min(shape) < 2:
        found = " x ".join(map(str, shape)) or "a single number"
        raise InputError.of(source, "shape", found=found, expected="three axes of 2 or more voxels")
    voxels = math.prod(map(int, shape))  # of Python's own numbers: a header's may be past 64 bits
    if voxels > MAX_VOXELS:
        raise InputError.of(source, "size", found=f"{voxels} voxels", expected=f"at most {MAX_VOXELS}")


def check_affine(source: str | PathLike[str], affine: FloatArray) -> None:
    """A 4x4 to mm with plausible voxel sizes and three independent axes. Raises InputError."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise InputError.of(source, "affine", found=affine.tolist(), expected="a finite 4x4 with last row 0 0 0 1")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    lowest, highest = SPACING_MM
    if spacing.min() < lowest or spacing.max() > highest:
        found = " x ".join(f"{length:g}" for length in spacing) + " mm"
        raise InputError.of(source, "voxel size", found=found, expected=f"{lowest:g} to {highest:g} mm")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 0.1:
        raise InputError.of(source, "affine", found="axes that lie in a plane", expected="three independent axes")


def int16_hu(hu: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """HU as files hold them: rounded to whole numbers, clipped to what int16 can hold."""
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(hu), limits.min, limits.max).astype(np.int16)
