"""The residual is 0 for the CT that made the X-rays, shows what is missing where and as much as it is, and no noise."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

import x2ct
from tests import tiny_bundle
from tests.tiny_body import images
from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.cli import app
from x2ct.engine.conditioning import study_of
from x2ct.engine.residual import Rays, Reprojection, Residual, unexplained, warnings
from x2ct.geometry import MU_WATER_PER_MM, Geometry, attenuation, project
from x2ct.io.xray.degradation import poisson_noise
from x2ct.render import preview

FloatArray = npt.NDArray[np.float32]
CENTRE_MM = np.array([65.0, -15.0, 30.0])  # in the right lung


@pytest.fixture(scope="module")
def chest() -> Bundle:
    return Bundle.load("chest")


def body(bundle: Bundle, ball_mm: float = 0.0, rise_hu: float = 850.0) -> FloatArray:
    """HU: a trunk of water with two lungs, all of it within the grid; and a ball in the right lung, its edge soft."""
    x, y, z = bundle.grid.coordinates() * np.float32(100)
    hu = np.full(bundle.grid.shape, -1000.0, np.float32)
    hu[((x / 145) ** 2 + (y / 100) ** 2 < 1) & (abs(z) < 140)] = 0.0
    for side in (-65, 65):
        hu[((x - side) / 50) ** 2 + (y / 70) ** 2 + (z / 110) ** 2 < 1] = -850.0
    distance = np.sqrt(sum((axis - at) ** 2 for axis, at in zip((x, y, z), CENTRE_MM, strict=True)))
    return hu + rise_hu * np.clip((ball_mm / 2 - distance) / 2.5 + 0.5, 0, 1).astype(np.float32)


def xrays_of(hu: FloatArray, bundle: Bundle, geometry: Geometry) -> dict[str, FloatArray]:
    mu = attenuation(hu)
    return {view.name: project(mu, bundle.grid.index_to_mm, view, threads=1) for view in geometry.views}


def compared(
    hu: FloatArray, pictures: dict[str, npt.NDArray[np.generic]], bundle: Bundle, geometry: Geometry | None = None
) -> tuple[Residual, ...]:
    """The residuals of a CT without data consistency."""
    pitch = bundle.xray.spacing_mm if geometry is None else None
    xrays = {name: x2ct.XRay.of(picture, pitch) for name, picture in pictures.items()}
    views = study_of(bundle, xrays, geometry).measured
    before, after = Reprojection(Rays(views, bundle, bundle.grid, 1)).finish(attenuation(hu))
    assert after is None
    return before


@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_the_ct_that_made_the_xrays_leaves_nothing(chest: Bundle, beam: str) -> None:
    cone = Geometry.cone(("ap", "lateral"), shape=chest.xray.shape) if beam == "cone" else None
    hu = body(chest)
    for residual in compared(hu, xrays_of(hu, chest, cone or chest.geometry), chest, cone):
        figures = residual.figures()
        assert figures is not None and residual.rays > 0.9
        assert figures["rms"] < (2e-5 if beam == "parallel" else 2e-2)  # a cone's picture is resampled on its way
        assert figures["unexplained"] == []


@pytest.mark.parametrize("ball_mm", [20, 30, 50])
def test_a_missing_ball_is_found_at_its_place_with_its_excess(chest: Bundle, ball_mm: float) -> None:
    expected = ball_mm * 0.85
    for residual in compared(body(chest), xrays_of(body(chest, ball_mm), chest, chest.geometry), chest):
        (area,) = residual.areas
        assert area.excess_mm == pytest.approx(expected, rel=0.11)
        assert area.area_mm2 == pytest.approx(
            0.75 * math.pi / 4 * ball_mm**2, rel=0.22
        )  # some of a small one is its surroundings
        assert area.down_mm == pytest.approx(-CENTRE_MM[2], abs=1)
        # an AP's column 0 is the patient's right, a lateral's the patient's front
        assert area.across_mm == pytest.approx(-CENTRE_MM[0 if residual.view == "ap" else 1], abs=1)


def test_a_ct_that_is_too_dense_does_not_hide_what_is_missing(chest: Bundle) -> None:
    hu = np.where(body(chest) > -1000, body(chest) + 100, -1000).astype(np.float32)
    frontal = compared(hu, xrays_of(body(chest, 40), chest, chest.geometry), chest)[0]
    figures = frontal.figures()
    assert figures is not None and figures["mean_mm_water"] < -10
    assert frontal.areas[0].excess_mm == pytest.approx(34, rel=0.15)
    assert frontal.areas[0].down_mm == pytest.approx(-CENTRE_MM[2], abs=2)


def test_what_is_missing_beyond_what_validation_patients_show_is_a_warning(chest: Bundle) -> None:
    lacks = compared(body(chest), xrays_of(body(chest, 70), chest, chest.geometry), chest)
    frontal, lateral = warnings(lacks)
    assert frontal.startswith("ap: ") and lateral.startswith("lateral: ")
    assert re.search(r"(29|30|31) mm above and 6[456] mm left of .*: (5[0-9]|6[0-9]) mm of water", frontal), frontal
    assert warnings(compared(body(chest), xrays_of(body(chest, 50), chest, chest.geometry), chest)) == []


def test_a_ball_that_only_the_ct_has_is_no_area(chest: Bundle) -> None:
    for residual in compared(body(chest, 40), xrays_of(body(chest), chest, chest.geometry), chest):
        figures = residual.figures()
        assert figures is not None and figures["mean"] < 0 and figures["unexplained"] == []


def test_noise_alone_gives_no_area(chest: Bundle) -> None:
    random = np.random.default_rng(0)
    noisy = {
        name: poisson_noise(image, 1e4, random) for name, image in xrays_of(body(chest), chest, chest.geometry).items()
    }
    for residual in compared(body(chest), noisy, chest):
        figures = residual.figures()
        assert figures is not None and figures["rms_mm_water"] > 1
        assert figures["unexplained"] == []


def test_a_spike_is_no_area() -> None:
    spike = np.zeros((100, 100))
    spike[40, 60] = 500.0  # mm of water in one pixel: a letter's edge
    assert unexplained(spike, (1.25, 1.25)) == ()


def blobs(*places: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Gaussians of 6 mm on 200 x 300 pixels of 1.25 mm: height in mm of water, and where, in mm down and across."""
    down, across = np.indices((200, 300)) * 1.25
    return sum(  # type: ignore[return-value]
        (high * np.exp(-((down - v) ** 2 + (across - u) ** 2) / (2 * 6**2)) for high, v, u in places),
        np.zeros((200, 300)),
    )


def test_areas_come_by_excess_and_not_from_where_nothing_is_known() -> None:
    excess = blobs((20, 50, 60), (30, 150, 200), (40, 60, 300))
    excess[:, 208:] = np.nan  # from 260 mm on
    areas = unexplained(excess, (1.25, 1.25))
    assert [round(area.excess_mm / 10) for area in areas] == [3, 2]
    assert (areas[0].across_mm, areas[0].down_mm) == pytest.approx((200 - 299 * 0.625, 150 - 199 * 0.625), abs=0.5)


def test_an_outline_that_is_off_is_no_area() -> None:
    excess = np.zeros((200, 300))
    excess[60:140, 80:84] = 50.0  # 5 mm of the body that the CT lacks, at its edge
    excess[:, :80] = np.nan
    assert unexplained(excess, (1.25, 1.25)) == ()


def test_an_uncalibrated_xray_is_fitted_or_not_judged(chest: Bundle) -> None:
    pictures = xrays_of(body(chest), chest, chest.geometry)
    display = {name: np.asarray(image / image.max() * 40000, np.uint16) for name, image in pictures.items()}
    for residual in compared(body(chest), display, chest):
        figures = residual.figures()
        assert figures is not None and figures["fit"]["scale"] > 0
        assert figures["rms_mm_water"] < 10
    inside_out = -1000 - body(chest)  # no scale takes one to the other
    for residual in compared(np.asarray(inside_out, np.float32), display, chest):
        assert residual.figures() is None and residual.areas == ()


@pytest.fixture(scope="module")
def sampler(tiny: Bundle) -> x2ct.Sampler:
    return x2ct.Sampler(tiny, precision="f32", threads=1)


@pytest.fixture(scope="module")
def tiny_xrays() -> dict[str, x2ct.XRay]:
    return {name: x2ct.XRay.of(image, tiny_bundle.DETECTOR_MM) for name, image in images().items()}


@pytest.mark.parametrize("samples", [1, 2])
def test_a_run_reports_it_before_and_after_data_consistency(
    sampler: x2ct.Sampler, tiny_xrays: dict[str, x2ct.XRay], samples: int
) -> None:
    off = sampler.run(**tiny_xrays, steps=3, samples=samples)
    last = sampler.run(**tiny_xrays, steps=3, samples=samples, consistency="last", gamma=100)
    every = sampler.run(**tiny_xrays, steps=3, consistency="every", gamma=100)
    mean = sampler.run(**tiny_xrays, mean=True)
    for plain, one, pulled, first in zip(*(run.report["residual"] for run in (off, last, every, mean)), strict=True):
        assert plain["rays"] > 0.9 and "after" not in plain
        # "last" is a whole sample before its step, "every" what the first evaluation makes of pure noise
        assert one["before"]["rms"] == pytest.approx(plain["before"]["rms"], rel=1e-4)
        assert pulled["before"]["rms"] == pytest.approx(first["before"]["rms"], rel=1e-4)
        assert one["after"]["rms"] < 0.5 * one["before"]["rms"]
    for residual, image in zip(off.residuals, images().values(), strict=True):
        view = sampler.bundle.geometry.view(residual.view)
        again = image - project(attenuation(off.volume.hu), sampler.grid.index_to_mm, view, threads=1)
        judged = np.isfinite(residual.difference)
        np.testing.assert_allclose(residual.difference[judged], again[judged], atol=1e-4)
    assert off.report["timings"]["residual_s"] > 0


def test_a_ct_alone_is_not_projected(
    sampler: x2ct.Sampler, tiny_xrays: dict[str, x2ct.XRay], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's work that grows with the volume, which a GPU would wait for, is done where its result is wanted."""

    def refuse(*_: object) -> None:
        raise AssertionError("projected")

    wanted = sampler.run(**tiny_xrays, steps=2)
    for name in ("project", "rays_within"):
        monkeypatch.setattr(_core, name, refuse)
    assert sampler.sample(**tiny_xrays, steps=2).hu.tobytes() == wanted.volume.hu.tobytes()
    plain = sampler.run(**tiny_xrays, steps=2, residual=False)
    assert plain.report["residual"] == [] and plain.residuals == ()
    with pytest.raises(AssertionError, match="projected"):
        sampler.sample(**tiny_xrays, steps=2, strict=True, force=True)


def test_one_view_alone_can_not_be_judged(sampler: x2ct.Sampler, tiny_xrays: dict[str, x2ct.XRay]) -> None:
    (entry,) = sampler.run(ap=tiny_xrays["ap"], steps=2).report["residual"]
    assert entry["rays"] < 0.01 and entry["before"] is None


def test_the_preview_shows_what_is_missing_in_red(chest: Bundle) -> None:
    hu = body(chest)
    residuals = compared(hu, xrays_of(body(chest, 50, 1000), chest, chest.geometry), chest)
    volume = x2ct.Volume(hu, chest.grid.index_to_mm)
    without = preview.preview(volume)
    page = np.asarray(preview.preview(volume, residuals=residuals)).astype(int)
    maps = page[:, without.width :]
    red, blue = maps[..., 0] - maps[..., 2], maps[..., 2] - maps[..., 0]
    assert np.count_nonzero(red > 150) > 500
    assert np.count_nonzero(blue > 150) == 0


def test_the_map_circles_what_is_missing_where_it_is(chest: Bundle) -> None:
    """The circle around a missing ball is about the ball's shadow, as large as its area, beside the X-ray."""
    pictures = xrays_of(body(chest, 50, 1000), chest, chest.geometry)
    residuals = compared(body(chest), pictures, chest)
    xrays = {name: x2ct.XRay.of(image, chest.xray.spacing_mm) for name, image in pictures.items()}
    page = np.asarray(preview.unexplained(residuals, xrays, panel_px=256)).astype(int)
    red = (page[..., 0] - page[..., 2] > 150) & (page[..., 1] < 150)
    yellow = (page == (255, 214, 80)).all(-1)
    for row, residual in enumerate(residuals):
        (area,) = residual.areas
        band = slice(row * page.shape[0] // 2, (row + 1) * page.shape[0] // 2)
        half = page.shape[1] // 2
        shadow = np.argwhere(red[band, half:])
        circle = np.argwhere(yellow[band, half:])
        distances = np.linalg.norm(circle - shadow.mean(axis=0), axis=1)
        radius = math.sqrt(area.area_mm2 / math.pi) / chest.xray.spacing_mm[0] * 256 / residual.difference.shape[0] + 3
        near = distances[distances < 1.5 * radius]
        assert near.size > 4 * radius and np.median(near) == pytest.approx(radius, rel=0.15)
        assert not red[band, :half].any(), "the X-ray stands beside it"


def test_the_command_line_writes_report_and_picture(tiny: Bundle, tmp_path: Path) -> None:
    for name, image in images().items():
        np.save(tmp_path / f"{name}.npy", image)
    given = ["--ap", f"{tmp_path}/ap.npy", "--lateral", f"{tmp_path}/lateral.npy", "-m", str(tiny.path)]
    wanted = ["-o", f"{tmp_path}/ct.nii.gz", "--report", f"{tmp_path}/r.json", "--preview", f"{tmp_path}/p.png"]
    wanted += ["--unexplained", f"{tmp_path}/u.png"]
    done = CliRunner().invoke(app, ["sample", *given, *wanted, "--threads", "1"])
    assert done.exit_code == 0, done.output
    entries = json.loads((tmp_path / "r.json").read_text())["residual"]
    assert [entry["view"] for entry in entries] == ["ap", "lateral"]
    for entry in entries:
        assert entry["before"]["rms"] / MU_WATER_PER_MM == pytest.approx(entry["before"]["rms_mm_water"], abs=1e-2)
    assert (tmp_path / "u.png").read_bytes().startswith(b"\x89PNG")
