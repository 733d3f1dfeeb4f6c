"""The views of one study, and the geometry file that holds them, which the core reads (docs/geometry.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from x2ct import _core
from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.files.text import Json
from x2ct.geometry.view import (
    DEFAULT_SDD_MM,
    DEFAULT_SHAPE,
    DEFAULT_SOD_MM,
    DEFAULT_SPACING_MM,
    FloatArray,
    Vector,
    View,
)


@dataclass(frozen=True)
class Geometry:
    """The views of one study, each under its own name.

    Attributes:
        views: one or more.
        origin_world_mm: where the origin of patient mm lies in the world mm (RAS+) of the CT that the X-rays were
            projected from; None where there is no such CT. The axes of patient mm and of world mm are parallel.

    Raises:
        InputError: no view, or two of the same name.
    """

    views: tuple[View, ...]
    origin_world_mm: Vector | None = None

    def __post_init__(self) -> None:
        names = [view.name for view in self.views]
        if not 1 <= len(names) <= _core.MAX_VIEWS:
            raise InputError.of("geometry", "views", found=f"{len(names)} views", expected=f"1 to {_core.MAX_VIEWS}")
        if len(set(names)) != len(names):
            raise InputError.of("geometry", "views", found=", ".join(names), expected="a name of its own for each view")

    @classmethod
    def parallel(
        cls,
        views: Sequence[str | float] = ("ap", "lateral"),
        *,
        shape: tuple[int, int] = DEFAULT_SHAPE,
        spacing_mm: tuple[float, float] = (DEFAULT_SPACING_MM, DEFAULT_SPACING_MM),
        isocentre_mm: Vector = (0.0, 0.0, 0.0),
    ) -> Geometry:
        """Parallel beams: view names ("ap", "pa", "lateral") or angles in degrees; see `View.parallel` for the rest."""
        detector: dict[str, Any] = {"shape": shape, "spacing_mm": spacing_mm, "isocentre_mm": isocentre_mm}
        return cls(tuple(View.parallel(*_named(view), **detector) for view in views))

    @classmethod
    def cone(
        cls,
        views: Sequence[str | float] = ("ap", "lateral"),
        *,
        sod_mm: float = DEFAULT_SOD_MM,
        sdd_mm: float = DEFAULT_SDD_MM,
        shape: tuple[int, int] = DEFAULT_SHAPE,
        spacing_mm: tuple[float, float] | None = None,
        isocentre_mm: Vector = (0.0, 0.0, 0.0),
    ) -> Geometry:
        """Cone beams: view names ("ap", "pa", "lateral") or angles in degrees; see `View.cone` for the rest."""
        detector: dict[str, Any] = {"shape": shape, "spacing_mm": spacing_mm, "isocentre_mm": isocentre_mm}
        return cls(tuple(View.cone(*_named(view), sod_mm=sod_mm, sdd_mm=sdd_mm, **detector) for view in views))

    def view(self, name: str) -> View:
        """The view of that name.

        Raises:
            InputError: there is none.
        """
        for view in self.views:
            if view.name == name:
                return view
        raise InputError.of("geometry", "view", found=name, expected=" or ".join(view.name for view in self.views))

    @property
    def to_world(self) -> FloatArray:
        """4x4, patient mm to world mm; the identity where there is no CT."""
        matrix = np.eye(4)
        matrix[:3, 3] = self.origin_world_mm or 0.0
        return matrix

    def to_json(self, *, readable: bool = False) -> dict[str, Json]:
        """The geometry as a geometry file's object; see `View.to_json`."""
        placed: dict[str, Json] = {"origin_world_mm": list(self.origin_world_mm)} if self.origin_world_mm else {}
        views: list[Json] = [view.to_json(readable=readable) for view in self.views]
        return {"schema": _core.GEOMETRY_SCHEMA, **placed, "views": views}

    @classmethod
    def from_json(cls, data: Json, source: str | os.PathLike[str] = "geometry") -> Geometry:
        """Return the geometry that a geometry file's object describes.

        Args:
            data: the object as parsed.
            source: the file, as messages name it.

        Raises:
            InputError: a field is missing, unknown or wrong; the text names the file and the field.
        """
        views, origin = _core.read_geometry(str(source), json.dumps(data))
        return cls(tuple(View(*view) for view in views), None if origin is None else (origin[0], origin[1], origin[2]))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Geometry:
        """Read a geometry file.

        Raises:
            InputError: not a file, not JSON, or a field is missing, unknown or wrong; it names the file and the field.
        """
        views, origin = _core.load_geometry(os.fsencode(path))
        return cls(tuple(View(*view) for view in views), None if origin is None else (origin[0], origin[1], origin[2]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a geometry file, readable where it can be; it appears complete or not at all.

        Raises:
            X2CTError: the file can't be written.
        """
        atomic.write_atomically(path, (json.dumps(self.to_json(readable=True), indent=1) + "\n").encode())


def _named(view: str | float) -> tuple[str, float | None]:
    """Return the name and angle in degrees of a view that is named by either ("30" too); None if its name says it."""
    try:
        angle = float(view)
    except ValueError:
        return str(view), None
    return f"angle{angle:g}", angle
