"""Pictures of a benchmark, as SVG text: every sample a dot, on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

from x2ct.benchmark.document import samples_of

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 860, 300, 30, 46, 34
_COLOURS = ("#1f6f8b", "#c8553d", "#5a8f29", "#7b4fa3")
_INK, _GRID = "#333333", "#dddddd"
_FONT = 'font-family="sans-serif" font-size="12"'


def pictures(made: Mapping[str, Any]) -> dict[str, str]:
    """By part: "latency" and "scaling", where the document has them."""
    found = {}
    rows = [row for row in made["rows"] if row["status"] == "measured"]
    if rows:
        strips = [
            (f"{row['label']}: {what}", [1e3 * value for value in samples_of(row, name)], colour)
            for row in rows
            for name, what, colour in (
                ("end_to_end_s", "end to end", _COLOURS[0]),
                ("evaluation_s", "evaluation", _COLOURS[1]),
            )
        ]
        found["latency"] = strip_plot("Latency, ms: every sample, and the median", strips)
    if made["scaling"]:
        found["scaling"] = _scaling(made["scaling"]["axes"])
    return found


def strip_plot(title: str, strips: Sequence[tuple[str, Sequence[float], str]]) -> str:
    """A row of dots for each set of samples, all on one logarithmic axis."""
    axis = _Axis([value for _, values, _ in strips for value in values], _LEFT, _WIDTH - _RIGHT)
    height = _TOP + _ROW * len(strips) + 40
    parts = [_text(14, 24, title, weight="bold"), *_vertical(axis, _TOP, height - 30)]
    for number, (label, values, colour) in enumerate(strips):
        y = _TOP + _ROW * (number + 0.5)
        middle = axis.at(median(values))
        parts.append(_text(_LEFT - 12, y + 4, label, anchor="end"))
        parts += [
            f'<circle cx="{axis.at(v):.1f}" cy="{y:.1f}" r="4" fill="{colour}" fill-opacity="0.35"/>' for v in values
        ]
        parts.append(
            f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{y - 11:.1f}" y2="{y + 11:.1f}" stroke="{_INK}" '
            'stroke-width="2"/>'
        )
    return _svg(_WIDTH, height, parts)


def line_plot(
    title: str, x_label: str, series: Mapping[str, Sequence[tuple[float, float]]], left: float, top: float
) -> list[str]:
    """Curves with a dot for each point, both axes logarithmic; the parts of a picture, 400 by 300 at (left, top)."""
    points = [point for line in series.values() for point in line if min(point) > 0]
    if not points:
        return [_text(left + 10, top + 20, f"{title}: no points")]
    x_axis = _Axis([x for x, _ in points], left + 70, left + 385)
    y_axis = _Axis([y for _, y in points], top + 255, top + 68)
    parts = [_text(left + 10, top + 20, title, weight="bold"), *_vertical(x_axis, top + 68, top + 255)]
    parts += [
        part
        for tick in y_axis.ticks
        for part in (
            f'<line x1="{left + 70}" x2="{left + 385}" y1="{y_axis.at(tick):.1f}" y2="{y_axis.at(tick):.1f}" '
            f'stroke="{_GRID}"/>',
            _text(left + 64, y_axis.at(tick) + 4, f"{tick:g}", anchor="end"),
        )
    ]
    parts.append(_text(left + 227, top + 290, x_label, anchor="middle"))
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        where = [(x_axis.at(x), y_axis.at(y)) for x, y in line if min(x, y) > 0]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in where]
        parts.append(_text(left + 78, top + 38 + 15 * number, name, colour=colour))
    return parts


def _scaling(axes: Mapping[str, Any]) -> str:
    parts = []
    for number, (axis, found) in enumerate(axes.items()):
        points = [point for point in found["points"] if point["status"] == "measured"]
        top = 300 * number
        times = {
            _fitted(what, axis, found["exponents"][name]): [(point["x"], point[name]) for point in points]
            for name, what in (("loop_s", "loop"), ("condition_s", "encoder and lift"))
        }
        memory = {
            _fitted("peak", axis, found["exponents"]["peak_bytes"]): [
                (point["x"], point["peak_bytes"] / (1 << 30)) for point in points
            ]
        }
        parts += line_plot(f"Seconds against {axis}", axis, times, 0, top)
        parts += line_plot(f"Peak memory, GiB, against {axis}", axis, memory, 420, top)
    return _svg(840, 300 * len(axes), parts)


def _fitted(what: str, axis: str, exponent: float | None) -> str:
    return what if exponent is None else f"{what} ~ {axis}^{round(exponent, 2) + 0.0:.2f}"


class _Axis:
    """A logarithmic axis from one coordinate to another, over all values with some room."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = math.log10(min(values)), math.log10(max(values))
        room = max(0.08 * (high - low), 0.05)
        self._low, self._high, self._start, self._end = low - room, high + room, start, end
        marks = [m * 10.0**p for p in range(math.floor(low) - 1, math.ceil(high) + 1) for m in (1, 2, 5)]
        inside = [mark for mark in marks if self._low <= math.log10(mark) <= self._high]
        decades = [mark for mark in inside if math.isclose(math.log10(mark) % 1, 0, abs_tol=1e-9)]
        self.ticks = decades if len(decades) > 2 else inside or [10 ** ((low + high) / 2)]

    def at(self, value: float) -> float:
        """Where a value lies."""
        return self._start + (math.log10(value) - self._low) / (self._high - self._low) * (self._end - self._start)


def _vertical(axis: _Axis, top: float, bottom: float) -> list[str]:
    return [
        part
        for tick in axis.ticks
        for part in (
            f'<line x1="{axis.at(tick):.1f}" x2="{axis.at(tick):.1f}" y1="{top:.1f}" y2="{bottom:.1f}" '
            f'stroke="{_GRID}"/>',
            _text(axis.at(tick), bottom + 16, f"{tick:g}", anchor="middle"),
        )
    ]


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = _INK) -> str:
    style = f'{_FONT} font-weight="{weight}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    size = f'width="{width:g}" height="{height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:g} {height:g}">'
    return "\n".join([head, f'<rect {size} fill="white"/>', *parts, "</svg>"]) + "\n"
