"""Protobuf's wire format, as far as ONNX files need it: walking a message.

https://protobuf.dev/programming-guides/encoding; which field number means what is its users' affair.
"""

from __future__ import annotations

from collections.abc import Iterator

Message = memoryview
Value = int | Message


class Malformed(ValueError):
    """The bytes are not what they should be."""


def _varint(data: Message, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("a broken varint")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(message: Value) -> Iterator[tuple[int, Value]]:
    """(field number, integer or bytes) of one message, in the file's order; fixed-width fields come as their bytes.

    Raises:
        Malformed: it is no message.
    """
    if isinstance(message, int):
        raise Malformed("a number where a message belongs")
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise Malformed(f"wire type {kind}")
        if length > len(message) - at:
            raise Malformed("it ends early")
        yield key >> 3, message[at : at + length]
        at += length


def text(value: Value) -> str:
    """A field that holds text."""
    if isinstance(value, int):
        raise Malformed("a number where a text belongs")
    return str(value, "utf-8")


def integer(value: Value) -> int:
    """A field that holds a number."""
    if not isinstance(value, int):
        raise Malformed("bytes where a number belongs")
    return value
