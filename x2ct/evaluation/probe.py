"""The hallucination probe: what happens to a synthesis when a lesion is inserted into the CT before it is projected.

One finding at a time: nodules of 10, 20 and 30 mm in the lungs, and 10 mm gaps in ribs or long bones. The synthesis
with it is compared with the synthesis without it, of the same seed, in the finding's own voxels. It is shown if the HU
there change by at least half of what they change in the truth. The same question in the places of the other findings,
where nothing was planted, counts what is shown and is not there. Sites are chosen from the truth alone, without chance,
so that the same CT always gets the same findings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from x2ct.data.body import lung_mask
from x2ct.evaluation.case import Case
from x2ct.evaluation.metrics import BONE_HU, BoolArray, FloatArray
from x2ct.evaluation.model import Model
from x2ct.geometry import attenuation, project
from x2ct.io.report import Table
from x2ct.render.drr import calibrated

Matrix = npt.NDArray[np.float64]
Point = npt.NDArray[np.float64]

NODULE_HU = 50.0  # solid; some 850 HU above lung
CLEARANCE_MM = 5.0  # lung between a nodule and whatever is no lung

GAP_HU = 40.0
GAP_RADIUS_MM = 12.0
MARROW_HU = 60.0  # what is denser, within a gap, is taken for bone and becomes `GAP_HU`
ROD_MM = 15.0  # a rib is looked for in balls of this radius: long one way and thin both others
_THIN_MM, _LONG_MM = 4.5, 6.5  # standard deviations of a rod's voxels across and along it
_TRIES = 400

NODULES_MM = (10.0, 20.0, 30.0)
GAP_MM = 10.0
SHOWN = 0.5  # of the true change of HU, that a synthesis must show
LEAST_CHANGE_HU = 50.0  # a voxel belongs to a finding if it changes the truth by that much

MEAN, SAMPLES = "mean estimate", "samples"


@dataclass(frozen=True, eq=False)
class Nodule:
    """A solid ball in a lung; what is denser already stays."""

    centre: Point
    diameter_mm: float

    def put(self, hu: npt.NDArray[Any], index_to_mm: Matrix) -> FloatArray:
        """Return the volume with the nodule."""
        changed, box, off, voxel = _around(self.centre, self.diameter_mm / 2 + 5, hu, index_to_mm)
        share = np.clip((self.diameter_mm / 2 - np.linalg.norm(off, axis=-1)) / voxel + 0.5, 0, 1)
        part = changed[box]
        changed[box] = np.maximum(part, part + share * (NODULE_HU - part))
        return changed


@dataclass(frozen=True, eq=False)
class Gap:
    """A piece of a rod of bone, taken out across its axis and filled with soft tissue."""

    centre: Point
    axis: Point
    length_mm: float

    def put(self, hu: npt.NDArray[Any], index_to_mm: Matrix) -> FloatArray:
        """Return the volume with the gap."""
        changed, box, off, voxel = _around(self.centre, GAP_RADIUS_MM + self.length_mm, hu, index_to_mm)
        along = off @ self.axis
        across = np.sqrt(np.maximum(np.sum(off * off, axis=-1) - along**2, 0))
        share = np.clip((self.length_mm / 2 - np.abs(along)) / voxel + 0.5, 0, 1) * (across <= GAP_RADIUS_MM)
        part = changed[box]
        changed[box] = np.where(part > MARROW_HU, part + share * (GAP_HU - part), part)
        return changed


Finding = Nodule | Gap


@dataclass(frozen=True, eq=False)
class _Site:
    """A finding, where it is on the grid, and by how much it changes the truth there (mean HU)."""

    kind: str
    finding: Finding
    where: BoolArray
    change_hu: float


def probe(
    case: Case, model: Model, *, seeds: int = 1, threads: int = 0, say: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Insert each lesion, synthesise, and look: return an entry a finding and method (MEAN; SAMPLES, one a seed).

    "kind"; "share" (the change shown over the true one), "shown"; "elsewhere": the same question at the other sites of
    its kind, where nothing was planted; "cnr": the change over the standard deviation of the change in the rest of the
    body; "without": whether the synthesis without the finding has it already (a nodule: a bright spot where the truth
    has none; a gap: no bone where the truth has some).
    """
    sites = [site for kind in _kinds(case) for site in kind]
    if not sites:
        return []
    say("without findings")
    before = _syntheses(case, model, case.xrays, seeds)
    entries = []
    for site in sites:
        say(site.kind)
        after = _syntheses(case, model, _with(case, site.finding, threads), seeds)
        same_kind = (other for other in sites if other.kind == site.kind)
        others = [other for other in same_kind if not (other.where & site.where).any()]
        for (method, plain), (_, changed) in zip(before, after, strict=True):
            entries.append({"kind": site.kind, "method": method, **_seen(case, site, others, plain, changed)})
    return entries


def summarise(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a kind and method over all cases: counts and shares."""
    entries = [entry for case in cases for entry in case.get("probe") or []]
    rows = []
    for kind, method in dict.fromkeys((e["kind"], e["method"]) for e in entries):
        group = [e for e in entries if (e["kind"], e["method"]) == (kind, method)]
        elsewhere = [shown for e in group for shown in e["elsewhere"]]
        row = {"kind": kind, "method": method, "planted": len(group)}
        row |= {name: float(np.mean([e[name] for e in group])) for name in ("shown", "share", "cnr", "without")}
        row |= {"elsewhere": float(np.mean(elsewhere)) if elsewhere else math.nan, "elsewhere_sites": len(elsewhere)}
        rows.append(row)
    return rows


def as_table(summary: Sequence[Mapping[str, Any]]) -> Table:
    """Return the summary as a table."""
    columns = "planted", "in", "n", "shown", "of its HU", "CNR", "shown where nothing was planted", "there without it"
    rows = []
    for row in summary:
        elsewhere = "-" if math.isnan(row["elsewhere"]) else f"{row['elsewhere']:.0%} of {row['elsewhere_sites']}"
        figures = f"{row['shown']:.0%}", f"{row['share']:.0%}", f"{row['cnr']:.1f}", elsewhere, f"{row['without']:.0%}"
        rows.append((row["kind"], row["method"], row["planted"], *figures))
    return Table("", columns, rows, text=2)


def _kinds(case: Case) -> Iterator[list[_Site]]:
    for diameter in NODULES_MM:
        yield [_site(case, f"nodule of {diameter:g} mm", finding) for finding in nodules(case, diameter)]
    sites = [_site(case, f"gap of {GAP_MM:g} mm in a bone", finding) for finding in gaps(case, GAP_MM)]
    yield [site for site in sites if site.where.any()]


def _site(case: Case, kind: str, finding: Finding) -> _Site:
    change = finding.put(case.truth, case.grid.index_to_mm) - case.truth
    where = np.abs(change) >= LEAST_CHANGE_HU
    return _Site(kind, finding, where, float(change[where].mean()) if where.any() else 0.0)


def _with(case: Case, finding: Finding, threads: int) -> tuple[FloatArray, ...]:
    """Return the case's X-rays with the finding: line integrals are linear, so only the change is projected."""
    change = attenuation(finding.put(case.hu, case.index_to_mm)) - attenuation(case.hu)
    box = next(iter(ndimage.find_objects((change != 0).astype(np.int8))), None)
    if box is None:
        return case.xrays
    low = np.asarray([max(0, side.start - 1) for side in box])
    part = np.ascontiguousarray(change[tuple(slice(a, side.stop + 1) for a, side in zip(low, box, strict=True))])
    index_to_mm = case.index_to_mm.copy()
    index_to_mm[:3, 3] += index_to_mm[:3, :3] @ low
    views = zip(case.xrays, case.geometry.views, strict=True)
    return tuple(image + project(part, index_to_mm, view, threads) for image, view in views)


def _syntheses(case: Case, model: Model, images: Sequence[FloatArray], seeds: int) -> list[tuple[str, FloatArray]]:
    model.set_xrays(calibrated(case.geometry, images, case.id), case.geometry)
    samples = [(SAMPLES, model.sample(seed)) for seed in range(seeds)]
    return [(MEAN, model.mean()), *samples]


def _seen(case: Case, site: _Site, others: Sequence[_Site], plain: FloatArray, changed: FloatArray) -> dict[str, Any]:
    change = changed - plain
    mean, rest = float(change[site.where].mean()), change[case.body & ~site.where]
    noise = float(rest.std(dtype=np.float64)) if rest.size else 0.0
    return {
        "share": mean / site.change_hu,
        "shown": mean / site.change_hu >= SHOWN,
        "cnr": abs(mean) / noise if noise else math.nan,
        "elsewhere": [bool(change[other.where].mean() / other.change_hu >= SHOWN) for other in others],
        "without": _already(case, site, plain),
    }


def _already(case: Case, site: _Site, plain: FloatArray) -> bool:
    """Return whether the synthesis without the finding looks as if it had it, where the truth doesn't."""
    if isinstance(site.finding, Gap):
        return bool(np.mean(plain[site.where] >= BONE_HU) < SHOWN * np.mean(case.truth[site.where] >= BONE_HU))
    index_to_mm = case.grid.index_to_mm
    indices = np.meshgrid(*map(np.arange, case.grid.shape), indexing="ij", sparse=True)
    x, y, z = (i * index_to_mm[a, a] + index_to_mm[a, 3] - site.finding.centre[a] for a, i in enumerate(indices))
    beyond = np.sqrt(x * x + y * y + z * z) - site.finding.diameter_mm / 2
    around = (beyond >= 2.5) & (beyond <= 10)  # mm from the nodule's surface
    if not around.any():
        return False

    def contrast(hu: FloatArray) -> float:
        return float(hu[site.where].mean()) - float(np.median(hu[around]))

    return contrast(plain) - contrast(case.truth) >= SHOWN * site.change_hu


# ------------------------------------------------------------------------------------------- where findings can go


def lungs(case: Case) -> BoolArray | None:
    """Return the lungs with their vessels on the case's grid; None without lungs."""
    mask = lung_mask(case.truth, case.body, case.grid.spacing_mm)
    return None if mask is None else np.asarray(ndimage.binary_closing(mask, iterations=3))


def nodules(case: Case, diameter_mm: float) -> list[Nodule]:
    """Return at most one nodule in each quarter of the lungs, where it is deepest, `CLEARANCE_MM` of lung around it."""
    least_mm = diameter_mm / 2 + CLEARANCE_MM
    return [Nodule(place, diameter_mm) for place, depth_mm in _depths(case) if depth_mm >= least_mm]


def deepest(case: Case) -> list[Point]:
    """Return the place in each of four parts of the lungs farthest from the wall, in patient mm, the deepest first."""
    return [place for place, depth_mm in sorted(_depths(case), key=lambda pair: -pair[1]) if depth_mm > 0]


def _depths(case: Case) -> list[tuple[Point, float]]:
    """Return the deepest place of each quarter of the lungs, in patient mm, and its distance to the wall in mm."""
    mask = lungs(case)
    if mask is None:
        return []
    # Beyond the scan's end there is no lung: the array's border counts as a wall.
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), case.grid.spacing_mm)[1:-1, 1:-1, 1:-1]
    places = []
    for part in _quarters(mask):
        place = np.unravel_index(int(np.argmax(np.where(part, depth, 0))), depth.shape)
        places.append((_mm(np.asarray(place), case.grid.index_to_mm), float(depth[place])))
    return places


def gaps(case: Case, length_mm: float) -> list[Gap]:
    """Return at most one gap in each quarter (right, left; lower, upper) of the bones, where they are most rod-like."""
    bone = (case.truth >= BONE_HU) & case.body
    if not bone.any():
        return []
    places = np.argwhere(bone)
    points = _mm(places, case.grid.index_to_mm)
    tree = spatial.cKDTree(points)
    shape, margin = np.asarray(bone.shape), np.ceil(2 * ROD_MM / np.asarray(case.grid.spacing_mm))
    inner = np.all((places >= margin) & (places < shape - margin), axis=1)
    rods = []
    for part in _quarters(bone):
        own = np.flatnonzero(inner & part[tuple(places.T)])
        balls = (tree.query_ball_point(points[at], ROD_MM) for at in own[:: max(1, -(-len(own) // _TRIES))])
        if here := [rod for ball in balls if (rod := _rod(points[ball]))]:
            _, middle, axis = max(here, key=lambda rod: rod[0])
            rods.append(Gap(middle, axis, length_mm))
    return rods


def _rod(points: Point) -> tuple[float, Point, Point] | None:
    """Return how much longer than thin a rod of points is, its middle and axis; None where they make none."""
    if len(points) < 12:
        return None
    middle = points.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov((points - middle).T))
    _, thick, length = (float(sd) for sd in np.sqrt(np.maximum(variances, 0)))
    if thick > _THIN_MM or length < _LONG_MM:
        return None
    return length / max(thick, 1e-3), middle, np.asarray(axes[:, 2], np.float64)


def _quarters(mask: BoolArray) -> Iterator[BoolArray]:
    """Yield the mask's left and right, lower and upper parts, halved where its extent is."""
    ((x, _, z),) = ndimage.find_objects(mask.astype(np.int8))
    halves = ((slice(0, (one.start + one.stop) // 2), slice((one.start + one.stop) // 2, None)) for one in (x, z))
    for across, along in itertools.product(*halves):
        part = np.zeros(mask.shape, np.bool_)
        part[across, :, along] = mask[across, :, along]
        yield part


def _mm(index: npt.NDArray[Any], index_to_mm: Matrix) -> Point:
    return np.asarray(index @ index_to_mm[:3, :3].T + index_to_mm[:3, 3], np.float64)


def _around(
    centre: Point, reach_mm: float, hu: npt.NDArray[Any], index_to_mm: Matrix
) -> tuple[FloatArray, tuple[slice, ...], Point, float]:
    """Return a copy of a volume; its part near a point; offsets in mm from there to its voxels; its largest pitch."""
    pitch = np.linalg.norm(index_to_mm[:3, :3], axis=0)
    middle = np.linalg.inv(index_to_mm)[:3] @ np.append(centre, 1.0)
    low = np.clip(np.floor(middle - reach_mm / pitch), 0, hu.shape).astype(int)
    high = np.clip(np.ceil(middle + reach_mm / pitch) + 1, 0, hu.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    indices = np.moveaxis(np.mgrid[box], 0, -1)
    return np.array(hu, np.float32), box, _mm(indices, index_to_mm) - centre, float(pitch.max())
