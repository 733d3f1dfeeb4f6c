"""What is packed for a GPU machine (benchmarks/gpu): code that is kept and code that is blanked; stages with limits."""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType

import pytest

GPU = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu"


@pytest.fixture(scope="module")
def keeping() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keep_architecture", GPU / "keep_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def fat_binary(codes: dict[int, bytes]) -> bytes:
    """One with machine code by compute capability."""
    entries = b""
    for capability, code in codes.items():
        padded = code + bytes(-len(code) % 8)
        header = struct.pack("<HHIQ", 2, 0, 64, len(padded)).ljust(28, b"\0") + struct.pack("<I", capability)
        entries += header.ljust(64, b"\0") + padded
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def code(*kernels: str) -> bytes:
    """As much of an object as is looked at."""
    return b"\x7fELF" + b"".join(b"\0.text." + name.encode() for name in kernels) + b"\0"


def squeezed(plain: bytes) -> bytes:
    return subprocess.run(["zstd", "-cq"], input=plain, capture_output=True, check=True).stdout


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd here")
def test_code_is_kept_by_its_kernels_and_its_gpu(keeping: ModuleType) -> None:
    wanted, other = code("_Z3addv", "_Z3mulv"), code("_Z9attentionv")
    library = bytearray(b"head" + fat_binary({80: wanted, 90: squeezed(wanted)}) + fat_binary({90: squeezed(other)}))
    before = bytes(library)
    first, second = keeping.kernels_of(library, 90).values()
    assert (first, second) == (["_Z3addv", "_Z3mulv"], ["_Z9attentionv"])
    keeping.blank(library, 90, lambda names: "_Z3addv" in names)
    assert list(keeping.kernels_of(library, 90).values()) == [first, None]
    assert list(keeping.kernels_of(library, 80).values()) == [None]
    assert len(library) == len(before)
    assert [len(one) for one in keeping.fat_binaries(library)] == [2, 1]  # headers stay


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd here")
def test_a_needed_kernel_in_blanked_code_ends_the_packing(keeping: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    packing = importlib.import_module("pack_onnxruntime")
    monkeypatch.setattr(packing, "KERNELS", {**dict.fromkeys(packing.KERNELS, ""), "Add": "_BinaryElementWise"})
    monkeypatch.setattr(packing, "operators", lambda: {"Add"})
    library = fat_binary({90: code("_Z18_BinaryElementWisev")}) + fat_binary({90: code("_Z9attentionv")})
    packing.cut(kept := bytearray(library), 90)
    assert list(keeping.kernels_of(kept, 90).values()) == [["_Z18_BinaryElementWisev"], None]
    monkeypatch.setattr(packing, "is_needed", lambda names: False)
    beside = fat_binary({90: code("_Z18_BinaryElementWisev", "_Z9attentionv")})
    with pytest.raises(SystemExit, match="operator Add: found its kernels in blanked code"):
        packing.cut(bytearray(beside), 90)
    monkeypatch.setattr(packing, "operators", lambda: {"Erf"})
    with pytest.raises(SystemExit, match="operator Erf: found none of its kernels listed"):
        packing.cut(bytearray(library), 90)


def test_stages_end_before_the_deadline_and_leave_two_files(tmp_path: Path) -> None:
    """The Python of this trial does nothing and does not return."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    out, began = tmp_path / "out", time.time()
    env = {**os.environ, "DEVICE": "cpu", "CARRY": "nothing", "WORK": str(tmp_path / "work"), "PYTHON": str(python)}
    run = subprocess.run([GPU / "verify.sh", out, str(int(began) + 9)], env=env, capture_output=True, check=False)
    assert run.returncode == 1
    assert time.time() - began < 20
    assert sorted(path.name for path in out.iterdir()) == ["results.tar.gz", "summary.txt"]
    summary = (out / "summary.txt").read_text()
    assert "machine: exit code 124 after" in summary
    assert "tests: left out, the deadline is too near" in summary
    with tarfile.open(out / "results.tar.gz") as archive:
        assert "results/machine.log" in archive.getnames()
