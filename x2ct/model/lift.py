"""The lift: once per volume or tile, image features to a condition on the denoiser's own cells."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from x2ct.model.config import ModelConfig
from x2ct.model.layers import MPConv, ToVoxels, UNet, mp_silu

WAVELENGTHS = (6.4, 3.2, 1.6, 0.8)
"""Of the coordinates' Fourier features, in coordinate units (100 mm): from twice the grid to a rib and its gap."""


def detector_pixels(detector: tuple[int, int]) -> Tensor:
    """Return a detector's (rows, columns) as `sample_view` takes them: [1, 2, 1], columns first."""
    rows, columns = detector
    return torch.tensor([columns, rows], dtype=torch.float32).reshape(1, 2, 1)


class Lift(nn.Module):
    """Samples each view's features where its projection matrix puts each cell, and reasons about them in 3D once.

    It works on the denoiser's cells and gives what each evaluation then needs: a condition on that grid, and a sketch
    of the volume.
    """

    pixels: Tensor

    def __init__(self, config: ModelConfig, features: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("pixels", detector_pixels(config.detector), persistent=False)
        # Per view: the features and whether the cell is seen. Then the patch's coordinates, and a constant.
        inputs = config.views * (features + 1) + 3 * (1 + 2 * len(WAVELENGTHS)) + 1
        width, hidden = config.lift_channels[0], 2 * config.lift_channels[0]
        self.mix = MPConv(inputs, hidden, (1, 1, 1))
        self.enter = MPConv(hidden, width, (1, 1, 1))
        self.factors = nn.ModuleList(
            MPConv(features + 1, hidden, (1, 1, 1)) for _ in range(config.views if config.fuse else 0)
        )
        # It starts at 0: a network learns from the sum first, and one that was trained without products can go on.
        self.fused = MPConv(hidden, width, (1, 1, 1), gain=0.0) if config.fuse else None
        self.net = UNet(config, "lift_")
        self.out = MPConv(width, config.channels[0], (1, 1, 1))
        self.sketcher = ToVoxels(width, config.stem, overlap=config.overlap)

    def forward(self, features: Tensor, P: Tensor, coords: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the condition of one patch.

        Args:
            features: [N, V, C, h, w] from the encoder; N is 1 in the bundle.
            P: [N, V, 3, 4] float32, patient mm to pixels of the encoder's input image.
            coords: [N, 3, X, Y, Z] float32, patient mm of each voxel's centre, divided by 100.
            valid: [N, V] float32, 1 where the view is given.

        Returns:
            condition [N, C, X/s, Y/s, Z/s] of the denoiser's first width, s the stem; and sketch [N, 1, X, Y, Z], the
            volume as the X-rays alone tell it, in the network's unit.
        """
        cells = functional.avg_pool3d(coords, self.config.stem)
        points = torch.cat([cells * 100.0, torch.ones_like(cells[:, :1])], 1)
        views = []
        for view in range(self.config.views):
            sampled, seen = sample_view(features[:, view], P[:, view], points, self.pixels)
            mask = seen * valid[:, view].reshape(-1, 1, 1, 1, 1)
            views.append(torch.cat([sampled * mask, mask], 1).contiguous(memory_format=torch.channels_last_3d))
        parts = list(views)
        for wavelength in WAVELENGTHS:
            phase = cells * (2 * math.pi / wavelength)
            parts += [phase.sin(), phase.cos()]
        joined = torch.cat([*parts, cells, torch.ones_like(cells[:, :1])], 1)
        x = joined.contiguous(memory_format=torch.channels_last_3d)
        x = self.enter(mp_silu(self.mix(x)))
        if self.fused is not None:
            x = x + self.fused(math.prod(factor(view) for factor, view in zip(self.factors, views, strict=True)))
        x = mp_silu(self.net(x))
        return self.out(x), self.sketcher(x)


def sample_view(features: Tensor, projection: Tensor, points: Tensor, detector: Tensor) -> tuple[Tensor, Tensor]:
    """Return bilinear samples [N, C, x, y, z] of one view's features, and a mask [N, 1, ...] of the points in view.

    Always in float32, also under autocast: bfloat16 has 8 bits for a pixel's position, and a detector has 352 pixels.

    Args:
        features: [N, C, h, w], of all the detector.
        projection: [N, 3, 4], patient mm to pixels of the detector.
        points: [N, 4, x, y, z], homogeneous patient mm.
        detector: [1, 2, 1] float32, columns and rows, on the points' device: a CUDA graph can't copy it from the host.
    """
    device = points.device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        features, projection, points, detector = (x.float() for x in (features, projection, points, detector))
        projected = torch.matmul(projection, points.flatten(2))
        # Pixel centres are integers; grid_sample's -1 and 1 are the image's outer edges (align_corners=False).
        grid = (projected[:, :2] / projected[:, 2:] + 0.5) * (2.0 / detector) - 1.0
        seen = (grid.abs().amax(1, keepdim=True) <= 1.0).float()
        # GridSample is two-dimensional at opset 18: the points become one row of an image.
        row = grid.transpose(1, 2).unsqueeze(1)
        sampled = functional.grid_sample(features, row, "bilinear", "border", align_corners=False)
    size = points.shape[2:]
    return sampled.reshape(-1, features.shape[1], *size), seen.reshape(-1, 1, *size)
