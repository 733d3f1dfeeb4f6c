"""Builds the C++ core with CMake; everything else about the package stands in pyproject.toml.

An editable install builds in build/dev, where `make build` does too, and puts the products into the checkout's x2ct/.
A wheel is built apart, from nothing. CMAKE_ARGS in the environment goes to CMake: CMAKE_ARGS=-DX2CT_TORCH=OFF.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildPackage(build_py):
    """Copies the package's files, and none that an earlier build left behind."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "x2ct", ignore_errors=True)
        super().run()


class BuildCore(build_ext):
    """The whole of csrc/ as one extension: the module and the backends' libraries."""

    def run(self) -> None:
        cmake = shutil.which("cmake")
        if cmake is None:
            raise SystemExit("x2ct: building the C++ core needs cmake: pip install cmake ninja")
        if self.inplace or self.editable_mode:
            build, options = ROOT / "build" / "dev", ["-DX2CT_INPLACE=ON"]
        else:
            package = Path(self.build_lib).resolve() / "x2ct"
            build = Path(self.build_temp).resolve() / "core"
            shutil.rmtree(build, ignore_errors=True)  # its cache names tools of a build environment that is gone
            options = ["-DX2CT_INPLACE=OFF", "-DX2CT_TESTS=OFF", "-DX2CT_LIBRARY=OFF", f"-DX2CT_OUTPUT_DIR={package}"]
        configure = [cmake, "-S", ROOT, "-B", build, "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}", *options]
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        if ninja := shutil.which("ninja"):
            configure.append(f"-DCMAKE_MAKE_PROGRAM={ninja}")
        subprocess.run(configure, check=True)
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
        subprocess.run([cmake, "--build", build, "--parallel", jobs], check=True)


setup(
    ext_modules=[Extension("x2ct._core", sources=[])],
    cmdclass={"build_ext": BuildCore, "build_py": BuildPackage},
)
