"""Validation on patients that the training never sees: fixed noise, fixed levels, whole volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from x2ct.bundle.intensity import Intensity
from x2ct.data.augment import Study, interpolated
from x2ct.evaluation.metrics import bone_dice, psnr
from x2ct.evaluation.protocol import average
from x2ct.model import X2CTModel
from x2ct.training.loss import edm_weight

LEVELS = (1.0, 0.3, 0.1)
"""Noise levels at which the denoiser is validated, beside sigma_max."""


@dataclass(frozen=True)
class Validation:
    """Figures of one validation, means over the patients.

    Attributes:
        FIGURES: names of the attributes that are numbers.
        mean_psnr: PSNR in dB of the posterior mean over the volume, peak = the HU window.
        mean_bone_dice: Dice of bone at 200 HU of the posterior mean.
        mean_loss: mean squared error in x of the posterior mean times EDM's weight at sigma_max.
        losses: mean squared error in x times EDM's weight, at each of `LEVELS`.
        low_bone_dice: Dice of bone of the volume denoised from the middle of `LEVELS`.
        mean_hu: the posterior mean of the first patient, float32 HU [X, Y, Z].
        low_hu: the same patient denoised from the middle of `LEVELS`.
    """

    FIGURES: ClassVar = ("loss", "losses", "mean_loss", "mean_psnr", "mean_bone_dice", "low_bone_dice")

    mean_psnr: float
    mean_bone_dice: float
    mean_loss: float
    losses: tuple[float, ...]
    low_bone_dice: float
    mean_hu: npt.NDArray[np.float32]
    low_hu: npt.NDArray[np.float32]

    @property
    def loss(self) -> float:
        """One number to compare runs by: the mean over sigma_max and `LEVELS`."""
        return float(np.mean((self.mean_loss, *self.losses)))


@torch.no_grad()
def validate(
    model: X2CTModel, studies: list[Study], coords: Tensor, intensity: Intensity, sigma_max: float, *, autocast: bool
) -> Validation:
    """Denoise each study whole, at sigma_max and at each of `LEVELS`."""
    device = coords.device
    sigma_data = model.config.sigma_data
    figures, losses, first = [], [], None
    for number, study in enumerate(studies):
        truth = interpolated(study.hu, intensity.hu, intensity.x)[None, None].to(device)
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(number)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            conditions = model.condition(*study_tensors([study], device), coords[None])
            level = torch.full((1,), sigma_max, device=device)
            denoised = model.denoiser(noise * sigma_max, level, *conditions).float()
            mean = interpolated(denoised[0, 0], intensity.x, intensity.hu).cpu().numpy()
            row = [float((denoised - truth).square().mean()) * edm_weight(sigma_max, sigma_data)]
            for sigma in LEVELS:
                level = torch.full((1,), sigma, device=device)
                result = model.denoiser.denoise(truth + noise * sigma, level, *conditions).float()
                row.append(float((result - truth).square().mean()) * edm_weight(sigma, sigma_data))
                if sigma == LEVELS[1]:
                    low = interpolated(result[0, 0], intensity.x, intensity.hu).cpu().numpy()
        hu = study.hu.cpu().numpy()
        figures.append(
            {
                "mean_psnr": psnr(hu, mean, intensity.window_hu),
                "mean_bone_dice": bone_dice(hu, mean),
                "low_bone_dice": bone_dice(hu, low),
            }
        )
        losses.append(row)
        first = first or (mean, low)
    assert first is not None
    mean_loss, *others = (float(value) for value in np.mean(losses, 0))
    return Validation(mean_loss=mean_loss, losses=tuple(others), mean_hu=first[0], low_hu=first[1], **average(figures))


def study_tensors(studies: list[Study], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """views [N, V, 1, H, W], valid [N, V] and P [N, V, 3, 4] of studies, as the networks take them."""
    views = torch.stack([study.views for study in studies])[:, :, None]
    valid = torch.stack([study.valid for study in studies])
    projections = torch.stack([study.projections for study in studies])
    return views.to(device), valid.to(device), projections.to(device)
