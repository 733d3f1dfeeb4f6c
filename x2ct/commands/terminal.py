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
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from statistics import median
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from x2ct.errors import MemoryLimitError, MissingRuntimeError, ReportedElsewhere, X2CTError

if TYPE_CHECKING:
    from rich.progress import Progress

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

_PACKAGES = {
    "train": "torch safetensors tensorboard scipy skimage SimpleITK onnx onnxruntime onnxscript",
    "serve": "fastapi multipart prometheus_client pydantic python_multipart starlette uvicorn",
}
"""The modules that an extra of x2ct installs."""
_QUIET_LINE_S = 15.0
_ONE = {"studies": "study"}


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
        if not isinstance(error, ReportedElsewhere):
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
    if isinstance(error, ImportError) and "_core" in str(error):
        _line(f"error: the compiled core can't be loaded: {error}; build it with 'pip install .' or 'make build'")
        return MissingRuntimeError.exit_code
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
    """Write a remark to stderr; `kind` is "warning", "note" or "notice"."""
    if not quiet:
        _line(f"{kind}: {text}")


def remarks(report: Mapping[str, Any], quiet: bool = False, see: str = "") -> None:
    """Write what a report warns of, by consequence, then what was assumed, then its notice.

    Args:
        report: has `warnings` and `assumptions`, and may have a `notice`.
        quiet: write nothing.
        see: where all assumptions can be read; several are then one line.
    """
    assumed = report["assumptions"]
    if see and len(assumed) > 1:
        assumed = [f"{len(assumed)} things were assumed of the X-rays and their views; to see them: {see}"]
    notices = [report["notice"]] if "notice" in report else []
    for kind, lines in (("warning", report["warnings"]), ("note", assumed), ("notice", notices)):
        for line in lines:
            note(kind, line, quiet)


def show(text: str, quiet: bool = False) -> None:
    """Write a result to stdout."""
    if not quiet:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def show_json(facts: Mapping[str, Any]) -> None:
    """Write a result to stdout as JSON."""
    from x2ct.io import report

    show(report.to_json(facts).rstrip())


def result(facts: Mapping[str, Any], text: str, json: bool, quiet: bool = False) -> None:
    """Write a result to stdout: its facts where `json`, else its text."""
    if json:
        show_json(facts)
    else:
        show(text, quiet)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Raise MissingRuntimeError, which says what to install, where a module of an extra of x2ct can't be imported."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _PACKAGES[name].split():
            raise
        raise MissingRuntimeError(f"{module} is not installed: pip install 'x2ct[{name}]'") from error


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

    if quiet:
        yield
        return
    logger, handler = logging.getLogger(package), Lines()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class Pace:
    """How long a step takes: the median of the latest ones, for which neither the first nor a pause counts for much."""

    def __init__(self) -> None:
        self._done, self._total, self._moment = 0, 0, 0.0
        self._seconds: deque[float] = deque(maxlen=101)

    def at(self, done: int, total: int, moment: float) -> float | None:
        """Return the seconds of a step, None before the second one.

        Args:
            done: steps that are done at this moment; fewer than before, or another total, begin anew.
            total: of how many.
            moment: in seconds, of any clock that only goes forward.
        """
        if total != self._total or done < self._done:
            self._seconds.clear()
            self._done = 0
        if done > self._done:
            if self._done:
                self._seconds.append((moment - self._moment) / (done - self._done))
            self._done, self._moment = done, moment
        self._total = total
        return median(self._seconds) if self._seconds else None


class Display:
    """Progress on stderr: a live bar on a terminal, a line now and then elsewhere, nothing when quiet."""

    def __init__(self, unit: str, bar: Progress | None, quiet: bool) -> None:
        self._unit, self._bar, self._quiet = unit, bar, quiet
        self._task = bar.add_task("starting", total=None, state="") if bar else None
        self._stage, self._said, self._last = "", time.monotonic(), ""
        self._paces: dict[str, Pace] = {}

    def stage(self, text: str) -> None:
        """Say what is being done now."""
        if text == self._stage:
            return
        self._stage = text
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=text)

    def step(self, done: int, total: int, detail: object = "") -> None:
        """Say how far it is."""
        seconds = self._paces.setdefault(self._stage, Pace()).at(done, total, time.monotonic())
        state = _state(done, total, seconds, self._unit)
        if self._bar is not None and self._task is not None:
            if done == 0 or self._bar.tasks[0].total != total:
                self._bar.reset(self._task, total=total)
            shown = detail if isinstance(detail, str) else ""
            self._bar.update(self._task, completed=done, description=f"{self._stage} {shown}".strip(), state=state)
        elif not self._quiet and time.monotonic() - self._said > _QUIET_LINE_S and state != self._last:
            self._said, self._last = time.monotonic(), state
            _line(f"{self._stage}: {state}")


@contextmanager
def progress(unit: str, quiet: bool) -> Iterator[Display]:
    """A `Display` for the length of a block; `unit` is what is counted, in the plural."""
    if quiet or not (sys.stderr.isatty() or os.environ.get("FORCE_COLOR")):
        yield Display(unit, None, quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    state = TextColumn("{task.fields[state]}", markup=False)
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), state]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Display(unit, bar, quiet)


def _state(done: int, total: int, seconds: float | None, unit: str) -> str:
    """How far, how fast, how long: "3/6  0.41 s/evaluation  0:00:01 left", as far as it is known."""
    parts = [f"{done}/{total}"]
    if seconds:
        one = _ONE.get(unit, unit.removesuffix("s"))
        parts.append(f"{1 / seconds:.1f} {unit}/s" if seconds <= 1 else f"{seconds:.2f} s/{one}")
        parts.append(f"{timedelta(seconds=round(seconds * (total - done)))} left")
    return "  ".join(parts)


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Write a table of many columns to stdout, under a title, with notes below."""
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
    """Write two columns to stdout under a title."""
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
