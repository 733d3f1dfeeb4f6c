"""The hallucination probe: what happens to a synthesis when a lesion is inserted into the CT before it is projected.

One finding at a time: nodules of 10, 20 and 30 mm in the lungs, and 10 mm gaps in ribs or long bones. The synthesis
with it is compared with the synthesis without it, of the same seed, in the finding's own voxels. It is shown if the HU
there change by at least half of what they change in the truth. The same question in the places of the other findings,
where nothing was planted, counts what is shown and is not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from x2ct.evaluation import plants
from x2ct.evaluation.case import Case
from x2ct.evaluation.metrics import BONE_HU, BoolArray, FloatArray
from x2ct.evaluation.model import Model
from x2ct.evaluation.plants import Finding, Gap, Nodule
from x2ct.geometry import attenuation, project
from x2ct.io.report import Table
from x2ct.render.drr import calibrated

NODULES_MM = (10.0, 20.0, 30.0)
GAP_MM = 10.0
SHOWN = 0.5  # of the true change of HU, that a synthesis must show
LEAST_CHANGE_HU = 50.0  # a voxel belongs to a finding if it changes the truth by that much

MEAN, SAMPLES = "mean estimate", "samples"


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
    """Insert each lesion, synthesise, and look.

    Returns:
        One entry a finding and method ("mean estimate"; "samples", one a seed): "kind", "share" (the change shown over
        the true one), "shown"; "elsewhere": the same question at the other sites of its kind, where nothing was
        planted; "cnr": the change over the standard deviation of the change in the rest of the body; "without":
        whether the synthesis without the finding has it already (a nodule: a bright spot where the truth has none; a
        gap: no bone where the truth has some).
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
        for (method, plain), (_, planted) in zip(before, after, strict=True):
            entries.append({"kind": site.kind, "method": method, **_seen(case, site, others, plain, planted)})
    return entries


def summarise(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a kind and method over all cases: counts and shares."""
    entries = [entry for case in cases for entry in case.get("probe") or []]
    rows = []
    for kind, method in dict.fromkeys((e["kind"], e["method"]) for e in entries):
        own = [e for e in entries if (e["kind"], e["method"]) == (kind, method)]
        elsewhere = [shown for e in own for shown in e["elsewhere"]]
        row = {"kind": kind, "method": method, "planted": len(own)}
        row |= {name: float(np.mean([e[name] for e in own])) for name in ("shown", "share", "cnr", "without")}
        row |= {"elsewhere": float(np.mean(elsewhere)) if elsewhere else math.nan, "elsewhere_sites": len(elsewhere)}
        rows.append(row)
    return rows


def as_table(summary: Sequence[Mapping[str, Any]]) -> Table:
    """The summary as a table."""
    columns = "planted", "in", "n", "shown", "of its HU", "CNR", "shown where nothing was planted", "there without it"
    lines: list[tuple[object, ...]] = []
    for row in summary:
        elsewhere = "-" if math.isnan(row["elsewhere"]) else f"{row['elsewhere']:.0%} of {row['elsewhere_sites']}"
        figures = f"{row['shown']:.0%}", f"{row['share']:.0%}", f"{row['cnr']:.1f}", elsewhere, f"{row['without']:.0%}"
        lines.append((row["kind"], row["method"], row["planted"], *figures))
    return Table("", columns, lines, text=2)


def _kinds(case: Case) -> Iterator[list[_Site]]:
    for diameter in NODULES_MM:
        yield [_site(case, f"nodule of {diameter:g} mm", finding) for finding in plants.nodules(case, diameter)]
    gaps = [_site(case, f"gap of {GAP_MM:g} mm in a bone", finding) for finding in plants.gaps(case, GAP_MM)]
    yield [site for site in gaps if site.where.any()]


def _site(case: Case, kind: str, finding: Finding) -> _Site:
    change = finding.put(case.truth, case.grid.index_to_mm) - case.truth
    where = np.abs(change) >= LEAST_CHANGE_HU
    return _Site(kind, finding, where, float(change[where].mean()) if where.any() else 0.0)


def _with(case: Case, finding: Finding, threads: int) -> tuple[FloatArray, ...]:
    """The case's X-rays with the finding: line integrals are linear, so only the change is projected."""
    change = attenuation(finding.put(case.hu, case.index_to_mm)) - attenuation(case.hu)
    spans = [np.flatnonzero(change.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if any(len(span) == 0 for span in spans):
        return case.xrays
    low = np.asarray([max(0, span[0] - 1) for span in spans])
    high = [span[-1] + 2 for span in spans]
    part = np.ascontiguousarray(change[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    index_to_mm = case.index_to_mm.copy()
    index_to_mm[:3, 3] += index_to_mm[:3, :3] @ low
    return tuple(
        image + project(part, index_to_mm, view, threads)
        for image, view in zip(case.xrays, case.geometry.views, strict=True)
    )


def _syntheses(case: Case, model: Model, images: Sequence[FloatArray], seeds: int) -> list[tuple[str, FloatArray]]:
    model.set_xrays(calibrated(case.geometry, images, case.id), case.geometry)
    samples = [(SAMPLES, model.sample(seed)) for seed in range(seeds)]
    return [(MEAN, model.mean()), *samples]


def _seen(case: Case, site: _Site, others: Sequence[_Site], plain: FloatArray, planted: FloatArray) -> dict[str, Any]:
    change = planted - plain
    here, rest = float(change[site.where].mean()), change[case.body & ~site.where]
    noise = float(rest.std(dtype=np.float64)) if rest.size else 0.0
    return {
        "share": here / site.change_hu,
        "shown": here / site.change_hu >= SHOWN,
        "cnr": abs(here) / noise if noise else math.nan,
        "elsewhere": [bool(change[other.where].mean() / other.change_hu >= SHOWN) for other in others],
        "without": _already(case, site, plain),
    }


def _already(case: Case, site: _Site, plain: FloatArray) -> bool:
    """Whether the synthesis without the finding looks as if it had it, where the truth doesn't."""
    if isinstance(site.finding, Gap):
        return bool(np.mean(plain[site.where] >= BONE_HU) < SHOWN * np.mean(case.truth[site.where] >= BONE_HU))
    around = _shell(case, site.finding)
    if not around.any():
        return False

    def contrast(hu: FloatArray) -> float:
        return float(hu[site.where].mean()) - float(np.median(hu[around]))

    return contrast(plain) - contrast(case.truth) >= SHOWN * site.change_hu


def _shell(case: Case, nodule: Nodule) -> BoolArray:
    """2.5 to 10 mm from a nodule's surface."""
    index_to_mm = case.grid.index_to_mm
    indices = np.meshgrid(*map(np.arange, case.grid.shape), indexing="ij", sparse=True)
    x, y, z = (i * index_to_mm[a, a] + index_to_mm[a, 3] - nodule.centre[a] for a, i in enumerate(indices))
    beyond = np.sqrt(x * x + y * y + z * z) - nodule.diameter_mm / 2
    return np.asarray((beyond >= 2.5) & (beyond <= 10))
