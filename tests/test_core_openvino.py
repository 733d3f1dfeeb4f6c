"""The OpenVINO backend: its precisions, its installation, and the sampler over a network of it."""

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
import pytest

from tests.processes import status_in_a_fresh_process
from tests.tiny_network import GRID, RUNTIME, TABLE, WHOLE, arrays, by_onnx
from x2ct import _core
from x2ct.errors import Cancelled, InputError, MissingRuntimeError, X2CTError

NATIVE = _core.backends({"openvino": RUNTIME})[0]["precisions"]["cpu"]


def load(path: str, precision: str = "f32", **options: Any) -> _core.Network:
    options.setdefault("shapes", {"x": WHOLE, "sigma": [1], "c0": WHOLE})
    return _core.Network(path, precision=precision, threads=1, runtime_dir=RUNTIME, **options)


@pytest.fixture(scope="module")
def network(denoiser_file: str) -> _core.Network:
    return load(denoiser_file)


# ------------------------------------------------------------------------------------------------ precisions


@pytest.mark.parametrize("precision", [one for one in NATIVE if one != "int8"])
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
        ({"device": "cuda"}, MissingRuntimeError, "device cuda"),
        ({"backend": "paper"}, InputError, "backend: found .paper., expected openvino, onnxruntime, tensorrt"),
        ({"provider": "cpu"}, InputError, "openvino has no execution providers"),
        ({"provider_options": {"a": "b"}}, InputError, "openvino has no execution providers"),
        ({"precision": "tf32"}, MissingRuntimeError, "precision tf32: device cpu has no instructions"),
    ],
    ids=["device", "backend", "provider", "provider options", "tf32"],
)
def test_bad_options_are_refused(
    denoiser_file: str, options: dict[str, Any], error: type[X2CTError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        load(denoiser_file, **options)
    assert "\n" not in str(caught.value)


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


def test_repeated_runs_give_the_same_bytes(sampler: _core.Sampler, denoiser_file: str) -> None:
    first = sampler.run(TABLE, seed=3)
    assert sampler.run(TABLE, seed=3).tobytes() == first.tobytes()
    assert sampler.run(TABLE, seed=4).tobytes() != first.tobytes()
    other = _core.Sampler(load(denoiser_file), GRID, threads=3)
    other.set_condition({"c0": arrays()["c0"]})
    assert other.run(TABLE, seed=3).tobytes() == first.tobytes()


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
