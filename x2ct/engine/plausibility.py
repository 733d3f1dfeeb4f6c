"""Are these X-rays of the anatomy that a model knows, in its pose and scale, and of one patient?

Every X-ray is compared with the training X-rays of the bundle (`xray_statistics` in model.json, which
`x2ct statistics` writes), and two X-rays with each other. Each score is 1 where 95 of 100 studies of training patients
are below it who were left out of the statistics, so that one pair of limits, `WARNS` and `REFUSES`, holds for all.

- `anatomy`, of a view: the Mahalanobis distance of the X-ray, reduced to `SIDE` x `SIDE` pixels and divided by the mean
  of its brightest tenth, from a Gaussian around the training X-rays: some principal components, and one variance for
  all that is beside them (Tipping and Bishop, Probabilistic principal component analysis, J. R. Stat. Soc. B 61,
  1999). No factor of an uncalibrated X-ray changes it.
- `size`, of a view: how far the silhouette's area and width are from the training's, in standard deviations of their
  logarithms. The silhouette is what has more than a tenth of the brightest tenth's mean.
- `pose`, of a view: whether the picture is rather one of the training X-rays read another way (`POSES`), by Fisher's
  linear discriminant of each (The use of multiple measurements in taxonomic problems, Ann. Eugenics 7, 1936): the
  way from the training's mean, in units of half the way to the mean of the other reading.
  A frontal picture mirrored is judged by its odd part: the difference of the logarithms of its sides about the body's
  midline, brought to the height and size at which its even part, which no mirror changes, is most like the training's.
- `mass`, of two views that both look across the patient's axis: a parallel projection conserves mass, so that at each
  height the sum over a row times the pitch, the integral of attenuation over the body's slice, is that of the other
  view; of cone beams to first order in the body's extent over the source's distance. The logarithm of the ratio is
  taken at heights where both views see the body whole, air at both ends of the row. Scatter, tone and noise bend it:
  its Mahalanobis distance is to the ratios of training studies. Of an uncalibrated pair the factor is left open.
- `patient`, of the same two views: that distance times how unlike the two are in what changes within a centimetre or
  two of height, which no factor and hardly a tone curve bends: 1 less the largest correlation of the masses' logarithms
  within `_MOST_APART_MM` of the same height. Two patients differ in both, distortions mostly in one.

A bundle without statistics is judged by `mass` and `patient` alone, against fixed tolerances, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct.bundle import Bundle
from x2ct.engine.conditioning import Study, study_of, trained_on
from x2ct.errors import InputError
from x2ct.geometry import Geometry, View
from x2ct.io.xray.radiograph import XRay, resample

Floats = npt.NDArray[np.floating[Any]]
Array = npt.NDArray[np.float64]
Statistics = Mapping[str, Sequence[float]]

SIDE = 12
SIDES_MM = np.arange(-125.0, 126.0, 10.0), np.arange(5.0, 136.0, 10.0)
"""Height, and distance from the body's midline, at which a frontal view's sides are compared."""
HEIGHTS_MM = np.arange(-170.0, 171.0, 20.0)
"""Where the masses of two views are compared."""
WARNS = 1.6
"""A score above this is a warning."""
REFUSES = 2.5
"""A score above this is refused (code 2) unless forced."""
_NO_MEAN = np.zeros(len(HEIGHTS_MM))
_TOLERANCE = 0.05**2 * (1 + np.eye(len(HEIGHTS_MM)))
"""Covariance of masses where a bundle has no statistics: 5% at all heights, and 5% at each."""
_MOST_ANGLE_DEG = 15.0  # from the view that the statistics are of
_STRETCHES, _SHIFTS_MM = (0.8, 0.9, 1.0, 1.1, 1.2), np.arange(-60.0, 61.0, 10.0)  # of height
_WIDTHS = (0.8, 0.87, 0.94, 1.0, 1.07, 1.15, 1.25)
_SIDES_PIXEL_MM = 5.0
_BODY = 0.1  # of the brightest tenth's mean, above which a pixel shows the body
_AIR = 0.05  # of it, below which the ends of a row show air: the row has the body whole
_LEAST_HEIGHTS = 4  # that two views must both show whole
_OPEN = 25.0  # variance of the logarithm of an unknown factor
_PROFILE_MM = np.arange(-210.0, 211.0, 2.0)
_FINE_MM, _COARSE_MM = 3.0, 12.0  # standard deviations of the Gaussians whose difference a profile is
_MOST_APART_MM = 16.0
_LEAST_PROFILE_MM = 80.0  # of height that two views must both show whole
_UNLIKE = 0.3  # limit of `patient` where a bundle has no statistics
_MEAN_MM, _END_MM = 10.0, 25.0  # over which a mass is a mean, and from where a body or a scan ends, at least
_MOST_TILT_MM = 5.0  # by which a point's height may change on the detector, 50 mm off the axis


@dataclass(frozen=True, eq=False)
class Seen:
    """One X-ray as the network sees it.

    Attributes:
        name: "ap", "pa" or "lateral".
        slot: 0 frontal, 1 lateral.
        image: (rows, columns) float, line integrals up to a factor where not calibrated.
        measured: (rows, columns) bool; False where air was put in place of what the detector did not measure.
        matrix: 3x4, patient mm to pixels of `image`.
        pitch_mm: row and column pitch at the isocentre.
        calibrated: whether the factor is known.
    """

    name: str
    slot: int
    image: Floats
    measured: npt.NDArray[np.bool_]
    matrix: Array
    pitch_mm: tuple[float, float]
    calibrated: bool

    @cached_property
    def brightness(self) -> float:
        """Its scale, see `brightness`."""
        return brightness(self.image)

    @cached_property
    def row_masses(self) -> Array | None:
        """The mass of each row, in mm; NaN where it does not show the body whole. None of a tilted view."""
        corners = np.array([(50, 0, 0, 1), (-50, 0, 0, 1), (0, 50, 0, 1), (0, -50, 0, 1), (0, 0, 0, 1)]) @ self.matrix.T
        rows = corners[:, 1] / corners[:, 2]
        if np.abs(rows - rows[-1]).max() * self.pitch_mm[0] > _MOST_TILT_MM:
            return None
        image = np.where(self.measured, self.image, 0.0)
        whole = self.measured.any(axis=1) & (_ends(image, self.measured) < _AIR * self.brightness)
        return np.asarray(np.where(whole, image.sum(axis=1) * self.pitch_mm[1], np.nan), np.float64)


def seen_by(bundle: Bundle, study: Study) -> tuple[Seen, ...]:
    """Return X-rays as the network of a bundle sees them."""
    return tuple(
        Seen(
            one.name,
            one.slot,
            one.image,
            np.asarray(one.measured, np.bool_),
            one.matrix,
            bundle.xray.spacing_mm,
            one.calibrated,
        )
        for one in study.images
    )


@dataclass(frozen=True)
class Score:
    """One figure of a study.

    Attributes:
        name: "anatomy", "pose", "size", "mass" or "patient".
        view: of which X-ray, or of which two.
        value: 1 is the limit of training studies, see the module.
        found: what a message says of it.
        hint: what the user can do.
    """

    name: str
    view: str
    value: float
    found: str
    hint: str

    @property
    def line(self) -> str:
        """The message: the view, what was found, what is expected, and what to do."""
        return f"{self.view}: {self.found} ({self.name} {self.value:.1f}, expected at most {WARNS:g}); {self.hint}"


@dataclass(frozen=True)
class Judgement:
    """The result of `judge`.

    Attributes:
        scores: by view.
        not_judged: what could not be judged and why, one line each.
    """

    scores: tuple[Score, ...]
    not_judged: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each score above `WARNS`, the highest first."""
        return tuple(score.line for score in self._above(WARNS))

    def _above(self, limit: float) -> list[Score]:
        return sorted((score for score in self.scores if score.value > limit), key=lambda score: -score.value)

    def check(self) -> None:
        """Refuse what the model can't make a CT of.

        Raises:
            InputError: a score is above `REFUSES`.
        """
        refused = self._above(REFUSES)
        if refused:
            found = " | ".join(f"{score.view}: {score.found} ({score.name} {score.value:.1f})" for score in refused)
            expected = f"X-rays like the model's, each score at most {REFUSES:g}"
            hint = f"{refused[0].hint}; --force samples all the same"
            raise InputError.of("X-rays", "content", found=found, expected=expected, hint=hint)

    def facts(self) -> dict[str, Any]:
        """Return the report's entry."""
        scores = [{"score": s.name, "view": s.view, "value": round(s.value, 3)} for s in self.scores]
        return {"scores": scores, "warns_above": WARNS, "refuses_above": REFUSES, "not_judged": list(self.not_judged)}


def judge(
    bundle: Bundle, xrays: Mapping[str, XRay], geometry: Geometry | None = None, *, align: bool = False
) -> Judgement:
    """Compare X-rays with those that a bundle was trained on, and two X-rays with each other.

    Args:
        bundle: the model; without `xray_statistics` only masses are compared.
        xrays: by view name: "ap" or "pa", and "lateral"; at least one.
        geometry: where the X-rays were taken from; None for the model's own views.
        align: find first how the two views lie to each other, see `x2ct.engine.align`.

    Raises:
        InputError: as `x2ct.engine.conditioning.study_of`.
    """
    return judge_seen(bundle, seen_by(bundle, study_of(bundle, xrays, geometry, align=align)))


def judge_seen(bundle: Bundle, seen: Sequence[Seen]) -> Judgement:
    """Compare X-rays as the network sees them, of whatever detector, as `judge`."""
    statistics = bundle.xray_statistics
    region = " and ".join(trained_on(bundle)) or "anatomy that the model knows"
    scores, missing = list[Score](), list[str]()
    for one in seen:
        usual = bundle.geometry.views[one.slot]
        angle = View(one.name, one.matrix, one.image.shape, one.pitch_mm).angle_deg - usual.angle_deg
        if f"{usual.name}.mean" not in statistics:
            missing.append(f"{one.name}: the model has no xray_statistics; x2ct statistics finds them")
        elif abs((angle + 90) % 180 - 90) > _MOST_ANGLE_DEG:
            missing.append(f"{one.name}: taken {angle:.0f} degrees from the view that the statistics are of")
        else:
            scores += _of_view(one, usual.name, statistics, region)
    if len(seen) < 2:
        missing.append("mass: one view only")
        return Judgement(tuple(scores), tuple(missing))
    ratio, alike = mass_ratio(seen[0], seen[1]), likeness(seen[0], seen[1])
    if ratio is None:
        missing.append("mass: too few heights at which both views show the body whole, or a tilted view")
    else:
        scores += _of_pair(seen, ratio, alike, statistics)
    if ratio is None or alike is None:
        missing.append("patient: too little height at which both views show the body whole, or a tilted view")
    return Judgement(tuple(scores), tuple(missing))


def _of_view(seen: Seen, key: str, statistics: Statistics, region: str) -> Iterator[Score]:
    """The scores of one view."""
    mean, basis, variances, reference = (
        np.asarray(statistics[f"{key}.{name}"], np.float64) for name in ("mean", "basis", "variances", "reference")
    )
    picture, size = reduced(seen.image).ravel(), silhouette(seen)
    law = Gaussian(mean, basis.reshape(-1, len(mean)), variances[:-1], float(variances[-1]))
    anatomy = float(law.distance(picture)) / reference[0]
    hint = f"is it an X-ray of the {region}, whole and upright, and is its pixel pitch right?"
    yield Score("anatomy", seen.name, anatomy, "unlike the X-rays that the model was trained on", hint)
    usual, spread = np.asarray(statistics[f"{key}.size"]).reshape(2, 2)
    away = (size - usual) / spread
    worst = int(np.abs(away).argmax())
    found, expected = np.exp([size[worst], usual[worst]])
    unit = ("mm^2", "mm")[worst]
    text = f"a silhouette of {found:.0f} {unit} {('area', 'width')[worst]}, in training {expected:.0f} {unit}"
    hint = f"is the pixel pitch right (--spacing {seen.name}=MM), and is it the {region}?"
    yield Score("size", seen.name, float(abs(away[worst])) / reference[1], text, hint)
    weights = np.asarray(statistics[f"{key}.pose"]).reshape(len(POSES), -1)
    readings = 1 - weights @ np.append(picture, 1.0)
    if f"{key}.odd" in statistics:
        template = np.reshape(statistics[f"{key}.even"], [len(axis) for axis in SIDES_MM])
        readings[0] = 1 - sides(seen, template)[1] @ np.asarray(statistics[f"{key}.odd"])
    readings /= reference[2:]
    likeliest = int(readings.argmax())
    pose = POSES[likeliest]
    hint = pose.hint.format(view=seen.name, region=region)
    yield Score("pose", seen.name, float(readings[likeliest]), f"looks like an X-ray {pose.name}", hint)


def _of_pair(seen: Sequence[Seen], ratio: Array, alike: float | None, statistics: Statistics) -> Iterator[Score]:
    """The scores of two views."""
    known = all(one.calibrated for one in seen)
    key = "mass_calibrated" if known else "mass_display"
    mean, covariance, (mass_limit,), (patient_limit,) = (
        np.asarray(statistics.get(f"{key}.{name}", default), np.float64)
        for name, default in zip(
            ("mean", "covariance", "reference", "patient"), (_NO_MEAN, _TOLERANCE, [1.0], [_UNLIKE]), strict=True
        )
    )
    distance = MassLaw(mean, covariance.reshape(len(mean), -1), known).distance(ratio)
    away = ratio - mean
    typical = np.nanmedian(away)
    shape = np.sqrt(np.nanmean((away - typical) ** 2))
    uneven = f"from height to height by {shape:.0%}"
    text = f"the body's mass differs {f'by {abs(np.expm1(typical)):.0%}, and ' if known else ''}{uneven}"
    pair = " and ".join(one.name for one in seen)
    hint = "are they of one patient, at one height, each with the right pixel pitch?"
    yield Score("mass", pair, distance / mass_limit, text, hint)
    if alike is not None:
        text = f"their masses differ {uneven}, and change otherwise (correlation {alike:.2f})"
        yield Score("patient", pair, distance * (1 - alike) / patient_limit, text, hint)


# ---------------------------------------------------------------------------------------------- what is measured


def reduced(image: Floats) -> Array:
    """Return a picture of `SIDE` x `SIDE` pixels, each the mean of what it covers, over its brightest tenth's mean."""
    small = _averages(image.shape[0]) @ np.asarray(image, np.float64) @ _averages(image.shape[1]).T
    return small / brightness(small)


def brightness(image: Floats) -> float:
    """Return the mean of the brightest tenth of a picture: its scale."""
    values = np.ravel(image)
    count = max(1, values.size // 10)
    while (brighter := values[values > values.mean()]).size >= count:  # np.partition is slow where many are equal: air
        values = brighter
    return max(float(np.sort(values)[-count:].mean(dtype=np.float64)), 1e-6)


def silhouette(seen: Seen) -> Array:
    """Return the logarithms of the body's area in mm^2 and of its width in mm, the median over its rows."""
    body = seen.image > _BODY * seen.brightness
    rows = body.sum(axis=1)
    width = float(np.median(rows[rows > 0])) if rows.any() else 0.0
    return np.log(np.maximum([rows.sum() * seen.pitch_mm[0] * seen.pitch_mm[1], width * seen.pitch_mm[1]], 1.0))


def sides(seen: Seen, template: Array | None = None) -> tuple[Array, Array]:
    """Return the even and the odd part about the body's midline of the logarithm of a frontal picture, at `SIDES_MM`.

    Args:
        seen: the X-ray.
        template: an even part; the picture is brought to the height and size at which it correlates best with it.

    Returns:
        The even part, [heights, distances], and the odd part's means over 2 x 2 of these, [heights * distances / 4].
    """
    size = np.rint(np.asarray(seen.image.shape) * seen.pitch_mm / _SIDES_PIXEL_MM).astype(int)
    image = resample(seen.image, seen.pitch_mm, (int(size[0]), int(size[1])), (_SIDES_PIXEL_MM, _SIDES_PIXEL_MM))
    image = np.asarray(image / brightness(image), np.float64)
    full = 2 * image.shape[1] - 1
    alike = np.fft.irfft(np.fft.rfft(image, full, axis=1) ** 2, full, axis=1).sum(axis=0)  # at twice its column
    inner = len(alike) // 3
    middle = (inner + int(alike[inner:-inner].argmax())) / 2
    picture, (heights, distances) = np.log(np.maximum(image, 0) + _BODY), (a / _SIDES_PIXEL_MM for a in SIDES_MM)
    tries = [(1.0, 0.0)] if template is None else [(s, mm) for s in _STRETCHES for mm in _SHIFTS_MM]
    widths = (1.0,) if template is None else _WIDTHS
    rows = np.stack([(size[0] - 1) / 2 + s * heights + mm / _SIDES_PIXEL_MM for s, mm in tries])
    different, which = np.unique(rows, return_inverse=True)  # many tries look at one row
    columns = _between([[middle + sign * w * distances for w in widths] for sign in (1, -1)], size[1])
    halves = np.tensordot(_between(different, size[0]) @ picture, columns, (1, 3))  # rows, right or left, widths, dist.
    right, left = np.moveaxis(halves, 1, 0)
    which = which.reshape(rows.shape)
    even = ((right + left) / 2)[which]  # tries, heights, widths, distances
    best: tuple[Any, ...] = (0, 0)
    if template is not None:
        away, form = even - even.mean(axis=(1, 3), keepdims=True), template - template.mean()
        match = np.einsum("ahbw,hw->ab", away, form) / np.sqrt((away**2).sum(axis=(1, 3)) + 1e-12)
        best = np.unravel_index(int(match.argmax()), match.shape)
    odd = ((right - left) / 2)[which[best[0]], best[1]]
    high, wide = (len(axis) // 2 for axis in SIDES_MM)
    return even[best[0], :, best[1]], odd.reshape(high, 2, wide, 2).mean(axis=(1, 3)).ravel()


def _between(positions: npt.ArrayLike, size: int) -> Array:
    """Return the matrices [..., size] that interpolate pixels linearly at positions; the last pixel counts beyond."""
    return np.asarray(np.maximum(0, 1 - np.abs(np.clip(positions, 0, size - 1)[..., None] - np.arange(size))))


def masses(seen: Seen) -> Array | None:
    """Return the mass of the body's slices at `HEIGHTS_MM`, in mm; NaN where the X-ray does not show the slice whole.

    None of a view that does not look across the patient's axis.
    """
    sums = seen.row_masses
    if sums is None:
        return None
    rows = _at_heights(np.arange(len(sums), dtype=np.float64), seen.matrix, HEIGHTS_MM)
    near, far = (max(1, round(reach / seen.pitch_mm[0])) for reach in (_MEAN_MM, _END_MM))
    whole = np.full(len(HEIGHTS_MM), np.nan)
    for index, row in enumerate(np.rint(np.nan_to_num(rows, nan=-far)).astype(int)):
        around = sums[max(row - far, 0) : row + far + 1]
        mass = sums[max(row - near, 0) : row + near + 1].mean() if 0 <= row < len(sums) else np.nan
        if len(around) == 2 * far + 1 and around.min() > mass / 2:  # not with NaN
            whole[index] = mass
    return whole


def profile(seen: Seen) -> Array | None:
    """Return how the logarithm of the mass changes with height, at `_PROFILE_MM`: a difference of Gaussian means.

    NaN where the X-ray does not show the slice whole, and near the body's ends; None of a tilted view.
    """
    from scipy import ndimage

    sums = seen.row_masses
    if sums is None:
        return None
    mass = _at_heights(sums, seen.matrix, _PROFILE_MM)
    inside = np.isfinite(mass)
    inside[inside] = mass[inside] > 0.3 * np.median(mass[inside]) if inside.any() else False
    step = _PROFILE_MM[1] - _PROFILE_MM[0]
    inside = ndimage.binary_erosion(inside, iterations=round(_MEAN_MM / step))
    change = np.where(inside, np.log(np.where(inside, mass, 1.0)), 0.0)
    fine, coarse = (
        ndimage.gaussian_filter1d(change, mm / step)
        / np.maximum(ndimage.gaussian_filter1d(inside.astype(np.float64), mm / step), 1e-9)
        for mm in (_FINE_MM, _COARSE_MM)
    )
    return np.asarray(np.where(inside, fine - coarse, np.nan), np.float64)


def likeness(first: Seen, second: Seen) -> float | None:
    """Return the correlation of two views' profiles, the largest within `_MOST_APART_MM` of the same height.

    None where a view is tilted, or where too little height is known.
    """
    one, other = profile(first), profile(second)
    if one is None or other is None:
        return None
    step = _PROFILE_MM[1] - _PROFILE_MM[0]
    most, correlations = round(_MOST_APART_MM / step), list[float]()
    for shift in range(-most, most + 1):
        moved = np.full_like(other, np.nan)
        moved[max(shift, 0) : len(other) + min(shift, 0)] = other[max(-shift, 0) : len(other) - max(shift, 0)]
        known = np.isfinite(one) & np.isfinite(moved)
        if known.sum() * step >= _LEAST_PROFILE_MM:
            correlations.append(_correlation(one[known], moved[known]))
    return max(correlations, default=None)


def _at_heights(values: Array, matrix: Array, z: Array) -> Array:
    """Return what rows hold where they show heights on the patient's axis; NaN beyond the detector and beside NaN."""
    (a, b), (c, d) = matrix[1:, 2:]
    rows = (a * z + b) / (c * z + d)
    return np.asarray(np.interp(rows, np.arange(len(values)), values, left=np.nan, right=np.nan), np.float64)


def _correlation(a: Array, b: Array) -> float:
    """Return the correlation of two profiles, -1 to 1; 0 where one of them is flat."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


def mass_ratio(first: Seen, second: Seen) -> Array | None:
    """Return the logarithm of the second view's mass over the first's at `HEIGHTS_MM`; NaN where either is unknown.

    None where a view is tilted, or where too few heights are known.
    """
    pair = masses(first), masses(second)
    if pair[0] is None or pair[1] is None:
        return None
    ratio = np.log(pair[1]) - np.log(pair[0])
    return ratio if np.isfinite(ratio).sum() >= _LEAST_HEIGHTS else None


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian with some principal components, and one variance for all that is beside them.

    Attributes:
        mean: [n].
        basis: [components, n], orthonormal.
        variances: [components].
        rest: the variance along all other directions.
    """

    mean: Array
    basis: Array
    variances: Array
    rest: float

    @classmethod
    def of(cls, samples: Array, components: int) -> Gaussian:
        """Fit by maximum likelihood to [samples, n]."""
        mean = samples.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(samples, rowvar=False))
        count = min(components, len(values) - 1)
        variances, basis = values[::-1][:count], vectors[:, ::-1][:, :count].T
        return cls(mean, basis, variances, float(values[: len(values) - count].mean()))

    def whitened(self, differences: Array) -> Array:
        """Return the inverse covariance times differences from the mean, [..., n]."""
        along = differences @ self.basis.T
        return (along / self.variances) @ self.basis + (differences - along @ self.basis) / self.rest

    def distance(self, pictures: Array) -> Array:
        """Return the Mahalanobis distance of [..., n], over the square root of n."""
        differences = pictures - self.mean
        return np.asarray(np.sqrt((differences * self.whitened(differences)).mean(axis=-1)), np.float64)


@dataclass(frozen=True, eq=False)
class MassLaw:
    """The distance of two views' masses from those of one patient: a Gaussian of the logarithm of their ratio.

    Attributes:
        mean: by height.
        covariance: [heights, heights].
        factor_known: whether a factor common to all heights counts; it does not for an uncalibrated X-ray.
    """

    mean: Array
    covariance: Array
    factor_known: bool

    def distance(self, ratio: Array) -> float:
        """Return the Mahalanobis distance of [heights] with NaN, over the square root of how many are known."""
        known = np.isfinite(ratio)
        away = (ratio - self.mean)[known]
        covariance = self.covariance[np.ix_(known, known)] + (0.0 if self.factor_known else _OPEN)
        return float(np.sqrt(away @ np.linalg.solve(covariance, away) / len(away)))


@dataclass(frozen=True)
class Pose:
    """Another reading of a picture.

    Attributes:
        name: how a message calls the picture.
        hint: what the user can do.
        flips: the picture's axes to reverse.
        pitch: what the pixel pitch is multiplied by.
    """

    name: str
    hint: str
    flips: tuple[int, ...] = ()
    pitch: float = 1.0


AS_IT_IS = Pose("as it is", "")
OTHER_VIEW = Pose("of the other view", "are frontal and lateral X-ray swapped?")
OTHER_PART = Pose("of another part of the body", "the model knows the {region}")
POSES = (
    Pose("mirrored", "--flip {view}=horizontal mirrors it back", flips=(1,)),
    Pose("upside down", "--flip {view}=vertical turns it over", flips=(0,)),
    Pose("turned by 180 degrees", "--rotate {view}=180 turns it back", flips=(0, 1)),
    Pose("whose pixel pitch is too small", "--spacing {view}=MM says the right one", pitch=0.7),
    Pose("whose pixel pitch is too large", "--spacing {view}=MM says the right one", pitch=1.4),
    OTHER_VIEW,
    OTHER_PART,
)


def reread(seen: Seen, pose: Pose) -> Floats:
    """Return a view's image as a pose would show it."""
    image, (down, across) = np.flip(seen.image, pose.flips), seen.pitch_mm
    return resample(image, (down * pose.pitch, across * pose.pitch), image.shape, (down, across))


def _averages(size: int) -> Array:
    """Return the matrix that takes `size` pixels to `SIDE` means of what each covers."""
    edges = np.linspace(0, size, SIDE + 1)
    low, high = np.arange(size), np.arange(1, size + 1)
    covered = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.asarray(np.clip(covered, 0, None) * SIDE / size, np.float64)


def _ends(image: Floats, known: npt.NDArray[np.bool_]) -> Array:
    """Return the larger value at the two ends of each row's measured part, the mean of two pixels."""
    columns = np.arange(image.shape[1])
    first = np.where(known, columns, image.shape[1]).min(axis=1).clip(0, image.shape[1] - 2)
    last = np.where(known, columns, -1).max(axis=1).clip(1)
    rows = np.arange(image.shape[0])
    left = (image[rows, first] + image[rows, first + 1]) / 2
    right = (image[rows, last] + image[rows, last - 1]) / 2
    return np.asarray(np.maximum(left, right), np.float64)
