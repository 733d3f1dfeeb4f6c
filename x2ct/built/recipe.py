"""What an artefact depends on, as a recipe, and the name that the cache makes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from x2ct.errors import InputError
from x2ct.report import sha256
from x2ct.textfiles import Json, shown

SCHEMA = 1
"""Grows when an artefact of the same recipe would come out otherwise: by a change of our graph transformations, of what
our builders tell a runtime, or of the sidecar."""


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
            "sources": [sha256(path) for path in self.sources],
            "runtime": self.runtime,
            "device": self.device,
            "precision": self.precision,
            "profile": {name: [list(shape) for shape in shapes] for name, shapes in self.profile.items()},
            "flags": dict(self.flags),
        }

    def retold(self, ingredients: Mapping[str, Json]) -> Recipe | None:
        """This recipe with the profile and flags of ingredients that were written down; None where there are none."""
        profile, flags = ingredients.get("profile"), ingredients.get("flags")
        if not isinstance(profile, dict) or not isinstance(flags, dict):
            return None
        ranges = {name: tuple(_shape(shape) for shape in _items(shapes)) for name, shapes in profile.items()}
        return replace(self, profile=ranges, flags={name: str(value) for name, value in flags.items()})


def key_of(ingredients: Mapping[str, Json]) -> str:
    """The name in the cache: SHA-256 of the ingredients, whose order does not count."""
    return hashlib.sha256(canonical(ingredients)).hexdigest()


def difference(found: Mapping[str, Json], wanted: Mapping[str, Json]) -> str:
    """The first ingredient that differs, in words; "" where none does."""
    for name in (*wanted, *(set(found) - set(wanted))):
        if found.get(name) != wanted.get(name):
            what = "made from another network" if name == "sources" else f"{name} {shown(found.get(name))}"
            return f"stale: {what}" + ("" if name == "sources" else f" where {shown(wanted.get(name))} is wanted")
    return ""


def canonical(content: Mapping[str, Json]) -> bytes:
    """The same bytes for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def unreadable(path: Path, error: OSError) -> InputError:
    """The error that a file can't be read."""
    return InputError.of(path, "file", found=(error.strerror or str(error)).lower(), expected="one that can be read")


def _shape(value: Json) -> tuple[int, ...]:
    return tuple(size for size in _items(value) if isinstance(size, int))


def _items(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
