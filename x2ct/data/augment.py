"""One training study out of one patient: a posed, scaled and gently deformed body, its grid and its X-rays.

The body is resampled once onto a box that is larger than the grid and shares its voxels; the grid is cut out of the
box, the X-rays are projected from all of it. So the X-rays see more than the grid, as they do in life.

Everything random is drawn on the host first, as one `StudyPlan`; `render` then makes the study where the body lies, on
a CPU or a GPU. Only noise on the pixels is drawn there, from the plan's own seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from x2ct.data import imaging
from x2ct.data.imaging import Display, Physics, RadiographConfig
from x2ct.data.projection import attenuation, ray_sums
from x2ct.data.shapes import Shapes, at_mm
from x2ct.data.shards import AIR_HU, Patient, resample
from x2ct.geometry import Geometry, View
from x2ct.geometry.grid import Grid, rotation

FloatArray = npt.NDArray[np.float32]

LESION_HU = ((0.0, 80.0), (0.0, 80.0), (0.0, 80.0), (200.0, 900.0), (-1000.0, -700.0))
"""Ranges that a lesion's HU are drawn from, one of them each time: masses, calcifications, cavities."""

LESION_EDGE_MM = 2.0

_DENSITY_HU = (-1000.0, -850.0, -400.0, 150.0, 3000.0)
_NODES = 6  # of the coarse warp along each axis; the fine one has nodes in between too


@dataclass(frozen=True)
class AugmentConfig:
    """How far a study may differ from the patient it was made of."""

    margin_mm: tuple[float, float, float] = (60.0, 20.0, 60.0)  # of the projected box, on each side of the grid
    rotation_deg: float = 6.0  # largest about each axis
    scale: float = 0.12  # largest relative change of size (in the logarithm), and half of it again by axis
    shift_mm: float = 15.0  # largest along each axis
    # Standard deviation of a random displacement at nodes a fifth of the box apart, about 90 mm, before they are
    # smoothed, which leaves about half of it; 10 to 15 for strong variation.
    warp_mm: float = 5.0
    fine_warp_mm: float = 0.0  # the same for a finer one beside it, at nodes half as far apart; 2 to 4 where it is used
    # Largest part of another training patient's shape that a chest takes on, 1 for all of it; needs
    # `x2ct prepare --shapes`.
    shape: float = 0.0
    flip: float = 0.5  # probability of exchanging left and right
    density: float = 0.1  # largest relative change of bone and lung density
    lesions: int = 0  # largest number of synthetic masses, calcifications and cavities put into the body
    lesion_mm: tuple[float, float] = (4.0, 25.0)  # smallest and largest radius; drawn evenly in the logarithm
    crop: float = 0.25  # probability of a field of view that cuts the body
    cone: float = 0.35  # probability of a cone beam instead of the bundle's own geometry
    view_deg: float = 4.0  # largest error of a view's angle, known to the network
    unknown_deg: float = 1.0  # largest error of a view's angle that the network is not told
    noise: float = 0.02  # largest relative standard deviation of white noise on the line integrals
    uncalibrated: float = 0.3  # probability that line integrals are scaled and bent, by another voltage or detector
    radiograph: RadiographConfig = field(default_factory=RadiographConfig)  # detector's physics, and display pictures
    # Probability of each view slot to be missing (never all of them); as it is, `TrainConfig` fits it to one view too.
    drop: tuple[float, ...] = (0.08, 0.15)


@dataclass(frozen=True)
class Study:
    """A volume with its X-rays, all on one device."""

    hu: Tensor  # the grid, float32 HU [X, Y, Z]
    views: Tensor  # line integrals, float32 [V, H, W]; zero where a view is missing
    valid: Tensor  # float32 [V]
    projections: Tensor  # patient mm to pixels, float32 [V, 3, 4]

    def inputs(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return views [1, V, 1, H, W], valid [1, V] and P [1, V, 3, 4] as the networks take them."""
        views, valid, projections = self.views[None, :, None], self.valid[None], self.projections[None]
        return views.to(device), valid.to(device), projections.to(device)


@dataclass(frozen=True)
class Lesion:
    """A synthetic lesion: an ellipsoid's middle in voxels of the box, its radii in mm, and its HU."""

    centre: tuple[float, ...]
    radii_mm: tuple[float, ...]
    hu: float


@dataclass(frozen=True)
class ViewPlan:
    """One X-ray of a planned study."""

    actual: View  # that the X-ray is taken from
    nominal: View  # that the network is given
    spacing_mm: tuple[float, float]  # pixel pitch for the detector's physics
    reference_p99: float  # what a display picture's 99th percentile is scaled to
    physics: Physics | None
    display: Display | None
    tone: tuple[float, float] | None  # exponent and scale of another calibration
    noise: float  # standard deviation of white noise, relative to the largest value
    seed: int  # of the noise on the pixels


@dataclass(frozen=True, eq=False)
class StudyPlan:
    """All that is random about a study, but for the noise on the pixels."""

    grid: Grid  # the study's voxels
    box: Grid  # the voxels that are resampled and projected: the grid's and as many more on either side
    # float32 [3, N, N, N], (z, y, x) of the body from -1 to 1 between its outer faces, at N nodes along each axis of
    # the box, the first and the last in the middle of its outer voxels; linear in between.
    positions: FloatArray
    density: tuple[float, ...]  # HU that `_DENSITY_HU` are changed to
    lesions: tuple[Lesion, ...]
    slices: tuple[int, int] | None  # first and last + 1 of the box's axial slices that the scan has; None for all
    circle_mm: float | None  # radius of the scan circle
    views: tuple[ViewPlan, ...]
    valid: tuple[bool, ...]  # which of them are given


def plain_study(patient: Patient, grid: Grid, geometry: Geometry) -> Study:
    """Return the patient as they are, on a CPU: X-rays are projected from the whole CT at its own resolution."""
    mu = attenuation(body_of(patient).float())
    views = torch.stack([ray_sums(mu, patient.index_to_mm, view) for view in geometry.views])
    hu = torch.from_numpy(resample(patient, grid))
    return Study(hu, views, views.new_ones(len(views)), _matrices(geometry.views, mu.device))


def body_of(patient: Patient, device: str | torch.device = "cpu") -> Tensor:
    """Return the whole body on a device, int16 HU [x, y, z]."""
    return torch.from_numpy(np.array(patient.hu())).to(device)


def draw_plan(
    patient: Patient,
    grid: Grid,
    geometry: Geometry,
    config: AugmentConfig,
    rng: np.random.Generator,
    display_p99: Sequence[float],
    shapes: Shapes | None = None,
) -> StudyPlan:
    """Draw all random choices of a study of a patient; the same generator state gives the same plan.

    `geometry` has the bundle's own views, and `display_p99`, for each of them, what the sampler scales a display
    picture's 99th percentile to. `shapes` are those of the training patients, for `config.shape`.
    """
    margin = np.round(np.asarray(config.margin_mm) / grid.spacing_mm).astype(int)
    x, y, z = (grid.shape + 2 * margin).tolist()
    box = Grid((x, y, z), grid.spacing_mm)
    positions = _draw_positions(patient, box, config, rng, shapes)
    bone, lung = 1 + rng.uniform(-1, 1, 2) * config.density
    density = (-1000.0, -1000.0 + 150.0 * lung, -400.0, 150.0, 150.0 + 2850.0 * bone)
    lesions = _draw_lesions(box, config, rng)
    slices = circle = None
    if rng.random() < config.crop:
        if rng.random() < 0.5:
            half = rng.uniform(110, 160) / grid.spacing_mm[2]
            slices = int(max(0, z / 2 - half)), int(min(z, z / 2 + half))
        else:
            circle = rng.uniform(140, 190)
    cone, sdd = rng.random() < config.cone, rng.uniform(1000, 2000)
    beam = cone, sdd - rng.uniform(180, 420), sdd
    views = tuple(
        _draw_view(view, reference, beam, config, rng)
        for view, reference in zip(geometry.views, display_p99, strict=True)
    )
    valid = rng.random(len(views)) >= np.asarray(config.drop)
    valid[0] |= not valid.any()
    return StudyPlan(grid, box, positions, density, lesions, slices, circle, views, tuple(valid.tolist()))


def _draw_positions(
    patient: Patient, box: Grid, config: AugmentConfig, rng: np.random.Generator, shapes: Shapes | None
) -> FloatArray:
    """Draw where the box's nodes lie in the body: pose, smooth displacement, part of another patient's shape."""
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * config.rotation_deg)
    scales = np.exp(rng.uniform(-1, 1) * config.scale + rng.uniform(-0.5, 0.5, 3) * config.scale)
    if rng.random() < config.flip:
        scales[0] = -scales[0]
    turn = rotation(angles) @ np.diag(1 / scales)
    shift = rng.uniform(-1, 1, 3) * config.shift_mm
    # body mm -> body voxel -> grid_sample's [-1, 1] between the outer faces
    body_shape = np.asarray(patient.shape)
    to_unit = np.diag([*(2 / body_shape), 1.0])
    to_unit[:3, 3] = 1 / body_shape - 1
    to_unit = to_unit @ np.linalg.inv(patient.index_to_mm)
    displacement = _draw_displacement(config, rng)
    towards = shapes.towards(patient.id, rng, config.shape) if shapes is not None and config.shape else None
    if towards is not None:  # nodes as fine as the displacements of `shapes`
        displacement = functional.interpolate(
            torch.from_numpy(displacement)[None], size=towards.shape[1:], mode="trilinear", align_corners=True
        )[0].numpy()
    to_mm = box.index_to_mm
    steps = [np.linspace(0, n - 1, displacement.shape[1]) for n in box.shape]
    index = np.stack(np.meshgrid(*steps, indexing="ij")).reshape(3, -1)
    mm = turn @ (to_mm[:3, :3] @ index + to_mm[:3, 3:]) + shift[:, None]
    if towards is not None:
        mm = mm + at_mm(towards, mm)
    mm = mm + displacement.reshape(3, -1)
    unit = to_unit[:3, :3] @ mm + to_unit[:3, 3:]
    return np.ascontiguousarray(unit[::-1].reshape(displacement.shape), np.float32)  # grid_sample's order is z, y, x


def _draw_displacement(config: AugmentConfig, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw displacements in mm at nodes, float64 [3, N, N, N]: the coarse warp and, if configured, the fine one."""
    if not config.warp_mm and not config.fine_warp_mm:
        return np.zeros((3, 2, 2, 2))

    def smooth(mm: float, nodes: int) -> Tensor:
        normal = torch.from_numpy(rng.normal(0, mm, (1, 3, nodes, nodes, nodes)).astype(np.float32))
        return functional.avg_pool3d(normal, 3, 1, 1, count_include_pad=False) * 2.5

    field = smooth(config.warp_mm, _NODES)
    if config.fine_warp_mm:
        fine = 2 * _NODES - 1  # the coarse nodes and their middles, so that the coarse warp stays as it is
        field = functional.interpolate(field, size=(fine,) * 3, mode="trilinear", align_corners=True)
        field = field + smooth(config.fine_warp_mm, fine)
    return np.asarray(field[0].numpy(), np.float64)


def _draw_lesions(box: Grid, config: AugmentConfig, rng: np.random.Generator) -> tuple[Lesion, ...]:
    """Draw up to `config.lesions` lesions, anywhere but near the box's border."""
    lesions = []
    for _ in range(int(rng.integers(config.lesions + 1))):
        radii = np.exp(rng.uniform(*np.log(config.lesion_mm)) + rng.uniform(-0.3, 0.3, 3))
        value = rng.uniform(*LESION_HU[int(rng.integers(len(LESION_HU)))])
        centre = rng.uniform(0.15, 0.85, 3) * box.shape
        lesions.append(Lesion(tuple(centre.tolist()), tuple(radii.tolist()), value))
    return tuple(lesions)


def _draw_view(
    view: View, reference_p99: float, beam: tuple[bool, float, float], config: AugmentConfig, rng: np.random.Generator
) -> ViewPlan:
    """Draw the view's place and what happens to its X-ray; `beam` is whether it is a cone, its SOD and its SDD."""
    cone, sod, sdd = beam
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

    looks = config.radiograph
    physics = imaging.draw_physics(looks, rng) if rng.random() < looks.physics else None
    display = imaging.draw_display(looks, view.shape, rng) if rng.random() < looks.display else None
    tone = (rng.uniform(0.75, 1.3), rng.uniform(0.85, 1.15)) if rng.random() < config.uncalibrated else None
    noise = rng.uniform(0, config.noise)
    seed = int(rng.integers(2**62))
    return ViewPlan(at(angle + error), at(angle), view.spacing_mm, reference_p99, physics, display, tone, noise, seed)


@torch.no_grad()
def render(body: Tensor, plan: StudyPlan) -> Study:
    """Return the study that was planned for a body, int16 HU [x, y, z], on the body's device; outside is air."""
    box = _posed(body, plan)
    mu, affine = attenuation(box), plan.box.index_to_mm
    views = [
        _pictured(ray_sums(mu, affine, view.actual), view) if valid_view else mu.new_zeros(view.actual.shape)
        for view, valid_view in zip(plan.views, plan.valid, strict=True)
    ]
    inside = zip(plan.box.shape, plan.grid.shape, strict=True)
    inner = tuple(slice((all_ - n) // 2, (all_ + n) // 2) for all_, n in inside)
    valid = torch.tensor(plan.valid, dtype=torch.float32, device=body.device)
    nominal = _matrices([view.nominal for view in plan.views], body.device)
    return Study(box[inner].contiguous(), torch.stack(views), valid, nominal)


def _posed(body: Tensor, plan: StudyPlan) -> Tensor:
    """Return the body on the box's voxels, float32 HU: posed, warped, with changed density and field of view."""
    x, y, z = plan.box.shape
    nodes = torch.from_numpy(plan.positions).to(body.device).movedim(0, 1)
    # Linear along y and z once, then along x from node to node: far cheaper than a trilinear upsampling.
    nodes = functional.interpolate(nodes, size=(y, z), mode="bilinear", align_corners=True)
    nodes = nodes.permute(0, 2, 3, 1).contiguous()
    source = body.float().sub_(AIR_HU)[None, None]
    at = np.linspace(0, len(nodes) - 1, x)
    box = source.new_empty(x, y, z)
    for segment in range(len(nodes) - 1):
        rows = np.flatnonzero(np.minimum(at.astype(int), len(nodes) - 2) == segment)
        if not len(rows):
            continue
        share = torch.from_numpy((at[rows] - segment).astype(np.float32)).to(body.device)
        where = torch.lerp(nodes[segment], nodes[segment + 1], share[:, None, None, None])
        sampled = functional.grid_sample(source, where[None], mode="bilinear", align_corners=False)[0, 0]
        box[rows[0] : rows[-1] + 1] = interpolated(sampled.add_(AIR_HU), _DENSITY_HU, plan.density)
    for lesion in plan.lesions:
        _insert(box, lesion, plan.grid.spacing_mm)
    if plan.slices is not None:
        low, high = plan.slices
        box[:, :, :low] = AIR_HU
        box[:, :, high:] = AIR_HU
    if plan.circle_mm is not None:
        across, along = (
            (torch.arange(n, dtype=torch.float64, device=body.device) - n / 2) * pitch
            for n, pitch in zip((x, y), plan.grid.spacing_mm[:2], strict=True)
        )
        outside = across[:, None].square() + along.square() > plan.circle_mm**2
        box.masked_fill_(outside[:, :, None], AIR_HU)
    return box


def _insert(box: Tensor, lesion: Lesion, spacing_mm: tuple[float, float, float]) -> None:
    """Put an ellipsoid of another density into the body, in place.

    Only the X-rays tell where it is: a network that draws the anatomy it remembers misses it.
    """
    cut, squares = [], []
    for axis, (centre, radius, pitch) in enumerate(zip(lesion.centre, lesion.radii_mm, spacing_mm, strict=True)):
        reach = (radius + 3 * LESION_EDGE_MM) / pitch
        low, high = int(max(centre - reach, 0)), int(min(centre + reach + 1, box.shape[axis]))
        index = torch.arange(low, high, dtype=torch.float64, device=box.device)
        squares.append(
            ((index - centre) * (pitch / radius)).square().reshape([-1 if k == axis else 1 for k in range(3)])
        )
        cut.append(slice(low, high))
    part = box[tuple(cut)]
    outside_mm = ((squares[0] + squares[1] + squares[2]).sqrt() - 1) * min(lesion.radii_mm)
    share = torch.sigmoid(-outside_mm / (LESION_EDGE_MM / 2)).float() * (part > AIR_HU)
    part.add_(share * (lesion.hu - part))


def interpolated(values: Tensor, knots: Sequence[float], results: Sequence[float]) -> Tensor:
    """Return `numpy.interp` on a device: piecewise linear between knots, constant beyond them; float32."""
    total = torch.full_like(values, results[0])
    pairs = list(zip(knots, results, strict=True))
    for (low, start), (high, end) in zip(pairs, pairs[1:], strict=False):
        total.add_((values - low).clamp_(0, high - low), alpha=(end - start) / (high - low))
    return total


def _pictured(image: Tensor, view: ViewPlan) -> Tensor:
    """Return line integrals after physics, display, another calibration and white noise; nothing is below 0."""
    generator = torch.Generator(image.device).manual_seed(view.seed)
    if view.physics is not None:
        image = imaging.detected(image, view.spacing_mm, view.physics, generator)
    if view.display is not None:
        image = imaging.displayed(image, view.reference_p99, view.display)
    if view.tone is not None:
        image = imaging.toned(image, *view.tone)
    if view.noise:
        sigma = view.noise * image.max().clamp(min=1e-3)
        noise = torch.randn(image.shape, generator=generator, device=image.device)
        image = image + noise * sigma
    return image.clamp(min=0)


def _matrices(views: Sequence[View], device: torch.device) -> Tensor:
    """Return patient mm to pixels, float32 [V, 3, 4]."""
    return torch.from_numpy(np.stack([view.matrix for view in views]).astype(np.float32)).to(device)
