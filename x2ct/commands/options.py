"""What several commands share: options of one meaning, and how the text of an option is read."""

from __future__ import annotations

from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Threads = Annotated[
    int, typer.Option("--threads", min=0, help="CPU threads; 0 leaves it to the runtime.", rich_help_panel="Runtime")
]


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
