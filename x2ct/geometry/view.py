"""One X-ray's geometry: a projection matrix and a detector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.fields import Fields, Json
from x2ct.geometry.placement import (
    MOST_PIXELS,
    FloatArray,
    Vector,
    cone_matrix,
    described,
    magnification,
    parallel_matrix,
)
from x2ct.geometry.viewfields import read_view

DEFAULT_SHAPE = (352, 352)
DEFAULT_SPACING_MM = 1.25  # at the isocentre
DEFAULT_SOD_MM = 1500.0
DEFAULT_SDD_MM = 1800.0


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
        if np.shape(self.shape) != (2,) or not all(1 <= n <= MOST_PIXELS for n in self.shape):
            raise InputError.of(what, "shape", found=self.shape, expected=f"rows and columns from 1 to {MOST_PIXELS}")
        if np.shape(self.spacing_mm) != (2,) or not all(0 < s < math.inf for s in self.spacing_mm):
            raise InputError.of(what, "spacing_mm", found=self.spacing_mm, expected="two positive numbers")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1])))
        object.__setattr__(self, "spacing_mm", (float(self.spacing_mm[0]), float(self.spacing_mm[1])))
        self._check_rays()

    def _check_rays(self) -> None:
        """Each pixel has a ray of its own, and the source's side is known."""
        what = f"view {self.name}"
        rows = self.matrix[:, :3] if self.kind == "cone" else self.matrix[:2, :3]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        # rows of unit length, so that neither magnification nor the pixel's size is mistaken for a lack of rank
        if not lengths.all() or np.linalg.matrix_rank(rows / lengths, tol=1e-9) < len(rows):
            raise InputError.of(what, "matrix", found="dependent rows", expected="one ray for each pixel")
        w = self.matrix[2, 3]
        if self.kind == "parallel" and w <= 0:
            raise InputError.of(what, "matrix", found=f"w = {w:g}", expected="w > 0 (1 for a parallel beam)")

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
        shape: tuple[int, int] = DEFAULT_SHAPE,
        spacing_mm: tuple[float, float] = (DEFAULT_SPACING_MM, DEFAULT_SPACING_MM),
        isocentre_mm: Vector = (0.0, 0.0, 0.0),
    ) -> View:
        """A parallel beam from any angle about z.

        Args:
            name: the view's name; "ap", "pa" and "lateral" know their angle.
            angle_deg: of the source about z, see `x2ct.geometry.placement`.
            tilt_deg: of the source out of the axial plane, towards the head.
            shape: detector rows and columns.
            spacing_mm: row and column pitch.
            isocentre_mm: the point in patient mm that is seen at the detector's middle.

        Raises:
            InputError: no angle for a name that has none, or a detector without size.
        """
        matrix = parallel_matrix(
            name, angle_deg, tilt_deg, shape=shape, spacing_mm=spacing_mm, isocentre_mm=isocentre_mm
        )
        return cls(name, matrix, shape, spacing_mm)

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
        """A cone beam on a flat detector that faces the source, from any angle about z.

        Args:
            name: the view's name; "ap", "pa" and "lateral" know their angle.
            angle_deg: of the source about z, see `x2ct.geometry.placement`.
            tilt_deg: of the source out of the axial plane, towards the head.
            sod_mm: from the source to the isocentre.
            sdd_mm: from the source to the detector; sdd / sod is the magnification of what lies at the isocentre.
            shape: detector rows and columns.
            spacing_mm: row and column pitch on the detector; unless given, 1.25 mm at the isocentre.
            isocentre_mm: the point in patient mm that the source turns about and that is seen at the detector's middle.

        Raises:
            InputError: no angle for a name that has none, distances that can't be, or a detector without size.
        """
        if spacing_mm is None:
            pitch = DEFAULT_SPACING_MM * magnification(name, sod_mm, sdd_mm)
            spacing_mm = (pitch, pitch)
        matrix = cone_matrix(
            name,
            angle_deg,
            tilt_deg,
            sod_mm=sod_mm,
            sdd_mm=sdd_mm,
            shape=shape,
            spacing_mm=spacing_mm,
            isocentre_mm=isocentre_mm,
        )
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

    def to_json(self, *, readable: bool = False) -> dict[str, Json]:
        """The view as one object of a geometry file.

        Args:
            readable: describe it by beam, distances and angle where that gives exactly its matrix, which is not written
                then.
        """
        words = described(self.name, self.matrix, self.shape, self.spacing_mm) if readable else None
        return {
            "name": self.name,
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing_mm),
            **(words or {"matrix": [[float(value) for value in row] for row in self.matrix]}),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> View:
        """A view out of one object of a geometry file.

        Raises:
            InputError: a field is missing, unknown or wrong; the text names the file and the field.
        """
        said = read_view(fields)
        try:
            return cls(said.name, said.matrix, said.shape, said.spacing_mm)
        except InputError as error:
            raise InputError(f"{fields.source}: {fields.path}: {error}") from None
