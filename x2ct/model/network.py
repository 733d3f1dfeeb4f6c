"""The three networks together, as the trainer, the exporter and the tests use them."""

from __future__ import annotations

from torch import Tensor, nn

from x2ct.model.config import ModelConfig
from x2ct.model.denoiser import Denoiser
from x2ct.model.encoder import Encoder
from x2ct.model.layers import MPConv
from x2ct.model.lift import Lift
from x2ct.model.slabs import RayLift, SlabDenoiser


class X2CTModel(nn.Module):
    """Encoder, lift and denoiser with the signatures of the bundle's three graphs.

    Raises:
        InputError: from `ModelConfig`, when the numbers do not describe a network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        slabs = config.kind == "slabs"
        self.lift: Lift | RayLift = RayLift(config) if slabs else Lift(config, self.encoder.out_channels)
        self.denoiser: Denoiser | SlabDenoiser = SlabDenoiser(config) if slabs else Denoiser(config)

    def normalize(self) -> None:
        """Normalise the weights of every layer; call after each optimiser step."""
        for module in self.modules():
            if isinstance(module, MPConv):
                module.normalize()

    def fold(self) -> X2CTModel:
        """Turn every layer into a plain convolution, in place; returns self, in evaluation mode."""
        for module in self.modules():
            if isinstance(module, MPConv):
                module.fold()
        return self.eval()

    def unfolded(self) -> dict[str, Tensor]:
        """Return the parameters, by name, with which a model that trains computes what this folded one does."""
        parameters = {name: value.detach() for name, value in self.named_parameters()}
        for name, module in self.named_modules():
            if isinstance(module, MPConv):
                parameters |= {f"{name}.{key}": value for key, value in module.unfolded().items()}
        return parameters

    def condition(self, views: Tensor, valid: Tensor, P: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Run encoder and lift; see their `forward` for shapes and units."""
        condition, sketch = self.lift(self.encoder(views, valid), P, coords, valid)
        return condition, sketch
