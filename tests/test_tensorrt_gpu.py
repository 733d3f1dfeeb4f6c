"""What only a GPU with TensorRT can show: `pytest -m gpu`. Skips with the reason where TensorRT can't be had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import x2ct
from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.errors import Cancelled, InputError, MissingRuntimeError
from x2ct.runtimes.cache.cache import Cache
from x2ct.runtimes.cache.engines import PRECISIONS, TENSORRT, Machine, Store, Volumes, find_plans, inputs_for
from x2ct.runtimes.discovery import find_runtime

pytestmark = pytest.mark.gpu

PLACE = str(find_runtime(TENSORRT).folder or "")
[STATUS] = (one for one in _core.backends({TENSORRT: PLACE}) if one["name"] == TENSORRT)
if "cuda" not in STATUS["devices"]:
    pytest.skip(STATUS["reason"] or str(STATUS["missing_devices"]), allow_module_level=True)
pytest.importorskip("onnx")
pytest.importorskip("torch")

from x2ct.export import formats  # noqa: E402
from x2ct.export.plans import PlanOptions, build_plans  # noqa: E402

BOUND_HU = {"f32": 0.5, "tf32": 5.0, "bf16": 10.0, "f16": 5.0}
"""Mean absolute difference of a whole sample from the CPU's."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_plan_is_built_once_and_says_what_it_is(tiny: Bundle, cache: Cache, precision: str) -> None:
    options = PlanOptions(precision, Volumes.parse("16,16,16:32,32,32:32,32,32"), effort=0)
    done = build_plans(tiny, options, cache)
    assert {name for name in done.engines if name.endswith(".plan")} == {"encoder.plan", "lift.plan", "denoiser.plan"}
    assert not any(one.built for one in build_plans(tiny, options, cache).engines.values())
    machine = Machine.here()
    _, found = find_plans(tiny, Store(cache=cache.root), precision, (24, 32, 16), machine)
    path = str(found["denoiser.onnx"])
    shapes = inputs_for(tiny.networks.denoiser, (24, 32, 16))
    network = _core.Network(path, backend=TENSORRT, device="cuda", shapes=shapes, runtime_dir=PLACE)
    assert (network.precision, network.device) == (precision, "cuda:0")
    assert network.inputs == shapes
    assert network.runtime_version == STATUS["version"]
    wide = inputs_for(tiny.networks.denoiser, (64, 32, 16))
    with pytest.raises(InputError, match="which the plan was built for; build another"):
        _core.Network(path, backend=TENSORRT, device="cuda", shapes=wide, runtime_dir=PLACE)
    other = "f32" if precision != "f32" else "bf16"
    with pytest.raises(MissingRuntimeError, match=f"computes in {precision}; build one in {other}"):
        _core.Network(path, backend=TENSORRT, device="cuda", precision=other, runtime_dir=PLACE)


def test_a_plan_that_is_cut_short_is_a_line(tiny: Bundle, cache: Cache, tmp_path: Path) -> None:
    build_plans(tiny, PlanOptions("f32", effort=0), cache)
    _, found = find_plans(tiny, Store(cache=cache.root), "f32", tiny.grid.shape, Machine.here())
    cut = tmp_path / "cut.plan"
    cut.write_bytes(found["denoiser.onnx"].read_bytes()[:-100])
    with pytest.raises(Exception, match="reading the plan") as caught:
        _core.Network(str(cut), backend=TENSORRT, device="cuda", runtime_dir=PLACE)
    assert "\n" not in str(caught.value)


def test_the_progress_can_end_a_build(tiny: Bundle, tmp_path: Path) -> None:
    network = tiny.networks.denoiser
    profile = {name: (shape, shape, shape) for name, shape in inputs_for(network, (32, 32, 32)).items()}
    seen: list[str] = []

    def told(phase: str, step: int, steps: int) -> bool:
        seen.append(phase)
        return False

    target = tmp_path / "denoiser.plan"
    with pytest.raises(Cancelled):
        _core.build_plan(
            str(tiny.file_of(network)),
            str(target),
            profile,
            backend=TENSORRT,
            device="cuda",
            precision="f32",
            progress=told,
            runtime_dir=PLACE,
        )
    assert seen
    assert not target.exists()


def test_ctrl_c_ends_a_build_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "x2ct", "build", "chest", "--precision", "f32", "--effort", "5"]
    env = {**os.environ, "X2CT_CACHE": str(tmp_path)}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)
    while not any(tmp_path.glob("tensorrt/.*.part")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert not any(tmp_path.glob("tensorrt/.*.part"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_sample_is_the_cpus(tiny: Bundle, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X2CT_CACHE", str(tmp_path))
    build_plans(tiny, PlanOptions(precision, effort=0), Cache())
    ap = x2ct.XRay.load(Path(x2ct.__file__).parent / "models" / "demo" / "ap.npy")
    here = x2ct.Sampler(tiny, backend="openvino", precision="f32").sample(ap=ap, seed=1)
    there = x2ct.Sampler(tiny, backend=TENSORRT, device="cuda", precision=precision).sample(ap=ap, seed=1)
    assert float(np.abs(here.hu - there.hu).mean()) < BOUND_HU[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_export_proves_the_plans_that_it_writes(
    tiny: Bundle, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X2CT_CACHE", str(tmp_path / "cache"))
    done = formats.export(str(tiny.path), None, (TENSORRT,), folder=tmp_path / "copies", precision=precision)
    [row] = (row for row in done.proofs if row.artefact == TENSORRT)
    assert (row.passed, row.precision, row.network_error) == (True, precision, None)
    assert {path.name for path in (tmp_path / "copies").glob("*.plan")} == {
        "encoder.plan",
        "lift.plan",
        "denoiser.plan",
    }
    assert find_plans(tiny, Store(), precision, tiny.grid.shape, Machine.here())[0] == precision
    monkeypatch.setenv("X2CT_CACHE", str(tmp_path / "elsewhere"))
    copies: dict[str, Any] = {"backend": TENSORRT, "device": "cuda", "compiled": tmp_path / "copies"}
    ap = x2ct.XRay.load(Path(x2ct.__file__).parent / "models" / "demo" / "ap.npy")
    with pytest.raises(InputError, match="a file outside this user's cache"):
        x2ct.Sampler(tiny, **copies).sample(ap=ap)
    found = x2ct.Sampler(tiny, **copies, trust=True).run(ap=ap)
    assert found.report["precision"]["denoiser"] == precision
