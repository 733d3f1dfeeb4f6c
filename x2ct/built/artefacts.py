"""Artefacts: what a machine makes of a bundle's ONNX graphs for itself (TensorRT plans, AOTInductor packages ...).

A bundle is ONNX and executes nothing; an artefact is native code, good for one runtime on one kind of device, so it is
built where it runs and kept in a cache. To have one:

    recipe = Recipe(
        kind="aoti",                        # the folder of the cache
        file="denoiser.pt2",                # what the artefact is called there
        sources=(bundle.file_of(bundle.networks.denoiser),),
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

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from x2ct.built.cachefolder import default_folder, locked, os_errors, part_of, sweep
from x2ct.built.recipe import Recipe, difference, key_of, unreadable
from x2ct.built.seal import is_sealed, seal
from x2ct.built.sidecar import SIDECAR, Artefact, ForeignError, Sidecar, UnfitError
from x2ct.errors import InputError, X2CTError
from x2ct.output import flush, write_atomically
from x2ct.report import sha256

__all__ = ["Artefact", "Cache", "Recipe"]

Build = Callable[[Path], None]
Say = Callable[[str], None]


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
        except UnfitError:
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
        with locked(place, lambda: tell(f"waiting for another process that builds {recipe.file}")):
            try:
                return self._checked(place / recipe.file, SIDECAR, recipe)
            except UnfitError as reason:
                if place.exists():
                    tell(f"{place / recipe.file}: {reason}; building it again")
            sweep(place.parent)
            return self._build(recipe, build, place)

    def recipes(self, like: Recipe) -> list[Recipe]:
        """Those of the artefacts that are there which differ from a recipe in their profile and flags alone."""
        found = []
        for sidecar in sorted(self.folder.glob(f"{like.kind}/*/{SIDECAR}")):
            try:
                found.append(Sidecar.read(sidecar, sidecar.with_name(like.file)).recipe(like))
            except UnfitError:
                continue
        return found

    def told(self, path: str | os.PathLike[str], like: Recipe) -> Recipe:
        """The recipe of an artefact by its path: `like`, but for its own profile and flags.

        Raises:
            InputError: it is of another kind, source, runtime, device or precision.
        """
        target = Path(path)
        try:
            return Sidecar.read(target.with_name(f"{target.name}.json"), target).recipe(like)
        except UnfitError as reason:
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
        except ForeignError as reason:
            if trust:
                return self._checked(target, f"{target.name}.json", recipe, sealed=False)
            raise InputError.of(
                target,
                "origin",
                found=reason,
                expected="one that this machine built",
                hint="build it here, or say --trust if you know who made it: it is native code",
            ) from None
        except UnfitError as reason:
            raise _unfit(target, reason) from None

    def copy_to(self, artefact: Artefact, target: Path) -> Path:
        """Put a copy of an artefact and its sidecar, TARGET.json, elsewhere.

        Raises:
            X2CTError: it can't be written.
        """
        try:
            write_atomically(target, artefact.path.read_bytes())
        except OSError as error:
            raise unreadable(artefact.path, error) from None
        write_atomically(target.with_name(f"{target.name}.json"), self._sidecar(replace(artefact, path=target)))
        return target

    def _place(self, recipe: Recipe) -> Path:
        return self.folder / recipe.kind / key_of(recipe.ingredients())

    def _build(self, recipe: Recipe, build: Build, place: Path) -> Artefact:
        beside = part_of(place)
        file = beside / recipe.file
        try:
            with os_errors(self.folder):
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
            with os_errors(self.folder):
                flush(file)
                digest, size = sha256(file), file.stat().st_size
                made = Artefact(place / recipe.file, place.name, ingredients, digest, size, created, seconds, True)
                write_atomically(beside / SIDECAR, self._sidecar(made))
                shutil.rmtree(place, ignore_errors=True)  # what was there and would not do
                beside.rename(place)
            return made
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _sidecar(self, artefact: Artefact) -> bytes:
        content = artefact.to_json()
        return json.dumps(content | {"seal": seal(self.folder, content)}, indent=1).encode() + b"\n"

    def _checked(self, path: Path, sidecar: str, recipe: Recipe, *, sealed: bool = True) -> Artefact:
        """What lies there, if it is whole and of this recipe, and this cache's own work where that is asked."""
        wanted = recipe.ingredients()
        found = Sidecar.read(path.with_name(sidecar), path)
        said = found.artefact
        if stale := difference(said.ingredients, wanted):
            raise UnfitError(stale)
        try:
            there = sha256(path), path.stat().st_size
        except (InputError, OSError):
            raise UnfitError("its file is missing") from None
        if there != (said.sha256, said.bytes):
            raise UnfitError(f"damaged: its {there[1]} bytes are not the {said.bytes} that were written")
        if sealed and not is_sealed(self.folder, found.content, found.seal):
            raise ForeignError("one that was built elsewhere")
        return said


def _unfit(path: Path, reason: UnfitError) -> InputError:
    return InputError.of(path, "artefact", found=reason, expected="one of this recipe", hint="build it again")
