"""Headless Chromium, driven over its debugging pipe: no driver, no socket, no package."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--use-angle=swiftshader",  # WebGL without a GPU
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
)


class Page:
    """A page of the browser. Every problem that its console reports is in `errors`."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer = write, read, b""
        self._numbers = itertools.count(1)
        self._session = ""
        self.errors: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self._call(f"{domain}.enable")

    def goto(self, url: str, width: int, height: int) -> None:
        """Open an address in a window of this size; below 640 pixels it is a phone's."""
        phone = width < 640
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self._call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        done = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, expression: str, seconds: float = 300.0) -> None:
        """Wait until an expression is true; one that fails, as on a page that still loads, is not."""
        expression = f"(() => {{ try {{ return {expression}; }} catch {{ return false; }} }})()"
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < end, (expression, self.errors)
            time.sleep(0.1)

    def choose_files(self, selector: str, files: list[Path]) -> None:
        """Choose files in a file input, as a user does."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self, path: Path, whole: bool = False) -> Path:
        """Write what is seen, or the whole page, as a PNG."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {**size, "scale": 1}, "captureBeyondViewport": True} if whole else {}
        taken = self._call("Page.captureScreenshot", **clip)
        path.write_bytes(base64.b64decode(taken["data"]))
        return path

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            entry = answer.get("params", {}).get("entry", {})
            if answer.get("method") == "Log.entryAdded" and entry.get("level") == "error":
                self.errors.append(f"{entry['text']} {entry.get('url', '')}")
            elif answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(answer["params"]["exceptionDetails"])[:500])

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser is gone"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Start Chromium with a profile folder of its own."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "no Chromium here: make test-browser installs it"
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Away from 3 and 4, which are the numbers that Chromium reads from and writes to.
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in (theirs_in, theirs_out)]

    def connect() -> None:
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}"], preexec_fn=connect, close_fds=False, stderr=subprocess.DEVNULL
    )
    for end in (theirs_in, theirs_out, *high):
        os.close(end)
    try:
        yield Page(ours_out, ours_in)
    finally:
        process.terminate()
        process.wait()
        os.close(ours_out)
        os.close(ours_in)
