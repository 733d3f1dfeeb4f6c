"""Exponential moving averages with the power-function profile (Karras et al. 2024, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

MAX_WIDTH = 0.28
"""No profile is as wide: gamma would be below 0."""


def power_gamma(relative_width: float) -> float:
    """Return the exponent gamma of the profile with a standard deviation of `relative_width` of the training so far.

    Solves sigma_rel = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))) for its one positive root (their equation 123).
    """
    s = relative_width**-2
    return float(max(root.real for root in np.roots([1, 7, 16 - s, 12 - s]) if abs(root.imag) < 1e-9))


def posthoc_shares(kept: Sequence[tuple[int, float]], step: int, relative_width: float) -> np.ndarray:
    """Return the share of each kept average in another average: post-hoc EMA (Karras et al. 2024, section 3.2).

    The wanted profile, p(t; T, gamma) = (gamma + 1) t^gamma / T^(gamma + 1) for 0 <= t <= T, is projected onto those of
    the kept averages by least squares; the inner products have a closed form (their appendix C.3).

    `kept` are the step and the relative width of each kept average; `step` is the last one of the wanted average and
    `relative_width` its width, above 0 and below `MAX_WIDTH`. The shares are float64, in the order of `kept`; their sum
    is 1.
    """
    end = np.array([t for t, _ in kept], dtype=np.float64) / step
    gamma = np.array([power_gamma(width) for _, width in kept])

    def inner(a: np.ndarray, g: np.ndarray, b: np.ndarray, h: np.ndarray) -> np.ndarray:
        shorter = np.minimum(a, b)
        scale: np.ndarray = (g + 1) * (h + 1) / (g + h + 1) * shorter / (a * b)
        return np.asarray(scale * (shorter / a) ** g * (shorter / b) ** h)

    left = inner(end[:, None], gamma[:, None], end[None], gamma[None])
    right = inner(end, gamma, np.ones_like(end), np.full_like(gamma, power_gamma(relative_width)))
    shares: np.ndarray = np.linalg.lstsq(left, right, rcond=1e-10)[0]
    return np.asarray(shares / shares.sum())


class PowerEMA:
    """An average of a model's parameters whose memory grows with the training.

    `relative_width` is the profile's relative standard deviation, above 0 and below `MAX_WIDTH`.
    """

    def __init__(self, model: nn.Module, relative_width: float) -> None:
        self.relative_width = relative_width
        self.gamma = power_gamma(relative_width)
        self.shadow = {name: value.detach().clone() for name, value in model.named_parameters()}

    def weight(self, step: int) -> float:
        """Return the share of the parameters after step `step` (1 for the first): 1 - (1 - 1/step)^(gamma + 1)."""
        return 1 - math.pow(1 - 1 / step, self.gamma + 1)

    @torch.no_grad()
    def move(self, model: nn.Module, weight: float | Tensor) -> None:
        """Move the average towards the parameters by `weight`, a number or a tensor without axes."""
        for name, value in model.named_parameters():
            self.shadow[name].lerp_(value.detach(), weight)
