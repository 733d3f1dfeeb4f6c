"""An X-ray lands on a view's detector where it belongs, by one chain of stages from its values to line integrals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.radiographs import P99, VIEW, some_picture
from x2ct import _core
from x2ct.errors import InputError
from x2ct.geometry import View
from x2ct.io.xray import exposure
from x2ct.io.xray.exposure import ASSUMED_SIDE_MM
from x2ct.io.xray.radiograph import XRay, resample

# ---------------------------------------------------------------------------------------------- onto the detector


def disc(rows: int, columns: int, spacing: tuple[float, float], centre_mm: tuple[float, float]) -> np.ndarray:
    """A Gaussian of 25 mm around a point given in mm from the picture's centre, (row, column)."""
    r = (np.arange(rows) - (rows - 1) / 2) * spacing[0] - centre_mm[0]
    c = (np.arange(columns) - (columns - 1) / 2) * spacing[1] - centre_mm[1]
    return (5 * np.exp(-(r[:, None] ** 2 + c**2) / (2 * 25**2))).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 4.0), st.floats(0.2, 4.0), st.tuples(st.floats(-50, 50), st.floats(-50, 50)), st.integers(0, 1))
def test_millimetres_stay_where_they_are(
    row_mm: float, column_mm: float, centre: tuple[float, float], odd: int
) -> None:
    shape = (round(380 / row_mm) + odd, round(360 / column_mm))
    xray = XRay.of(disc(*shape, (row_mm, column_mm), centre), (row_mm, column_mm))
    image, _ = xray.to_detector(VIEW, P99)
    expected = disc(*VIEW.shape, (1.25, 1.25), centre)
    assert np.abs(image - expected).max() < 0.05  # of 5
    row, column = np.unravel_index(int(image.argmax()), image.shape)
    assert abs((row - 175.5) * 1.25 - centre[0]) <= max(1.3, row_mm)
    assert abs((column - 175.5) * 1.25 - centre[1]) <= max(1.3, column_mm)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 90), st.integers(8, 90), st.floats(0.3, 3.0))
def test_resampling_keeps_constants_and_ramps(size: int, target: int, spacing: float) -> None:
    ramp = np.add.outer(np.arange(size), 2.0 * np.arange(size)).astype(np.float32)
    moved = resample(ramp, (1.0, 1.0), (target, target), (spacing, spacing))
    at = (np.arange(target) - (target - 1) / 2) * spacing + (size - 1) / 2
    reach = max(1.0, spacing)
    inner = (at >= reach) & (at <= size - 1 - reach)
    expected = np.add.outer(at, 2.0 * at)[np.ix_(inner, inner)]
    # A triangle that is not a whole number of pixels wide is not quite centred: a twentieth of a pixel at most.
    np.testing.assert_allclose(moved[np.ix_(inner, inner)], expected, atol=0.35 if spacing > 1 else 1e-3)
    ones = resample(np.ones((size, size), np.float32), (1.0, 1.0), (target, target), (spacing, spacing))
    assert np.allclose(ones[np.ix_(inner, inner)], 1, atol=1e-5)
    assert (ones[np.abs(at - (size - 1) / 2) > (size - 1) / 2 + reach] == 0).all()


def test_coarsening_is_antialiased() -> None:
    stripes = np.zeros((1408, 1408), np.float32)
    stripes[:, ::2] = 2.0
    image = resample(stripes, (0.3125, 0.3125), VIEW.shape, VIEW.spacing_mm)
    np.testing.assert_allclose(image[5:-5, 5:-5], 1.0, atol=1e-5)
    noise = np.random.default_rng(0).normal(size=(1408, 1408)).astype(np.float32)
    assert resample(noise, (0.3125, 0.3125), VIEW.shape, VIEW.spacing_mm).std() < 0.2  # 1/6 for a triangle of 4 pixels


def test_an_array_of_the_detectors_shape_is_the_detector() -> None:
    line = np.random.default_rng(0).uniform(0, 7, VIEW.shape).astype(np.float32)
    xray = XRay.of(line)
    image, notes = xray.to_detector(VIEW, P99)
    assert np.array_equal(image, line) and not np.shares_memory(image, xray.image)
    filtered = _core.resample(line, VIEW.spacing_mm, VIEW.shape, VIEW.spacing_mm)  # which `resample` need not call
    assert np.array_equal(filtered, image)
    assert any("pixel for pixel" in note for note in notes)


def test_an_array_of_the_detectors_aspect_fills_it() -> None:
    image, notes = XRay.of(np.full((176, 176), 3.0, np.float32) + np.eye(176, dtype=np.float32)).to_detector(VIEW, P99)
    assert (image[3:-3, 3:-3] >= 2.99).all()
    assert any("fill the detector" in note for note in notes)


def test_an_array_of_another_aspect_keeps_it() -> None:
    line = np.full((176, 88), 3.0, np.float32) + np.eye(176, 88, dtype=np.float32)
    image, notes = XRay.of(line).to_detector(VIEW, P99)
    assert (image[3:-3, 92:-92] >= 2.99).all()
    assert (image[:, :85] == 0).all()
    assert any("another aspect" in note for note in notes)


def test_a_radiograph_without_spacing_is_430_mm_long() -> None:
    image, notes = XRay.of(some_picture(400, 200) + np.uint16(2000)).to_detector(VIEW, P99)
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    assert rows.size * 1.25 == pytest.approx(ASSUMED_SIDE_MM, abs=4)
    assert columns.size * 1.25 == pytest.approx(ASSUMED_SIDE_MM / 2, abs=4)
    assert any("430 mm" in note for note in notes)


def test_a_picture_larger_than_the_detector_is_cut_and_says_so() -> None:
    _, notes = XRay.of(np.random.default_rng(0).uniform(0, 5, (500, 352)), 1.25).to_detector(VIEW, P99)
    assert any("the outer 185 mm were cut" in note for note in notes)


def test_a_users_geometry_is_taken_at_its_word() -> None:
    line = np.random.default_rng(0).uniform(0, 7, (60, 50)).astype(np.float32)
    view = View.parallel("ap", shape=(60, 50), spacing_mm=(4.0, 5.0))
    image, notes = XRay.of(line).to_detector(view, P99, exact=True)
    assert np.array_equal(image, line)
    assert notes == ()
    with pytest.raises(InputError, match="size: found 50 x 60 pixels, expected 352 x 352"):
        XRay.of(line).to_detector(VIEW, P99, exact=True)
    with pytest.raises(InputError, match="pixel spacing"):
        XRay.of(line, 1.0).to_detector(view, P99, exact=True)


# ---------------------------------------------------------------------------------------------- the chain


def body() -> np.ndarray:
    """A smooth trunk with air around it, line integrals up to 6."""
    r, c = np.mgrid[-1:1:300j, -1:1:260j]
    return (
        6 * np.clip(1.2 - (c / 0.8) ** 2 - 0.1 * r**2 - 0.4 * np.exp(-((abs(c) - 0.35) ** 2 + r**2) / 0.05), 0, 1)
    ).astype(np.float32)


def line_integrals(density: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    done = exposure.run(exposure.intensity_stages(P99), XRay(density.astype(np.float32), calibrated=False))
    return done.image, done.notes


def test_offset_and_gain_of_display_values_do_not_matter() -> None:
    plain, _ = line_integrals(body())
    moved, _ = line_integrals(1000 + 173 * body())
    np.testing.assert_allclose(moved, plain, atol=2e-3)
    assert np.percentile(plain, 99) == pytest.approx(P99, rel=0.01)
    assert plain[:, 0].max() == 0


def test_calibrated_values_are_not_scaled() -> None:
    view = View.parallel("ap", shape=(300, 260), spacing_mm=(1.0, 1.0))
    image, _ = XRay.of(body()).to_detector(view, 99.0)
    assert np.array_equal(image, body())


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize("depth", [0.04, 0.2])
def test_a_shutter_is_found_and_becomes_air(side: str, depth: float) -> None:
    picture = body()
    turned = {"top": picture, "bottom": picture[::-1], "left": picture.T, "right": picture.T[::-1]}[side]
    lines = round(depth * len(turned))
    turned[:lines] = 8.0
    rows, columns = exposure.exposed_field(picture)
    field = {"top": rows.start, "bottom": 300 - rows.stop, "left": columns.start, "right": 260 - columns.stop}
    assert lines - 1 <= field.pop(side) <= lines + 12
    assert set(field.values()) == {0}
    image, notes = line_integrals(picture)
    assert {"top": image, "bottom": image[::-1], "left": image.T, "right": image.T[::-1]}[side][:lines].max() == 0
    assert "Shutters" in notes[0]


def test_a_body_without_shutters_keeps_all_of_its_field() -> None:
    for picture in (body(), body()[:, 60:-60], body()[100:, 30:], body().T.copy()):
        rows, columns = exposure.exposed_field(picture)
        assert (rows.stop - rows.start, columns.stop - columns.start) == picture.shape
