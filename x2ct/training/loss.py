"""EDM's loss over patches of a study: Patch Diffusion's patches, noise levels, weights, and the weight of bone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from x2ct.data.augment import Study, interpolated
from x2ct.geometry.grid import Grid
from x2ct.training.checkpoint import State
from x2ct.training.config import DiffusionConfig, PatchConfig, TrainConfig

DETAIL_MM = 10.0
BONE_RAMP_HU = 200.0

Level = TypeVar("Level", Tensor, float)


class Patches(NamedTuple):
    """Boxes of the grid, of one size: the first voxel of each, int64 [N, 3], and their voxels along x, y, z."""

    origins: Tensor
    sides: tuple[int, int, int]


def draw_patches(
    grid: Grid, config: PatchConfig, stride: int, rng: np.random.Generator, progress: float = 0.0
) -> Patches:
    """Draw patches of one drawn size, as many as fill the configured number of voxels.

    Origins are multiples of `stride`; `progress` is the share of the run that is done, for the progressive schedule.
    """
    size = int(rng.choice(config.sizes, p=size_probabilities(config, progress)))
    x, y, z = grid.shape
    sides = (x, y, min(size, z)) if config.shape == "slab" else (min(size, x), min(size, y), min(size, z))
    count = max(1, config.voxels // int(np.prod(sides)))
    places = [(n - side) // stride + 1 for n, side in zip(grid.shape, sides, strict=True)]
    origins = [[int(rng.integers(0, place)) * stride for place in places] for _ in range(count)]
    return Patches(torch.tensor(origins), sides)


def size_probabilities(config: PatchConfig, progress: float) -> tuple[float, ...]:
    """Return how often each size is drawn at this point of the run; once progressive, one size at a time."""
    if config.schedule == "stochastic":
        return config.probabilities
    ends = np.cumsum(config.probabilities)
    now = min(int(np.searchsorted(ends, progress, side="right")), len(ends) - 1)
    return tuple(float(index == now) for index in range(len(ends)))


def sliced(volume: Tensor, origins: Tensor, size: Sequence[int]) -> Tensor:
    """Cut boxes out of a volume [1, C, X, Y, Z]: [N, C, *size]; origins are int64 [N, 3], on the host."""
    boxes = []
    for origin in origins.tolist():
        x, y, z = (slice(o, o + n) for o, n in zip(origin, size, strict=True))
        boxes.append(volume[..., x, y, z])
    return torch.cat(boxes)


def draw_sigmas(count: int, config: DiffusionConfig, generator: torch.Generator) -> Tensor:
    """Draw noise levels [count] float32: sigma_max with probability mean_share, else log-normal, cut to the range."""
    normal = torch.randn(count, generator=generator) * config.log_std + config.log_mean
    sigmas = normal.exp().clamp(config.sigma_min / 2, config.sigma_max)
    top = torch.rand(count, generator=generator) < config.mean_share
    return torch.where(top, torch.full_like(sigmas, config.sigma_max), sigmas)


def edm_weight(sigma: Level, sigma_data: float) -> Level:
    """Return lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (Karras et al. 2022, Table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


class Draw(NamedTuple):
    """The inputs of a loss, as tensors on the training's device but for the origins."""

    views: Tensor
    valid: Tensor
    projections: Tensor
    x: Tensor  # the true volume [X, Y, Z], in the network's unit
    origins: Tensor  # of N patches; int64 [N, 3]
    sigma: Tensor  # [N]
    noise: Tensor  # [N, 1, X, Y, Z]; its sides are the patches'

    @classmethod
    def of(cls, state: State, study: Study, patches: Patches, generator: torch.Generator) -> Draw:
        """Draw noise levels and noise for patches of a study."""
        config, device, count = state.config, state.coords.device, len(patches.origins)
        x = interpolated(study.hu.to(device), config.intensity.hu, config.intensity.x)
        sigma = draw_sigmas(count, config.diffusion, generator).to(device)
        noise = torch.randn((count, 1, *patches.sides), generator=generator).to(device)
        return cls(*study.inputs(device), x, patches.origins, sigma, noise)


Cut = Callable[[Tensor, Tensor, Sequence[int]], Tensor]
"""Cuts patches out of a volume: `sliced`, or `cudagraph.cut` where the origins are on a GPU."""


def draw_loss(state: State, draw: Draw, cut: Cut = sliced) -> Tensor:
    """Return EDM's weighted loss over patches of one study, plus the coarse prediction's over all of it.

    The X-rays are encoded and lifted once, for the whole volume; each patch gets its part of the condition.
    """
    model, config, coords = state.model, state.config, state.coords
    views, valid, projections, x, origins, sigma, noise = draw

    def cut_out(volume: Tensor, stride: int) -> Tensor:
        return cut(volume, origins // stride, [side // stride for side in noise.shape[2:]])

    truth = cut_out(x[None, None], 1)
    with torch.autocast(coords.device.type, torch.bfloat16) if config.autocast else nullcontext():
        with torch.no_grad() if config.optim.denoiser_only else nullcontext():
            condition, sketch = model.condition(views, valid, projections, coords[None])
        conditions = cut_out(condition, config.model.stem)
        # The coarse prediction is the posterior mean by its own loss alone; the denoiser works about it as it is.
        sketches = cut_out(sketch.detach(), 1)
        noisy = truth + noise * sigma.reshape(-1, 1, 1, 1, 1)
        denoised = model.denoiser.denoise(noisy, sigma, conditions, sketches)
    loss = (edm_weight(sigma, config.model.sigma_data) * squared_error(denoised, truth, config)).mean()
    if config.optim.denoiser_only:
        return loss
    # EDM's weight where sigma goes to infinity, where the posterior mean is all that can be said.
    guide = squared_error(sketch, x[None, None], config).mean() / config.model.sigma_data**2
    return loss + config.optim.sketch_weight * guide


def squared_error(result: Tensor, truth: Tensor, config: TrainConfig) -> Tensor:
    """Return the mean squared error of each of N volumes, bone and what changes within 10 mm weighing more; [N].

    Bone is what the result itself shows as bone, not the truth: a weight that depends on nothing but what the network
    sees leaves the posterior mean the best result, where one that depends on the truth draws it towards bone.
    """
    error = result.float() - truth
    weight = 1.0 + config.optim.bone_weight * bone_share(result.detach().float(), config)
    total = (weight * error.square()).mean((1, 2, 3, 4))
    if config.optim.detail_weight:
        total = total + config.optim.detail_weight * detail_error(error, weight, config.grid.spacing_mm)
    return total


def bone_share(x: Tensor, config: TrainConfig) -> Tensor:
    """Return how far each voxel counts as bone, 0 to 1: linear over `BONE_RAMP_HU` about `bone_hu`."""
    low, high = (float(config.intensity.to_x(config.optim.bone_hu + side * BONE_RAMP_HU / 2)) for side in (-1, 1))
    return ((x - low) / (high - low)).clamp(0, 1)


def detail_error(error: Tensor, weight: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
    """Return half the mean square of an error's differences over `DETAIL_MM` along each axis, averaged over axes; [N].

    Each difference counts as much as the voxels at its ends weigh. With weights of 1, white noise has its variance; a
    wave along an axis has a factor of 2 sin^2(pi d / wavelength) / 3 of its mean square: most at 20 mm, as from
    vertebra to vertebra or rib to rib, and almost nothing where it is long. It is a quadratic form of the error
    [N, 1, X, Y, Z], so the posterior mean minimises it too where weights of that shape do not depend on the truth.
    """
    total = torch.zeros(len(error), device=error.device)
    for axis, pitch in enumerate(spacing_mm, start=2):
        lag = max(1, round(DETAIL_MM / pitch))
        apart = error.shape[axis] - lag
        step = error.narrow(axis, lag, apart) - error.narrow(axis, 0, apart)
        weights = (weight.narrow(axis, lag, apart) + weight.narrow(axis, 0, apart)) / 2
        total = total + (weights * step.square()).mean((1, 2, 3, 4)) / 6
    return total
