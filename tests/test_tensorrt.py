"""The TensorRT backend where TensorRT is not: its sources against real headers, and what is said of what is missing.

What a GPU computes is tested where there is one (marked `gpu`). The sources are compiled against the header tree that
X2CT_TENSORRT_INCLUDE names, which no package brings; the rest needs a build with such headers, and says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.processes import shared_library, status_in_a_fresh_process
from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.errors import InputError, MissingRuntimeError
from x2ct.runtimes.cache import engines
from x2ct.runtimes.cache.cache import Cache, Recipe, copy_to
from x2ct.runtimes.cache.engines import Machine, Store, Volumes, find_plans, inputs_for, plan_recipe
from x2ct.runtimes.discovery import Choice

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "csrc" / "backends" / "tensorrt").glob("*.cpp"))
BUILT = next(one for one in _core.backends() if one["name"] == "tensorrt")["built"]
HERE = Machine("tensorrt 10.16.0.72", "NVIDIA H200, compute capability 9.0", "")
FLAGS = {"workspace": "0", "effort": "3"}

built = pytest.mark.skipif(not BUILT, reason="built without TensorRT's headers (-DX2CT_TENSORRT_INCLUDE=FOLDER)")


# ------------------------------------------------------------------------------------------------ the sources


def cuda_include() -> Path | None:
    nvcc = shutil.which("nvcc")
    places = [os.environ.get("CUDA_HOME", ""), str(Path(nvcc).parents[1]) if nvcc else "", "/usr/local/cuda"]
    found = (Path(place) / "include" for place in places if place)
    return next((one for one in found if (one / "cuda_runtime_api.h").exists()), None)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_sources_compile_against_the_headers(source: Path) -> None:
    """X2CT_TENSORRT_INCLUDE may name several trees, of 10.x and of 11.x, with ':' between."""
    trees = [tree for tree in os.environ.get("X2CT_TENSORRT_INCLUDE", "").split(":") if tree]
    compiler, cuda = shutil.which("c++") or shutil.which("g++"), cuda_include()
    if not trees:
        pytest.skip("X2CT_TENSORRT_INCLUDE names no folder of TensorRT's headers")
    if compiler is None or cuda is None:
        pytest.skip("no C++ compiler, or no CUDA headers")
    for tree in trees:
        flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-isystem", tree, "-isystem", str(cuda)]
        command = [compiler, *flags, f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}", str(source)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{tree}: {run.stderr[:2000]}"


@built
def test_the_backends_library_is_linked_neither_to_tensorrt_nor_to_cuda() -> None:
    path = Path(_core.__file__).parent / "lib" / "libx2ct_tensorrt.so"
    dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    for name in ("libnvinfer", "libnvonnxparser", "libcudart", "libcuda.so", "RPATH", "RUNPATH"):
        assert name not in dynamic
    symbols = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    assert " cuda" not in symbols, "CUDA's runtime is to stay inside"


# ------------------------------------------------------------------------------------------------ what is missing


def library(folder: Path, body: str) -> Path:
    """A shared library that passes for TensorRT's by its name."""
    major = next(one for one in _core.backends() if one["name"] == "tensorrt")["version"].partition(".")[0]
    return shared_library(folder / f"libnvinfer.so.{major}", body.replace("MAJOR", major))


VERSION = (
    'extern "C" int getInferLibMajorVersion() { return %s; }\n'
    'extern "C" int getInferLibMinorVersion() { return 99; }\n'
    'extern "C" int getInferLibPatchVersion() { return 1; }\n'
    'extern "C" void* createInferRuntime_INTERNAL(void*, int) { return nullptr; }\n'
    'extern "C" void* createInferBuilder_INTERNAL(void*, int) { return nullptr; }\n'
)


def test_info_says_what_to_do_about_a_missing_tensorrt() -> None:
    status = status_in_a_fresh_process("", "tensorrt")
    if status["available"]:
        pytest.skip("TensorRT is here")
    assert not status["devices"]
    if BUILT:
        assert "libnvinfer.so.1" in status["reason"]
        assert "pip install 'tensorrt==1" in status["reason"]
    else:
        assert "this build of x2ct has no libx2ct_tensorrt.so" in status["reason"]
        assert "-DX2CT_TENSORRT_INCLUDE=FOLDER" in status["reason"]


@pytest.fixture(scope="module")
def no_tensorrt() -> None:
    if status_in_a_fresh_process("", "tensorrt")["available"]:
        pytest.skip("TensorRT is here")


@pytest.mark.usefixtures("no_tensorrt")
@pytest.mark.parametrize(
    "command", ["build chest", "sample --ap AP --backend tensorrt -o OUT", "export chest --format tensorrt"]
)
def test_without_tensorrt_the_command_line_ends_with_code_3(command: str, tmp_path: Path) -> None:
    places = {"AP": str(ROOT / "x2ct" / "models" / "demo" / "ap.npy"), "OUT": str(tmp_path / "ct.nii.gz")}
    run = subprocess.run(
        [sys.executable, "-m", "x2ct", *(places.get(word, word) for word in command.split())],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "X2CT_CACHE": str(tmp_path / "cache")},
    )
    assert run.returncode == 3, run.stderr
    [line] = run.stderr.strip().splitlines()
    assert line.startswith("x2ct: error: backend tensorrt: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--format onnx --precision f16", "--precision: options: found onnx alone, expected --format torchscript"),
        ("--format tensorrt --precision int8", "--precision: name: found 'int8', expected bf16, f16, tf32, f32"),
        ("--format trt", "--format: name: found 'trt', expected onnx, torchscript, aoti, tensorrt"),
        ("--compiled FOLDER", "expected --format torchscript, aoti or tensorrt"),
    ],
)
def test_exporting_what_cannot_be_is_refused_before_anything_is_made(options: str, words: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    command = [
        sys.executable,
        "-m",
        "x2ct",
        "export",
        "chest",
        *options.replace("FOLDER", str(tmp_path / "to")).split(),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    [line] = run.stderr.strip().splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


@built
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("int nothing;\n", "has no createInferRuntime_INTERNAL and createInferBuilder_INTERNAL, so it is no TensorRT"),
        (VERSION % "9", "found version 9.99.1, expected 1"),
    ],
)
def test_another_library_of_that_name_is_a_line(tmp_path: Path, body: str, words: str) -> None:
    library(tmp_path, body)
    reason = status_in_a_fresh_process(tmp_path, "tensorrt")["reason"]
    assert words in reason
    assert "pip install 'tensorrt==1" in reason


REFUSALS = """
import sys
from x2ct import _core
from x2ct.errors import X2CTError
for device, path in (("cpu", sys.argv[2]), ("cuda", sys.argv[2]), ("cuda:x", sys.argv[2]), ("cuda", sys.argv[3])):
    try:
        _core.Network(path, backend="tensorrt", device=device, runtime_dir=sys.argv[1])
    except X2CTError as error:
        print(error.exit_code, error)
try:
    _core.build_plan(sys.argv[3], sys.argv[1] + "/out.plan", {}, backend="tensorrt", device="cuda", precision="f32",
                     runtime_dir=sys.argv[1])
except X2CTError as error:
    print(error.exit_code, error)
"""


@built
def test_a_machine_without_a_gpu_is_a_line(tmp_path: Path) -> None:
    """With a library that says the right version, the backend opens, and what fails is the GPU."""
    library(tmp_path, VERSION % "MAJOR")
    status = status_in_a_fresh_process(tmp_path, "tensorrt")
    assert status["available"], status["reason"]
    assert ".99.1" in status["version"]
    if status["devices"]:
        pytest.skip("there is a GPU")
    assert "it needs an NVIDIA GPU and its driver" in status["missing_devices"]["cuda"]
    (tmp_path / "a.plan").write_bytes(b"plan")
    (tmp_path / "a.onnx").write_bytes(b"onnx")
    command = [sys.executable, "-c", REFUSALS, tmp_path, tmp_path / "a.plan", tmp_path / "a.onnx"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert lines[0] == "3 device cpu: the tensorrt backend drives cuda only; use device cuda"
    assert lines[1].startswith("3 device cuda: CUDA has no GPU here: ")
    assert lines[2] == '2 device: found "cuda:x", expected cpu, cuda or cuda:N'
    assert "found an ONNX network, expected a TensorRT plan; build it with 'x2ct build" in lines[3]
    assert lines[4].startswith("3 device cuda: CUDA has no GPU here: ")
    assert run.stderr == ""


def test_a_backend_without_plans_says_which_has_them(tmp_path: Path) -> None:
    from x2ct.runtimes.discovery import find_runtime

    folder = str(find_runtime("openvino").folder)
    with pytest.raises(InputError, match="found one that loads ONNX as it is, expected one that builds plans"):
        _core.plan_machine("openvino", "cpu", folder)
    with pytest.raises(InputError, match="expected one that builds plans"):
        _core.build_plan("x", "y", {}, backend="openvino", device="cpu", precision="f32", runtime_dir=folder)


# ------------------------------------------------------------------------------------------------ which plan does


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def keep(cache: Cache, bundle: Bundle, volumes: str, precision: str, **changes: Any) -> dict[str, Path]:
    """As if plans had been built: what is in them is not what is looked at here."""
    made = {}
    for name, network in bundle.networks.items():
        wanted = precision if name == "denoiser" else "f32"
        one = plan_recipe(bundle, network, wanted, Volumes.parse(volumes), changes.get("machine", HERE), FLAGS)
        made[network.file] = cache.obtain(one, lambda target: target.write_bytes(b"plan") and None).path
    return made


def look(cache: Cache, bundle: Bundle, precision: str, *volume: int, **options: Any) -> tuple[str, dict[str, Path]]:
    chosen, found = find_plans(bundle, Store(cache=cache.root, **options), precision, volume, HERE)  # type: ignore[arg-type]
    return chosen, dict(found)


def test_a_plan_does_for_its_range_and_the_narrowest_is_taken(cache: Cache, tiny: Bundle) -> None:
    wide = keep(cache, tiny, "16,16,16:32,32,32:64,64,64", "bf16")
    exact = keep(cache, tiny, "32,32,32", "bf16")
    assert look(cache, tiny, "bf16", 32, 32, 32) == ("bf16", exact)
    assert look(cache, tiny, "bf16", 32, 40, 64)[1]["denoiser.onnx"] == wide["denoiser.onnx"]
    with pytest.raises(MissingRuntimeError, match=r"no plans .* for 32,32,72 voxels .* --shape 32,32,72"):
        look(cache, tiny, "bf16", 32, 32, 72)


def test_auto_takes_the_precision_that_there_is(cache: Cache, tiny: Bundle) -> None:
    with pytest.raises(MissingRuntimeError, match=r"build them: x2ct build .*tiny\.x2ct --shape 32,32,32$"):
        look(cache, tiny, "auto", 32, 32, 32)
    keep(cache, tiny, "32,32,32", "tf32")
    assert look(cache, tiny, "auto", 32, 32, 32)[0] == "tf32"
    keep(cache, tiny, "32,32,32", "bf16")
    assert look(cache, tiny, "auto", 32, 32, 32)[0] == "bf16"
    with pytest.raises(MissingRuntimeError):
        look(cache, tiny, "f16", 32, 32, 32)


@pytest.mark.parametrize(
    "machine",
    [Machine("tensorrt 11.1.0.106", HERE.device, ""), Machine(HERE.runtime, "NVIDIA L4, compute capability 8.9", "")],
)
def test_a_plan_of_another_release_or_gpu_is_passed_over(cache: Cache, tiny: Bundle, machine: Machine) -> None:
    keep(cache, tiny, "32,32,32", "bf16", machine=machine)
    with pytest.raises(MissingRuntimeError, match="no plans"):
        look(cache, tiny, "bf16", 32, 32, 32)


@pytest.mark.parametrize("precision", ["bf16", "f32"])
def test_a_folder_of_plans_needs_trust(
    cache: Cache, tiny: Bundle, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in keep(cache, tiny, "32,32,32", precision):
        stem = Path(file).stem
        network = getattr(tiny.networks, stem)
        one = plan_recipe(
            tiny, network, precision if stem == "denoiser" else "f32", Volumes.parse("32,32,32"), HERE, FLAGS
        )
        engine = cache.find(one)
        assert engine is not None
        copy_to(engine, tmp_path / "plans" / f"{stem}.plan")
    folder = str(tmp_path / "plans")
    with pytest.raises(InputError, match=r"found a file outside this user's cache, expected --trust"):
        look(cache, tiny, precision, 32, 32, 32, folder=folder)
    trusted = {"folder": folder, "trust": True}
    assert look(cache, tiny, precision, 32, 32, 32, **trusted)[0] == precision
    assert look(cache, tiny, "auto", 32, 32, 32, **trusted)[0] == precision
    with pytest.raises(MissingRuntimeError, match=r"no plans .* for 32,32,40 voxels"):
        look(cache, tiny, "auto", 32, 32, 40, **trusted)
    monkeypatch.setattr(Machine, "here", lambda device: HERE)
    chosen = Choice("cuda:0", "tensorrt", "auto", "", compiled=folder, trust=True)
    assert {Path(path).parent for path in engines.find(tiny, tiny.grid, chosen)[1].values()} == {tmp_path / "plans"}
    with pytest.raises(InputError, match=rf"stale: precision '{precision}' where 'f16' is needed"):
        look(cache, tiny, "f16", 32, 32, 32, **trusted)


def test_a_folder_of_plans_that_says_nothing_is_refused(cache: Cache, tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(MissingRuntimeError, match=f"no plans of model .* in auto .* in {tmp_path}; build them"):
        look(cache, tiny, "auto", 32, 32, 32, folder=str(tmp_path))
    (tmp_path / "encoder.plan").write_bytes(b"plan")
    with pytest.raises(InputError, match=r"encoder\.plan: engine: found no encoder\.plan\.json beside it"):
        look(cache, tiny, "auto", 32, 32, 32, folder=str(tmp_path), trust=True)


def test_every_input_has_its_shape(tiny: Bundle) -> None:
    assert inputs_for(tiny.networks.denoiser, (16, 24, 32)) == {
        "x": (1, 1, 16, 24, 32),
        "sigma": (1,),
        "c0": (1, 1, 8, 12, 16),
    }
    one = plan_recipe(tiny, tiny.networks.lift, "f32", Volumes.parse("8,8,8:16,16,16:32,32,32"), HERE, FLAGS)
    assert one.profile["coords"] == ((1, 3, 8, 8, 8), (1, 3, 16, 16, 16), (1, 3, 32, 32, 32))
    assert set(one.profile["P"]) == {(1, 2, 3, 4)}
    assert isinstance(one, Recipe)


@pytest.mark.parametrize("text", ["8", "8,8", "8,8,8:16,16,16", "a,b,c", "8,8,8:16,16,16:32,32,32:64,64,64", ""])
def test_volumes_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--shape: value: found .*, expected X,Y,Z, or LEAST:USUAL:LARGEST"):
        Volumes.parse(text)


@pytest.mark.parametrize("text", ["12,8,8", "0,8,8", "16,16,16:8,8,8:32,32,32", "-8,8,8"])
def test_volumes_that_the_model_cannot_take_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected multiples of the model's stride 8, rising"):
        Volumes.parse(text).check(8)


# ------------------------------------------------------------------------------------------------ the typed graph


def test_the_typed_graph_is_made_once_and_runs(tiny: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "x2ct", "build", str(tiny.path), "--graph", "--precision", "f16", "-o"]
    env = {**os.environ, "X2CT_CACHE": str(tmp_path / "cache")}
    told = []
    for folder in ("first", "second"):
        run = subprocess.run([*command, tmp_path / folder], capture_output=True, text=True, env=env, check=False)
        assert run.returncode == 0, run.stderr
        told.append(run.stdout)
    assert "built in" in told[0]
    assert "there already" in told[1]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [
        "denoiser.f16.onnx",
        "denoiser.f16.onnx.json",
    ]
    from x2ct.runtimes.discovery import find_runtime

    network = _core.Network(
        str(tmp_path / "first" / "denoiser.f16.onnx"),
        precision="f32",
        shapes=inputs_for(tiny.networks.denoiser, (16, 16, 16)),
        runtime_dir=str(find_runtime("openvino").folder),
    )
    inputs = {name: np.ones(shape, np.float32) for name, shape in network.inputs.items()}
    wanted = 0.01 / 1.01 * (1 - np.tanh(-2 / 3)) + np.tanh(-2 / 3)
    np.testing.assert_allclose(network(inputs)["denoised"], wanted, atol=1e-3)


def test_a_network_is_opened_from_its_compiled_engine(tiny: Bundle, tmp_path: Path) -> None:
    """What a graph's file name is mapped to is opened in its place, by the core."""
    from x2ct.runtimes.discovery import find_runtime

    def pipeline(files: dict[str, str]) -> _core.Pipeline:
        return _core.Pipeline(
            str(tiny.path),
            tiny.checksum,
            backend="openvino",
            runtime_dir=str(find_runtime("openvino").folder),
            device="cpu",
            precision="f32",
            threads=1,
            shape=tiny.grid.shape,
            voxel_mm=tiny.grid.spacing_mm,
            engines=files,
        )

    copy = tmp_path / "elsewhere.onnx"
    shutil.copy(tiny.file_of(tiny.networks.denoiser), copy)
    assert pipeline({"denoiser.onnx": str(copy)}).precisions["denoiser"] == "f32"
    with pytest.raises(InputError, match=r"none\.onnx: file: found none, expected an ONNX network"):
        pipeline({"denoiser.onnx": str(tmp_path / "none.onnx")})


# ------------------------------------------------------------------------------------------------ the proof


def proven(artefact: str, precision: str, mae_hu: float, network_error: float | None = None) -> Any:
    from x2ct.export.proof import VOLUME_BOUND_HU, Proof

    bound = None if network_error is None else 1e-3
    return Proof(
        artefact,
        "a runtime",
        precision,
        network_error,
        (),
        mae_hu,
        40.0,
        1,
        1.0,
        1.0,
        bound,
        VOLUME_BOUND_HU[precision],
    )


def test_a_plan_is_judged_in_its_own_precision() -> None:
    """An ONNX graph may be run in float32 instead; a plan can't be."""
    pytest.importorskip("torch")
    from x2ct.errors import X2CTError
    from x2ct.export.proof import require

    require([proven("tensorrt", "bf16", 4.9), proven("onnx", "bf16", 5.1), proven("onnx", "f32", 0.4, 1e-4)])
    for precision in ("bf16", "f16", "tf32", "f32"):
        with pytest.raises(X2CTError, match=rf"proof failed, not written: tensorrt in a runtime {precision}: volume"):
            require([proven("tensorrt", precision, 5.1)])
    for wrong in (float("nan"), 2e-3):
        with pytest.raises(X2CTError, match="onnx in a runtime f32: denoiser"):
            require([proven("onnx", "f32", 0.4, wrong)])


def test_a_plan_is_tried_on_its_device_and_torchs_files_on_the_cpu() -> None:
    pytest.importorskip("torch")
    from x2ct.export.proof import trials

    tried = trials(["torchscript", "tensorrt"], plan=("f16", "cuda:1"))
    assert [(artefact, str(trial), trial.device) for artefact, trial in tried] == [
        ("torchscript", "torch torchscript f32", "cpu"),
        ("tensorrt", "tensorrt f16", "cuda:1"),
    ]
