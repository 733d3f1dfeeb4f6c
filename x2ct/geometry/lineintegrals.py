"""Line integrals of attenuation along a view's rays, and the way back: the core's projector and its transpose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.errors import InputError
from x2ct.geometry.view import View

Image = npt.NDArray[np.float32]

MU_WATER_PER_MM = _core.MU_WATER_PER_MM
"""The linear attenuation of water at about 70 keV."""


def attenuation(hu: npt.ArrayLike, mu_water: float = MU_WATER_PER_MM) -> Image:
    """HU of any shape to linear attenuation per mm, float32: mu_water max(0, 1 + HU / 1000)."""
    mu = np.array(hu, np.float32)
    mu *= np.float32(mu_water / 1000)
    mu += np.float32(mu_water)
    return np.maximum(mu, np.float32(0), out=mu)


def project(mu: npt.ArrayLike, index_to_mm: npt.ArrayLike, view: View, threads: int = 0) -> Image:
    """Return line integrals through a volume by Joseph's method (IEEE Trans. Med. Imaging 1(3), 1982).

    `mu` is (x, y, z) attenuation per mm, what lies outside of it is air; `index_to_mm` the (4, 4) from voxel index to
    patient mm, any affine that can be inverted. The result is (rows, columns) float32, dimensionless; 0 threads take
    every processor, and it does not depend on them. Raises InputError: shapes that don't fit, or an affine that can't
    be inverted.
    """
    rows, cols = view.shape
    return _core.project(mu, index_to_mm, view.matrix, rows, cols, threads)


def backproject(
    image: npt.ArrayLike, shape: tuple[int, int, int], index_to_mm: npt.ArrayLike, view: View, threads: int = 0
) -> Image:
    """Spread an image along its rays into (x, y, z) float32 of `shape`: the exact transpose of `project`.

    For any volume a and image b, sum(project(a) * b) = sum(a * backproject(b)). Arguments are as for `project`. Raises
    InputError: shapes that don't fit, or an affine that can't be inverted.
    """
    found = np.shape(image)
    if found != view.shape:
        raise InputError.of(f"view {view.name}", "image shape", found=found, expected=view.shape)
    return _core.backproject(image, shape, index_to_mm, view.matrix, threads)
