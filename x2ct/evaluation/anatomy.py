"""Figures for what a radiographer looks at: vertebrae and their discs, ribs, and a texture without a pattern.

All landmarks are found in the truth by simple geometry, without a trained segmentation, and the prediction is measured
at them. HU are taken as they are, without the window. Indices grow towards the patient's right, front and head (RAS+),
and z runs along the body. A figure is None where the truth lacks what it measures.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal
from skimage.morphology import convex_hull_image, skeletonize

from x2ct.data.body import body_mask, lung_mask
from x2ct.errors import InputError
from x2ct.evaluation import metrics
from x2ct.evaluation.metrics import BONE_HU, BoolArray, FloatArray, Labels, Spacing, pair

Points = npt.NDArray[np.float64]

STRIDE = 4  # side, in voxels, of the cells that the bundled networks work on
SHORTEST_SPINE_MM = 80.0  # a shorter column has too few discs to correlate

DISC_RADIUS_MM = 10.0
"""The profile's samples lie in a disc of that radius, inside of a vertebral body (25 to 50 mm wide)."""

END_MM = 5.0  # the axis stops that far from the ends of what the CT shows of the spine
STEP_MM = 1.0  # distance of the profile's samples along the spine
BAND_MM = (12.0, 45.0)  # wavelengths of the profile that are kept: a vertebra and its disc are 18 to 40 mm high

HEIGHTS_MM = np.arange(14, 43)
"""Distances between neighbouring discs, in steps of the profile: 15 mm in the neck, 20 to 30 in the chest, 40 below."""

AROUND_GAP_MM = 14.0  # half the length of the piece of profile by which a disc gap is found again
GAP_WITHIN_MM = 4.0  # a disc gap is found if it is displaced no more; displacements up to `GAP_SEARCH_MM` are tried
GAP_SEARCH_MM = 11.0
GAP_CORRELATION = 0.5  # least correlation of the two pieces of profile
GAP_SHARE = 0.25  # least amplitude of the prediction's piece, as a share of the truth's

COLUMN_MM = 35.0  # bone that is no further from the spine's axis, left to right, is spine or sternum
CHEST_WALL_MM = 15.0  # ribs are no further from the lungs; the shoulder blades and collar bones mostly are
INSIDE_MM = 6.0  # ribs are no deeper inside of the lungs' convex hull, slice by slice; contrast in heart and vessels is
FARTHEST_MM = 20.0  # a rib's distance to the prediction's bone counts no more than that
AROUND_BODY_MM = 10.0  # air nearer to the body does not count: a blurred skin is no texture


@dataclass(frozen=True)
class Anatomy:
    """The figures of one prediction. None: the truth has no spine, ribs or air to measure at."""

    # Pearson correlation of the two HU profiles along the truth's spine, band-passed to wavelengths of `BAND_MM`: from
    # 0 (a prediction without any profile) to 1.
    spine_correlation: float | None
    vertebrae: float | None  # share, 0 to 1, of the truth's vertebral bodies both of whose disc gaps are within 4 mm
    rib_pieces: float | None  # share, 0 to 1, of the truth's rib pieces with a quarter of their voxels as bone
    # Mean distance from the ribs' centrelines to the nearest bone of the prediction, each at most `FARTHEST_MM`.
    rib_distance_mm: float | None
    # Standard deviation in the air more than 10 mm from the truth's body, in slices that have a body. 0 is best, a
    # scanner's noise is the truth's own figure.
    air_std_hu: float | None
    # Mean absolute HU step between neighbours in the body across the borders of the network's cells, over the mean of
    # all other steps; 1 without a checker pattern, or without any step.
    step_ratio: float | None

    def figures(self) -> dict[str, float]:
        """Return the figures for the tables; NaN (null in JSON) is left out of means."""
        return {name: math.nan if value is None else value for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Where the truth has its spine, ribs and air; found once, for any number of predictions."""

    spacing_mm: Spacing  # voxel pitch
    body: BoolArray  # bool [X, Y, Z]
    # float64 [N, 3], voxel indices of the spine's axis every `STEP_MM` from foot to head; N is 0 without a spine
    axis: Points
    profile: Points  # float64 [N], the truth's band-passed HU profile along the axis
    gaps: npt.NDArray[np.intp]  # indices into the axis of the disc gaps
    ribs: Labels  # int32 [X, Y, Z], the rib pieces 1, 2, ... and 0 elsewhere
    centreline: BoolArray  # bool [X, Y, Z], of the ribs
    air: BoolArray  # bool [X, Y, Z], the air around the body

    @staticmethod
    def of(
        truth: npt.ArrayLike, spacing_mm: Spacing, *, body: BoolArray | None = None, pieces: Labels | None = None
    ) -> Landmarks:
        """Find the landmarks of a CT: HU [X, Y, Z], RAS+; `body_mask` and `metrics.bone_pieces` where known."""
        hu = np.asarray(truth, np.float32)
        body = body_mask(hu, spacing_mm) if body is None else body
        axis = spine_axis(hu, body, spacing_mm)
        profile = _profile(hu, axis, spacing_mm)
        gaps = disc_gaps(profile)
        ribs = rib_pieces(hu, body, axis, spacing_mm, metrics.bone_pieces(hu, spacing_mm) if pieces is None else pieces)
        air = np.zeros(hu.shape, np.bool_)
        if body.any():
            air = ndimage.distance_transform_edt(~body, spacing_mm) > AROUND_BODY_MM
            air &= body.any(axis=(0, 1))  # where the CT ends, the patient does not
        return Landmarks(spacing_mm, body, axis, band_passed(profile), gaps, ribs, _centreline(ribs > 0), air)

    def measure(self, prediction: npt.ArrayLike, stride: int = STRIDE) -> Anatomy:
        """Measure one prediction, HU on the truth's grid; network cells of `stride` voxels begin at voxel 0.

        Raises InputError: another shape, a value that is not finite, or a stride below 2.
        """
        hu = pair(self.body, prediction, None)[1]
        if stride < 2:
            raise InputError.of("anatomy", "stride", found=stride, expected="2 voxels or more")
        correlation = vertebrae = None
        if len(self.axis):
            profile = band_passed(_profile(hu, self.axis, self.spacing_mm))
            correlation = _correlation(self.profile, profile)
            gaps = [_has_gap(self.profile, profile, gap) for gap in self.gaps]
            vertebrae = float(np.mean(np.logical_and(gaps[1:], gaps[:-1]))) if len(gaps) > 1 else None
        share, bone = metrics.pieces_present(self.ribs, hu)["quarter"], hu >= BONE_HU
        ribs = None if math.isnan(share) else share
        distance: float | None = None
        if self.centreline.any():
            away = ndimage.distance_transform_edt(~bone, self.spacing_mm)[self.centreline] if bone.any() else math.inf
            distance = float(np.mean(np.minimum(away, FARTHEST_MM)))
        air = float(np.std(hu[self.air], dtype=np.float64)) if self.air.any() else None
        return Anatomy(correlation, vertebrae, ribs, distance, air, step_ratio(hu, self.body, stride))


def anatomy(prediction: npt.ArrayLike, truth: npt.ArrayLike, spacing_mm: Spacing) -> Anatomy:
    """Measure one prediction; `Landmarks.of(truth, ...)` saves time where a truth has several.

    Both are HU [X, Y, Z], RAS+, on one grid. Raises InputError: shapes differ, or a value is not finite.
    """
    a, b = pair(truth, prediction, None)
    return Landmarks.of(a, spacing_mm).measure(b)


def spine_axis(hu: FloatArray, body: BoolArray, spacing_mm: Spacing) -> Points:
    """Find the axis of the vertebral bodies: float64 [N, 3] voxel indices every `STEP_MM`; N is 0 without a spine.

    In each slice a point's score is the bone around it, more with bone 32 to 40 mm behind (laminae and spinous
    process), less with bone between (there is the canal), and less away from where a body has its spine. Bone counts
    no more than half, since contrast in heart and aorta is as bright. The axis is the path of the largest sum of scores
    from slice to slice (Viterbi), smoothed along z, over the longest run of slices with bone around it.
    """
    filled = np.flatnonzero(body.any(axis=(0, 1)))
    if not len(filled):
        return np.zeros((0, 3))
    first, last = int(filled[0]), int(filled[-1]) + 1
    dx, dy, dz = spacing_mm
    bone = np.clip((hu[:, :, first:last] - 50) / 200, 0, 1) * body[:, :, first:last]
    bone = ndimage.gaussian_filter1d(bone, 12 / dz, axis=2, mode="nearest")

    def around(sigma_mm: float) -> FloatArray:
        return np.asarray(ndimage.gaussian_filter(bone, (sigma_mm / dx, sigma_mm / dy, 0)), np.float32)

    def behind(volume: FloatArray, mm: float) -> FloatArray:
        return np.asarray(ndimage.shift(volume, (0, mm / dy, 0), order=0, mode="constant"), np.float32)

    thick, narrow, wide = around(7.0), around(4.0), around(6.0)
    canal = [behind(wide, mm + 15) - behind(narrow, mm) for mm in (17.0, 21.0, 25.0)]
    score = np.minimum(thick, 0.5) + 1.5 * np.maximum.reduce(canal) - _unlikely(body[:, :, first:last], spacing_mm)
    path = _best_path(score)
    rows = np.arange(len(path))
    runs = ndimage.find_objects(ndimage.label(thick[path[:, 0], path[:, 1], rows] >= 0.25)[0])
    run = max((run for (run,) in runs), key=lambda run: run.stop - run.start, default=slice(0, 0))
    if (run.stop - run.start) * dz < SHORTEST_SPINE_MM:
        return np.zeros((0, 3))
    points = np.column_stack([path[run], rows[run] + first]).astype(np.float64)
    points[:, :2] = ndimage.gaussian_filter1d(points[:, :2], 12 / dz, axis=0, mode="nearest")
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0) * spacing_mm, axis=1))])
    even = np.arange(END_MM, along[-1] - END_MM, STEP_MM)
    return np.column_stack([np.interp(even, along, points[:, axis]) for axis in range(3)])


def band_passed(profile: Points) -> Points:
    """Keep the wavelengths of `BAND_MM` of a profile sampled every `STEP_MM` (Butterworth, zero phase)."""
    if not len(profile):
        return profile
    edges = (1 / BAND_MM[1], 1 / BAND_MM[0])
    sections = signal.butter(2, edges, "bandpass", fs=1 / STEP_MM, output="sos")
    padding = min(len(profile) - 1, round(BAND_MM[1] / STEP_MM))
    return np.asarray(signal.sosfiltfilt(sections, profile, padlen=padding), np.float64)


def disc_gaps(profile: Points) -> npt.NDArray[np.intp]:
    """Find the disc gaps in the HU profile of a spine, sampled every `STEP_MM`: indices into it, from foot to head.

    At the resolution of a few mm a gap is a dip between two end plates, which together may be brighter than the middle
    of the bodies: minima of a smooth profile are as often there. So a place's evidence is: end plates 3 to 6 mm to both
    sides, less the place itself, less the bodies 8 to 14 mm away. The gaps are the chain of largest sum of evidence in
    standard deviations, less 10 times the squared logarithm of the ratio of neighbouring heights (Viterbi), so that one
    faded gap breaks no chain.
    """
    count = len(profile)
    padded = np.pad(ndimage.gaussian_filter1d(profile, 1.0 / STEP_MM), 14, mode="edge") if count else profile

    def aside(mm: int) -> Points:
        return np.asarray((padded[14 - mm :][:count] + padded[14 + mm :][:count]) / 2)

    if count < HEIGHTS_MM[0]:
        return np.zeros(0, np.intp)
    bodies = np.mean([aside(mm) for mm in range(8, 15)], axis=0)
    evidence = np.max([2 * aside(mm) for mm in range(3, 7)], axis=0) - aside(0) - bodies
    deviation = float(evidence.std())
    if deviation < 1.0:
        return np.zeros(0, np.intp)
    evidence = (evidence - np.median(evidence)) / deviation
    penalty = 10 * np.log(HEIGHTS_MM[:, None] / HEIGHTS_MM) ** 2
    best = np.full((count, len(HEIGHTS_MM)), -np.inf)  # of a chain that ends here, by its last height
    before = np.full(best.shape, -1)
    for place in range(count):
        for row, height in enumerate(HEIGHTS_MM[: np.searchsorted(HEIGHTS_MM, place, "right")]):
            chains = best[place - height] - penalty[row]
            choice = int(np.argmax(chains))
            longer = chains[choice] >= evidence[place - height]
            best[place, row] = evidence[place] + (chains[choice] if longer else evidence[place - height])
            before[place, row] = choice if longer else -1
    place, row = (int(i) for i in np.unravel_index(int(np.argmax(best)), best.shape))
    chain = [place]
    while row >= 0:
        place, row = place - int(HEIGHTS_MM[row]), int(before[place, row])
        chain.append(place)
    return np.array(chain[::-1], np.intp)


def rib_pieces(hu: FloatArray, body: BoolArray, axis: Points, spacing_mm: Spacing, pieces: Labels) -> Labels:
    """Return the pieces of bone, int32 [X, Y, Z], 1, 2, ... and 0 elsewhere, as far as they lie in the chest wall.

    That is near the lungs, not deep inside of their convex hull, and beside the column of spine and sternum.
    """
    lungs = lung_mask(hu, body, spacing_mm)
    if lungs is None or not len(axis):
        return np.zeros(hu.shape, np.int32)
    wall = ndimage.distance_transform_edt(~lungs, spacing_mm) <= CHEST_WALL_MM
    middle = np.interp(np.arange(hu.shape[2]), axis[:, 2], axis[:, 0])
    wall &= (np.abs(np.arange(hu.shape[0])[:, None] - middle) * spacing_mm[0] > COLUMN_MM)[:, None, :]
    for k in np.flatnonzero(lungs.any(axis=(0, 1))):
        hull = convex_hull_image(lungs[:, :, k])  # type: ignore[no-untyped-call]
        wall[:, :, k] &= ndimage.distance_transform_edt(hull, spacing_mm[:2]) <= INSIDE_MM
    return metrics.renumbered(np.where(wall, pieces, 0), metrics.SMALLEST_ML * 1000 / float(np.prod(spacing_mm)))


def step_ratio(hu: FloatArray, body: BoolArray, stride: int = STRIDE) -> float | None:
    """Return the mean absolute HU step at cell borders over that of all other neighbours in the body.

    Cells' borders lie between voxels stride k - 1 and stride k; the three axes' steps are pooled. None where the body
    has no steps of both kinds.
    """
    border, other = [], []
    for axis in range(3):
        steps = np.abs(np.diff(np.moveaxis(hu, axis, 0), axis=0))
        mask = np.moveaxis(body, axis, 0)
        inside = mask[1:] & mask[:-1]
        at_border = np.arange(len(steps)) % stride == stride - 1
        border.append(steps[at_border][inside[at_border]])
        other.append(steps[~at_border][inside[~at_border]])
    across, within = np.concatenate(border), np.concatenate(other)
    if not len(across) or not len(within):
        return None
    numerator, denominator = float(np.mean(across, dtype=np.float64)), float(np.mean(within, dtype=np.float64))
    if denominator == 0:
        return 1.0 if numerator == 0 else math.inf
    return numerator / denominator


def _unlikely(body: BoolArray, spacing_mm: Spacing) -> FloatArray:
    """Return a penalty [X, Y, slices]: half at 60 mm from the middle, and from a third of the depth from the back."""
    nx, ny, count = body.shape
    x, y = np.arange(nx) * spacing_mm[0], np.arange(ny) * spacing_mm[1]
    spans = []
    for k in range(count):
        columns, rows = (np.flatnonzero(body[:, :, k].any(axis=axis)) for axis in (1, 0))
        if len(columns):
            spans.append((x[columns[0]] + x[columns[-1]], y[rows[0]], y[rows[-1]]))
    across, back, front = np.median(spans, axis=0)
    aside, ahead = (x - across / 2) / 60, (y - back - (front - back) / 3) / 60
    penalty = 0.5 * (aside[:, None] ** 2 + ahead[None, :] ** 2)
    return np.repeat(penalty[:, :, None], count, axis=2).astype(np.float32)


def _best_path(score: FloatArray) -> npt.NDArray[np.intp]:
    """Return the path [slices, 2] of the largest sum of scores [X, Y, slices], its steps at most a voxel aside."""
    cost = -0.02 * np.array([[2, 1, 2], [1, 0, 1], [2, 1, 2]], np.float32)
    total = np.empty_like(score)
    total[:, :, 0] = score[:, :, 0]
    for k in range(1, score.shape[2]):
        total[:, :, k] = score[:, :, k] + ndimage.grey_dilation(total[:, :, k - 1], structure=cost, mode="nearest")
    path = np.empty((score.shape[2], 2), np.intp)
    x, y = np.unravel_index(int(np.argmax(total[:, :, -1])), score.shape[:2])
    for k in range(score.shape[2] - 1, -1, -1):
        path[k] = x, y
        if k:
            near = np.pad(total[:, :, k - 1], 1, constant_values=-np.inf)[x : x + 3, y : y + 3]
            i, j = np.unravel_index(int(np.argmax(near + cost)), cost.shape)
            x, y = x + i - 1, y + j - 1
    return path


def _profile(hu: FloatArray, axis: Points, spacing_mm: Spacing) -> Points:
    """Return the mean HU, clipped so that no implant or air outweighs the rest, of a disc normal to each point [N]."""
    if not len(axis):
        return np.zeros(0)
    spacing = np.asarray(spacing_mm)
    tangent = np.gradient(axis * spacing, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    right = np.array([1.0, 0.0, 0.0]) - tangent[:, :1] * tangent
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    front = np.cross(tangent, right)
    ticks = np.arange(-DISC_RADIUS_MM, DISC_RADIUS_MM + 0.1, 2.0)
    u, v = (side.ravel() for side in np.meshgrid(ticks, ticks))
    inside = np.hypot(u, v) <= DISC_RADIUS_MM
    offsets = u[inside][None, :, None] * right[:, None, :] + v[inside][None, :, None] * front[:, None, :]
    places = axis[:, None, :] + offsets / spacing
    samples = ndimage.map_coordinates(np.clip(hu, -200, 800), np.moveaxis(places, 2, 0), order=1, mode="nearest")
    return np.asarray(samples.mean(axis=1), np.float64)


def _has_gap(truth: Points, profile: Points, gap: int) -> bool:
    """Return whether the truth's profile about a gap correlates best, and well, with the other's within 4 mm."""
    half, reach = round(AROUND_GAP_MM / STEP_MM), round(GAP_SEARCH_MM / STEP_MM)
    a, b = np.pad(truth, half, mode="edge"), np.pad(profile, half + reach, mode="edge")
    piece = a[gap : gap + 2 * half + 1]
    others = np.stack([b[gap + shift : gap + shift + 2 * half + 1] for shift in range(2 * reach + 1)])
    fits = [_correlation(piece, other) for other in others]
    best = int(np.argmax(fits))
    amplitude = float(np.std(others[best])) * fits[best]
    alike = fits[best] >= GAP_CORRELATION and amplitude >= GAP_SHARE * float(np.std(piece))
    return alike and abs(best - reach) * STEP_MM <= GAP_WITHIN_MM


def _correlation(a: Points, b: Points) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 0.0 if size < 1e-6 else float(a @ b) / size


def _centreline(ribs: BoolArray) -> BoolArray:
    """Return the ribs' skeleton (Lee et al. 1994) as far as it is bone; marrow is filled before."""
    if not ribs.any():
        return ribs
    whole = ribs | ndimage.binary_closing(ribs, iterations=2)
    return np.asarray(skeletonize(whole) > 0) & ribs  # type: ignore[no-untyped-call]
