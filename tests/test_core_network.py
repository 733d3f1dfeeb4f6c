"""The OpenVINO backend on small ONNX networks made here: values, precisions, shapes, sampler, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.processes import status_in_a_fresh_process
from tests.tiny_network import GRID, RUNTIME, TABLE, WHOLE, Array, arrays, by_onnx, save
from x2ct import _core
from x2ct.errors import Cancelled, InputError, MissingRuntimeError, X2CTError

NATIVE = _core.backends({"openvino": RUNTIME})[0]["precisions"]["cpu"]


def load(path: str, precision: str = "f32", **options: Any) -> _core.Network:
    options.setdefault("shapes", {"x": WHOLE, "sigma": [1], "c0": WHOLE})
    return _core.Network(path, precision=precision, threads=1, runtime_dir=RUNTIME, **options)


@pytest.fixture(scope="module")
def network(denoiser_file: str) -> _core.Network:
    return load(denoiser_file)


# ------------------------------------------------------------------------------------------------ one network


def test_values_are_onnx_reference_values(network: _core.Network, denoiser_file: str) -> None:
    inputs = arrays()
    wanted = by_onnx(denoiser_file, inputs)
    assert np.abs(network(inputs)["denoised"] - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_it_says_what_it_is(network: _core.Network) -> None:
    assert network.inputs == {"x": tuple(WHOLE), "sigma": (1,), "c0": tuple(WHOLE)}
    assert network.outputs == {"denoised": tuple(WHOLE)}
    assert network.precision == "f32"
    assert network.device == "cpu"
    from importlib.metadata import version

    assert network.runtime_version == version("openvino")


def test_inputs_are_left_alone_and_outputs_are_new(network: _core.Network) -> None:
    inputs = arrays()
    before = {name: array.copy() for name, array in inputs.items()}
    first = network(inputs)["denoised"]
    kept = first.copy()
    network(arrays(seed=1))
    assert np.array_equal(first, kept)
    assert all(np.array_equal(inputs[name], before[name]) for name in inputs)


def test_free_axes_take_any_size(denoiser_file: str) -> None:
    free = load(denoiser_file, shapes={})
    assert free.inputs["x"] == (-1, 1, -1, -1, -1)
    for grid in ([1, 1, 6, 5, 4], [2, 1, 3, 9, 8]):
        inputs = {
            "x": np.ones(grid, np.float32),
            "sigma": np.full(grid[0], 0.5, np.float32),
            "c0": np.ones(grid, np.float32),
        }
        found = free(inputs)["denoised"]
        assert found.shape == tuple(grid)
        assert np.allclose(found, by_onnx(denoiser_file, inputs), atol=1e-5)


def test_several_outputs_and_any_rank(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["a", "axes"], ["total"], keepdims=0),
        helper.make_node("Add", ["a", "a"], ["twice"]),
    ]
    path = save(tmp_path / "two.onnx", nodes, {"a": [2, 3]}, {"total": [2], "twice": [2, 3]}, axes=np.array([1]))
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = load(path, shapes={})({"a": a})
    assert found["total"].tolist() == [3, 12]
    assert np.array_equal(found["twice"], 2 * a)


def test_calls_from_several_threads_wait_for_each_other(network: _core.Network, denoiser_file: str) -> None:
    wanted = {seed: network(arrays(seed))["denoised"] for seed in range(4)}
    found: dict[int, list[Array]] = {seed: [] for seed in wanted}

    def call(seed: int) -> None:
        for _ in range(5):
            found[seed].append(network(arrays(seed))["denoised"])

    threads = [threading.Thread(target=call, args=(seed,)) for seed in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, wanted[seed]) for seed in wanted for one in found[seed])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.zeros(WHOLE)}, "x: dtype: found float64, expected float32"),
        ({"x": np.zeros(WHOLE, ">f4")}, "x: dtype"),
        ({"x": np.zeros([1, 1, 20, 12, 16], np.float32).T.reshape(WHOLE, order="F")}, "x: layout"),
        ({"x": np.zeros([1, 1, 8, 8, 8], np.float32)}, "x: shape: found .1, 1, 8, 8, 8., expected"),
        ({"x": [[1.0]]}, "x: found list, expected a NumPy array"),
        ({"x": None}, "x: found NoneType"),
        ({"extra": np.zeros(1, np.float32)}, "inputs: found 4 arrays, expected 3"),
    ],
    ids=["float64", "big-endian", "strided", "shape", "list", "none", "extra"],
)
def test_bad_arrays_are_refused(network: _core.Network, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        network({**arrays(), **change})
    assert "\n" not in str(caught.value)
    network(arrays())


def test_a_missing_array_is_named(network: _core.Network) -> None:
    inputs = arrays()
    del inputs["c0"]
    with pytest.raises(InputError, match="c0: found none, expected an array of shape"):
        network(inputs)


# ------------------------------------------------------------------------------------------------ precisions


@pytest.mark.parametrize("precision", NATIVE)
def test_native_precisions_are_what_was_asked_for(denoiser_file: str, precision: str) -> None:
    network = load(denoiser_file, precision)
    assert network.precision == precision
    inputs = arrays()
    wanted = by_onnx(denoiser_file, inputs)
    error = np.abs(network(inputs)["denoised"] - wanted).max() / np.abs(wanted).max()
    assert error < {"f32": 1e-5, "bf16": 2e-2, "f16": 2e-3}[precision]
    if precision != "f32":
        assert error > 1e-5  # it did compute in it


def test_auto_is_the_fastest_native_precision(denoiser_file: str) -> None:
    flags = Path("/proc/cpuinfo").read_text()
    expected = "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "f32"
    assert load(denoiser_file, "auto").precision == expected


@pytest.mark.parametrize("precision", [p for p in ("bf16", "f16") if p not in NATIVE])
def test_a_precision_that_would_become_another_is_refused(denoiser_file: str, precision: str) -> None:
    with pytest.raises(MissingRuntimeError, match=f"precision {precision}: device cpu has no instructions for it"):
        load(denoiser_file, precision)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"precision": "int8"}, InputError, "precision: found .int8."),
        ({"device": "cuda"}, MissingRuntimeError, "device cuda"),
        ({"backend": "paper"}, InputError, "backend: found .paper., expected openvino, onnxruntime, tensorrt"),
        ({"provider": "cpu"}, InputError, "openvino has no execution providers"),
        ({"provider_options": {"a": "b"}}, InputError, "openvino has no execution providers"),
        ({"precision": "tf32"}, MissingRuntimeError, "precision tf32: device cpu has no instructions"),
        ({"shapes": {"y": [1]}}, InputError, "shapes: found y"),
        ({"shapes": {"x": [1, 2, 8, 8, 8]}}, InputError, "shapes"),
        ({"shapes": {"sigma": [0]}}, InputError, "sigma: found shape .0."),
    ],
    ids=["precision", "device", "backend", "provider", "provider options", "tf32", "name", "shape", "empty"],
)
def test_bad_options_are_refused(
    denoiser_file: str, options: dict[str, Any], error: type[X2CTError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        load(denoiser_file, **options)
    assert "\n" not in str(caught.value)


def test_negative_threads_are_refused(denoiser_file: str) -> None:
    with pytest.raises(InputError, match="threads: found -1"):
        _core.Network(denoiser_file, threads=-1, runtime_dir=RUNTIME)


def test_bad_files_are_refused(tmp_path: Path, denoiser_file: str) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a network")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(Path(denoiser_file).read_bytes()[:200])
    for path in (tmp_path / "missing.onnx", tmp_path, text, cut):
        with pytest.raises(InputError, match=f"^{path}: ") as caught:
            load(str(path), shapes={})
        assert "\n" not in str(caught.value)


def test_other_types_than_float32_are_refused(tmp_path: Path) -> None:
    info = (
        helper.make_tensor_value_info("a", TensorProto.INT64, [2]),
        helper.make_tensor_value_info("b", TensorProto.INT64, [2]),
    )
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "tiny", [info[0]], [info[1]])
    path = tmp_path / "int.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    with pytest.raises(InputError, match="a: found i64, expected f32"):
        load(str(path), shapes={})


# ------------------------------------------------------------------------------------------------ the runtime


def test_the_installed_runtime_is_available() -> None:
    status = status_in_a_fresh_process(RUNTIME)
    assert status["available"], status["reason"]
    assert status["devices"] == ["cpu"]
    assert "f32" in status["precisions"]["cpu"]
    assert status["reason"] == ""


def test_the_folder_of_libraries_will_do_too() -> None:
    assert status_in_a_fresh_process(Path(RUNTIME) / "libs")["available"]


def test_a_missing_runtime_is_a_line_that_says_what_to_install(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        status = status_in_a_fresh_process(folder)
        assert not status["available"]
        assert "pip install openvino==" in status["reason"]
        assert "is not installed" in status["reason"]
        assert "\n" not in status["reason"]


def test_a_mismatched_runtime_is_named(tmp_path: Path) -> None:
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "libopenvino.so.2530").write_bytes(b"")
    reason = status_in_a_fresh_process(tmp_path)["reason"]
    assert "another version there (libopenvino.so.2530)" in reason
    assert "pip install openvino==" in reason


def test_a_broken_runtime_is_a_line(tmp_path: Path) -> None:
    (library,) = (Path(RUNTIME) / "libs").glob("libopenvino.so.*")
    (tmp_path / library.name).write_bytes(b"not a library")
    status = status_in_a_fresh_process(tmp_path)
    assert not status["available"]
    assert "can't be opened" in status["reason"]


def test_loading_a_network_without_the_runtime_raises(tmp_path: Path, denoiser_file: str) -> None:
    code = (
        "import sys; from x2ct import _core; from x2ct.errors import MissingRuntimeError\n"
        "try: _core.Network(sys.argv[1], runtime_dir=sys.argv[2])\n"
        "except MissingRuntimeError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, denoiser_file, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "pip install openvino==" in run.stdout


def test_products_carry_no_path_of_the_build() -> None:
    module = Path(_core.__file__)
    library = module.parent / "lib" / "libx2ct_openvino.so"
    for product in (module, library):
        dynamic = subprocess.run(["readelf", "-d", product], capture_output=True, text=True, check=True).stdout
        assert "RPATH" not in dynamic
        assert "RUNPATH" not in dynamic
        assert ("libopenvino" in dynamic) == (product == library)


def test_openvinos_own_module_may_be_loaded_beside_it(denoiser_file: str) -> None:
    code = (
        "import sys; from x2ct import _core\n"
        "n = _core.Network(sys.argv[1], runtime_dir=sys.argv[2])\n"
        "import openvino; print(len(openvino.Core().available_devices) > 0, n.precision)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, denoiser_file, RUNTIME], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("True")


# ------------------------------------------------------------------------------------------------ the sampler


@pytest.fixture
def sampler(network: _core.Network) -> _core.Sampler:
    sampler = _core.Sampler(network, GRID)
    sampler.set_condition({"c0": arrays()["c0"]})
    return sampler


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp-2m"])
def test_a_run_is_the_loop_over_the_network(sampler: _core.Sampler, network: _core.Network, solver: str) -> None:
    """The same table with the network called from Python: the same bytes, so the zero-copy binding is right."""
    table = _core.Table.make(solver, _core.schedule("log-snr", 5, 0.03, 20.0))
    c0 = arrays()["c0"]

    def denoise(x: Array, sigma: float) -> Array:
        return network({"x": x.reshape(WHOLE), "sigma": np.array([sigma], np.float32), "c0": c0})["denoised"][0, 0]

    found = sampler.run(table, seed=3)
    assert found.shape == GRID
    assert found.dtype == np.float32
    assert found.tobytes() == _core.run(denoise, table, GRID, seed=3).tobytes()


def test_repeated_runs_give_the_same_bytes(sampler: _core.Sampler, denoiser_file: str) -> None:
    first = sampler.run(TABLE, seed=3)
    assert sampler.run(TABLE, seed=3).tobytes() == first.tobytes()
    assert sampler.run(TABLE, seed=4).tobytes() != first.tobytes()
    other = _core.Sampler(load(denoiser_file), GRID, threads=3)
    other.set_condition({"c0": arrays()["c0"]})
    assert other.run(TABLE, seed=3).tobytes() == first.tobytes()


def test_thread_counts_agree_within_the_bound(denoiser_file: str) -> None:
    """OpenVINO may sum in another order with other threads: within 1e-5 of the range, for this network."""

    def run(threads: int) -> Array:
        shapes = {"x": WHOLE, "sigma": [1], "c0": WHOLE}
        network = _core.Network(denoiser_file, precision="f32", threads=threads, shapes=shapes, runtime_dir=RUNTIME)
        sampler = _core.Sampler(network, GRID)
        sampler.set_condition({"c0": arrays()["c0"]})
        return sampler.run(TABLE, seed=3)

    one, two = run(1), run(2)
    assert np.abs(one - two).max() < 1e-5 * np.ptp(one)


def test_a_condition_can_be_set_again(sampler: _core.Sampler) -> None:
    first = sampler.run(TABLE, seed=3)
    sampler.set_condition({"c0": arrays(seed=1)["c0"]})
    assert not np.array_equal(sampler.run(TABLE, seed=3), first)
    sampler.set_condition({"c0": arrays()["c0"]})
    assert np.array_equal(sampler.run(TABLE, seed=3), first)


def test_conditions_are_checked(network: _core.Network) -> None:
    sampler = _core.Sampler(network, GRID)
    with pytest.raises(InputError, match="condition c0: found none"):
        sampler.run(TABLE, seed=0)
    for bad in ({"c1": np.zeros(1, np.float32)}, {"c0": np.zeros(3, np.float32)}, {"c0": np.zeros(WHOLE)}, {"c0": 1}):
        with pytest.raises(InputError, match=r"c0|c1"):
            sampler.set_condition(bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="x: found shape"):
        _core.Sampler(network, (8, 8, 8))


def test_cancelled_and_broken_runs_leave_it_usable(sampler: _core.Sampler) -> None:
    wanted = sampler.run(TABLE, seed=3)
    token = _core.CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        sampler.run(TABLE, seed=3, cancel=token)
    with pytest.raises(ZeroDivisionError):
        sampler.run(TABLE, seed=3, progress=lambda *_: 1 // 0)
    assert np.array_equal(sampler.run(TABLE, seed=3), wanted)


def test_timings_add_up(sampler: _core.Sampler) -> None:
    sampler.run(TABLE, seed=3)
    timings = sampler.timings
    assert timings["evaluations"] == TABLE.evaluations
    assert 0 < timings["network_s"] + timings["kernel_s"] <= timings["total_s"]


LONG = _core.Table.make("euler", _core.schedule("edm", 20000, 0.03, 20.0))


def test_the_gil_is_free_and_another_thread_can_cancel(sampler: _core.Sampler) -> None:
    token = _core.CancelToken()
    ended: list[BaseException] = []

    def run() -> None:
        try:
            sampler.run(LONG, seed=0, cancel=token)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    counted, until = 0, time.perf_counter() + 0.3
    while time.perf_counter() < until:
        counted += 1
    with pytest.raises(X2CTError, match="busy"):
        sampler.run(TABLE, seed=0)
    token.cancel()
    thread.join(20)
    assert not thread.is_alive()
    assert counted > 1000
    assert isinstance(ended[0], Cancelled)


def test_ctrl_c_ends_a_run_without_a_callback(sampler: _core.Sampler) -> None:
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        sampler.run(LONG, seed=0)
    assert time.perf_counter() - started < 10
    timer.join()


def test_the_sampler_outlives_its_network(denoiser_file: str) -> None:
    sampler = _core.Sampler(load(denoiser_file), GRID)  # no one else holds the network
    sampler.set_condition({"c0": arrays()["c0"]})
    assert np.isfinite(sampler.run(TABLE, seed=0)).all()
