"""The command `x2ct sample` as the Slicer module runs it: its arguments, its process, its one line of failure.

Nothing here needs Slicer, and nothing of x2ct is imported: x2ct may live in any Python environment of the machine.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.05
FRONTAL_VIEWS = ("ap", "pa")


class CommandError(Exception):
    """The command could not be run, failed or was cancelled; the text is one line for the user.

    Attributes:
        code: the command's exit code, see the command line's documentation; None where it could not be started.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class SampleCommand:
    """What the user chose.

    Attributes:
        executable: the program `x2ct`, a path or a name on the PATH.
        frontal: file of the frontal X-ray; empty without one.
        frontal_view: "ap" (source in front of the patient) or "pa" (behind).
        lateral: file of the lateral X-ray; empty without one.
        model: a bundled model's name, or a bundle's folder.
        device: "auto", "cpu" or "cuda[:N]".
        seed: of the noise; the same X-rays and seed give the same CT.
        mean: the posterior mean, which is smoother than a patient, in place of a sample.
    """

    executable: str
    frontal: str = ""
    frontal_view: str = "ap"
    lateral: str = ""
    model: str = "chest"
    device: str = "auto"
    seed: int = 0
    mean: bool = False

    def arguments(self, output: Path) -> list[str]:
        """Return the whole command line, which writes `output`.

        Raises:
            CommandError: no X-ray, or an unknown frontal view.
        """
        if self.frontal_view not in FRONTAL_VIEWS:
            raise CommandError(f"frontal view: found {self.frontal_view}, expected {' or '.join(FRONTAL_VIEWS)}")
        views = {f"--{self.frontal_view}": self.frontal, "--lateral": self.lateral}
        if not any(views.values()):
            raise CommandError("X-rays: found none, expected a frontal one, a lateral one, or both")
        chosen = [part for option, file in views.items() if file for part in (option, file)]
        chosen += ["--model", self.model, "--device", self.device, "--seed", str(self.seed)]
        return [self.executable, "sample", *chosen, *(["--mean"] if self.mean else []), "--output", str(output)]


def run(
    command: SampleCommand,
    output: Path,
    *,
    environment: Mapping[str, str] | None = None,
    tick: Callable[[str], bool] = lambda line: True,
) -> Path:
    """Run the command and return the CT's file, once it is there whole.

    Args:
        command: what to run.
        output: the file to write, such as `ct.nii.gz` in a folder of its own; its log is written beside it.
        environment: of the process. Slicer's own has its Python's paths, which must not reach another Python.
        tick: called about every 0.05 s with the last line that the command wrote; where it returns False the command
            is ended, and leaves nothing.

    Raises:
        CommandError: the program is not there, failed, or was cancelled.
    """
    log = output.with_name("log.txt")
    try:
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command.arguments(output),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=dict(os.environ if environment is None else environment),
            )
    except OSError as error:
        hint = "choose the program x2ct of the environment that `pip install x2ct` was run in"
        raise CommandError(f"{command.executable}: can't be run: {error.strerror}; {hint}") from error
    try:
        while process.poll() is None:
            if not tick(last_line(log)):
                break
            time.sleep(POLL_S)
    finally:  # cancelled, or `tick` raised
        if process.poll() is None:
            process.terminate()
    code = process.wait()
    if code or not output.is_file():
        raise CommandError(last_line(log) or f"x2ct ended with code {code}", code)
    return output


def last_line(log: Path) -> str:
    """Return the last line of a command's log that is not empty; "" where there is none."""
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
