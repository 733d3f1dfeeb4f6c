"""JSON and CSV files that may be wrong: read in one call, refused in one line that names the file and the field.

`readable` does so for a file of another kind, which a library reads.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec

from x2ct.errors import InputError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

Kind = TypeVar("Kind")


def decode_json(source: str | PathLike[str], data: bytes | str, kind: type[Kind]) -> Kind:
    """Return the JSON in `data` (UTF-8) as `kind`: a msgspec.Struct, a dataclass, or any type that msgspec knows.

    A field that `kind` does not have is passed over, unless `kind` forbids it. Raises InputError, with `source` as the
    file: no JSON, or a field is missing, or has another type or a value out of its range.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _unfit(source, error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError.of(source, "file", found=error, expected="JSON") from None


def convert(source: str | PathLike[str], value: object, kind: type[Kind]) -> Kind:
    """Return parsed JSON as `kind`; raises InputError as `decode_json` does."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _unfit(source, error) from None


def reason(error: Exception, source: str | PathLike[str] = "") -> str:
    """Return what a library says of a file in one short line without the file's name, else the error's class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1].replace(str(source), "").strip(" :")[:160] if source else lines[-1][:160]


@contextmanager
def readable(source: Path, expected: str = "a whole file", hint: str = "was the copy cut short?") -> Iterator[None]:
    """Raise InputError where a library can't read a file within: it raises many kinds of errors on damaged data."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        empty = source.exists() and source.stat().st_size == 0
        found = "an empty file" if empty else f"what can't be read ({reason(error, source)})"
        raise InputError.of(source, "file", found=found, expected=expected, hint=hint) from error


def _unfit(source: str | PathLike[str], error: msgspec.ValidationError) -> InputError:
    """Return msgspec's "Expected `int`, got `str` - at `$.bytes`" as file, field, found and expected."""
    text, _, path = str(error).partition(" - at `$")
    where, found, expected = path.strip("`."), "another value", "a value that fits"
    if field := re.fullmatch(r"Object (missing required|contains unknown) field `(.*)`", text):
        where = f"{where}.{field[2]}".lstrip(".")
        missing = field[1] == "missing required"
        found, expected = ("nothing", "a value") if missing else ("a field", "none of that name")
    elif wrong := re.fullmatch(r"Expected (.*?)(?:, got (.*))?", text):
        expected, found = wrong[1], wrong[2] or found
    else:  # "Invalid enum value 'z'"
        found = text[0].lower() + text[1:]
    return InputError.of(source, where or "file", found=found.replace("`", ""), expected=expected.replace("`", ""))


def read_table(source: Path, known: Sequence[str] | None = None) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Return a table's columns, and each line's text by column without blanks at either end.

    The table is in UTF-8, its first line names its columns: where that has tabs or semicolons, these separate them.
    Raises InputError: no such file, no CSV, a column that is doubled or none of `known`, or a line with another number
    of columns.
    """
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.of(source, "file", found=error, expected="a CSV in UTF-8") from error
    try:
        heading = text.partition("\n")[0]
        delimiter = next((mark for mark in "\t;" if mark in heading), ",")
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
        rows: list[dict[str | None, str | None]] = list(reader)
        columns = tuple(reader.fieldnames or ())
    except csv.Error as error:
        raise InputError.of(source, "content", found=error, expected="a CSV") from error
    if unknown := [name for name in columns if (known and name not in known) or columns.count(name) > 1]:
        expected = f"some of {', '.join(known)}, once" if known else "each once"
        raise InputError.of(source, "columns", found=", ".join(unknown), expected=expected)
    for number, row in enumerate(rows, 2):
        if None in row.values() or None in row:
            where = f"{source}: line {number}"
            raise InputError.of(where, "columns", found="another number than the first line's", expected="one for each")
    return columns, [{str(name): str(text).strip() for name, text in row.items()} for row in rows]
