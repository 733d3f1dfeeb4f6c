"""Devices: what there is, what is missing and why; and the CUDA device's library, which loads where there is no GPU."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from x2ct import _core
from x2ct.commands.info_facts import about, sections
from x2ct.errors import MissingRuntimeError
from x2ct.runtimes.discovery import choose

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = Path(_core.__file__).parent / "lib" / "libx2ct_cuda.so"
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
[CUDA] = (one for one in _core.devices() if one["name"] == "cuda")

needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason="built without nvcc")
needs_no_gpu = pytest.mark.skipif(CUDA["available"], reason="there is a GPU here")


def test_the_cpu_is_always_there() -> None:
    assert _core.devices()[0] == {"name": "cpu", "built": True, "available": True, "reason": "", "found": []}


@needs_no_gpu
def test_a_missing_gpu_is_one_line_with_exit_code_3() -> None:
    words = "NVIDIA driver" if CUDA["built"] else "this build of x2ct has no libx2ct_cuda.so"
    for device in ("cuda", "cuda:1"):
        with pytest.raises(MissingRuntimeError, match=f"^device cuda: .*{words}") as caught:
            choose(device)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 3


@needs_no_gpu
def test_info_says_why() -> None:
    rows = dict(dict(sections(about()))["Devices"])
    assert rows["cpu"] == "usable"
    assert rows["cuda"].startswith("missing: ")


@needs_no_gpu
@pytest.mark.parametrize("name", ["measure", "latency_lab"])
def test_a_gpus_measurements_end_at_once_without_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line with exit code 3, before anything is computed on the CPU for comparison."""
    pytest.importorskip("torch")
    script = importlib.import_module(f"benchmarks.gpu.{name}")
    monkeypatch.setattr(sys, "argv", [name, "chest", "-o", str(tmp_path / "made")])
    with pytest.raises(SystemExit) as caught:
        script.main()
    [line] = capsys.readouterr().err.splitlines()
    assert (caught.value.code, line[: line.index("device cuda")]) == (3, f"{name}.py: error: ")
    assert not list(tmp_path.iterdir())


def test_a_backend_that_runs_on_cpus_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"name": "cuda", "built": True, "available": True, "reason": "", "found": ["one", "another"]}
    monkeypatch.setattr(_core, "devices", lambda: [here])
    assert choose("cuda:1").device == "cuda:1"
    assert choose("cuda").backend == "onnxruntime"
    with pytest.raises(MissingRuntimeError, match="device cuda: openvino runs on CPUs"):
        choose("cuda", "openvino")
    with pytest.raises(MissingRuntimeError, match="device cuda:2: found 2 of them"):
        choose("cuda:2")


@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
def test_a_build_with_nvcc_has_the_device() -> None:
    assert LIBRARY.exists()


@needs_library
def test_the_library_needs_neither_driver_nor_runtime_to_load() -> None:
    dynamic = subprocess.run(["readelf", "-d", LIBRARY], capture_output=True, text=True, check=True).stdout
    assert "libcuda" not in dynamic.replace("libx2ct_cuda", "")
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic
    assert ctypes.CDLL(str(LIBRARY), os.RTLD_NOW).x2ct_device_abi() > 0


@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
def test_what_nvcc_makes_rounds_as_the_host_does(tmp_path: Path) -> None:
    """No operation that may be contracted, approximated or flushed: sums and products are all made with .rn."""
    recipe = (ROOT / "cmake" / "cuda.cmake").read_text()
    flags = re.findall(r"(?<= )-(?:std|O3|fmad|prec-div|prec-sqrt|ftz|-expt-relaxed-constexpr)[\w=+]*", recipe)
    assert len(flags) == 7
    made = tmp_path / "launch.ptx"
    source = ROOT / "csrc" / "devices" / "cuda" / "launch.cu"
    command = [NVCC, *flags, "-arch=compute_80", "-ptx", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}"]
    subprocess.run([*command, source, "-o", made], check=True)
    text = made.read_text()
    assert "fma.rn.f32" in text
    assert not re.findall(r"\b(?:mul|add|sub)\.(?:ftz\.)?f(?:32|64)\b|\.approx|\.ftz|\.full", text)
