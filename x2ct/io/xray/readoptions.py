"""How to read one X-ray file: its pixel pitch, its frame, how it lies, where it was taken from, what its values are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from x2ct.errors import InputError
from x2ct.geometry import ANGLES_DEG, View

DISTANCE_MM = (200.0, 10_000.0)
MAGNIFICATION = (1.0, 5.0)
TILT_DEG = 60.0
SPACING_MM = (0.01, 20.0)
VALUES = ("display", "integrals")
VIEWS = ("ap", "pa", "lateral")
Spacing = float | tuple[float, float]
ViewValue = tuple[str | None, Any]  # a view, or None for every view, and the value of an option for it

TURNS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
"""What TIFF's and EXIF's Orientation asks for: the order of rows and of columns, after a transposition above 4."""
_ROTATIONS = {0: 1, 90: 6, 180: 3, 270: 8}  # degrees clockwise, as Orientation has them
_MIRRORS = {None: 1, "horizontal": 2, "vertical": 4}


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


UNKNOWN = Beam()  # of which nothing is known: the model's own view is taken


@dataclass(frozen=True)
class ReadOptions:
    """How to read one X-ray, by the names of the command line's options; what is None is left to the file.

    Raises InputError: a value that can't be.
    """

    spacing: Spacing | None = None  # pixel pitch in mm, one number or (row, column), of the picture as it ends up lying
    rotate: int = 0  # by 0, 90, 180 or 270 degrees clockwise, the picture that the file's own orientation gives
    flip: str | None = None  # "horizontal" or "vertical": how to mirror it after that
    frame: int | None = None  # which picture of several, the first is 1
    sdd: float | None = None  # from the source to the detector, in mm
    sod: float | None = None  # from the source to the patient's middle, in mm
    angle: float | None = None  # of the source about the patient, in degrees; see `Beam`
    invert: bool | None = None  # whether viewers show dense tissue dark; False: bright; None: tags and picture decide
    values: str | None = None  # "display" or "integrals" (line integrals), for files other than DICOM

    def __post_init__(self) -> None:
        _ = self.beam
        if self.rotate not in _ROTATIONS:
            raise InputError.of("--rotate", "degrees", found=self.rotate, expected="90, 180 or 270 (clockwise)")
        if self.flip not in _MIRRORS:
            raise InputError.of("--flip", "direction", found=repr(self.flip), expected="horizontal or vertical")
        if self.spacing is not None:
            object.__setattr__(self, "spacing", checked_spacing(self.spacing))
        if self.frame is not None and self.frame < 1:
            raise InputError.of("--frame", "number", found=self.frame, expected="1 (the first) or more")
        if self.values not in (None, *VALUES):
            raise InputError.of("--values", "word", found=repr(self.values), expected=" or ".join(VALUES))

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """(row, column) pixel pitch."""
        return None if self.spacing is None else checked_spacing(self.spacing)

    @property
    def beam(self) -> Beam:
        """The source's distances and angle."""
        return Beam(self.sod, self.sdd, self.angle)

    @property
    def turns(self) -> tuple[int, int]:
        """What to do with the upright picture, in this order, as `TURNS`."""
        return _ROTATIONS[self.rotate], _MIRRORS[self.flip]


def _pitch(text: str) -> tuple[float, float]:
    row, *column = (float(part) for part in text.split(","))
    (across,) = column or [row]
    return row, across


PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "spacing": (_pitch, "MM or ROW,COLUMN in mm"),
    "rotate": (int, "a whole number"),
    "flip": (str, "a word"),
    "frame": (int, "a whole number"),
    "sdd": (float, "a number"),
    "sod": (float, "a number"),
    "angle": (float, "a number"),
    "invert": ({"yes": True, "no": False}.__getitem__, "yes or no"),
    "values": (str, "a word"),
}
"""How to parse the text of each field of `ReadOptions`, which is a manifest's column too, and what that text is."""


def parse_value(option: str, text: str) -> ViewValue:
    """Parse VALUE, which holds for every X-ray, or VIEW=VALUE, which holds for one.

    Raises ValueError with what was found and expected: an unknown view, or a value of another kind.
    """
    parse, expected = PARSERS[option]
    view, equals, value = text.rpartition("=")
    if equals and view not in VIEWS:
        raise ValueError(f"found {view!r} before the equals sign, expected {' or '.join(VIEWS)}")
    try:
        return view or None, parse(value)
    except (ValueError, KeyError):
        raise ValueError(f"found {value!r}, expected {expected}") from None


def by_view(views: Sequence[str], values: Mapping[str, Sequence[ViewValue]]) -> dict[str, dict[str, Any]]:
    """Return the fields of `ReadOptions` for each of `views`; a value for one view goes before one for all.

    Raises InputError: a value for a view that isn't there, or two for the same.
    """
    result: dict[str, dict[str, Any]] = {view: {} for view in views}
    for key, pairs in values.items():
        names = [name for name, _ in pairs]
        for name in names:
            if name is not None and name not in result:
                raise InputError.of(f"--{key}", "view", found=name, expected=" or ".join(views) or "an X-ray")
            if names.count(name) > 1:
                raise InputError.of(f"--{key}", "options", found=f"{name or 'all views'} twice", expected="once")
        for name, value in sorted(pairs, key=lambda pair: pair[0] is not None):
            for view in views if name is None else (name,):
                result[view][key] = value
    return {view: options for view, options in result.items() if options}


def checked_spacing(spacing: Spacing) -> tuple[float, float]:
    """Return a pixel pitch as (row, column) in mm; raise InputError unless it is one or two numbers of such size."""
    pair: tuple[Any, ...] = tuple(spacing) if isinstance(spacing, Iterable) else (spacing, spacing)
    if len(pair) != 2 or not all(isinstance(mm, Real) and SPACING_MM[0] <= float(mm) <= SPACING_MM[1] for mm in pair):
        expected = f"{SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm, one number or (row, column)"
        raise InputError.of("--spacing", "pixel spacing in mm", found=spacing, expected=expected)
    return float(pair[0]), float(pair[1])


def refuse_beams_beside(geometry: Path | None, reading: Mapping[str, ReadOptions]) -> None:
    """Raise InputError where the user gives a geometry file, which says all of a beam, and some of the beam too."""
    if geometry is not None and any(options.beam for options in reading.values()):
        found = "--sdd, --sod or --angle beside it"
        raise InputError.of("--geometry", "options", found=found, expected="either of them")
