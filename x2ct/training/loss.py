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
