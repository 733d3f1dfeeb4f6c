"""Degradations of X-rays on their way to a file: noise, scatter, glare, blur, blades, markers, display windows.

Pure functions on images of line integrals (rows, columns), float32, dimensionless. Where the physics happens in
intensity, exp(-line integral) of an unattenuated beam of 1, they go there and come back. Evaluation tests with them,
training augments with them; nothing in them knows either. Randomness comes from the generator that is given.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError

FloatImage = npt.NDArray[np.float32]

DARKEST = 1e-6
"""Intensities below this are taken as this: a line integral of 13.8, past what any detector tells from its offset."""


def poisson_noise(image: FloatImage, photons: float, rng: np.random.Generator) -> FloatImage:
    """Return line integrals with photon noise: counts ~ Poisson(photons exp(-image)), a count of 0 read as 1.

    `photons` are per pixel where nothing attenuates; InputError unless positive.
    """
    _check("photons", photons, 0, math.inf)
    counts = rng.poisson(photons * np.exp(-np.asarray(image, np.float64)))
    return np.asarray(-np.log(np.maximum(counts, 1) / photons), np.float32)


def scatter(image: FloatImage, share: float, blur_px: float | tuple[float, float]) -> FloatImage:
    """Add scatter that nobody corrects for: `share` of the primary intensity (InputError if negative), blurred.

    Averaged over the picture that is 0.02 behind a good grid, 0.1 and far more without one. `blur_px` is a Gaussian's
    standard deviation in pixels, (row, column) or one number: some 50 mm in the body.
    """
    _check("scatter share", share, -1e-9, math.inf)
    return _spread(image, 1, share, blur_px)


def veiling_glare(image: FloatImage, share: float, blur_px: float | tuple[float, float]) -> FloatImage:
    """Let light stray in the detector: `share` (0 to 1, or InputError) of the intensity leaves its pixel.

    Unlike scatter it adds no intensity: a wide tail of the point spread, a Gaussian of `blur_px` pixels.
    """
    _check("glare share", share, -1e-9, 1)
    return _spread(image, 1 - share, share, blur_px)


def blur(image: FloatImage, sigma_px: float | tuple[float, float]) -> FloatImage:
    """Blur as focal spot and detector do: a Gaussian on the intensity, standard deviation in pixels."""
    return _spread(image, 0, 1, sigma_px)


def gamma(image: FloatImage, exponent: float, scale: float = 1.0) -> FloatImage:
    """Normalise the intensity otherwise: scale top (image / top)^exponent, top being the 99th percentile.

    Line integrals below 0 are taken as 0. An exponent of 1 leaves the shape of the scale; below 1 it lifts what is
    thin. InputError unless both are positive.
    """
    _check("exponent", exponent, 0, math.inf)
    _check("scale", scale, 0, math.inf)
    positive = np.maximum(np.asarray(image, np.float32), np.float32(0))
    top = max(float(np.percentile(positive, 99)), 1e-3)
    return np.asarray(np.power(positive / top, exponent) * (top * scale), np.float32)


def window_8bit(image: FloatImage, percentiles: tuple[float, float] = (0.5, 99.5)) -> npt.NDArray[np.uint8]:
    """Return a display picture: 256 grey levels between two percentiles of the line integrals, dense bright.

    This is no longer a line integral: it is read as an uncalibrated X-ray.
    """
    low, high = (float(value) for value in np.percentile(image, percentiles))
    width = max(high - low, 1e-6)
    return np.asarray(np.rint(np.clip((np.asarray(image, np.float64) - low) / width, 0, 1) * 255), np.uint8)


def collimate(
    image: FloatImage, margins_px: tuple[int, int, int, int], *, transmission: float = 1e-3, penumbra_px: float = 1.0
) -> FloatImage:
    """Cover the picture's borders with collimator blades, which let a thousandth through.

    `margins_px` are the rows at the top and bottom and the columns at the left and right that are covered,
    `transmission` the intensity behind a blade over that before it, `penumbra_px` the standard deviation of a Gaussian
    on the blades' edges. Raises InputError: blades that leave nothing, or a transmission outside of 0 to 1.
    """
    _check("transmission", transmission, 0, 1)
    rows, cols = image.shape
    top, bottom, left, right = margins_px
    if min(margins_px) < 0 or top + bottom >= rows or left + right >= cols:
        raise InputError.of("collimate", "margins", found=margins_px, expected=f"less than the picture's {image.shape}")
    blades = np.ones(image.shape, np.float64)
    blades[top : rows - bottom, left : cols - right] = 0
    return np.asarray(image - math.log(transmission) * _smooth(blades, penumbra_px), np.float32)


def marker(
    image: FloatImage, centre_px: tuple[float, float], height_px: int, letter: str = "R", line_integral: float = 4.0
) -> FloatImage:
    """Put a lead letter on the detector, as the side is marked with; it adds `line_integral`.

    `centre_px` is row and column of its middle, `height_px` its height; what lies beside the picture is cut.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("L", (image.shape[1], image.shape[0]))
    font = ImageFont.load_default(max(4, height_px))
    ImageDraw.Draw(picture).text((centre_px[1], centre_px[0]), letter, fill=255, font=font, anchor="mm")
    lead = np.asarray(picture, np.float32) / np.float32(255)
    return np.asarray(image + np.float32(line_integral) * lead, np.float32)


def _spread(image: FloatImage, direct: float, share: float, blur_px: float | tuple[float, float]) -> FloatImage:
    """Return line integrals of `direct` times the intensity and `share` times a Gaussian blur of it."""
    intensity = np.exp(-np.asarray(image, np.float64))
    intensity = direct * intensity + share * _smooth(intensity, blur_px)
    return np.asarray(-np.log(np.maximum(intensity, DARKEST)), np.float32)


def _smooth(image: npt.NDArray[np.float64], sigma_px: float | tuple[float, float]) -> npt.NDArray[np.float64]:
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter(image, sigma_px, mode="nearest"))


def _check(name: str, value: float, above: float, below: float) -> None:
    if not above < value < below:
        raise InputError.of("degradation", name, found=value, expected=f"above {max(above, 0):g} and below {below:g}")
