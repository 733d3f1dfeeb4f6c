"""The 2D encoder: once per study, X-rays to image features. It sees the whole image, so the 3D side need not."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from x2ct.model.config import ModelConfig
from x2ct.model.layers import Block, MPConv, mp_silu, mp_sum

DETAIL_GAIN = 6.0
"""Brings the X-ray's fine detail to the range of the X-ray itself."""


class Up2D(nn.Module):
    """Nearest-neighbour doubling and a 3^2 convolution: no checkerboard, and one resize node in the graph."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = MPConv(inputs, outputs, (3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """A 2D U-Net over each view, shared between the slots but for an input channel that names the slot."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.out_channels = 1  # of the features of one view
        if config.features == "pixels":
            return
        widths = config.encoder_channels
        self.out_channels = config.encoder_features or widths[0]
        # The image, its fine detail, the slot, and a constant in place of biases.
        self.stem = MPConv(4, widths[0], (config.encoder_stem,) * 2, stride=config.encoder_stem)
        self.enter = nn.ModuleList(Block(width, 2) for width in widths)
        self.down = nn.ModuleList(MPConv(a, b, (2, 2), stride=2) for a, b in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(Up2D(b, a) for a, b in zip(widths, widths[1:], strict=False))
        self.leave = nn.ModuleList(Block(width, 2) for width in widths[:-1])
        self.out = MPConv(widths[0], self.out_channels, (3, 3) if config.encoder_features else (1, 1))

    def forward(self, views: Tensor, valid: Tensor) -> Tensor:
        """Return the features of each view.

        Args:
            views: line integrals, [N, V, 1, H, W] float32; N is 1 in the bundle.
            valid: 1 where a view is given and 0 where it is missing, [N, V] float32.

        Returns:
            [N, V, C, H/s, W/s], s the encoder's stem (or [N, V, 1, H, W] for "pixels"), zero for a missing view.
        """
        v = self.config.views
        height, width = self.config.detector
        image = views.reshape(-1, 1, height, width) * (2.0 / self.config.reference_p99) - 1.0
        mask = valid.reshape(-1, 1, 1, 1)
        if self.config.features == "pixels":
            return (image * mask).reshape(-1, v, 1, height, width)
        number = torch.linspace(-1.0, 1.0, v, dtype=image.dtype, device=image.device).reshape(1, v) + 0.0 * valid
        slot = number.reshape(-1, 1, 1, 1) + 0.0 * image
        # Ribs are a few per cent of a line integral: shown apart from what lies around them, they are seen at once.
        surroundings = functional.avg_pool2d(image, 15, 1, 7, count_include_pad=False)
        detail = (image - surroundings) * DETAIL_GAIN
        joined = torch.cat([image, detail, slot, torch.ones_like(slot)], 1)
        x = self.stem(joined.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, block in enumerate(self.enter):
            x = block(x)
            if level < len(self.down):
                skips.append(x)
                x = self.down[level](x)
        for level in reversed(range(len(self.up))):
            x = mp_sum(skips[level], self.up[level](x), 0.5)
            x = self.leave[level](x)
        x = self.out(mp_silu(x)) * mask
        return cast(Tensor, x.reshape(-1, v, *x.shape[1:]))
