"""Writing files so that a final name never holds half a file: everything goes beside it first, then os.replace."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

from x2ct.errors import InputError, X2CTError


def check_writable(path: str | PathLike[str], suffixes: tuple[str, ...] = ()) -> Path:
    """Return `path`, unless it is known before a long run that it can't be written; nothing is changed or left behind.

    Folders that are missing are made when the file is written. Raises InputError: an ending that is none of `suffixes`
    (any will do where empty), a read-only folder, a file in place of one, or a folder under that name.
    """
    target = Path(path)
    if suffixes and not target.name.lower().endswith(suffixes):
        found = f"'{target.suffix}'" if target.suffix else "no ending"
        raise InputError.of(target, "output", found=found, expected=" or ".join(suffixes))
    if target.is_dir():
        raise InputError.of(target, "output", found="a folder", expected="a file name", hint="add a name to it")
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise InputError.of(target, "output", found=f"a file {folder.name}", expected="a folder of that name")
    # Permission bits say nothing on a read-only or full file system, or to root: only trying tells.
    probe = _beside(folder / target.name)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise InputError.of(target, "output", found=_reason(error), expected="a folder that can be written") from error
    return target


def check_folder(path: str | PathLike[str]) -> Path:
    """Return `path`, unless it is known before a long run that files can't be written to a folder there.

    Raises InputError: a file under that name, or a place that can't be written.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise InputError.of(target, "output", found="a file", expected="a folder", hint="name another")
    check_writable(target / "file" if target.is_dir() else target)  # what can't hold a file can't hold a folder
    return target


def check_new_folder(path: str | PathLike[str]) -> Path:
    """Return `path` as `check_folder`, which may be an empty folder; raises InputError also for one with files."""
    target = check_folder(path)
    if target.is_dir() and any(target.iterdir()):
        raise InputError.of(target, "output", found="a folder with files", expected="a new one", hint="name another")
    return target


def write_atomically(path: str | PathLike[str], content: bytes | Iterable[bytes]) -> Path:
    """Write `content`, or its parts as they come, whole or not at all: see `write_beside`."""

    def write(part: Path) -> None:
        with part.open("xb") as stream:
            stream.writelines([content] if isinstance(content, bytes) else content)

    return write_beside(path, write)


def write_beside(path: str | PathLike[str], write: Callable[[Path], object], *, replace: bool = False) -> Path:
    """Let `write` make a file, or a folder of files, beside `path`; flush it to the disk and move it to its name.

    `write` is given a hidden name with the same ending. A file that is there is replaced, and so is an empty folder, or
    with `replace` one that holds files. That takes two renames: a process killed between them leaves the old folder
    beside `path`, under a hidden name that ends in ".old". Raises X2CTError where the write fails (disk full, folder
    gone); what was at `path` before is still there, whole.
    """
    target = Path(path)
    part = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())  # waits until its bytes are on the disk
        if replace and target.is_dir():
            old = part.with_name(f"{part.name}.old")
            target.rename(old)
            try:
                part.rename(target)
            except OSError:
                old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(part, target)
    except OSError as error:
        raise X2CTError(f"{target}: output: not written: {_reason(error)}") from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
    return target


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raise InputError where an output is an input, or another output."""
    read = {path.resolve() for path in inputs}
    written: set[Path] = set()
    for path in outputs:
        place = path.resolve()
        if place in read or place in written:
            found = "an input of the same run" if place in read else "the name of another output"
            raise InputError.of(path, "output", found=found, expected="a name of its own")
        written.add(place)


@contextmanager
def staged(outputs: Sequence[Path]) -> Iterator[Callable[[Path], Path]]:
    """Write several files so that all of them appear, or none.

    Yields a function from each output to the path to write it to, in a hidden folder beside it. At the end of the block
    they are moved into place; where it raises, the hidden folders go, and so do the folders made for the outputs.
    Raises X2CTError: a folder can't be made, or a file can't be moved.
    """
    folders: dict[Path, Path] = {}
    new_folders: list[Path] = []

    def place(output: Path) -> Path:
        return folders[output.parent] / output.name

    try:
        for parent in {output.parent for output in outputs}:
            new_folders += [folder for folder in (parent, *parent.parents) if not folder.exists()]
            parent.mkdir(parents=True, exist_ok=True)
            folders[parent] = Path(tempfile.mkdtemp(prefix=".x2ct-", dir=parent))
        yield place
        for output in outputs:
            os.replace(place(output), output)
        new_folders.clear()
    except X2CTError as error:
        text = str(error)  # with the user's names, not the hidden ones
        for parent, folder in folders.items():
            text = text.replace(str(folder), str(parent))
        raise type(error)(text) from error
    except OSError as error:
        raise X2CTError(f"{error.filename or 'output'}: not written: {error.strerror or error}") from error
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        for folder in sorted(new_folders, key=lambda folder: -len(folder.parts)):
            with suppress(OSError):
                folder.rmdir()


def remove_parts(targets: Iterable[Path]) -> None:
    """Remove what a killed process left of writing these files: nobody else may be writing them."""
    for target in targets:
        own = re.compile(r"\.x2ct-\d+-[0-9a-f]{8}-" + re.escape(target.name[-80:]))
        for part in target.parent.glob(".x2ct-*"):
            if own.fullmatch(part.name):
                part.unlink(missing_ok=True)
            elif (part / target.name).exists():
                shutil.rmtree(part, ignore_errors=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".x2ct-{os.getpid()}-{uuid.uuid4().hex[:8]}-{target.name[-80:]}")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
