"""The size that a compressed picture gives itself, which is what its decoder will allocate and write."""

from __future__ import annotations


def size_of(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it says nothing that can be read."""
    return jpeg_2000_size(data) if data[:2] == b"\xff\x4f" or data[4:8] == b"jP  " else jpeg_size(data)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG or JPEG-LS codestream by its frame header; None where it has none."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if (marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def jpeg_2000_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG 2000 codestream, alone or in its file format; None where it has none."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(data) < start + 24:
        return None
    x, y, left, top = (int.from_bytes(data[start + at : start + at + 4]) for at in (8, 12, 16, 20))
    return y - top, x - left
