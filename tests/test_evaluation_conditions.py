"""X-rays that training did not see: each condition is what it says, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import phantom
from x2ct.errors import InputError
from x2ct.evaluation import conditions
from x2ct.evaluation.case import Case, case_of
from x2ct.evaluation.conditions import CONDITIONS, named
from x2ct.geometry import Geometry, View
from x2ct.geometry.grid import Grid

GRID = Grid((32, 32, 32), (10.0, 10.0, 10.0))
GEOMETRY = Geometry.parallel(shape=(60, 60), spacing_mm=(7.0, 7.0))


@pytest.fixture(scope="module")
def case() -> Case:
    return case_of("phantom", phantom.chest(GRID, 0), GRID.index_to_mm, GRID, GEOMETRY, threads=1)


def condition(name: str) -> conditions.Condition:
    return next(c for c in CONDITIONS if c.name == name)


def images(taken: conditions.XRays) -> list[np.ndarray]:
    return [xray.image for xray in taken.values()]


def test_training_s_x_rays_are_the_case_s_own(case: Case) -> None:
    xrays, told = condition("training").take(case, 1)
    assert list(xrays) == ["ap", "lateral"]
    assert all(np.array_equal(a, b) for a, b in zip(images(xrays), case.xrays, strict=True))
    assert told is case.geometry
    assert all(xray.calibrated for xray in xrays.values())


@pytest.mark.parametrize(("name", "index"), [("frontal-alone", 0), ("lateral-alone", 1)])
def test_one_view_alone_is_one_of_training_s(case: Case, name: str, index: int) -> None:
    xrays, told = condition(name).take(case, 1)
    assert list(xrays) == [("ap", "lateral")[index]]
    assert told.views == (GEOMETRY.views[index],)
    assert np.array_equal(images(xrays)[0], case.xrays[index])


@pytest.mark.parametrize("degrees", [2, 5])
def test_views_that_are_off_are_views_from_other_angles_to_opposite_sides(degrees: int) -> None:
    ap, lateral = condition(f"off-{degrees}").views(GEOMETRY).views
    errors = []
    for view, angle in ((ap, 0.0), (lateral, 90.0)):
        made = {
            sign: View.parallel(view.name, angle + sign * degrees, shape=(60, 60), spacing_mm=(7.0, 7.0))
            for sign in (1, -1)
        }
        (side,) = (sign for sign, other in made.items() if np.allclose(view.matrix, other.matrix, atol=1e-9))
        errors.append(side)
    assert sorted(errors) == [-1, 1]


def test_a_patient_10_mm_higher_is_seen_10_mm_higher() -> None:
    point = np.array([20.0, -30.0, 40.0])
    for name, moved in (("shift-10", {"ap", "lateral"}), ("lateral-shift-10", {"lateral"})):
        for view, other in zip(GEOMETRY.views, condition(name).views(GEOMETRY).views, strict=True):
            (u, v), (u2, v2) = view.to_pixels(point)[0], other.to_pixels(point)[0]
            assert u2 == pytest.approx(u)
            assert v2 == pytest.approx(v - (10 / 7 if view.name in moved else 0))


@pytest.mark.parametrize(("name", "sod", "sdd"), [("cone", 1500, 1800), ("cone-near", 850, 1050)])
def test_cones_have_their_distances_and_pixels_that_measure_the_same(name: str, sod: float, sdd: float) -> None:
    views = condition(name).views(Geometry.parallel()).views
    assert [view.angle_deg for view in views] == pytest.approx([0.0, 90.0])
    for view in views:
        assert np.linalg.norm(view.source_mm) == pytest.approx(sod)
        assert view.spacing_mm[0] * sod / sdd == pytest.approx(1.25)


def test_the_network_is_told_what_the_list_says(case: Case) -> None:
    for each in CONDITIONS:
        _, told = each.take(case, 1)
        moved = each.views(case.geometry) != case.geometry
        assert ("not told" in each.what) == (not each.told or each.name == "gamma")
        assert (told != case.geometry) == (moved and each.told)


@pytest.mark.parametrize("name", [condition.name for condition in CONDITIONS])
def test_every_x_ray_fits_the_views_that_the_network_is_told(case: Case, name: str) -> None:
    """A pixel pitch that contradicts the geometry is refused by the sampler, and ends the case."""
    xrays, told = condition(name).take(case, threads=1)
    for view in told.views:
        assert xrays[view.name].image.shape == tuple(view.shape)
        assert xrays[view.name].spacing_mm == pytest.approx(view.spacing_mm)


def test_only_display_pictures_are_uncalibrated_and_all_but_whole_views_of_training_differ(case: Case) -> None:
    for each in CONDITIONS:
        xrays, _ = each.take(case, 1)
        assert {xray.calibrated for xray in xrays.values()} == {each.name not in ("png", "together")}
        same = [
            np.array_equal(xrays[view.name].image, case.xrays[i])
            for i, view in enumerate(GEOMETRY.views)
            if view.name in xrays
        ]
        assert all(same) == (each.name in ("training", "frontal-alone", "lateral-alone"))
        again, _ = each.take(case, 1)
        assert all(np.array_equal(a, b) for a, b in zip(images(xrays), images(again), strict=True))


def test_fewer_photons_are_more_noise(case: Case) -> None:
    many, few = (images(condition(name).take(case, 1)[0])[0] - case.xrays[0] for name in ("photons-1e6", "photons-1e5"))
    assert few.std() == pytest.approx(np.sqrt(10) * many.std(), rel=0.1)


def test_names_are_looked_up_and_training_is_always_there() -> None:
    assert [c.name for c in named(["png", "cone"])] == ["training", "cone", "png"]
    assert named(["every"]) == CONDITIONS
    assert len({c.name for c in CONDITIONS}) == len({c.what for c in CONDITIONS}) == len(CONDITIONS)
    with pytest.raises(InputError, match="found fog, expected every, or some of training"):
        named(["fog"])


def test_what_a_condition_costs_is_against_training(tmp_path: Path) -> None:
    def figures(psnr: float) -> dict:
        found = {"psnr_db": psnr, "ssim": 0.5, "mae_hu": {"body": 100.0}, "bone_dice": 0.2}
        return {**found, "bone_pieces": {"quarter": 0.3}}

    cases = [
        {"conditions": {n: dict.fromkeys((conditions.MEAN, conditions.SAMPLE), figures(p)) for n, p in told.items()}}
        for told in ({"training": 22.0, "png": 20.0}, {"training": 24.0, "png": 23.5})
    ]
    means = conditions.summarise([*cases, {"id": "not tried"}])
    assert means["png"][conditions.MEAN]["psnr_db"] == pytest.approx(21.75)
    lines = conditions.tables(means)[conditions.MEAN].markdown()
    assert lines[2].endswith("| 0.00 |") and lines[3].endswith("| 1.25 |")
    assert conditions.summarise([{"id": "not tried"}]) == {}
