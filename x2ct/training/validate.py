"""Validation on people that the training never sees: fixed noise, fixed levels, whole volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from x2ct.data.augment import Study
from x2ct.intensity import Intensity
from x2ct.model import X2CTModel
from x2ct.training.loss import edm_weight

LEVELS = (1.0, 0.3, 0.1)
"""Noise levels at which the denoiser is validated, beside sigma_max."""

BONE_HU = 200.0


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
        mean_hu: the posterior mean of the first person, float32 HU [X, Y, Z].
        low_hu: the same person denoised from the middle of `LEVELS`.
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
    bottom, top = intensity.window_hu
    sigma_data = model.config.sigma_data
    figures, losses, first = [], [], None
    for number, study in enumerate(studies):
        truth = torch.from_numpy(intensity.to_x(study.hu))[None, None].to(device)
        clipped = np.clip(study.hu, bottom, top)
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(number)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            conditions = model.condition(*study_tensors([study], device), coords[None])
            level = torch.full((1,), sigma_max, device=device)
            denoised = model.denoiser(noise * sigma_max, level, *conditions).float()
            mean = intensity.to_hu(denoised[0, 0].cpu().numpy())
            row = [float((denoised - truth).square().mean()) * edm_weight(sigma_max, sigma_data)]
            for sigma in LEVELS:
                level = torch.full((1,), sigma, device=device)
                result = model.denoiser.denoise(truth + noise * sigma, level, *conditions).float()
                row.append(float((result - truth).square().mean()) * edm_weight(sigma, sigma_data))
                if sigma == LEVELS[1]:
                    low = intensity.to_hu(result[0, 0].cpu().numpy())
        psnr = 10 * np.log10((top - bottom) ** 2 / np.mean((mean - clipped) ** 2))
        figures.append((float(psnr), bone_dice(mean, clipped), bone_dice(low, clipped)))
        losses.append(row)
        first = first or (mean, low)
    assert first is not None
    psnr, dice, low_dice = (float(value) for value in np.mean(figures, 0))
    mean_loss, *others = (float(value) for value in np.mean(losses, 0))
    return Validation(psnr, dice, mean_loss, tuple(others), low_dice, *first)


def study_tensors(studies: list[Study], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """views [N, V, 1, H, W], valid [N, V] and P [N, V, 3, 4] of studies, as the networks take them."""
    views = torch.from_numpy(np.stack([study.views for study in studies]))[:, :, None]
    valid = torch.from_numpy(np.stack([study.valid for study in studies]))
    projections = torch.from_numpy(np.stack([study.projections for study in studies]))
    return views.to(device), valid.to(device), projections.to(device)


def bone_dice(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Dice coefficient of the voxels above 200 HU; 1 where neither has any."""
    bone_a, bone_b = a > BONE_HU, b > BONE_HU
    total = int(bone_a.sum()) + int(bone_b.sum())
    return 2 * int((bone_a & bone_b).sum()) / total if total else 1.0
