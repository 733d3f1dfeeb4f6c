"""The figures of patients and methods side by side: means with their bootstrap intervals, tables of them, CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from x2ct.evaluation.protocol import average, each_figure
from x2ct.io.report import Table

SCHEMA = 2
RESAMPLES = 2000

Column = tuple[str, str, str]  # where the figure is, its title, its format

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
    """Return the whole table as JSON data: per case; and of each method that all cases have, the mean and interval."""
    shared = [name for name in results[0]["methods"] if all(name in r["methods"] for r in results)]
    by_method = {name: [r["methods"][name] for r in results] for name in shared}
    return {
        "schema": SCHEMA,
        **(facts or {}),
        "cases": list(results),
        "mean": {name: average(scores) for name, scores in by_method.items()},
        "interval": {name: interval(scores) for name, scores in by_method.items()},
    }


def interval(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return for each figure the 95% bootstrap interval of its mean over patients (percentiles; Efron 1979).

    The same patients give the same interval; fewer than two give None. With few patients it is too narrow.
    """

    def edges(values: list[float]) -> list[float] | None:
        finite = [value for value in values if math.isfinite(value)]
        if len(finite) < 2:
            return None
        bootstrap = stats.bootstrap((finite,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0)
        return [float(edge) for edge in bootstrap.confidence_interval]

    return each_figure(scores, edges)


def of_methods(
    methods: Mapping[str, Mapping[str, Any]],
    intervals: Mapping[str, Mapping[str, Any]] | None = None,
    columns: Sequence[Column] | None = None,
) -> Table:
    """Return a row for each method, by name; with intervals, PSNR's and Dice's stand behind their figure.

    The columns are by default all, with one of re-projection for each view.
    """
    if columns is None:
        views = next(iter(methods.values()))["reprojection_grid"] if methods else ()
        again = [(f"reprojection_grid.{view}", f"re-projection {view}", ".3f") for view in views]
        columns = (*COLUMNS, *again, *LEGACY)

    def text(name: str, key: str, form: str) -> str:
        edges = flat(intervals[name]).get(key) if intervals and key in ("psnr_db", "bone_dice") else None
        return cell(at(methods[name], key), form) + (f" ({edges[0]:{form}} – {edges[1]:{form}})" if edges else "")

    rows = [[name, *(text(name, key, form) for key, _, form in columns)] for name in methods]
    return Table("", ["", *(title for _, title, _ in columns)], rows, text=1)


def to_csv(table: Mapping[str, Any]) -> str:
    """Return one figure a line: case, method, figure, value; cases "mean", "low", "high" are over patients."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("case", "method", "figure", "value"))

    def write(case: str, method: str, figures: Mapping[str, Any], end: int | None = None) -> None:
        for key, value in flat(figures).items():
            number = value if end is None or value is None else value[end]
            text = f"{number:.6g}" if number is not None and math.isfinite(number) else ""
            writer.writerow((case, method, key, text))

    for case in table["cases"]:
        for method, figures in case["methods"].items():
            write(case["id"], method, figures)
        write(case["id"], "samples", {k: v for k, v in (case.get("calibration") or {}).items() if k != "ranks"})
    for name, part, end in (("mean", "mean", None), ("low", "interval", 0), ("high", "interval", 1)):
        for method, figures in table[part].items():
            write(name, method, figures, end)
    return stream.getvalue()


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested figures by dotted names."""
    by_name: dict[str, Any] = {}
    for key, value in figures.items():
        by_name |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return by_name


def at(figures: Mapping[str, Any], key: str) -> float:
    """Return a figure by its dotted name; NaN where there is none."""
    value = flat(figures).get(key)
    return math.nan if value is None else float(value)


def cell(value: float, form: str) -> str:
    """Return a figure as text; what is undefined is a dash."""
    return "-" if math.isnan(value) else format(value, form)
