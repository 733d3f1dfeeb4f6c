"""A network of a few thousand random weights, and what an export says of it. Needs PyTorch."""

from __future__ import annotations

import json

import torch

from x2ct.bundle import Description, Diffusion, Grid, Patch, XRaySpec
from x2ct.bundle.intensity import Intensity
from x2ct.geometry import Geometry
from x2ct.model import ModelConfig, X2CTModel
from x2ct.training import TrainConfig

CONFIG = ModelConfig(
    detector=(64, 64),
    encoder_channels=(8, 8, 16),
    lift_channels=(8, 16),
    lift_blocks=(1, 1),
    channels=(8, 16),
    blocks=(1, 1),
    embedding=8,
)
SPEC = Description(
    name="tiny",
    grid=Grid((32, 32, 32), (10.0, 10.0, 10.0)),
    intensity=Intensity(),
    xray=XRaySpec((64, 64), (6.0, 6.0), (5.0, 7.0)),
    geometry=Geometry.parallel(("ap", "lateral"), shape=(64, 64), spacing_mm=(6.0, 6.0)),
    diffusion=Diffusion(CONFIG.sigma_data, 0.03, 20.0, "log-snr", "dpmpp-2m", 6),
    patch=Patch(((16, 16, 16), (32, 32, 32)), (0.75, 0.25), CONFIG.stride),
    provenance={
        "data": "none: random weights",
        "training": json.loads(json.dumps(TrainConfig(model=CONFIG).to_json())),
    },
)


def random_model(config: ModelConfig = CONFIG) -> X2CTModel:
    """A model whose gains, which start at zero, let every layer through."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = X2CTModel(config)
    model.normalize()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 0:
                parameter.fill_(0.7)
    return model.eval()
