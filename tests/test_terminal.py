"""Whatever ends a command is one line on stderr and a documented exit code."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import typer

from x2ct import errors, terminal

ENDS = {
    "done": (None, 0),
    "failed": (errors.X2CTError("disk full"), 1),
    "bad input": (errors.InputError("a.png: found a colour photo"), 2),
    "missing runtime": (errors.MissingRuntimeError("cuda: not here"), 3),
    "memory limit": (errors.MemoryLimitError("grid too large"), 4),
    "host memory": (MemoryError(), 4),
    "cancelled": (errors.Cancelled("cancelled"), 130),
    "Ctrl-C": (KeyboardInterrupt(), 130),
    "usage": (typer.BadParameter("found -1"), 2),
    "bug": (ZeroDivisionError("division\nby zero"), 1),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_has_its_code_and_one_line(end: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, code = ENDS[end]

    def command() -> None:
        if error is not None:
            raise error

    assert terminal.exit_code_of(command) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == (0 if error is None else 1)
    assert all(line.startswith("x2ct: ") for line in err.splitlines())


def test_bug_points_to_the_traceback_which_debug_shows(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ZeroDivisionError("division by zero")

    terminal.exit_code_of(command)
    assert "x2ct --debug" in capsys.readouterr().err
    terminal.exit_code_of(command, debug=True)
    assert "Traceback" in capsys.readouterr().err


def test_codes_in_the_help_are_those_of_the_error_family() -> None:
    classes = [
        errors.X2CTError,
        errors.InputError,
        errors.MissingRuntimeError,
        errors.MemoryLimitError,
        errors.Cancelled,
    ]
    for family in classes:
        assert f"{family.exit_code:>5}  " in terminal.EPILOG


def test_sigterm_becomes_143_and_the_handler_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cleaned.append(True)

    assert terminal.exit_code_of(command) == 143
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "x2ct: terminated\n"


def test_missing_training_package_says_what_to_install() -> None:
    with pytest.raises(errors.MissingRuntimeError, match=r"pip install 'x2ct\[train\]'"), terminal.training_packages():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    with pytest.raises(ModuleNotFoundError), terminal.training_packages():
        raise ModuleNotFoundError("No module named 'x2ct.typo'", name="x2ct.typo")


def test_progress_elsewhere_than_on_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_QUIET_LINE_S", 0.0)
    for quiet in (False, True):
        with terminal.progress("steps", quiet) as display:
            display.stage("training")
            display.step(5, 10)
        out, err = capsys.readouterr()
        assert out == ""
        assert ("training: 5/10" in err) is not quiet


def test_progress_on_a_terminal_shows_rate_and_remaining_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with terminal.progress("evaluations", quiet=False) as display:
        display.stage("sampling")
        for done in range(4):
            display.step(done, 4, 0.5)
    err = capsys.readouterr().err
    assert "sampling" in err
    assert "left" in err
    assert "/s" in err or "s/evaluation" in err
