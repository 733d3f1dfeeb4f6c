"""A baseline to compare with: 3D patch diffusion on slabs, every voxel at full resolution.

The X-rays are repeated along their rays and join the noisy volume as input channels, with one coordinate along the axis
that both views share; a U-Net of plain convolutions and GroupNorm sees all of it at each evaluation. Written from the
description of that work (Patch Diffusion, Wang et al. 2023; EDM, Karras et al. 2022), in the three graphs of every
bundle: the encoder hands the pixels on, the lift repeats them, and the denoiser is the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from x2ct.model.config import ModelConfig
from x2ct.model.denoiser import NoiseEmbedding
from x2ct.model.layers import group_norm
from x2ct.model.lift import detector_pixels, sample_view


class RayLift(nn.Module):
    """Each view's pixels where its rays pass, and the coordinate along z; nothing learned."""

    pixels: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("pixels", detector_pixels(config.detector), persistent=False)

    def forward(self, features: Tensor, P: Tensor, coords: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the condition of one patch; arguments as `Lift.forward` has them.

        Returns:
            condition [N, V + 1, X, Y, Z], and the sketch that all bundles have, [N, 1, X, Y, Z]: zero, so that EDM's
            preconditioning is about zero.
        """
        height = coords[:, 2:3]
        points = torch.cat([coords * 100.0, torch.ones_like(height)], 1)
        parts = []
        for view in range(self.config.views):
            sampled, seen = sample_view(features[:, view], P[:, view], points, self.pixels)
            parts.append(sampled * seen * valid[:, view].reshape(-1, 1, 1, 1, 1))
        return torch.cat([*parts, height], 1), height * 0.0


class SlabBlock(nn.Module):
    """GroupNorm, SiLU and a 3^3 convolution, twice; scaled and shifted by the noise level between; residual."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.before, self.between = group_norm(inputs), group_norm(outputs)
        self.first = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.skip = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h: Tensor = self.first(functional.silu(self.before(x)))
        scale, shift = self.modulation(embedding).reshape(-1, 2, h.shape[1], 1, 1, 1).unbind(1)
        h = self.second(functional.silu(self.between(h) * (scale + 1) + shift))
        return (self.skip(x) + h) * 0.5**0.5  # type: ignore[no-any-return]


class SlabUNet(nn.Module):
    """Residual blocks at each resolution down and up; each block on the way up takes its mirror's output along."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths, counts, emb = config.channels, config.blocks, 2 * config.embedding
        self.enter = nn.Conv3d(1 + config.views + 1, widths[0], 3, padding=1)
        self.encode, self.decode = nn.ModuleList(), nn.ModuleList()
        for width, count in zip(widths, counts, strict=True):
            self.encode.append(nn.ModuleList(SlabBlock(width, width, emb) for _ in range(count)))
            self.decode.append(nn.ModuleList(SlabBlock(2 * width, width, emb) for _ in range(count)))
        pairs = list(zip(widths, widths[1:], strict=False))
        self.down = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, stride=2) for a, b in pairs)
        self.leave = nn.Sequential(group_norm(widths[0]), nn.SiLU(), nn.Conv3d(widths[0], 1, 3, padding=1))
        nn.init.zeros_(self.leave[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return [N, 1, X, Y, Z] for x [N, 1 + V + 1, X, Y, Z]; X, Y, Z are multiples of 2 ** (levels - 1)."""
        x, skips = self.enter(x), []
        for level, blocks in enumerate(self.encode):
            x = self.down[level - 1](x) if level else x
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, embedding)
                skips.append(x)
        for level in reversed(range(len(self.decode))):
            for block in self.decode[level]:  # type: ignore[attr-defined]
                x = block(torch.cat([x, skips.pop()], 1), embedding)
            x = self.up[level - 1](x) if level else x
        return self.leave(x)  # type: ignore[no-any-return]


class SlabDenoiser(nn.Module):
    """D(x; sigma, c) with EDM's preconditioning (Karras et al. 2022, eq. 7), the condition as input channels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sigma_data = config.sigma_data
        self.embed = NoiseEmbedding(config.embedding)
        self.core = SlabUNet(config)

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor, sketch: Tensor) -> Tensor:
        """Return the denoised volume; arguments as `Denoiser.forward` has them."""
        return self.denoise(x, sigma, condition, sketch)

    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor, sketch: Tensor) -> Tensor:
        """Return the same volume as `forward`: about a coarse prediction of zero, the sampler's start lacks nothing."""
        s = sigma.reshape(-1, 1, 1, 1, 1)
        total = s.square() + self.sigma_data**2
        rest = x - sketch
        output = self.core(torch.cat([rest * total.rsqrt(), condition], 1), self.embed(sigma)).float()
        denoised: Tensor = sketch + (self.sigma_data**2 / total) * rest + s * self.sigma_data * total.rsqrt() * output
        return denoised
