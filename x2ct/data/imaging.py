"""Training X-rays as radiographs: the detector's physics, and the display picture that a hospital's file often is.

Line integrals go in and come out, in the domain that the sampler brings real radiographs to: a display picture passes
through `x2ct.io.xray.exposure`'s chain just as one from a file does, with the same reference.

What happens to an X-ray is drawn on the host (`draw_physics`, `draw_display`) and done on the image's device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from x2ct.io.xray import degradation, exposure


@dataclass(frozen=True)
class RadiographConfig:
    """How far a training X-ray may be from the exact line integrals."""

    physics: float = 0.5  # probability that scatter, glare, blur and photon noise act, each up to its strength
    scatter: float = 0.1  # largest scattered over primary intensity, that nobody corrected for
    glare: float = 0.03  # largest share of the light that strays in the detector
    spread_mm: float = 40.0  # standard deviation of the spread of both
    blur_mm: float = 1.0  # largest standard deviation of focal spot and detector
    # Fewest and most photons per pixel where nothing attenuates, drawn evenly in the logarithm; 0 for no noise.
    photons: tuple[float, float] = (1e4, 1e6)
    display: float = 0.35  # probability that it becomes a display picture and is read as one, uncalibrated
    gamma: float = 0.3  # largest |ln exponent| of a display picture's tone curve
    clip: float = 1.5  # largest share, in per cent, that a display window cuts off at either end
    eight_bit: float = 0.5  # probability that a display picture has 256 grey levels and not 65536
    collimate: float = 0.3  # probability of collimator blades on a display picture
    blade: float = 0.12  # largest share of the picture that one blade covers
    marker: float = 0.3  # probability of a lead letter on a display picture


NONE = RadiographConfig(physics=0.0, display=0.0)  # X-rays stay line integrals


@dataclass(frozen=True)
class Physics:
    """The strengths of one X-ray's detector physics, see `RadiographConfig`; 0 leaves an effect out."""

    scatter: float
    glare: float
    spread_mm: float
    blur_mm: float
    photons: float


@dataclass(frozen=True)
class Display:
    """How one X-ray becomes a display picture."""

    gamma: float  # exponent of the tone curve
    clip: tuple[float, float]  # per cent of the pixels that the window cuts off at the lower and at the upper end
    blades: tuple[int, int, int, int] | None  # rows at the top and bottom, columns at the left and right under blades
    levels: int  # the highest grey level, 255 or 65535
    # arguments of `degradation.marker`: centre (row, column), height in pixels, letter, line integral
    marker: tuple[tuple[float, float], int, str, float] | None


def draw_physics(config: RadiographConfig, rng: np.random.Generator) -> Physics:
    """Draw strengths up to the configuration's; doses evenly in the logarithm."""
    scatter, glare, blur, dose = rng.random(4)
    low, high = config.photons
    photons = math.exp(math.log(low) + dose * math.log(high / low)) if low else 0.0
    return Physics(config.scatter * scatter, config.glare * glare, config.spread_mm, config.blur_mm * blur, photons)


def draw_display(config: RadiographConfig, shape: tuple[int, int], rng: np.random.Generator) -> Display:
    """Draw a display picture's looks, for an image of (rows, columns)."""
    marker = blades = None
    if rng.random() < config.marker:  # towards a corner, where radiographers put it
        shares = rng.uniform(0.05, 0.25, 2)
        row, column = (n * (share if rng.random() < 0.5 else 1 - share) for n, share in zip(shape, shares, strict=True))
        height = int(rng.uniform(0.03, 0.07) * shape[0])
        marker = (row, column), height, str(rng.choice(("R", "L", "PA", "AP"))), rng.uniform(2.0, 6.0)
    gamma = math.exp(rng.uniform(-1, 1) * config.gamma)
    low, high = rng.uniform(0, 1, 2) * config.clip
    if rng.random() < config.collimate:  # none to four blades
        closed = rng.random(4) < 0.5
        covered = rng.uniform(0.02, max(config.blade, 0.02), 4) * np.repeat(shape, 2) * closed
        top, bottom, left, right = (int(n) for n in covered)
        blades = top, bottom, left, right
    return Display(gamma, (low, high), blades, 255 if rng.random() < config.eight_bit else 65535, marker)


def detected(image: Tensor, spacing_mm: tuple[float, float], physics: Physics, generator: torch.Generator) -> Tensor:
    """Return line integrals, float32 [rows, columns], after scatter, veiling glare, blur and photon noise.

    In this order, each as in `x2ct.io.xray.degradation`. `spacing_mm` is the pixel pitch (rows,
    columns), `generator` that of the photon noise, on the image's device.
    """
    intensity = (-image).exp()
    if physics.scatter:
        intensity = intensity + physics.scatter * _smooth(intensity, spacing_mm, physics.spread_mm)
    if physics.glare:
        intensity = torch.lerp(intensity, _smooth(intensity, spacing_mm, physics.spread_mm), physics.glare)
    if physics.blur_mm:
        intensity = _smooth(intensity, spacing_mm, physics.blur_mm)
    if physics.photons:
        counts = torch.poisson(intensity.clamp_(min=degradation.DARKEST) * physics.photons, generator=generator)
        intensity = counts.clamp_(min=1) / physics.photons
        return -intensity.log()
    return -intensity.clamp(min=degradation.DARKEST).log()


def displayed(image: Tensor, reference_p99: float, display: Display) -> Tensor:
    """Make a display picture of line integrals and read it back as the sampler does: uncalibrated.

    The stages field, air and scale of `x2ct.io.xray.exposure`; float32 [rows, columns].
    """
    grey = display_picture(image, display)
    rows, columns = exposure.exposed_field(grey.cpu().numpy())  # a search for edges that reads the whole picture
    result = torch.zeros_like(grey)
    field = result[rows, columns]
    field.copy_(grey[rows, columns])
    field.sub_(_percentile(field, exposure.AIR_PERCENTILE)).clamp_(min=0)
    top = _percentile(field, exposure.REFERENCE_PERCENTILE)
    top = torch.where(top > 0, top, field.max())
    return result.mul_(reference_p99 / torch.where(top > 0, top, torch.ones_like(top)))


def display_picture(image: Tensor, display: Display) -> Tensor:
    """Return line integrals with letter, tone curve, window and blades as grey levels, dense bright, float32."""
    empty = np.zeros(image.shape, np.float32)
    if display.marker is not None:
        lead = degradation.marker(empty, *display.marker)
        image = image + torch.from_numpy(lead).to(image.device)
    image = toned(image, display.gamma)
    low, high = _percentile(image, display.clip[0]), _percentile(image, 100 - display.clip[1])
    if display.blades is not None:  # after the window was set: it is set on what is exposed
        blades = degradation.collimate(empty, display.blades)
        image = image + torch.from_numpy(blades).to(image.device)
    unit = ((image - low) / (high - low).clamp(min=1e-6)).clamp_(0, 1)
    return unit.mul_(display.levels).round_()


def toned(image: Tensor, exponent: float, scale: float = 1.0) -> Tensor:
    """Normalise the intensity otherwise, as `degradation.gamma`: scale top (image / top)^exponent."""
    positive = image.clamp(min=0)
    top = _percentile(positive, 99).clamp(min=1e-3)
    return (positive / top).pow_(exponent).mul_(top * scale)


def _percentile(values: Tensor, per_cent: float) -> Tensor:
    """Return the percentile as NumPy interpolates it, a tensor without axes; no copy to the host."""
    flat = values.flatten()
    rank = per_cent / 100 * (flat.numel() - 1)
    below = int(rank)
    low = flat.kthvalue(below + 1).values
    if below == rank:
        return low
    return torch.lerp(low, flat.kthvalue(below + 2).values, rank - below)


def _smooth(image: Tensor, spacing_mm: tuple[float, float], sigma_mm: float) -> Tensor:
    """Return a Gaussian blur that extends the image by its border values, as `degradation` does."""
    down, across = (
        _gaussian(size, round(sigma_mm / pitch, 4)) for size, pitch in zip(image.shape, spacing_mm, strict=True)
    )
    return down.to(image.device) @ image @ across.to(image.device).T


@lru_cache(maxsize=16)
def _gaussian(size: int, sigma_px: float) -> Tensor:
    """Return the filter along one axis as a matrix, float32 [size, size]."""
    return torch.from_numpy(
        ndimage.gaussian_filter1d(np.eye(size), sigma_px, axis=0, mode="nearest").astype(np.float32)
    )
