"""The network's shape: one frozen, typed object, saved with every run and every bundle."""

from __future__ import annotations

from dataclasses import dataclass

from x2ct.errors import InputError

EVERYWHERE = 4096
"""The radius, in voxels, of a network whose norms tie each voxel to all of the patch: further than any grid reaches."""


Rule = tuple[bool, str, object, object]
"""True if the configuration is valid in this; the field, the value that it has, and the values that it may have."""


def choice(field: str, value: str, *names: str) -> Rule:
    """Return the rule that a value is one of `names`."""
    return value in names, field, value, " or ".join(names)


def require_all(source: str, *rules: Rule) -> None:
    """Raise InputError for the first rule that does not hold; `source` is the configuration."""
    for valid, field, value, expected in rules:
        if not valid:
            raise InputError.of(source, field, found=value, expected=expected)


@dataclass(frozen=True)
class ModelConfig:
    """Widths and depths of the three networks. Raises InputError where the numbers do not describe a network."""

    # "cells" for this project's network; "slabs" for the baseline of `x2ct.model.slabs`, which works on voxels (stem 1)
    # and on pixels, and has no use for the encoder's, the lift's and norm's fields.
    kind: str = "cells"
    views: int = 2  # view slots V: slot 0 frontal, slot 1 lateral
    detector: tuple[int, int] = (352, 352)  # rows and columns; multiples of the encoder's coarsest stride
    encoder_stem: int = 4  # side, in pixels, of the cells that the encoder works on
    encoder_channels: tuple[int, ...] = (64, 64, 64, 80)  # at strides encoder_stem, 2 encoder_stem, ...
    # Channels of the encoder's output, at stride encoder_stem; 0 for encoder_channels[0]. Each position describes its
    # surroundings in the image, so that a stride-4 cell of the volume sees the detail that its one sample stands for.
    encoder_features: int = 0
    features: str = "encoded"  # the lift samples the encoder's output, or "pixels": the X-rays themselves (a baseline)
    # Whether products of the views' features join their weighted sum in the lift: what both views show at a place, and
    # not what either does.
    fuse: bool = False
    stem: int = 4  # side, in voxels, of the cells that the 3D networks work on; a power of 2
    lift_channels: tuple[int, ...] = (64, 96)  # of the lift's 3D U-Net at strides stem, 2 stem, 4 stem, ...
    lift_blocks: tuple[int, ...] = (1, 1)  # its residual blocks at each resolution on the way down
    lift_blocks_up: tuple[int, ...] = ()  # on the way up, at each but the coarsest; () for as many as on the way down
    # Blocks that a trained network is given later, at each resolution after those on the way up (at the coarsest, the
    # way down): at first they change nothing. () for none.
    lift_blocks_added: tuple[int, ...] = ()
    channels: tuple[int, ...] = (96, 128)  # of the 3D denoiser at strides stem, 2 stem, 4 stem, ...
    blocks: tuple[int, ...] = (1, 1)  # its residual blocks, as for the lift
    blocks_up: tuple[int, ...] = ()
    blocks_added: tuple[int, ...] = ()
    # 0 for residual blocks of two 3^3 convolutions; a factor for blocks of one 3^3 convolution and a pointwise network
    # with that many times the channels between (27 times less work a weight).
    expand: int = 0
    overlap: bool = False  # whether what turns cells into voxels reads the neighbouring cells, against steps at borders
    # Whether the denoiser also says, voxel by voxel, how much of its input the output keeps. Cells of 64 voxels leave
    # few channels to carry noise out again voxel by voxel; a gate drops it.
    gated: bool = False
    embedding: int = 32  # Fourier features of the noise level
    norm: str = "mp"  # magnitude-preserving weights that fold into plain convolutions; "group" for GroupNorm
    sigma_data: float = 0.5  # standard deviation of the data in the network's unit x
    sigma_max: float = 20.0  # noise level that the sampler starts from
    reference_p99: float = 6.0  # a line integral near the top of the training X-rays, which scales the encoder's input

    def __post_init__(self) -> None:
        inputs = self.stem, self.features
        fits_kind = self.kind != "slabs" or inputs == (1, "pixels")
        multiple = self.encoder_stem * 2 ** (len(self.encoder_channels) - 1)
        require_all(
            "model config",
            *self._unet_rules(),
            *self._unet_rules("lift_"),
            (self.stem > 0 and not self.stem & (self.stem - 1), "stem", self.stem, "a power of 2"),
            choice("kind", self.kind, "cells", "slabs"),
            (fits_kind, "stem and features", inputs, "stem 1 and pixels for slabs"),
            choice("features", self.features, "encoded", "pixels"),
            choice("norm", self.norm, "mp", "group"),
            (not any(side % multiple for side in self.detector), "detector", self.detector, f"multiples of {multiple}"),
        )

    def unet(self, part: str = "") -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Return the denoiser's U-Net, or the lift's ("lift_"): channels at each resolution, and the numbers of blocks.

        The numbers are those on the way down, on the way up (one fewer) and of added blocks.
        """
        names = ("channels", "blocks", "blocks_up", "blocks_added")
        widths, down, up, added = (getattr(self, part + name) for name in names)
        return widths, down, up or down[:-1], added or (0,) * len(widths)

    def _unet_rules(self, part: str = "") -> tuple[Rule, ...]:
        widths, down, up, added = self.unet(part)
        levels, both = len(widths), f"{part}channels and {part}blocks"
        return (
            (0 < levels == len(down), both, (widths, down), "one number of blocks a width"),
            (len(up) == levels - 1, f"{part}blocks_up", up, f"{levels - 1} numbers, one for each width but the last"),
            (len(added) == levels, f"{part}blocks_added", added, f"{levels} numbers, one for each width"),
        )

    @property
    def stride(self) -> int:
        """Return the number of voxels that patch origins and sizes are multiples of."""
        levels = [len(self.channels)] if self.kind == "slabs" else [len(self.channels), len(self.lift_channels)]
        return int(self.stem * 2 ** (max(levels) - 1))

    @property
    def receptive_radius(self) -> int:
        """Return how far, in voxels, the denoiser's output depends on its input and its condition."""
        return EVERYWHERE if self.kind == "slabs" else self._reach()

    @property
    def lift_radius(self) -> int:
        """Return how far, in voxels, the lift's outputs depend on the image features about a voxel."""
        return 0 if self.kind == "slabs" else self._reach("lift_")

    def _reach(self, part: str = "") -> int:
        """Return a U-Net's reach: s voxels for each 3^3 convolution at stride s, and the coarsest cell's alignment."""
        widths, down, up, added = self.unet(part)
        strides = [self.stem * 2**level for level in range(len(widths))]
        blocks = zip(down, (*up, 0), added, strict=True)
        convolutions = sum((1 if self.expand else 2) * s * sum(n) for s, n in zip(strides, blocks, strict=True))
        return int(convolutions + self.stem * self.overlap + strides[-1] - 1)
