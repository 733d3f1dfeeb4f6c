"""Two small plots as SVG: how well samples know their error. No plotting library, so that the page is one text file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_SIDE = 260
_EDGE = 44
_COLOURS = ("#4fa3ff", "#ffb454", "#7ddf8b", "#e07be0", "#ff7b72", "#9aa7b5")


def reliability(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Expected against observed coverage, a line a case; on the diagonal samples are calibrated."""
    parts = [
        *_frame("share expected in the interval", "share of the truth found in it"),
        _line([(0, 0), (1, 1)], "#777", "4 4"),
    ]
    for colour, points in zip(_cycle(len(curves)), curves.values(), strict=True):
        parts.append(_line(sorted([(0.0, 0.0), *points]), colour))
        parts += [f'<circle cx="{_x(a):.1f}" cy="{_y(b):.1f}" r="3.5" fill="{colour}"/>' for a, b in points]
    return _svg(parts, list(curves))


def ranks(shares: Mapping[str, Sequence[float]]) -> str:
    """The truth's rank among the samples, bars of each case side by side; all alike if calibrated."""
    highest = max((max(s) for s in shares.values()), default=0.0) or 1.0
    parts = _frame(
        "samples below the truth",
        "share of voxels",
        f"{highest:.0%}",
        ends=("0", str(max(map(len, shares.values())) - 1)),
    )
    for index, (colour, values) in enumerate(zip(_cycle(len(shares)), shares.values(), strict=True)):
        width = 1 / (len(values) * (len(shares) + 0.6))
        for rank, value in enumerate(values):
            left = _x(rank / len(values) + (index + 0.3) * width)
            top = _y(value / highest)
            place = f'x="{left:.1f}" y="{top:.1f}" width="{width * _SIDE:.1f}" height="{_y(0) - top:.1f}"'
            parts.append(f'<rect {place} fill="{colour}"/>')
        flat = 1 / len(values) / highest
        parts.append(_line([(0, flat), (1, flat)], "#777", "4 4"))
    return _svg(parts, list(shares))


def colour_of(index: int) -> str:
    """Of the n-th case, in every plot the same."""
    return _COLOURS[index % len(_COLOURS)]


def _cycle(count: int) -> list[str]:
    return [colour_of(index) for index in range(count)]


def _x(share: float) -> float:
    return _EDGE + share * _SIDE


def _y(share: float) -> float:
    return 12 + (1 - share) * _SIDE


def _line(points: Sequence[tuple[float, float]], colour: str, dashes: str = "") -> str:
    path = " ".join(f"{_x(a):.1f},{_y(b):.1f}" for a, b in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashed}/>'


def _frame(across: str, up: str, top: str = "100%", ends: tuple[str, str] = ("0", "100%")) -> list[str]:
    middle = _EDGE + _SIDE / 2
    texts = [
        (_x(0), _y(0) + 16, "start", ends[0], ""),
        (_x(1), _y(0) + 16, "end", ends[1], ""),
        (middle, _y(0) + 32, "middle", across, ""),
        (_x(0) - 6, _y(1) + 8, "end", top, ""),
        (14, _y(0.5), "middle", up, f' transform="rotate(-90 14 {_y(0.5):.1f})"'),
    ]
    drawn = [f'<rect x="{_x(0)}" y="{_y(1)}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#445"/>']
    return drawn + [
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{escape(text)}</text>'
        for x, y, anchor, text, turn in texts
    ]


def _legend(names: Sequence[str]) -> list[str]:
    top = _y(0) + 52
    found = []
    for index, name in enumerate(names):
        y = top + 16 * index
        found.append(f'<rect x="{_EDGE}" y="{y - 9:.1f}" width="10" height="10" fill="{colour_of(index)}"/>')
        found.append(f'<text x="{_EDGE + 16}" y="{y:.1f}">{escape(name)}</text>')
    return found


def _svg(parts: Sequence[str], names: Sequence[str]) -> str:
    width, height = _EDGE + _SIDE + 16, _SIDE + 64 + 16 * len(names)
    drawn = "".join([*parts, *_legend(names)])
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{drawn}</svg>'
