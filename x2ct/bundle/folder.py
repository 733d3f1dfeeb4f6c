"""A bundle's folder: found by name or path, read file by file, written beside its place and then put there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from x2ct.bundle.manifest import MANIFEST
from x2ct.bundle.reading import listed_files
from x2ct.errors import InputError
from x2ct.output import check_writable

SUFFIX = ".x2ct"
DEFAULT = "chest"
"""The name of the bundled model that is used when none is named."""

MAX_MANIFEST_BYTES = 4 << 20

_MODELS = Path(__file__).parent.parent / "models"


def bundled() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in _MODELS.glob(f"*{SUFFIX}")))


def find(model: str | os.PathLike[str]) -> Path:
    """The folder of a bundle: a path, or the name of a bundled model.

    Raises:
        InputError: there is none.
    """
    folder = Path(model)
    if isinstance(model, str) and Path(model).name == model and not (model.endswith(SUFFIX) and folder.exists()):
        packaged = _MODELS / (model.removesuffix(SUFFIX) + SUFFIX)
        if packaged.is_dir():
            return packaged
        names = ", ".join(bundled()) or "none"
        expected = f"a folder NAME{SUFFIX} or a bundled model ({names})"
        raise InputError.unknown(model, "model", found=model, known=bundled(), expected=expected)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        raise InputError.of(folder, "bundle", found=found, expected=f"a folder NAME{SUFFIX} with {MANIFEST}")
    return folder


def read_file(path: Path, size: int | None, limit: int) -> bytes:
    """A regular file's bytes; `size` is what it must have, None where any size up to `limit` will do.

    Raises:
        InputError: it is absent, no regular file, or of another size.
        OSError: it can't be read.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError.of(path, "file", found="nothing there", expected="a file of the bundle") from None
    if not stat.S_ISREG(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        raise InputError.of(path, "file", found=what, expected="a regular file inside the bundle")
    expected = f"at most {limit} bytes" if size is None else f"{size} bytes"
    if found.st_size > limit or size not in (None, found.st_size):
        raise InputError.of(
            path, "size", found=f"{found.st_size} bytes", expected=expected, hint="copy the bundle again"
        )
    with path.open("rb") as stream:
        data = stream.read(found.st_size + 1)
    if len(data) != found.st_size:
        raise InputError.of(path, "size", found="a file that changes", expected=expected)
    return data


def read_manifest_file(folder: Path) -> bytes:
    """The bytes of model.json; raises as `read_file`."""
    return read_file(folder / MANIFEST, None, MAX_MANIFEST_BYTES)


def check_target(target: Path) -> None:
    """Say before a long run that a bundle can't be written: a target is absent, an empty folder, or a bundle alone.

    Raises:
        InputError: it is something else, or has no folder to be in.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        what = "a symbolic link" if target.is_symlink() else "a file"
        raise InputError.of(target, "output", found=what, expected="a new folder, or a bundle to replace")
    if not target.name or not target.absolute().parent.is_dir():
        raise InputError.of(target, "output", found="no folder to put it in", expected=f"a path PARENT/NAME{SUFFIX}")
    if not target.is_dir():
        check_writable(target)
        return
    try:
        present = {entry.name for entry in target.iterdir()}
    except OSError as error:
        expected = "a folder that can be written"
        raise InputError.of(target, "output", found=error.strerror or error, expected=expected) from None
    if present and (other := _strangers(target, present)):
        raise InputError.of(
            target, "output", found=f"a folder that holds {other[0]}", expected="a new folder, or a bundle to replace"
        )


def _strangers(target: Path, present: set[str]) -> list[str]:
    """What is in a folder that is no part of the bundle there; all of it where there is none."""
    try:
        known = {MANIFEST, *listed_files(target / MANIFEST, read_manifest_file(target))}
    except InputError:
        known = set()
    return sorted(present - known)
