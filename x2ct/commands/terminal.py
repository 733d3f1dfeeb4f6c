"""What the command line shows while it works and when it fails: progress on stderr, one line per error, exit codes.

Results go to stdout, everything else to stderr. Rich is imported when something is drawn.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
    """Run a command line, which returns None or an exit code, and return its exit code.

    Whatever ends it is one line on stderr, with `debug` after its traceback.
    """
    for package in ("tifffile", "pydicom"):  # what they log of a damaged file would stand beside x2ct's one line on it
        logging.getLogger(package).addHandler(logging.NullHandler())
    with _sigterm_raises():
        try:
            code = command()
        except (Exception, KeyboardInterrupt, Terminated) as error:
            if debug:
                traceback.print_exception(error)
            status, line = _explain(error, debug)
            if line:
                _line(line)
            return status
    if code == 130:  # Typer has turned Ctrl-C into its exit code
        _line("cancelled")
    return code if isinstance(code, int) else 0


def _explain(error: BaseException, debug: bool) -> tuple[int, str]:
    """Return the exit code of what ended a command, and a line on it; "" where another process reports it."""
    if isinstance(error, Terminated):
        return 143, "terminated"
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return 130, "cancelled"
    if isinstance(error, X2CTError):
        return error.exit_code, "" if isinstance(error, ReportedElsewhere) else f"error: {error}"
    if isinstance(error, MemoryError):
        return MemoryLimitError.exit_code, f"error: out of memory{f' ({error})' if str(error) else ''}"
    if usage := getattr(error, "format_message", None):
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "x2ct"
        return 2, f"error: {usage().rstrip('.')}; try '{where} --help'"
    if isinstance(error, ImportError) and "_core" in str(error):
        text = f"the compiled core can't be loaded: {error}; build it with 'pip install .' or 'make build'"
        return MissingRuntimeError.exit_code, f"error: {text}"
    hint = "" if debug else "; run 'x2ct --debug ...' for the traceback"
    return 1, f"error: unexpected {type(error).__name__}: {error}{hint}"


def _line(text: str) -> None:
    """One line on stderr, whatever the text holds."""
    with suppress(OSError):  # where nobody reads it
        sys.stderr.write(f"x2ct: {' '.join(text.split())}\n")
        sys.stderr.flush()


def note(kind: str, text: str, quiet: bool = False) -> None:
    """Write a remark to stderr; `kind` is "warning", "note" or "notice"."""
    if not quiet:
        _line(f"{kind}: {text}")


def remarks(report: Mapping[str, Any], quiet: bool = False, see: str = "") -> None:
    """Write a report's warnings, by consequence, its assumptions, and its notice where it has one.

    Where `see` says how to read all assumptions, several are one line.
    """
    assumed = report["assumptions"]
    if see and len(assumed) > 1:
        assumed = [f"{len(assumed)} things were assumed of the X-rays and their views; to see them: {see}"]
    notices = [report["notice"]] if "notice" in report else []
    for kind, lines in (("warning", report["warnings"]), ("note", assumed), ("notice", notices)):
        for line in lines:
            note(kind, line, quiet)


def show_json(facts: Mapping[str, Any]) -> None:
    """Write a result to stdout as JSON."""
    from x2ct.io import report

    typer.echo(report.to_json(facts), nl=False)


def result(facts: Mapping[str, Any], text: str, json: bool, quiet: bool = False) -> None:
    """Write a result to stdout: its facts where `json`, else its text."""
    if json:
        show_json(facts)
    elif not quiet:
        typer.echo(text)


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

    before = signal.getsignal(signal.SIGTERM)
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        with suppress(ValueError):
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
    """The duration of a step: the median of the latest ones, so that the first and pauses count for little."""

    def __init__(self) -> None:
        self._done, self._total, self._moment = 0, 0, 0.0
        self._seconds: deque[float] = deque(maxlen=101)

    def at(self, done: int, total: int, moment: float) -> float | None:
        """Return the seconds of a step, None before the second one, at a moment in seconds of a monotonic clock.

        Fewer steps done than before, or another total, begin anew.
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
        self._stage, self._shown, self._last = "", time.monotonic(), ""
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)
        if bar is not None:
            bar.add_task("starting", total=None, state="")

    def stage(self, text: str) -> None:
        """Show what is being done now."""
        if text != self._stage:
            self._stage = text
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], description=text)

    def step(self, done: int, total: int, detail: object = "") -> None:
        """Show how far it is: "3/6  0.41 s/evaluation  0:00:01 left", as far as it is known."""
        seconds, state = self._paces[self._stage].at(done, total, time.monotonic()), f"{done}/{total}"
        if seconds:
            one = _ONE.get(self._unit, self._unit.removesuffix("s"))
            state += f"  {1 / seconds:.1f} {self._unit}/s" if seconds <= 1 else f"  {seconds:.2f} s/{one}"
            state += f"  {timedelta(seconds=round(seconds * (total - done)))} left"
        if self._bar is not None:
            [task] = self._bar.tasks
            if done == 0 or task.total != total:
                self._bar.reset(task.id, total=total)
            text = f"{self._stage} {detail if isinstance(detail, str) else ''}".strip()
            self._bar.update(task.id, completed=done, description=text, state=state)
        elif not self._quiet and time.monotonic() - self._shown > _QUIET_LINE_S and state != self._last:
            self._shown, self._last = time.monotonic(), state
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


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Write a table of many columns to stdout, under a title, with notes below."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    rich_table = Table(pad_edge=False, title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        rich_table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        rich_table.add_row(*row)
    # Where there is no terminal there is no edge to keep to.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print(rich_table)
    for note in notes:
        console.print(note, style="dim")
    console.print()


def table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Write two columns to stdout under a title."""
    from rich.console import Console
    from rich.table import Table

    rich_table = Table(show_header=False, box=None, pad_edge=False)
    rich_table.add_column(no_wrap=True, style="dim")
    rich_table.add_column(overflow="fold")
    for row in rows:
        rich_table.add_row(*row)
    console = Console(markup=False, highlight=False)
    console.print(title, style="bold")
    console.print(rich_table)
