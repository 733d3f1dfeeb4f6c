"""What several commands share: options of one meaning, and how the text of an option is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from x2ct.xrays.readoptions import ReadOptions

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit with code 2 and write nothing where there is anything to warn of.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Sample also X-rays that look like none that the model knows, with a warning.")
]
Threads = Annotated[
    int, typer.Option("--threads", min=0, help="CPU threads; 0 leaves it to the runtime.", rich_help_panel="Runtime")
]

OtherBundle = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write another bundle, and leave this one as it is.")
]
FoundReport = Annotated[Path | None, typer.Option("--report", help="Also write what was found: .json.")]

VIEWS = ("ap", "pa", "lateral")
Said = tuple[str | None, Any]


def of_view(parse: Callable[[str], Any]) -> Callable[[str], Said]:
    """The parser of VALUE, which holds for every X-ray, or VIEW=VALUE, which holds for one."""

    def parsed(text: str) -> Said:
        view, equals, value = text.rpartition("=")
        if equals and view not in VIEWS:
            raise typer.BadParameter(f"found {view!r} before the equals sign, expected {' or '.join(VIEWS)}")
        return view or None, parse(value)

    return parsed


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected a number") from None


def _parse_whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected a whole number") from None


def _parse_yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise typer.BadParameter(f"found {text!r}, expected yes or no")
    return text == "yes"


def parse_pitch(text: str) -> tuple[float, float]:
    """One pixel pitch in mm for both directions, or ROW,COLUMN."""
    try:
        row, *column = (float(part) for part in text.split(","))
        (across,) = column or [row]
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected MM or ROW,COLUMN in mm") from None
    if not (0 < row < 100 and 0 < across < 100):
        raise typer.BadParameter(f"found {text!r}, expected a pitch above 0 and below 100 mm")
    return row, across


def parse_option(text: str) -> tuple[str, str]:
    """A provider's option and its value."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"found {text!r}, expected KEY=VALUE")
    return key, value


def parse_view(text: str) -> str | float:
    """A view's name, or an angle in degrees."""
    try:
        return float(text)
    except ValueError:
        return text


def parse_shape(text: str) -> tuple[int, int, int]:
    """Voxels along x, y and z."""
    try:
        x, y, z = (int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected X,Y,Z in voxels") from None
    if min(x, y, z) < 1:
        raise typer.BadParameter(f"found {text!r}, expected sizes of at least 1")
    return x, y, z


def parse_voxel(text: str) -> tuple[float, float, float]:
    """One voxel size in mm for all directions, or X,Y,Z."""
    try:
        x, *others = (float(part) for part in text.split(","))
        y, z = others or [x, x]
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected MM or X,Y,Z in mm") from None
    if not all(0.01 <= side <= 50 for side in (x, y, z)):
        raise typer.BadParameter(f"found {text!r}, expected 0.01 to 50 mm")
    return x, y, z


def parse_bytes(text: str) -> int:
    """A size in bytes."""
    from x2ct import memory

    return memory.parse_bytes(text)


def _reading(parse: Callable[[str], Any], metavar: str, text: str) -> Any:
    return typer.Option(parser=of_view(parse), metavar=f"[VIEW=]{metavar}", help=text, rich_help_panel="Input")


SpacingOf = Annotated[list[Any] | None, _reading(parse_pitch, "MM", "An X-ray's pixel pitch: MM, or ROW,COLUMN.")]
RotateOf = Annotated[list[Any] | None, _reading(_parse_whole, "DEGREES", "Turn an X-ray clockwise by 90, 180 or 270.")]
FlipOf = Annotated[list[Any] | None, _reading(str, "WAY", "Then mirror it: horizontal or vertical.")]
FrameOf = Annotated[list[Any] | None, _reading(_parse_whole, "N", "Which picture of several; the first is 1.")]
SddOf = Annotated[list[Any] | None, _reading(_parse_number, "MM", "From source to detector; goes with --sod.")]
SodOf = Annotated[list[Any] | None, _reading(_parse_number, "MM", "From source to the patient's middle.")]
AngleOf = Annotated[
    list[Any] | None,
    _reading(_parse_number, "DEGREES", "Of the source about the patient: 0 front, 90 right."),
]


InvertOf = Annotated[
    list[Any] | None,
    _reading(
        _parse_yes, "yes|no", "Whether viewers show an X-ray with dense tissue dark. Default: file and picture tell."
    ),
]
ValuesOf = Annotated[
    list[Any] | None,
    _reading(str, "WORD", "What the numbers of a PNG, JPEG, TIFF or .npy file are: display, or (line) integrals."),
]


def reading(views: Sequence[str], **said: Sequence[Said] | None) -> dict[str, ReadOptions]:
    """How to read each view's X-ray, out of what the options above were given.

    Raises:
        InputError: something is said of an X-ray that isn't there, or can't be.
    """
    from x2ct.xrays.readoptions import ReadOptions

    return ReadOptions.by_view(views, {key: pairs or () for key, pairs in said.items()})
