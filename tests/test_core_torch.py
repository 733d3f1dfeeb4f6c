"""The torch backend: the same values as OpenVINO from engines that export made, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import x2ct
from tests import tiny_bundle
from tests.processes import status_in_a_fresh_process
from tests.tiny_network import RUNTIME, Array
from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.cli import app
from x2ct.errors import InputError, MissingRuntimeError, X2CTError
from x2ct.runtimes.cache.cache import Cache
from x2ct.runtimes.cache.engines import Store, find_torch, torch_recipe
from x2ct.runtimes.discovery import choose, find_runtime

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

if not next(one for one in _core.backends() if one["name"] == "torch")["built"]:
    pytest.skip("built without PyTorch", allow_module_level=True)

from x2ct.export import formats, proof, torchfiles  # noqa: E402

PLACE = str(find_runtime("torch").folder)
RELEASE = version("torch").partition("+")[0]
SHAPES = {"x": [1, 1, 32, 24, 16], "sigma": [1], "c0": [1, 1, 16, 12, 8]}
BOUND_HU = 0.1


@pytest.fixture(scope="module")
def script(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("script") / "denoiser.pt"
    torchfiles.build(tiny, tiny.networks.denoiser, "torchscript", target)
    return target


@pytest.fixture(scope="module")
def package(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("AOTInductor needs g++")
    target = tmp_path_factory.mktemp("package") / "denoiser.pt2"
    torchfiles.build(tiny, tiny.networks.denoiser, "aoti", target)
    return target


@pytest.fixture(scope="module")
def narrow(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The denoiser's TorchScript with its inside in bfloat16."""
    target = tmp_path_factory.mktemp("narrow") / "denoiser.bf16.pt"
    torchfiles.build(tiny, tiny.networks.denoiser, "torchscript", target, precision="bf16")
    return target


@pytest.fixture(scope="module")
def cache(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that export has put the tiny bundle's TorchScript into, proven."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("X2CT_CACHE", str(folder))
        done = formats.export(str(tiny.path), None, ("torchscript",), folder=folder / "copies")
    assert {row.artefact for row in done.proofs} == {"onnx", "torchscript"}
    assert all(row.passed for row in done.proofs)
    return folder


def load(path: Path, **options: Any) -> _core.Network:
    given: dict[str, Any] = {"backend": "torch", "shapes": SHAPES, "threads": 1, "runtime_dir": PLACE}
    return _core.Network(str(path), **{**given, **options})


def inputs(shapes: dict[str, list[int]], sigma: float = 0.5, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {**made, "sigma": np.full(shapes["sigma"], sigma, np.float32)}


def openvino(tiny: Bundle, given: dict[str, Array]) -> Array:
    path = str(tiny.file_of(tiny.networks.denoiser))
    shapes = {name: list(value.shape) for name, value in given.items()}
    network = _core.Network(path, precision="f32", threads=1, shapes=shapes, runtime_dir=RUNTIME)
    return network(given)["denoised"]


# ------------------------------------------------------------------------------------------------ one network


@pytest.mark.parametrize("kind", ["script", "package"])
@pytest.mark.parametrize("sigma", [0.03, 0.8, 20.0])
def test_values_are_openvinos(tiny: Bundle, kind: str, sigma: float, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    other = {"x": [1, 1, 16, 40, 24], "sigma": [1], "c0": [1, 1, 8, 20, 12]}
    for shapes in (SHAPES, other):
        given = inputs(shapes, sigma)
        wanted = openvino(tiny, given)
        assert np.abs(load(path, shapes=shapes)(given)["denoised"] - wanted).max() < 1e-5 * np.abs(wanted).max()
    free = load(path, shapes={})
    assert free.inputs["x"][2:] == (-1, -1, -1)
    assert np.abs(free(given)["denoised"] - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_it_says_what_it_is(script: Path) -> None:
    network = load(script)
    assert network.inputs == {name: tuple(shape) for name, shape in SHAPES.items()}
    assert network.outputs == {"denoised": tuple(SHAPES["x"])}
    assert (network.precision, network.device) == ("f32", "cpu")
    assert network.runtime_version == RELEASE


def test_inputs_are_left_alone_and_outputs_are_new(script: Path) -> None:
    network, given = load(script), inputs(SHAPES)
    before = {name: array.copy() for name, array in given.items()}
    first = network(given)["denoised"]
    kept = first.copy()
    network(inputs(SHAPES, seed=1))
    assert np.array_equal(first, kept)
    assert all(np.array_equal(given[name], before[name]) for name in given)


def test_a_run_is_the_loop_over_the_network(script: Path) -> None:
    """The same table with the network called from Python: the same bytes, so the binding to memory is right."""
    network, c0 = load(script), inputs(SHAPES)["c0"]
    grid = SHAPES["x"][2:]
    table = _core.Table.make("heun", _core.schedule("edm", 4, 0.03, 20.0))
    sampler = _core.Sampler(network, grid)
    sampler.set_condition({"c0": c0})

    def denoise(x: Array, sigma: float) -> Array:
        given = {"x": x.reshape(SHAPES["x"]), "sigma": np.array([sigma], np.float32), "c0": c0}
        return network(given)["denoised"][0, 0]

    assert sampler.run(table, seed=3).tobytes() == _core.run(denoise, table, grid, seed=3).tobytes()


def test_threads_are_the_evaluations_own_and_set_back_after_it(script: Path) -> None:
    before = torch.get_num_threads()
    one, two = (load(script, threads=threads)(inputs(SHAPES))["denoised"] for threads in (1, before + 1))
    assert torch.get_num_threads() == before
    assert np.abs(one - two).max() < 1e-6


def test_all_runtimes_and_python_torch_live_in_one_process(tiny: Bundle, script: Path) -> None:
    code = (
        "import sys; from x2ct import _core\n"
        "onnx, script, openvino, onnxruntime, place = sys.argv[1:]\n"
        "_core.Network(onnx, runtime_dir=openvino)\n"
        "if onnxruntime: _core.Network(onnx, backend='onnxruntime', runtime_dir=onnxruntime)\n"
        "_core.Network(script, backend='torch', runtime_dir=place)\n"
        "import torch; print(float(torch.ones(3).sum()))"
    )
    ort = next(one for one in _core.backends() if one["name"] == "onnxruntime")["built"]
    places = [RUNTIME, str(find_runtime("onnxruntime").folder) if ort else "", PLACE]
    command = [sys.executable, "-c", code, tiny.file_of(tiny.networks.denoiser), script, *places]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("3.0\n", "")


# ------------------------------------------------------------------------------------------------ a whole run


def xrays() -> dict[str, x2ct.XRay]:
    rng = np.random.default_rng(0)
    return {
        name: x2ct.XRay(rng.uniform(0, 6, tiny_bundle.DETECTOR).astype(np.float32), calibrated=True)
        for name in ("ap", "lateral")
    }


def test_the_same_seed_gives_openvinos_volume(tiny: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X2CT_CACHE", str(cache))
    found, wanted = (
        x2ct.Sampler(tiny, backend=backend, precision="f32", threads=2).run(**xrays(), seed=5)
        for backend in ("torch", "openvino")
    )
    assert np.abs(found.volume.hu - wanted.volume.hu).max() < BOUND_HU
    assert np.ptp(wanted.volume.hu) > 100
    assert (found.report["backend"], found.report["runtime"], found.report["engines"]) == (
        "torch",
        RELEASE,
        "torchscript",
    )
    assert wanted.report["engines"] == ""


def test_what_has_not_been_made_is_named_with_the_command_that_makes_it(
    tiny: Bundle, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "ap.npy", xrays()["ap"].image)
    arguments = ["sample", "--ap", str(tmp_path / "ap.npy"), "-m", str(tiny.path), "--backend", "torch"]
    for folder, more in ((tmp_path / "empty", []), (cache, ["--provider", "aoti"])):
        monkeypatch.setenv("X2CT_CACHE", str(folder))
        failed = CliRunner().invoke(app, [*arguments, *more, "-o", str(tmp_path / "ct.nii.gz")])
        assert failed.exit_code == 3
        assert f"make it: x2ct export {tiny.path} --format" in failed.stderr
    assert not (tmp_path / "ct.nii.gz").exists()


def test_engines_from_a_folder_run_only_if_they_are_trusted(
    tiny: Bundle, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = str(cache / "copies")
    monkeypatch.setenv("X2CT_CACHE", str(cache))  # where they were built, too
    kind, files = find_torch(tiny, Store(copies, trust=True))
    assert (kind, len(files)) == ("torchscript", 3)
    options: dict[str, Any] = {"backend": "torch", "compiled": copies, "threads": 1}
    with pytest.raises(InputError, match=r"a file outside this user's cache, expected --trust with it"):
        x2ct.Sampler(tiny, **options).sample(**xrays(), steps=2)
    assert x2ct.Sampler(tiny, trust=True, **options).sample(**xrays(), steps=2).hu.shape == tiny_bundle.GRID
    np.save(tmp_path / "ap.npy", xrays()["ap"].image)
    arguments = ["sample", "--ap", str(tmp_path / "ap.npy"), "-m", str(tiny.path), "-o", str(tmp_path / "ct.nii.gz")]
    arguments += ["--backend", "torch", "--compiled", copies]
    assert CliRunner().invoke(app, arguments).exit_code == 2
    assert not (tmp_path / "ct.nii.gz").exists()
    assert CliRunner().invoke(app, [*arguments, "--trust"]).exit_code == 0


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"precision": "int4"}, InputError, "precision: found .int4."),
        ({"precision": "tf32"}, MissingRuntimeError, "precision tf32: torch computes on cpu in f32, bf16, f16 only"),
        ({"precision": "bf16"}, InputError, "weights: found f32, expected bf16, which is the precision"),
        ({"device": "cpu:1"}, InputError, "device: found .cpu:1."),
        ({"device": "tpu"}, InputError, "device: found .tpu."),
        ({"provider_options": {"cuda_graph": "0"}}, InputError, "provider options: found some, expected none: .* CPU"),
        ({"provider_options": {"cuda_graph": "yes"}}, InputError, "cuda_graph: found yes, expected cuda_graph=0 or"),
        ({"threads": -1}, InputError, "threads: found -1"),
        ({"shapes": {"y": [1]}}, InputError, "shapes: found y"),
        ({"shapes": {"x": [1, 1, 8]}}, InputError, r"shapes: x: found shape .1, 1, 8., expected .N, 1, X, Y, Z"),
        ({"shapes": {"x": [1, 2, 8, 8, 8]}}, InputError, "shapes: x: found shape"),
        ({"shapes": {"sigma": [0]}}, InputError, "shapes: sigma: found shape .0."),
        ({"shapes": {"x": [1, 1, 8, 8, 12]}}, InputError, "multiples of 8 for Z"),
        ({"shapes": {**SHAPES, "c0": [1, 1, 16, 12, 16]}}, InputError, "for its axis Z"),
    ],
)
def test_bad_options_are_refused(script: Path, options: dict[str, Any], error: type[X2CTError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        load(script, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_says_what_is_missing(script: Path) -> None:
    with pytest.raises(MissingRuntimeError, match=r"device cuda:0|device cuda: .*CUDA|no NVIDIA GPU"):
        load(script, device="cuda")


def test_bad_arrays_are_refused(script: Path) -> None:
    network = load(script)
    with pytest.raises(InputError, match=r"x: shape: found \[1, 1, 8, 8, 8\], expected"):
        network({**inputs(SHAPES), "x": np.zeros([1, 1, 8, 8, 8], np.float32)})
    network(inputs(SHAPES))


def test_bad_files_are_refused(script: Path, tiny: Bundle, tmp_path: Path) -> None:
    for suffix in (".pt", ".pt2"):
        text, cut = tmp_path / f"text{suffix}", tmp_path / f"cut{suffix}"
        text.write_text("not a network")
        cut.write_bytes(script.read_bytes()[: script.stat().st_size // 2])
        for path in (tmp_path / f"missing{suffix}", text, cut):
            with pytest.raises(InputError, match=f"^{path}: file: found ") as caught:
                load(path)
            assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"found \.onnx, expected \.pt .*x2ct export BUNDLE"):
        load(tiny.file_of(tiny.networks.denoiser))


def test_a_file_that_export_did_not_make_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1)), str(tmp_path / "other.pt"))
    with pytest.raises(InputError, match="description: found none, expected an artefact that x2ct export made"):
        load(tmp_path / "other.pt", shapes={})


def test_choices_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="--provider: name: found 'cuda', expected torchscript, aoti"):
        choose(backend="torch", provider="cuda")
    with pytest.raises(InputError, match="--compiled: backend: found auto, expected tensorrt, torch, onnxruntime"):
        choose(trust=True)


# ------------------------------------------------------------------------------------------------ the proof


def test_an_artefact_that_computes_something_else_is_not_written(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight of the denoiser, changed by a tenth on the way to the file."""
    monkeypatch.setenv("X2CT_CACHE", str(tmp_path / "cache"))

    class Wrong(torchfiles.OnnxModule):
        def __init__(self, model: Any) -> None:
            super().__init__(model)
            if model.graph.name == "denoiser":
                [name] = (name for name, value in self.named_buffers() if value.ndim == 5)
                getattr(self, name).view(-1)[0] *= 1.1

    monkeypatch.setattr(torchfiles, "OnnxModule", Wrong)
    with pytest.raises(X2CTError, match="proof failed, not written: torchscript in torch"):
        formats.export(str(tiny.path), None, ("torchscript",), folder=tmp_path / "copies")
    assert not (tmp_path / "copies").exists()
    assert all(Cache().find(torch_recipe(tiny, network, "torchscript")) is None for _, network in tiny.networks.items())


def test_the_proof_covers_noise_levels_patches_and_the_volume(tiny: Bundle) -> None:
    reference = proof.reference_of(tiny)
    assert len(reference.denoised) == 2
    assert all(len(value) == proof.SIGMAS for value in reference.denoised.values())
    assert reference.volume.shape == tiny.grid.shape


# ------------------------------------------------------------------------------------------------ the runtime


def test_the_installed_runtime_is_available() -> None:
    found = status_in_a_fresh_process(PLACE, "torch")
    assert found["available"], found["reason"]
    assert found["version"] == RELEASE
    assert found["precisions"]["cpu"] == ["f32"]


def fake(folder: Path, body: str) -> None:
    """A shared library that passes for PyTorch's by its name."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    (folder / "made.cpp").write_text(body)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libtorch_cpu.so", folder / "made.cpp"], check=True)


def test_another_release_is_refused_before_anything_of_it_runs(tmp_path: Path) -> None:
    fake(tmp_path, 'extern "C" unsigned long long aoti_torch_abi_version() { return (2ULL << 56) | (9ULL << 48); }')
    reason = status_in_a_fresh_process(tmp_path, "torch")["reason"]
    assert f"found version 2.9.0, expected {RELEASE}" in reason
    assert f"pip install torch=={RELEASE}" in reason


def test_another_library_of_that_name_is_refused(tmp_path: Path) -> None:
    fake(tmp_path, "int nothing;")
    assert "found version none" in status_in_a_fresh_process(tmp_path, "torch")["reason"]


def test_a_missing_runtime_is_a_line_that_says_what_to_install(tmp_path: Path) -> None:
    reason = status_in_a_fresh_process(tmp_path, "torch")["reason"]
    assert f"is not installed in {tmp_path}; pip install torch=={RELEASE}" in reason
    assert "\n" not in reason


def test_the_backends_library_names_no_folder() -> None:
    path = Path(_core.__file__).parent / "lib" / "libx2ct_torch.so"
    dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    assert "libtorch_cpu.so]" in dynamic
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


# ------------------------------------------------------------------------------------------------ typed graphs, GPUs


def test_an_artefact_in_bf16_is_close_to_f32_and_is_taken_for_nothing_else(script: Path, narrow: Path) -> None:
    given = inputs(SHAPES)
    network = load(narrow, precision="bf16")
    assert network.precision == "bf16"
    wanted, found = load(script)(given)["denoised"], network(given)["denoised"]
    away = np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))
    assert 0 < away < 2e-2
    for precision in ("f32", "f16"):
        with pytest.raises(InputError, match=f"weights: found bf16, expected {precision}"):
            load(narrow, precision=precision)


def test_a_volume_in_bf16_is_proven_and_sampled(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export makes the denoiser alone in it; a sampler that asks for another precision doesn't find it."""
    monkeypatch.setenv("X2CT_CACHE", str(tmp_path))
    done = formats.export(str(tiny.path), None, ("torchscript",), folder=tmp_path / "copies", precision="bf16")
    assert {row.precision: row.passed for row in done.proofs if row.artefact == "torchscript"} == {"bf16": True}
    assert {path.name for path in (tmp_path / "copies").glob("*.pt")} == {"denoiser.bf16.pt", "encoder.pt", "lift.pt"}
    found = x2ct.Sampler(tiny, backend="torch", precision="bf16", threads=1).run(**xrays(), seed=5)
    wanted = x2ct.Sampler(tiny, backend="openvino", precision="f32", threads=1).run(**xrays(), seed=5)
    assert found.report["precision"] == {"encoder": "f32", "lift": "f32", "denoiser": "bf16"}
    assert 0 < np.abs(found.volume.hu - wanted.volume.hu).mean() < proof.VOLUME_BOUND_HU["bf16"]
    with pytest.raises(MissingRuntimeError, match=r"make it: x2ct export .* --format torchscript"):
        x2ct.Sampler(tiny, backend="torch", precision="f32").run(**xrays())


class OnOneDevice(TorchDispatchMode):
    """Refuses what a GPU would refuse or wait for: operands on several devices, and values that the host reads."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "local_scalar_dense" not in str(func), "the host reads a value"
        made = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, made))
        places = {one.device.type for one in leaves if isinstance(one, torch.Tensor) and one.ndim > 0}
        assert places <= {"meta"}, f"{func}: {places}"
        return made


def test_nothing_is_left_on_the_cpu_and_convolutions_read_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, on PyTorch's device without memory: the bundled lift, and the denoiser in bf16."""
    import onnx

    from x2ct.export.precision import typed

    layouts = []
    plain = torch.nn.functional.conv3d

    def conv3d(x: Any, weight: Any, *others: Any) -> Any:
        if max(weight.shape[2:]) > 1:
            assert weight.is_contiguous(memory_format=torch.channels_last_3d)
            layouts.append((x.dtype, x.is_contiguous(memory_format=torch.channels_last_3d)))
        return plain(x, weight, *others)

    monkeypatch.setattr(torch.nn.functional, "conv3d", conv3d)
    bundle = Bundle.load("chest")
    sides = {"N": 1, "X": 32, "Y": 40, "Z": 48}
    for network, precision in ((bundle.networks.lift, "f32"), (bundle.networks.denoiser, "bf16")):
        module = torchfiles.OnnxModule(typed(onnx.load(bundle.file_of(network)), precision).model).to("meta")
        shapes = [[axis if isinstance(axis, int) else _size(axis, sides) for axis in t.shape] for t in network.inputs]
        with torch.no_grad(), OnOneDevice():
            found = module(*(torch.empty(shape, device="meta") for shape in shapes))
        assert all(one.dtype == torch.float32 and one.is_contiguous() for one in found)
    assert len(layouts) > 10
    assert {channels_last for _, channels_last in layouts} == {True}
    assert {dtype for dtype, _ in layouts} == {torch.float32, torch.bfloat16}


def test_torchscript_made_on_the_cpu_names_no_device() -> None:
    """So that it runs on any: also what a graph makes by itself is made where the inputs are."""
    from onnx import TensorProto, helper, numpy_helper

    ones = numpy_helper.from_array(np.ones(1, np.float32))
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=ones),
        helper.make_node("Concat", ["x", "ones"], ["both"], axis=1),
        helper.make_node("Cast", ["both"], ["narrow"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["narrow"], ["y"], to=TensorProto.FLOAT),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, "X"])
        for name, size in zip("xy", (3, 6), strict=True)
    ]
    graph = helper.make_graph(nodes, "made", ports[:1], ports[1:])
    module = torchfiles.OnnxModule(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])).eval()
    frozen = torch.jit.freeze(torch.jit.trace(module, (torch.zeros(1, 3, 4),), check_trace=False))
    [found] = frozen(torch.zeros(1, 3, 7))
    assert torch.equal(found, torch.cat([torch.zeros(1, 3, 7), torch.ones(1, 3, 7)], 1))
    assert "Device = prim::Constant" not in str(frozen.graph)


def _size(axis: str, sides: dict[str, int]) -> int:
    name, _, divisor = axis.partition("/")
    return sides[name] // int(divisor or 1)


@pytest.mark.parametrize(("precision", "bound"), [("f16", 2e-3), ("bf16", 2e-2)])
def test_a_graph_whose_inside_is_typed_computes_in_its_type(precision: str, bound: float) -> None:
    """Close to f32 and not the same, with weights that are stored in the type."""
    import onnx

    from x2ct.export.precision import typed

    bundle = Bundle.load("chest")
    plain = onnx.load(bundle.file_of(bundle.networks.denoiser))
    width = {port.name: port.type.tensor_type.shape.dim for port in plain.graph.input}["c0"][1].dim_value
    sizes = {"x": (1, 1, 16, 16, 16), "sigma": (1,), "c0": (1, width, 4, 4, 4), "c1": (1, 1, 16, 16, 16)}
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    values["sigma"] = np.full(1, 0.5, np.float32)
    given = [torch.from_numpy(values[port.name]) for port in plain.graph.input]
    with torch.no_grad():
        [wanted] = torchfiles.OnnxModule(plain)(*given)
        narrow = torchfiles.OnnxModule(typed(plain, precision).model)
        [found] = narrow(*given)
        assert narrow._channels_last == {"c0"}
        narrow._channels_last = set()
        [as_it_comes] = narrow(*given)
    types = {one.dtype for one in narrow.buffers() if one.ndim == 5}
    assert types == {{"f16": torch.float16, "bf16": torch.bfloat16}[precision]}
    assert found.dtype == torch.float32
    assert float((found - as_it_comes).square().mean().sqrt() / wanted.square().mean().sqrt()) < bound / 2
    assert 0 < float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()) < bound


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_an_artefact_for_a_gpu_is_made_where_there_is_one(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(MissingRuntimeError, match=r"device cuda: PyTorch .* finds no GPU here"):
        torchfiles.build(tiny, tiny.networks.denoiser, "aoti", tmp_path / "denoiser.pt2", device="cuda")
    with pytest.raises(MissingRuntimeError, match="device cuda"):
        formats.export(str(tiny.path), None, ("torchscript",), device="cuda")
    with pytest.raises(InputError, match="--device: options: found nothing of torch's"):
        formats.export(str(tiny.path), None, ("onnx",), device="cuda")
    with pytest.raises(MissingRuntimeError, match="device cuda"):
        find_torch(tiny, Store(cache=tmp_path), "aoti", device="cuda:0")
