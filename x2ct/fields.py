"""Reading JSON and CSV that may be wrong: each field checked where it enters, each complaint names file and field."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias, cast

from x2ct.errors import InputError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_SHOWN = 60  # characters of a wrong value that a message repeats


def shown(value: object) -> str:
    """A value as a message repeats it: one line, short."""
    text = json.dumps(value, default=str) if not isinstance(value, float) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


class Fields:
    """One JSON object of a file, read field by field.

    Each reader takes the field's key and what the value must satisfy, and returns it typed. `close` complains about
    fields that nobody read, so that a misspelt one is not passed over.

    Args:
        source: the file, as messages name it.
        data: the parsed value, which must be an object.
        path: where the object lies in the file ("networks.lift").

    Raises:
        InputError: (any method) a field is missing, has the wrong type, or a value that can't be used.
    """

    def __init__(self, source: Path, data: Json, path: str = "") -> None:
        self.source, self.path = source, path
        if not isinstance(data, dict):
            raise InputError.of(source, path or "file", found=shown(data), expected="an object")
        self._data = data
        self._read: set[str] = set()

    def where(self, key: str) -> str:
        """The full name of a field."""
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, *, expected: object, found: object = None, hint: str = "") -> NoReturn:
        """Complain about a field; `found` defaults to its value."""
        value = shown(self._data.get(key)) if found is None else found
        raise InputError.of(self.source, self.where(key), found=value, expected=expected, hint=hint)

    def raw(self, key: str, expected: str) -> Json:
        """The value as parsed; `expected` is said when it is missing."""
        self._read.add(key)
        if key not in self._data:
            self.fail(key, found="nothing", expected=expected)
        return self._data[key]

    def text(self, key: str, expected: str, pattern: str = r"[^\x00-\x1f]{1,200}") -> str:
        """A text that matches a regular expression as a whole; `expected` says it in words."""
        value = self.raw(key, expected)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            self.fail(key, expected=expected)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return self._integer(key, self.raw(key, f"a whole number from {low} to {high}"), low, high)

    def number(self, key: str, low: float, high: float) -> float:
        """A finite number in [low, high]."""
        return self._number(key, self.raw(key, f"a number from {low:g} to {high:g}"), low, high)

    def integers(self, key: str, count: int, low: int, high: int) -> tuple[int, ...]:
        """A list of `count` whole numbers in [low, high]."""
        return tuple(self._integer(key, value, low, high) for value in self._list(key, count, count))

    def numbers(self, key: str, least: int, most: int, low: float, high: float) -> tuple[float, ...]:
        """A list of `least` to `most` finite numbers in [low, high]."""
        return tuple(self._number(key, value, low, high) for value in self._list(key, least, most))

    def rows(self, key: str, least: int, most: int, count: int, low: int, high: int) -> tuple[tuple[int, ...], ...]:
        """A list of `least` to `most` lists of `count` whole numbers in [low, high]."""
        found = self._list(key, least, most)
        for row in found:
            if not isinstance(row, list) or len(row) != count:
                self.fail(key, found=shown(row), expected=f"{count} whole numbers a row")
        return tuple(tuple(self._integer(key, value, low, high) for value in cast("list[Json]", row)) for row in found)

    def extents(self, key: str, least: int, most: int) -> tuple[int | str, ...]:
        """A tensor's shape: whole numbers of at least 1, or names of free extents."""
        shape = self._list(key, least, most)
        for extent in shape:
            if isinstance(extent, bool) or not (
                (isinstance(extent, int) and extent >= 1)
                or (isinstance(extent, str) and re.fullmatch(r"[A-Z](/\d+)?", extent))
            ):
                self.fail(
                    key, found=shown(extent), expected='whole numbers, or names of free extents like "N" or "X/2"'
                )
        return tuple(cast("list[int | str]", shape))

    def section(self, key: str) -> Fields:
        """An object inside this one."""
        return Fields(self.source, self.raw(key, "an object"), self.where(key))

    def sections(self, key: str, least: int, most: int) -> tuple[Fields, ...]:
        """A list of `least` to `most` objects."""
        found = self._list(key, least, most)
        return tuple(Fields(self.source, value, f"{self.where(key)}[{i}]") for i, value in enumerate(found))

    def mapping(self, key: str) -> dict[str, Json]:
        """An object whose content is its reader's own affair."""
        value = self.raw(key, "an object")
        if not isinstance(value, dict):
            self.fail(key, expected="an object")
        return value

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def keys(self) -> tuple[str, ...]:
        """The names of the object's fields, in the file's order."""
        return tuple(self._data)

    def close(self) -> None:
        """Complain about the first field that no method has read."""
        for key in self._data:
            if key not in self._read:
                known = ", ".join(sorted(self._read))
                raise InputError.of(
                    self.source, self.where(shown(key)[1:-1]), found="a field", expected=f"only {known}"
                )

    def _list(self, key: str, least: int, most: int) -> list[Json]:
        words = f"a list of {least}" + (f" to {most}" if most != least else "")
        value = self.raw(key, words)
        if not isinstance(value, list) or not least <= len(value) <= most:
            self.fail(key, expected=words)
        return value

    def _integer(self, key: str, value: Json, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fail(key, found=shown(value), expected=f"a whole number from {low} to {high}")
        return value

    def _number(self, key: str, value: Json, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.fail(key, found=shown(value), expected=f"a number from {low:g} to {high:g}")
        return float(value)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text}, which is not finite")
    return value


def _unique(pairs: Iterable[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the field {shown(key)} twice")
        found[key] = value
    return found


def parse(source: Path, data: bytes) -> Fields:
    """The object that a JSON file holds; NaN, infinities and repeated fields, which JSON does not know, are refused.

    Args:
        source: the file, as messages name it.
        data: its bytes.

    Raises:
        InputError: not a JSON object.
    """
    try:
        value: Json = json.loads(data, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise InputError.of(source, f"line {error.lineno}", found=error.msg, expected="JSON") from None
    except (ValueError, RecursionError) as error:
        what = (
            "lists or objects nested too deep"
            if isinstance(error, RecursionError)
            else str(error).splitlines()[0][:120]
        )
        raise InputError.of(source, "file", found=what, expected="JSON") from None
    return Fields(source, value)


def read_table(source: Path, known: Sequence[str] | None = None) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Read a table in UTF-8 whose first line names its columns: where it has tabs or semicolons, these separate them.

    Args:
        source: the file.
        known: the columns that it may have; any where None.

    Returns:
        Its columns, and each further line's text by column, without blanks at either end.

    Raises:
        InputError: no such file, no CSV, an unknown or doubled column, or a line with another number of columns.
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


def is_tsv(source: Path) -> bool:
    """Return whether a table's name says that tabs are between its columns, as in BIDS' participants.tsv."""
    return source.suffix.lower() == ".tsv"
