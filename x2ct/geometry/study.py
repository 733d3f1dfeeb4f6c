"""The views of one study, and the geometry file that holds them (`x2ct.geometry.viewfields` says how)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from x2ct import output
from x2ct.errors import InputError
from x2ct.fields import Fields, Json, parse
from x2ct.geometry.placement import FloatArray, Vector, named
from x2ct.geometry.view import DEFAULT_SDD_MM, DEFAULT_SHAPE, DEFAULT_SOD_MM, DEFAULT_SPACING_MM, View

SCHEMA = 1

_MOST_VIEWS = 64
_FAR_MM = 1e6
_LARGEST_FILE = 1 << 20  # bytes


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
        if not names or len(names) > _MOST_VIEWS:
            raise InputError.of("geometry", "views", found=f"{len(names)} views", expected=f"1 to {_MOST_VIEWS}")
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

        return cls(tuple(make(*named(view)) for view in views))

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

        return cls(tuple(make(*named(view)) for view in views))

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
        return {"schema": SCHEMA, **placed, "views": [view.to_json(readable=readable) for view in self.views]}

    @classmethod
    def from_json(cls, data: Json | Fields, source: str | os.PathLike[str] = "geometry") -> Geometry:
        """A geometry out of a geometry file's object.

        Args:
            data: the object as parsed, or its fields where it is a part of another file (`Fields.section`).
            source: the file, as messages name it.

        Raises:
            InputError: a field is missing, unknown or wrong; the text names the file and the field.
        """
        fields = data if isinstance(data, Fields) else Fields(Path(source), data)
        fields.integer("schema", SCHEMA, SCHEMA)
        origin = None
        if "origin_world_mm" in fields:
            x, y, z = fields.numbers("origin_world_mm", 3, 3, -_FAR_MM, _FAR_MM)
            origin = x, y, z
        views = tuple(View.from_json(section) for section in fields.sections("views", 1, _MOST_VIEWS))
        fields.close()
        names = [view.name for view in views]
        if len(set(names)) != len(names):
            fields.fail("views", found=", ".join(names), expected="a name of its own for each view")
        return cls(views, origin)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Geometry:
        """Read a geometry file.

        Raises:
            InputError: not a file, not JSON, or a field is missing, unknown or wrong; it names the file and the field.
        """
        file = Path(path)
        try:
            with file.open("rb") as stream:
                data = stream.read(_LARGEST_FILE + 1)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError.of(file, "file", found=reason, expected="a readable geometry file") from None
        if len(data) > _LARGEST_FILE:
            raise InputError.of(file, "file", found=f"more than {_LARGEST_FILE} bytes", expected="a geometry file")
        return cls.from_json(parse(file, data))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a geometry file, readable where it can be; it appears complete or not at all.

        Raises:
            X2CTError: the file can't be written.
        """
        output.write_atomically(path, (json.dumps(self.to_json(readable=True), indent=1) + "\n").encode())
