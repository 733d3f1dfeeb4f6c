"""What each backend that opens ONNX networks keeps to, on small networks made here: values, shapes, what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.tiny_network import GRID, TABLE, WHOLE, Array, arrays, by_onnx, save
from x2ct import _core
from x2ct.errors import InputError
from x2ct.runtimes.discovery import find_runtime

Load = Callable[..., _core.Network]

BACKENDS = [
    one for one in ("openvino", "onnxruntime") if {each["name"]: each for each in _core.backends()}[one]["built"]
]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def load(backend: str) -> Load:
    """A network in f32 and on one thread, of the tiny denoiser's shapes unless others are named."""
    usual = {
        "backend": backend,
        "precision": "f32",
        "threads": 1,
        "runtime_dir": str(find_runtime(backend).folder),
        "shapes": {"x": WHOLE, "sigma": [1], "c0": WHOLE},
    }
    return lambda path, **options: _core.Network(str(path), **{**usual, **options})


@pytest.fixture(scope="module")
def network(load: Load, denoiser_file: str) -> _core.Network:
    return load(denoiser_file)


# ------------------------------------------------------------------------------------------------ one network


def test_values_are_onnx_reference_values(network: _core.Network, denoiser_file: str) -> None:
    inputs = arrays()
    wanted = by_onnx(denoiser_file, inputs)
    assert np.abs(network(inputs)["denoised"] - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_it_says_what_it_is(network: _core.Network, backend: str) -> None:
    assert network.inputs == {"x": tuple(WHOLE), "sigma": (1,), "c0": tuple(WHOLE)}
    assert network.outputs == {"denoised": tuple(WHOLE)}
    assert (network.precision, network.device) == ("f32", "cpu")
    assert network.runtime_version == version(backend)


def test_inputs_are_left_alone_and_outputs_are_new(network: _core.Network) -> None:
    inputs = arrays()
    before = {name: array.copy() for name, array in inputs.items()}
    first = network(inputs)["denoised"]
    kept = first.copy()
    network(arrays(seed=1))
    assert np.array_equal(first, kept)
    assert all(np.array_equal(inputs[name], before[name]) for name in inputs)


def test_free_axes_take_any_size(load: Load, denoiser_file: str) -> None:
    free = load(denoiser_file, shapes={})
    assert free.inputs["x"] == (-1, 1, -1, -1, -1)
    for grid in ([1, 1, 6, 5, 4], [2, 1, 3, 9, 8], [1, 1, 6, 5, 4]):
        inputs = {
            "x": np.ones(grid, np.float32),
            "sigma": np.full(grid[0], 0.5, np.float32),
            "c0": np.ones(grid, np.float32),
        }
        found = free(inputs)["denoised"]
        assert found.shape == tuple(grid)
        assert np.allclose(found, by_onnx(denoiser_file, inputs), atol=1e-5)


def test_several_outputs_and_any_rank(load: Load, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["a", "axes"], ["total"], keepdims=0),
        helper.make_node("Add", ["a", "a"], ["twice"]),
    ]
    path = save(tmp_path / "two.onnx", nodes, {"a": [2, 3]}, {"total": [2], "twice": [2, 3]}, axes=np.array([1]))
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = load(path, shapes={})({"a": a})
    assert found["total"].tolist() == [3, 12]
    assert np.array_equal(found["twice"], 2 * a)


def test_calls_from_several_threads_wait_for_each_other(network: _core.Network) -> None:
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


def test_thread_counts_agree_within_the_bound(load: Load, denoiser_file: str) -> None:
    """A runtime may sum in another order with other threads: within 1e-5 of the range, for this network."""

    def run(threads: int) -> Array:
        sampler = _core.Sampler(load(denoiser_file, threads=threads), GRID)
        sampler.set_condition({"c0": arrays()["c0"]})
        return sampler.run(TABLE, seed=3)

    one, three = run(1), run(3)
    assert np.abs(one - three).max() < 1e-5 * np.ptp(one)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp-2m"])
def test_a_run_is_the_loop_over_the_network(network: _core.Network, solver: str) -> None:
    """The same table with the network called from Python: the same bytes, so the zero-copy binding is right."""
    table = _core.Table.make(solver, _core.schedule("log-snr", 5, 0.03, 20.0))
    c0 = arrays()["c0"]
    sampler = _core.Sampler(network, GRID)
    sampler.set_condition({"c0": c0})

    def denoise(x: Array, sigma: float) -> Array:
        return network({"x": x.reshape(WHOLE), "sigma": np.array([sigma], np.float32), "c0": c0})["denoised"][0, 0]

    found = sampler.run(table, seed=3)
    assert (found.shape, found.dtype) == (GRID, np.float32)
    assert found.tobytes() == _core.run(denoise, table, GRID, seed=3).tobytes()
    assert sampler.run(table, seed=3).tobytes() == found.tobytes()
    assert sampler.run(table, seed=4).tobytes() != found.tobytes()


# ------------------------------------------------------------------------------------------------ what is refused


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int4"}, "precision: found .int4."),
        ({"threads": -1}, "threads: found -1"),
        ({"shapes": {"y": [1]}}, "shapes: found y"),
        ({"shapes": {"x": [1, 2, 8, 8, 8]}}, "shapes"),
        ({"shapes": {"sigma": [0]}}, "sigma: found shape .0."),
    ],
    ids=["precision", "threads", "name", "shape", "empty"],
)
def test_bad_options_are_refused(load: Load, denoiser_file: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load(denoiser_file, **options)
    assert "\n" not in str(caught.value)


def test_bad_files_are_refused(load: Load, tmp_path: Path, denoiser_file: str) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a network")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(Path(denoiser_file).read_bytes()[:200])
    for path in (tmp_path / "missing.onnx", tmp_path, text, cut):
        with pytest.raises(InputError, match=f"^{path}: ") as caught:
            load(path, shapes={})
        assert "\n" not in str(caught.value)


def test_other_types_than_float32_are_refused(load: Load, tmp_path: Path) -> None:
    a, b = (helper.make_tensor_value_info(name, TensorProto.INT64, [2]) for name in "ab")
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "tiny", [a], [b])
    path = tmp_path / "int.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    with pytest.raises(InputError, match=r"a: found (i64|another type), expected (a tensor of )?f32"):
        load(path, shapes={})
