"""What `x2ct calibrate` finds on validation patients: the samples' scale of HU, and the factor of their deviation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests import tiny_bundle
from x2ct import Sampler, _core
from x2ct.bundle import Bundle
from x2ct.bundle.intensity import BONE_HU, Intensity
from x2ct.cli import app
from x2ct.data.body import body_mask
from x2ct.data.shards import ShardSet, resample
from x2ct.engine.sampler import SampleOptions
from x2ct.evaluation.calibration import half_width
from x2ct.io.xray.radiograph import XRay
from x2ct.tuning.deviation import matched
from x2ct.tuning.search import Row, Tuned

XRAY = XRay.of(np.linspace(1, 5, 64 * 64, dtype=np.float32).reshape(tiny_bundle.DETECTOR))


def scaled(folder: Path, scales: dict[int, float], **sampling: Any) -> Bundle:
    manifest, files = tiny_bundle.manifest()
    diffusion = replace(manifest.diffusion, deviation_scale=scales, **sampling)
    return Bundle.write(folder / "scaled.x2ct", replace(manifest, diffusion=diffusion), files)


def test_the_reported_deviation_is_the_samples_times_the_factor_and_the_mean_is_the_same(tmp_path: Path) -> None:
    plain, bundle = tiny_bundle.write(tmp_path / "tiny.x2ct"), scaled(tmp_path, {3: 1.75})
    asked: dict[str, Any] = {"ap": XRAY, "samples": 3, "steps": 3}
    one, other = Sampler(plain, threads=1).run(**asked), Sampler(bundle, threads=1).run(**asked)
    assert one.spread is not None and other.spread is not None
    assert (one.report["deviation_scale"], other.report["deviation_scale"]) == (1.0, 1.75)
    np.testing.assert_array_equal(one.volume.hu, other.volume.hu)
    np.testing.assert_array_equal(np.float32(1.75) * one.spread.hu, other.spread.hu)


@pytest.mark.parametrize(
    ("asked", "scale"),
    [
        ({}, 1.5),
        ({"steps": 4}, 1.5),
        ({"solver": "euler"}, 1.5),
        ({"schedule": "tuned", "steps": 3}, 2.0),
        ({"steps": 5}, 1.0),
        ({"solver": "heun"}, 1.0),
        ({"schedule": "edm"}, 1.0),
        ({"schedule": (20.0, 5.0, 1.0, 0.03)}, 1.0),
        ({"consistency": "last"}, 1.0),
        ({"consistency": "last", "gamma": 0.0}, 1.5),
        ({"mean": True}, 1.0),
    ],
)
def test_the_factor_is_for_the_settings_that_it_was_measured_with(
    tmp_path: Path, asked: dict[str, Any], scale: float
) -> None:
    levels = {3: (20.0, 0.7, 0.03)}
    bundle = scaled(tmp_path, {3: 2.0, 4: 1.5}, solver="euler", schedule="log-snr", steps=4, schedules=levels)
    assert _core.sampling_plan(bundle.diffusion, SampleOptions(**asked)).deviation_scale == scale


def test_a_bundle_gets_the_factor_with_which_the_interval_holds_four_fifths(tmp_path: Path, shards: Path) -> None:
    untouched, target = scaled(tmp_path, {3: 1.75, 2: 1.25}), tmp_path / "calibrated.x2ct"
    options = ["--samples", "5", "--steps", "3", "--threads", "1", "--json", "-o", str(target)]
    result = CliRunner().invoke(app, ["calibrate", str(untouched.path), str(shards), *options])
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)["rows"]
    assert row["after"] == pytest.approx(0.8, abs=0.005)
    bundle = Bundle.load(target)
    assert bundle.diffusion.deviation_scale == {2: 1.25, 3: row["scale"]}
    assert bundle.files == untouched.files
    assert bundle.intensity.window_hu == untouched.intensity.window_hu and bundle.intensity != untouched.intensity

    sampler, held = Sampler(bundle, threads=1), []
    for patient in ShardSet.open(shards).select("validation"):
        truth = np.clip(resample(patient, bundle.grid), *bundle.intensity.window_hu)
        body = body_mask(truth, bundle.grid.spacing_mm)
        run = sampler.run(**patient.xrays(bundle.geometry), samples=5, steps=3, force=True)
        assert run.spread is not None
        held.append((np.abs(run.volume.hu - truth) <= half_width(5) * run.spread.hu)[body])
    assert np.mean(np.concatenate(held)) == pytest.approx(0.8, abs=0.005)


def test_the_calibrated_scale_has_the_distribution_of_true_cts_below_bone() -> None:
    window = Intensity((-1000.0, -150.0, 600.0, 1500.0), (-1.0, -0.45, 0.6, 1.0))
    truth = np.random.default_rng(0).normal([-980.0, -750.0, -90.0, 40.0, 350.0], [15, 60, 20, 20, 200], (40_000, 5))
    truth = np.clip(truth, -1000, 1500).astype(np.float32)
    # What the network errs by, the more the softer: 60 HU in the lungs, 30 in soft tissue, nothing in bone.
    sample = truth + np.interp(truth, (-990, -900, -700, 0, 150, 200), (0, 60, 60, 30, 30, 0)).astype(np.float32)
    scale = matched(window, [sample], [truth])
    hu = scale.to_hu(window.to_x(sample))
    assert np.array_equal(hu >= BONE_HU, sample >= BONE_HU)
    assert np.allclose(hu[sample >= 201], sample[sample >= 201], atol=0.1)
    soft = sample < 100
    assert np.abs(hu - truth)[soft].mean() < 5 < np.abs(sample - truth)[soft].mean()
    assert scale.window_hu == window.window_hu


def test_other_noise_levels_have_another_factor(tmp_path: Path) -> None:
    bundle = scaled(tmp_path, {3: 1.75, 4: 1.25}, solver="euler")
    row = Row(3, (20.0, 0.7, 0.03), 1.0, 2.0, 1.0)
    tuned = Tuned("euler", "log-snr", ("a",), 1, bundle.grid.shape, 64, (row,))
    changed = bundle.save_as(tmp_path / "tuned.x2ct", **tuned.changes(bundle))
    assert changed.diffusion.deviation_scale == {4: 1.25}
    other = replace(tuned, solver="heun")
    assert other.changes(bundle)["diffusion"].deviation_scale == {}


@pytest.mark.parametrize(
    ("option", "words"), [(("--samples", "3"), "--samples"), (("-o", "no/where/a.x2ct"), "no/where")]
)
def test_what_cannot_be_calibrated_is_refused(
    tmp_path: Path, shards: Path, option: tuple[str, ...], words: str
) -> None:
    bundle = scaled(tmp_path, {})
    before = bundle.checksum
    result = CliRunner().invoke(app, ["calibrate", str(bundle.path), str(shards), *option, "-q"])
    assert result.exit_code == 2 and words in result.stderr
    assert Bundle.load(bundle.path).checksum == before
