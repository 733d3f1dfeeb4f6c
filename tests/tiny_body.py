"""A body within the tiny bundle's grid, and its X-rays, for tests that project."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests import tiny_bundle
from x2ct.geometry import Geometry, attenuation, project
from x2ct.geometry.grid import Grid

GRID = Grid(tiny_bundle.GRID, tiny_bundle.SPACING_MM)
GEOMETRY = Geometry.parallel(("ap", "lateral"), shape=tiny_bundle.DETECTOR, spacing_mm=tiny_bundle.DETECTOR_MM)


def body() -> npt.NDArray[np.float32]:
    """HU: an ellipsoid of water, off centre, with a rod of bone, all of it within the grid."""
    x, y, z = (np.indices(tiny_bundle.GRID).astype(np.float32) - 15.5) * 10.0
    hu = np.full(tiny_bundle.GRID, -1000.0, np.float32)
    hu[((x - 10) / 120) ** 2 + (y / 80) ** 2 + (z / 120) ** 2 < 1] = 0.0
    hu[(x > 40) & (x < 70) & (abs(y) < 25) & (abs(z) < 60)] = 700.0
    return hu


def images(geometry: Geometry = GEOMETRY) -> dict[str, npt.NDArray[np.float32]]:
    mu = attenuation(body())
    return {view.name: project(mu, GRID.index_to_mm, view, threads=1) for view in geometry.views}
