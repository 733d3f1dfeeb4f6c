"""One training study out of one person: a posed, scaled and gently deformed body, its grid and its X-rays.

The body is resampled once onto a box that is larger than the grid and shares its voxels; the grid is cut out of the
box, the X-rays are projected from all of it. So the X-rays see more than the grid, as they do in life.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from x2ct.data.imaging import RadiographConfig, radiograph
from x2ct.data.shards import Person, resample
from x2ct.geometry import Geometry, View, attenuation, project
from x2ct.grid import Grid
from x2ct.xrays import degradation

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AugmentConfig:
    """How far a study may differ from the person it was made of.

    Attributes:
        margin_mm: how much larger than the grid the projected box is, on each side, by axis.
        rotation_deg: largest rotation about each axis.
        scale: largest relative change of size, by axis.
        shift_mm: largest shift along each axis.
        warp_mm: standard deviation of a smooth random displacement.
        flip: probability of exchanging left and right.
        density: largest relative change of bone and lung density.
        lesions: largest number of synthetic masses, calcifications and cavities put into the body.
        lesion_mm: smallest and largest radius of one; drawn evenly in the logarithm.
        crop: probability of a field of view that cuts the body.
        cone: probability of a cone beam instead of the bundle's own geometry.
        view_deg: largest error of a view's angle, known to the network.
        unknown_deg: largest error of a view's angle that the network is not told.
        noise: largest relative standard deviation of white noise on the line integrals.
        uncalibrated: probability that a view's line integrals are scaled and bent, by another tube voltage or detector.
        radiograph: the detector's physics, and display pictures.
        drop: probability of each view slot to be missing (never all of them).
    """

    margin_mm: tuple[float, float, float] = (60.0, 20.0, 60.0)
    rotation_deg: float = 6.0
    scale: float = 0.12
    shift_mm: float = 15.0
    warp_mm: float = 5.0
    flip: float = 0.5
    density: float = 0.1
    lesions: int = 0
    lesion_mm: tuple[float, float] = (4.0, 25.0)
    crop: float = 0.25
    cone: float = 0.35
    view_deg: float = 4.0
    unknown_deg: float = 1.0
    noise: float = 0.02
    uncalibrated: float = 0.3
    radiograph: RadiographConfig = field(default_factory=RadiographConfig)
    drop: tuple[float, ...] = (0.08, 0.15)

    def __post_init__(self) -> None:
        for name in ("margin_mm", "lesion_mm", "drop"):
            object.__setattr__(self, name, tuple(getattr(self, name)))


@dataclass(frozen=True)
class Study:
    """A volume with its X-rays.

    Attributes:
        hu: the grid, float32 HU [X, Y, Z].
        views: line integrals, float32 [V, H, W]; zero where a view is missing.
        valid: float32 [V].
        projections: patient mm to pixels, float32 [V, 3, 4].
    """

    hu: FloatArray
    views: FloatArray
    valid: FloatArray
    projections: FloatArray


def plain_study(person: Person, grid: Grid, geometry: Geometry, threads: int = 0) -> Study:
    """The person as they are: the grid resampled, the X-rays projected from the whole CT at its own resolution."""
    mu = attenuation(np.asarray(person.hu(), np.float32))
    views = np.stack([project(mu, person.index_to_mm, view, threads=threads) for view in geometry.views])
    projections = np.stack([view.matrix for view in geometry.views]).astype(np.float32)
    return Study(resample(person, grid), views, np.ones(len(views), np.float32), projections)


def augmented_study(
    person: Person,
    grid: Grid,
    geometry: Geometry,
    config: AugmentConfig,
    rng: np.random.Generator,
    display_p99: Sequence[float],
) -> Study:
    """A random study of the person; the same generator state gives the same study.

    Args:
        person: whose CT.
        grid: the voxels.
        geometry: the bundle's own views.
        config: how far it may differ.
        rng: where the chances come from.
        display_p99: per view, what the sampler scales a display picture's 99th percentile to.
    """
    spacing = np.asarray(grid.spacing_mm)
    margin = np.round(np.asarray(config.margin_mm) / spacing).astype(int)
    box_shape = np.asarray(grid.shape) + 2 * margin
    box = _resampled_box(person, box_shape, spacing, config, rng)
    box = _change_density(box, config, rng)
    _insert_lesions(box, spacing, config, rng)
    if rng.random() < config.crop:
        _cut_field_of_view(box, spacing, rng)
    index_to_mm = np.diag([*spacing, 1.0])
    index_to_mm[:3, 3] = -spacing * (box_shape - 1) / 2
    mu = attenuation(box)
    cone = rng.random() < config.cone
    sdd = rng.uniform(1000, 2000)
    sod = sdd - rng.uniform(180, 420)
    views, projections = [], []
    for view, reference in zip(geometry.views, display_p99, strict=True):
        true, told = _posed_views(view, cone, sod, sdd, config, rng)
        image = project(mu, index_to_mm, true, threads=1)
        image = radiograph(image, view.spacing_mm, reference, config.radiograph, rng)
        views.append(_degrade(image, config, rng))
        projections.append(told.matrix)
    valid = (rng.random(len(views)) >= np.asarray(config.drop)).astype(np.float32)
    if not valid.any():
        valid[0] = 1.0
    cut = tuple(slice(m, m + n) for m, n in zip(margin, grid.shape, strict=True))
    return Study(
        np.ascontiguousarray(box[cut]),
        np.stack(views) * valid[:, None, None],
        valid,
        np.stack(projections).astype(np.float32),
    )


def _resampled_box(
    person: Person, shape: npt.NDArray[np.int64], spacing: FloatArray, config: AugmentConfig, rng: np.random.Generator
) -> FloatArray:
    """The person's body on the box's voxels, posed and warped; outside is air."""
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * config.rotation_deg)
    scales = np.exp(rng.uniform(-1, 1) * config.scale + rng.uniform(-0.5, 0.5, 3) * config.scale)
    if rng.random() < config.flip:
        scales[0] = -scales[0]
    matrix = _rotation(angles) @ np.diag(1 / scales)
    shift = rng.uniform(-1, 1, 3) * config.shift_mm
    mm_to_index = np.linalg.inv(person.index_to_mm)
    # box voxel -> box mm -> person mm -> person voxel -> grid_sample's [-1, 1], composed into one affine.
    to_mm = np.diag([*spacing, 1.0])
    to_mm[:3, 3] = -spacing * (np.asarray(shape) - 1) / 2
    pose = np.eye(4)
    pose[:3, :3] = matrix
    pose[:3, 3] = shift
    source_shape = np.asarray(person.hu().shape)
    to_unit = np.diag([*(2 / source_shape), 1.0])
    to_unit[:3, 3] = 1 / source_shape - 1
    affine = to_unit @ mm_to_index @ pose @ to_mm
    axes = [np.arange(n, dtype=np.float32) for n in shape]
    grid = torch.from_numpy(np.zeros((*shape, 3), np.float32))
    for axis in range(3):
        row = affine[axis]
        parts = [torch.from_numpy((row[k] * axes[k]).astype(np.float32)) for k in range(3)]
        grid[..., axis] = parts[0][:, None, None] + parts[1][None, :, None] + (parts[2] + float(row[3]))[None, None, :]
    if config.warp_mm > 0:
        nodes = rng.normal(0, config.warp_mm, (1, 3, 6, 6, 6)).astype(np.float32)
        smooth = functional.avg_pool3d(torch.from_numpy(nodes), 3, 1, 1, count_include_pad=False) * 2.5
        field = functional.interpolate(smooth, size=tuple(int(n) for n in shape), mode="trilinear", align_corners=True)
        for axis in range(3):
            grid[..., axis] += field[0, axis] * float((to_unit @ mm_to_index)[axis, axis])
    # grid_sample's last axis order is (z, y, x) for a volume stored (x, y, z).
    source = torch.from_numpy(np.asarray(person.hu(), np.float32) + 1000.0)[None, None]
    sampled = functional.grid_sample(source, grid.flip(-1)[None], mode="bilinear", align_corners=False)
    return np.asarray(sampled[0, 0].numpy() - 1000.0, np.float32)


def _rotation(angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rotation about x, then y, then z, in radians."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def _change_density(hu: FloatArray, config: AugmentConfig, rng: np.random.Generator) -> FloatArray:
    """Denser or lighter bone (above 150 HU) and lung (below -400 HU), as people and scanners differ."""
    bone, lung = 1 + rng.uniform(-1, 1, 2) * config.density
    knots = np.asarray([-1000.0, -850.0, -400.0, 150.0, 3000.0])
    values = np.asarray([-1000.0, -1000.0 + 150.0 * lung, -400.0, 150.0, 150.0 + 2850.0 * bone])
    return np.asarray(np.interp(hu, knots, values), np.float32)


LESION_HU = ((0.0, 80.0), (0.0, 80.0), (0.0, 80.0), (200.0, 900.0), (-1000.0, -700.0))
"""Ranges that a lesion's HU are drawn from, one of them each time: masses, calcifications, cavities."""

LESION_EDGE_MM = 2.0


def _insert_lesions(hu: FloatArray, spacing: FloatArray, config: AugmentConfig, rng: np.random.Generator) -> None:
    """Put ellipsoids of another density into the body, in place.

    Only the X-rays tell where they are: a network that draws the anatomy it remembers misses them.
    """
    for _ in range(int(rng.integers(config.lesions + 1))):
        radii = np.exp(rng.uniform(*np.log(config.lesion_mm)) + rng.uniform(-0.3, 0.3, 3))
        value = rng.uniform(*LESION_HU[int(rng.integers(len(LESION_HU)))])
        centre = rng.uniform(0.15, 0.85, 3) * hu.shape
        reach = (radii + 3 * LESION_EDGE_MM) / spacing
        low = np.maximum(centre - reach, 0).astype(int)
        high = np.minimum(centre + reach + 1, hu.shape).astype(int)
        part = hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        axes = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        squares = [((axis - c) * s / r) ** 2 for axis, c, s, r in zip(axes, centre, spacing, radii, strict=True)]
        outside_mm = (np.sqrt(sum(squares)) - 1) * radii.min()
        share = np.where(part > -1000, 1 / (1 + np.exp(np.clip(outside_mm / (LESION_EDGE_MM / 2), -30, 30))), 0)
        part += (share * (value - part)).astype(np.float32)


def _cut_field_of_view(hu: FloatArray, spacing: FloatArray, rng: np.random.Generator) -> None:
    """Air beyond a shorter scan or a narrower scan circle, in place."""
    x, y, z = hu.shape
    if rng.random() < 0.5:
        half = rng.uniform(110, 160) / spacing[2]
        low, high = int(max(0, z / 2 - half)), int(min(z, z / 2 + half))
        hu[:, :, :low] = -1000
        hu[:, :, high:] = -1000
    else:
        radius = rng.uniform(140, 190)
        gx, gy = np.ogrid[:x, :y]
        outside = ((gx - x / 2) * spacing[0]) ** 2 + ((gy - y / 2) * spacing[1]) ** 2 > radius**2
        hu[outside] = -1000


def _posed_views(
    view: View, cone: bool, sod: float, sdd: float, config: AugmentConfig, rng: np.random.Generator
) -> tuple[View, View]:
    """The view as it is taken, and as the network is told that it is."""
    angle = view.angle_deg + rng.uniform(-1, 1) * config.view_deg
    error = rng.uniform(-1, 1) * config.unknown_deg
    name = view.name
    if cone and name == "ap" and rng.random() < 0.5:
        name, angle = "pa", angle + 180.0

    # Some detectors are as large as the parallel one, some see as much of the body.
    larger = rng.uniform(1, sdd / sod)
    spacing = (view.spacing_mm[0] * larger, view.spacing_mm[1] * larger)

    def at(degrees: float) -> View:
        if cone:
            return View.cone(name, degrees, sod_mm=sod, sdd_mm=sdd, shape=view.shape, spacing_mm=spacing)
        return View.parallel(name, degrees, shape=view.shape, spacing_mm=view.spacing_mm)

    return at(angle + error), at(angle)


def _degrade(image: FloatArray, config: AugmentConfig, rng: np.random.Generator) -> FloatArray:
    """Another intensity scale for some views, and white noise; nothing below 0."""
    if rng.random() < config.uncalibrated:
        image = degradation.gamma(image, rng.uniform(0.75, 1.3), rng.uniform(0.85, 1.15))
    sigma = rng.uniform(0, config.noise) * max(float(image.max()), 1e-3)
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, None).astype(np.float32)
