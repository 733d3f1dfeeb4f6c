"""Artefacts: what a machine makes of a bundle's ONNX graphs for itself (TensorRT plans, AOTInductor packages ...).

A bundle is ONNX and executes nothing; an artefact is native code, good for one runtime on one kind of device, so it is
built where it runs and kept in a cache. To have one:

    recipe = Recipe(
        kind="aoti",                        # the folder of the cache
        file="denoiser.pt2",                # what the artefact is called there
        sources=onnx_sources(bundle.file_of(bundle.networks.denoiser)),
        runtime=f"torch {version}",         # all that decides what comes out: the whole version with its build ...
        device="cpu AVX512",                # ... the device's name and its abilities ...
        precision="f32",
        profile={"x": (shape,)},            # ... by input one shape, or the least, the usual and the largest
        flags={"freezing": "on"},           # ... and every option that the builder was given
    )
    artefact = Cache().obtain(recipe, build)   # build(path) writes the file; called only if there is none that will do
    run(artefact.path)

`obtain` holds a lock while it builds, so that of two processes one builds and the other waits and takes what it made.
The kernel lets go of a lock when its process ends, however that happens. What is built lies beside until it is whole,
then one rename gives it its name; what a killed process left is swept by the next one that builds. `find` only looks.
`copy_to` takes an artefact out of the cache, `open` opens one by its path.

An artefact is *stale* when anything in its recipe differs, *damaged* when its bytes are not those that were written,
and *foreign* when this cache didn't build it: a seal (HMAC-SHA256 by a secret of the cache, which never leaves it)
tells. In the cache all three are built again; elsewhere they are refused with the reason, and a foreign one is opened
where the caller says `trust`.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from x2ct.errors import InputError, X2CTError
from x2ct.fields import Json, parse, shown
from x2ct.onnxfile import external_files
from x2ct.output import write_atomically

SCHEMA = 1
"""Grows when an artefact of the same recipe would come out otherwise: by a change of our graph transformations, of what
our builders tell a runtime, or of the sidecar."""

SIDECAR = "artefact.json"

Build = Callable[[Path], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """All that an artefact depends on.

    Attributes:
        kind: what builds it ("tensorrt", "torchscript", "aoti"); a plain word.
        file: its file name.
        sources: the files it is made from; their content counts, not their names.
        runtime: the runtime's name and whole version.
        device: the device's name, and what of it the runtime compiles for.
        precision: "f32", "tf32", "bf16" or "f16".
        profile: by input, the shape it is for, or the least, the usual and the largest.
        flags: every option of the builder.
    """

    kind: str
    file: str
    sources: tuple[Path, ...]
    runtime: str
    device: str
    precision: str
    profile: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)

    def ingredients(self) -> dict[str, Json]:
        """The recipe as plain data, with the sources' checksums in place of their names.

        Raises:
            InputError: a source can't be read.
        """
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "sources": [_sha256(path)[0] for path in self.sources],
            "runtime": self.runtime,
            "device": self.device,
            "precision": self.precision,
            "profile": {name: [list(shape) for shape in shapes] for name, shapes in self.profile.items()},
            "flags": dict(self.flags),
        }


def key_of(ingredients: Mapping[str, Json]) -> str:
    """The name in the cache: SHA-256 of the ingredients, whose order does not count."""
    return hashlib.sha256(_canonical(ingredients)).hexdigest()


def onnx_sources(path: Path) -> tuple[Path, ...]:
    """An ONNX file and the files that it keeps its weights in, where it does.

    Raises:
        InputError: it can't be read, or refers to something outside its folder.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    return (path, *external_files(path, data))


def default_folder() -> Path:
    """X2CT_CACHE, or x2ct/ in the XDG cache folder."""
    if told := os.environ.get("X2CT_CACHE"):
        return Path(told)
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache") / "x2ct"


@dataclass(frozen=True)
class Artefact:
    """One that has been checked.

    Attributes:
        path: the file.
        key: see `key_of`.
        ingredients: see `Recipe`.
        sha256, bytes: of the file.
        created: when, ISO 8601 in UTC.
        seconds: how long the builder took.
        built: whether it was built just now.
    """

    path: Path
    key: str
    ingredients: Mapping[str, Json]
    sha256: str
    bytes: int
    created: str
    seconds: float
    built: bool = False

    def to_json(self) -> dict[str, Json]:
        """What the sidecar says beside the seal."""
        return {
            "key": self.key,
            "file": self.path.name,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "created": self.created,
            "seconds": round(self.seconds, 3),
            "ingredients": dict(self.ingredients),
        }


class _Unfit(Exception):
    """What is there won't do; the text says why."""


class _Foreign(_Unfit):
    """It is whole and fits, and was built elsewhere."""


class Cache:
    """A folder of artefacts: KIND/KEY/FILE with KIND/KEY/artefact.json beside it.

    Args:
        folder: by default `default_folder`; made when something is built.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder)

    def find(self, recipe: Recipe) -> Artefact | None:
        """The artefact of a recipe, or None where there is none that will do.

        Raises:
            InputError: a source can't be read.
        """
        try:
            return self._checked(self._place(recipe) / recipe.file, SIDECAR, recipe)
        except _Unfit:
            return None

    def obtain(self, recipe: Recipe, build: Build, say: Say | None = None) -> Artefact:
        """The artefact of a recipe, built if need be.

        Args:
            recipe: what is wanted.
            build: writes the file to the path it is given. What it raises comes out, and nothing is left.
            say: told in a line what takes its time: waiting for another process, and why one that was there is built
                again.

        Raises:
            InputError: a source can't be read, or the cache can't be written.
            X2CTError: the builder wrote nothing.
        """
        tell = say or (lambda _: None)
        place = self._place(recipe)
        with _lock(place, lambda: tell(f"waiting for another process that builds {recipe.file}")):
            try:
                return self._checked(place / recipe.file, SIDECAR, recipe)
            except _Unfit as reason:
                if place.exists():
                    tell(f"{place / recipe.file}: {reason}; building it again")
            _sweep(place.parent)
            return self._build(recipe, build, place)

    def recipes(self, like: Recipe) -> list[Recipe]:
        """Those of the artefacts that are there which differ from a recipe in their profile and flags alone."""
        found = []
        for sidecar in sorted(self.folder.glob(f"{like.kind}/*/{SIDECAR}")):
            try:
                found.append(_told(sidecar, sidecar.with_name(like.file), like))
            except _Unfit:
                continue
        return found

    def told(self, path: str | os.PathLike[str], like: Recipe) -> Recipe:
        """The recipe of an artefact by its path: `like`, but for its own profile and flags.

        Raises:
            InputError: it is of another kind, source, runtime, device or precision.
        """
        target = Path(path)
        try:
            return _told(target.with_name(f"{target.name}.json"), target, like)
        except _Unfit as reason:
            raise _unfit(target, reason) from None

    def open(self, path: str | os.PathLike[str], recipe: Recipe, *, trust: bool = False) -> Artefact:
        """An artefact by its path, with its sidecar PATH.json beside it.

        Args:
            path: what `copy_to` wrote.
            recipe: what it must be.
            trust: open it even if another machine built it: it is native code, and does what its maker wants.

        Raises:
            InputError: it is stale, damaged, or foreign and not trusted; the text says which.
        """
        target = Path(path)
        try:
            return self._checked(target, f"{target.name}.json", recipe)
        except _Foreign as reason:
            if trust:
                return self._checked(target, f"{target.name}.json", recipe, sealed=False)
            raise InputError.of(
                target,
                "origin",
                found=reason,
                expected="one that this machine built",
                hint="build it here, or say --trust if you know who made it: it is native code",
            ) from None
        except _Unfit as reason:
            raise _unfit(target, reason) from None

    def copy_to(self, artefact: Artefact, target: Path) -> Path:
        """Put a copy of an artefact and its sidecar, TARGET.json, elsewhere.

        Raises:
            X2CTError: it can't be written.
        """
        try:
            write_atomically(target, artefact.path.read_bytes())
        except OSError as error:
            raise _unreadable(artefact.path, error) from None
        write_atomically(target.with_name(f"{target.name}.json"), self._sidecar(replace(artefact, path=target)))
        return target

    def _place(self, recipe: Recipe) -> Path:
        return self.folder / recipe.kind / key_of(recipe.ingredients())

    def _build(self, recipe: Recipe, build: Build, place: Path) -> Artefact:
        beside = _part(place)
        file = beside / recipe.file
        try:
            with _os_errors(self.folder):
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir()
            started = time.perf_counter()
            build(file)
            seconds = time.perf_counter() - started
            if not file.is_file():
                raise X2CTError(f"{recipe.kind}: the builder wrote no {recipe.file}")
            ingredients = recipe.ingredients()
            if key_of(ingredients) != place.name:
                raise X2CTError(f"{recipe.sources[0]}: it changed while {recipe.file} was built from it; start again")
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            with _os_errors(self.folder):
                digest, size = _flushed(file)
                made = Artefact(place / recipe.file, place.name, ingredients, digest, size, created, seconds, True)
                write_atomically(beside / SIDECAR, self._sidecar(made))
                shutil.rmtree(place, ignore_errors=True)  # what was there and would not do
                beside.rename(place)
            return made
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _sidecar(self, artefact: Artefact) -> bytes:
        content = artefact.to_json()
        return json.dumps(content | {"seal": self._seal(content)}, indent=1).encode() + b"\n"

    def _checked(self, path: Path, sidecar: str, recipe: Recipe, *, sealed: bool = True) -> Artefact:
        """What lies there, if it is whole and of this recipe, and this cache's own work where that is asked."""
        wanted = recipe.ingredients()
        content, said, seal = _read_sidecar(path.with_name(sidecar), path)
        if found := _difference(said.ingredients, wanted):
            raise _Unfit(found)
        try:
            there = _sha256(path)
        except InputError:
            raise _Unfit("its file is missing") from None
        if there != (said.sha256, said.bytes):
            raise _Unfit(f"damaged: its {there[1]} bytes are not the {said.bytes} that were written")
        if sealed and not hmac.compare_digest(seal, self._seal(content)):
            raise _Foreign("one that was built elsewhere")
        return said

    def _seal(self, content: Mapping[str, Json]) -> str:
        said = {name: value for name, value in content.items() if name not in ("file", "seal")}
        return hmac.new(self._secret(), _canonical(said), hashlib.sha256).hexdigest()

    def _secret(self) -> bytes:
        """Made once; by a link, so that of two processes that make it the first wins and none reads half of it."""
        path = self.folder / "secret"
        with _os_errors(self.folder):
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                beside = self.folder / f".secret.{os.getpid()}.{secrets.token_hex(4)}"
                with open(beside, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
                    stream.write(secrets.token_bytes(32))
                try:
                    os.link(beside, path)
                except FileExistsError:  # the other's
                    pass
                finally:
                    beside.unlink()
            return path.read_bytes()


def _canonical(content: Mapping[str, Json]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sha256(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return digest, stream.tell()
    except OSError as error:
        raise _unreadable(path, error) from None


def _read_sidecar(sidecar: Path, path: Path) -> tuple[dict[str, Json], Artefact, str]:
    """What it says, as it stands there and as what it says of `path`, and its seal."""
    try:
        fields = parse(sidecar, sidecar.read_bytes())
        ingredients = fields.mapping("ingredients")
        said = Artefact(
            path,
            key_of(ingredients),
            ingredients,
            fields.text("sha256", "a checksum"),
            fields.integer("bytes", 0, 1 << 62),
            fields.text("created", "a time"),
            fields.number("seconds", 0, 1e9),
        )
        seal = fields.text("seal", "a seal")
        return {name: fields.raw(name, "a field") for name in fields.keys()}, said, seal  # noqa: SIM118
    except OSError:
        raise _Unfit(f"no {sidecar.name} beside it says what it is") from None
    except InputError as error:
        raise _Unfit(str(error)) from None


def _told(sidecar: Path, path: Path, like: Recipe) -> Recipe:
    """What a sidecar says of profile and flags, where all else is as in `like`."""
    _, said, _ = _read_sidecar(sidecar, path)
    wanted = like.ingredients()
    profile, flags = said.ingredients.get("profile"), said.ingredients.get("flags")
    if found := _difference(said.ingredients, {**wanted, "profile": profile, "flags": flags}):
        raise _Unfit(found)
    if not isinstance(profile, dict) or not isinstance(flags, dict):
        raise _Unfit("its profile and flags can't be read")
    ranges = {name: tuple(_shape(shape) for shape in _items(shapes)) for name, shapes in profile.items()}
    return replace(like, profile=ranges, flags={name: str(value) for name, value in flags.items()})


def _shape(value: Json) -> tuple[int, ...]:
    return tuple(size for size in _items(value) if isinstance(size, int))


def _items(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _difference(found: Mapping[str, Json], wanted: Mapping[str, Json]) -> str:
    """The first ingredient that differs, in words; "" where none does."""
    for name in (*wanted, *(set(found) - set(wanted))):
        if found.get(name) != wanted.get(name):
            what = "made from another network" if name == "sources" else f"{name} {shown(found.get(name))}"
            return f"stale: {what}" + ("" if name == "sources" else f" where {shown(wanted.get(name))} is wanted")
    return ""


def _part(place: Path) -> Path:
    return place.with_name(f".{place.name}.part")


def _lock_file(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")


@contextmanager
def _lock(place: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """One builder at a time for a place. The lock is the kernel's, on a file that stays: it can't be left behind."""
    with _os_errors(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        stream = _lock_file(place).open("ab")
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


def _sweep(folder: Path) -> None:
    """Remove what killed builders left: each unfinished folder whose lock nobody holds, but for the caller's own."""
    for part in folder.glob(".*.part"):
        with part.with_suffix(".lock").open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(part, ignore_errors=True)


def _flushed(path: Path) -> tuple[str, int]:
    """Checksum and size of a file that is on the disk by then."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return _sha256(path)


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError.of(path, "file", found=(error.strerror or str(error)).lower(), expected="one that can be read")


def _unfit(path: Path, reason: _Unfit) -> InputError:
    return InputError.of(path, "artefact", found=reason, expected="one of this recipe", hint="build it again")


@contextmanager
def _os_errors(folder: Path) -> Iterator[None]:
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
