"""Training X-rays as radiographs: the detector's physics, and the display picture that a hospital's file often is.

Line integrals go in and come out, in the domain that the sampler brings real radiographs to: a display picture passes
through `x2ct.xrays.exposure`'s chain just as one from a file does, with the same reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from x2ct.xrays import degradation, exposure
from x2ct.xrays.picture import Picture

FloatImage = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RadiographConfig:
    """How far a training X-ray may be from the exact line integrals.

    Attributes:
        physics: probability that scatter, glare, blur and photon noise act, each up to its strength.
        scatter: largest scattered over primary intensity, that nobody corrected for.
        glare: largest share of the light that strays in the detector.
        spread_mm: standard deviation of the spread of both.
        blur_mm: largest standard deviation of focal spot and detector.
        photons: dose levels: fewest and most photons per pixel where nothing attenuates, drawn evenly in the logarithm;
            0 for no noise.
        display: probability that the X-ray becomes a display picture and is read as one, uncalibrated.
        gamma: largest |ln exponent| of a display picture's tone curve.
        clip: largest share, in per cent, that a display window cuts off at either end.
        eight_bit: probability that a display picture has 256 grey levels and not 65536.
        collimate: probability of collimator blades on a display picture.
        blade: largest share of the picture that one blade covers.
        marker: probability of a lead letter on a display picture.
    """

    physics: float = 0.5
    scatter: float = 0.1
    glare: float = 0.03
    spread_mm: float = 40.0
    blur_mm: float = 1.0
    photons: tuple[float, float] = (1e4, 1e6)
    display: float = 0.35
    gamma: float = 0.3
    clip: float = 1.5
    eight_bit: float = 0.5
    collimate: float = 0.3
    blade: float = 0.12
    marker: float = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "photons", tuple(self.photons))


NONE = RadiographConfig(physics=0.0, display=0.0)
"""X-rays stay line integrals."""


def radiograph(
    image: FloatImage,
    spacing_mm: tuple[float, float],
    reference_p99: float,
    config: RadiographConfig,
    rng: np.random.Generator,
) -> FloatImage:
    """An X-ray as a detector, and perhaps a workstation, would give it; the same generator state, the same picture.

    Args:
        image: line integrals, float32 (rows, columns).
        spacing_mm: pixel pitch (rows, columns).
        reference_p99: what the sampler scales a display picture's 99th percentile to, for this view.
        config: how far it may go.
        rng: where the chances come from.

    Returns:
        (rows, columns) float32 in the domain of line integrals.
    """
    if rng.random() < config.physics:
        image = detected(image, spacing_mm, config, rng)
    if rng.random() < config.display:
        image = displayed(image, reference_p99, config, rng)
    return image


def detected(
    image: FloatImage, spacing_mm: tuple[float, float], config: RadiographConfig, rng: np.random.Generator
) -> FloatImage:
    """Scatter, veiling glare, blur and photon noise, in the order in which they happen; still line integrals."""

    def pixels(millimetres: float) -> tuple[float, float]:
        return millimetres / spacing_mm[0], millimetres / spacing_mm[1]

    shares = rng.random(4)
    if config.scatter:
        image = degradation.scatter(image, config.scatter * shares[0], pixels(config.spread_mm))
    if config.glare:
        image = degradation.veiling_glare(image, config.glare * shares[1], pixels(config.spread_mm))
    if config.blur_mm:
        image = degradation.blur(image, pixels(config.blur_mm * shares[2]))
    low, high = config.photons
    if low:
        dose = math.exp(math.log(low) + shares[3] * math.log(high / low))
        image = degradation.poisson_noise(image, dose, rng)
    return image


def displayed(
    image: FloatImage, reference_p99: float, config: RadiographConfig, rng: np.random.Generator
) -> FloatImage:
    """A display picture made of line integrals, and read back as the sampler reads one: not calibrated any more."""
    picture = Picture(display_picture(image, config, rng).astype(np.float32))
    return exposure.run(exposure.intensity_stages(reference_p99), picture).values


def display_picture(image: FloatImage, config: RadiographConfig, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Line integrals with letter, tone curve, window and blades as grey levels, dense bright; 0 to 255 or to 65535."""
    if rng.random() < config.marker:
        image = _marked(image, rng)
    image = degradation.gamma(image, math.exp(rng.uniform(-1, 1) * config.gamma))
    low, high = np.percentile(image, np.asarray([0, 100]) + rng.uniform(0, 1, 2) * (config.clip, -config.clip))
    if rng.random() < config.collimate:  # after the window was set: it is set on what is exposed
        image = _collimated(image, config.blade, rng)
    levels = 255 if rng.random() < config.eight_bit else 65535
    unit = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    return np.asarray(np.rint(unit * levels), np.uint16)


def _collimated(image: FloatImage, blade: float, rng: np.random.Generator) -> FloatImage:
    """One to four blades."""
    sides = np.repeat(image.shape, 2)
    closed = rng.random(4) < 0.5
    margins = (rng.uniform(0.02, max(blade, 0.02), 4) * sides * closed).astype(int)
    top, bottom, left, right = (int(margin) for margin in margins)
    return degradation.collimate(image, (top, bottom, left, right))


def _marked(image: FloatImage, rng: np.random.Generator) -> FloatImage:
    """A lead letter towards a corner, where radiographers put it."""
    rows, columns = image.shape
    row, column = rng.uniform(0.05, 0.25, 2)
    centre = rows * (row if rng.random() < 0.5 else 1 - row), columns * (column if rng.random() < 0.5 else 1 - column)
    height = int(rng.uniform(0.03, 0.07) * rows)
    return degradation.marker(image, centre, height, rng.choice(("R", "L", "PA", "AP")), rng.uniform(2.0, 6.0))
