"""The network: 2D encoder, lift, 3D denoiser, EDM preconditioning. These modules import PyTorch."""

from x2ct.model.config import ModelConfig
from x2ct.model.network import X2CTModel

__all__ = ["ModelConfig", "X2CTModel"]
