"""The one family of exceptions, each with the exit code that the command line returns for it.

| code | class                 | meaning                                             |
|------|-----------------------|-----------------------------------------------------|
| 1    | `X2CTError`           | failed while running                                |
| 2    | `InputError`          | wrong use, or bad input                             |
| 3    | `MissingRuntimeError` | a runtime, device or precision that can't be had    |
| 4    | `MemoryLimitError`    | out of memory, on the host or on the device         |
| 130  | `Cancelled`           | cancelled (143 when by SIGTERM)                     |
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from os import PathLike

_LINE = re.compile(r"((?:.*?: )?)found (.*?), expected (.*?)(?:; (.*))?", re.DOTALL)


class X2CTError(Exception):
    """Something failed while running. Its text is one line that a user can act on."""

    exit_code = 1

    @property
    def parts(self) -> dict[str, str]:
        """The line and the parts of it that `InputError.of` puts together; what a line lacks is empty."""
        line = str(self)
        match = _LINE.fullmatch(line)
        if match is None:
            return {"message": line} | dict.fromkeys(("source", "field", "found", "expected", "hint"), "")
        head, *rest = (part or "" for part in match.groups())
        source, _, field = head.removesuffix(": ").rpartition(": ")
        parts = (source, field, *rest) if source else (field, "", *rest)
        return {"message": line} | dict(zip(("source", "field", "found", "expected", "hint"), parts, strict=True))


class InputError(X2CTError):
    """Wrong use or bad input: a file, an option or an argument that can't be used as it is."""

    exit_code = 2

    @classmethod
    def of(
        cls,
        source: str | PathLike[str],
        field: str,
        *,
        found: object,
        expected: object,
        hint: str = "",
    ) -> InputError:
        """Return one line of the parts that every complaint about input has.

        `source` is the file, option or argument that is wrong, `field` what about it is ("shape", "pixel spacing"),
        `found` what was there (of an OSError its reason alone, as `source` names the file), `expected` what can be
        used, and `hint` what to do about it.
        """
        value = (found.strerror or found) if isinstance(found, OSError) else found
        line = f"{source}: {field}: found {value}, expected {expected}"
        return cls(_one_line(f"{line}; {hint}" if hint else line))

    @classmethod
    def unknown(
        cls, source: str | PathLike[str], field: str, *, found: str, known: Iterable[str], expected: str = ""
    ) -> InputError:
        """Return the complaint about a name, `found`, that is none of `known`, with the nearest one; else as `of`."""
        names = list(known)
        near = get_close_matches(found.lower(), names, 1, 0.5)
        hint = f"did you mean '{near[0]}'?" if near else ""
        return cls.of(source, field, found=repr(found), expected=expected or " or ".join(names), hint=hint)


class MissingRuntimeError(X2CTError):
    """A runtime, device or precision was asked for and can't be had; the text says what to install."""

    exit_code = 3


class MemoryLimitError(X2CTError):
    """The host or the device ran out of memory, or a stated limit was passed."""

    exit_code = 4


class Cancelled(X2CTError):
    """The run was cancelled between two evaluations."""

    exit_code = 130


class ReportedElsewhere(X2CTError):
    """Another process of this run reports the error; this one ends with its exit code and is silent."""

    def __init__(self, error: X2CTError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code


def _one_line(text: str) -> str:
    """What a file holds may be anything: line ends become blanks, and what no terminal should get becomes `?`."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
