"""What a user says about one X-ray file: its pixel pitch, its frame, how it lies, and where it was taken from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from x2ct.errors import InputError
from x2ct.io.xray.beam import UNKNOWN, Beam
from x2ct.io.xray.turn import Turn

SPACING_MM = (0.01, 20.0)
VALUES = ("display", "integrals")
VIEWS = ("ap", "pa", "lateral")
Spacing = float | tuple[float, float]
Said = tuple[str | None, Any]
"""A view, or None for every view, and what is said of it."""


def _pitch(text: str) -> tuple[float, float]:
    row, *column = (float(part) for part in text.split(","))
    (across,) = column or [row]
    return row, across


def _yes(text: str) -> bool:
    return {"yes": True, "no": False}[text]


PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "spacing": (_pitch, "MM or ROW,COLUMN in mm"),
    "rotate": (int, "a whole number"),
    "flip": (str, "a word"),
    "frame": (int, "a whole number"),
    "sdd": (float, "a number"),
    "sod": (float, "a number"),
    "angle": (float, "a number"),
    "invert": (_yes, "yes or no"),
    "values": (str, "a word"),
}
"""How to parse the text of each option on one X-ray, which is a manifest's column too, and what that text is."""

_OF_BEAM = {"sdd": "sdd_mm", "sod": "sod_mm", "angle": "angle_deg"}


def parse_said(option: str, text: str) -> Said:
    """Parse VALUE, which holds for every X-ray, or VIEW=VALUE, which holds for one.

    Raises:
        ValueError: an unknown view, or a value of another kind; its text says what was found and expected.
    """
    parse, expected = PARSERS[option]
    view, equals, value = text.rpartition("=")
    if equals and view not in VIEWS:
        raise ValueError(f"found {view!r} before the equals sign, expected {' or '.join(VIEWS)}")
    try:
        return view or None, parse(value)
    except (ValueError, KeyError):
        raise ValueError(f"found {value!r}, expected {expected}") from None


def said_of(views: Sequence[str], said: Mapping[str, Sequence[Said]]) -> dict[str, dict[str, Any]]:
    """What is said of each view, by option; what is said of one view goes before what is said of all.

    Args:
        views: the names of the X-rays that there are.
        said: by option, one of `PARSERS`.

    Raises:
        InputError: something is said of a view that isn't there, or twice of the same.
    """
    chosen: dict[str, dict[str, Any]] = {view: {} for view in views}
    for key, pairs in said.items():
        names = [name for name, _ in pairs]
        for name in names:
            if name is not None and name not in chosen:
                raise InputError.of(f"--{key}", "view", found=name, expected=" or ".join(views) or "an X-ray")
            if names.count(name) > 1:
                raise InputError.of(f"--{key}", "options", found=f"{name or 'all views'} twice", expected="once")
        for name, value in sorted(pairs, key=lambda pair: pair[0] is not None):
            for view in views if name is None else (name,):
                chosen[view][key] = value
    return {view: values for view, values in chosen.items() if values}


@dataclass(frozen=True)
class ReadOptions:
    """How to read one X-ray; what is None is left to the file.

    Attributes:
        spacing_mm: pixel pitch, one number or (row, column), of the picture as it ends up lying.
        rotate: degrees clockwise, 0, 90, 180 or 270: how to turn the picture that the file's own orientation gives.
        flip: "horizontal" or "vertical": how to mirror it after that.
        frame: which picture of several, the first is 1.
        beam: the source's distances and angle.
        invert: whether viewers show dense tissue dark; False: bright; None: tags and picture decide.
        values: "display" or "integrals" (line integrals): what the values are, for files other than DICOM.

    Raises:
        InputError: a value that can't be.
    """

    spacing_mm: Spacing | None = None
    rotate: int = 0
    flip: str | None = None
    frame: int | None = None
    beam: Beam = UNKNOWN
    invert: bool | None = None
    values: str | None = None

    def __post_init__(self) -> None:
        if self.spacing_mm is not None:
            object.__setattr__(self, "spacing_mm", checked_spacing(self.spacing_mm))
        if self.frame is not None and self.frame < 1:
            raise InputError.of("--frame", "number", found=self.frame, expected="1 (the first) or more")
        if self.values not in (None, *VALUES):
            raise InputError.of("--values", "word", found=repr(self.values), expected=" or ".join(VALUES))
        _ = self.turns

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What to do with the upright picture, in this order."""
        mirror = (Turn.mirror(self.flip),) if self.flip is not None else ()
        return tuple(turn for turn in (Turn.rotation(self.rotate), *mirror) if turn)

    @classmethod
    def of(
        cls,
        spacing: Spacing | None = None,
        rotate: int = 0,
        flip: str | None = None,
        frame: int | None = None,
        sdd: float | None = None,
        sod: float | None = None,
        angle: float | None = None,
        invert: bool | None = None,
        values: str | None = None,
    ) -> ReadOptions:
        """Return the options by the names that the command line has for them."""
        return cls(spacing, rotate, flip, frame, Beam(sod, sdd, angle), invert, values)

    def updated(self, said: Mapping[str, Any]) -> ReadOptions:
        """These options with what is said of this view, by option, in place of their own.

        Raises:
            InputError: a value that can't be.
        """
        beam = {_OF_BEAM[key]: value for key, value in said.items() if key in _OF_BEAM}
        own = {key: value for key, value in said.items() if key not in _OF_BEAM}
        if "spacing" in own:
            own["spacing_mm"] = own.pop("spacing")
        return replace(self, beam=replace(self.beam, **beam), **own)

    @classmethod
    def by_view(cls, views: Sequence[str], said: Mapping[str, Sequence[Said]]) -> dict[str, ReadOptions]:
        """The options of each view of which anything was said; see `said_of`.

        Raises:
            InputError: as `said_of`, or a value that can't be.
        """
        return {view: cls().updated(values) for view, values in said_of(views, said).items()}


def checked_spacing(spacing: Spacing) -> tuple[float, float]:
    """A pixel pitch as (row, column) in mm.

    Raises:
        InputError: neither one nor two numbers, or no size that a pixel has.
    """
    pair = (spacing,) * 2 if isinstance(spacing, int | float) else tuple(spacing)
    if len(pair) != 2 or not all(SPACING_MM[0] <= value <= SPACING_MM[1] for value in pair):
        expected = f"{SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm, one number or (row, column)"
        raise InputError.of("--spacing", "pixel spacing in mm", found=spacing, expected=expected)
    return float(pair[0]), float(pair[1])


def refuse_beams_beside(geometry: Path | None, reading: Mapping[str, ReadOptions]) -> None:
    """A geometry file says all of a beam. Raises InputError where the user says some of it too."""
    if geometry is not None and any(options.beam for options in reading.values()):
        found = "--sdd, --sod or --angle beside it"
        raise InputError.of("--geometry", "options", found=found, expected="either of them")
