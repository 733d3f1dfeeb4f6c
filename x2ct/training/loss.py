"""EDM's loss: noise levels, weights, and the weight of bone."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from x2ct.training.config import DiffusionConfig

Level = TypeVar("Level", Tensor, float)


def draw_sigmas(count: int, config: DiffusionConfig, generator: torch.Generator) -> Tensor:
    """Noise levels [count] float32: sigma_max with probability mean_share, else log-normal, cut to the range."""
    normal = torch.randn(count, generator=generator) * config.log_std + config.log_mean
    sigmas = normal.exp().clamp(config.sigma_min / 2, config.sigma_max)
    top = torch.rand(count, generator=generator) < config.mean_share
    return torch.where(top, torch.full_like(sigmas, config.sigma_max), sigmas)


def edm_weight(sigma: Level, sigma_data: float) -> Level:
    """Return lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (Karras et al. 2022, Table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def bone_weights(x: Tensor, threshold: float, extra: float) -> Tensor:
    """1, and 1 + extra where the true volume is bone (x above the threshold, in the network's unit)."""
    return 1.0 + extra * (x > threshold).to(x.dtype)


def clipped_error(result: Tensor, truth: Tensor) -> Tensor:
    """result - truth, and 0 where the truth is -1 or 1 and the result lies beyond.

    The truth is cut to [-1, 1], and the denoiser's output is cut to it when it samples. A network that may
    overshoot makes air of exactly -1 instead of noise about it; the gradient of a wrong overshoot stays.
    """
    beyond = ((truth <= -1) & (result < -1)) | ((truth >= 1) & (result > 1))
    return torch.where(beyond, 0, result - truth)
