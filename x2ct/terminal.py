"""What the command line shows while it works and when it fails: progress on stderr, one line per error, exit codes.

Only `x2ct.cli` uses this. Results go to stdout, everything else to stderr. Rich is imported when something is drawn.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from x2ct.errors import MemoryLimitError, MissingRuntimeError, X2CTError

if TYPE_CHECKING:
    from rich.progress import Progress, Task

_EXIT_CODES = {
    0: "done",
    1: "failed while running",
    2: "wrong use or bad input",
    3: "a runtime, device or package is missing",
    4: "out of memory",
    130: "cancelled by Ctrl-C",
    143: "cancelled by SIGTERM",
}
EXIT_CODES_OF_SIGNALS = {"SIGINT": 130, "SIGTERM": 143}
EPILOG = "\n".join(
    [
        "Exit codes:",
        *(f"{code:>5}  {meaning}" for code, meaning in _EXIT_CODES.items()),
        "A run that fails or is cancelled writes nothing. Research tool, not a medical device.",
    ]
)

_TRAINING_PACKAGES = {
    "torch",
    "safetensors",
    "tensorboard",
    "scipy",
    "skimage",
    "SimpleITK",
    "onnx",
    "onnxruntime",
    "onnxscript",
}
_QUIET_LINE_S = 15.0


class Terminated(BaseException):
    """SIGTERM, as an exception: outputs in the making are cleaned up on its way out."""


def exit_code_of(command: Callable[[], object], debug: bool = False) -> int:
    """Run a command line and return its exit code; whatever ends it is one line on stderr.

    Args:
        command: runs it, and returns None or an exit code.
        debug: whether an error's traceback is shown too.
    """
    _hush_readers()
    with _sigterm_raises():
        try:
            code = command()
        except (Exception, KeyboardInterrupt, Terminated) as error:
            if debug:
                traceback.print_exception(error)
            return _explain(error, debug)
    if code == 130:  # Typer has turned Ctrl-C into its exit code
        _line("cancelled")
    return code if isinstance(code, int) else 0


def _explain(error: BaseException, debug: bool) -> int:
    """Say in one line what went wrong, and return its exit code."""
    if isinstance(error, Terminated):
        _line("terminated")
        return 143
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        _line("cancelled")
        return 130
    if isinstance(error, X2CTError):
        _line(f"error: {error}")
        return error.exit_code
    if isinstance(error, MemoryError):
        _line(f"error: out of memory{f' ({error})' if str(error) else ''}")
        return MemoryLimitError.exit_code
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "x2ct"
        _line(f"error: {usage().rstrip('.')}; try '{where} --help'")
        return 2
    hint = "" if debug else "; run 'x2ct --debug ...' for the traceback"
    _line(f"error: unexpected {type(error).__name__}: {error}{hint}")
    return 1


def _hush_readers() -> None:
    """What these log of a damaged file would stand on stderr beside the one line that x2ct has for it."""
    for package in ("tifffile", "pydicom"):
        logging.getLogger(package).addHandler(logging.NullHandler())


def _line(text: str) -> None:
    """One line on stderr, whatever the text holds."""
    try:
        sys.stderr.write(f"x2ct: {' '.join(text.split())}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody reads it


def note(kind: str, text: str, quiet: bool = False) -> None:
    """A remark on stderr: "warning" or "note"."""
    if not quiet:
        _line(f"{kind}: {text}")


def remarks(report: Mapping[str, Any], quiet: bool = False) -> None:
    """What a report says was assumed, and what it warns of, a remark each."""
    for kind, lines in (("note", report["assumptions"]), ("warning", report["warnings"])):
        for line in lines:
            note(kind, line, quiet)


def show(text: str, quiet: bool = False) -> None:
    """A result on stdout."""
    if not quiet:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


@contextmanager
def training_packages() -> Iterator[None]:
    """A package of the extra `train` that isn't there, as an error that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _TRAINING_PACKAGES:
            raise
        raise MissingRuntimeError(f"{package} is not installed: pip install 'x2ct[train]'") from error


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Within the block, SIGTERM raises `Terminated` in the main thread; other threads can't set handlers."""

    def terminate(_: int, __: FrameType | None) -> NoReturn:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def log_lines(package: str, quiet: bool) -> Iterator[None]:
    """Show what a package logs at level INFO and above as lines on stderr, for the length of a block."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _line(record.getMessage())

    logger, handler, before = logging.getLogger(package), Lines(), logging.getLogger(package).level
    if quiet:
        yield
        return
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class Display:
    """Progress on stderr: a live bar on a terminal, a line now and then elsewhere, nothing when quiet."""

    def __init__(self, unit: str, bar: Progress | None, quiet: bool) -> None:
        self._unit, self._bar, self._quiet = unit, bar, quiet
        self._task = bar.add_task("starting", total=None) if bar else None
        self._stage, self._started, self._said = "", time.monotonic(), time.monotonic()

    def stage(self, text: str) -> None:
        """Say what is being done now."""
        if text == self._stage:
            return
        self._stage, self._started = text, time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text)

    def step(self, done: int, total: int, detail: object = "") -> None:
        """Say how far it is."""
        if self._bar is not None and self._task is not None:
            if done == 0 or self._bar.tasks[0].total != total:
                self._bar.reset(self._task, total=total)
            shown = detail if isinstance(detail, str) else ""
            self._bar.update(self._task, completed=done, description=f"{self._stage} {shown}".strip())
        elif not self._quiet and time.monotonic() - self._said > _QUIET_LINE_S:
            self._said = time.monotonic()
            per_second = done / (self._said - self._started)
            left_s = (total - done) / per_second if done else None
            _line(f"{self._stage}: {_state(done, total, per_second, left_s, self._unit)}")


@contextmanager
def progress(unit: str, quiet: bool) -> Iterator[Display]:
    """A `Display` for the length of a block; `unit` is what is counted, in the plural."""
    if quiet or not (sys.stderr.isatty() or os.environ.get("FORCE_COLOR")):
        yield Display(unit, None, quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
    from rich.text import Text

    class State(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(_state(task.completed, task.total, task.speed, task.time_remaining, unit), no_wrap=True)

    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), State()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Display(unit, bar, quiet)


def _state(done: float, total: float | None, per_second: float | None, left_s: float | None, unit: str) -> str:
    """How far, how fast, how long: "3/6  0.41 s/evaluation  0:00:01 left", as far as it is known."""
    if total is None:
        return ""
    parts = [f"{done:g}/{total:g}"]
    if per_second:
        parts.append(_pace(per_second, unit))
    if left_s is not None:
        parts.append(f"{timedelta(seconds=round(left_s))} left")
    return "  ".join(parts)


def _pace(per_second: float, unit: str) -> str:
    return f"{per_second:.1f} {unit}/s" if per_second >= 1 else f"{1 / per_second:.2f} s/{unit.removesuffix('s')}"


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """A table of many columns on stdout, under a title, with what is to be said of it below."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    drawn = Table(pad_edge=False, title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    # Where there is no terminal there is no edge to keep to.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print(drawn)
    for note in notes:
        console.print(note, style="dim")
    console.print()


def table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Two columns on stdout under a title."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(show_header=False, box=None, pad_edge=False)
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    console = Console(markup=False, highlight=False)
    console.print(title, style="bold")
    console.print(grid)
