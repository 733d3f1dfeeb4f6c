"""What is packed for a GPU machine (benchmarks/gpu): code that is kept and code that is blanked; stages with limits."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from benchmarks.gpu import pack_onnxruntime as packing

GPU = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu"


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
def test_code_is_kept_by_its_kernels_and_its_gpu() -> None:
    wanted, other = code("_Z3addv", "_Z3mulv"), code("_Z9attentionv")
    library = bytearray(b"head" + fat_binary({80: wanted, 90: squeezed(wanted)}) + fat_binary({90: squeezed(other)}))
    before = bytes(library)
    first, second = packing.kernels_of(library, 90).values()
    assert (first, second) == (["_Z3addv", "_Z3mulv"], ["_Z9attentionv"])
    packing.blank(library, 90, lambda names: "_Z3addv" in names)
    assert list(packing.kernels_of(library, 90).values()) == [first, None]
    assert list(packing.kernels_of(library, 80).values()) == [None]
    assert len(library) == len(before)
    assert [len(one) for one in packing.fat_binaries(library)] == [2, 1]  # headers stay


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd here")
def test_a_needed_kernel_in_blanked_code_ends_the_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "KERNELS", {**dict.fromkeys(packing.KERNELS, ""), "Add": "_BinaryElementWise"})
    monkeypatch.setattr(packing, "operators", lambda: {"Add"})
    library = fat_binary({90: code("_Z18_BinaryElementWisev")}) + fat_binary({90: code("_Z9attentionv")})
    packing.cut(kept := bytearray(library), 90)
    assert list(packing.kernels_of(kept, 90).values()) == [["_Z18_BinaryElementWisev"], None]
    monkeypatch.setattr(packing, "is_needed", lambda names: False)
    beside = fat_binary({90: code("_Z18_BinaryElementWisev", "_Z9attentionv")})
    with pytest.raises(SystemExit, match="operator Add: found its kernels in blanked code"):
        packing.cut(bytearray(beside), 90)
    monkeypatch.setattr(packing, "operators", lambda: {"Erf"})
    with pytest.raises(SystemExit, match="operator Erf: found none of its kernels listed"):
        packing.cut(bytearray(library), 90)


def test_stages_end_before_the_deadline_and_leave_one_archive(tmp_path: Path) -> None:
    """The Python of this trial does nothing and does not return."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    out, began = tmp_path / "out", time.time()
    env = {**os.environ, "DEVICE": "cpu", "CARRY": "nothing", "WORK": str(tmp_path / "work"), "PYTHON": str(python)}
    command = [str(GPU / "run.sh"), "measure", str(out), str(int(began) + 9)]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert time.time() - began < 20
    assert "machine: exit code 124 after" in run.stdout
    assert "tests: left out, the deadline is too near" in run.stdout
    assert [path.name for path in out.iterdir()] == ["results.tar.gz"]
    with tarfile.open(out / "results.tar.gz") as archive:
        assert {"results/machine.log", "results/summary.txt"} <= set(archive.getnames())


@pytest.mark.parametrize(("mib", "code"), [(0, 0), (63, 1)])
def test_more_than_a_call_may_carry_is_refused(tmp_path: Path, mib: int, code: int) -> None:
    """A checkout of one script, and files that a build made."""
    script = tmp_path / "benchmarks" / "gpu" / "run.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(GPU / "run.sh", script)
    built = [tmp_path / "x2ct/lib/libx2ct_cuda.so", tmp_path / "x2ct/lib/libx2ct_onnxruntime.so"]
    built += [tmp_path / "build/dev/gpu_laws", tmp_path / ".gpu/patients.tar"]
    for path in built:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", path)
    with built[-1].open("ab") as file:
        file.truncate(mib << 20)
    (tmp_path / ".gitignore").write_text("x2ct/\nbuild/\n.gpu/\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "CMakeLists.txt").touch()
    for folder in ("cmake", "csrc"):
        (tmp_path / folder).mkdir()
    run = subprocess.run(
        [script, "carry"], env={**os.environ, "PYTHON": "true"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == code, run.stderr
    assert f"train: {mib}." in run.stdout
    assert "benchmarks/gpu/run.sh train OUT" in run.stdout
