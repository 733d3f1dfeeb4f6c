"""What only a GPU can show: `pytest -m gpu`, by benchmarks/gpu/run.sh. X2CT_BUILD names the build's folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import x2ct
from tests import tiny_bundle
from x2ct import _core
from x2ct.errors import Cancelled, MemoryLimitError
from x2ct.geometry.grid import Grid
from x2ct.runtimes.discovery import find_runtime

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("X2CT_BUILD", ROOT / "build" / "dev"))
DEMO = ROOT / "x2ct" / "models" / "demo"
BOUND_HU = {"f32": 0.5, "tf32": 5.0, "bf16": 2.0}
"""Mean absolute difference of a whole sample from the CPU's: f32 differs by sums' order, the others by rounding."""
RUNTIMES = ("onnxruntime", "torch")
STATUS = {
    one["name"]: one
    for one in _core.backends({name: str(find_runtime(name).folder or "") for name in RUNTIMES})
    if one["name"] in RUNTIMES
}


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test where a runtime can't use the GPU."""
    status = STATUS[name]
    return pytest.mark.skipif(
        "cuda" not in status["devices"], reason=str(status["missing_devices"] or status["reason"])
    )


needs_ort, needs_torch = needs("onnxruntime"), needs("torch")


def test_there_is_a_gpu() -> None:
    """So that a machine without one fails here rather than skips everything."""
    [cuda] = (one for one in _core.devices() if one["name"] == "cuda")
    assert cuda["available"], cuda["reason"]


def test_the_device_does_what_the_cpu_does() -> None:
    """Noise, rows, boxes, the loop queued and replayed, tiles: bit by bit; cancelling, failing, too little memory."""
    run = subprocess.run([BUILD / "gpu_laws", ROOT / "x2ct" / "lib"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_every_kernel_passes_its_check() -> None:
    """What `x2ct info --check --device cuda` tells a user."""
    checks = _core.check_device("cuda")
    assert len(checks) > 10
    assert not [one for one in checks if not one["passed"]]


def xrays() -> dict[str, x2ct.XRay]:
    return {name: x2ct.XRay.load(DEMO / f"{name}.npy") for name in ("ap", "lateral")}


@pytest.fixture(scope="module")
def sampler() -> x2ct.Sampler:
    return x2ct.Sampler("chest", device="cuda", precision="f32")


@needs_ort
@pytest.mark.parametrize("precision", ["f32", "tf32"])
def test_onnx_runtime_samples_the_cpus_volume(precision: str) -> None:
    found = x2ct.Sampler("chest", device="cuda", precision=precision).run(**xrays(), seed=5)
    wanted = x2ct.Sampler("chest", device="cpu", backend="onnxruntime", precision="f32").run(**xrays(), seed=5)
    assert found.report["device"] == "cuda:0"
    assert found.report["precision"]["denoiser"] == precision
    assert np.abs(found.volume.hu - wanted.volume.hu).mean() < BOUND_HU[precision]


@needs_ort
def test_the_same_seed_gives_the_same_bytes_eagerly_and_replayed(sampler: x2ct.Sampler) -> None:
    """The first run records in the runtime, the next replay; another one never records."""
    given = xrays()
    first, *others = (sampler.sample(**given, seed=3).hu.tobytes() for _ in range(4))
    assert all(other == first for other in others)
    eager = x2ct.Sampler(
        "chest",
        device="cuda",
        backend="onnxruntime",
        precision="f32",
        provider="cuda",
        provider_options={"enable_cuda_graph": "0"},
    )
    assert eager.sample(**given, seed=3).hu.tobytes() == first


@needs_ort
def test_other_x_rays_and_seeds_are_not_the_recorded_ones(sampler: x2ct.Sampler) -> None:
    given = xrays()
    both, one = sampler.sample(**given, seed=3).hu, sampler.sample(ap=given["ap"], seed=3).hu
    assert np.abs(both - one).mean() > 1
    assert np.abs(both - sampler.sample(**given, seed=4).hu).mean() > 1
    assert sampler.sample(**given, seed=3).hu.tobytes() == both.tobytes()


@needs_ort
def test_the_host_waits_for_rows_and_the_result_alone(sampler: x2ct.Sampler) -> None:
    for _ in range(3):
        report = sampler.run(**xrays(), seed=0).report
    # Each row, and the result, which comes in one piece.
    assert report["timings"]["waits"] <= report["evaluations"] + 1


@pytest.fixture(scope="module")
def torchscript(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """TorchScript of the bundled model in f32 and bf16, in a cache of its own."""
    from x2ct.bundle import Bundle
    from x2ct.export.torchfiles import builds
    from x2ct.runtimes.cache.cache import Cache

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("X2CT_CACHE", str(tmp_path_factory.mktemp("cache")))
        for precision in ("f32", "bf16"):
            for recipe, build in builds(Bundle.load("chest"), "torchscript", "cuda", precision):
                Cache().obtain(recipe, build)
        yield


@needs_torch
@pytest.mark.usefixtures("torchscript")
@pytest.mark.parametrize("precision", ["f32", "tf32", "bf16"])
def test_torch_samples_the_cpus_volume(precision: str) -> None:
    found = x2ct.Sampler("chest", device="cuda", backend="torch", precision=precision).run(**xrays(), seed=5)
    wanted = x2ct.Sampler("chest", device="cpu", backend="onnxruntime", precision="f32").run(**xrays(), seed=5)
    assert found.report["precision"]["denoiser"] == precision
    assert np.abs(found.volume.hu - wanted.volume.hu).mean() < BOUND_HU[precision]


@needs_torch
@pytest.mark.usefixtures("torchscript")
def test_what_torch_recorded_keeps_its_memory() -> None:
    """Replays are the eager evaluation's bytes, though others allocate and write whatever PyTorch has to give."""
    import torch

    options: dict[str, Any] = {"device": "cuda", "backend": "torch", "precision": "bf16"}
    given, recorded = xrays(), x2ct.Sampler("chest", **options, provider_options={"cuda_graph": "1"})
    first = recorded.sample(**given, seed=3).hu.tobytes()
    for _ in range(2):
        others = [torch.full((size,), float("nan"), device="cuda") for size in (1 << k for k in range(8, 27))]
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        assert recorded.sample(**given, seed=3).hu.tobytes() == first
        del others
    eager = x2ct.Sampler("chest", **options, provider_options={"cuda_graph": "0"})
    assert eager.sample(**given, seed=3).hu.tobytes() == first


@needs_torch
@pytest.mark.usefixtures("torchscript")
def test_torch_makes_the_host_wait_for_rows_and_the_result_alone() -> None:
    sampler = x2ct.Sampler("chest", device="cuda", backend="torch", precision="bf16")
    for _ in range(3):
        report = sampler.run(**xrays(), seed=0).report
    assert report["timings"]["waits"] <= report["evaluations"] + 1


@needs_ort
def test_tiles_are_the_whole() -> None:
    whole = x2ct.Sampler("chest", device="cuda", precision="f32")
    tiled = x2ct.Sampler("chest", device="cuda", precision="f32", memory=900 << 20)
    found, wanted = tiled.run(**xrays(), seed=1, steps=2), whole.run(**xrays(), seed=1, steps=2)
    assert found.report["tiles"] is not None
    assert np.abs(found.volume.hu - wanted.volume.hu).mean() < BOUND_HU["f32"]


@needs_ort
@pytest.mark.parametrize("consistency", ["last", "every"])
def test_consistency_is_the_cpus(sampler: x2ct.Sampler, consistency: str) -> None:
    found = sampler.run(**xrays(), seed=1, steps=2, consistency=consistency)
    on_cpu = x2ct.Sampler("chest", device="cpu", backend="onnxruntime", precision="f32")
    wanted = on_cpu.run(**xrays(), seed=1, steps=2, consistency=consistency)
    assert np.abs(found.volume.hu - wanted.volume.hu).mean() < BOUND_HU["f32"]


@needs_ort
def test_consistency_waits_for_rays_alone(sampler: x2ct.Sampler) -> None:
    """Before and after a pull the rays' integrals come to the host; no volume does."""
    for _ in range(3):
        report = sampler.run(**xrays(), seed=0, consistency="every").report
    assert report["consistency"]["method"] == "closed form"
    assert report["timings"]["waits"] <= 3 * report["evaluations"] + 5


@needs_ort
def test_a_cancelled_run_ends_and_the_sampler_goes_on(sampler: x2ct.Sampler) -> None:
    token = _core.CancelToken()
    steps = []

    def progress(done: int, total: int, sigma: float) -> None:
        steps.append(done)
        if done == 2:
            token.cancel()

    wanted = sampler.sample(**xrays(), seed=2).hu
    with pytest.raises(Cancelled):
        sampler.sample(**xrays(), seed=2, progress=progress, cancel=token)
    assert steps[:2] == [1, 2]
    assert len(steps) <= 3
    assert sampler.sample(**xrays(), seed=2).hu.tobytes() == wanted.tobytes()


@needs_ort
def test_a_grid_beyond_the_gpus_memory_is_an_error_of_its_own(tmp_path: Path) -> None:
    tiny_bundle.write(tmp_path / "tiny.x2ct")
    image = np.random.default_rng(0).uniform(0, 6, tiny_bundle.DETECTOR).astype(np.float32)
    grid = Grid((8192, 4096, 4096), (1.0, 1.0, 1.0))
    with pytest.raises(MemoryLimitError):
        x2ct.Sampler(tmp_path / "tiny.x2ct", device="cuda", grid=grid).sample(ap=x2ct.XRay(image, calibrated=True))
