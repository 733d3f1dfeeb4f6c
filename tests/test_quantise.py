"""Convolutions in 8 bits: how they are rounded, in NumPy and in the backend; ranges found, proven and stored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import x2ct
from tests import tiny_bundle
from tests.commandline import run
from tests.tiny_network import RUNTIME, Array, by_onnx, save
from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.errors import InputError, MissingRuntimeError

pytest.importorskip("torch")

from x2ct.export import ExportReport, quantise

NATIVE = _core.backends({"openvino": RUNTIME})[0]["precisions"]["cpu"]
DEMO = Path(x2ct.__file__).parent / "models" / "demo"
SHAPE = [1, 16, 8, 10, 12]

native = pytest.mark.skipif("int8" not in NATIVE, reason="this processor has no VNNI")


def ramp(rows: int, columns: int) -> x2ct.XRay:
    return x2ct.XRay(np.outer(np.linspace(0, 5, rows), np.ones(columns)).astype(np.float32), calibrated=True)


# ------------------------------------------------------------------------------------------------ rounding


@pytest.mark.parametrize("ends", [(-0.3, 6.0), (0.0, 1.0), (-2.0, 0.0), (-1.0, 1.0)])
def test_rounding_is_within_half_a_step_keeps_zero_and_changes_nothing_twice(ends: tuple[float, float]) -> None:
    step = (ends[1] - ends[0]) / 255
    values = np.linspace(ends[0] + step, ends[1] - step, 4001, dtype=np.float32)
    once = quantise.rounded(values, ends)
    assert np.abs(once - values).max() <= step / 2 * (1 + 1e-4)
    assert quantise.rounded(np.zeros(3, np.float32), ends).tolist() == [0, 0, 0]
    assert np.allclose(quantise.rounded(once, ends), once, atol=1e-6)
    assert len(np.unique(once)) <= 256
    beyond = quantise.rounded(np.array([-100, 100], np.float32), ends)
    assert np.abs(beyond - np.array(ends, np.float32)).max() <= step


def test_what_is_rare_and_far_away_is_cut_and_what_is_not_is_kept() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=1_000_000)).astype(np.float32)
    low, high = quantise.best_range(np.append(values, np.float32(12)))
    assert low == 0
    assert 4 < high < 10
    flat = np.linspace(-0.25, 3, 5000, dtype=np.float32)
    assert quantise.best_range(flat) == (-0.25, 3.0)
    assert quantise.best_range(-flat) == (-3.0, 0.25)


# ------------------------------------------------------------------------------------------------ in the backend


@pytest.fixture(scope="module")
def convolution(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Array]:
    """One 3^3 convolution between a Relu and an addition, and its weights: channels of very different size."""
    rng = np.random.default_rng(1)
    weights = (rng.normal(size=(16, 16, 3, 3, 3)) * np.geomspace(0.01, 1, 16)[:, None, None, None, None]).astype("f4")
    nodes = [
        helper.make_node("Relu", ["a"], ["b"], name="/relu"),
        helper.make_node("Conv", ["b", "w"], ["c"], name="/conv", pads=[1] * 6),
        helper.make_node("Add", ["c", "one"], ["d"], name="/add"),
    ]
    path = tmp_path_factory.mktemp("int8") / "conv.onnx"
    return save(path, nodes, {"a": list(SHAPE)}, {"d": list(SHAPE)}, w=weights, one=np.ones(1, np.float32)), weights


def load(path: str, ranges: dict[str, tuple[float, float]]) -> _core.Network:
    return _core.Network(path, precision="int8", threads=1, runtime_dir=RUNTIME, int8=ranges)


@native
def test_the_backend_rounds_as_numpy_does(convolution: tuple[str, Array], tmp_path: Path) -> None:
    """By the ONNX reference, of rounded inputs and weights: 255 values of its own for each channel that comes out."""
    path, weights = convolution
    ends = (0.0, 3.0)
    network = load(path, {"/conv": ends})
    assert network.precision == "int8"
    a = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    largest = np.abs(weights).max(axis=(1, 2, 3, 4), keepdims=True)
    few = (np.round(weights / largest * 127) / 127 * largest).astype(np.float32)
    rounded = quantise.rounded(np.maximum(a, 0), ends)
    node = [helper.make_node("Conv", ["b", "w"], ["c"], pads=[1] * 6)]
    plain = save(tmp_path / "plain.onnx", node, {"b": list(SHAPE)}, {"c": list(SHAPE)}, w=few)
    wanted = 1 + by_onnx(plain, {"b": rounded})
    exact = _core.Network(path, precision="f32", threads=1, runtime_dir=RUNTIME)({"a": a})["d"]

    def rms(x: Array) -> float:
        return float(np.sqrt(np.mean(np.square(x))))

    found = network({"a": a})["d"]
    assert rms(found - wanted) < 0.2 * rms(found - exact), "what is left is the rest's own precision"
    assert rms(found - exact) < 0.02 * rms(exact)


@native
@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({}, "int8: found ranges of 0 convolutions, of which it has 0, expected one or more"),
        ({"/none": (0.0, 1.0)}, "int8: found ranges of 1 convolutions, of which it has 0"),
        ({"/relu": (0.0, 1.0)}, "int8: found /relu, a Relu, expected names of convolutions"),
    ],
)
def test_ranges_that_belong_to_no_convolution_are_refused(
    convolution: tuple[str, Array], ranges: dict[str, tuple[float, float]], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load(convolution[0], ranges)


def test_only_openvino_has_8_bits(convolution: tuple[str, Array]) -> None:
    if not next(one for one in _core.backends() if one["name"] == "onnxruntime")["built"]:
        pytest.skip("built without ONNX Runtime's headers")
    from x2ct.runtimes.discovery import find_runtime

    place = str(find_runtime("onnxruntime").folder)
    with pytest.raises(MissingRuntimeError, match=r"precision int8: .* in f32, f16 only"):
        _core.Network(convolution[0], backend="onnxruntime", precision="int8", runtime_dir=place)


# ------------------------------------------------------------------------------------------------ models


def test_a_model_without_ranges_says_what_finds_them(tiny: Bundle) -> None:
    xray = ramp(*tiny_bundle.DETECTOR)
    with pytest.raises(MissingRuntimeError, match=r"model tiny has no ranges for it; find them: x2ct quantize .*tiny"):
        x2ct.Sampler(tiny, precision="int8").sample(ap=xray)


@native
def test_the_bundled_model_computes_in_8_bits_what_it_computes_in_f32() -> None:
    xrays = {name: x2ct.XRay.load(DEMO / f"{name}.npy") for name in ("ap", "lateral")}
    found, wanted = (x2ct.Sampler("chest", precision=name, threads=2).run(**xrays, steps=2) for name in ("int8", "f32"))
    assert found.report["precision"] == {"encoder": "f32", "lift": "f32", "denoiser": "int8"}
    away = float(np.abs(found.volume.hu - wanted.volume.hu).mean())
    assert 0.1 < away < quantise.BOUND_HU


def test_the_bundled_ranges_are_of_all_convolutions_of_that_size() -> None:
    import onnx

    bundle = Bundle.load("chest")
    model = onnx.load(bundle.file_of(bundle.networks.denoiser))
    assert set(bundle.networks.denoiser.int8) == set(quantise.convolutions(model))


def test_ranges_are_kept_as_they_are(tmp_path: Path) -> None:
    manifest, files = tiny_bundle.manifest()
    ranges = {"/net/first.0/Conv": (-0.278, 4.5), "Conv_7": (0.0, 1e-3)}
    denoiser = replace(manifest.networks.denoiser, int8=ranges)
    told = replace(manifest, networks=replace(manifest.networks, denoiser=denoiser))
    bundle = Bundle.write(tmp_path / "told.x2ct", told, files)
    assert bundle.networks.denoiser.int8 == ranges
    assert Bundle.write(tmp_path / "again.x2ct", bundle, files).checksum == bundle.checksum


# ------------------------------------------------------------------------------------------------ x2ct quantize


@pytest.fixture
def random_bundle(exported: tuple[ExportReport, Any]) -> Path:
    return Path(exported[0].bundle.path)


@native
def test_ranges_are_found_proven_and_stored_the_same_each_time(
    random_bundle: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "BOUND_HU", 1e3)  # random weights forgive nothing
    told: list[Any] = []
    for name in ("first", "second"):
        target, report = tmp_path / f"{name}.x2ct", tmp_path / f"{name}.json"
        options = ["--patches", 3, "--side", 16, "-o", target, "--report", report, "--threads", 1]
        done = run("quantize", random_bundle, shards, *options)
        assert done.exit_code == 0, done.stderr
        assert "| int8 |" in done.stdout
        told.append(Bundle.load(target).networks.denoiser.int8)
        facts = json.loads(report.read_text())
        assert facts["rows"]["f32"]["mae_hu"] == 0 < facts["rows"]["int8"]["mae_hu"]
        assert facts["judged_on"] == ["phantom2"]
        assert set(facts["calibrated_on"]) == {"phantom0", "phantom1"}
    assert told[0] == told[1]
    assert not Bundle.load(random_bundle).networks.denoiser.int8
    report = x2ct.Sampler(tmp_path / "first.x2ct", precision="int8").run(ap=ramp(64, 64), steps=2).report
    assert report["precision"]["denoiser"] == "int8"


@native
def test_ranges_that_cost_too_much_are_not_stored(
    random_bundle: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "BOUND_HU", 0.0)
    done = run("quantize", random_bundle, shards, "--patches", 1, "--side", 16, "-o", tmp_path / "no.x2ct")
    assert done.exit_code == 1
    assert "in 8 bits: volumes differ from f32 by" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_such_convolutions_is_refused(tiny_path: Path, shards: Path, tmp_path: Path) -> None:
    done = run("quantize", tiny_path, shards, "-o", tmp_path / "no.x2ct")
    assert done.exit_code == (2 if "int8" in NATIVE else 3)
    assert ("no 3^3 convolution" if "int8" in NATIVE else "VNNI") in done.stderr
    assert list(tmp_path.iterdir()) == []
