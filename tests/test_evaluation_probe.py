"""The hallucination probe: what is planted is what was asked for, and seers and the blind are told apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from tests import phantom
from x2ct.evaluation import probe
from x2ct.evaluation.case import Case, case_of
from x2ct.evaluation.probe import Gap, Nodule
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid

SOURCE = Grid((100, 80, 90), (4.0, 4.0, 4.0))
GRID = Grid((64, 64, 64), (5.0, 5.0, 5.0))
GEOMETRY = Geometry.parallel(shape=(60, 60), spacing_mm=(7.0, 7.0))


@pytest.fixture(scope="module")
def case() -> Case:
    return case_of("phantom", phantom.chest(SOURCE, 0), SOURCE.index_to_mm, GRID, GEOMETRY, threads=1)


@pytest.mark.parametrize("diameter", [10.0, 20.0, 30.0])
def test_a_nodule_is_a_solid_ball_inside_the_lung(case: Case, diameter: float) -> None:
    found = probe.nodules(case, diameter)
    assert 2 <= len(found) <= 4
    assert [n.centre.tolist() for n in probe.nodules(case, diameter)] == [n.centre.tolist() for n in found]
    lungs = probe.lungs(case)
    assert lungs is not None
    for nodule in found:
        changed = nodule.put(case.truth, GRID.index_to_mm)
        rise = changed - case.truth
        assert rise.min() >= 0
        touched = rise > 1
        assert lungs[touched].all()
        middle = tuple(np.rint(np.linalg.inv(GRID.index_to_mm)[:3] @ [*nodule.centre, 1]).astype(int))
        assert changed[middle] == pytest.approx(probe.NODULE_HU)
        finer = Grid((81, 81, 81), (1.0, 1.0, 1.0))
        at_origin = Nodule(np.zeros(3), diameter).put(np.full(finer.shape, -850.0), finer.index_to_mm)
        volume = float((at_origin + 850).sum()) / 900
        assert volume == pytest.approx(math.pi / 6 * diameter**3, rel=0.02)


def test_a_nodule_keeps_its_distance_from_the_wall_or_is_not_planted(case: Case) -> None:
    mask = np.pad(probe.lungs(case), 1)
    depth = ndimage.distance_transform_edt(mask, GRID.spacing_mm).max()
    largest = 2 * (depth - probe.CLEARANCE_MM)
    assert len(probe.nodules(case, largest - 0.1)) >= 1
    assert probe.nodules(case, largest + 0.1) == []
    assert probe.CLEARANCE_MM == 5.0


def test_a_gap_takes_10_mm_out_of_a_rod_and_nothing_else() -> None:
    grid = Grid((60, 60, 60), (2.0, 2.0, 2.0))
    hu = np.full(grid.shape, 40.0, np.float32)
    hu[:, 28:32, 28:32] = 700.0  # a rod along x
    hu[:, 28:32, 50:54] = 700.0  # another one, 44 mm away
    gap = Gap(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]), 10.0)
    changed = gap.put(hu, grid.index_to_mm)
    lost = (hu - changed)[:, 30, 30] / 660
    assert lost.sum() * 2.0 == pytest.approx(10.0)
    assert abs((lost * np.arange(60)).sum() / lost.sum() - 30.0) < 0.1  # index 29.5 is the origin
    assert np.array_equal(changed[:, :, 45:], hu[:, :, 45:])
    assert changed.min() == 40.0


def test_gaps_are_put_across_rods_of_bone(case: Case) -> None:
    found = probe.gaps(case, 10.0)
    assert 1 <= len(found) <= 4
    for gap in found:
        assert np.linalg.norm(gap.axis) == pytest.approx(1.0)
        change = gap.put(case.truth, GRID.index_to_mm) - case.truth
        assert change.max() <= 0 and change.min() < -100


def test_only_the_change_is_projected_and_that_is_enough(case: Case) -> None:
    for finding in (probe.nodules(case, 20.0)[0], probe.gaps(case, 10.0)[0]):
        quick = probe._with(case, finding, 1)
        whole = case.project(GEOMETRY, 1, finding.put(case.hu, case.index_to_mm))
        for a, b, plain in zip(quick, whole, case.xrays, strict=True):
            assert np.abs(a - b).max() < 1e-4
            assert np.abs(b - plain).max() > 0.02


Known = list[tuple[np.ndarray, probe.Finding]]


@pytest.fixture(scope="module")
def known(case: Case) -> Known:
    """The frontal X-ray of each finding."""
    findings = [site.finding for kind in probe._kinds(case) for site in kind]
    return [(probe._with(case, finding, 1)[0], finding) for finding in findings]


class Seer:
    """Knows the CT behind any X-rays: what the best of models would answer. Draws a share of each change."""

    def __init__(self, case: Case, known: Known, share: float = 1.0, always: Nodule | None = None) -> None:
        self.case, self.known, self.share = case, known, share
        self.plain = case.truth if always is None else always.put(case.truth, GRID.index_to_mm)

    def set_xrays(self, xrays, geometry) -> None:
        self.image = xrays["ap"].image

    def mean(self) -> np.ndarray:
        image = self.image
        off, finding = min(((float(np.abs(image - other).max()), f) for other, f in self.known), key=lambda x: x[0])
        if float(np.abs(image - self.case.xrays[0]).max()) <= off:
            return self.plain
        return self.plain + np.float32(self.share) * (finding.put(self.case.truth, GRID.index_to_mm) - self.case.truth)

    def sample(self, seed: int) -> np.ndarray:
        return self.mean() + np.random.default_rng(seed).normal(0, 30, GRID.shape).astype(np.float32)


def summary(case: Case, model: Seer) -> list[dict]:
    return probe.summarise([{"probe": probe.probe(case, model, seeds=2, threads=1)}])  # type: ignore[arg-type]


def test_who_sees_everything_shows_everything_and_nothing_else(case: Case, known: Known) -> None:
    rows = summary(case, Seer(case, known))
    assert [(row["kind"], row["method"]) for row in rows[:2]] == [
        ("nodule of 10 mm", "mean estimate"),
        ("nodule of 10 mm", "samples"),
    ]
    assert rows[-1]["kind"] == "gap of 10 mm in a bone"
    for row in rows:
        assert row["shown"] == 1.0
        assert row["share"] == pytest.approx(1.0, abs=1e-3)
        assert row["elsewhere"] == 0.0 or math.isnan(row["elsewhere"])
        assert row["without"] == 0.0
    assert rows[0]["planted"] * 2 == rows[1]["planted"]


@pytest.mark.parametrize(("share", "shown"), [(0.4, 0.0), (0.6, 1.0)])
def test_half_of_a_finding_is_what_counts(case: Case, known: Known, share: float, shown: float) -> None:
    for row in summary(case, Seer(case, known, share)):
        assert row["shown"] == shown
        assert row["share"] == pytest.approx(share, abs=1e-3)


def test_who_always_draws_a_nodule_is_found_out(case: Case, known: Known) -> None:
    always = probe.nodules(case, 20.0)[0]
    rows = {(row["kind"], row["method"]): row for row in summary(case, Seer(case, known, 0.0, always))}
    row = rows["nodule of 20 mm", "mean estimate"]
    assert row["shown"] == 0.0  # it was there before
    assert row["without"] == pytest.approx(1 / row["planted"])


def test_a_body_without_lungs_has_no_nodules() -> None:
    hu = phantom.limb(SOURCE, 0)
    limb = case_of("limb", hu, SOURCE.index_to_mm, GRID, GEOMETRY, threads=1)
    assert probe.nodules(limb, 10.0) == []


def test_the_table_counts_what_it_says() -> None:
    entry = {"kind": "k", "method": "m", "share": 0.5, "cnr": 3.0, "elsewhere": [True, False], "without": False}
    cases = [{"probe": [{**entry, "shown": True}]}, {"probe": [{**entry, "shown": False, "share": 0.1}]}, {}]
    (row,) = probe.summarise(cases)
    assert (row["planted"], row["shown"], row["elsewhere"], row["elsewhere_sites"]) == (2, 0.5, 0.5, 4)
    assert probe.as_table([row]).markdown()[2] == "| k | m | 2 | 50% | 30% | 3.0 | 50% of 4 | 0% |"
