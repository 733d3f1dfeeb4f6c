"""The 3D denoiser: EDM preconditioning around a U-Net that depends on nothing but x, sigma and the condition."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from x2ct.model.config import ModelConfig
from x2ct.model.layers import MPConv, modulate, mp_silu, mp_sum, stage


class NoiseEmbedding(nn.Module):
    """Fourier features of c_noise = ln(sigma) / 4, mixed once (Karras et al. 2024, section B.3)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.linspace(0.1, 2.0, features))
        self.register_buffer("phases", 2 * math.pi * torch.linspace(0.0, 1.0, features + 1)[:-1])
        self.mix = MPConv(features, 2 * features, ())

    def forward(self, sigma: Tensor) -> Tensor:
        """[N] float32 to [N, 2 * features] float32."""
        noise = sigma.log() / 4
        waves = torch.cos(noise[:, None] * self.frequencies + self.phases) * math.sqrt(2.0)  # type: ignore[operator]
        return mp_silu(self.mix(waves))


class UNet(nn.Module):
    """Stem 2^3 stride 2, residual blocks at each stride, added skips and added conditions, and the transposed stem."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths, counts = config.channels, config.blocks
        emb = 2 * config.embedding
        # How much of the input, and of each feature of the output, a noise level wants: at sigma_max next to none.
        self.gate_in = MPConv(emb, widths[0], (), gain=0.5)
        self.gate_out = MPConv(emb, widths[0], (), gain=0.5)
        self.stem = MPConv(2, widths[0], (2, 2, 2), stride=2)
        self.enter = nn.ModuleList(
            stage(w, 3, n, embedding=emb, norm=config.norm) for w, n in zip(widths, counts, strict=True)
        )
        pairs = list(zip(widths, widths[1:], strict=False))
        self.down = nn.ModuleList(MPConv(a, b, (2, 2, 2), stride=2) for a, b in pairs)
        self.up = nn.ModuleList(MPConv(b, a, (2, 2, 2), stride=2, transposed=True) for a, b in pairs)
        self.leave = nn.ModuleList(
            stage(w, 3, n, embedding=emb, norm=config.norm) for w, n in zip(widths[:-1], counts[:-1], strict=True)
        )
        self.out = MPConv(widths[0], 1, (2, 2, 2), stride=2, transposed=True, gain=1.0)

    def forward(self, x: Tensor, embedding: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        joined = torch.cat([x, torch.ones_like(x)], 1)
        h = modulate(self.stem(joined.contiguous(memory_format=torch.channels_last_3d)), self.gate_in(embedding))
        skips = []
        for level, blocks in enumerate(self.enter):
            if level:
                skips.append(h)
                h = self.down[level - 1](h)
            if level < len(conditions):
                h = mp_sum(h, conditions[level], 0.5)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, embedding)
        for level in reversed(range(len(self.up))):
            h = mp_sum(skips[level], self.up[level](h), 0.5)
            for block in self.leave[level]:  # type: ignore[attr-defined]
                h = block(h, embedding)
        return self.out(mp_silu(modulate(h, self.gate_out(embedding))))  # type: ignore[no-any-return]


class Denoiser(nn.Module):
    """D(x; sigma, c) with EDM's preconditioning (Karras et al. 2022, eq. 7) about what the condition alone tells.

    A linear layer reads a sketch of the volume off the coarsest condition. Were the data normal about it with standard
    deviation sigma_data, D = sketch + c_skip (x - sketch) would be exact; the network adds what is missing.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sigma_data = config.sigma_data
        self.sigma_max = config.sigma_max
        coarsest = len(config.lift_blocks)
        cell = int(2**coarsest)
        self.sketcher = MPConv(config.channels[coarsest - 1], 1, (cell,) * 3, stride=cell, transposed=True, gain=1.0)
        self.embed = NoiseEmbedding(config.embedding)
        # Per noise level, how much of the input the network's output holds beside what it computes, and its size:
        # CTs are smooth, so that at middle levels the clean volume is easier to say than the noise.
        self.mixing = MPConv(2 * config.embedding, 2, (), gain=0.3)
        self.net = UNet(config)

    def sketch(self, conditions: tuple[Tensor, ...]) -> Tensor:
        """The volume as the coarsest condition alone tells it, [N, 1, X, Y, Z] in the network's unit.

        Trained on whole volumes at each step, it lets encoder and lift learn faster than patches would.
        """
        return self.sketcher(conditions[-1]).float()  # type: ignore[no-any-return]

    def forward(self, x: Tensor, sigma: Tensor, *conditions: Tensor) -> Tensor:
        """The denoised volume, for a sampler that starts from sigma_max times pure noise about zero.

        At a finite sigma_max that start lacks the volume's own mean, and millions of voxels tell a network so: it takes
        the lack for evidence. Adding (sigma / sigma_max) sketch to x mends it exactly: the start becomes the sketch
        plus noise, and dx/dsigma = (x - D) / sigma holds for the one variable if and only if it holds for the other.

        Args:
            x: the sampler's state in the network's unit, [N, 1, X, Y, Z] float32; X, Y, Z multiples of the stride.
            sigma: noise level in the same unit, [N] float32.
            conditions: c0, c1, ... from the lift.

        Returns:
            [N, 1, X, Y, Z] float32.
        """
        sketch = self.sketch(conditions)
        lack = sigma.reshape(-1, 1, 1, 1, 1) * (1 / self.sigma_max)
        return self._about(sketch, x + lack * sketch, sigma, conditions)

    def denoise(self, x: Tensor, sigma: Tensor, *conditions: Tensor) -> Tensor:
        """The denoised volume of a true one plus sigma times noise, as training makes them; see `forward`."""
        return self._about(self.sketch(conditions), x, sigma, conditions)

    def _about(self, sketch: Tensor, x: Tensor, sigma: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        variance = self.sigma_data**2
        s = sigma.reshape(-1, 1, 1, 1, 1)
        total = s.square() + variance
        c_skip = variance / total
        c_out = s * self.sigma_data * total.rsqrt()
        c_in = total.rsqrt()
        embedding = self.embed(sigma)
        share, size = self.mixing(embedding).float().reshape(-1, 2, 1, 1, 1, 1).unbind(1)
        rest = x - sketch
        output = self.net(rest * c_in, embedding, conditions).float()
        denoised: Tensor = sketch + (c_skip + c_out * c_in * share) * rest + c_out * size.exp() * output
        return denoised
