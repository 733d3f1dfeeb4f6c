"""The table: bootstrap intervals, what is undefined, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from x2ct.evaluation import card, page, table
from x2ct.io.report import markdown_table


def test_the_interval_is_that_of_the_mean_and_always_the_same() -> None:
    values = np.random.default_rng(0).normal(20, 2, 30)
    scores = [{"psnr_db": float(v)} for v in values]
    low, high = table.interval(scores)["psnr_db"]
    error = values.std() / math.sqrt(len(values))  # of the mean; 1.96 of them to each side hold 95% of a normal
    assert [low, high] == pytest.approx([values.mean() - 1.96 * error, values.mean() + 1.96 * error], abs=0.1)
    assert table.interval(scores)["psnr_db"] == [low, high]
    assert low < values.mean() < high


def test_one_patient_has_no_interval_and_what_is_undefined_is_left_out() -> None:
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
    text = card.markdown(table.summarise([result("a", 20.0), result("b", 24.0)]))
    assert text.startswith("### Mean of 2 patients")
    assert "22.00 (20.00 – 24.00)" in text
    assert "legacy PSNR (slices, peak 4095)" in text
    assert "25%" in text and "| - |" in text
    alone = card.markdown(table.summarise([result("a", 20.0)]))
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


def evaluation(*names: str) -> dict:
    """A whole evaluation's JSON data, its samples calibrated."""
    calibration = {"std_hu": 90.0, "rmse_hu": 99.0, "correlation": 0.4, "crps_hu": 40.0, "coverage": 0.7}
    calibration |= {"deviation_scale": 1.2, "interval_coverage": 0.8}
    calibration |= {"coverage_expected": 0.6, "ranks": [0.3, 0.2, 0.1, 0.1, 0.3]}
    facts = {"predictions": "theirs", "grid": {"shape": [4, 4, 4], "spacing_mm": [1, 1, 1]}, "window_hu": [-1000, 600]}
    facts |= {"model": None, "geometry": {"views": [{"name": "ap"}]}, "baselines": None, "failures": []}
    results = [result(name, 20.0 + place) | {"calibration": calibration} for place, name in enumerate(names)]
    return table.summarise(results, facts) | {"conditions": {}, "probe": []}


def shown(name: str) -> page.Shown:
    return page.Shown(name, (("truth", [("axial", "data:image/png;base64,AA+/==")]),), "prediction", ())


def test_no_name_can_break_out_of_its_cell_on_the_page() -> None:
    name = "<script>alert(1)</script>"
    text = page.html(evaluation(name, "b"), [shown(name), shown("b")])
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    assert all(row.count("<td") in (0, 15, 7) for row in rows)  # the method's name has a "|"
    assert sum('<td class="text">m|x</td>' in row for row in rows) == 2 * 3
    assert "<script" not in text and "<h2>&lt;script&gt;alert(1)&lt;/script&gt;</h2>" in text
    assert 'src="data:image/png;base64,AA+/=="' in text


def test_the_plot_has_every_name_as_it_is_and_the_same_bytes_each_time() -> None:
    ranks = {"_hidden": [0.2] * 5, "$x_1$ & $": [0.1, 0.2, 0.4, 0.2, 0.1]}
    text = page.calibration_plot(ranks)
    assert text == page.calibration_plot(ranks)
    labels = [element.text for element in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert all(name in labels for name in ranks)
    assert "metadata" not in text  # its date, above all
    bars = len(ElementTree.fromstring(text).findall(".//{*}g[@id='axes_2']/{*}g/{*}path"))
    assert bars >= 10
