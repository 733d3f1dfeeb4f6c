"""X-rays are of one patient where they hold the same mass, and of the training's kind where its statistics say so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import tiny_bundle
from tests.bundle_faults import edit, put
from tests.commandline import run
from tests.tiny_body import GEOMETRY, GRID, body, images
from x2ct.bundle import Bundle
from x2ct.engine.plausibility import (
    POSES,
    REFUSES,
    SIDE,
    WARNS,
    Gaussian,
    Seen,
    brightness,
    judge,
    likeness,
    mass_ratio,
    masses,
    reduced,
    reread,
    sides,
)
from x2ct.engine.sampler import Sampler
from x2ct.errors import InputError
from x2ct.geometry import Geometry, View, attenuation, project
from x2ct.io.xray.degradation import window_8bit
from x2ct.io.xray.radiograph import XRay
from x2ct.tuning.xraystatistics import fit

Image = npt.NDArray[np.float32]
PITCH = 5.0
CONE = Geometry.cone(("ap", "lateral"), sod_mm=1200, sdd_mm=1500, shape=(88, 88), spacing_mm=(6.25, 6.25))
PARALLEL = Geometry.parallel(("ap", "lateral"), shape=(88, 88), spacing_mm=(PITCH, PITCH))
NARROW = Geometry.parallel(("ap", "lateral"), shape=(88, 110), spacing_mm=(PITCH, 4.0))


def trunk(size: float = 1.0, heart: float = 1.0) -> Image:
    """HU: a trunk of water with a lung at each side, a heart on the left, a spine at the back, the abdomen below."""
    x, y, z = (np.indices(GRID.shape).astype(np.float32) - 15.5) * 10.0 / size
    hu = np.full(GRID.shape, -1000.0, np.float32)
    hu[((x / 140) ** 2 + (y / 95) ** 2 < 1) & (abs(z) < 150)] = 0.0
    for side in (-65, 65):
        hu[((x - side) / 50) ** 2 + (y / 70) ** 2 + ((z - 30) / 90) ** 2 < 1] = -850.0
    hu[((x + 40) / 45) ** 2 + ((y - 20) / 40) ** 2 + (z / 45) ** 2 < heart] = 40.0
    hu[(x / 15) ** 2 + ((y + 60) / 15) ** 2 < 1] += 400.0
    return hu


def lumps(seed: int) -> Image:
    """A trunk with denser slabs at heights of its own."""
    hu, z = trunk(), (np.arange(GRID.shape[2]) - 15.5) * 10.0
    for height in np.random.default_rng(seed).uniform(-110, 110, 6):
        hu[..., abs(z - height) < 8] += np.where(trunk()[..., abs(z - height) < 8] > -900, 250.0, 0.0)
    return hu


def seen(hu: Image, geometry: Geometry = PARALLEL, shift_mm: float = 0.0, calibrated: bool = True) -> tuple[Seen, ...]:
    affine = GRID.index_to_mm.copy()
    affine[2, 3] += shift_mm
    mu, pitch_mm = attenuation(hu), (PITCH, 4.0 if geometry is NARROW else PITCH)
    return tuple(
        Seen(
            *(view.name, slot, project(mu, affine, view, 1), np.ones(view.shape, np.bool_), view.matrix),
            *(pitch_mm, calibrated),
        )
        for slot, view in enumerate(geometry.views)
    )


def ratio(first: Seen, second: Seen) -> npt.NDArray[np.float64]:
    found = mass_ratio(first, second)
    assert found is not None
    return found[np.isfinite(found)]


# ---------------------------------------------------------------------------------------------- mass


@pytest.mark.parametrize(("geometry", "tolerance"), [(PARALLEL, 0.005), (CONE, 0.03)])
def test_two_views_of_a_body_hold_the_same_mass_at_each_height(geometry: Geometry, tolerance: float) -> None:
    found = ratio(*seen(trunk(), geometry))
    assert len(found) >= 10
    np.testing.assert_allclose(found, 0, atol=tolerance)


@pytest.mark.parametrize("geometry", [PARALLEL, NARROW], ids=["square pixels", "narrow pixels"])
def test_masses_are_those_of_the_bodys_slices(geometry: Geometry) -> None:
    hu = trunk()
    slices = attenuation(hu).sum(axis=(0, 1)) * 100.0  # mm^2 a voxel's face
    heights = (np.arange(len(slices)) - 15.5) * 10.0
    found = masses(seen(hu, geometry)[0])
    assert found is not None
    from x2ct.engine.plausibility import HEIGHTS_MM

    inner = np.isfinite(found)
    np.testing.assert_allclose(found[inner], np.interp(HEIGHTS_MM[inner], heights, slices), rtol=0.03)


def test_a_wrong_pitch_shows_as_a_factor_and_another_patient_by_height() -> None:
    ap, lateral = seen(trunk())
    wrong = replace(lateral, image=reread(lateral, replace(POSES[0], flips=(), pitch=1.2)))
    middle = ratio(ap, wrong)
    assert np.median(middle) == pytest.approx(np.log(1.2), abs=0.06)  # a row is as much longer
    assert np.ptp(ratio(ap, seen(trunk(heart=3.0))[1])) > 0.05 > np.ptp(ratio(ap, lateral))


@pytest.mark.parametrize("picture", [np.array, window_8bit])
def test_a_bodys_views_change_alike_from_height_to_height_and_anothers_do_not(picture: Any) -> None:
    def shown(hu: Image) -> list[Seen]:
        return [replace(view, image=picture(view.image).astype(np.float32)) for view in seen(hu)]

    ap, lateral = shown(lumps(1))
    alike, other = likeness(ap, lateral), likeness(ap, shown(lumps(2))[1])
    assert alike is not None and other is not None and alike > 0.9 > 0.5 > other
    lower = replace(lateral, image=np.roll(lateral.image, round(10 / PITCH), axis=0))
    assert likeness(ap, lower) == pytest.approx(alike, abs=0.05)


def test_a_row_that_the_detector_cuts_is_not_judged() -> None:
    ap, lateral = seen(trunk())
    cut = replace(ap, image=np.roll(ap.image, 30, axis=1))
    assert mass_ratio(cut, lateral) is None
    known = ap.measured.copy()
    known[:, :30] = False
    assert mass_ratio(replace(ap, measured=known), lateral) is None


def test_a_tilted_view_is_not_judged() -> None:
    view = View.parallel("ap", tilt_deg=20, shape=(88, 88), spacing_mm=(PITCH, PITCH))
    assert masses(replace(seen(trunk())[0], matrix=view.matrix)) is None


# ---------------------------------------------------------------------------------------------- a picture


def test_a_reduced_picture_knows_neither_factor_nor_pixels() -> None:
    small = np.random.default_rng(0).uniform(0, 5, (SIDE, SIDE))
    for times in (1, 4, 7):
        large = np.kron(small, np.ones((times, times)))
        np.testing.assert_allclose(reduced(3.0 * large), reduced(small), rtol=1e-12)
    odd = reduced(np.kron(small, np.ones((5, 5)))[:58, :58])
    assert odd.shape == (SIDE, SIDE)
    np.testing.assert_allclose(reduced(np.ones((88, 35))), 1, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "make",
    [
        lambda rng: rng.normal(size=(50, 61)),
        lambda rng: np.maximum(rng.normal(size=(90, 88)), 0),  # air, one value for half of the pixels
        lambda rng: np.minimum(rng.normal(size=(90, 88)), -0.5),  # saturated
        lambda rng: np.exp(4 * rng.normal(size=(90, 88))),  # a few pixels outweigh the rest
        lambda rng: np.full((20, 20), 3.7),
        lambda rng: rng.normal(size=(2, 3)),
    ],
    ids=["noise", "air", "saturated", "skewed", "constant", "few"],
)
def test_brightness_is_the_mean_of_the_brightest_tenth_to_the_bit(make: Any, dtype: Any) -> None:
    picture = make(np.random.default_rng(4)).astype(dtype)
    values = np.sort(picture.astype(np.float64), axis=None)
    assert brightness(picture) == max(values[-max(1, values.size // 10) :].mean(), 1e-6)


def test_distance_is_mahalanobis_where_all_components_are_kept() -> None:
    samples = np.random.default_rng(1).normal(size=(500, 5)) @ np.random.default_rng(2).normal(size=(5, 5))
    law = Gaussian.of(samples, 5)
    point = samples[0] + 1
    away = point - samples.mean(axis=0)
    expected = np.sqrt(away @ np.linalg.solve(np.cov(samples, rowvar=False), away) / 5)
    assert law.distance(point) == pytest.approx(expected, rel=1e-6)


def test_sides_change_sign_in_a_mirror_and_follow_the_body() -> None:
    ap = seen(trunk())[0]
    even, odd = sides(ap)
    mirrored, moved = (sides(replace(ap, image=image)) for image in (ap.image[:, ::-1], np.roll(ap.image, 4, axis=1)))
    np.testing.assert_allclose(mirrored[0], even, atol=1e-6)
    np.testing.assert_allclose(mirrored[1], -odd, atol=1e-6)
    np.testing.assert_allclose(moved[1], odd, atol=1e-6)
    assert np.abs(odd).max() > 0.02  # the heart
    lower = sides(replace(ap, image=np.roll(ap.image, 6, axis=0)), even)
    np.testing.assert_allclose(lower[1], odd, atol=1e-6)


# ---------------------------------------------------------------------------------------------- statistics


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny model with statistics of trunks, and on its own detector nothing else."""
    rng, patients = np.random.default_rng(0), []
    for _ in range(10):
        hu = trunk(rng.uniform(0.94, 1.06), rng.uniform(0.8, 1.3))
        studies = []
        for number in range(6):
            known = number % 3 != 1
            views = seen(hu + rng.uniform(-15, 15), shift_mm=rng.uniform(-8, 8), calibrated=known)
            pictures = [v.image * (1 + rng.normal(0, 0.01, v.image.shape)) for v in views]
            shown = pictures if known else [window_8bit(p.astype(np.float32)).astype(np.float32) for p in pictures]
            studies.append(tuple(replace(v, image=picture) for v, picture in zip(views, shown, strict=True)))
        patients.append(tuple(studies))
    # The tiny model's detector is another; statistics are of what its pixels cover.
    opened = tiny_bundle.write(tmp_path_factory.mktemp("statistics") / "tiny.x2ct")
    opened = replace(opened, geometry=PARALLEL, xray=replace(opened.xray, shape=(88, 88), spacing_mm=(PITCH, PITCH)))
    return replace(opened, xray_statistics=fit(patients))


def xrays_of(views: tuple[Seen, ...], picture: Callable[[Image], npt.NDArray[Any]] = np.array) -> dict[str, XRay]:
    return {view.name: XRay.of(picture(view.image), PITCH) for view in views}


def values(model: Bundle, views: tuple[Seen, ...], **named: Any) -> dict[tuple[str, str], float]:
    return {(score.name, score.view): score.value for score in judge(model, xrays_of(views, **named)).scores}


@pytest.mark.parametrize("picture", [np.array, window_8bit])
def test_a_body_of_the_trainings_kind_is_not_warned_of(model: Bundle, picture: Any) -> None:
    found = judge(model, xrays_of(seen(trunk(1.02)), picture))
    assert found.warnings == () and len(found.scores) == 8
    found.check()


@pytest.mark.parametrize("pose", range(5), ids=lambda index: POSES[index].name)
def test_another_pose_is_found_and_named(model: Bundle, pose: int) -> None:
    views = tuple(replace(v, image=np.ascontiguousarray(reread(v, POSES[pose]))) for v in seen(trunk()))
    judgement = judge(model, xrays_of(views))
    assert any(POSES[pose].name in line for line in judgement.warnings)
    with pytest.raises(InputError, match="--force samples all the same"):
        judgement.check()


def test_swapped_views_are_found_and_named(model: Bundle) -> None:
    ap, lateral = seen(trunk())
    judgement = judge(model, {"ap": XRay.of(lateral.image, PITCH), "lateral": XRay.of(ap.image, PITCH)})
    assert any("of the other view" in line for line in judgement.warnings)
    assert {score.view for score in judgement.scores if score.name == "pose" and score.value > WARNS} == {
        "ap",
        "lateral",
    }


def test_noise_is_nothing_that_was_trained_on(model: Bundle) -> None:
    rng = np.random.default_rng(0)
    views = tuple(replace(v, image=rng.uniform(0, 6, v.image.shape).astype(np.float32)) for v in seen(trunk()))
    assert values(model, views)["anatomy", "ap"] > REFUSES


def test_the_lateral_of_another_is_found_up_to_a_factor_where_that_is_unknown(model: Bundle) -> None:
    pair = "ap and lateral"
    stout = (seen(trunk())[0], seen(trunk(), shift_mm=0)[1])
    stout = (stout[0], replace(stout[1], image=stout[1].image * np.float32(1.3)))
    assert values(model, stout)["mass", pair] > WARNS > values(model, seen(trunk()))["mass", pair]
    # A factor is nobody's fault where nobody knows it; another height is.
    assert values(model, stout, picture=window_8bit)["mass", pair] < WARNS


@pytest.mark.parametrize("picture", [np.array, window_8bit])
def test_two_patients_are_apart_in_mass_and_profile(model: Bundle, picture: Any) -> None:
    ap, lateral = seen(lumps(1))
    own, others = (values(model, (ap, one), picture=picture) for one in (lateral, seen(lumps(2))[1]))
    assert own["patient", "ap and lateral"] < 1 < REFUSES < others["patient", "ap and lateral"]


# ---------------------------------------------------------------------------------------------- bundle and command


def test_statistics_go_into_a_bundle_and_come_out_of_it(model: Bundle, tmp_path: Path) -> None:
    plain = tiny_bundle.write(tmp_path / "plain.x2ct")
    assert "xray_statistics" not in json.loads((plain.path / "model.json").read_text())
    written = plain.save_as(tmp_path / "with.x2ct", xray_statistics=model.xray_statistics)
    assert written.xray_statistics == {name: list(numbers) for name, numbers in model.xray_statistics.items()}
    edit(written.path, put("xray_statistics/ap.mean", [1.0, "a"]))
    with pytest.raises(InputError, match=r"xray_statistics\.ap\.mean"):
        Bundle.load(written.path)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    tiny_bundle.write(tmp_path / "tiny.x2ct")
    for name, image in images(GEOMETRY).items():
        np.save(tmp_path / f"{name}.npy", image)
    np.save(tmp_path / "other.npy", 1.8 * images(GEOMETRY)["lateral"])
    return tmp_path


def sample(study: Path, lateral: str, *options: str) -> Any:
    given = ("--ap", study / "ap.npy", "--lateral", study / lateral, "-m", study / "tiny.x2ct", "--threads", 1)
    return run("sample", *given, "-o", study / "ct.nii.gz", "--report", study / "run.json", *options)


def test_a_lateral_of_another_is_refused_and_forced(study: Path) -> None:
    assert body().shape == GRID.shape
    done = sample(study, "other.npy")
    assert done.exit_code == 2 and "mass" in done.stderr and "--force" in done.stderr
    assert not (study / "ct.nii.gz").exists() and len(done.stderr.strip().splitlines()) == 1
    assert sample(study, "other.npy", "--force", "--strict").exit_code == 2
    done = sample(study, "other.npy", "--force")
    assert done.exit_code == 0 and "warning: ap and lateral: the body's mass differs" in done.stderr
    report = json.loads((study / "run.json").read_text())
    score = report["plausibility"]["scores"][0]
    assert score["value"] > report["plausibility"]["refuses_above"]
    assert report["warnings"][0].startswith("ap and lateral: the body's mass differs by 80%")


def test_a_sampler_judges_what_it_is_given(tiny: Bundle) -> None:
    sampler = Sampler(tiny, precision="f32", threads=1)
    ap, lateral = (XRay.of(image, tiny_bundle.DETECTOR_MM) for image in images(GEOMETRY).values())
    other = replace(lateral, image=np.asarray(1.8 * lateral.image, np.float32))
    for judged in (sampler.set_xrays, sampler.run, sampler.dry_run):
        with pytest.raises(InputError, match="X-rays: content"):
            judged(ap=ap, lateral=other)
    assert sampler.run(ap=ap, lateral=lateral, mean=True).report["plausibility"]["scores"][0]["value"] < 0.5
    sampler.set_xrays(ap=ap, lateral=other, force=True)
    for report in (
        sampler.run(mean=True).report,
        sampler.run(ap=ap, lateral=other, force=True, mean=True).report,
        sampler.dry_run(ap=ap, lateral=other, force=True),
    ):
        assert "mass" in report["warnings"][0]
    with pytest.raises(InputError, match="--strict: warnings: found 1 warning: ap and lateral"):
        sampler.run(mean=True, strict=True)


def test_the_report_says_what_a_bundle_without_statistics_could_not_judge(study: Path) -> None:
    assert sample(study, "lateral.npy", "--strict").exit_code == 0
    told = json.loads((study / "run.json").read_text())["plausibility"]
    assert {score["score"] for score in told["scores"]} <= {"mass", "patient"} and told["scores"][0]["value"] < 0.5
    assert sum("no xray_statistics" in line for line in told["not_judged"]) == 2
