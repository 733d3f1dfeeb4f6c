"""Phantoms that need no files: a limb with two bones, and a chest with spine, ribs and lungs.

Shapes are signed distances in mm, painted with surfaces softened over a voxel, as a scanner's are. They are
deterministic in (seed, grid); each differs from its mirror images, so that a flipped or permuted axis can't hide.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from x2ct.data.shards import AIR_HU
from x2ct.errors import InputError
from x2ct.geometry.grid import Grid

AIR, LUNG, FAT, SOFT, TRABECULAR, CORTICAL, MARKER = float(AIR_HU), -820.0, -90.0, 50.0, 300.0, 1200.0, 2500.0

Points = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]
Distance = npt.NDArray[np.float64]
Painter = Callable[["_Canvas", np.random.Generator], None]


def limb(grid: Grid, seed: int = 0, *, marker: bool = True) -> npt.NDArray[np.float32]:
    """A forearm or lower leg: two long bones of unequal thickness, shell about trabecular core, in soft tissue.

    Args:
        grid: its centre is the limb's, its z axis the limb's; the body scales with the grid's narrower transverse side.
        seed: of the bones' sizes, places and bend.
        marker: a metal ball in front, to the right and towards the head, so that each axis has a direction.

    Returns:
        float32 HU of the grid's shape.
    """
    return _paint(grid, seed, _limb, marker)


def chest(grid: Grid, seed: int = 0, *, marker: bool = True) -> npt.NDArray[np.float32]:
    """A trunk with fat, muscle, two unequal lungs, a heart on the left, a spine, a sternum and ribs; see `limb`."""
    return _paint(grid, seed, _chest, marker)


def sphere(
    grid: Grid, radius_mm: float, hu: float = SOFT, centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> npt.NDArray[np.float32]:
    """A ball in air, its surface softened over a voxel; its line integrals and volume are known in closed form."""
    canvas = _Canvas(grid)
    canvas.add(canvas.ellipsoid(centre_mm, (radius_mm,) * 3), hu)
    return canvas.hu.astype(np.float32)


class _Canvas:
    """HU on a grid; shapes are signed distances in mm, negative inside, and cover what was there before."""

    def __init__(self, grid: Grid) -> None:
        affine = grid.index_to_mm
        x, y, z = (np.arange(n) * affine[a, a] + affine[a, 3] for a, n in enumerate(grid.shape))
        self.points: Points = (x[:, None, None], y[None, :, None], z[None, None, :])
        self.hu = np.full(grid.shape, AIR)
        self.half = tuple(side / 2 for side in grid.size_mm)
        self.softness = max(grid.spacing_mm)

    def add(self, distance: Distance, hu: float) -> None:
        cover = np.clip(0.5 - distance / self.softness, 0.0, 1.0)
        self.hu += cover * (hu - self.hu)

    def ellipsoid(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Distance:
        """Distance to an ellipsoid's surface: exact for a sphere, first-order otherwise."""
        unit = [(p - c) / r for p, c, r in zip(self.points, centre, radii, strict=True)]
        norm = np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2)
        slope = np.sqrt(sum((u / r) ** 2 for u, r in zip(unit, radii, strict=True)))
        return np.asarray(norm * (norm - 1.0) / np.maximum(slope, 1e-9))

    def tube(self, centre: tuple[Distance | float, Distance | float], radii: tuple[float, float]) -> Distance:
        """An elliptic cylinder along z, whose axis may bend: `centre` is its (x, y) at each z."""
        u = (self.points[0] - centre[0]) / radii[0]
        v = (self.points[1] - centre[1]) / radii[1]
        return np.asarray((np.sqrt(u**2 + v**2 + 0.0 * self.points[2]) - 1.0) * min(radii))


def _paint(grid: Grid, seed: int, painter: Painter, marker: bool) -> npt.NDArray[np.float32]:
    if seed < 0:
        raise InputError.of("phantom", "seed", found=seed, expected="0 or more")
    canvas = _Canvas(grid)
    painter(canvas, np.random.default_rng(seed))
    if marker:
        x, y, z = canvas.half
        radius = 0.06 * min(x, y, z)
        canvas.add(canvas.ellipsoid((0.3 * x, 0.45 * y, 0.7 * z), (radius,) * 3), MARKER)
    return canvas.hu.astype(np.float32)


def _limb(canvas: _Canvas, rng: np.random.Generator) -> None:
    size = min(canvas.half[0], canvas.half[1])
    length = canvas.half[2]
    z = canvas.points[2] / length
    muscle = canvas.tube((0.0, 0.0), (0.72 * size, 0.64 * size))
    canvas.add(muscle - 0.08 * size, FAT)
    canvas.add(muscle, SOFT)
    for side, share in ((-1.0, 0.24), (1.0, 0.15)):
        x = side * size * rng.uniform(0.25, 0.32)
        y = size * rng.uniform(-0.12, 0.12)
        bend = size * rng.uniform(0.02, 0.08)
        radius = size * share * rng.uniform(0.9, 1.1)
        shell = radius * rng.uniform(0.3, 0.4)
        # Bones widen towards their ends, where the shell is thin and the core is wide.
        flare = 0.25 * radius * np.abs(z) ** 4
        distance = canvas.tube((x + bend * z**2, y + bend * z), (radius, radius)) - flare
        canvas.add(distance, CORTICAL)
        canvas.add(distance + shell * (1.0 - 0.5 * np.abs(z) ** 4), TRABECULAR)


def _chest(canvas: _Canvas, rng: np.random.Generator) -> None:
    hx, hy, hz = canvas.half
    size = min(hx, hy)

    def vary() -> float:
        return float(rng.uniform(0.94, 1.06))

    trunk = canvas.tube((0.0, 0.0), (0.92 * size * vary(), 0.66 * size * vary()))
    canvas.add(trunk, FAT)
    canvas.add(trunk + 0.06 * size, SOFT)
    height = 0.78 * hz
    # RAS+: +x is the patient's right. The right lung is the larger one, the heart lies to the left.
    for side, share in ((1.0, 1.0), (-1.0, 0.88)):
        radii = (0.32 * size * share * vary(), 0.42 * size * vary(), height * vary())
        canvas.add(canvas.ellipsoid((side * 0.4 * size, 0.0, 0.1 * hz), radii), LUNG)
    heart = (0.27 * size * vary(), 0.24 * size * vary(), 0.36 * hz)
    canvas.add(canvas.ellipsoid((-0.14 * size, 0.14 * size, -0.15 * hz), heart), SOFT)
    _ribs(canvas, size, height)
    sternum = canvas.tube((0.0, 0.53 * size), (0.1 * size, 0.035 * size))
    canvas.add(np.maximum(sternum, np.abs(canvas.points[2]) - 0.55 * hz), TRABECULAR)
    _spine(canvas, size, hz)


def _ribs(canvas: _Canvas, size: float, height: float) -> None:
    x, y, z = canvas.points
    ring = (np.sqrt((x / 0.79) ** 2 + (y / 0.53) ** 2) - size) * 0.53
    thickness = 0.05 * size
    gap = 0.24 * height
    # A rib falls towards the front; the modulo makes one at each gap.
    fallen = z + 0.25 * (y + 0.5 * size)
    along = (fallen + gap / 2) % gap - gap / 2
    tube = np.sqrt(ring**2 + along**2) - thickness
    ribs = np.maximum(tube, np.abs(fallen) - height)
    # In front the ribs are cartilage, which is soft on a CT.
    ribs = np.maximum(ribs, y - 0.4 * size)
    canvas.add(ribs, CORTICAL)
    canvas.add(ribs + 0.5 * thickness, TRABECULAR)


def _spine(canvas: _Canvas, size: float, half_z: float) -> None:
    z = canvas.points[2]
    column = canvas.tube((0.0, -0.4 * size), (0.15 * size, 0.13 * size))
    period = 0.22 * half_z
    disc = np.abs((z + period / 2) % period - period / 2)
    vertebra = np.maximum(column, 0.14 * period - disc)
    canvas.add(column, SOFT)
    canvas.add(vertebra, CORTICAL)
    canvas.add(vertebra + 0.035 * size, TRABECULAR)
    canvas.add(canvas.tube((0.0, -0.585 * size), (0.045 * size, 0.045 * size)), SOFT)
