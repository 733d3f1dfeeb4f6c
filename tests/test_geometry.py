"""Views and geometry files: where points are seen, what angles mean, and one line for each wrong file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from x2ct.errors import InputError
from x2ct.geometry import Geometry, View, attenuation
from x2ct.geometry.grid import centred_affine
from x2ct.io.xray.radiograph import XRay
from x2ct.jobs.sample import drr_files
from x2ct.render.drr import check_folder, display, geometry_of

CHEST = Path(__file__).parent / "data" / "chest_4mm.nii.gz"
RIGHT, FRONT, HEAD = (40.0, 0.0, 0.0), (0.0, 40.0, 0.0), (0.0, 0.0, 40.0)


def seen(view: View, point: tuple[float, ...]) -> tuple[float, float]:
    """Column and row of a point, from the detector's middle."""
    (u, v), _ = view.to_pixels(point)
    return float(u) - (view.shape[1] - 1) / 2, float(v) - (view.shape[0] - 1) / 2


@pytest.mark.parametrize("name", ["ap", "pa"])
@pytest.mark.parametrize("make", [View.parallel, View.cone])
def test_frontal_views_show_the_right_first_and_the_head_above(make, name: str) -> None:  # type: ignore[no-untyped-def]
    view = make(name)  # both presets' pixels are 1.25 mm at the isocentre
    assert seen(view, RIGHT) == pytest.approx((-32, 0))
    assert seen(view, HEAD) == pytest.approx((0, -32))
    assert seen(view, FRONT) == pytest.approx((0, 0))


@pytest.mark.parametrize("make", [View.parallel, View.cone])
def test_the_lateral_shows_the_front_first_and_the_head_above(make) -> None:  # type: ignore[no-untyped-def]
    view = make("lateral")
    assert seen(view, FRONT) == pytest.approx((-32, 0))
    assert seen(view, HEAD) == pytest.approx((0, -32))
    assert seen(view, RIGHT) == pytest.approx((0, 0))


def test_spacing_is_rows_first() -> None:
    detector = {"shape": (31, 21), "spacing_mm": (2.0, 5.0)}
    for view in (View.parallel("ap", **detector), View.cone("ap", sod_mm=1e3, sdd_mm=1e3, **detector)):  # type: ignore[arg-type]
        assert seen(view, RIGHT) == pytest.approx((-8, 0))
        assert seen(view, HEAD) == pytest.approx((0, -20))


def test_the_source_goes_round_by_the_right() -> None:
    for angle, place in ((0, (0, 1000, 0)), (90, (1000, 0, 0)), (180, (0, -1000, 0)), (-90, (-1000, 0, 0))):
        view = View.cone("any", angle, sod_mm=1000, sdd_mm=1500)
        np.testing.assert_allclose(view.source_mm, place, atol=1e-9)
        np.testing.assert_allclose(view.axis, -np.array(place) / 1000, atol=1e-12)
    assert View.parallel("ap").source_mm is None


def test_what_is_nearer_to_a_source_is_larger() -> None:
    view = View.cone("ap", sod_mm=1000, sdd_mm=1500, shape=(401, 401), spacing_mm=(1.0, 2.0))
    for depth in (-200.0, 0.0, 300.0):
        magnification = 1500 / (1000 - depth)
        assert seen(view, (-10.0, depth, -20.0)) == pytest.approx((10 * magnification / 2, 20 * magnification))
    _, w = view.to_pixels([[0, 0, 0], [0, 500, 0], [0, 1001, 0]])
    assert w[0] == pytest.approx(1)
    assert w[1] == pytest.approx(0.5)
    assert w[2] < 0  # behind the source


def test_the_isocentre_is_what_the_source_turns_about() -> None:
    point = (12.0, -30.0, 45.0)
    for angle in (0.0, 35.0, 90.0, 200.0):
        cone = View.cone("any", angle, sod_mm=900, sdd_mm=1100, isocentre_mm=point)
        assert seen(cone, point) == pytest.approx((0, 0), abs=1e-9)
        assert np.linalg.norm(cone.source_mm - np.array(point)) == pytest.approx(900)
        assert seen(View.parallel("any", angle, isocentre_mm=point), point) == pytest.approx((0, 0), abs=1e-9)


@given(angle=st.floats(-360, 360))
def test_a_cone_knows_its_angle(angle: float) -> None:
    found = View.cone("any", angle).angle_deg
    assert -180 <= found <= 180
    assert (found - angle + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)


@given(angle=st.floats(-44.9, 134.9))
def test_a_parallel_view_knows_its_angle_up_to_its_side(angle: float) -> None:
    assert View.parallel("any", angle).angle_deg == pytest.approx(angle, abs=1e-6)
    assert View.parallel("any", angle + 180).angle_deg == pytest.approx(angle, abs=1e-6)


@given(angle=st.floats(-360, 360))
def test_any_angle_shows_the_right_or_the_front_first(angle: float) -> None:
    view = View.parallel("any", angle)
    across = -np.array([seen(view, RIGHT)[0], seen(view, FRONT)[0]])
    assert across[np.argmax(np.abs(across) + (1e-6, 0))] > 0


def test_another_detector_looks_from_the_same_place() -> None:
    view = View.cone("ap", 10.0, isocentre_mm=(3, 4, 5))
    coarse = view.with_detector((100, 90), (5.0, 6.0))
    assert (coarse.shape, coarse.spacing_mm) == ((100, 90), (5.0, 6.0))
    np.testing.assert_allclose(coarse.source_mm, view.source_mm)
    fine_u, fine_v = seen(view, (50, 60, 70))
    assert seen(coarse, (50, 60, 70)) == pytest.approx((fine_u * 1.5 / 6.0, fine_v * 1.5 / 5.0))


def test_a_view_is_a_value() -> None:
    assert View.cone("ap") == View.cone("ap")
    assert hash(View.cone("ap")) == hash(View.cone("ap"))
    assert View.cone("ap") != View.cone("ap", 1.0)
    with pytest.raises(ValueError, match="read-only"):
        View.cone("ap").matrix[0, 0] = 1
    assert View.parallel("ap").kind == "parallel"
    assert View("far", View.cone("ap").matrix * 7, (3, 3), (1, 1)).kind == "cone"


def reference(angle_deg: float, tilt_deg: float, larger: float, per_mm: float, isocentre_mm: np.ndarray) -> np.ndarray:
    """Return the matrix of a view on 300 x 200 pixels of 1.5 x 0.8 mm, built from the unit vectors of its frame."""
    angle, tilt = np.radians([angle_deg, tilt_deg])
    to_source = np.array([np.cos(tilt) * np.sin(angle), np.cos(tilt) * np.cos(angle), np.sin(tilt)])
    along_v = np.array([np.sin(tilt) * np.sin(angle), np.sin(tilt) * np.cos(angle), -np.cos(tilt)])
    along_u = np.array([-np.cos(angle), np.sin(angle), 0.0])
    sagittal = abs(np.sin(angle)) > abs(np.cos(angle)) + 1e-9
    along_u *= -1 if along_u[1 if sagittal else 0] > 0 else 1
    rows = np.stack([larger * along_u / 0.8, larger * along_v / 1.5, -to_source * per_mm])
    middle = np.array([[1.0, 0.0, 199 / 2], [0.0, 1.0, 299 / 2], [0.0, 0.0, 1.0]])
    return middle @ np.column_stack([rows, np.array([0.0, 0.0, 1.0]) - rows @ isocentre_mm])


@given(angle=st.floats(-360, 360), tilt=st.floats(-80, 80), centre=st.tuples(*[st.floats(-200, 200)] * 3))
def test_matrices_are_those_of_the_views_frame(angle: float, tilt: float, centre: tuple[float, float, float]) -> None:
    detector: dict[str, Any] = {"shape": (300, 200), "spacing_mm": (1.5, 0.8), "tilt_deg": tilt, "isocentre_mm": centre}
    assume(abs(abs(np.sin(np.radians(angle))) - abs(np.cos(np.radians(angle)))) > 1e-6)  # either side is right there
    parallel, cone = View.parallel("x", angle, **detector), View.cone("x", angle, sod_mm=1e3, sdd_mm=1400, **detector)
    point = np.array(centre)
    np.testing.assert_allclose(parallel.matrix, reference(angle, tilt, 1, 0, point), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(cone.matrix, reference(angle, tilt, 1.4, 1e-3, point), rtol=1e-12, atol=1e-10)


def test_right_angles_keep_rays_on_their_axis() -> None:
    for name, axis in (("ap", 1), ("pa", 1), ("lateral", 0)):
        assert np.count_nonzero(View.parallel(name).matrix[:, axis]) == 0


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: View("x", np.eye(3), (3, 3), (1, 1)), "matrix"),
        (lambda: View("x", np.full((3, 4), np.nan), (3, 3), (1, 1)), "matrix"),
        (lambda: View("x", np.zeros((3, 4)), (3, 3), (1, 1)), "matrix"),
        (lambda: View("x", np.diag([1.0, 1, 0, 0])[:3], (3, 3), (1, 1)), "w = 0"),
        (lambda: View("x", View.cone("ap").matrix, (0, 3), (1, 1)), "shape"),
        (lambda: View("x", View.cone("ap").matrix, (3, 3), (1, -1)), "spacing_mm"),
        (lambda: View.parallel("sideways"), "angle"),
        (lambda: View.parallel("x", float("nan")), "angle"),
        (lambda: View.parallel("ap", tilt_deg=80.5), "tilt"),
        (lambda: View.cone("ap", sod_mm=0), "sod_mm"),
        (lambda: View.cone("ap", sod_mm=1000, sdd_mm=900), "sdd_mm"),
        (lambda: Geometry(()), "views"),
        (lambda: Geometry.parallel(("ap", "ap")), "views"),
        (lambda: Geometry.parallel().view("pa"), "ap or lateral"),
    ],
)
def test_what_cannot_be_a_view_is_refused(make, names: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=names):
        make()


# ------------------------------------------------------------------------------------------------ files


def test_a_geometry_file_comes_back_as_it_was(tmp_path: Path) -> None:
    geometry = Geometry.cone(("pa", "lateral", 33.3), isocentre_mm=(1 / 3, 0.1, -7))
    geometry.save(tmp_path / "geometry.json")
    assert Geometry.load(tmp_path / "geometry.json") == geometry
    assert [path.name for path in tmp_path.iterdir()] == ["geometry.json"]  # nothing left beside it


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: View.parallel("ap"), {"beam": "parallel"}),
        (lambda: View.parallel("pa"), {"beam": "parallel"}),
        (lambda: View.parallel("angle-75", -75.0), {"beam": "parallel", "angle_deg": -75.0}),
        (lambda: View.cone("lateral"), {"beam": "cone", "sod_mm": 1500.0, "sdd_mm": 1800.0}),
        (
            lambda: View.cone("lateral", 85.5, tilt_deg=-10, sod_mm=1010.25, sdd_mm=1500, isocentre_mm=(5, 0, -20.5)),
            {"angle_deg": 85.5, "tilt_deg": -10.0, "sod_mm": 1010.25, "sdd_mm": 1500.0, "isocentre_mm": [5, 0, -20.5]},
        ),
        (lambda: View("ap", View.cone("ap").matrix * 3.0, (352, 352), (1.5, 1.5)), {}),
        (lambda: View.cone("ap", sod_mm=1000 / 3), {}),
    ],
)
def test_a_saved_view_is_readable_where_words_give_its_very_matrix(
    make: Callable[[], View], words: dict[str, object], tmp_path: Path
) -> None:
    view = make()
    Geometry((view,)).save(tmp_path / "geometry.json")
    (saved,) = json.loads((tmp_path / "geometry.json").read_text())["views"]
    assert ("matrix" in saved) == (not words)
    assert {key: saved[key] for key in words} == words
    assert Geometry.load(tmp_path / "geometry.json").views == (view,)


def test_a_geometry_file_says_where_the_ct_lies(tmp_path: Path) -> None:
    geometry = Geometry(Geometry.parallel().views, (1 / 3, -20.0, 1e3))
    geometry.save(tmp_path / "geometry.json")
    found = Geometry.load(tmp_path / "geometry.json")
    assert found == geometry
    np.testing.assert_array_equal(found.to_world @ [1, 2, 3, 1], [4 / 3, -18, 1003, 1])
    assert np.array_equal(Geometry.parallel().to_world, np.eye(4))


def test_a_file_may_describe_a_view_in_words(tmp_path: Path) -> None:
    common = {"shape": [300, 200], "spacing_mm": [1.5, 1.0]}
    cone = {"beam": "cone", "sod_mm": 1500, "sdd_mm": 1800, "isocentre_mm": [1, 2, 3]}
    tilted = {"name": "tilted", **common, "beam": "parallel", "angle_deg": 30, "tilt_deg": -12.5}
    views = [{"name": "pa", **common, **cone}, tilted]
    path = tmp_path / "hand.json"
    path.write_text(json.dumps({"schema": 1, "views": views}))
    detector = {"shape": (300, 200), "spacing_mm": (1.5, 1.0)}
    expected = (
        View.cone("pa", 180, sod_mm=1500, sdd_mm=1800, isocentre_mm=(1, 2, 3), **detector),  # type: ignore[arg-type]
        View.parallel("tilted", 30, tilt_deg=-12.5, **detector),  # type: ignore[arg-type]
    )
    assert Geometry.load(path).views == expected


GOOD = {"name": "ap", "shape": [3, 4], "spacing_mm": [1.0, 1.0], "matrix": [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "../ap"}, r"views\[0\]\.name"),
        ({"name": None}, r"views\[0\]\.name"),
        ({"shape": [3, 4.5]}, r"views\[0\]\.shape"),
        ({"shape": [3, 10**9]}, r"views\[0\]\.shape"),
        ({"spacing_mm": [1.0]}, r"views\[0\]\.spacing_mm"),
        ({"spacing_mm": [0, 1]}, r"views\[0\]\.spacing_mm"),
        ({"matrix": [[1, 0, 0], [0, 0, 1], [0, 0, 0]]}, r"views\[0\]\.matrix"),
        ({"matrix": [["1", 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, r"views\[0\]\.matrix"),
        ({"matrix": [[True, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, r"views\[0\]\.matrix"),
        ({"matrix": [[1, 0, 0, 0], [1, 0, 0, 9], [0, 0, 0, 1]]}, r"views\[0\].*matrix"),
        ({"matrix": [[1e300, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, r"views\[0\]\.matrix"),
        ({"beam": "cone"}, r"views\[0\]\.beam"),
        ({"angel_deg": 3}, r"views\[0\]\.angel_deg"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(change: dict[str, object], field: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({"schema": 1, "views": [GOOD]}))
    Geometry.load(path)
    path.write_text(json.dumps({"schema": 1, "views": [GOOD | change]}))
    with pytest.raises(InputError, match=rf"wrong\.json: {field}") as refused:
        Geometry.load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "JSON"),
        ("[]", "an object"),
        ('{"schema": 2, "views": []}', "schema"),
        ('{"schema": 1}', "views"),
        ('{"schema": 1, "views": []}', "views"),
        ('{"schema": 1, "views": [{"name": "x", "shape": [3, 3], "spacing_mm": [1, 1], "beam": "fan"}]}', "beam"),
        (
            '{"schema": 1, "views": [{"name": "x", "shape": [3, 3], "spacing_mm": [1, 1], "beam": "parallel"}]}',
            "angle_deg",
        ),
        ('{"schema": 1, "views": [{"name": "ap", "shape": [3, 3], "spacing_mm": [1, 1], "beam": "cone"}]}', "sod_mm"),
        (json.dumps({"schema": 1, "views": [GOOD, GOOD]}), "views"),
        (json.dumps({"schema": 1, "origin_world_mm": [0, 0], "views": [GOOD]}), "origin_world_mm"),
        (json.dumps({"schema": 1, "origin_world_mm": [0, 0, 1e7], "views": [GOOD]}), "origin_world_mm"),
    ],
)
def test_a_wrong_file_is_refused(text: str, names: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"wrong\.json.*{names}"):
        Geometry.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="file"):
            Geometry.load(path)


# ------------------------------------------------------------------------------------------------ values, X-ray files


def test_attenuation_of_air_water_and_below() -> None:
    mu = attenuation(np.array([-1024, -1000, 0, 1000], np.int16))
    assert mu.dtype == np.float32
    np.testing.assert_allclose(mu, [0, 0, 0.02, 0.04], rtol=1e-6)
    np.testing.assert_allclose(attenuation(0, mu_water=0.03), 0.03, rtol=1e-6)


def test_the_origin_is_the_middle_of_a_grid() -> None:
    affine = centred_affine((3, 4, 5), (2.0, 3.0, 4.0))
    np.testing.assert_allclose(affine @ [1, 1.5, 2, 1], [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(affine[:3, :3], np.diag([2, 3, 4]))


@pytest.mark.parametrize("kind", ["parallel", "cone"])
def test_a_ct_becomes_x_ray_files(kind: str, tmp_path: Path) -> None:
    import PIL.Image

    steps: list[tuple[int, int]] = []
    folder = tmp_path / "new" / "xray"
    done = drr_files(CHEST, folder, kind, threads=2, progress=lambda done, of: steps.append((done, of)))
    files = done.files
    assert [path.name for path in files] == ["ap.npy", "ap.png", "lateral.npy", "lateral.png", "geometry.json"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in files)
    assert steps == [(1, 2), (2, 2)]
    geometry = Geometry.load(files[-1])
    assert geometry == done.geometry
    assert [(view.name, view.kind) for view in geometry.views] == [("ap", kind), ("lateral", kind)]
    assert done.notes == ()
    for view in geometry.views:
        image = np.load(folder / f"{view.name}.npy")
        assert (image.shape, image.dtype) == (view.shape, np.float32)
        assert 3 < np.percentile(image, 99) < 9  # 20 to 40 cm of trunk
        picture = np.asarray(PIL.Image.open(folder / f"{view.name}.png"))
        assert (picture.shape, picture.dtype) == (view.shape, np.uint16)
        assert picture.max() == 65535
        assert np.corrcoef(picture.ravel(), image.ravel())[0, 1] > 0.99  # dense is bright
        assert XRay.load(folder / f"{view.name}.png").spacing_mm == pytest.approx(view.spacing_mm, rel=1e-3)


def test_what_the_detector_cuts_off_is_noted(tmp_path: Path) -> None:
    small = Geometry.cone(("ap",), sod_mm=1500, sdd_mm=1800, shape=(100, 300), spacing_mm=(1.8, 1.8))
    small.save(tmp_path / "small.json")
    (note,) = drr_files(CHEST, tmp_path / "x", tmp_path / "small.json", threads=1).notes
    assert note.startswith("ap: the detector, which shows 450 x 150 mm, cuts the CT off at its upper and lower edge")


def test_x_rays_of_other_views_are_not_left_beside_a_geometry_that_lacks_them(tmp_path: Path) -> None:
    drr_files(CHEST, tmp_path, "parallel", ["pa", 45], threads=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"other views \(angle45\), expected a new folder, or the same views"):
        drr_files(CHEST, tmp_path, "parallel", ["pa"], threads=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    drr_files(CHEST, tmp_path, "cone", ["pa", 45], threads=1)


def test_a_word_a_file_or_angles_say_the_geometry(tmp_path: Path) -> None:
    assert [view.name for view in geometry_of("cone").views] == ["ap", "lateral"]
    assert [view.name for view in geometry_of("parallel", ["pa", "30"]).views] == ["pa", "angle30"]
    Geometry.cone(("ap", "pa", "lateral")).save(tmp_path / "three.json")
    assert [view.name for view in geometry_of(tmp_path / "three.json", ["pa"]).views] == ["pa"]
    with pytest.raises(InputError, match="parallel, cone, or a geometry file"):
        geometry_of("fan")


def test_nothing_is_written_when_x_rays_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    beside = Geometry.parallel(isocentre_mm=(5000, 5000, 5000))
    beside.save(tmp_path / "beside.json")
    for ct, folder, geometry in (
        (CHEST, tmp_path / "file", "cone"),
        (CHEST, tmp_path / "xray", tmp_path / "beside.json"),
        (tmp_path / "none.nii.gz", tmp_path / "xray", "cone"),
    ):
        with pytest.raises(InputError):
            drr_files(ct, folder, geometry)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside.json", "file"]
    assert check_folder(tmp_path / "new", Geometry.parallel()) == tmp_path / "new"


def test_a_picture_is_linear_and_metal_does_not_darken_it() -> None:
    image = np.linspace(0, 5, 10_000, dtype=np.float32).reshape(100, 100)
    image[0, :5] = 100.0
    picture = display(image).astype(np.float64)
    assert picture[0, 0] == 65535
    np.testing.assert_allclose(picture[50] / 65535, image[50] / 5, atol=0.002)
    assert display(np.zeros((3, 3), np.float32)).max() == 0
