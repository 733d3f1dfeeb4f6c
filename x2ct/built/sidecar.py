"""What lies beside an artefact and says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from x2ct.built.recipe import Recipe, difference, key_of
from x2ct.errors import InputError
from x2ct.textfiles import Json, decode_json

SIDECAR = "artefact.json"
"""Its name in the cache; elsewhere it is the artefact's, with .json behind it."""


@dataclass(frozen=True)
class Artefact:
    """One that has been checked.

    Attributes:
        path: the file.
        key: see `x2ct.built.recipe`.
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


class _Facts(msgspec.Struct):
    """The fields that a sidecar must have."""

    ingredients: dict[str, Any]
    sha256: str
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    created: str
    seconds: Annotated[float, msgspec.Meta(ge=0)]
    seal: str


class UnfitError(Exception):
    """What is there won't do; the text says why."""


class ForeignError(UnfitError):
    """It is whole and fits, and was built elsewhere."""


@dataclass(frozen=True)
class Sidecar:
    """What was read.

    Attributes:
        content: as it stands there.
        artefact: the same, of the file that it was read for.
        seal: see `x2ct.built.seal`.
    """

    content: Mapping[str, Json]
    artefact: Artefact
    seal: str

    @classmethod
    def read(cls, sidecar: Path, path: Path) -> Sidecar:
        """Read what stands beside a file.

        Raises:
            UnfitError: there is none, or it can't be read.
        """
        try:
            data = sidecar.read_bytes()
            facts, content = decode_json(sidecar, data, _Facts), decode_json(sidecar, data, dict[str, Any])
            key = key_of(facts.ingredients)
            artefact = Artefact(path, key, facts.ingredients, facts.sha256, facts.bytes, facts.created, facts.seconds)
            return cls(content, artefact, facts.seal)
        except OSError:
            raise UnfitError(f"no {sidecar.name} beside it says what it is") from None
        except InputError as error:
            raise UnfitError(str(error)) from None

    def recipe(self, like: Recipe) -> Recipe:
        """The artefact's recipe: `like`, but for its own profile and flags.

        Raises:
            UnfitError: something else differs too.
        """
        there = self.artefact.ingredients
        own = {name: there.get(name) for name in ("profile", "flags")}
        if found := difference(there, {**like.ingredients(), **own}):
            raise UnfitError(found)
        told = like.retold(there)
        if told is None:
            raise UnfitError("its profile and flags can't be read")
        return told
