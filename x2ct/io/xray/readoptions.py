"""How to read one X-ray file: its pixel pitch, its frame, how it lies, where it was taken from, what its values are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from x2ct.errors import InputError
from x2ct.io.xray.place import Beam, Turn

SPACING_MM = (0.01, 20.0)
VALUES = ("display", "integrals")
VIEWS = ("ap", "pa", "lateral")
Spacing = float | tuple[float, float]
ViewValue = tuple[str | None, Any]
"""A view, or None for every view, and the value of an option for it."""


@dataclass(frozen=True)
class ReadOptions:
    """How to read one X-ray, by the names of the command line's options; what is None is left to the file.

    Attributes:
        spacing: pixel pitch in mm, one number or (row, column), of the picture as it ends up lying.
        rotate: degrees clockwise, 0, 90, 180 or 270: how to turn the picture that the file's own orientation gives.
        flip: "horizontal" or "vertical": how to mirror it after that.
        frame: which picture of several, the first is 1.
        sdd: from the source to the detector, in mm.
        sod: from the source to the patient's middle, in mm.
        angle: of the source about the patient, in degrees; see `Beam`.
        invert: whether viewers show dense tissue dark; False: bright; None: tags and picture decide.
        values: "display" or "integrals" (line integrals): what the values are, for files other than DICOM.

    Raises:
        InputError: a value that can't be.
    """

    spacing: Spacing | None = None
    rotate: int = 0
    flip: str | None = None
    frame: int | None = None
    sdd: float | None = None
    sod: float | None = None
    angle: float | None = None
    invert: bool | None = None
    values: str | None = None

    def __post_init__(self) -> None:
        _ = self.beam, self.turns
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
    def turns(self) -> tuple[Turn, ...]:
        """What to do with the upright picture, in this order."""
        mirror = (Turn.mirror(self.flip),) if self.flip is not None else ()
        return tuple(turn for turn in (Turn.rotation(self.rotate), *mirror) if turn)


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
    chosen: dict[str, dict[str, Any]] = {view: {} for view in views}
    for key, pairs in values.items():
        names = [name for name, _ in pairs]
        for name in names:
            if name is not None and name not in chosen:
                raise InputError.of(f"--{key}", "view", found=name, expected=" or ".join(views) or "an X-ray")
            if names.count(name) > 1:
                raise InputError.of(f"--{key}", "options", found=f"{name or 'all views'} twice", expected="once")
        for name, value in sorted(pairs, key=lambda pair: pair[0] is not None):
            for view in views if name is None else (name,):
                chosen[view][key] = value
    return {view: options for view, options in chosen.items() if options}


def checked_spacing(spacing: Spacing) -> tuple[float, float]:
    """Return a pixel pitch as (row, column) in mm; raise InputError unless it is one or two numbers of such size."""
    pair = (spacing,) * 2 if isinstance(spacing, int | float) else tuple(spacing)
    if len(pair) != 2 or not all(SPACING_MM[0] <= value <= SPACING_MM[1] for value in pair):
        expected = f"{SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm, one number or (row, column)"
        raise InputError.of("--spacing", "pixel spacing in mm", found=spacing, expected=expected)
    return float(pair[0]), float(pair[1])


def refuse_beams_beside(geometry: Path | None, reading: Mapping[str, ReadOptions]) -> None:
    """Raise InputError where the user gives a geometry file, which says all of a beam, and some of the beam too."""
    if geometry is not None and any(options.beam for options in reading.values()):
        found = "--sdd, --sod or --angle beside it"
        raise InputError.of("--geometry", "options", found=found, expected="either of them")
