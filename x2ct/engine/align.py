"""Find how two views of one patient lie to each other, from the two images alone.

Take a plane that holds both sources. Along each of its rays a view has the integral y of attenuation mu, and

    integral of y d(phi) / sin(phi) over the view's rays = integral of mu / rho over the plane,

with phi the angle of a ray to the line through the sources, and rho the distance from that line: in polar coordinates
about either source r dr d(phi) is the area and r sin(phi) is rho. The right side knows no view, so the two images have
one profile along z; where they do not, the views lie otherwise than told. A parallel beam's source is infinitely far:
of two such views the number is the mass of a slice (the zeroth Helgason-Ludwig condition). Aichert et al. (Epipolar
consistency in transmission imaging, IEEE Trans. Med. Imaging 34, 2015) use a derivative of the same plane integrals.

Four numbers follow, those of the epipolar geometry of two parallel views: how much higher and how much larger the
patient is in the lateral picture than in the frontal one, and by how much each picture is turned. Others do not: where
both pictures show the patient at another height or in another size, or one of them farther to its side, it is the
patient who is moved or scaled and the CT with them; and pictures from another angle are those of a sheared patient.

An image that is not calibrated is a mass up to a factor and an offset, which counts where the body is: the least
squares fit of the profiles leaves both open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.geometry import View

REACH_MM = 60.0  # the largest difference in height that is looked for
HALF_MM, LEAST_HALF_MM = 100.0, 40.0
"""Half of the height at which profiles are compared: as much as both detectors show for any difference, to these."""
STEP_MM, ACROSS_MM = 2.0, 5.0  # at which profiles and rays are taken
FINE_MM, COARSE_MM = 2.0, 40.0
"""The profiles are band-passed: differences of Gaussians with these standard deviations. Noise is finer; what a
collimator cuts off, scatter and arms, which one view lacks, are coarser."""
LEAST_CORRELATION = 0.8  # a pair of one chest has more, in cone beams and as display values too (benchmarks/align.py)
TELLING_CORRELATION, TELLING_SHARE = 0.998, 0.6
"""Sizes and turns are found where they bring the correlation to at least this, and what it lacks of 1 to at most this
share of what it lacks without them: exact projections have 0.9995 and more; scatter and tone bend the profiles more
than a wrong size does (0.985, and sizes wrong by 9%)."""
_SIZES, _TURNS_DEG = np.exp(np.arange(-0.12, 0.121, 0.04)), (-4.0, 0.0, 4.0)  # that a fit begins from
_FAR_MM = 1e6  # where a parallel beam's source is put
_BODY = 0.1  # of the 99th percentile, above which a pixel shows the body

FloatArray = npt.NDArray[np.floating]
Array = npt.NDArray[np.float64]


class Pose(NamedTuple):
    """How a picture shows the patient, beside what the view's matrix says.

    A size in a cone beam is a source that is so many times nearer to the isocentre, as far from the detector as before.
    """

    height_mm: float = 0.0  # how much higher, towards the head
    size: float = 1.0  # how many times as large, about the isocentre
    turn_deg: float = 0.0  # by how much clockwise in the picture

    def matrix(self, told: FloatArray) -> Array:
        """Return the matrix (3, 4), patient mm to pixels, of such a picture, from that of a view."""
        axis = _axis(told)
        axis = axis if np.cross(told[0, :3], told[1, :3]) @ axis > 0 else -axis
        x, y, z = axis
        across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        angle = np.deg2rad(self.turn_deg)
        patient = np.eye(4)
        patient[:3, :3] = self.size * (np.eye(3) + np.sin(angle) * across + (1 - np.cos(angle)) * across @ across)
        patient[2, 3] = self.height_mm
        return np.asarray(told @ patient, np.float64)


class Alignment(NamedTuple):
    """How the pictures of two views show the patient, and the correlation of their profiles then."""

    frontal: Pose  # its turn; height and size are as told
    lateral: Pose  # its turn, and how much higher and larger than in the frontal picture
    correlation: float  # -1 to 1
    whole: bool  # whether sizes and turns were found too; else they are as told


def align(images: Sequence[FloatArray], matrices: Sequence[FloatArray], calibrated: bool = True) -> Alignment:
    """Compare a frontal and a lateral X-ray: (rows, columns) line integrals, and (3, 4) from patient mm to pixels.

    `calibrated` says whether the line integrals are known not only up to a scale and an offset. Raises InputError: the
    detectors show too little of the patient's axis, or the profiles have nothing in common within `REACH_MM`.
    """
    pair = _Pair(images, matrices, calibrated)
    height, whole = pair.fit(np.ones(1), (0.0,)), pair.fit(_SIZES, _TURNS_DEG)
    least = max(TELLING_CORRELATION, 1 - TELLING_SHARE * (1 - height.correlation))
    best = whole if whole.correlation >= least else height
    if best.correlation < LEAST_CORRELATION or abs(best.lateral.height_mm) >= REACH_MM:
        raise InputError.of(
            "--align",
            "X-rays",
            found=f"profiles along the patient's axis with a correlation of {best.correlation:.2f}",
            expected=f"at least {LEAST_CORRELATION:g}, within {REACH_MM:g} mm of the same height",
            hint="these may be two patients, or a wrong pixel pitch; see x2ct xray FILE",
        )
    return best


class _Pair:
    """Two pictures, smoothed, and their profiles along z under any pose."""

    def __init__(self, images: Sequence[FloatArray], matrices: Sequence[FloatArray], calibrated: bool) -> None:
        from scipy import ndimage

        self._matrices = [np.asarray(matrix, np.float64) for matrix in matrices]
        reach = min(abs(z) for image, matrix in zip(images, self._matrices, strict=True) for z in _ends(image, matrix))
        half = min(HALF_MM, reach - REACH_MM)
        if half < LEAST_HALF_MM:
            expected = f"at least {LEAST_HALF_MM + REACH_MM:g} mm above and below the isocentre"
            raise InputError.of("--align", "detectors", found=f"{reach:.0f} mm of height", expected=expected)
        self._z = np.arange(-(half + 1.4 * REACH_MM), half + 1.4 * REACH_MM, STEP_MM)
        self._inner = np.abs(self._z) <= half
        self._pictures: list[list[Array]] = []
        for image, matrix in zip(images, self._matrices, strict=True):
            at_isocentre = matrix[:2, :3] - matrix[:2, 3:] / matrix[2, 3] * matrix[2, :3]  # as a pixel moves per mm
            fine = FINE_MM * np.linalg.norm(at_isocentre, axis=1)[::-1] / matrix[2, 3]
            smooth = ndimage.gaussian_filter(np.asarray(image, np.float64), fine)
            body = np.clip(smooth / (_BODY * max(float(np.percentile(smooth, 99)), 1e-6)), 0, 1)
            self._pictures.append([smooth] if calibrated else [smooth, body])

    def fit(self, sizes: npt.NDArray[np.float64], turns_deg: Sequence[float]) -> Alignment:
        """Return the poses of highest correlation; with one size and one turn to begin from, only the height's."""
        from scipy import optimize

        whole = len(sizes) > 1
        scale = np.array([1.0, 100.0, 1.0, 1.0])[: 4 if whole else 1]  # a size of 1% counts as 1 mm and 1 degree do

        def poses(numbers: Array) -> tuple[Pose, Pose]:
            height, log_size, frontal, lateral = (*(numbers / scale).tolist(), 0.0, 0.0, 0.0)[:4]
            return Pose(turn_deg=frontal), Pose(height, math.exp(log_size), lateral)

        def difference(numbers: Array) -> Array:
            return self._difference(*poses(numbers))

        def slopes(numbers: Array) -> Array:
            steps = 0.5 * np.eye(len(numbers))
            return np.stack([difference(numbers + step) - difference(numbers - step) for step in steps], axis=1)

        start = np.array(self._coarse(sizes, turns_deg))[: len(scale)] * scale
        solution = optimize.least_squares(difference, start, slopes, max_nfev=20, xtol=1e-3, ftol=1e-4)
        return Alignment(*poses(solution.x), float(np.sqrt(max(0.0, 1 - 2 * solution.cost))), whole)

    def _coarse(self, sizes: npt.NDArray[np.float64], turns_deg: Sequence[float]) -> tuple[float, float, float, float]:
        """Return height in mm, logarithm of the size and turns in degrees, frontal and lateral, of those to try."""
        told, reach = Pose(), round(REACH_MM / STEP_MM)
        frontals = np.stack([self._profiles(0, Pose(turn_deg=turn), told)[0] for turn in turns_deg])
        tries = []
        for turn in turns_deg:
            whole = self._band(self._sums(1, told, Pose(turn_deg=turn))[0])
            for size in sizes:
                lateral = np.interp(self._z * size, self._z, whole)
                first = int(self._inner.argmax()) - reach
                windows = np.lib.stride_tricks.sliding_window_view(lateral, int(self._inner.sum()))
                scores = np.stack([_unit(window) for window in windows[first : first + 2 * reach + 1]]) @ frontals.T
                shift, frontal = np.unravel_index(int(scores.argmax()), scores.shape)
                height = (float(shift) - reach) * STEP_MM * float(size)
                tries.append((float(scores.max()), (height, float(np.log(size)), turns_deg[int(frontal)], turn)))
        return max(tries)[1]

    def _difference(self, frontal: Pose, lateral: Pose) -> Array:
        """Return the frontal profile less the least squares fit of the lateral one, and of the offsets' if open."""
        first, *offset = self._profiles(0, frontal, lateral)
        others = np.stack([*self._profiles(1, frontal, lateral), *offset], axis=1)
        return np.asarray(first - others @ np.linalg.lstsq(others, first, rcond=None)[0], np.float64)

    def _profiles(self, view: int, *poses: Pose) -> list[Array]:
        """Return a view's profile at the heights that are compared, and that of its body; each of norm 1."""
        return [_unit(self._band(sums)[self._inner]) for sums in self._sums(view, *poses)]

    def _band(self, sums: Array) -> Array:
        from scipy import ndimage

        return np.asarray(sums - ndimage.gaussian_filter1d(sums, COARSE_MM / STEP_MM), np.float64)

    def _sums(self, view: int, *poses: Pose) -> list[Array]:
        """Return the integrals over planes through both sources and the heights on the patient's axis, up to a factor.

        A ray is named by where it meets the line in its plane that goes through the axis across the view's direction.
        """
        from scipy import ndimage

        matrices = [pose.matrix(told) for pose, told in zip(poses, self._matrices, strict=True)]
        own, other = (_source(matrices[number]) for number in (view, 1 - view))
        heights = np.zeros((len(self._z), 3))
        heights[:, 2] = self._z
        across = np.cross(np.cross(own - heights, other - heights), _axis(matrices[view]))
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        steps = np.arange(-250.0, 251.0, ACROSS_MM)

        def along(origin: Array, direction: Array) -> Array:
            return np.asarray(origin[:, None] + direction[:, None] * steps, np.float64)

        starts, ways = heights @ matrices[view][:, :3].T + matrices[view][:, 3], across @ matrices[view][:, :3].T
        u, v, w = (along(start, way) for start, way in zip(starts.T, ways.T, strict=True))
        baseline = (other - own) / np.linalg.norm(other - own)
        rays = heights - own
        squares = along((rays**2).sum(axis=1), 2 * (rays * across).sum(axis=1)) + steps**2
        cosine = along(rays @ baseline, across @ baseline) / np.sqrt(squares)
        weight = np.abs(np.gradient(cosine, axis=1)) / (1 - cosine**2)  # d(phi) / sin(phi)
        rows_columns = np.stack([v / w, u / w])
        return [
            (ndimage.map_coordinates(picture, rows_columns, order=1, prefilter=False) * weight).sum(axis=1)
            for picture in self._pictures[view]
        ]


def _axis(matrix: FloatArray) -> Array:
    return View("", np.asarray(matrix, np.float64), (1, 1), (1.0, 1.0)).axis


def _source(matrix: Array) -> Array:
    view = View("", matrix, (1, 1), (1.0, 1.0))
    return -_FAR_MM * view.axis if view.source_mm is None else view.source_mm


def _unit(values: Array) -> Array:
    """Return values less their mean, of norm 1."""
    values = values - values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-12), np.float64)


def _ends(image: FloatArray, matrix: FloatArray) -> tuple[float, float]:
    """Return the heights on the patient's axis (x = y = 0), in mm, that the first and the last row show."""
    (a, b), (c, d) = np.asarray(matrix, np.float64)[1:, 2:]
    first, last = ((v * d - b) / (a - v * c) for v in (0.0, image.shape[0] - 1.0))
    return first, last
