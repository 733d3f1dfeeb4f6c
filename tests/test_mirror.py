"""A model that knows mirror images gives as posterior mean that of the patient's and of the mirror image's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests import tiny_bundle
from x2ct import Sampler, _core
from x2ct.bundle import Bundle
from x2ct.engine import external
from x2ct.engine.sampler import SampleOptions
from x2ct.geometry import Geometry
from x2ct.io.xray.radiograph import XRay

HEIGHT, WIDTH = tiny_bundle.DETECTOR
FRONTAL = np.random.default_rng(0).uniform(1, 5, (HEIGHT, WIDTH)).astype(np.float32)
LATERAL = np.random.default_rng(1).uniform(1, 5, (HEIGHT, WIDTH)).astype(np.float32)


def bundle_of(folder: Path, mirror: bool) -> Bundle:
    manifest, files = tiny_bundle.manifest()
    diffusion = replace(manifest.diffusion, mirror=mirror)
    return Bundle.write(folder / f"{mirror}.x2ct", replace(manifest, diffusion=diffusion), files)


def test_the_mean_is_that_of_the_patient_and_of_the_mirror_image_turned_back(tmp_path: Path) -> None:
    """In parallel beams, an X-ray of the mirror image is the mirrored frontal one, and the lateral one itself."""
    plain, both = (Sampler(bundle_of(tmp_path, mirror), threads=1) for mirror in (False, True))
    given: dict[str, Any] = {"ap": XRay.of(FRONTAL), "lateral": XRay.of(LATERAL)}
    mirrored = given | {"ap": XRay.of(np.ascontiguousarray(FRONTAL[:, ::-1]))}
    options = SampleOptions(seed=3, mean=True)
    own = plain.run(**given, seed=3, mean=True).volume.hu
    image = plain.run(**mirrored, seed=3, sample=1, mean=True).volume.hu[::-1]
    result = both.run(**given, seed=3, mean=True)
    assert float(np.abs(own - image).max()) > 1
    np.testing.assert_allclose(result.volume.hu, (own + image) / 2, atol=0.01)
    assert (result.report["evaluations"], result.report["mirrored"]) == (2, True)
    # A second run, whose networks were last told of the mirror image, and a sample after it.
    np.testing.assert_array_equal(both.run(**given, seed=3, mean=True).volume.hu, result.volume.hu)
    np.testing.assert_array_equal(both.run(**given, seed=3).volume.hu, plain.run(**given, seed=3).volume.hu)
    assert _core.sampling_plan(both.bundle.diffusion, options).evaluations == 2


@pytest.mark.parametrize("asked", [{}, {"mean": True, "consistency": "last"}, {"mean": True, "samples": 2}])
def test_samples_and_corrected_estimates_are_of_the_patient_alone(tmp_path: Path, asked: dict[str, Any]) -> None:
    plan = _core.sampling_plan(bundle_of(tmp_path, True).diffusion, SampleOptions(**asked))
    assert not plan.mirrored


def test_networks_that_something_else_evaluates_give_the_same_mean(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, True)
    networks = {
        name: onnxruntime.InferenceSession(bundle.path / f"{name}.onnx") for name in ("encoder", "lift", "denoiser")
    }

    def evaluate(name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = [output.name for output in networks[name].get_outputs()]
        return dict(zip(outputs, networks[name].run(outputs, dict(inputs)), strict=True))

    given = {"ap": XRay.of(FRONTAL), "lateral": XRay.of(LATERAL)}
    elsewhere = external.sample(bundle, evaluate, given, seed=3, mean=True)
    own = Sampler(bundle, precision="f32", threads=1).run(**given, seed=3, mean=True).volume.hu  # type: ignore[arg-type]
    assert elsewhere.dtype == np.float32
    np.testing.assert_allclose(elsewhere, own, atol=0.1)


def test_progress_counts_both_evaluations_and_a_preview_shows_no_mirror_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    shown: list[tuple[int, int]] = []
    sampler = Sampler(bundle_of(tmp_path, True), threads=1)
    sampler.run(
        ap=XRay.of(FRONTAL),
        mean=True,
        progress=lambda done, total, sigma: seen.append((done, total)),
        preview=lambda done, total, sigma, volume: shown.append((done, total)),
    )
    assert (seen, shown) == ([(1, 2), (2, 2)], [(1, 2)])


@pytest.mark.parametrize("geometry", [Geometry.parallel(), Geometry.cone(("ap",))], ids=["parallel", "cone"])
def test_a_mirrored_point_is_seen_where_the_point_was_or_at_that_columns_mirror_image(geometry: Geometry) -> None:
    count = len(geometry.views)
    pictures = np.stack([np.arange(12, dtype=np.float32).reshape(3, 4)] * count)[None, :, None]
    matrices = np.stack([view.matrix for view in geometry.views]).astype(np.float32)[None]
    image = _core.mirrored_conditions(pictures, np.ones((1, count)), matrices)
    assert image is not None

    def pixel(matrix: np.ndarray, *point: float) -> np.ndarray:
        u, v, w = matrix.astype(np.float64) @ [*point, 1.0]
        return np.array([u / w, v / w])

    for view in range(count):
        frontal = view == 0
        picture = pictures[0, view, 0]
        np.testing.assert_array_equal(image[0][0, view, 0], picture[:, ::-1] if frontal else picture)
        before, after = pixel(matrices[0, view], 30, -20, 50), pixel(image[1][0, view], -30, -20, 50)
        np.testing.assert_allclose(after, [3 - before[0], before[1]] if frontal else before, atol=1e-3)


def test_a_lateral_view_of_cone_beams_has_no_mirror_image_that_training_shows(tmp_path: Path) -> None:
    geometry = Geometry.cone(("ap", "lateral"), shape=tiny_bundle.DETECTOR)
    given: dict[str, Any] = {"ap": XRay.of(FRONTAL), "lateral": XRay.of(LATERAL)}
    report = Sampler(bundle_of(tmp_path, True), threads=1).run(**given, geometry=geometry, mean=True, force=True).report
    assert (report["evaluations"], report["mirrored"]) == (1, False)
    matrices = np.stack([view.matrix for view in geometry.views])[None]
    pictures = np.zeros((1, 2, 1, 3, 4))
    assert _core.mirrored_conditions(pictures, np.ones((1, 2)), matrices) is None
    assert _core.mirrored_conditions(pictures, np.array([[1.0, 0.0]]), matrices) is not None
