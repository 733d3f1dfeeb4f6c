"""Where source and detector stand, made a matrix.

A source's angle turns it about z: 0 in front of the patient (AP), 90 at the patient's right (lateral), 180 behind the
patient (PA); its tilt then lifts it towards the head. Pictures are shown alike from either side: row 0 is the head,
column 0 the patient's right, or the patient's front where the detector is closer to the sagittal plane than to the
frontal one.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.fields import Json

FloatArray = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

ANGLES_DEG = {"ap": 0.0, "lateral": 90.0, "pa": 180.0}
MOST_TILT_DEG = 80.0
MOST_PIXELS = 10_000  # along one side of a detector; ten times what radiography needs


def named(view: str | float) -> tuple[str, float | None]:
    """A view's name and angle out of a name that knows its angle, or an angle ("30" too)."""
    try:
        angle = float(view)
    except ValueError:
        return str(view), None
    return f"angle{angle:g}", angle


def magnification(name: str, sod_mm: float, sdd_mm: float) -> float:
    """How much larger than itself what lies at a cone's isocentre is on the detector.

    Raises:
        InputError: distances that can't be.
    """
    if not 0 < sod_mm < math.inf:
        raise InputError.of(f"view {name}", "sod_mm", found=sod_mm, expected="a positive distance")
    if not sod_mm <= sdd_mm < math.inf:
        raise InputError.of(f"view {name}", "sdd_mm", found=sdd_mm, expected=f"at least the SOD, {sod_mm:g} mm")
    return sdd_mm / sod_mm


def parallel_matrix(
    name: str,
    angle_deg: float | None,
    tilt_deg: float,
    *,
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    isocentre_mm: Vector,
) -> FloatArray:
    """The (3, 4) matrix of a parallel beam; see `View.parallel`."""
    _, along_u, along_v = _frame(_angle(name, angle_deg), _tilt(name, tilt_deg))
    rows = np.stack([along_u / spacing_mm[1], along_v / spacing_mm[0], np.zeros(3)])
    return _seen_at_middle(rows, shape, isocentre_mm)


def cone_matrix(
    name: str,
    angle_deg: float | None,
    tilt_deg: float,
    *,
    sod_mm: float,
    sdd_mm: float,
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    isocentre_mm: Vector,
) -> FloatArray:
    """The (3, 4) matrix of a cone beam; see `View.cone`."""
    larger = magnification(name, sod_mm, sdd_mm)
    to_source, along_u, along_v = _frame(_angle(name, angle_deg), _tilt(name, tilt_deg))
    # w = depth / SOD: 1 at the isocentre, 0 at the source.
    rows = np.stack([larger * along_u / spacing_mm[1], larger * along_v / spacing_mm[0], -to_source / sod_mm])
    return _seen_at_middle(rows, shape, isocentre_mm)


def described(
    name: str, matrix: FloatArray, shape: tuple[int, int], spacing_mm: tuple[float, float]
) -> dict[str, Json] | None:
    """The words by which a geometry file describes a view: the inverse of `parallel_matrix` and `cone_matrix`.

    Returns:
        The fields beside name, shape and spacing_mm, defaults left out; None where no words of at most six decimals
        give exactly this matrix.
    """
    depth = float(np.linalg.norm(matrix[2, :3]))
    detector: dict[str, Any] = {"shape": shape, "spacing_mm": spacing_mm}
    beam: dict[str, Json] = {"beam": "cone" if depth else "parallel"}
    if depth:
        to_source, sod = -matrix[2, :3] / depth, 1 / depth
        across = matrix[0, :3] - (matrix[0, :3] @ to_source) * to_source
        beam |= {"sod_mm": _short(sod), "sdd_mm": _short(float(np.linalg.norm(across)) * spacing_mm[1] * sod)}
        isocentre = -np.linalg.solve(matrix[:, :3], matrix[:, 3]) - sod * to_source
    else:
        to_source = np.cross(matrix[0, :3], matrix[1, :3]) * spacing_mm[0] * spacing_mm[1]
        middle = (np.array(shape[::-1]) - 1) / 2
        isocentre = np.linalg.pinv(matrix[:2, :3]) @ (middle - matrix[:2, 3])
    point = tuple(_short(float(mm)) for mm in isocentre)
    for side in (1, -1):  # a parallel beam's source may stand on either
        x, y, z = side * to_source
        tilt = _short(math.degrees(math.asin(min(1.0, max(-1.0, z)))))
        for angle in (ANGLES_DEG.get(name), _short(math.degrees(math.atan2(x, y)))):
            words = beam | ({} if ANGLES_DEG.get(name) == angle else {"angle_deg": angle})
            words |= ({"tilt_deg": tilt} if tilt else {}) | ({"isocentre_mm": list(point)} if any(point) else {})
            lengths = {key: beam[key] for key in ("sod_mm", "sdd_mm") if key in beam}
            make: Any = cone_matrix if depth else parallel_matrix
            with suppress(InputError):  # no such distances, or no angle
                if np.array_equal(make(name, angle, tilt, isocentre_mm=point, **lengths, **detector), matrix):
                    return words
    return None


def _short(value: float) -> float:
    return round(value, 6) + 0.0  # not -0


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


def _tilt(name: str, tilt_deg: float) -> float:
    if not abs(tilt_deg) <= MOST_TILT_DEG:
        raise InputError.of(f"view {name}", "tilt", found=tilt_deg, expected=f"at most {MOST_TILT_DEG:g} degrees")
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


def _seen_at_middle(rows: FloatArray, shape: tuple[int, int], isocentre_mm: Vector) -> FloatArray:
    """Rows that see the origin at pixel (0, 0), made a matrix that sees the isocentre at the detector's middle."""
    middle = np.array([[1.0, 0.0, (shape[1] - 1) / 2], [0.0, 1.0, (shape[0] - 1) / 2], [0.0, 0.0, 1.0]])
    moved = np.array([0.0, 0.0, 1.0]) - rows @ np.asarray(isocentre_mm, np.float64)
    return np.asarray(middle @ np.column_stack([rows, moved]), np.float64)
