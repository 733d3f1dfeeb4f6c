"""The ONNX Runtime backend: the same values as OpenVINO, its installation, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import x2ct
from tests import tiny_bundle
from tests.processes import shared_library, status_in_a_fresh_process
from tests.tiny_network import RUNTIME, WHOLE, Array, arrays
from x2ct import _core
from x2ct.errors import InputError, MemoryLimitError, MissingRuntimeError, X2CTError
from x2ct.runtimes.discovery import choose, find_runtime

if not next(one for one in _core.backends() if one["name"] == "onnxruntime")["built"]:
    pytest.skip("built without ONNX Runtime's headers", allow_module_level=True)

PLACE = str(find_runtime("onnxruntime").folder)
CAPI = Path(PLACE) / "capi"
DEMO = Path(x2ct.__file__).parent / "models" / "demo"
SHAPES = {"x": WHOLE, "sigma": [1], "c0": WHOLE}

PARITY = 1e-4
"""RMS of the difference over RMS of OpenVINO's output, f32: the runtimes sum in another order, and OpenVINO's
convolutions are Winograd's where that is faster."""


def load(path: str, **options: Any) -> _core.Network:
    given: dict[str, Any] = {"backend": "onnxruntime", "shapes": SHAPES, "threads": 1, "runtime_dir": PLACE}
    return _core.Network(path, **{**given, **options})


@pytest.fixture(scope="module")
def network(denoiser_file: str) -> _core.Network:
    return load(denoiser_file)


def difference(found: Array, wanted: Array) -> float:
    return float(np.sqrt(np.mean((found - wanted) ** 2, dtype=np.float64) / np.mean(wanted**2, dtype=np.float64)))


# ------------------------------------------------------------------------------------------------ one network


def test_it_does_not_pretend_to_tell_its_layers_times(denoiser_file: str) -> None:
    profiled = load(denoiser_file, profile=True)
    profiled(arrays())
    with pytest.raises(MissingRuntimeError, match="does not tell its layers' times; use backend openvino"):
        profiled.profile()


# ------------------------------------------------------------------------------------------------ beside OpenVINO


def test_the_bundled_denoiser_is_openvinos_at_all_noise_levels() -> None:
    bundle = x2ct.Bundle.load("chest")
    spec, side = bundle.networks.denoiser, 32
    path = str(bundle.file_of(spec))
    rng = np.random.default_rng(0)

    def size(axis: int | str) -> int:
        """An axis is a number, or "N", "X", "X/4": of one sample on a cube."""
        name, _, divisor = str(axis).partition("/")
        return int(name) if name.isdigit() else 1 if name == "N" else side // int(divisor or 1)

    shapes = {tensor.name: [size(axis) for axis in tensor.shape] for tensor in spec.inputs}
    inputs = {name: (0.3 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    network = load(path, shapes=shapes)
    reference = _core.Network(path, precision="f32", threads=1, shapes=shapes, runtime_dir=RUNTIME)
    for sigma in (0.03, 0.8, 20.0):
        tensors = inputs | {"x": inputs["x"] * np.float32(1 + sigma / 0.3), "sigma": np.array([sigma], np.float32)}
        assert difference(network(tensors)["denoised"], reference(tensors)["denoised"]) < PARITY, sigma


def volumes(bundle: str | Path, xrays: dict[str, x2ct.XRay], **options: Any) -> tuple[Array, Array]:
    """In HU, of ONNX Runtime and of OpenVINO, from the same seed."""
    found, wanted = (
        x2ct.Sampler(bundle, backend=backend, precision="f32", threads=2).run(**xrays, seed=5, **options)
        for backend in ("onnxruntime", "openvino")
    )
    assert found.report["backend"] == "onnxruntime"
    assert found.report["runtime"] == version("onnxruntime")
    assert found.report["precision"] == {"encoder": "f32", "lift": "f32", "denoiser": "f32"}
    return found.volume.hu, wanted.volume.hu


def test_the_tiny_model_gives_the_same_volume(tiny_path: Path) -> None:
    rng = np.random.default_rng(0)
    xrays = {
        name: x2ct.XRay(rng.uniform(0, 6, tiny_bundle.DETECTOR).astype(np.float32), calibrated=True)
        for name in ("ap", "lateral")
    }
    found, wanted = volumes(tiny_path, xrays, steps=6)
    assert np.abs(found - wanted).max() < 0.1


def test_a_memory_budget_counts_ample_for_what_the_runtime_does_not_tell(tiny_path: Path) -> None:
    image = np.random.default_rng(0).uniform(0, 6, tiny_bundle.DETECTOR).astype(np.float32)
    xray = x2ct.XRay(image, calibrated=True)
    sampler = x2ct.Sampler(tiny_path, backend="onnxruntime", memory=1 << 30, threads=1)
    assert sampler.sample(ap=xray, steps=2).hu.shape == tiny_bundle.GRID
    with pytest.raises(MemoryLimitError):
        x2ct.Sampler(tiny_path, backend="onnxruntime", memory=1 << 20).sample(ap=xray)


def test_the_bundled_model_gives_the_same_volume() -> None:
    xrays = {name: x2ct.XRay.load(DEMO / f"{name}.npy") for name in ("ap", "lateral")}
    found, wanted = volumes("chest", xrays, steps=2)
    assert np.abs(found - wanted).mean() < 0.5
    assert np.ptp(wanted) > 1000


def test_weights_in_float16_are_turned_to_float32_once(tmp_path: Path) -> None:
    """With what the backend asks of it, the runtime leaves no Cast of a constant to be done in each evaluation."""
    import onnxruntime

    bundle = x2ct.Bundle.load("chest")
    for spec in (bundle.networks.encoder, bundle.networks.lift, bundle.networks.denoiser):
        given = onnx.load(bundle.file_of(spec))
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / spec.file)
        onnxruntime.InferenceSession(str(bundle.file_of(spec)), options, providers=["CPUExecutionProvider"])

        def casts(model: onnx.ModelProto) -> int:
            constants = {one.name for one in model.graph.initializer}
            return sum(node.op_type == "Cast" and node.input[0] in constants for node in model.graph.node)

        assert casts(given) > 0
        assert casts(onnx.load(tmp_path / spec.file)) == 0


# ------------------------------------------------------------------------------------------------ typed graphs

TYPED = 2e-3
"""RMS of f16's difference from f32, over f32's: each value inside the network has 11 bits."""


@pytest.fixture(scope="module")
def typed_file(denoiser_file: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    from x2ct.export.precision import typed

    path = tmp_path_factory.mktemp("typed") / "denoiser.f16.onnx"
    onnx.save(typed(onnx.load(denoiser_file), "f16").model, path)
    return str(path)


def test_a_typed_graph_is_run_as_it_is(network: _core.Network, typed_file: str) -> None:
    """Its values are those of f16, close to f32's and not the same."""
    typed = load(typed_file, precision="f16")
    assert (network.precision, typed.precision) == ("f32", "f16")
    assert 0 < difference(typed(arrays())["denoised"], network(arrays())["denoised"]) < TYPED


def test_a_graph_of_another_type_than_was_asked_for_is_refused(denoiser_file: str, typed_file: str) -> None:
    with pytest.raises(MissingRuntimeError, match=r"precision: found a graph in f32, expected one in f16; make it: "):
        load(denoiser_file, precision="f16")
    for precision in ("f32", "auto"):
        with pytest.raises(InputError, match=r"precision: found a graph in f16, expected one in f32; ask for precisi"):
            load(typed_file, precision=precision)


def test_a_precision_that_needs_a_graph_of_its_own_takes_it_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or from a folder, once `x2ct build` made it; before that it is a line."""
    pytest.importorskip("torch")
    from x2ct.export import plans
    from x2ct.runtimes.cache.cache import Cache, copy_to

    monkeypatch.setenv("X2CT_CACHE", str(tmp_path / "cache"))
    bundle = tiny_bundle.write(tmp_path / "tiny.x2ct")
    image = np.random.default_rng(0).uniform(0, 6, tiny_bundle.DETECTOR).astype(np.float32)
    xray = x2ct.XRay(image, calibrated=True)

    def sampled(precision: str, **options: Any) -> x2ct.Volume:
        sampler = x2ct.Sampler(bundle, backend="onnxruntime", precision=precision, threads=1, **options)
        result = sampler.run(ap=xray, steps=3, seed=1)
        assert result.report["precision"] == {"encoder": "f32", "lift": "f32", "denoiser": precision}
        return result.volume

    with pytest.raises(MissingRuntimeError, match=r"precision f16: found no graph .* x2ct build .* --graph --prec"):
        sampled("f16")
    made = plans.typed_graph(bundle, "f16", Cache())
    [engine] = made.engines.values()
    copy_to(engine, tmp_path / "copies" / engine.path.name)
    away = np.abs(sampled("f16").hu - sampled("f32").hu)
    assert away.max() < 5
    monkeypatch.setenv("X2CT_CACHE", str(tmp_path / "another"))
    copied = sampled("f16", compiled=str(tmp_path / "copies"))
    assert np.abs(copied.hu - sampled("f32").hu).max() == away.max()


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"precision": "bf16"}, MissingRuntimeError, "precision bf16: .* in f32, f16 only"),
        ({"precision": "tf32"}, MissingRuntimeError, "precision tf32: .* in f32, f16 only"),
        ({"device": "cuda"}, MissingRuntimeError, "device cuda: .* pip install onnxruntime-gpu"),
        ({"device": "cuda:1"}, MissingRuntimeError, "device cuda:1: .* no CUDAExecutionProvider"),
        ({"device": "cuda", "provider": "tensorrt"}, MissingRuntimeError, "no TensorrtExecutionProvider"),
        ({"device": "cpu:1"}, InputError, "device: found .cpu:1."),
        ({"device": "cuda:x"}, InputError, "device: found .cuda:x."),
        ({"provider": "paper"}, InputError, "provider: found .paper., expected cpu, cuda, tensorrt"),
        ({"provider": "cuda"}, InputError, "provider cuda: found device cpu, expected cuda"),
        ({"provider_options": {"a": "b"}}, InputError, "provider cpu has no options"),
        ({"device": "cuda", "provider_options": {"use_tf32": "1"}}, InputError, "provider option use_tf32"),
        ({"shapes": {"x": [1, 2, 8, 8, 8]}}, InputError, "shapes: x: found shape .1, 2, 8"),
        ({"shapes": {"x": [1, 1, 8]}}, InputError, "shapes: x: found shape .1, 1, 8., expected"),
        ({"shapes": {"x": [1, 1, 8, 8, 8], "c0": [1, 1, 8, 8, 4]}}, InputError, "for its axis Z"),
    ],
)
def test_bad_options_are_refused(
    denoiser_file: str, options: dict[str, Any], error: type[X2CTError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        load(denoiser_file, **options)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ the runtime


def status(place: Path | str) -> dict[str, Any]:
    return status_in_a_fresh_process(place, "onnxruntime")


@pytest.mark.parametrize("place", [Path(PLACE), CAPI, next(CAPI.glob("libonnxruntime.so.1.*"))])
def test_the_installed_runtime_is_available(place: Path) -> None:
    found = status(place)
    assert found["available"], found["reason"]
    assert found["version"] == version("onnxruntime")
    assert found["devices"] == ["cpu"]
    assert found["precisions"] == {"cpu": ["f32"]}  # what it computes natively
    assert "pip install onnxruntime-gpu" in found["missing_devices"]["cuda"]


def test_a_missing_runtime_is_a_line_that_says_what_to_install(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        reason = status(folder)["reason"]
        assert f"is not installed in {folder}; pip install 'onnxruntime>=1." in reason
        assert "\n" not in reason


def library(folder: Path, body: str) -> Path:
    """A shared library that passes for the runtime's by its name."""
    return shared_library(folder / "libonnxruntime.so.1.20.1", body)


def test_an_old_runtime_is_refused_by_its_version(tmp_path: Path) -> None:
    """Without asking it for an interface that it doesn't have, upon which it prints."""
    library(
        tmp_path,
        "struct Base { const void* (*api)(unsigned); const char* (*version)(); };\n"
        "static const void* api(unsigned) { __builtin_trap(); }\n"
        'static const char* version() { return "1.20.1"; }\n'
        "static const Base base = {api, version};\n"
        'extern "C" const Base* OrtGetApiBase() { return &base; }\n',
    )
    reason = status(tmp_path)["reason"]
    assert "found version 1.20.1, expected 1." in reason
    assert "pip install 'onnxruntime>=1." in reason


def test_another_library_of_that_name_is_a_line(tmp_path: Path) -> None:
    library(tmp_path, "int nothing;\n")
    assert "no OrtGetApiBase, so it is no ONNX Runtime" in status(tmp_path)["reason"]


def test_a_runtime_that_is_cut_short_is_a_line(tmp_path: Path) -> None:
    whole = next(CAPI.glob("libonnxruntime.so.1.*")).read_bytes()
    cut = tmp_path / "libonnxruntime.so.1.32.0"
    for content, words in ((b"", "can't be opened"), (whole[: len(whole) // 3], f"{cut}: it is truncated")):
        cut.write_bytes(content)
        assert words in status(tmp_path)["reason"]


def test_the_backends_library_is_not_linked_to_the_runtime() -> None:
    path = Path(_core.__file__).parent / "lib" / "libx2ct_onnxruntime.so"
    dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    assert "onnxruntime.so.1" not in dynamic
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


def test_both_runtimes_and_the_python_module_live_in_one_process(denoiser_file: str) -> None:
    code = (
        "import sys; from x2ct import _core\n"
        "_core.Network(sys.argv[1], runtime_dir=sys.argv[2])\n"
        "_core.Network(sys.argv[1], backend='onnxruntime', runtime_dir=sys.argv[3])\n"
        "import onnxruntime; print(len(onnxruntime.InferenceSession(sys.argv[1]).get_inputs()))"
    )
    command = [sys.executable, "-c", code, denoiser_file, RUNTIME, PLACE]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("3\n", "")


def test_the_runtimes_log_says_where_nodes_are(denoiser_file: str) -> None:
    """csrc/backends/onnxruntime/placement.h reads this: where a GPU's provider leaves nodes to the CPU."""
    code = (
        "import sys, onnxruntime as o; options = o.SessionOptions(); options.log_severity_level = 0\n"
        "o.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])"
    )
    run = subprocess.run([sys.executable, "-c", code, denoiser_file], capture_output=True, text=True, check=True)
    assert " All nodes placed on [CPUExecutionProvider]. Number of nodes: " in run.stderr


# ------------------------------------------------------------------------------------------------ the choice


def test_auto_is_openvino() -> None:
    assert choose().backend == choose("cpu").backend == "openvino"
    assert choose(backend="onnxruntime").backend == "onnxruntime"


def test_choices_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="--provider: name: found 'paper', expected cpu, cuda, tensorrt"):
        choose(backend="onnxruntime", provider="paper")
    with pytest.raises(InputError, match="--provider: backend: found auto, expected onnxruntime"):
        choose(provider="cpu")
    with pytest.raises(MissingRuntimeError, match="device cuda"):
        choose("cuda", "onnxruntime")
