"""X-rays come onto the encoder's grid with their matrices: whatever the detector, a voxel finds its own ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import tiny_bundle
from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.engine.conditioning import DetectorImage, study_of
from x2ct.errors import InputError
from x2ct.geometry import Geometry, View
from x2ct.geometry.grid import Grid
from x2ct.io.xray.radiograph import XRay

POINTS_MM = np.array([[0.0, 0.0, 0.0], [60.0, -30.0, 90.0], [-85.0, 40.0, -70.0]])
SHAPE, SPACING_MM = tiny_bundle.DETECTOR, tiny_bundle.DETECTOR_MM


def picture_of(view: View, point_mm: np.ndarray, width_mm: float = 12.0) -> np.ndarray:
    """A Gaussian spot where the view sees a point."""
    (column, row), _ = view.to_pixels(point_mm)
    rows, columns = np.indices(view.shape)
    down, across = (rows - row) * view.spacing_mm[0], (columns - column) * view.spacing_mm[1]
    return np.exp(-(down**2 + across**2) / (2 * width_mm**2)).astype(np.float32)


def centroid(image: np.ndarray) -> np.ndarray:
    """(column, row) of the centre of mass."""
    rows, columns = np.indices(image.shape)
    return np.array([(image * columns).sum(), (image * rows).sum()]) / image.sum()


def on_encoder(image: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """An image of a view as the encoder gets it, and the matrix to its pixels."""
    given = DetectorImage("ap", 0, image, view.matrix, np.ones_like(image), True)
    views, _, matrices, _ = _core.conditions([view.matrix], SHAPE, SPACING_MM, [given])
    return views[0, 0, 0], matrices[0, 0]


VIEWS = {
    "finer": View.parallel("ap", shape=(400, 380), spacing_mm=(1.2, 1.1)),
    "coarser": View.parallel("ap", shape=(36, 40), spacing_mm=(12.0, 11.0)),
    "oblique": View.parallel("oblique", 33.0, shape=(90, 80), spacing_mm=(5.0, 6.0)),
    "cone": View.cone("lateral", sod_mm=900.0, sdd_mm=1300.0, shape=(200, 220), spacing_mm=(4.0, 3.5)),
    "off centre": View.cone("ap", shape=(120, 120), spacing_mm=(5.0, 5.0), isocentre_mm=(20.0, 5.0, -30.0)),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("point_mm", POINTS_MM)
def test_resampled_picture_and_matrix_agree_on_where_a_point_is(name: str, point_mm: np.ndarray) -> None:
    view = VIEWS[name]
    image, matrix = on_encoder(picture_of(view, point_mm), view)
    u_w, v_w, w = matrix @ [*point_mm, 1.0]
    assert image.shape == SHAPE
    np.testing.assert_allclose(centroid(image), [u_w / w, v_w / w], atol=0.03)


@pytest.mark.parametrize("name", VIEWS)
def test_resampled_pixel_measures_what_the_encoder_was_trained_on(name: str) -> None:
    _, matrix = on_encoder(np.zeros(VIEWS[name].shape, np.float32), VIEWS[name])
    matrix = matrix.astype(np.float64)
    origin, head = (matrix @ [0.0, 0.0, z, 1.0] for z in (0.0, -0.01))
    rows_per_mm = (head[1] / head[2] - origin[1] / origin[2]) / 0.01
    assert rows_per_mm == pytest.approx(1 / SPACING_MM[0], rel=1e-3)


def test_picture_on_the_encoders_own_grid_is_left_alone(tiny: Bundle) -> None:
    view = tiny.geometry.views[1]
    image = picture_of(view, POINTS_MM[1])
    same, matrix = on_encoder(image, view)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(matrix, view.matrix.astype(np.float32))


def test_missing_view_is_invalid_and_harmless(tiny: Bundle) -> None:
    xrays = {"lateral": XRay.of(picture_of(tiny.geometry.views[1], POINTS_MM[1]))}
    ready = study_of(tiny, xrays)
    assert ready.valid.tolist() == [[0.0, 1.0]]
    assert not ready.views[0, 0].any()
    assert ready.views[0, 1].any()
    points = np.concatenate([POINTS_MM, np.ones((3, 1))], 1)
    assert (points @ ready.matrices[0, 0].T)[:, 2].all()  # no division by zero in the lift
    assert any("one view only" in line for line in study_of(tiny, xrays).warnings)


def test_pa_equals_ap_with_parallel_rays(tiny: Bundle) -> None:
    xray = XRay.of(picture_of(tiny.geometry.views[0], POINTS_MM[2]))
    ap, pa = study_of(tiny, {"ap": xray}), study_of(tiny, {"pa": xray})
    np.testing.assert_array_equal(ap.views, pa.views)
    np.testing.assert_array_equal(ap.matrices, pa.matrices)


def test_pa_with_a_cone_is_seen_from_behind(tmp_path: Path) -> None:
    detector = {"shape": SPACED[0], "spacing_mm": SPACED[1]}
    usual = Geometry.cone(("ap", "lateral"), sod_mm=1000.0, sdd_mm=1200.0, **detector)
    tiny = tiny_bundle.write(tmp_path / "cone.x2ct", usual)
    behind = View.cone("pa", sod_mm=1000.0, sdd_mm=1200.0, **detector)
    xray = XRay.of(picture_of(behind, POINTS_MM[1]))
    ready = study_of(tiny, {"pa": xray})
    u_w, v_w, w = ready.matrices[0, 0] @ [*POINTS_MM[1], 1.0]
    np.testing.assert_allclose([u_w / w, v_w / w], behind.to_pixels(POINTS_MM[1])[0], atol=1e-3)


SPACED = (SHAPE, (SPACING_MM[0] * 1.2, SPACING_MM[1] * 1.2))


def test_coordinates_are_voxel_centres_about_the_origin() -> None:
    coords = Grid((4, 6, 8), (10.0, 5.0, 2.5)).coordinates()[None]
    assert coords.shape == (1, 3, 4, 6, 8)
    assert coords.dtype == np.float32
    np.testing.assert_allclose(coords[0, :, 0, 0, 0] * 100, [-15.0, -12.5, -8.75], rtol=1e-6)
    np.testing.assert_allclose(coords.mean(axis=(0, 2, 3, 4)), 0.0, atol=1e-7)


def test_geometry_views_are_found_by_name(tiny: Bundle) -> None:
    geometry = Geometry((View.parallel("pa", shape=(50, 50), spacing_mm=(9.0, 9.0)), VIEWS["cone"]))
    frontal = XRay.of(picture_of(geometry.view("pa"), POINTS_MM[1]))
    by_either_name = [study_of(tiny, {name: frontal}, geometry) for name in ("ap", "pa")]
    np.testing.assert_array_equal(by_either_name[0].matrices, by_either_name[1].matrices)


def test_geometry_that_contradicts_is_refused(tiny: Bundle) -> None:
    xray = XRay.of(np.random.default_rng(0).random((50, 40), np.float32))
    cone_ap = Geometry((View.cone("ap", shape=(50, 40)),))
    with pytest.raises(InputError, match="one named lateral"):
        study_of(tiny, {"lateral": xray}, cone_ap)
    with pytest.raises(InputError, match="one named pa"):
        study_of(tiny, {"pa": xray}, cone_ap)  # a cone's two sides differ
    with pytest.raises(InputError, match="size"):
        study_of(tiny, {"ap": xray}, Geometry((View.cone("ap", shape=(40, 50)),)))


def test_a_path_or_an_array_in_place_of_an_xray_says_how(tiny: Bundle) -> None:
    for thing in ("ap.png", np.zeros((4, 4))):
        with pytest.raises(InputError, match=r"XRay\.load reads a file"):
            study_of(tiny, {"ap": thing})  # type: ignore[dict-item]


def test_values_that_no_reader_has_checked_are_refused_by_the_core(tiny: Bundle) -> None:
    image = np.full(SHAPE, 2.0, np.float32)
    for value in (np.nan, np.inf, 200.0):
        image[3, 4] = value
        with pytest.raises(InputError, match="ap: values"):
            study_of(tiny, {"ap": XRay(image, calibrated=True)}, tiny.geometry)


def test_padding_is_not_measured(tiny: Bundle) -> None:
    """What the detector did not see is air to the networks, and no measurement to data consistency."""
    shown = np.random.default_rng(0).uniform(1, 6, (SHAPE[0] - 16, SHAPE[1] - 24)).astype(np.float32)
    small = XRay.of(shown, SPACING_MM)
    [(name, matrix, image, seen, calibrated)] = study_of(tiny, {"ap": small}).measured
    assert (name, calibrated) == ("ap", True)
    np.testing.assert_allclose(matrix, tiny.geometry.views[0].matrix)
    assert np.asarray(seen)[8:-8, 12:-12].all() and np.asarray(seen).sum() == 48 * 40
    np.testing.assert_array_equal(np.asarray(image) > 0, seen)


@pytest.mark.parametrize(("names", "said"), [((), "none"), (("ap", "pa"), "both ap and pa"), (("top",), "top")])
def test_views_that_make_no_study_are_refused(tiny: Bundle, names: tuple[str, ...], said: str) -> None:
    xray = XRay.of(np.random.default_rng(0).random((50, 40), np.float32))
    with pytest.raises(InputError, match=said):
        study_of(tiny, dict.fromkeys(names, xray))


def test_x_rays_on_the_encoders_picture_stay_as_they_are(tiny: Bundle) -> None:
    """The pipeline is handed what was judged: bringing it onto the picture once more changes no bit."""
    cone = Geometry.cone(("ap", "lateral"), sod_mm=900, sdd_mm=1100, shape=(70, 50), spacing_mm=(3.7, 3.7))
    rng = np.random.default_rng(0)
    xrays = {v.name: XRay.of(rng.random(v.shape, np.float32), v.spacing_mm) for v in cone.views}
    study = study_of(tiny, xrays, cone)
    own = [view.matrix for view in tiny.geometry.views]
    views, valid, matrices, measured = _core.conditions(own, tiny.xray.shape, tiny.xray.spacing_mm, study.images)
    for again, first in ((views, study.views), (valid, study.valid), (matrices, study.matrices)):
        np.testing.assert_array_equal(again, first)
    for (*_, seen, _), (*_, first, _) in zip(measured, study.measured, strict=True):
        np.testing.assert_array_equal(seen, first)
        assert not np.asarray(first).all()
