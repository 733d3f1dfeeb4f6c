"""The cache of compiled engines: files that a runtime runs in place of a bundle's ONNX graphs.

A bundle is ONNX and executes nothing. A compiled engine (a TensorRT plan, a TorchScript file, an AOTInductor package)
is native code for one runtime on one kind of device, so each machine builds its own:

    engine = Cache().obtain(recipe, build)  # build(path) writes the file; called only if the recipe has no engine yet
    run(engine.path)

It lies in ENGINES/KIND/KEY/FILE, with a note beside it; KEY is the recipe's SHA-256. An engine is *stale* if its recipe
differs from the one that is needed, and *damaged* if its bytes are not those that were written. The cache builds both
again; copies elsewhere are refused.

Trust. Running an engine runs whatever its maker put into it, and no check of its content shows who made it. The cache
is trusted because nobody but its user can write to it: ENGINES must be a real folder that belongs to the user and has
mode 0700, or it is refused. A copy anywhere else is opened only if the caller passes `trust`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from x2ct.errors import InputError, X2CTError
from x2ct.files.atomic import write_atomically, write_beside
from x2ct.files.text import decode_json
from x2ct.io.report import sha256

Build = Callable[[Path], object]
Say = Callable[[str], None]

NOTE = "engine.json"  # the note's name in the cache; beside a copy FILE it is FILE.json
LOCK = ".lock"
"""The ending of an entry's lock file, which stays. The kernel releases the lock of a process that ends."""


class Recipe(msgspec.Struct, frozen=True):
    """Everything that an engine depends on."""

    kind: str  # what builds it ("tensorrt", "torchscript", "aoti"); a plain word
    file: str  # its file name
    sources: tuple[str, ...]  # SHA-256 of each file that it is made from
    runtime: str  # the runtime's name and whole version, with its build
    device: str  # the device's name, and what of it the runtime compiles for, such as "x86_64 avx512f"
    precision: str  # "f32", "tf32", "bf16" or "f16"
    # By input, the shape that it is for, or the least, the usual and the largest.
    profile: dict[str, tuple[tuple[int, ...], ...]] = {}
    flags: dict[str, str] = {}  # every option of the builder
    # Grows when the same recipe would give another engine: our graph transformations or what our builders pass to a
    # runtime changed.
    schema: int = 2

    @property
    def key(self) -> str:
        """The engine's folder in the cache."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class Note(msgspec.Struct, frozen=True):
    """The description beside an engine, as JSON: `created` is ISO 8601 in UTC, `seconds` the builder's."""

    recipe: Recipe
    sha256: str
    bytes: int
    created: str
    seconds: float


@dataclass(frozen=True)
class Engine:
    """A compiled engine with the right recipe and checksum: its file, its note, and whether it was built just now."""

    path: Path
    note: Note
    built: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the entry in reports."""
        return {**msgspec.to_builtins(self.note), "file": self.path.name, "path": str(self.path), "built": self.built}


class Cache:
    """One user's engines; `root` holds ENGINES and is by default X2CT_CACHE, or x2ct/ in the user's cache folder."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root or os.environ.get("X2CT_CACHE") or user_cache_path("x2ct"))
        self.folder = self.root / "engines"

    def find(self, recipe: Recipe) -> Engine | None:
        """Return the engine of a recipe, or None if there is none, or a stale or damaged one; writes nothing.

        Raises InputError, as all methods do, if others can write to the cache.
        """
        if not self._is_private():
            return None
        try:
            return _verified(self._entry(recipe) / recipe.file, NOTE, recipe)
        except _UnfitError:
            return None

    def similar(self, recipe: Recipe) -> list[Recipe]:
        """Return the recipes of the engines that differ from `recipe` in nothing but their profile and flags."""
        recipes = []
        for note in sorted(self.folder.glob(f"{recipe.kind}/*/{NOTE}")) if self._is_private() else ():
            try:
                recipes.append(_read_note(note).recipe)
            except _UnfitError:
                continue
        return [one for one in recipes if not _difference(one, recipe, ("profile", "flags"))]

    def obtain(self, recipe: Recipe, build: Build, say: Say = lambda _: None) -> Engine:
        """Return the engine of a recipe, building it first if need be.

        Of several processes that need it at once one builds, and the others wait and take what it built. The entry
        appears whole or not at all; what a killed builder left is removed by the next one. `build` writes the file to
        the path that it is given; its errors pass through, and nothing is left. `say` is called with one line before
        waiting for another process, and with the reason why an engine that is there is built again.

        Raises InputError: the cache can't be written; X2CTError: the builder wrote nothing, or the disk is full.
        """
        entry, lock = self._entry(recipe), FileLock(self._entry(recipe).with_suffix(LOCK))
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._is_private()
            entry.parent.mkdir(mode=0o700, exist_ok=True)
            _sweep(entry.parent)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                say(f"waiting for another process that builds {recipe.file}")
                lock.acquire()
        except OSError as error:
            found, hint = (error.strerror or str(error)).lower(), "name another one with X2CT_CACHE"
            expected = "a folder that can be written"
            raise InputError.of(self.folder, "cache", found=found, expected=expected, hint=hint) from error
        try:
            return _verified(entry / recipe.file, NOTE, recipe)
        except _UnfitError as reason:
            if entry.exists():
                say(f"{entry / recipe.file}: {reason}; building it again")
            write_beside(entry, lambda part: _build(recipe, build, part), replace=True)
            return Engine(entry / recipe.file, _read_note(entry / NOTE), built=True)
        finally:
            lock.release()

    def _entry(self, recipe: Recipe) -> Path:
        return self.folder / recipe.kind / recipe.key

    def _is_private(self) -> bool:
        """Return False if the folder is not there yet; raise InputError unless only its user can write to it."""
        try:
            state = os.lstat(self.folder)
        except OSError:
            return False
        if not stat.S_ISDIR(state.st_mode):
            found = "a symbolic link or a file"
        elif state.st_uid != os.geteuid():
            found = f"a folder of user {state.st_uid}"
        elif state.st_mode & 0o077:
            found = f"mode {stat.S_IMODE(state.st_mode):04o}"
        else:
            return True
        expected = "a folder of your own with mode 0700, as engines are native code"
        hint = "remove it, or name another cache with X2CT_CACHE"
        raise InputError.of(self.folder, "cache", found=found, expected=expected, hint=hint)


def copy_to(engine: Engine, target: Path) -> None:
    """Write a copy of an engine, and TARGET.json beside it, to take to another machine of the same kind.

    Raises X2CTError if it can't be written.
    """
    write_beside(target, lambda part: shutil.copyfile(engine.path, part))
    write_atomically(_note_beside(target), _encode(engine.note))


def open_copy(
    folder: str | os.PathLike[str], recipe: Recipe, *, trust: bool, free: tuple[str, ...] = ()
) -> Engine | None:
    """Return the engine that `copy_to` wrote into a folder, or None if the folder holds no file of that name.

    Without `trust`, by which the user vouches for whoever made it, it is neither opened nor read. In the fields `free`
    it may differ from the recipe. Raises InputError: no such folder, or an engine not trusted, stale or damaged.
    """
    path = Path(folder) / recipe.file
    if not path.parent.is_dir():
        expected = "what x2ct build -o or x2ct export --compiled wrote"
        raise InputError.of(path.parent, "engines", found="no folder", expected=expected)
    if not path.exists():
        return None
    if not trust:
        found, expected = "a file outside this user's cache", "--trust with it, as it is native code"
        hint = "build it here, or trust it if you know who made it"
        raise InputError.of(path, "origin", found=found, expected=expected, hint=hint)
    try:
        return _verified(path, _note_beside(path).name, recipe, free)
    except _UnfitError as reason:
        expected = "one of this recipe"
        raise InputError.of(path, "engine", found=reason, expected=expected, hint="build it again") from None


def unchanged(build: Build, sources: Mapping[Path, str]) -> Build:
    """Return a builder that raises X2CTError if, once `build` is done, a source no longer has its SHA-256."""

    def checked(target: Path) -> None:
        build(target)
        for path, checksum in sources.items():
            if sha256(path) != checksum:
                raise X2CTError(f"{path}: it changed while {target.name} was built from it; start again")

    return checked


class _UnfitError(Exception):
    """An engine is not there, stale or damaged; the text says which."""


def _build(recipe: Recipe, build: Build, part: Path) -> None:
    """Write an entry of the cache: the file, and the note with its checksum."""
    part.mkdir(mode=0o700)
    file = part / recipe.file
    started = time.perf_counter()
    build(file)
    seconds = round(time.perf_counter() - started, 3)
    if not file.is_file():
        raise X2CTError(f"{recipe.kind}: the builder wrote no {recipe.file}")
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    (part / NOTE).write_bytes(_encode(Note(recipe, sha256(file), file.stat().st_size, created, seconds)))


def _verified(path: Path, note_name: str, recipe: Recipe, free: tuple[str, ...] = ()) -> Engine:
    note = _read_note(path.with_name(note_name))
    if difference := _difference(note.recipe, recipe, free):
        raise _UnfitError(difference)
    try:
        checksum, size = sha256(path), path.stat().st_size
    except (InputError, OSError):
        raise _UnfitError("its file is missing") from None
    if (checksum, size) != (note.sha256, note.bytes):
        raise _UnfitError(f"damaged: its {size} bytes are not the {note.bytes} that were written")
    return Engine(path, note)


def _read_note(path: Path) -> Note:
    try:
        return decode_json(path.name, path.read_bytes(), Note)
    except OSError:
        raise _UnfitError(f"no {path.name} beside it describes it") from None
    except InputError as error:
        raise _UnfitError(str(error)) from None


def _difference(recipe: Recipe, needed: Recipe, free: tuple[str, ...]) -> str:
    """Return the first field in which a recipe differs, in words; "" if there is none."""
    for name in Recipe.__struct_fields__:
        found, expected = getattr(recipe, name), getattr(needed, name)
        if name not in free and found != expected:
            if name == "sources":
                return "stale: made from another network"
            return f"stale: {name} {found!r} where {expected!r} is needed"
    return ""


def _encode(note: Note) -> bytes:
    return msgspec.json.format(msgspec.json.encode(note), indent=1) + b"\n"


def _note_beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _sweep(folder: Path) -> None:
    """Remove what killed builders left (see `write_beside`): each hidden part whose lock nobody holds."""
    for part in folder.glob(".x2ct-*"):
        key = part.name.removesuffix(".old").rpartition("-")[2]
        try:
            with FileLock(folder / f"{key}{LOCK}").acquire(blocking=False):
                shutil.rmtree(part, ignore_errors=True)
        except Timeout:
            continue
