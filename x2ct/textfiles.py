"""JSON files that may be wrong: read in one call, refused in one line that names the file and the field."""

from __future__ import annotations

import re
from os import PathLike
from typing import TypeVar

import msgspec

from x2ct.errors import InputError

Kind = TypeVar("Kind")

_WRONG_TYPE = re.compile(r"Expected `(?P<expected>.*?)`(?P<range>.*?)(?:, got `?(?P<found>[^`]*)`?)?")


def decode_json(source: str | PathLike[str], data: bytes | str, kind: type[Kind]) -> Kind:
    """Return the JSON in `data` as `kind`: a msgspec.Struct, a dataclass, or any type that msgspec knows.

    Args:
        source: the file, as messages name it.
        data: its content, UTF-8.
        kind: what it must be. A field that `kind` does not have is passed over, unless `kind` forbids it.

    Raises:
        InputError: no JSON, a field is missing, or has another type or a value out of its range.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        where = path.strip("`.").removeprefix("[...].") or "file"
        if wrong := _WRONG_TYPE.fullmatch(text):
            found = wrong["found"] or "another value"
            raise InputError.of(source, where, found=found, expected=wrong["expected"] + wrong["range"]) from None
        raise InputError.of(source, where, found=text[0].lower() + text[1:], expected="a file of this kind") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError.of(source, "file", found=error, expected="JSON") from None
