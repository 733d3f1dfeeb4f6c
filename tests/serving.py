"""`x2ct serve` as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Server:
    """A server, a client of it, and the lines that it has written to stderr."""

    process: subprocess.Popen[str]
    client: httpx.Client
    lines: list[str]

    def stop(self, sent: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(sent)
        return self.process.wait(300)


@contextlib.contextmanager
def serving(model: Path | str, folder: Path, *options: str) -> Iterator[Server]:
    """Start a server on a free port, with its files in `folder`; it is killed at the end if it still runs."""
    command = [sys.executable, "-m", "x2ct", "serve", "-m", str(model), "--port", "0", "--threads", "1", *options]
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    stderr, lines = process.stderr, list[str]()
    reader = threading.Thread(target=lambda: lines.extend(iter(stderr.readline, "")), daemon=True)
    reader.start()
    try:
        until(lambda: lines or process.poll() is not None)
        address = re.search(r"http://[^ ]+", lines[0])
        assert address, lines
        with httpx.Client(base_url=address[0], timeout=300) as client:
            until(lambda: client.get("/readyz").status_code == 200)
            yield Server(process, client, lines)
    finally:
        process.kill()
        process.wait()
        reader.join(5)


def until(true: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def files_in(folder: Path) -> list[str]:
    """The names of all files below a folder."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
