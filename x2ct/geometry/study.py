"""The views of one study, and the geometry file that holds them, which the core reads (docs/geometry.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from x2ct import _core, output
from x2ct.errors import InputError
from x2ct.geometry.view import DEFAULT_SDD_MM, DEFAULT_SHAPE, DEFAULT_SOD_MM, DEFAULT_SPACING_MM, Vector, View
from x2ct.textfiles import Json


@dataclass(frozen=True)
class Geometry:
    """The views of one study, each under its own name.

    Raises:
        InputError: no view, or two of the same name.
    """

    views: tuple[View, ...]

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

        def make(name: str, angle: float | None) -> View:
            return View.parallel(name, angle, shape=shape, spacing_mm=spacing_mm, isocentre_mm=isocentre_mm)

        return cls(tuple(make(*_named(view)) for view in views))

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

        def make(name: str, angle: float | None) -> View:
            return View.cone(
                name,
                angle,
                sod_mm=sod_mm,
                sdd_mm=sdd_mm,
                shape=shape,
                spacing_mm=spacing_mm,
                isocentre_mm=isocentre_mm,
            )

        return cls(tuple(make(*_named(view)) for view in views))

    def view(self, name: str) -> View:
        """The view of that name.

        Raises:
            InputError: there is none.
        """
        for view in self.views:
            if view.name == name:
                return view
        raise InputError.of("geometry", "view", found=name, expected=" or ".join(view.name for view in self.views))

    def to_json(self) -> dict[str, Json]:
        """The geometry as a geometry file's object."""
        return {"schema": _core.GEOMETRY_SCHEMA, "views": [view.to_json() for view in self.views]}

    @classmethod
    def from_json(cls, data: Json, source: str | os.PathLike[str] = "geometry") -> Geometry:
        """Return the geometry that a geometry file's object describes.

        Args:
            data: the object as parsed.
            source: the file, as messages name it.

        Raises:
            InputError: a field is missing, unknown or wrong; the text names the file and the field.
        """
        return cls(tuple(View(*view) for view in _core.read_geometry(str(source), json.dumps(data))))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Geometry:
        """Read a geometry file.

        Raises:
            InputError: not a file, not JSON, or a field is missing, unknown or wrong; it names the file and the field.
        """
        return cls(tuple(View(*view) for view in _core.load_geometry(os.fsencode(path))))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a geometry file; it appears complete or not at all.

        Raises:
            X2CTError: the file can't be written.
        """
        output.write_atomically(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())


def _named(view: str | float) -> tuple[str, float | None]:
    """Return the name and angle in degrees of a view that is named by either ("30" too); None if its name says it."""
    try:
        angle = float(view)
    except ValueError:
        return str(view), None
    return f"angle{angle:g}", angle
