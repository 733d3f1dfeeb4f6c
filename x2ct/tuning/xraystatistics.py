"""Statistics of training patients' X-rays, with which `x2ct.engine.plausibility` compares the X-rays of a run.

Each training patient is projected in random poses, parallel and cone beams, onto a detector `COARSER` times coarser
than the encoder's, and read as `x2ct sample` reads X-rays: line integrals with scatter, noise and another tone, or
display pictures with windows, blades and letters. All of it is statistics: no network takes part.

The figures of a study are divided by what 95 of 100 studies stay below, each judged by statistics that its patient was
left out of: with few patients, X-rays of a new one lie farther out than those of the patients themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.measure import block_reduce

from x2ct.bundle import Bundle
from x2ct.data.shards import AIR_HU, Patient, ShardSet
from x2ct.engine.conditioning import SLOT_OF, study_of
from x2ct.engine.plausibility import (
    AS_IT_IS,
    OTHER_PART,
    OTHER_VIEW,
    POSES,
    WARNS,
    Gaussian,
    MassLaw,
    Pose,
    Seen,
    likeness,
    mass_ratio,
    reduced,
    reread,
    seen_by,
    sides,
    silhouette,
)
from x2ct.errors import InputError
from x2ct.geometry import Geometry, View, attenuation, project
from x2ct.geometry.grid import rotation
from x2ct.io.xray import degradation
from x2ct.io.xray.radiograph import XRay

Array = npt.NDArray[np.float64]
Groups = Sequence[Sequence[tuple[Seen, ...]]]
"""Of each patient, its studies, each with its views."""
Image = npt.NDArray[np.float32]
Say = Callable[[str], None]

COARSER = 4
COMPONENTS = 12
FOLDS = 5
FEWEST_PATIENTS = 5
BODY_MM = 5.0
TYPICAL, TYPICAL_MASS = 0.95, 0.98
"""The quantile of held-out studies that is a score of 1; looser for `mass`, whose fine differences `patient` judges."""
RAREST = 0.99
"""The quantile that is warned of from in a frontal picture mirrored, whose readings have no long tail."""
RIDGE = 0.3
DIGITS = 4

ROTATION_DEG, SCALE, SHIFT_MM, APART_MM, ANGLE_DEG = 3.0, 0.06, 10.0, 5.0, 2.0
"""Largest rotation about each axis, logarithm of the size, shift, difference in height between two views, and error of
a view's angle."""
_CONE, _PHYSICS, _TONE, _BLADES, _LETTER = 0.3, 0.5, 0.3, 0.3, 0.3  # how often
_DISPLAYED = 3  # one of so many studies is for display
_FEWEST = 20  # studies that show two heights, below which their covariance is not taken from them
_LEAST = 0.1  # of what held-out studies reach: 0 for a reading of which there were no pictures
_FLOOR = 0.01  # of a ratio's logarithm: its least standard deviation


@dataclass(frozen=True)
class Statistics:
    """The numbers for model.json, and of which patients and how many studies of each they are."""

    numbers: dict[str, tuple[float, ...]]
    patients: tuple[str, ...]
    studies: int

    def changes(self, bundle: Bundle) -> dict[str, Any]:
        """Return what the bundle stores."""
        return {"xray_statistics": self.numbers}

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a report."""
        return {"patients": list(self.patients), "studies": self.studies, "numbers": self.numbers}


def statistics(bundle: Bundle, shards: ShardSet, region: str, studies: int, say: Say) -> Statistics:
    """Find statistics of a bundle's X-rays on the shards' training patients of a region.

    `studies` are taken of each patient; `say` is called with one line before each. Patients of other regions show what
    the model is not for.

    Raises:
        InputError: patients that can't be read, or too few.
    """
    patients = shards.select("train")
    own = [patient for patient in patients if patient.region == region]
    if len(own) < FEWEST_PATIENTS:
        expected = f"{FEWEST_PATIENTS} or more"
        raise InputError.of(shards.path, f"training patients of the {region}", found=len(own), expected=expected)

    def groups(patients: Sequence[Patient]) -> Groups:
        seen = []
        for number, patient in enumerate(patients):
            say(f"patient {number + 1} of {len(patients)}")
            seen.append(tuple(pairs(bundle, patient, studies, np.random.default_rng([0, number]))))
        return seen

    numbers = fit(groups(own), groups([patient for patient in patients if patient.region != region]))
    return Statistics(numbers, tuple(patient.id for patient in own), studies)


def pairs(bundle: Bundle, patient: Patient, count: int, rng: np.random.Generator) -> Iterator[tuple[Seen, ...]]:
    """Yield random studies of a patient, each view as the network sees it, on a coarser detector."""
    height, width = bundle.xray.shape
    shape = rows, columns = height // COARSER, width // COARSER

    def coarser(spacing_mm: tuple[float, float]) -> tuple[float, float]:
        return spacing_mm[0] * (height / rows), spacing_mm[1] * (width / columns)

    views = (view.with_detector(shape, coarser(view.spacing_mm)) for view in bundle.geometry.views)
    pictures = replace(bundle.xray, shape=shape, spacing_mm=coarser(bundle.xray.spacing_mm))
    coarse = replace(bundle, geometry=Geometry(tuple(views)), xray=pictures)
    hu, index_to_mm = coarse_body(patient.hu(), patient.index_to_mm)
    mu = attenuation(hu)
    for number in range(count):
        display = number % _DISPLAYED == 1
        taken, stated_geometry = _drawn_views(coarse, rng)
        pose, apart = _drawn_pose(rng), rng.uniform(-1, 1) * APART_MM
        machine = _drawn_machine(rng)
        xrays = {}
        for view, stated in zip(taken, stated_geometry.views, strict=True):
            placed = pose.copy()
            placed[2, 3] += apart if view is not taken[0] else 0.0
            image = project(mu, placed @ index_to_mm, view, threads=1)
            xrays[stated.name] = XRay.of(machine(image, view, display), stated.spacing_mm)
        yield seen_by(coarse, study_of(coarse, xrays, stated_geometry))


def coarse_body(hu: npt.NDArray[Any], index_to_mm: Array) -> tuple[npt.NDArray[np.float32], Array]:
    """Return block means of a CT, with voxels of about `BODY_MM`, and their affine: for pictures of coarse pixels."""
    steps = tuple(max(1, round(BODY_MM / step)) for step in np.linalg.norm(index_to_mm[:3, :3], axis=0))
    affine = index_to_mm @ np.diag([*steps, 1.0])
    affine[:3, 3] = index_to_mm[:3, 3] + index_to_mm[:3, :3] @ ((np.array(steps) - 1) / 2)
    body = np.maximum(hu, AIR_HU).astype(np.float32)
    means = block_reduce(body, steps, np.mean, AIR_HU, {"dtype": np.float32})  # type: ignore[no-untyped-call]
    return means, affine


def _drawn_views(bundle: Bundle, rng: np.random.Generator) -> tuple[list[View], Geometry]:
    """Return the views as they are taken, and as they are stated to the network."""
    cone = rng.random() < _CONE
    sdd = rng.uniform(1000, 2000)
    sod = sdd - rng.uniform(180, 420)
    taken, stated = [], []
    for view in bundle.geometry.views:
        error = rng.uniform(-1, 1) * ANGLE_DEG
        if cone:
            pitch = view.spacing_mm[0] * (sdd / sod), view.spacing_mm[1] * (sdd / sod)
            place: dict[str, Any] = {"sod_mm": sod, "sdd_mm": sdd, "shape": view.shape, "spacing_mm": pitch}
            stated.append(View.cone(view.name, view.angle_deg, **place))
            taken.append(View.cone(view.name, view.angle_deg + error, **place))
        else:
            turn = np.eye(4)
            turn[:3, :3] = rotation(np.deg2rad([0, 0, error]))
            stated.append(view)
            taken.append(View(view.name, view.matrix @ turn, view.shape, view.spacing_mm))
    return taken, Geometry(tuple(stated))


def _drawn_pose(rng: np.random.Generator) -> Array:
    """Return a random map from patient mm of the body to patient mm of the study."""
    pose = np.eye(4)
    size = np.exp(rng.uniform(-1, 1) * SCALE + rng.uniform(-0.5, 0.5, 3) * SCALE)
    pose[:3, :3] = rotation(np.deg2rad(rng.uniform(-1, 1, 3) * ROTATION_DEG)) @ np.diag(size)
    pose[:3, 3] = rng.uniform(-1, 1, 3) * SHIFT_MM
    return pose


def _drawn_machine(rng: np.random.Generator) -> Callable[[Image, View, bool], npt.NDArray[Any]]:
    """Return what a detector, and for display a workstation, makes of line integrals; integers are for display.

    Both X-rays of a study have one machine: its scatter over primary intensity, photons a pixel, and tone.
    """
    physics, tone = rng.random() < _PHYSICS, rng.random() < _TONE
    scatter, photons = rng.uniform(0, 0.1), float(np.exp(rng.uniform(np.log(1e4), np.log(1e6))))
    exponent, scale = float(np.exp(rng.uniform(-0.25, 0.25))), rng.uniform(0.9, 1.1)

    def picture(image: Image, view: View, display: bool) -> npt.NDArray[Any]:
        if physics:
            down, across = (50.0 * view.magnification / pitch for pitch in view.spacing_mm)
            image = degradation.scatter(image, scatter, (down, across))
            image = degradation.poisson_noise(image, photons, rng)
        image = degradation.gamma(image, exponent if tone else 1.0, scale if tone else 1.0)
        if not display:
            return image
        if rng.random() < _LETTER:
            rows, columns = image.shape
            where = rows * rng.choice([0.12, 0.88]), columns * rng.choice([0.12, 0.88])
            image = degradation.marker(image, where, round(0.05 * rows), "R", rng.uniform(2, 6))
        if rng.random() < _BLADES:
            sides = np.repeat(image.shape, 2) * rng.uniform(0.02, 0.1, 4) * (rng.random(4) < 0.5)
            top, bottom, left, right = (int(side) for side in sides)
            image = degradation.collimate(image, (top, bottom, left, right))
        return degradation.window_8bit(image, (rng.uniform(0, 1.5), 100 - rng.uniform(0, 1.5)))

    return picture


def fit(groups: Groups, others: Groups = ()) -> dict[str, tuple[float, ...]]:
    """Return the numbers for model.json.

    `others` are of another part of the body; where there are none, that reading is never found.
    """
    numbers: dict[str, Array] = {"patients": np.array([len(groups)]), "studies": np.array([sum(map(len, groups))])}
    names = [seen.name for seen in groups[0][0]]
    for slot, name in enumerate(names):
        own = _pictures(groups, slot)
        sizes = [np.stack([silhouette(s[slot]) for s in group]) for group in groups]
        apart = {pose: _pictures(groups, slot, pose) for pose in POSES}
        apart |= {OTHER_VIEW: _pictures(groups, 1 - slot) if len(names) == 2 else []}
        apart |= {OTHER_PART: _pictures(others, slot)}
        numbers |= {f"{name}.{key}": value for key, value in _of_view(own, apart, sizes).items()}
        if slot == SLOT_OF["ap"]:
            even, odd, reached = _of_sides([[study[slot] for study in group] for group in groups])
            numbers |= {f"{name}.even": even, f"{name}.odd": odd}
            numbers[f"{name}.reference"][2] = reached  # of the first of POSES
    if len(names) == 2:
        for calibrated, word in ((True, "calibrated"), (False, "display")):
            numbers |= {f"mass_{word}.{key}": value for key, value in _of_pairs(groups, calibrated).items()}
    return {key: tuple(float(f"{number:.{DIGITS}g}") for number in np.ravel(value)) for key, value in numbers.items()}


def _pictures(groups: Groups, slot: int, pose: Pose = AS_IT_IS) -> list[Array]:
    """Return the reduced pictures of a slot, one array of [studies, pixels] a patient."""
    return [np.stack([reduced(reread(study[slot], pose)).ravel() for study in group]) for group in groups]


def _of_view(own: Sequence[Array], apart: Mapping[Pose, Sequence[Array]], sizes: Sequence[Array]) -> dict[str, Array]:
    """Return statistics of one view's pictures, and the figures of held-out studies.

    Of each patient, `own` and `apart` (what `POSES` show, or nothing) are [studies, pixels], `sizes` [studies, 2].
    """
    figures = list[Array]()
    for out, rest in _folds(len(own)):
        picture, size = Gaussian.of(_joined(own, rest), COMPONENTS), _spread(_joined(sizes, rest))
        pictures = _joined(own, out)
        readings = 1 - _discriminants(own, apart, rest) @ np.vstack([pictures.T, np.ones(len(pictures))])
        extents = np.abs((_joined(sizes, out) - size[0]) / size[1]).max(axis=1)
        figures.append(np.vstack([picture.distance(pictures), extents, readings]))
    whole = Gaussian.of(np.concatenate(own), COMPONENTS)
    return {
        "mean": whole.mean,
        "basis": whole.basis,
        "variances": np.append(whole.variances, whole.rest),
        "size": _spread(np.concatenate(sizes)),
        "pose": _discriminants(own, apart, range(len(own))),
        "reference": np.maximum(np.quantile(np.concatenate(figures, axis=1), TYPICAL, axis=1), _LEAST),
    }


def _folds(patients: int) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Yield patients to judge, and the others, whose statistics they are judged by."""
    for fold in range(FOLDS):
        yield range(fold, patients, FOLDS), [patient for patient in range(patients) if patient % FOLDS != fold]


def _joined(values: Sequence[Array], which: Sequence[int]) -> Array:
    return np.concatenate([values[k] for k in which])


def _spread(values: Array) -> Array:
    """Return mean and standard deviation along the first axis, [2, ...]."""
    return np.stack([values.mean(axis=0), values.std(axis=0)])


def _discriminants(own: Sequence[Array], apart: Mapping[Pose, Sequence[Array]], which: Sequence[int]) -> Array:
    """Return linear discriminants (Fisher) of a view from `POSES`, [poses, pixels + 1]: 1 at its mean, -1 at theirs.

    Where there are no pictures of a pose, the row is a constant 1.
    """
    pictures, rows = _joined(own, which), list[Array]()
    for pose in POSES:
        if not apart[pose]:
            rows.append(np.append(np.zeros(pictures.shape[1]), 1.0))
            continue
        those = np.concatenate(apart[pose]) if pose is OTHER_PART else _joined(apart[pose], which)
        means = pictures.mean(axis=0), those.mean(axis=0)
        within = np.concatenate([pictures - means[0], those - means[1]])
        weights = Gaussian.of(within, COMPONENTS).whitened(means[0] - means[1])
        half = weights @ (means[0] - means[1]) / 2
        rows.append(np.append(weights, -weights @ (means[0] + means[1]) / 2) / half)
    return np.stack(rows)


def _of_sides(groups: Sequence[Sequence[Seen]]) -> tuple[Array, Array, float]:
    """Return the mean even part of frontal pictures, the odd part's weights (mean 1), and a bound of held-out ones."""
    template = np.mean([sides(seen)[0] for group in groups for seen in group], axis=0)
    template = np.mean([sides(seen, template)[0] for group in groups for seen in group], axis=0)
    odd = [np.stack([sides(seen, template)[1] for seen in group]) for group in groups]

    def weights(which: Sequence[int]) -> Array:
        samples = _joined(odd, which)
        mean, covariance = samples.mean(axis=0), np.cov(samples, rowvar=False)
        covariance[np.diag_indices_from(covariance)] += RIDGE * covariance.trace() / len(covariance) + 1e-12
        solution = np.linalg.solve(covariance, mean)
        return np.asarray(solution / (solution @ mean + 1e-12), np.float64)

    readings = np.concatenate([1 - _joined(odd, out) @ weights(rest) for out, rest in _folds(len(odd))])
    return template, weights(range(len(odd))), max(float(np.quantile(readings, RAREST)) / WARNS, _LEAST)


def _of_pairs(groups: Groups, calibrated: bool) -> dict[str, Array]:
    """Return statistics of pairs of views, calibrated or not, and the figures of held-out studies."""
    pairs = [[study for study in group if all(seen.calibrated for seen in study) == calibrated] for group in groups]
    ratios = [[(study, ratio) for study in some if (ratio := mass_ratio(*study)) is not None] for some in pairs]

    def law(which: Sequence[int]) -> tuple[Array, Array]:
        return _moments(np.stack([ratio for k in which for _, ratio in ratios[k]]))

    distances, unlike = list[float](), list[float]()
    for out, rest in _folds(len(ratios)):
        others = MassLaw(*law(rest), calibrated)
        for study, ratio in (pair for k in out for pair in ratios[k]):
            distances.append(others.distance(ratio))
            alike = likeness(*study)
            if alike is not None:
                unlike.append(distances[-1] * (1 - alike))
    mean, covariance = law(range(len(ratios)))
    reached = {"reference": np.quantile(distances, TYPICAL_MASS), "patient": np.quantile(unlike, TYPICAL)}
    return {"mean": mean, "covariance": covariance} | {name: np.array([value]) for name, value in reached.items()}


def _moments(ratios: Array) -> tuple[Array, Array]:
    """Return mean and covariance by height of [studies, heights] with NaN; the variance is 1 where no study has one."""
    finite = np.isfinite(ratios)
    counts = finite.T.astype(np.float64) @ finite
    mean = np.where(finite, ratios, 0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    away = np.where(finite, ratios - mean, 0)
    enough = counts > _FEWEST
    covariance = np.where(enough, away.T @ away / np.maximum(counts, 1), 0)
    covariance[np.diag_indices_from(covariance)] += np.where(np.diag(enough), _FLOOR**2, 1.0)
    values, vectors = np.linalg.eigh(covariance)  # of pairwise moments: not always positive
    return mean, (vectors * np.maximum(values, _FLOOR**2)) @ vectors.T
