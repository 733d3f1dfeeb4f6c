"""The lift: once per volume or tile, image features to a condition on the denoiser's own grids."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from x2ct.model.config import ModelConfig
from x2ct.model.layers import MPConv, mp_silu, stage


class Lift(nn.Module):
    """Samples each view's features where its projection matrix puts each voxel, and mixes them with the coordinates.

    Works at half the voxel grid, where the denoiser's stem works.
    """

    def __init__(self, config: ModelConfig, features: int) -> None:
        super().__init__()
        self.config = config
        # Per view: the features and whether the voxel is seen. Then the patch's coordinates, and a constant.
        inputs = config.views * (features + 1) + 3 + 1
        widths = config.channels[: len(config.lift_blocks)]
        self.mix = MPConv(inputs, config.lift_hidden, (1, 1, 1))
        self.enter = MPConv(config.lift_hidden, widths[0], (1, 1, 1))
        self.down = nn.ModuleList(MPConv(a, b, (2, 2, 2), stride=2) for a, b in zip(widths, widths[1:], strict=False))
        self.blocks = nn.ModuleList(
            stage(width, 3, count) for width, count in zip(widths, config.lift_blocks, strict=True)
        )
        self.out = nn.ModuleList(MPConv(width, width, (1, 1, 1)) for width in widths)

    def forward(self, features: Tensor, P: Tensor, coords: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        """The condition of one patch.

        Args:
            features: [N, V, C, h, w] from the encoder; N is 1 in the bundle.
            P: [N, V, 3, 4] float32, patient mm to pixels of the encoder's input image.
            coords: [N, 3, X, Y, Z] float32, patient mm of each voxel's centre, divided by 100.
            valid: [N, V] float32, 1 where the view is given.

        Returns:
            c0 [N, C0, X/2, Y/2, Z/2], c1 [N, C1, X/4, Y/4, Z/4], ... with the denoiser's widths.
        """
        half = functional.avg_pool3d(coords, 2)
        points = torch.cat([half * 100.0, torch.ones_like(half[:, :1])], 1)
        parts = []
        for view in range(self.config.views):
            sampled, seen = self._sample(features[:, view], P[:, view], points)
            mask = seen * valid[:, view].reshape(-1, 1, 1, 1, 1)
            parts += [sampled * mask, mask]
        parts += [half, torch.ones_like(half[:, :1])]
        joined = torch.cat(parts, 1).contiguous(memory_format=torch.channels_last_3d)
        x = self.enter(mp_silu(self.mix(joined)))
        outputs = []
        for level, blocks in enumerate(self.blocks):
            if level:
                x = self.down[level - 1](x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x)
            outputs.append(self.out[level](mp_silu(x)))
        return tuple(outputs)

    def _sample(self, features: Tensor, projection: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Bilinear samples [N, C, x, y, z] of one view's features, and 1 where the voxel falls on the detector."""
        flat = points.flatten(2)
        projected = torch.matmul(projection, flat)
        pixels = projected[:, :2] / projected[:, 2:]
        # Pixel centres are integers; grid_sample's -1 and 1 are the image's outer edges (align_corners=False).
        sides = torch.tensor([self.config.detector[1], self.config.detector[0]], dtype=pixels.dtype).reshape(1, 2, 1)
        grid = (pixels + 0.5) * (2.0 / sides) - 1.0
        seen = (grid.abs().amax(1, keepdim=True) <= 1.0).float()
        # GridSample is two-dimensional at opset 18: the voxels become one row of an image.
        sampled = functional.grid_sample(
            features.float(),
            grid.transpose(1, 2).unsqueeze(1),
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        size = points.shape[2:]
        return sampled.reshape(-1, features.shape[1], *size), seen.reshape(-1, 1, *size)
