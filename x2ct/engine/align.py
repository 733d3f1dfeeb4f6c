"""Find how much higher a patient stands in the lateral X-ray than in the frontal one, from the two images alone.

A parallel beam across the patient's long axis conserves mass: the sum of a row of line integrals is the integral of the
attenuation over the slice at that height, from whatever side it is taken (the zeroth Helgason-Ludwig condition). So two
views of one patient have the same profile of row sums along z, and a shift between the profiles is a shift of the
patient. It is all that two such views say of each other's pose: with two directions, the higher conditions leave the
shift across and the angle of each view free. In a cone beam rows mix heights; the shift is then found to about 3 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError

REACH_MM = 60.0
"""The largest shift that is looked for."""
STEP_MM = 1.0
FINE_MM, COARSE_MM = 2.0, 40.0
"""The profiles are band-passed: differences of Gaussians with these standard deviations. Noise is finer; what a
collimator cuts off, scatter and arms, which one view lacks, are coarser."""
LEAST_CORRELATION = 0.8
"""Pairs of one chest have 0.96 or more, in cone beams and as display values too (benchmarks/align.py)."""

FloatArray = npt.NDArray[np.floating]


class Heights(NamedTuple):
    """How much higher, towards the head, the patient is in the lateral X-ray, and the profiles' correlation then."""

    offset_mm: float
    correlation: float


def heights(images: Sequence[FloatArray], matrices: Sequence[FloatArray]) -> Heights:
    """Compare a frontal and a lateral X-ray.

    Args:
        images: two of (rows, columns), line integrals, calibrated or up to a smooth monotonic map; any pixel pitch.
        matrices: two of (3, 4), patient mm to pixels.

    Raises:
        InputError: the profiles have nothing in common within `REACH_MM`.
    """
    # Heights on the patient's axis that both detectors show, and as many on either side of the isocentre.
    reach = int(min(abs(z) for image, matrix in zip(images, matrices, strict=True) for z in _ends(image, matrix)))
    z = np.arange(-reach, reach + STEP_MM, STEP_MM)
    frontal, lateral = (_profile(image, matrix, z) for image, matrix in zip(images, matrices, strict=True))
    half = int(REACH_MM / STEP_MM)
    inner = slice(half, len(frontal) - half)
    shifts = range(-half, half + 1)
    scores = [correlation(frontal[inner], lateral[inner.start + n : inner.stop + n]) for n in shifts]
    best = int(np.argmax(scores))
    if scores[best] < LEAST_CORRELATION or best in (0, len(scores) - 1):
        raise InputError.of(
            "--align",
            "X-rays",
            found=f"profiles along the patient's axis with a correlation of {scores[best]:.2f}",
            expected=f"at least {LEAST_CORRELATION:g}, within {REACH_MM:g} mm of the same height",
            hint="these may be two patients, or a wrong pixel pitch; see x2ct xray FILE",
        )
    before, top, after = scores[best - 1 : best + 2]
    vertex = 0.5 * (before - after) / (before - 2 * top + after)
    return Heights((shifts[best] + float(vertex)) * STEP_MM, float(top))


def raised(matrix: FloatArray, offset_mm: float) -> npt.NDArray[np.float64]:
    """Return a view's matrix for a patient who is so many mm higher in it."""
    moved = np.asarray(matrix, np.float64).copy()
    moved[:, 3] += offset_mm * moved[:, 2]
    return moved


def _ends(image: FloatArray, matrix: FloatArray) -> tuple[float, float]:
    """Return the heights on the patient's axis (x = y = 0), in mm, that the first and the last row show."""
    (a, b), (c, d) = np.asarray(matrix, np.float64)[1:, 2:]
    first, last = ((v * d - b) / (a - v * c) for v in (0.0, image.shape[0] - 1.0))
    return first, last


def at_heights(values: FloatArray, matrix: FloatArray, z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what rows hold where they show the heights `z` (mm) on the patient's axis; NaN beyond the detector.

    Args:
        values: one a row; NaN where it is not known, and between such a row and the next.
        matrix: (3, 4), patient mm to pixels.
        z: any number of heights, in mm.
    """
    (a, b), (c, d) = np.asarray(matrix, np.float64)[1:, 2:]
    rows = (a * z + b) / (c * z + d)
    return np.asarray(np.interp(rows, np.arange(len(values)), values, left=np.nan, right=np.nan), np.float64)


def _profile(image: FloatArray, matrix: FloatArray, z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the band-passed sums of the rows that show the heights `z` on the patient's axis."""
    from scipy import ndimage

    profile = at_heights(np.asarray(image, np.float64).sum(axis=1), matrix, z)
    fine, coarse = (ndimage.gaussian_filter1d(profile, mm / STEP_MM) for mm in (FINE_MM, COARSE_MM))
    return np.asarray(fine - coarse, np.float64)


def correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Return the correlation of two profiles, -1 to 1; 0 where one of them is flat."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0
