"""Magnitude-preserving layers, as in EDM2 (Karras et al. 2024, "Analyzing and improving the training dynamics ...").

Weights are kept at unit norm per output channel, activations at unit variance by construction, so that no layer
needs a norm at inference: `fold()` turns every convolution into a plain one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SILU_GAIN = 1 / 0.596
"""1 / the root mean square of SiLU on a standard normal (their equation 81)."""


def unit_norm(weight: Tensor) -> Tensor:
    """The weight with root mean square 1 per output channel (dimension 0), their equation 47."""
    dims = tuple(range(1, weight.ndim))
    return weight / (weight.square().mean(dims, keepdim=True).sqrt() + 1e-4)


def mp_silu(x: Tensor) -> Tensor:
    """SiLU that keeps a standard normal at unit variance."""
    return functional.silu(x) * SILU_GAIN


def mp_sum(a: Tensor, b: Tensor, share: float) -> Tensor:
    """A weighted sum that keeps two independent unit-variance inputs at unit variance (their equation 88)."""
    scale = 1 / math.hypot(1 - share, share)
    return a * ((1 - share) * scale) + b * (share * scale)


def modulate(x: Tensor, scale: Tensor) -> Tensor:
    """x [N, C, ...] times 1 + scale [N, C]."""
    return x * (scale + 1).to(x.dtype)[(...,) + (None,) * (x.ndim - 2)]


class MPConv(nn.Module):
    """A convolution without bias whose output has unit variance when its input has (their section 2.3).

    Works in one, two and three dimensions, and as the transpose of a non-overlapping stride-2 convolution.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: the kernel's sides; () for a linear layer.
        stride: 1, or 2 for a non-overlapping 2^d block.
        transposed: the transpose of the stride-2 block.
        gain: a learned scale that starts at this value; None for a fixed scale of 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        *,
        stride: int = 1,
        transposed: bool = False,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.transposed = transposed
        self.padding = 0 if stride > 1 else kernel[0] // 2 if kernel else 0
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *kernel))
        self.gain = None if gain is None else nn.Parameter(torch.tensor(gain))
        self.folded = False
        # Every output of a transposed block sees one cell of the input, so only the channels count.
        fan_in = inputs if transposed else inputs * math.prod(kernel)
        self.scale = 1 / math.sqrt(fan_in)

    def effective_weight(self) -> Tensor:
        """The weight of the plain convolution that this layer is."""
        if self.folded:
            return self.weight
        weight = unit_norm(self.weight.float()) * self.scale
        return weight if self.gain is None else weight * self.gain

    def forward(self, x: Tensor) -> Tensor:
        weight = self.effective_weight().to(x.dtype)
        dims = weight.ndim - 2
        if dims == 0:
            return functional.linear(x, weight)
        if self.transposed:
            return functional.conv_transpose3d(x, weight.transpose(0, 1), stride=self.stride)
        conv = functional.conv2d if dims == 2 else functional.conv3d
        return conv(x, weight, stride=self.stride, padding=self.padding)

    @torch.no_grad()
    def normalize(self) -> None:
        """Forced weight normalisation: bring the stored weight back to unit norm after an optimiser's step."""
        if not self.folded:
            self.weight.copy_(unit_norm(self.weight))

    @torch.no_grad()
    def fold(self) -> None:
        """Store the effective weight, so that the forward pass is a plain convolution."""
        self.weight.copy_(self.effective_weight())
        self.gain = None
        self.folded = True


class GroupNormed(nn.Module):
    """GroupNorm before the activation: the field's habit, here to be compared with."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(min(8, channels // 4), channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(x))


class Block(nn.Module):
    """A residual block: two convolutions, modulated by the noise level between them where there is one.

    Args:
        channels: channels in and out.
        dims: 2 or 3.
        embedding: length of the noise embedding; 0 for a block that does not see the noise level.
        norm: "mp" or "group".
        share: weight of the residual branch in the magnitude-preserving sum.
    """

    def __init__(self, channels: int, dims: int, *, embedding: int = 0, norm: str = "mp", share: float = 0.3) -> None:
        super().__init__()
        kernel = (3,) * dims
        self.share = share
        self.before = GroupNormed(channels) if norm == "group" else nn.Identity()
        self.between = GroupNormed(channels) if norm == "group" else nn.Identity()
        self.first = MPConv(channels, channels, kernel)
        self.second = MPConv(channels, channels, kernel)
        self.modulation = MPConv(embedding, channels, (), gain=0.3) if embedding else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.first(mp_silu(self.before(x)))
        h = self.between(h)
        if self.modulation is not None and embedding is not None:
            h = modulate(h, self.modulation(embedding))
        return mp_sum(x, self.second(mp_silu(h)), self.share)


def stage(channels: int, dims: int, count: int, *, embedding: int = 0, norm: str = "mp") -> nn.ModuleList:
    """`count` residual blocks of one width."""
    return nn.ModuleList(Block(channels, dims, embedding=embedding, norm=norm) for _ in range(count))
