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

from os import PathLike


class X2CTError(Exception):
    """Something failed while running. Its text is one line that a user can act on."""

    exit_code = 1


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
        """One line out of the parts that every complaint about input has.

        Args:
            source: the file, option or argument that is wrong.
            field: what about it is wrong ("shape", "pixel spacing", "file").
            found: what was there.
            expected: what can be used.
            hint: what to do about it.
        """
        line = f"{source}: {field}: found {found}, expected {expected}"
        return cls(_one_line(f"{line}; {hint}" if hint else line))


class MissingRuntimeError(X2CTError):
    """A runtime, device or precision was asked for and can't be had; the text says what to install."""

    exit_code = 3


class MemoryLimitError(X2CTError):
    """The host or the device ran out of memory, or a stated limit was passed."""

    exit_code = 4


class Cancelled(X2CTError):
    """The run was cancelled between two evaluations."""

    exit_code = 130


def _one_line(text: str) -> str:
    """What a file holds may be anything: line ends become blanks, and what no terminal should get becomes `?`."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
