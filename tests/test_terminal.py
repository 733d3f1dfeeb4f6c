"""Whatever ends a command is one line on stderr and a documented exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from x2ct import errors
from x2ct.commands import terminal
from x2ct.commands.options import expanded
from x2ct.jobs.options import SHAPE, SampleJob, setting

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
    with pytest.raises(errors.MissingRuntimeError, match=r"pip install 'x2ct\[train\]'"), terminal.extra("train"):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    with pytest.raises(ModuleNotFoundError), terminal.extra("train"):
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


def test_a_pace_is_the_median_of_the_steps_that_are_done() -> None:
    pace = terminal.Pace()
    moments = [60.0, 62.0, 64.0, 66.0, 96.0, 98.0, 100.0]  # slow to begin, and half a minute of writing in between
    seconds = [pace.at(done, 8, moment) for done, moment in enumerate(moments, 1)]
    assert seconds == [None, 2, 2, 2, 2, 2, 2]
    assert pace.at(1, 8, 200.0) is None  # anew
    assert pace.at(3, 8, 208.0) == 4
    assert pace.at(1, 9, 300.0) is None


def test_a_stage_that_is_come_back_to_keeps_its_pace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several samples: between two of them one is written, and what is left is not a matter of milliseconds."""
    clock = iter(float(second) for second in range(0, 1000))
    monkeypatch.setattr(terminal, "_QUIET_LINE_S", -1.0)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    with terminal.progress("studies", quiet=False) as display:
        for done in range(1, 5):
            display.stage("writing")
            display.stage("sampling")
            display.step(done, 100)
            display.step(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "x2ct: sampling: 1/100"  # and once: nothing new is no line
    assert len(lines) == 4
    assert all("s/study 0:0" in line and not line.endswith("0:00:00 left") for line in lines[1:])


def test_warnings_come_first_assumptions_are_one_line_and_the_notice_is_no_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = {"warnings": ["w1", "w2"], "assumptions": ["a1", "a2", "a3"], "notice": "n"}
    terminal.remarks(report, see="the report run.json")
    kinds = [line.split(": ")[1:] for line in capsys.readouterr().err.splitlines()]
    assert [kind[0] for kind in kinds] == ["warning", "warning", "note", "notice"]
    assert "3 things were assumed" in kinds[2][1]
    assert kinds[2][-1] == "the report run.json"
    terminal.remarks({**report, "assumptions": ["a1"], "warnings": []}, see="x")
    assert capsys.readouterr().err.splitlines() == ["x2ct: note: a1", "x2ct: notice: n"]
    terminal.remarks(report)
    assert [line[6:] for line in capsys.readouterr().err.splitlines()][2:5] == ["note: a1", "note: a2", "note: a3"]


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


_BASE = SampleJob(Path("ct.nii"), seed=7, steps=5)
_JOBS: list[SampleJob] = []


def _command(job: Annotated[SampleJob, "seed", "steps", "shape", "provider_options"] = _BASE) -> None:
    _JOBS.append(job)


def test_an_option_that_is_not_given_leaves_its_field_as_it_is() -> None:
    app = typer.Typer()
    app.command()(expanded(_command))
    given = ["--shape", "8,8,16", "--provider-option", "a=1", "--provider-option", "b=2", "--seed", "3"]
    assert CliRunner().invoke(app, given).exit_code == 0
    assert CliRunner().invoke(app, ["--preview", "ct.png"]).exit_code == 2  # a field that the command does not take
    assert [replace(_BASE, shape=(8, 8, 16), provider_options=[("a", "1"), ("b", "2")], seed=3)] == _JOBS


_GIVEN: list[tuple[bool, Any, Sequence[str] | None]] = []


def _settings(
    loud: bool = setting(False, "A flag."),
    size: Any = setting("2,2,2", "Parsed from the default in words.", **SHAPE),
    names: Sequence[str] = setting((), "May be repeated.", "--name"),
) -> None:
    _GIVEN.append((loud, size, names))


def test_a_parameter_that_is_a_setting_is_an_option_and_a_flag_has_no_opposite() -> None:
    app = typer.Typer()
    app.command()(expanded(_settings))
    assert CliRunner().invoke(app, ["--loud", "--name", "a", "--name", "b"]).exit_code == 0
    assert CliRunner().invoke(app, ["--no-loud"]).exit_code == 2
    assert _GIVEN == [(True, (2, 2, 2), ["a", "b"])]
