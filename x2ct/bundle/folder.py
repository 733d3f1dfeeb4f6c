"""A bundle's folder: found by name or path, and what may be replaced by one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from x2ct._core import MAX_MANIFEST_BYTES
from x2ct.bundle.manifest import MANIFEST
from x2ct.errors import InputError
from x2ct.files.atomic import check_writable
from x2ct.io.report import read_json

SUFFIX = ".x2ct"
DEFAULT = "chest"  # the name of the bundled model that is used when none is named

_MODELS = Path(__file__).parent.parent / "models"


def bundled() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in _MODELS.glob(f"*{SUFFIX}")))


def find(model: str | os.PathLike[str]) -> Path:
    """Return a bundle's folder: a path, which need not be one, or a bundled model's name (InputError if unknown)."""
    folder = Path(model)
    if isinstance(model, str) and Path(model).name == model and not (model.endswith(SUFFIX) and folder.exists()):
        packaged = _MODELS / (model.removesuffix(SUFFIX) + SUFFIX)
        if packaged.is_dir():
            return packaged
        names = ", ".join(bundled()) or "none"
        expected = f"a folder NAME{SUFFIX} or a bundled model ({names})"
        raise InputError.unknown(model, "model", found=model, known=bundled(), expected=expected)
    return folder


def check_target(target: Path) -> None:
    """Raise InputError before a long run where no bundle can be written.

    A target is absent, an empty folder, or a bundle and nothing else.
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
        raise InputError.of(target, "output", found=error, expected="a folder that can be written") from None
    manifest, listed = target / MANIFEST, set[str]()
    if manifest.is_file() and manifest.stat().st_size <= MAX_MANIFEST_BYTES:
        with suppress(InputError, KeyError, TypeError):  # of a damaged bundle too
            listed = {MANIFEST, *read_json(manifest)["files"]}
    if other := sorted(present - listed):
        what, expected = f"a folder that holds {other[0]}", "a new folder, or a bundle to replace"
        raise InputError.of(target, "output", found=what, expected=expected)
