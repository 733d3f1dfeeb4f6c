"""The command line, called in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from x2ct.cli import app


def run(*arguments: object) -> Result:
    """What `x2ct` does with these arguments: its exit code and what it says."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
