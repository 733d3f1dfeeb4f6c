"""One view of a geometry file, read field by field: by its matrix, or described by angle and distances.

Each view has its matrix, as `Geometry.save` writes it,

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

from dataclasses import dataclass

import numpy as np

from x2ct.fields import Fields
from x2ct.geometry.placement import (
    ANGLES_DEG,
    MOST_PIXELS,
    MOST_TILT_DEG,
    FloatArray,
    Vector,
    cone_matrix,
    parallel_matrix,
)

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,31}"  # a view's name becomes a file's name
_FAR_MM = 1e6
_LARGEST = 1e12  # of a matrix's numbers


@dataclass(frozen=True)
class ViewFields:
    """What a file says of a view: its name, detector (see `View`) and matrix."""

    name: str
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    matrix: FloatArray


def read_view(fields: Fields) -> ViewFields:
    """What one object of a geometry file says.

    Raises:
        InputError: a field is missing, unknown or wrong; the text names the file and the field.
    """
    name = fields.text("name", "a short word of letters, digits and _.+-", _NAME)
    rows, columns = fields.integers("shape", 2, 1, MOST_PIXELS)
    down, across = fields.numbers("spacing_mm", 2, 2, 1e-6, _FAR_MM)
    shape, spacing_mm = (rows, columns), (down, across)
    matrix = _matrix(fields) if "matrix" in fields else _described(fields, name, shape, spacing_mm)
    fields.close()
    return ViewFields(name, shape, spacing_mm, matrix)


def _matrix(fields: Fields) -> FloatArray:
    value = fields.raw("matrix", "three rows of four numbers")
    rows = [row if isinstance(row, list) else [] for row in value] if isinstance(value, list) else []
    numbers = [x for row in rows for x in row if isinstance(x, int | float) and not isinstance(x, bool)]
    if [len(row) for row in rows] != [4, 4, 4] or len(numbers) != 12 or not all(abs(x) < _LARGEST for x in numbers):
        fields.fail("matrix", expected="three rows of four numbers")
    return np.asarray(numbers, np.float64).reshape(3, 4)


def _described(fields: Fields, name: str, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> FloatArray:
    """The matrix by beam, angle and distances."""
    beam = fields.text("beam", '"parallel" or "cone", or a "matrix" instead', "parallel|cone")
    angle = fields.number("angle_deg", -360.0, 360.0) if "angle_deg" in fields or name not in ANGLES_DEG else None
    tilt = fields.number("tilt_deg", -MOST_TILT_DEG, MOST_TILT_DEG) if "tilt_deg" in fields else 0.0
    isocentre = _isocentre(fields)
    if beam == "parallel":
        return parallel_matrix(name, angle, tilt, shape=shape, spacing_mm=spacing_mm, isocentre_mm=isocentre)
    sod = fields.number("sod_mm", 1.0, _FAR_MM)
    sdd = fields.number("sdd_mm", sod, _FAR_MM)
    return cone_matrix(
        name, angle, tilt, sod_mm=sod, sdd_mm=sdd, shape=shape, spacing_mm=spacing_mm, isocentre_mm=isocentre
    )


def _isocentre(fields: Fields) -> Vector:
    if "isocentre_mm" not in fields:
        return 0.0, 0.0, 0.0
    x, y, z = fields.numbers("isocentre_mm", 3, 3, -_FAR_MM, _FAR_MM)
    return x, y, z
