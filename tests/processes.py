"""Processes of their own, and shared libraries that are made for a test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest


def run_outside(
    *command: str | Path, cwd: Path, expect: int = 0, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that knows nothing of this environment: its Python, its libraries, x2ct's settings.

    With `path`, that folder alone is on PATH.
    """
    ours = ("PYTHON", "VIRTUAL_ENV", "LD_", "X2CT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    if path is not None:
        kept["PATH"] = str(path)
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def status_in_a_fresh_process(runtime_dir: Path | str, name: str = "openvino") -> dict[str, Any]:
    """What a process says that has not opened the runtime yet: an opened one stays."""
    places = {name: str(runtime_dir)}
    code = f"import json; from x2ct import _core; print(json.dumps(_core.backends({places!r})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    (status,) = (one for one in json.loads(run.stdout) if one["name"] == name)
    return dict(status)


def shared_library(path: Path, source: str) -> Path:
    """A shared library with this C++ source; the test is skipped where there is no compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    text = path.with_name("made.cpp")
    text.write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, text], check=True)
    return path


def kill_titled(title: str, seconds: float = 120) -> None:
    """Kill with SIGKILL a process that this one or its children started, while it has this title; wait for one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if title in process.cmdline():
                    process.suspend()  # so that it cannot end what it does between the look and the kill
                    if title in process.cmdline():
                        process.kill()
                        return
                    process.resume()
        time.sleep(0.001)
    raise TimeoutError(f"no process {title} within {seconds} s")
