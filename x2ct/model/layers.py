"""Magnitude-preserving layers, as in EDM2 (Karras et al. 2024, "Analyzing and improving the training dynamics ...").

Weights are kept at unit norm per output channel, activations at unit variance by construction, so that no layer
needs a norm at inference: `fold()` turns every convolution into a plain one.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from x2ct.model.config import ModelConfig

SILU_GAIN = 1 / 0.596
"""1 / the root mean square of SiLU on a standard normal (their equation 81)."""

RESIDUAL_SHARE = 0.3
"""The weight of a block's residual branch in its magnitude-preserving sum."""


def unit_norm(weight: Tensor) -> Tensor:
    """Return the weight with root mean square 1 per output channel (dimension 0), their equation 47."""
    dims = tuple(range(1, weight.ndim))
    return weight / (weight.square().mean(dims, keepdim=True).sqrt() + 1e-4)


def mp_silu(x: Tensor) -> Tensor:
    """Return SiLU of x, scaled so that a standard normal stays at unit variance."""
    return functional.silu(x) * SILU_GAIN


def mp_sum(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return a weighted sum with unit variance if both inputs have it and are independent (their equation 88)."""
    scale = 1 / math.hypot(1 - share, share)
    return a * ((1 - share) * scale) + b * (share * scale)


def modulate(x: Tensor, scale: Tensor) -> Tensor:
    """Return x [N, C, ...] times 1 + scale [N, C]."""
    return x * (scale + 1).to(x.dtype)[(...,) + (None,) * (x.ndim - 2)]


def fold_cells(x: Tensor, side: int) -> Tensor:
    """Lay voxels [N, C, side X, side Y, side Z] out as cells [N, C side^3, X, Y, Z]."""
    n, inputs, *size = x.shape
    split = [part for extent in size for part in (extent // side, side)]
    cells = x.reshape(n, inputs, *split).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return cells.reshape(n, *split[::2], inputs * side**3).permute(0, 4, 1, 2, 3)


def unfold_cells(cells: Tensor, side: int, outputs: int) -> Tensor:
    """Lay cells [N, side^3 outputs, X, Y, Z] out as voxels [N, outputs, side X, side Y, side Z]."""
    n, _, *size = cells.shape
    cells = cells.permute(0, 2, 3, 4, 1).reshape(n, *size, side, side, side, outputs).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return cells.reshape(n, *(side * extent for extent in size), outputs).permute(0, 4, 1, 2, 3)


class MPConv(nn.Module):
    """A convolution without bias whose output has unit variance when its input has (their section 2.3).

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: the kernel's sides in two or three dimensions; () for a linear layer.
        stride: 1, or the kernel's side for a convolution over non-overlapping cells.
        transposed: the transpose of such a convolution, in three dimensions: a cell for each input.
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
        self.stride, self.transposed, self.folded = stride, transposed, False
        self.padding = 0 if stride > 1 else kernel[0] // 2 if kernel else 0
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *kernel))
        self.gain = None if gain is None else nn.Parameter(torch.tensor(gain))
        self.has_gain = gain is not None
        # Every output of a transposed block sees one cell of the input, so only the channels count.
        self.scale = 1 / math.sqrt(inputs if transposed else inputs * math.prod(kernel))

    def effective_weight(self) -> Tensor:
        """Return the weight of the plain convolution that this layer is."""
        if self.folded:
            return self.weight
        weight = unit_norm(self.weight.float()) * self.scale
        return weight if self.gain is None else weight * self.gain

    def forward(self, x: Tensor) -> Tensor:
        weight = self.effective_weight().to(x.dtype)
        dims = weight.ndim - 2
        if dims == 0:
            return functional.linear(x, weight)
        if self.transposed:  # a 1^3 convolution to a cell's voxels: matrix units run it where they have no transpose
            outputs, inputs, k = weight.shape[:3]
            cells = functional.conv3d(x, weight.permute(2, 3, 4, 0, 1).reshape(-1, inputs, 1, 1, 1))
            return unfold_cells(cells, k, outputs)
        if dims == 3 and self.stride > 2:  # a 1^3 convolution too: matrix units are idle where few channels come in
            return functional.conv3d(fold_cells(x, self.stride), weight.reshape(len(weight), -1, 1, 1, 1))
        conv = functional.conv2d if dims == 2 else functional.conv3d
        return conv(x, weight, stride=self.stride, padding=self.padding)

    @torch.no_grad()
    def normalize(self) -> None:
        """Bring the stored weight back to unit norm after an optimiser's step: forced weight normalisation."""
        if not self.folded:
            self.weight.copy_(unit_norm(self.weight))

    @torch.no_grad()
    def fold(self) -> None:
        """Store the effective weight, so that the forward pass is a plain convolution."""
        self.weight.copy_(self.effective_weight())
        self.gain = None
        self.folded = True

    def unfolded(self) -> dict[str, Tensor]:
        """Return weight and gain, by name, with which a layer that trains is this folded one; the inverse of `fold`.

        A gain and its weight's sign are known as a product only: the gain is taken as positive.
        """
        weight = self.weight.detach() / self.scale
        if not self.has_gain:
            return {"weight": weight}
        gain = weight.square().mean().sqrt()
        return {"weight": weight / gain.clamp(min=1e-12), "gain": gain}


class ToVoxels(MPConv):
    """One channel of voxels out of cells: each cell's own pointwise layer and, where asked, its neighbours' part.

    The part that reads the 26 neighbours has a gain of its own that starts at 0: it mends steps at the cells' borders
    without slowing down what a cell learns about itself. Both are one convolution.

    `side` is the voxels along a cell's edge, and `gain` what the cell's own part is scaled by at the start.
    """

    def __init__(self, inputs: int, side: int, *, overlap: bool, gain: float = 1.0) -> None:
        super().__init__(inputs, side**3, (3, 3, 3) if overlap else (1, 1, 1), gain=gain)
        self.side = side
        self.scale = 1 / math.sqrt(inputs)
        self.around = nn.Parameter(torch.tensor(0.0)) if overlap else None

    def effective_weight(self) -> Tensor:
        if self.folded:
            return self.weight
        return self._mixed(self.weight.float(), self.scale, cast(Tensor, self.gain), self.around)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 1, side X, side Y, side Z] for x [N, inputs, X, Y, Z]."""
        weight = self.effective_weight().to(x.dtype)
        return unfold_cells(functional.conv3d(x, weight, padding=self.padding), self.side, 1)

    @torch.no_grad()
    def normalize(self) -> None:
        """Bring both parts back to unit norm."""
        if not self.folded:
            self.weight.copy_(self._mixed(self.weight, 1.0, 1.0, 1.0))

    def fold(self) -> None:
        super().fold()
        self.around = None

    def unfolded(self) -> dict[str, Tensor]:
        own, around = self._parts(self.weight.detach() / self.scale)
        gain = own.square().mean().sqrt()
        if around is None:
            return {"weight": own / gain, "gain": gain}
        other = around.square().mean().sqrt()
        weight = functional.pad(own / gain, (1,) * 6) + around / other.clamp(min=1e-12)
        return {"weight": weight, "gain": gain, "around": other}

    def _mixed(self, weight: Tensor, scale: float, own_gain: Tensor | float, gain: Tensor | float | None) -> Tensor:
        """Return the sum of both parts at unit norm, times a scale and a gain of each."""
        own, around = self._parts(weight)
        mixed = unit_norm(own[None])[0] * (scale * own_gain)
        if around is None or gain is None:
            return mixed
        return functional.pad(mixed, (1,) * 6) + unit_norm(around[None])[0] * (scale * gain)

    def _parts(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the centre of the kernel [outputs, inputs, 1, 1, 1], and the kernel without it."""
        if weight.shape[-1] == 1:
            return weight, None
        own = weight[..., 1:2, 1:2, 1:2]
        return own, weight - functional.pad(own, (1,) * 6)


def group_norm(channels: int) -> nn.GroupNorm:
    """Return the norm that is usual in the field, for comparison."""
    return nn.GroupNorm(min(8, channels // 4), channels)


class Block(nn.Module):
    """A residual block, modulated by the noise level after its first convolution where there is one.

    Args:
        channels: channels in and out.
        dims: 2 or 3.
        expand: 0 for two 3^dims convolutions; else the second is a pointwise network with `expand` times the channels.
        embedding: length of the noise embedding; 0 for a block that does not see the noise level.
        norm: "mp", or "group" for GroupNorm before each activation.
        added: whether the branch has a gain that starts at 0, so that the block changes nothing at first.
    """

    def __init__(
        self, channels: int, dims: int, *, expand: int = 0, embedding: int = 0, norm: str = "mp", added: bool = False
    ) -> None:
        super().__init__()
        kernel, point = (3,) * dims, (1,) * dims
        self.before, self.between = (
            nn.Sequential(OrderedDict(norm=group_norm(channels))) if norm == "group" else nn.Identity()
            for _ in range(2)
        )
        self.first = MPConv(channels, channels, kernel)
        self.widen = MPConv(channels, expand * channels, point) if expand else None
        self.second = MPConv(
            expand * channels if expand else channels,
            channels,
            point if expand else kernel,
            gain=0.0 if added else None,
        )
        self.modulation = MPConv(embedding, channels, (), gain=0.3) if embedding else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.between(self.first(mp_silu(self.before(x))))
        if self.modulation is not None and embedding is not None:
            h = modulate(h, self.modulation(embedding))
        if self.widen is not None:
            h = self.widen(mp_silu(h))
        branch = self.second(mp_silu(h))
        return x + branch if self.second.has_gain else mp_sum(x, branch, RESIDUAL_SHARE)


class UNet(nn.Module):
    """Residual 3^3 blocks at each resolution on the way down and, but for the coarsest, on the way up; added skips.

    Each resolution is half as fine as the one before. `part` is that of `ModelConfig.unet`; `embedding` and `norm` are
    those of `Block`.
    """

    def __init__(self, config: ModelConfig, part: str = "", *, embedding: int = 0, norm: str = "mp") -> None:
        super().__init__()
        widths, down, up, added = config.unet(part)
        block = partial(Block, dims=3, expand=config.expand, embedding=embedding, norm=norm)

        def stages(numbers: Sequence[int]) -> nn.ModuleList:
            counts = zip(widths, numbers, strict=False)
            return nn.ModuleList(nn.ModuleList(block(width) for _ in range(count)) for width, count in counts)

        self.enter, self.leave = stages(down), stages(up)
        for stage, width, count in zip([*self.leave, self.enter[-1]], widths, added, strict=True):
            stage.extend(block(width, added=True) for _ in range(count))
        pairs = list(zip(widths, widths[1:], strict=False))
        self.down = nn.ModuleList(MPConv(a, b, (2, 2, 2), stride=2) for a, b in pairs)
        self.up = nn.ModuleList(MPConv(b, a, (2, 2, 2), stride=2, transposed=True) for a, b in pairs)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Return features in the shape of x [N, widths[0], X, Y, Z]; X, Y, Z: multiples of 2 ** (len(widths) - 1)."""
        skips = []
        for level, blocks in enumerate(self.enter):
            if level:
                skips.append(x)
                x = self.down[level - 1](x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, embedding)
        for level in reversed(range(len(self.up))):
            x = mp_sum(skips[level], self.up[level](x), 0.5)
            for block in self.leave[level]:  # type: ignore[attr-defined]
                x = block(x, embedding)
        return x
