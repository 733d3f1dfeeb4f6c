"""One X-ray's geometry, the views of one study in a geometry file (docs/geometry.md), and line integrals along rays."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.files.text import Json

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Vector = tuple[float, float, float]

DEFAULT_SHAPE = (352, 352)
DEFAULT_SPACING_MM = 1.25  # at the isocentre
DEFAULT_SOD_MM = 1500.0
DEFAULT_SDD_MM = 1800.0

MU_WATER_PER_MM = _core.MU_WATER_PER_MM  # the linear attenuation of water at about 70 keV


@dataclass(frozen=True, eq=False)
class View:
    """One X-ray's geometry: the (3, 4) float64 matrix from patient mm to (u w, v w, w), and the detector.

    Any positive scale of the matrix means the same view; `cone` makes w = 1 at the isocentre. Raises InputError: a
    matrix from which no rays can be had, or a detector without size.
    """

    name: str  # "ap", "pa", "lateral", or any other word
    matrix: FloatArray  # made read-only
    shape: tuple[int, int]  # detector rows and columns
    spacing_mm: tuple[float, float]  # row and column pitch on the detector

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        shape = (int(self.shape[0]), int(self.shape[1]))
        spacing_mm = (float(self.spacing_mm[0]), float(self.spacing_mm[1]))
        _core.check_view(self.name, matrix, shape, spacing_mm)
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "spacing_mm", spacing_mm)

    def __eq__(self, other: object) -> bool:
        """Return whether name, detector and numbers are the same."""
        if not isinstance(other, View):
            return NotImplemented
        alike = all(getattr(self, name) == getattr(other, name) for name in ("name", "shape", "spacing_mm"))
        return alike and np.array_equal(self.matrix, other.matrix)

    def __hash__(self) -> int:
        return hash((self.name, self.shape, self.spacing_mm, self.matrix.tobytes()))

    @classmethod
    def parallel(
        cls,
        name: str,
        angle_deg: float | None = None,
        *,
        tilt_deg: float = 0.0,
        shape: tuple[int, int] = DEFAULT_SHAPE,
        spacing_mm: tuple[float, float] = (DEFAULT_SPACING_MM, DEFAULT_SPACING_MM),
        isocentre_mm: Vector = (0.0, 0.0, 0.0),
    ) -> View:
        """Return a parallel beam from any angle about z.

        `angle_deg` is the source's: 0 in front of the patient (AP), 90 at the patient's right (lateral), 180 behind
        (PA); "ap", "pa" and "lateral" have these by their name. `tilt_deg` turns it out of the axial plane, towards the
        head. `shape` is the detector's rows and columns, `spacing_mm` their pitch, and `isocentre_mm` the point in
        patient mm that is seen at its middle. Raises InputError: no angle for a name that has none, or a detector
        without size.
        """
        return cls(*_core.parallel_view(name, angle_deg, tilt_deg, shape, spacing_mm, isocentre_mm))

    @classmethod
    def cone(
        cls,
        name: str,
        angle_deg: float | None = None,
        *,
        tilt_deg: float = 0.0,
        sod_mm: float = DEFAULT_SOD_MM,
        sdd_mm: float = DEFAULT_SDD_MM,
        shape: tuple[int, int] = DEFAULT_SHAPE,
        spacing_mm: tuple[float, float] | None = None,
        isocentre_mm: Vector = (0.0, 0.0, 0.0),
    ) -> View:
        """Return a cone beam on a flat detector that faces the source; arguments are as for `parallel`.

        The source turns about the isocentre, `sod_mm` from it and `sdd_mm` from the detector: what lies there is
        magnified by sdd / sod. The pixels' pitch is 1.25 mm at the isocentre unless given. Raises InputError, also for
        distances that can't be.
        """
        return cls(*_core.cone_view(name, angle_deg, tilt_deg, sod_mm, sdd_mm, shape, spacing_mm, isocentre_mm))

    def with_detector(self, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> View:
        """Return the view of the same source and detector plane, whose middle stays, with other pixels."""
        scale = np.asarray(self.spacing_mm) / np.asarray(spacing_mm)
        old, new = (np.asarray(self.shape) - 1) / 2, (np.asarray(shape) - 1) / 2
        pixels = np.array(
            [[scale[1], 0.0, new[1] - scale[1] * old[1]], [0.0, scale[0], new[0] - scale[0] * old[0]], [0.0, 0.0, 1.0]]
        )
        return View(self.name, pixels @ self.matrix, shape, spacing_mm)

    @property
    def kind(self) -> Literal["parallel", "cone"]:
        """Parallel if w is the same everywhere."""
        depth = float(np.linalg.norm(self.matrix[2, :3]))
        return "cone" if depth > 1e-12 * abs(float(self.matrix[2, 3])) else "parallel"

    @property
    def source_mm(self) -> FloatArray | None:
        """Where a cone's source is, (3,) in patient mm; None for a parallel beam, whose source is infinitely far."""
        if self.kind == "parallel":
            return None
        return np.asarray(-np.linalg.solve(self.matrix[:, :3], self.matrix[:, 3]), np.float64)

    @property
    def magnification(self) -> float:
        """How much larger than itself what lies at the origin is on the detector, along its rows."""
        if self.kind == "parallel":
            return 1.0
        across = self.matrix[0, :3] - (self.matrix[0, :3] @ self.axis) * self.axis
        return float(np.linalg.norm(across) * self.spacing_mm[1] / self.matrix[2, 3])

    @property
    def axis(self) -> FloatArray:
        """The detector's normal, a unit vector (3,) in patient mm, pointing from the source to the detector.

        A parallel matrix is the same for a source on either side; taken to be at angles from -45 to 135 then.
        """
        if self.kind == "cone":
            return np.asarray(self.matrix[2, :3] / np.linalg.norm(self.matrix[2, :3]), np.float64)
        normal = np.cross(self.matrix[0, :3], self.matrix[1, :3])
        normal /= np.linalg.norm(normal)
        return np.asarray(normal if normal[0] + normal[1] <= 0 else -normal, np.float64)

    @property
    def angle_deg(self) -> float:
        """The source's angle about z in (-180, 180]; for a parallel beam, whose sides look the same, in [-45, 135]."""
        x, y, _ = 0.0 - self.axis  # not the minus sign, which would make -0 and an angle of -180
        return math.degrees(math.atan2(x, y))

    def to_pixels(self, points_mm: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the (..., 2) column u and row v at which (..., 3) patient mm are seen, and (...) w.

        w is positive for what lies in front of the source.
        """
        points = np.asarray(points_mm, np.float64)
        homogeneous = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        return homogeneous[..., :2] / homogeneous[..., 2:], homogeneous[..., 2]

    def to_json(self, *, readable: bool = False) -> dict[str, Json]:
        """Return the view as one object of a geometry file.

        A `readable` one has beam, distances and angle in place of the matrix, where they give exactly that.
        """
        words = self._words() if readable else None
        return {
            "name": self.name,
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing_mm),
            **(words or {"matrix": [[float(value) for value in row] for row in self.matrix]}),
        }

    def _words(self) -> dict[str, Json] | None:
        """Return the fields that describe the view in a geometry file, beside name, shape and spacing_mm.

        The inverse of `parallel` and `cone`, defaults left out; None where no words of at most six decimals give
        exactly this matrix.
        """
        matrix, shape, spacing_mm = self.matrix, self.shape, self.spacing_mm
        depth = float(np.linalg.norm(matrix[2, :3]))
        make: Any = View.cone if depth else View.parallel
        lengths: dict[str, float] = {}
        if depth:
            to_source, sod = -matrix[2, :3] / depth, 1 / depth
            across = matrix[0, :3] - (matrix[0, :3] @ to_source) * to_source
            lengths = {"sod_mm": _short(sod), "sdd_mm": _short(float(np.linalg.norm(across)) * spacing_mm[1] * sod)}
            isocentre = -np.linalg.solve(matrix[:, :3], matrix[:, 3]) - sod * to_source
        else:
            to_source = np.cross(matrix[0, :3], matrix[1, :3]) * spacing_mm[0] * spacing_mm[1]
            middle = (np.array(shape[::-1]) - 1) / 2
            isocentre = np.linalg.pinv(matrix[:2, :3]) @ (middle - matrix[:2, 3])
        point = [_short(float(mm)) for mm in isocentre]
        usual = _core.ANGLES_DEG.get(self.name)
        for side in (1, -1):  # a parallel beam's source may stand on either
            x, y, z = side * to_source
            tilt = _short(math.degrees(math.asin(min(1.0, max(-1.0, z)))))
            for angle in (usual, _short(math.degrees(math.atan2(x, y)))):
                words: dict[str, Any] = {"beam": "cone" if depth else "parallel", **lengths}
                words |= ({} if angle == usual else {"angle_deg": angle}) | ({"tilt_deg": tilt} if tilt else {})
                words |= {"isocentre_mm": point} if any(point) else {}
                detector = {"shape": shape, "spacing_mm": spacing_mm, "isocentre_mm": point}
                with suppress(InputError):  # no such distances, or no angle
                    if np.array_equal(make(self.name, angle, tilt_deg=tilt, **lengths, **detector).matrix, matrix):
                        return words
        return None


@dataclass(frozen=True)
class Geometry:
    """The views of one study, each under its own name; InputError for no view, or two of the same name.

    `origin_world_mm` is where the origin of patient mm lies in the world mm (RAS+) of the CT that the X-rays were
    projected from; None where there is no such CT. The axes of patient mm and of world mm are parallel.
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
    def parallel(cls, views: Sequence[str | float] = ("ap", "lateral"), **options: Any) -> Geometry:
        """Return parallel beams by name ("ap", "pa", "lateral") or angle in degrees; `options` of `View.parallel`."""
        return cls(tuple(View.parallel(*_named(view), **options) for view in views))

    @classmethod
    def cone(cls, views: Sequence[str | float] = ("ap", "lateral"), **options: Any) -> Geometry:
        """Return cone beams by name ("ap", "pa", "lateral") or angle in degrees; `options` of `View.cone`."""
        return cls(tuple(View.cone(*_named(view), **options) for view in views))

    def view(self, name: str) -> View:
        """Return the view of that name; raises InputError where there is none."""
        views = {view.name: view for view in self.views}
        if name not in views:
            raise InputError.of("geometry", "view", found=name, expected=" or ".join(views))
        return views[name]

    def project(self, mu: npt.ArrayLike, index_to_mm: npt.ArrayLike, threads: int = 0) -> list[Image]:
        """Return each view's line integrals through a volume, see `x2ct.geometry.project`."""
        return [project(mu, index_to_mm, view, threads) for view in self.views]

    @property
    def to_world(self) -> FloatArray:
        """4x4, patient mm to world mm; the identity where there is no CT."""
        matrix = np.eye(4)
        matrix[:3, 3] = self.origin_world_mm or 0.0
        return matrix

    def to_json(self, *, readable: bool = False) -> dict[str, Json]:
        """Return the geometry as a geometry file's object; see `View.to_json`."""
        origin: dict[str, Json] = {"origin_world_mm": list(self.origin_world_mm)} if self.origin_world_mm else {}
        views: list[Json] = [view.to_json(readable=readable) for view in self.views]
        return {"schema": _core.GEOMETRY_SCHEMA, **origin, "views": views}

    @classmethod
    def from_json(cls, data: Json, source: str | os.PathLike[str] = "geometry") -> Geometry:
        """Return the geometry of a geometry file's object, as parsed; `source` is how messages name it.

        Raises InputError where a field is missing, unknown or wrong; it names the file and the field.
        """
        return cls._read(*_core.read_geometry(str(source), json.dumps(data)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Geometry:
        """Read a geometry file; raises InputError as `from_json` does, and where it is no file or not JSON."""
        return cls._read(*_core.load_geometry(os.fsencode(path)))

    @classmethod
    def _read(cls, views: Sequence[_core.ViewFields], origin: Sequence[float] | None) -> Geometry:
        return cls(tuple(View(*view) for view in views), None if origin is None else (origin[0], origin[1], origin[2]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a geometry file, readable where it can be, whole or not at all; raises X2CTError where it can't be."""
        atomic.write_atomically(path, (json.dumps(self.to_json(readable=True), indent=1) + "\n").encode())


def _short(value: float) -> float:
    return round(value, 6) + 0.0  # not -0


def _named(view: str | float) -> tuple[str, float | None]:
    """Return the name and angle in degrees of a view that is named by either ("30" too); None if its name says it."""
    try:
        angle = float(view)
    except ValueError:
        return str(view), None
    return f"angle{angle:g}", angle


def attenuation(hu: npt.ArrayLike, mu_water: float = MU_WATER_PER_MM) -> Image:
    """Convert HU of any shape to linear attenuation per mm, float32: mu_water max(0, 1 + HU / 1000)."""
    mu = np.array(hu, np.float32)
    mu *= np.float32(mu_water / 1000)
    mu += np.float32(mu_water)
    return np.maximum(mu, np.float32(0), out=mu)


def project(mu: npt.ArrayLike, index_to_mm: npt.ArrayLike, view: View, threads: int = 0) -> Image:
    """Return line integrals through a volume by Joseph's method (IEEE Trans. Med. Imaging 1(3), 1982).

    `mu` is (x, y, z) attenuation per mm, what lies outside of it is air; `index_to_mm` the (4, 4) from voxel index to
    patient mm, any affine that can be inverted. The result is (rows, columns) float32, dimensionless; 0 threads take
    every processor, and it does not depend on them. Raises InputError: shapes that don't fit, or an affine that can't
    be inverted.
    """
    rows, cols = view.shape
    return _core.project(mu, index_to_mm, view.matrix, rows, cols, threads)


def backproject(
    image: npt.ArrayLike, shape: tuple[int, int, int], index_to_mm: npt.ArrayLike, view: View, threads: int = 0
) -> Image:
    """Spread an image along its rays into (x, y, z) float32 of `shape`: the exact transpose of `project`.

    For any volume a and image b, sum(project(a) * b) = sum(a * backproject(b)). Arguments are as for `project`. Raises
    InputError: shapes that don't fit, or an affine that can't be inverted.
    """
    if np.shape(image) != view.shape:
        raise InputError.of(f"view {view.name}", "image shape", found=np.shape(image), expected=view.shape)
    return _core.backproject(image, shape, index_to_mm, view.matrix, threads)
