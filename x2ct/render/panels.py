"""Pages of pictures: panels in rows, each with a title and the letters at its sides, and a line below."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Window = tuple[float, float]

_GAP = 8
_TITLE = 20
_GREY = (150, 150, 150)
_INK = (235, 235, 235)
_MARK = (255, 214, 80)


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture (RGB), its title, and the two letters at its left and right edge, where it has them."""

    image: Image.Image
    title: str
    ends: str = ""


def window(values: npt.NDArray[Any], window: Window | None = None) -> npt.NDArray[np.uint8]:
    """Return values as 8-bit grey, black to white over the window, by default the 0.5th to 99.5th percentile."""
    low, high = map(float, np.percentile(values, (0.5, 99.5)) if window is None else window)
    width = high - low if high > low else 1.0
    return np.asarray(np.rint(np.clip((values - low) / width, 0, 1) * 255), np.uint8)


def page(rows: Sequence[Sequence[Panel]], footer: str, heading: str = "") -> Image.Image:
    """Draw rows of panels, from the top, in columns as wide as their widest.

    `footer` is one line below them, `heading` one above, which takes no room where there is none.
    """
    columns = max(len(row) for row in rows)
    widths = [max((row[i].image.width for row in rows if i < len(row)), default=0) for i in range(columns)]
    heights = [max(panel.image.height for panel in row) + _TITLE for row in rows]
    font, small = ImageFont.load_default(13), ImageFont.load_default(12)
    width = max(sum(widths) + _GAP * (columns + 1), *(2 * _GAP + round(font.getlength(t)) for t in (footer, heading)))
    above = _TITLE + _GAP if heading else 0
    page = Image.new("RGB", (width, above + sum(heights) + _GAP * len(rows) + _TITLE + _GAP))
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, _GAP // 2), heading, fill=_INK, font=font)
    y = above + _GAP // 2
    for row, height in zip(rows, heights, strict=True):
        x = _GAP
        for panel, column in zip(row, widths, strict=False):
            title = panel.title
            while len(title) > 4 and small.getlength(title) > column:
                title = title[:-2].rstrip(" .") + "."
            draw.text((x, y + 2), title, fill=_GREY, font=small)
            left, top = x + (column - panel.image.width) // 2, y + _TITLE + (height - _TITLE - panel.image.height) // 2
            page.paste(panel.image, (left, top))
            if panel.ends:
                middle = top + panel.image.height // 2
                shadow: dict[str, Any] = {"fill": _MARK, "font": font, "stroke_width": 2, "stroke_fill": (0, 0, 0)}
                draw.text((left + 4, middle), panel.ends[0], anchor="lm", **shadow)
                draw.text((left + panel.image.width - 4, middle), panel.ends[1], anchor="rm", **shadow)
            x += column + _GAP
        y += height + _GAP
    draw.text((_GAP, y), footer, fill=_INK, font=font)
    return page


def circles(picture: Image.Image, areas: Sequence[tuple[float, float, float]], sides_mm: Sequence[float]) -> None:
    """Draw circles that are as large as areas onto a picture of this height and width, numbered from 1.

    Of each area there is the centre, in mm down and across from the picture's middle, and its size in mm^2.
    """
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    down_px, across_px = picture.height / sides_mm[0], picture.width / sides_mm[1]
    for number, (down, across, size) in enumerate(areas, 1):
        x, y = picture.width / 2 + across * across_px, picture.height / 2 + down * down_px
        radius = math.sqrt(size / math.pi) * down_px + 3  # outside of what is marked
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_MARK)
        draw.text((x + radius + 2, y), f"{number}", anchor="lm", fill=_MARK, font=font)


def png(picture: Image.Image) -> bytes:
    """Return a picture's PNG file."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def data_uri(data: bytes) -> str:
    """Return a PNG file as a data URI, for a page that loads nothing."""
    return "data:image/png;base64," + base64.b64encode(data).decode()
