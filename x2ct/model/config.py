"""The network's shape: one frozen, typed object, saved with every run and every bundle."""

from __future__ import annotations

from dataclasses import dataclass

from x2ct.errors import InputError


@dataclass(frozen=True)
class ModelConfig:
    """Widths and depths of the three networks.

    Attributes:
        views: number of view slots V (slot 0 frontal, slot 1 lateral).
        detector: rows and columns of the encoder's input images; multiples of 2 ** len(encoder_channels).
        encoder_channels: channels of the 2D encoder at strides 2, 4, 8, ...; the first is also its output's.
        features: how the X-rays reach the volume: "encoded" samples the 2D encoder's output, "pixels" samples
            the X-rays themselves (the repeated pixels of earlier work, kept as a baseline).
        lift_hidden: channels of the lift's voxel-wise mixing layer.
        lift_blocks: residual 3^3 blocks in the lift at each resolution, run once per volume.
        channels: channels of the 3D denoiser at strides 2, 4, 8, ...
        blocks: residual blocks of the denoiser at each resolution on the way down (and again on the way up,
            but for the coarsest).
        embedding: number of Fourier features of the noise level.
        norm: "mp" for magnitude-preserving weights that fold into plain convolutions, "group" for GroupNorm.
        sigma_data: standard deviation of the data in the network's unit x.
        sigma_max: noise level that the sampler starts from.
        reference_p99: a line integral near the top of the training X-rays, used to scale the encoder's input.

    Raises:
        InputError: the numbers do not describe a network.
    """

    views: int = 2
    detector: tuple[int, int] = (352, 352)
    encoder_channels: tuple[int, ...] = (32, 64, 96, 96, 96)
    features: str = "encoded"
    lift_hidden: int = 96
    lift_blocks: tuple[int, ...] = (0, 1)
    channels: tuple[int, ...] = (32, 80, 128)
    blocks: tuple[int, ...] = (1, 1, 1)
    embedding: int = 32
    norm: str = "mp"
    sigma_data: float = 0.5
    sigma_max: float = 20.0
    reference_p99: float = 6.0

    def __post_init__(self) -> None:
        for name in ("encoder_channels", "lift_blocks", "channels", "blocks", "detector"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.channels) != len(self.blocks) or not 1 <= len(self.lift_blocks) <= len(self.channels):
            raise InputError.of(
                "model config",
                "channels, blocks and lift_blocks",
                found=(self.channels, self.blocks, self.lift_blocks),
                expected="as many blocks as channels, and at most as many lift_blocks",
            )
        if self.features not in ("encoded", "pixels"):
            raise InputError.of("model config", "features", found=self.features, expected="encoded or pixels")
        if self.norm not in ("mp", "group"):
            raise InputError.of("model config", "norm", found=self.norm, expected="mp or group")
        multiple = 2 ** len(self.encoder_channels)
        if any(side % multiple for side in self.detector):
            raise InputError.of("model config", "detector", found=self.detector, expected=f"multiples of {multiple}")

    @property
    def stride(self) -> int:
        """Patch origins and sizes are multiples of this, in voxels."""
        return int(2 ** len(self.channels))

    @property
    def receptive_radius(self) -> int:
        """How far, in voxels, the denoiser's output looks at its input and its condition.

        Each 3^3 convolution at stride s reaches s voxels further. Stem, down and up layers are non-overlapping
        2^3 blocks, whose alignment can add up to the coarsest cell.
        """
        radius = 0
        for level, blocks in enumerate(self.blocks):
            both_ways = 1 if level == len(self.blocks) - 1 else 2
            radius += 2 ** (level + 1) * 2 * blocks * both_ways
        return radius + self.stride - 1
