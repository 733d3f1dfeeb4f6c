"""The network's shape: one frozen, typed object, saved with every run and every bundle."""

from __future__ import annotations

from dataclasses import dataclass

from x2ct.errors import InputError

EVERYWHERE = 4096
"""The radius, in voxels, of a network whose norms tie each voxel to all of the patch: further than any grid reaches."""


@dataclass(frozen=True)
class ModelConfig:
    """Widths and depths of the three networks.

    Attributes:
        kind: "cells" for this project's network, "slabs" for the field's ancestor (see `x2ct.model.slabs`), a baseline
            that works on voxels (stem 1) and on pixels, and has no use for the encoder's, the lift's and norm's fields.
        views: number of view slots V (slot 0 frontal, slot 1 lateral).
        detector: rows and columns of the encoder's input images; multiples of the encoder's coarsest stride.
        encoder_stem: side, in pixels, of the cells that the encoder works on.
        encoder_channels: channels of the 2D encoder at strides encoder_stem, 2 encoder_stem, ...
        encoder_features: channels of the encoder's output, at stride encoder_stem; 0 for encoder_channels[0]. Each
            position describes its surroundings in the image, so that a stride-4 cell of the volume sees the detail
            that its one sample stands for.
        features: how the X-rays reach the volume: "encoded" samples the 2D encoder's output, "pixels" samples
            the X-rays themselves (the repeated pixels of earlier work, kept as a baseline).
        fuse: whether products of the views' features join their weighted sum in the lift: what both views show at a
            place, and not what either does.
        stem: side, in voxels, of the cells that the 3D networks work on; a power of 2.
        lift_channels: channels of the lift's 3D U-Net at strides stem, 2 stem, 4 stem, ...
        lift_blocks: its residual blocks at each resolution on the way down.
        lift_blocks_up: its residual blocks on the way up at each resolution but the coarsest; () for as many as on the
            way down.
        channels: channels of the 3D denoiser at strides stem, 2 stem, 4 stem, ...
        blocks: its residual blocks at each resolution on the way down.
        blocks_up: its residual blocks on the way up, as for the lift.
        expand: 0 for residual blocks of two 3^3 convolutions; a factor for blocks of one 3^3 convolution and a
            pointwise network with that many times the channels between (27 times less work a weight).
        overlap: whether the layer that turns cells into voxels also reads the neighbouring cells, against steps at the
            cells' borders.
        gated: whether the denoiser also says, voxel by voxel, how much of its input the output keeps. Cells of 64
            voxels leave few channels to carry noise out again voxel by voxel; a gate drops it.
        embedding: number of Fourier features of the noise level.
        norm: "mp" for magnitude-preserving weights that fold into plain convolutions, "group" for GroupNorm.
        sigma_data: standard deviation of the data in the network's unit x.
        sigma_max: noise level that the sampler starts from.
        reference_p99: a line integral near the top of the training X-rays, used to scale the encoder's input.

    Raises:
        InputError: the numbers do not describe a network.
    """

    kind: str = "cells"
    views: int = 2
    detector: tuple[int, int] = (352, 352)
    encoder_stem: int = 4
    encoder_channels: tuple[int, ...] = (64, 64, 64, 80)
    encoder_features: int = 0
    features: str = "encoded"
    fuse: bool = False
    stem: int = 4
    lift_channels: tuple[int, ...] = (64, 96)
    lift_blocks: tuple[int, ...] = (1, 1)
    lift_blocks_up: tuple[int, ...] = ()
    channels: tuple[int, ...] = (96, 128)
    blocks: tuple[int, ...] = (1, 1)
    blocks_up: tuple[int, ...] = ()
    expand: int = 0
    overlap: bool = False
    gated: bool = False
    embedding: int = 32
    norm: str = "mp"
    sigma_data: float = 0.5
    sigma_max: float = 20.0
    reference_p99: float = 6.0

    def __post_init__(self) -> None:
        for widths, counts in (("channels", "blocks"), ("lift_channels", "lift_blocks")):
            pair = getattr(self, widths), getattr(self, counts)
            if not pair[0] or len(pair[0]) != len(pair[1]):
                raise InputError.of(
                    "model config", f"{widths} and {counts}", found=pair, expected="one number of blocks a width"
                )
            up = getattr(self, f"{counts}_up")
            if up and len(up) != len(pair[0]) - 1:
                expected = f"{len(pair[0]) - 1} numbers, one for each width but the last"
                raise InputError.of("model config", f"{counts}_up", found=up, expected=expected)
        if self.stem < 1 or self.stem & (self.stem - 1):
            raise InputError.of("model config", "stem", found=self.stem, expected="a power of 2")
        if self.kind not in ("cells", "slabs"):
            raise InputError.of("model config", "kind", found=self.kind, expected="cells or slabs")
        if self.kind == "slabs" and (self.stem, self.features) != (1, "pixels"):
            found = f"stem {self.stem} and {self.features} features"
            raise InputError.of("model config", "kind", found=found, expected="stem 1 and pixels for slabs")
        if self.features not in ("encoded", "pixels"):
            raise InputError.of("model config", "features", found=self.features, expected="encoded or pixels")
        if self.norm not in ("mp", "group"):
            raise InputError.of("model config", "norm", found=self.norm, expected="mp or group")
        multiple = self.encoder_stem * 2 ** (len(self.encoder_channels) - 1)
        if any(side % multiple for side in self.detector):
            raise InputError.of("model config", "detector", found=self.detector, expected=f"multiples of {multiple}")

    @property
    def stride(self) -> int:
        """Patch origins and sizes are multiples of this, in voxels."""
        levels = [len(self.channels)] if self.kind == "slabs" else [len(self.channels), len(self.lift_channels)]
        return int(self.stem * 2 ** (max(levels) - 1))

    @property
    def receptive_radius(self) -> int:
        """How far, in voxels, the denoiser's output looks at its input and its condition."""
        return EVERYWHERE if self.kind == "slabs" else self._reach(self.blocks, self.blocks_up)

    @property
    def lift_radius(self) -> int:
        """How far, in voxels, a voxel's condition or coarse prediction looks at the image features about it."""
        return 0 if self.kind == "slabs" else self._reach(self.lift_blocks, self.lift_blocks_up)

    def _reach(self, down: tuple[int, ...], up: tuple[int, ...]) -> int:
        """Each 3^3 convolution at stride s reaches s voxels further; the coarsest cell's alignment adds to that."""
        strides = [self.stem * 2**level for level in range(len(down))]
        blocks = [a + b for a, b in zip(down, (*(up or down[:-1]), 0), strict=True)]
        each = 1 if self.expand else 2
        convolutions = sum(each * s * n for s, n in zip(strides, blocks, strict=True)) + self.stem * self.overlap
        return int(convolutions + strides[-1] - 1)
