"""The text headers of MetaImage and NRRD files, looked at before ITK parses them.

ITK's parsers believe what they read: a number of axes of many digits keeps MetaIO busy for minutes, and either format
can name another file, or many, to read the voxels from. What is let through is what writers of CTs write.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from x2ct.errors import InputError
from x2ct.io.ct.voxels import damaged

_HEADER_BYTES = 1 << 16  # of usual files, well below 4 KiB
_META_LINE = re.compile(rb"[A-Za-z][\w.\-\[\]]*\s*=[^\0]*")
_MANY_FILES = re.compile(r"\s*LIST\b|.*%", re.IGNORECASE)
_ELSEWHERE = re.compile(rb"data ?file\s*:", re.IGNORECASE)


def check_header(source: Path) -> None:
    """Refuses what no writer of CTs writes: NDims that is no 3, voxels in other files than the one beside it.

    Raises:
        InputError: such a header, or none.
    """
    try:
        with source.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
    except OSError as error:
        raise damaged(source, error) from error
    if source.suffix.lower() == ".nrrd":
        _check_nrrd(source, start)
    else:
        _check_meta(source, start)


def _check_meta(source: Path, start: bytes) -> None:
    told: dict[bytes, bytes] = {}
    for line in start.splitlines():
        key, _, value = line.partition(b"=")
        if not _META_LINE.fullmatch(line) or key.strip() in told:
            found = f"{line[:40].decode('ascii', 'backslashreplace')!r}"
            raise InputError.of(source, "header", found=found, expected="KEY = VALUE, each key once")
        told[key.strip()] = value.strip()
        if key.strip() == b"ElementDataFile":
            break
    else:
        raise InputError.of(source, "header", found="no ElementDataFile", expected="one, as the header's last line")
    axes = told.get(b"NDims", b"none").decode("ascii", "backslashreplace")
    if axes != "3":
        raise InputError.of(source, "NDims", found=axes[:20], expected=3)
    name = told[b"ElementDataFile"].decode("utf-8", "backslashreplace")
    if name.upper() == "LOCAL":
        return
    outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or ".." in Path(name).parts
    if outside or not name or _MANY_FILES.match(name):
        raise InputError.of(
            source, "ElementDataFile", found=name[:60] or "nothing", expected="LOCAL or one file beside it"
        )


def _check_nrrd(source: Path, start: bytes) -> None:
    header = re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0]
    for line in header.splitlines():
        if _ELSEWHERE.match(line):
            found = line[:60].decode("ascii", "backslashreplace")
            raise InputError.of(source, "header", found=found, expected="the voxels in the same file")
