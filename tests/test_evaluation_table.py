"""The table: bootstrap intervals, what is undefined, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from x2ct.evaluation import card, table
from x2ct.report import markdown_table


def test_the_interval_agrees_with_scipy_s_bootstrap_and_is_always_the_same() -> None:
    values = np.random.default_rng(0).normal(20, 2, 30)
    scores = [{"psnr_db": float(v)} for v in values]
    low, high = table.interval(scores)["psnr_db"]
    other = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", random_state=1)
    assert low == pytest.approx(other.confidence_interval.low, abs=0.05)
    assert high == pytest.approx(other.confidence_interval.high, abs=0.05)
    assert table.interval(scores)["psnr_db"] == [low, high]
    assert low < values.mean() < high


def test_one_person_has_no_interval_and_what_is_undefined_is_left_out() -> None:
    assert table.interval([{"a": 1.0, "b": {"c": 2.0}}]) == {"a": None, "b": {"c": None}}
    assert table.interval([{"a": 1.0}, {"a": math.nan}]) == {"a": None}
    assert table.interval([{"a": 1.0}, {"a": math.nan}, {"a": 1.0}]) == {"a": [1.0, 1.0]}


def result(name: str, psnr: float) -> dict:
    figures = {
        "psnr_db": psnr,
        "ssim": 0.5,
        "mae_hu": {"all": 80.0, "body": 120.0, "lung": math.nan, "soft": 60.0, "bone": 200.0},
        "bone_dice": 0.3,
        "bone_surface_95_mm": 20.0,
        "bone_pieces": {"any": 0.9, "quarter": 0.25},
        "reprojection_grid": {"ap": 0.2},
        "legacy": {"psnr_4095_db": psnr + 6, "ssim_slices": 0.7},
    }
    return {"id": name, "methods": {"m|x": figures}}


def test_csv_has_every_figure_once_and_nothing_for_what_is_undefined() -> None:
    found = table.summarise([result("a", 20.0), result("b", 24.0)])
    lines = list(csv.DictReader(io.StringIO(table.to_csv(found))))
    by_key = {(line["case"], line["method"], line["figure"]): line["value"] for line in lines}
    assert len(by_key) == len(lines)
    assert by_key["a", "m|x", "psnr_db"] == "20"
    assert by_key["mean", "m|x", "psnr_db"] == "22"
    assert by_key["low", "m|x", "psnr_db"] == "20"
    assert by_key["high", "m|x", "psnr_db"] == "24"
    assert by_key["b", "m|x", "mae_hu.lung"] == ""
    assert by_key["mean", "m|x", "bone_pieces.quarter"] == "0.25"


def test_markdown_shows_means_first_with_their_interval() -> None:
    text = table.markdown(table.summarise([result("a", 20.0), result("b", 24.0)]))
    assert text.startswith("### Mean of 2 people")
    assert "22.00 (20.00 – 24.00)" in text
    assert "legacy PSNR (slices, peak 4095)" in text
    assert "25%" in text and "| - |" in text
    alone = table.markdown(table.summarise([result("a", 20.0)]))
    assert alone.startswith("### a")


def test_where_a_baseline_is_better_is_said_in_the_figure_s_own_direction() -> None:
    model, rival, other = (result("a", psnr)["methods"]["m|x"] for psnr in (22.0, 20.0, 23.0))
    rival |= {"bone_surface_95_mm": 10.0, "bone_dice": math.nan}
    (line, end) = card.worse({"mean estimate": model, "nearest patient": rival, "linear regression": other})
    assert end == ""
    assert line == (
        "- Where the mean estimate is worse than a baseline: PSNR dB 22.00 to 23.00 (linear regression); "
        "bone HD95 mm 20.0 to 10.0 (nearest patient)."
    )
    (line, _) = card.worse({"mean estimate": other, "mean volume": model})
    assert "in none of these figures" in line
    assert card.worse({"prediction": model}) == []


def test_a_cell_cannot_break_its_table() -> None:
    lines = markdown_table(("", "n"), [("a|b", 1)], text=1)
    assert lines == ["| | n |", "|---|---:|", "| a\\|b | 1 |"]
