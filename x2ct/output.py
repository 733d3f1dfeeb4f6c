"""Writing files so that a final name never holds half a file: everything goes beside it first, then os.replace."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from x2ct.errors import InputError, X2CTError


def check_writable(path: str | PathLike[str], suffixes: tuple[str, ...] = ()) -> Path:
    """Says, before a long run, that `path` can't be written, where that can be known beforehand.

    Args:
        path: the file that will be written. Nothing is left behind; an existing file is not touched.
        suffixes: the name endings that can be written, such as (".nii", ".nii.gz"); any, where empty.

    Returns:
        The path.

    Raises:
        InputError: a wrong ending, a missing or read-only folder, or a folder under that name.
    """
    target = Path(path)
    if suffixes and not target.name.lower().endswith(suffixes):
        found = f"'{target.suffix}'" if target.suffix else "no ending"
        raise InputError.of(target, "output", found=found, expected=" or ".join(suffixes))
    if target.is_dir():
        raise InputError.of(target, "output", found="a folder", expected="a file name", hint="add a name to it")
    if not target.parent.is_dir():
        raise InputError.of(target, "output", found="no such folder", expected="an existing one", hint="make it first")
    # Permission bits say nothing on a read-only or full file system, or to root: only trying tells.
    probe = _beside(target)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise InputError.of(target, "output", found=_reason(error), expected="a folder that can be written") from error
    return target


def write_atomically(path: str | PathLike[str], content: bytes | Iterable[bytes]) -> Path:
    """Writes `content`, or its parts as they come, beside `path`, flushes it to the disk, and moves it to its name.

    Raises:
        X2CTError: the write failed (disk full, folder gone); what was at `path` before is still there, whole.
    """
    target = Path(path)
    part = _beside(target)
    try:
        with part.open("xb") as stream:
            stream.writelines([content] if isinstance(content, bytes) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, target)
    except OSError as error:
        raise X2CTError(f"{target}: output: not written: {_reason(error)}") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name[:80]}.{os.getpid()}.{uuid.uuid4().hex[:8]}.part")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
