"""The 3D denoiser: EDM preconditioning around a U-Net that depends on nothing but x, sigma and the condition."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from x2ct.model.config import ModelConfig
from x2ct.model.layers import MPConv, ToVoxels, UNet, modulate, mp_silu, mp_sum

GATE_FADES = 0.01
"""Noise level in x below which the gate fades out, so that D(x; sigma) goes to x as sigma goes to 0."""


class NoiseEmbedding(nn.Module):
    """Fourier features of c_noise = ln(sigma) / 4, mixed once (Karras et al. 2024, section B.3)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.linspace(0.1, 2.0, features))
        self.register_buffer("phases", 2 * math.pi * torch.linspace(0.0, 1.0, features + 1)[:-1])
        self.mix = MPConv(features, 2 * features, ())

    def forward(self, sigma: Tensor) -> Tensor:
        """Return [N, 2 * features] float32 for noise levels [N] float32."""
        noise = sigma.log() / 4
        waves = torch.cos(noise[:, None] * self.frequencies + self.phases) * math.sqrt(2.0)  # type: ignore[operator]
        return mp_silu(self.mix(waves))


class Core(nn.Module):
    """The stem that folds voxels into cells, the U-Net on the cells, and the stem's transpose."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, cell, emb = config.channels[0], (config.stem,) * 3, 2 * config.embedding
        # How much of the input, and of each feature of the output, a noise level wants: at sigma_max next to none.
        self.gate_in = MPConv(emb, width, (), gain=0.5)
        self.gate_out = MPConv(emb, width, (), gain=0.5)
        self.stem = MPConv(1, width, cell, stride=config.stem)
        self.net = UNet(config, embedding=emb, norm=config.norm)
        self.out = ToVoxels(width, config.stem, overlap=config.overlap)
        self.gate = ToVoxels(width, config.stem, overlap=False, gain=0.1) if config.gated else None

    def forward(self, x: Tensor, embedding: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the output for x [N, 1, X, Y, Z] and, if there is one, the gate on the input, both of that shape."""
        h = modulate(self.stem(x), self.gate_in(embedding)).contiguous(memory_format=torch.channels_last_3d)
        h = self.net(mp_sum(h, condition, 0.5), embedding)
        h = mp_silu(modulate(h, self.gate_out(embedding)))
        return self.out(h), None if self.gate is None else self.gate(h)


class Denoiser(nn.Module):
    """D(x; sigma, c) with EDM's preconditioning (Karras et al. 2022, eq. 7) about what the X-rays alone tell.

    The condition holds a sketch of the volume. Were the data normal about it with standard deviation sigma_data,
    D = sketch + c_skip (x - sketch) would be exact; the network adds what is missing.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sigma_data = config.sigma_data
        self.sigma_max = config.sigma_max
        self.embed = NoiseEmbedding(config.embedding)
        # Per noise level, how much of the input the network's output holds beside what it computes, and its size:
        # CTs are smooth, so that at middle levels the clean volume is easier to say than the noise.
        self.mixing = MPConv(2 * config.embedding, 2, (), gain=0.3)
        self.core = Core(config)

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor, sketch: Tensor) -> Tensor:
        """Return the denoised volume, for a sampler that starts from sigma_max times pure noise about zero.

        At a finite sigma_max that start lacks the volume's own mean, and millions of voxels tell a network so: it takes
        the lack for evidence. Adding (sigma / sigma_max) sketch to x mends it exactly: the start becomes the sketch
        plus noise, and dx/dsigma = (x - D) / sigma holds for the one variable if and only if it holds for the other.

        Args:
            x: the sampler's state in the network's unit, [N, 1, X, Y, Z] float32; X, Y, Z multiples of the stride.
            sigma: noise level in the same unit, [N] float32.
            condition: from the lift, [N, C, X/s, Y/s, Z/s], s the stem.
            sketch: from the lift, [N, 1, X, Y, Z] in the same unit.

        Returns:
            [N, 1, X, Y, Z] float32.
        """
        lack = sigma.reshape(-1, 1, 1, 1, 1) * (1 / self.sigma_max)
        return self.denoise(x + lack * sketch, sigma, condition, sketch)

    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor, sketch: Tensor) -> Tensor:
        """Return the denoised volume of a true one plus sigma times noise, as in training; see `forward`."""
        variance = self.sigma_data**2
        s = sigma.reshape(-1, 1, 1, 1, 1)
        total = s.square() + variance
        c_skip = variance / total
        c_out = s * self.sigma_data * total.rsqrt()
        c_in = total.rsqrt()
        embedding = self.embed(sigma)
        share, size = self.mixing(embedding).float().reshape(-1, 2, 1, 1, 1, 1).unbind(1)
        sketch = sketch.float()
        rest = x - sketch
        output, gate = self.core(rest * c_in, embedding, condition)
        share_of_rest = c_skip + c_out * c_in * share
        if gate is not None:
            share_of_rest = share_of_rest * (1 + gate.float() * (s / (s + GATE_FADES)))
        denoised: Tensor = sketch + share_of_rest * rest + c_out * size.exp() * output.float()
        return denoised
