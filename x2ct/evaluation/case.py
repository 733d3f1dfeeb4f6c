"""A test patient: the truth on the grid, and X-rays projected from the whole CT at its own resolution.

The body is taken out and centred exactly as `x2ct prepare` does. Patient mm have their origin at the grid's centre.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct.data.body import body_mask
from x2ct.data.prepare import PrepareOptions, find_cts, read_body
from x2ct.data.shards import resample_array
from x2ct.evaluation import metrics
from x2ct.evaluation.anatomy import Landmarks
from x2ct.evaluation.metrics import BoolArray, FloatArray
from x2ct.geometry import Geometry, attenuation
from x2ct.geometry.grid import Grid

Matrix = npt.NDArray[np.float64]

OUTSIDE = 0.02  # a ray is contained in the grid if no more than this line integral (1 mm of water) lies outside of it


@dataclass(frozen=True, eq=False)
class Case:
    """One test patient."""

    id: str  # a name, no patient identifier
    hu: npt.NDArray[Any]  # the CT without table or padding, HU (x, y, z) at its own resolution
    index_to_mm: Matrix  # 4x4, its voxel index -> patient mm
    to_world: Matrix  # 4x4, patient mm -> the CT file's world mm; a translation
    truth: FloatArray  # float32 HU on the grid
    body: BoolArray  # where the patient is, bool on the grid
    grid: Grid
    geometry: Geometry  # the views
    xrays: tuple[FloatArray, ...]  # line integrals, one float32 (rows, columns) a view, of the whole CT
    contained: tuple[BoolArray, ...]  # bool, as `xrays`: rays along which all of the patient lies in the grid
    region: str  # "chest" or "other"

    @property
    def placed(self) -> Geometry:
        """The views, and where the CT lies."""
        x, y, z = (float(mm) for mm in self.to_world[:3, 3])
        return replace(self.geometry, origin_world_mm=(x, y, z))

    @cached_property
    def bones(self) -> metrics.Labels:
        """The truth's bones by pieces, see `metrics.bone_pieces`."""
        return metrics.bone_pieces(self.truth, self.grid.spacing_mm)

    @cached_property
    def landmarks(self) -> Landmarks:
        """The truth's spine, ribs and air, see `x2ct.evaluation.anatomy`."""
        return Landmarks.of(self.truth, self.grid.spacing_mm, body=self.body, pieces=self.bones)

    def project(self, geometry: Geometry, threads: int = 0, hu: npt.ArrayLike | None = None) -> tuple[FloatArray, ...]:
        """Return X-rays of the whole CT, or of a changed CT in its place, from other views."""
        return tuple(geometry.project(attenuation(self.hu if hu is None else hu), self.index_to_mm, threads))


def make_case(
    path: str | os.PathLike[str],
    grid: Grid,
    geometry: Geometry,
    *,
    options: PrepareOptions | None = None,
    threads: int = 0,
) -> Case:
    """Return the test patient of a CT file or DICOM folder. Raises InputError: it can't be read, or holds no body."""
    one = read_body(path, options)
    name, place = next(iter(find_cts(Path(path)))), (one.index_to_mm, grid, geometry)
    return case_of(name, one.hu, *place, to_world=one.origin, region=one.region, threads=threads)


def case_of(
    name: str,
    hu: npt.NDArray[Any],
    index_to_mm: npt.ArrayLike,
    grid: Grid,
    geometry: Geometry,
    *,
    to_world: npt.ArrayLike | None = None,
    region: str = "other",
    threads: int = 0,
) -> Case:
    """Return a test patient from HU (x, y, z) without table or padding, at full resolution, in patient mm."""
    matrix = np.asarray(index_to_mm, np.float64)
    truth = resample_array(hu, matrix, grid)
    mu = attenuation(hu)
    x, y, z = np.meshgrid(*map(np.arange, hu.shape), indexing="ij", sparse=True)
    inside = np.ones(hu.shape, np.bool_)
    for row, side in zip(matrix[:3], grid.size_mm, strict=True):
        inside &= np.abs(row[0] * x + row[1] * y + row[2] * z + row[3]) <= side / 2
    outside = np.where(inside, np.float32(0), mu)
    return Case(
        id=name,
        hu=hu,
        index_to_mm=matrix,
        to_world=np.eye(4) if to_world is None else np.asarray(to_world, np.float64),
        truth=truth,
        body=body_mask(truth, grid.spacing_mm),
        grid=grid,
        geometry=geometry,
        xrays=tuple(geometry.project(mu, matrix, threads)),
        contained=tuple(image <= OUTSIDE for image in geometry.project(outside, matrix, threads)),
        region=region,
    )
