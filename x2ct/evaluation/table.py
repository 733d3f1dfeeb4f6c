"""The table: people and methods side by side, means with their bootstrap intervals, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from x2ct.evaluation.protocol import average
from x2ct.report import markdown_table

SCHEMA = 2
RESAMPLES = 2000
CONFIDENCE = 0.95

Column = tuple[str, str, str]
"""Where the figure is, its title, its format."""

COLUMNS: tuple[Column, ...] = (
    ("psnr_db", "PSNR dB", ".2f"),
    ("ssim", "SSIM", ".3f"),
    ("mae_hu.all", "MAE HU all", ".0f"),
    ("mae_hu.body", "body", ".0f"),
    ("mae_hu.lung", "lung", ".0f"),
    ("mae_hu.soft", "soft", ".0f"),
    ("mae_hu.bone", "bone", ".0f"),
    ("bone_dice", "bone Dice", ".3f"),
    ("bone_surface_95_mm", "bone HD95 mm", ".1f"),
    ("bone_pieces.any", "bones touched", ".0%"),
    ("bone_pieces.quarter", "a quarter there", ".0%"),
)
ANATOMY: tuple[Column, ...] = (
    ("anatomy.spine_correlation", "spine profile, correlation", ".2f"),
    ("anatomy.vertebrae", "vertebrae found", ".0%"),
    ("anatomy.rib_pieces", "rib pieces, a quarter there", ".0%"),
    ("anatomy.rib_distance_mm", "rib to bone mm", ".1f"),
    ("anatomy.air_std_hu", "air std HU", ".1f"),
    ("anatomy.step_ratio", "step ratio", ".3f"),
)
"""A table of its own: no table is wider than a screen."""
LEGACY: tuple[Column, ...] = (
    ("legacy.psnr_4095_db", "legacy PSNR (slices, peak 4095)", ".2f"),
    ("legacy.ssim_slices", "legacy SSIM (three axes)", ".3f"),
)


def summarise(results: Sequence[Mapping[str, Any]], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The whole table as JSON data: per case; and of each method that all cases have, the mean and its interval."""
    shared = [name for name in results[0]["methods"] if all(name in r["methods"] for r in results)] if results else []
    by_method = {name: [r["methods"][name] for r in results] for name in shared}
    return {
        "schema": SCHEMA,
        **dict(facts or {}),
        "cases": [dict(r) for r in results],
        "mean": {name: average(scores) for name, scores in by_method.items()},
        "interval": {name: interval(scores) for name, scores in by_method.items()},
    }


def interval(scores: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """For each figure the 95% bootstrap interval of its mean over people (percentiles; Efron 1979).

    The same people and seed give the same interval. Figures with fewer than two people are None. With few people it is
    too narrow: it knows no one but them.
    """
    found: dict[str, Any] = {}
    for key, first in scores[0].items():
        values = [s[key] for s in scores]
        if isinstance(first, Mapping):
            found[key] = interval(values, seed)
            continue
        people = np.asarray([v for v in values if math.isfinite(v)], np.float64)
        if len(people) < 2:
            found[key] = None
            continue
        drawn = np.random.default_rng(seed).integers(0, len(people), (RESAMPLES, len(people)))
        tails = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
        found[key] = [float(edge) for edge in np.percentile(people[drawn].mean(axis=1), tails)]
    return found


def markdown(table: Mapping[str, Any]) -> str:
    """The table for people: the mean over cases first, then one block a case."""
    cases = table["cases"]
    lines: list[str] = []
    if len(cases) > 1:
        lines += [f"### Mean of {len(cases)} people", "", *rows(table["mean"], table["interval"]), ""]
        lines += [*rows(table["mean"], columns=ANATOMY), ""]
    for case in cases:
        lines += [f"### {case['id']}", "", *rows(case["methods"]), ""]
        lines += [*rows(case["methods"], columns=ANATOMY), ""]
        if case.get("calibration"):
            lines += [said(case["calibration"]), ""]
    return "\n".join(lines)


def rows(
    methods: Mapping[str, Mapping[str, Any]],
    intervals: Mapping[str, Mapping[str, Any]] | None = None,
    columns: Sequence[Column] | None = None,
) -> list[str]:
    """Methods as rows of a Markdown table; with intervals, PSNR's and Dice's stand behind them."""
    shown = columns_of(methods) if columns is None else columns
    lines = []
    for name, figures in methods.items():
        cells = [cell(at(figures, key), form) for key, _, form in shown]
        if intervals:
            edges = [at_any(intervals[name], key) if key in ("psnr_db", "bone_dice") else None for key, *_ in shown]
            cells = [
                f"{text} ({cell(edge[0], form)} – {cell(edge[1], form)})" if edge else text
                for text, edge, (_, _, form) in zip(cells, edges, shown, strict=True)
            ]
        lines.append([name, *cells])
    return markdown_table(["", *(title for _, title, _ in shown)], lines, text=1)


def columns_of(methods: Mapping[str, Mapping[str, Any]]) -> tuple[Column, ...]:
    """All columns, with one of re-projection a view."""
    views = list(next(iter(methods.values()))["reprojection_grid"]) if methods else []
    again: tuple[Column, ...] = tuple((f"reprojection_grid.{view}", f"re-projection {view}", ".3f") for view in views)
    return (*COLUMNS, *again, *LEGACY)


def said(found: Mapping[str, Any]) -> str:
    """The samples' calibration in a sentence."""
    if math.isnan(found["std_hu"]):
        return "No body in the truth: nothing to calibrate on."
    return (
        f"Samples, in the body: standard deviation {found['std_hu']:.0f} HU, error of their mean "
        f"{found['rmse_hu']:.0f} HU, correlation of the two {cell(found['correlation'], '.2f')}; CRPS "
        f"{found['crps_hu']:.0f} HU; their central interval covers {found['coverage']:.0%} of the truth "
        f"({found['coverage_expected']:.0%} if calibrated)."
    )


def to_csv(table: Mapping[str, Any]) -> str:
    """Long form, one figure a line: case, method, figure, value; cases "mean", "low" and "high" are over people."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("case", "method", "figure", "value"))
    for case in table["cases"]:
        for method, figures in case["methods"].items():
            _write(writer, case["id"], method, figures)
        calibrated = {key: value for key, value in (case.get("calibration") or {}).items() if key != "ranks"}
        _write(writer, case["id"], "samples", calibrated)
    for method, figures in table["mean"].items():
        _write(writer, "mean", method, figures)
    for end, name in enumerate(("low", "high")):
        for method, figures in table["interval"].items():
            _write(writer, name, method, figures, end)
    return stream.getvalue()


def _write(writer: Any, case: str, method: str, figures: Mapping[str, Any], end: int | None = None) -> None:
    for key, value in flat(figures).items():
        number = value if end is None else (math.nan if value is None else value[end])
        text = "" if isinstance(number, float) and not math.isfinite(number) else f"{number:.6g}"
        writer.writerow((case, method, key, text))


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested figures by dotted names."""
    found: dict[str, Any] = {}
    for key, value in figures.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def cell(value: float, form: str) -> str:
    """A figure as text; what is undefined is a dash."""
    return "-" if math.isnan(value) else format(value, form)


def at(figures: Mapping[str, Any], key: str) -> float:
    """A figure by its dotted name; NaN where there is none."""
    value = at_any(figures, key)
    return math.nan if value is None else float(value)


def at_any(figures: Mapping[str, Any], key: str) -> Any:
    """What stands under a dotted name, or None."""
    value: Any = figures
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
