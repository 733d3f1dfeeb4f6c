"""Where one X-ray was taken from, and how its picture is turned upright, as far as its file or its user says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.geometry import ANGLES_DEG, View

Scalar = TypeVar("Scalar", bound=np.generic)

DISTANCE_MM = (200.0, 10_000.0)
MAGNIFICATION = (1.0, 5.0)
TILT_DEG = 60.0
_ROTATIONS = {0: 1, 90: 6, 180: 3, 270: 8}  # degrees clockwise, as Orientation has them


@dataclass(frozen=True)
class Beam:
    """A source and how it looks at the patient; InputError for a distance, angle or magnification that can't be."""

    sod_mm: float | None = None  # from the source to the patient's middle; None where nobody knows
    sdd_mm: float | None = None  # from the source to the detector
    angle_deg: float | None = None  # of the source about the patient, as `View.cone` has it; None for the view's own
    tilt_deg: float = 0.0  # of the source out of the axial plane, towards the head

    def __post_init__(self) -> None:
        low, high = DISTANCE_MM
        for name, value in (("sod", self.sod_mm), ("sdd", self.sdd_mm)):
            if value is not None and not low <= value <= high:
                raise InputError.of(f"--{name}", "distance in mm", found=value, expected=f"{low:g} to {high:g}")
        if self.angle_deg is not None and not (math.isfinite(self.angle_deg) and abs(self.angle_deg) <= 360):
            raise InputError.of("--angle", "degrees", found=self.angle_deg, expected="-360 to 360")
        if not abs(self.tilt_deg) <= TILT_DEG:
            raise InputError.of("tilt", "degrees", found=self.tilt_deg, expected=f"-{TILT_DEG:g} to {TILT_DEG:g}")
        if self.magnification is not None and not MAGNIFICATION[0] <= self.magnification <= MAGNIFICATION[1]:
            ratio = f"{self.magnification:.3g} ({self.sdd_mm:g} / {self.sod_mm:g} mm)"
            expected = f"{MAGNIFICATION[0]:g} to {MAGNIFICATION[1]:g}"
            raise InputError.of("--sdd and --sod", "magnification", found=ratio, expected=expected)

    def __bool__(self) -> bool:
        return self != Beam()

    @property
    def magnification(self) -> float | None:
        """How much larger the patient's middle is on the detector than it is; None where nobody knows."""
        return None if self.sod_mm is None or self.sdd_mm is None else self.sdd_mm / self.sod_mm

    def view(self, name: str, usual: View) -> View:
        """Return the view of this name from here; its pixels measure at the isocentre what those of `usual` do.

        What is not known of the beam is taken from `usual`.
        """
        angle = ANGLES_DEG[name] if self.angle_deg is None else self.angle_deg
        sod, magnification = self.sod_mm, self.magnification
        if magnification is None and usual.source_mm is not None:
            sod, magnification = float(math.hypot(*usual.source_mm)), usual.magnification
        row, column = (step / usual.magnification for step in usual.spacing_mm)
        if sod is None or magnification is None:
            return View.parallel(name, angle, tilt_deg=self.tilt_deg, shape=usual.shape, spacing_mm=(row, column))
        sdd, pitch = sod * magnification, (row * magnification, column * magnification)
        return View.cone(
            name, angle, tilt_deg=self.tilt_deg, sod_mm=sod, sdd_mm=sdd, shape=usual.shape, spacing_mm=pitch
        )

    def __str__(self) -> str:
        parts = []
        if self.magnification is not None:
            parts.append(f"cone beam, SOD {self.sod_mm:g} mm, SDD {self.sdd_mm:g} mm")
        if self.angle_deg is not None:
            parts.append(f"source at {self.angle_deg:g} degrees")
        if self.tilt_deg:
            parts.append(f"tilted {self.tilt_deg:g} degrees towards the head")
        return ", ".join(parts) or "parallel beam"


UNKNOWN = Beam()
"""Of which nothing is known: the model's own view is taken."""


@dataclass(frozen=True)
class Turn:
    """Quarter turns and mirrors: first the transposition about the diagonal, then the order of rows and columns."""

    transpose: bool = False
    down: int = 1  # -1 where top and bottom change places
    across: int = 1  # -1 where left and right do

    @classmethod
    def rotation(cls, degrees: int) -> Turn:
        """Clockwise, as seen; raises InputError for what is not a quarter turn."""
        if degrees not in _ROTATIONS:
            raise InputError.of("--rotate", "degrees", found=degrees, expected="90, 180 or 270 (clockwise)")
        return cls.exif(_ROTATIONS[degrees])

    @classmethod
    def mirror(cls, flip: str) -> Turn:
        """Horizontal: left and right change places; vertical: top and bottom; raises InputError at another word."""
        if flip not in ("horizontal", "vertical"):
            raise InputError.of("--flip", "direction", found=repr(flip), expected="horizontal or vertical")
        return cls(across=-1) if flip == "horizontal" else cls(down=-1)

    @classmethod
    def exif(cls, code: int) -> Turn:
        """What TIFF's and EXIF's Orientation (1 to 8) asks a viewer to do; any other code means nothing."""
        orders = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
        return cls(code > 4, *orders[code]) if code in orders else cls()

    def __bool__(self) -> bool:
        return self != Turn()

    def of(self, image: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """The turned picture (rows, columns), C-contiguous."""
        turned: npt.NDArray[Any] = image.T if self.transpose else image
        return np.ascontiguousarray(turned[:: self.down, :: self.across])

    def spacing(self, pair: tuple[float, float] | None) -> tuple[float, float] | None:
        """The (row, column) spacing of the turned picture."""
        return (pair[1], pair[0]) if pair is not None and self.transpose else pair
