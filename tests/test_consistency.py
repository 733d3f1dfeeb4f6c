"""Consistency from the outside: a sample projects onto its X-rays, off is off, and what can't be known is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

import x2ct
from tests import tiny_bundle
from tests.tiny_body import GEOMETRY, GRID, images
from x2ct.bundle import Bundle
from x2ct.cli import app
from x2ct.errors import InputError
from x2ct.geometry import Geometry, attenuation, project
from x2ct.geometry.grid import Grid


def errors(volume: x2ct.Volume, geometry: Geometry = GEOMETRY) -> list[float]:
    mu = attenuation(volume.hu)
    return [
        float(np.sqrt(np.mean((project(mu, GRID.index_to_mm, view, threads=1) - image) ** 2)))
        for view, image in zip(geometry.views, images(geometry).values(), strict=True)
    ]


@pytest.fixture(scope="module")
def sampler(tiny: Bundle) -> x2ct.Sampler:
    return x2ct.Sampler(tiny, precision="f32", threads=1)


@pytest.fixture(scope="module")
def xrays() -> dict[str, x2ct.XRay]:
    return {name: x2ct.XRay.of(image, tiny_bundle.DETECTOR_MM) for name, image in images().items()}


@pytest.mark.parametrize("when", ["last", "every"])
def test_a_sample_projects_onto_its_xrays(sampler: x2ct.Sampler, xrays: dict[str, x2ct.XRay], when: str) -> None:
    off = sampler.run(**xrays, steps=4)
    pulled = sampler.run(**xrays, steps=4, consistency=when, gamma=100)
    for before, after in zip(errors(off.volume), errors(pulled.volume), strict=True):
        assert after < 0.3 * before
    told = pulled.report["consistency"]
    assert (told["when"], told["gamma"], told["method"]) == (when, 100, "conjugate gradients")
    for view in told["views"]:
        assert view["rays"] > 0.9
        assert view["rms_after"] < 0.3 * view["rms_before"]
        assert "fit" not in view
    assert 0 < pulled.report["timings"]["consistency_s"] < pulled.report["timings"]["loop_s"]


def test_a_cone_beam_is_pulled_too(sampler: x2ct.Sampler) -> None:
    cone = Geometry.cone(("ap", "lateral"), shape=tiny_bundle.DETECTOR, spacing_mm=(8.4, 8.4))
    given = {name: x2ct.XRay.of(image) for name, image in images(cone).items()}
    off, pulled = (sampler.run(**given, geometry=cone, steps=2, consistency=when) for when in ("off", "every"))
    for before, after in zip(errors(off.volume, cone), errors(pulled.volume, cone), strict=True):
        assert after < 0.5 * before


def test_off_and_no_strength_change_no_bit(sampler: x2ct.Sampler, xrays: dict[str, x2ct.XRay]) -> None:
    plain = sampler.run(**xrays, steps=3)
    for options in ({"consistency": "off"}, {"consistency": "every", "gamma": 0.0}):
        result = sampler.run(**xrays, steps=3, **options)
        np.testing.assert_array_equal(result.volume.hu, plain.volume.hu)
        assert result.report["consistency"] == {"when": "off"}
    twice = [sampler.sample(**xrays, steps=3, consistency="every").hu for _ in range(2)]
    np.testing.assert_array_equal(*twice)


def test_chosen_evaluations_are_those(sampler: x2ct.Sampler, xrays: dict[str, x2ct.XRay]) -> None:
    def run(when: str | list[int]) -> npt.NDArray[np.float32]:
        return sampler.run(**xrays, steps=4, consistency=when, gamma=100).volume.hu

    np.testing.assert_array_equal(run("4"), run("last"))
    np.testing.assert_array_equal(run([4, 2, 1, 3]), run("every"))
    assert not np.array_equal(run("2,4"), run("last"))
    assert not np.array_equal(run("2,4"), run("1,4"))
    told = sampler.run(**xrays, steps=4, consistency=[4, 2]).report["consistency"]
    assert (told["when"], told["evaluations"]) == ("4,2", [2, 4])
    with pytest.raises(InputError, match="found 5, expected 1 to 4"):
        run("2,5")


def test_one_view_can_not_tell_where_the_body_ends(sampler: x2ct.Sampler, xrays: dict[str, x2ct.XRay]) -> None:
    with pytest.raises(InputError, match="consistency: rays: found none known"):
        sampler.run(ap=xrays["ap"], consistency="last")


def test_an_uncalibrated_xray_is_fitted_and_the_fit_reported(sampler: x2ct.Sampler) -> None:
    display = {
        name: x2ct.XRay.of(np.asarray(image / image.max() * 40000, np.uint16), tiny_bundle.DETECTOR_MM)
        for name, image in images().items()
    }
    views = sampler.run(**display, steps=3, consistency="last", gamma=30).report["consistency"]["views"]
    for view in views:
        assert view["fit"]["scale"] > 0
        assert view["rms_after"] < 0.7 * view["rms_before"]


def test_the_bundled_geometry_has_the_closed_form() -> None:
    chest, grid = Bundle.load("chest"), Grid((64, 64, 64))
    inside = np.zeros(grid.shape, np.float32)
    inside[20:44, 24:40, 16:50] = 0.02
    views = chest.geometry.views
    ball = {view.name: x2ct.XRay.of(project(inside, grid.index_to_mm, view, threads=1)) for view in views}
    sampler = x2ct.Sampler(chest, precision="f32", threads=1, grid=grid)
    told = sampler.run(**ball, geometry=chest.geometry, mean=True, consistency="last", gamma=100, force=True).report[
        "consistency"
    ]
    assert told["method"] == "closed form"
    assert all(view["rays"] == 1 and view["rms_after"] < 0.5 * view["rms_before"] for view in told["views"])


def test_the_command_line_pulls(tiny: Bundle, tmp_path: Path) -> None:
    for name, image in images().items():
        np.save(tmp_path / f"{name}.npy", image)
    given = ["--ap", f"{tmp_path}/ap.npy", "--lateral", f"{tmp_path}/lateral.npy", "-m", str(tiny.path)]
    wanted = ["--consistency", "every", "--gamma", "3", "-o", f"{tmp_path}/ct.nii.gz", "--json", "--threads", "1"]
    done = CliRunner().invoke(app, ["sample", *given, *wanted])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["consistency"]
    assert (told["when"], told["gamma"]) == ("every", 3.0)
    refused = CliRunner().invoke(app, ["sample", *given, "--gamma", "3", "-o", f"{tmp_path}/other.nii.gz"])
    assert refused.exit_code == 2 and not (tmp_path / "other.nii.gz").exists()
