"""The cache's folder: where it is, who builds in it, and what a killed builder left there."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from x2ct.errors import InputError


def default_folder() -> Path:
    """X2CT_CACHE, or x2ct/ in the XDG cache folder."""
    if told := os.environ.get("X2CT_CACHE"):
        return Path(told)
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache") / "x2ct"


def part_of(place: Path) -> Path:
    """Where a place's artefact lies until it is whole."""
    return place.with_name(f".{place.name}.part")


@contextmanager
def locked(place: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """One builder at a time for a place. The lock is the kernel's, on a file that stays: it can't be left behind."""
    with os_errors(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        stream = place.with_name(f".{place.name}.lock").open("ab")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)  # for a child too that has been forked meanwhile


def sweep(folder: Path) -> None:
    """Remove what killed builders left: each unfinished folder whose lock nobody holds, but for the caller's own."""
    for part in folder.glob(".*.part"):
        with part.with_suffix(".lock").open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def os_errors(folder: Path) -> Iterator[None]:
    """What the system refuses in a folder, as an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError.of(
            folder,
            "cache",
            found=(error.strerror or str(error)).lower(),
            expected="a folder that can be written",
            hint="name another one with --cache or X2CT_CACHE",
        ) from error
