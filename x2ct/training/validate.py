"""Validation on patients that the training never sees: fixed noise, fixed levels, whole volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from x2ct.data.augment import Study, interpolated
from x2ct.evaluation.metrics import bone_dice, psnr
from x2ct.evaluation.protocol import average
from x2ct.model import X2CTModel
from x2ct.training.checkpoint import State
from x2ct.training.loss import edm_weight

LEVELS = (1.0, 0.3, 0.1)
"""Noise levels at which the denoiser is validated, beside sigma_max."""


@dataclass(frozen=True)
class Validation:
    """Results of one validation.

    Attributes:
        figures: by the names of validation.jsonl, means over the patients:
            loss: one number to compare runs by, the mean of `mean_loss` and `losses`;
            losses: mean squared error in x times EDM's weight, at each of `LEVELS`;
            mean_loss: the same of the posterior mean, at sigma_max;
            mean_psnr: PSNR in dB of the posterior mean over the volume, peak = the HU window;
            mean_bone_dice: Dice of bone at 200 HU of the posterior mean;
            low_bone_dice: the same of the volume denoised from the middle of `LEVELS`.
        truth_hu: the first patient, float32 HU [X, Y, Z].
        mean_hu: the first patient's posterior mean.
        low_hu: the first patient denoised from the middle of `LEVELS`.
    """

    figures: dict[str, Any]
    truth_hu: npt.NDArray[np.float32]
    mean_hu: npt.NDArray[np.float32]
    low_hu: npt.NDArray[np.float32]


@torch.no_grad()
def validate(state: State, model: X2CTModel, studies: list[Study]) -> Validation:
    """Denoise each study whole with a model of the run, at sigma_max and at each of `LEVELS`."""
    config, coords, device = state.config, state.coords, state.coords.device
    intensity, sigma_data, sigma_max = config.intensity, config.model.sigma_data, config.diffusion.sigma_max
    rows: list[dict[str, float]] = []
    losses: list[list[float]] = []
    pictures: list[npt.NDArray[np.float32]] = []
    for number, study in enumerate(studies):
        truth = interpolated(study.hu, intensity.hu, intensity.x)[None, None].to(device)
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(number)).to(device)
        starts = [(sigma_max, noise * sigma_max, model.denoiser.forward)]
        starts += [(sigma, truth + noise * sigma, model.denoiser.denoise) for sigma in LEVELS]
        volumes, errors = [], []
        with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast):
            conditions = model.condition(*study.inputs(device), coords[None])
            for sigma, x, denoise in starts:
                volumes.append(denoise(x, torch.full((1,), sigma, device=device), *conditions).float())
                errors.append(float((volumes[-1] - truth).square().mean()) * edm_weight(sigma, sigma_data))
        hu = study.hu.cpu().numpy()
        mean, low = (
            interpolated(volume[0, 0], intensity.x, intensity.hu).cpu().numpy()
            for volume in (volumes[0], volumes[1 + len(LEVELS) // 2])
        )
        decibels, mean_dice, low_dice = psnr(hu, mean, intensity.window_hu), bone_dice(hu, mean), bone_dice(hu, low)
        rows.append({"mean_psnr": decibels, "mean_bone_dice": mean_dice, "low_bone_dice": low_dice})
        losses.append(errors)
        pictures = pictures or [np.clip(hu, *intensity.window_hu), mean, low]
    mean_loss, *others = (float(value) for value in np.mean(losses, 0))
    loss = float(np.mean((mean_loss, *others)))
    figures = {"loss": loss, "losses": others, "mean_loss": mean_loss, **average(rows)}
    return Validation(figures, *pictures)
