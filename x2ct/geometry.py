"""Views as 3x4 projection matrices, and line integrals through them.

Patient mm are the axes of the grid (x right, y front, z head), their origin at the grid's index (N - 1) / 2. A view's
matrix P takes patient mm to the detector, (u w, v w, w) = P (x, y, z, 1): u is the column, v the row, an integer a
pixel's centre; w = 1 for a parallel beam, w > 0 in front of a cone's source.

A view's angle turns the source about z: 0 in front of the patient (AP), 90 at the patient's right (lateral), 180 behind
the patient (PA); its tilt then lifts the source towards the head. Pictures are shown alike from either side: row 0 is
the head, column 0 the patient's right, or the patient's front where the detector is closer to the sagittal plane than
to the frontal one.

A geometry file is JSON. Each view has its matrix, as `Geometry.save` writes it,

    {"schema": 1, "views": [
        {"name": "ap", "shape": [352, 352], "spacing_mm": [1.25, 1.25], "matrix": [[...4], [...4], [...4]]}]}

or is described, which is easier by hand: "angle_deg" may be left out for views named ap, pa and lateral, "tilt_deg" is
0 unless given, "isocentre_mm" (the point that the source turns about, in patient mm) is [0, 0, 0] unless given, and
"sod_mm" and "sdd_mm" belong to cones only. Shapes are [rows, columns] and spacings [row, column] on the detector. The
same as a JSON schema: x2ct/schemas/geometry.schema.json.

    {"schema": 1, "views": [
        {"name": "pa", "shape": [352, 352], "spacing_mm": [1.5, 1.5], "beam": "cone", "sod_mm": 1500, "sdd_mm": 1800},
        {"name": "oblique", "shape": [352, 352], "spacing_mm": [1.25, 1.25], "beam": "parallel", "angle_deg": 30}]}
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from x2ct import output
from x2ct.errors import InputError
from x2ct.fields import Fields, Json, parse

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Vector = tuple[float, float, float]

ANGLES_DEG = {"ap": 0.0, "lateral": 90.0, "pa": 180.0}
MU_WATER_PER_MM = 0.02  # about 70 keV
SCHEMA = 1

_DEFAULT_SHAPE = (352, 352)
_DEFAULT_SPACING_MM = 1.25  # at the isocentre
_DEFAULT_SOD_MM = 1500.0
_DEFAULT_SDD_MM = 1800.0
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,31}"  # a view's name becomes a file's name
_MOST_PIXELS = 10_000  # along one side of a detector; ten times what radiography needs
_MOST_VIEWS = 64
_FAR_MM = 1e6
_MOST_TILT_DEG = 80.0
_LARGEST_FILE = 1 << 20  # bytes
_LARGEST = 1e12  # of a matrix's numbers


@dataclass(frozen=True, eq=False)
class View:
    """One X-ray's geometry.

    Attributes:
        name: "ap", "pa", "lateral", or any other word.
        matrix: (3, 4) float64, patient mm to (u w, v w, w); made read-only. Any positive scale of it means the same
            view; `cone` makes w = 1 at the isocentre.
        shape: detector rows and columns.
        spacing_mm: row and column pitch on the detector.

    Raises:
        InputError: a matrix from which no rays can be had, or a detector without size.
    """

    name: str
    matrix: FloatArray
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]

    def __post_init__(self) -> None:
        what = f"view {self.name}"
        matrix = np.array(self.matrix, np.float64)
        if matrix.shape != (3, 4):
            raise InputError.of(what, "matrix", found=f"shape {matrix.shape}", expected="(3, 4)")
        if not np.isfinite(matrix).all():
            raise InputError.of(what, "matrix", found="values that are not finite", expected="finite numbers")
        if np.shape(self.shape) != (2,) or not all(1 <= n <= _MOST_PIXELS for n in self.shape):
            raise InputError.of(what, "shape", found=self.shape, expected=f"rows and columns from 1 to {_MOST_PIXELS}")
        if np.shape(self.spacing_mm) != (2,) or not all(0 < s < math.inf for s in self.spacing_mm):
            raise InputError.of(what, "spacing_mm", found=self.spacing_mm, expected="two positive numbers")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1])))
        object.__setattr__(self, "spacing_mm", (float(self.spacing_mm[0]), float(self.spacing_mm[1])))
        rows = matrix[:, :3] if self.kind == "cone" else matrix[:2, :3]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        # rows of unit length, so that neither magnification nor the pixel's size is mistaken for a lack of rank
        if not lengths.all() or np.linalg.matrix_rank(rows / lengths, tol=1e-9) < len(rows):
            raise InputError.of(what, "matrix", found="dependent rows", expected="one ray for each pixel")
        if self.kind == "parallel" and matrix[2, 3] <= 0:
            raise InputError.of(what, "matrix", found=f"w = {matrix[2, 3]:g}", expected="w > 0 (1 for a parallel beam)")

    def __eq__(self, other: object) -> bool:
        """Same name, detector and numbers."""
        if not isinstance(other, View):
            return NotImplemented
        mine, theirs = (self.name, self.shape, self.spacing_mm), (other.name, other.shape, other.spacing_mm)
        return mine == theirs and np.array_equal(self.matrix, other.matrix)

    def __hash__(self) -> int:
        return hash((self.name, self.shape, self.spacing_mm, self.matrix.tobytes()))

    # ---------------------------------------------------------------------------------------------- making one

    @classmethod
    def parallel(
        cls,
        name: str,
        angle_deg: float | None = None,
        *,
        tilt_deg: float = 0.0,
        shape: tuple[int, int] = _DEFAULT_SHAPE,
        spacing_mm: tuple[float, float] = (_DEFAULT_SPACING_MM, _DEFAULT_SPACING_MM),
        isocentre_mm: Vector = (0.0, 0.0, 0.0),
    ) -> View:
        """A parallel beam from any angle about z.

        Args:
            name: the view's name; "ap", "pa" and "lateral" know their angle.
            angle_deg: of the source about z, see the module.
            tilt_deg: of the source out of the axial plane, towards the head.
            shape: detector rows and columns.
            spacing_mm: row and column pitch.
            isocentre_mm: the point in patient mm that is seen at the detector's middle.

        Raises:
            InputError: no angle for a name that has none, or a detector without size.
        """
        _, along_u, along_v = _frame(_angle(name, angle_deg), _tilt(name, tilt_deg))
        rows = np.stack([along_u / spacing_mm[1], along_v / spacing_mm[0], np.zeros(3)])
        matrix = _seen_at_middle(rows, np.array([0.0, 0.0, 1.0]), shape, isocentre_mm)
        return cls(name, matrix, shape, spacing_mm)

    @classmethod
    def cone(
        cls,
        name: str,
        angle_deg: float | None = None,
        *,
        tilt_deg: float = 0.0,
        sod_mm: float = _DEFAULT_SOD_MM,
        sdd_mm: float = _DEFAULT_SDD_MM,
        shape: tuple[int, int] = _DEFAULT_SHAPE,
        spacing_mm: tuple[float, float] | None = None,
        isocentre_mm: Vector = (0.0, 0.0, 0.0),
    ) -> View:
        """A cone beam on a flat detector that faces the source, from any angle about z.

        Args:
            name: the view's name; "ap", "pa" and "lateral" know their angle.
            angle_deg: of the source about z, see the module.
            tilt_deg: of the source out of the axial plane, towards the head.
            sod_mm: from the source to the isocentre.
            sdd_mm: from the source to the detector; sdd / sod is the magnification of what lies at the isocentre.
            shape: detector rows and columns.
            spacing_mm: row and column pitch on the detector; unless given, 1.25 mm at the isocentre.
            isocentre_mm: the point in patient mm that the source turns about and that is seen at the detector's middle.

        Raises:
            InputError: no angle for a name that has none, distances that can't be, or a detector without size.
        """
        if not 0 < sod_mm < math.inf:
            raise InputError.of(f"view {name}", "sod_mm", found=sod_mm, expected="a positive distance")
        if not sod_mm <= sdd_mm < math.inf:
            raise InputError.of(f"view {name}", "sdd_mm", found=sdd_mm, expected=f"at least the SOD, {sod_mm:g} mm")
        magnification = sdd_mm / sod_mm
        if spacing_mm is None:
            spacing_mm = (_DEFAULT_SPACING_MM * magnification, _DEFAULT_SPACING_MM * magnification)
        to_source, along_u, along_v = _frame(_angle(name, angle_deg), _tilt(name, tilt_deg))
        # w = depth / SOD: 1 at the isocentre, 0 at the source.
        along_u, along_v = magnification * along_u / spacing_mm[1], magnification * along_v / spacing_mm[0]
        rows = np.stack([along_u, along_v, -to_source / sod_mm])
        matrix = _seen_at_middle(rows, np.array([0.0, 0.0, 1.0]), shape, isocentre_mm)
        return cls(name, matrix, shape, spacing_mm)

    def with_detector(self, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> View:
        """The same source and detector plane, its middle at the same place, with other pixels."""
        scale = np.asarray(self.spacing_mm) / np.asarray(spacing_mm)
        old, new = (np.asarray(self.shape) - 1) / 2, (np.asarray(shape) - 1) / 2
        pixels = np.array(
            [[scale[1], 0.0, new[1] - scale[1] * old[1]], [0.0, scale[0], new[0] - scale[0] * old[0]], [0.0, 0.0, 1.0]]
        )
        return View(self.name, pixels @ self.matrix, shape, spacing_mm)

    # ---------------------------------------------------------------------------------------------- asking one

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
        """Where points are seen.

        Args:
            points_mm: (..., 3) patient mm.

        Returns:
            (..., 2) the column u and the row v, and (...) w, which is positive for what lies in front of the source.
        """
        points = np.asarray(points_mm, np.float64)
        seen = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        return seen[..., :2] / seen[..., 2:], seen[..., 2]

    # ---------------------------------------------------------------------------------------------- JSON

    def to_json(self) -> dict[str, Json]:
        """The view as one object of a geometry file."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing_mm),
            "matrix": [[float(value) for value in row] for row in self.matrix],
        }

    @classmethod
    def from_json(cls, fields: Fields) -> View:
        """A view out of one object of a geometry file.

        Raises:
            InputError: a field is missing, unknown or wrong; the text names the file and the field.
        """
        name = fields.text("name", "a short word of letters, digits and _.+-", _NAME)
        rows, cols = fields.integers("shape", 2, 1, _MOST_PIXELS)
        down, across = fields.numbers("spacing_mm", 2, 2, 1e-6, _FAR_MM)
        shape, spacing_mm = (rows, cols), (down, across)
        given = fields.keys()
        if "matrix" not in given:
            return cls._described(fields, name, shape, spacing_mm)
        matrix = _matrix(fields)
        fields.close()
        try:
            return cls(name, matrix, shape, spacing_mm)
        except InputError as error:
            raise InputError(f"{fields.source}: {fields.path}: {error}") from None

    @classmethod
    def _described(cls, fields: Fields, name: str, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> View:
        """A view by beam, angle and distances instead of a matrix."""
        given = fields.keys()
        beam = fields.text("beam", '"parallel" or "cone", or a "matrix" instead', "parallel|cone")
        angle = fields.number("angle_deg", -360.0, 360.0) if "angle_deg" in given or name not in ANGLES_DEG else None
        tilt = fields.number("tilt_deg", -_MOST_TILT_DEG, _MOST_TILT_DEG) if "tilt_deg" in given else 0.0
        isocentre = (0.0, 0.0, 0.0)
        if "isocentre_mm" in given:
            x, y, z = fields.numbers("isocentre_mm", 3, 3, -_FAR_MM, _FAR_MM)
            isocentre = (x, y, z)
        if beam == "parallel":
            fields.close()
            return cls.parallel(name, angle, tilt_deg=tilt, shape=shape, spacing_mm=spacing_mm, isocentre_mm=isocentre)
        sod = fields.number("sod_mm", 1.0, _FAR_MM)
        sdd = fields.number("sdd_mm", sod, _FAR_MM)
        fields.close()
        return cls.cone(
            name,
            angle,
            tilt_deg=tilt,
            sod_mm=sod,
            sdd_mm=sdd,
            shape=shape,
            spacing_mm=spacing_mm,
            isocentre_mm=isocentre,
        )


@dataclass(frozen=True)
class Geometry:
    """The views of one study, each under its own name.

    Raises:
        InputError: no view, or two of the same name.
    """

    views: tuple[View, ...]

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
        shape: tuple[int, int] = _DEFAULT_SHAPE,
        spacing_mm: tuple[float, float] = (_DEFAULT_SPACING_MM, _DEFAULT_SPACING_MM),
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
        sod_mm: float = _DEFAULT_SOD_MM,
        sdd_mm: float = _DEFAULT_SDD_MM,
        shape: tuple[int, int] = _DEFAULT_SHAPE,
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
        return {"schema": SCHEMA, "views": [view.to_json() for view in self.views]}

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
        views = tuple(View.from_json(section) for section in fields.sections("views", 1, _MOST_VIEWS))
        fields.close()
        names = [view.name for view in views]
        if len(set(names)) != len(names):
            fields.fail("views", found=", ".join(names), expected="a name of its own for each view")
        return cls(views)

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
        """Write a geometry file; it appears complete or not at all.

        Raises:
            X2CTError: the file can't be written.
        """
        output.write_atomically(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())


def attenuation(hu: npt.ArrayLike, mu_water: float = MU_WATER_PER_MM) -> Image:
    """HU of any shape to linear attenuation per mm, float32: mu_water max(0, 1 + HU / 1000)."""
    mu = np.array(hu, np.float32)
    mu *= np.float32(mu_water / 1000)
    mu += np.float32(mu_water)
    return np.maximum(mu, np.float32(0), out=mu)


def centred_affine(shape: Sequence[int], spacing_mm: Sequence[float]) -> FloatArray:
    """The 4x4 float64 affine from a grid's voxel index to patient mm: the origin at index (N - 1) / 2."""
    spacing = np.asarray(spacing_mm, np.float64)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.asarray(shape, np.float64) - 1) / 2
    return affine


def project(mu: npt.ArrayLike, index_to_mm: npt.ArrayLike, view: View, threads: int = 0) -> Image:
    """Line integrals through a volume by Joseph's method (IEEE Trans. Med. Imaging 1(3), 1982).

    Args:
        mu: (x, y, z) attenuation per mm; what lies outside of it is air.
        index_to_mm: (4, 4), voxel index to patient mm; any affine that can be inverted.
        view: which rays, and how many.
        threads: 0 takes every processor; the result does not depend on it.

    Returns:
        (rows, columns) float32, dimensionless.

    Raises:
        InputError: shapes that don't fit, or an affine that can't be inverted.
    """
    from x2ct import _core

    rows, cols = view.shape
    return _core.project(mu, index_to_mm, view.matrix, rows, cols, threads)


def backproject(
    image: npt.ArrayLike, shape: tuple[int, int, int], index_to_mm: npt.ArrayLike, view: View, threads: int = 0
) -> Image:
    """Spread an image along its rays: the exact transpose of `project`.

    For any volume a and image b, sum(project(a) * b) = sum(a * backproject(b)).

    Args:
        image: (rows, columns) of the view.
        shape: the volume's (x, y, z).
        index_to_mm: (4, 4), voxel index to patient mm.
        view: which rays.
        threads: 0 takes every processor; the result does not depend on it.

    Returns:
        (x, y, z) float32.

    Raises:
        InputError: shapes that don't fit, or an affine that can't be inverted.
    """
    from x2ct import _core

    found = np.shape(image)
    if found != view.shape:
        raise InputError.of(f"view {view.name}", "image shape", found=found, expected=view.shape)
    return _core.backproject(image, shape, index_to_mm, view.matrix, threads)


def _angle(name: str, angle_deg: float | None) -> float:
    if angle_deg is None:
        if name not in ANGLES_DEG:
            raise InputError.of(
                f"view {name}", "angle", found="none", expected="degrees, or one named ap, pa or lateral"
            )
        return ANGLES_DEG[name]
    if not math.isfinite(angle_deg):
        raise InputError.of(f"view {name}", "angle", found=angle_deg, expected="degrees")
    return angle_deg


def _named(view: str | float) -> tuple[str, float | None]:
    """A view's name and angle out of a name that knows its angle, or an angle ("30" too)."""
    try:
        angle = float(view)
    except ValueError:
        return str(view), None
    return f"angle{angle:g}", angle


def _tilt(name: str, tilt_deg: float) -> float:
    if not abs(tilt_deg) <= _MOST_TILT_DEG:
        raise InputError.of(f"view {name}", "tilt", found=tilt_deg, expected=f"at most {_MOST_TILT_DEG:g} degrees")
    return tilt_deg


def _frame(angle_deg: float, tilt_deg: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Unit vectors in patient mm: towards the source, along increasing columns, along increasing rows."""
    sine, cosine = _exact(math.sin(math.radians(angle_deg))), _exact(math.cos(math.radians(angle_deg)))
    up, level = math.sin(math.radians(tilt_deg)), math.cos(math.radians(tilt_deg))
    to_source = np.array([level * sine, level * cosine, up])
    along_v = np.array([up * sine, up * cosine, -level])
    along_u = np.array([-cosine, sine, 0.0])
    # Shown alike from either side: columns run from the patient's right to left, or from front to back.
    sagittal = abs(sine) > abs(cosine) + 1e-9
    if (along_u[1] if sagittal else along_u[0]) > 0:
        along_u = -along_u
    return to_source, along_u, along_v


def _exact(value: float) -> float:
    """Sines of right angles without the rounding of pi, so that axis-aligned rays stay on their axis."""
    return float(round(value)) if abs(value - round(value)) < 1e-15 else value


def _seen_at_middle(rows: FloatArray, column: FloatArray, shape: tuple[int, int], isocentre_mm: Vector) -> FloatArray:
    """Moves [rows | column], which sees the origin at pixel (0, 0), to see the isocentre at the detector's middle."""
    middle = np.array([[1.0, 0.0, (shape[1] - 1) / 2], [0.0, 1.0, (shape[0] - 1) / 2], [0.0, 0.0, 1.0]])
    moved = column - rows @ np.asarray(isocentre_mm, np.float64)
    return np.asarray(middle @ np.column_stack([rows, moved]), np.float64)


def _matrix(fields: Fields) -> FloatArray:
    value = fields.raw("matrix", "three rows of four numbers")
    rows = [row if isinstance(row, list) else [] for row in value] if isinstance(value, list) else []
    numbers = [x for row in rows for x in row if isinstance(x, int | float) and not isinstance(x, bool)]
    if [len(row) for row in rows] != [4, 4, 4] or len(numbers) != 12 or not all(abs(x) < _LARGEST for x in numbers):
        fields.fail("matrix", expected="three rows of four numbers")
    return np.asarray(numbers, np.float64).reshape(3, 4)
