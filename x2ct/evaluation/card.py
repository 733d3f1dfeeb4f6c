"""The report in Markdown: all of it, and the part that a model card prints as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from x2ct.evaluation import conditions, probe, table
from x2ct.evaluation.baselines import NAMES as BASELINES

_CARD = (*table.COLUMNS[:2], ("mae_hu.body", "MAE HU body", ".0f"), *table.COLUMNS[-4:])
_LOWER_IS_BETTER = ("mae_hu.body", "bone_surface_95_mm")

READING = (
    "PSNR over the whole volume, its peak the HU window's width; SSIM in 3D; bone is what has 200 HU or more, contrast "
    "and metal included: HD95 is the 95% Hausdorff distance of its surfaces, 'bones touched' the share of the truth's "
    "pieces of bone in which the estimate has any, 'a quarter there' a quarter of their voxels."
)
ANATOMY = (
    "Spine profile: correlation of the HU along the truth's spine, wavelengths of 12 to 45 mm. Vertebrae found: both "
    "disc gaps within 4 mm. Rib to bone: mean distance of the ribs' centrelines to the nearest bone, at most 20 mm. "
    "Air: more than 10 mm from the body. Step ratio: HU steps across the borders of the network's cells over all other "
    "steps, 1 without a checker pattern."
)
PLANTED = (
    f"One finding at a time; shown: in its voxels the synthesis changes by at least {probe.SHOWN:.0%} of what the "
    "truth changes, against the same seed without it. 'Of its HU': that share, on average; CNR: the change over the "
    "standard deviation of the change in the rest of the body. 'Where nothing was planted': the same question at the "
    "other findings' places. 'There without it': the synthesis without the finding has such a bright spot, or lacks "
    "the bone, already."
)


def report(evaluation: Mapping[str, Any]) -> str:
    """Return everything, in one Markdown page."""
    head = ["# Evaluation", "", *who(evaluation), "", READING, "", ANATOMY, "", *_extra(evaluation)]
    return "\n".join([*head, markdown(evaluation)])


def markdown(evaluation: Mapping[str, Any]) -> str:
    """Return the mean over cases, then one block a case."""

    def tables(methods: Mapping[str, Any], intervals: Mapping[str, Any] | None) -> list[str]:
        parts = table.of_methods(methods, intervals), table.of_methods(methods, columns=table.ANATOMY)
        return [line for part in parts for line in [*part.markdown(), ""]]

    return "\n".join(_blocks(evaluation, "### {}", tables))


def card(evaluation: Mapping[str, Any]) -> str:
    """Return a model card's part: where it is worse than a baseline; means, patients; conditions and probe."""

    def tables(methods: Mapping[str, Any], intervals: Mapping[str, Any] | None) -> list[str]:
        remark = ["In brackets: the 95% bootstrap interval over these patients, who are few.", ""] if intervals else []
        return [*worse(methods), *table.of_methods(methods, intervals, _CARD).markdown(), "", *remark]

    blocks = _blocks(evaluation, "**{}**", tables)
    return "\n".join([*who(evaluation), "", READING, "", *blocks, *_extra(evaluation)]).rstrip() + "\n"


def _blocks(evaluation: Mapping[str, Any], heading: str, tables: Callable[[Any, Any], list[str]]) -> list[str]:
    """Return the mean over cases with intervals, if there are several, and each case with its calibration."""
    cases, lines = evaluation["cases"], list[str]()
    if len(cases) > 1:
        lines += [heading.format(f"Mean of {len(cases)} patients"), ""]
        lines += tables(evaluation["mean"], evaluation["interval"])
    for case in cases:
        lines += [heading.format(case["id"]), "", *tables(case["methods"], None)]
        lines += [calibration(case["calibration"]), ""] if case.get("calibration") else []
    return lines


def calibration(figures: Mapping[str, Any]) -> str:
    """Return the samples' calibration in a sentence."""
    if math.isnan(figures["std_hu"]):
        return "No body in the truth: nothing to calibrate on."
    interval = ""
    if "interval_coverage" in figures:  # an evaluation of before there was a factor has none
        interval = (
            f" The 80% interval of the standard deviation that a run reports, {figures['deviation_scale']:.2f} times "
            f"the samples', covers {figures['interval_coverage']:.0%}."
        )
    return (
        f"Samples, in the body: standard deviation {figures['std_hu']:.0f} HU, error of their mean "
        f"{figures['rmse_hu']:.0f} HU, correlation of the two {table.cell(figures['correlation'], '.2f')}; CRPS "
        f"{figures['crps_hu']:.0f} HU; their central interval covers {figures['coverage']:.0%} of the truth "
        f"({figures['coverage_expected']:.0%} if calibrated).{interval}"
    )


def brief(evaluation: Mapping[str, Any], page: PathLike[str]) -> str:
    """Return PSNR, SSIM and bone Dice of each method for a terminal, and where the other figures are."""
    scores = evaluation["mean"]
    width = max(map(len, scores), default=0)
    patients = f"patients: {len(evaluation['cases'])}"
    lines = [f"{patients:{width}}  PSNR dB   SSIM  bone Dice"]
    for name, figures in scores.items():
        psnr, ssim, dice = (table.at(figures, key) for key in ("psnr_db", "ssim", "bone_dice"))
        lines.append(f"{name:{width}}  {psnr:7.2f}  {ssim:5.3f}  {dice:9.3f}")
    return "\n".join([*lines, f"{page}: all figures"])


def worse(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each method that a baseline beats in some figure, with the best baseline; none without any."""
    rivals = [name for name in methods if name in BASELINES]
    candidates = [name for name in methods if name not in BASELINES]
    lines = []
    for name in candidates if rivals else []:
        losses = []
        for key, title, form in _CARD:
            value = {method: table.at(methods[method], key) for method in (name, *rivals)}
            sign = -1 if key in _LOWER_IS_BETTER else 1  # what is undefined is worse than anything
            order = {method: -math.inf if math.isnan(one) else sign * one for method, one in value.items()}
            best = max(rivals, key=order.__getitem__)
            if order[best] > order[name]:
                losses.append(f"{title} {table.cell(value[name], form)} to {table.cell(value[best], form)} ({best})")
        text = "; ".join(losses) or "in none of these figures"
        lines.append(f"- Where the {name} is worse than a baseline: {text}.")
    return [*lines, ""] if lines else []


def who(evaluation: Mapping[str, Any]) -> list[str]:
    """Return who was judged and on what, in a few lines."""
    model, grid = evaluation["model"], evaluation["grid"]
    shape, pitch = (" x ".join(f"{side:g}" for side in grid[name]) for name in ("shape", "spacing_mm"))
    subject = f"Predictions in {evaluation['predictions']}" if evaluation["predictions"] else "Baselines"
    if model:
        subject = f"Model {model['name']} ({model['sha256'][:12]}), {model['backend']} {model.get('precision', '')}"
        subject += f", {model['steps']} steps a sample" if "steps" in model else ""
    views = ", ".join(view["name"] for view in evaluation["geometry"]["views"])
    low, high = evaluation["window_hu"]
    lines = [f"{subject.rstrip()}; {shape} voxels of {pitch} mm, window {low:g} to {high:g} HU; X-rays: {views}."]
    if evaluation["baselines"]:
        lines += [f"Baselines of {len(evaluation['baselines']['patients'])} training patients."]
    lines += [f"Warning: {line}." for line in evaluation.get("warnings", ())]
    lines += [f"Left out: {failure['case']} ({failure['reason']})." for failure in evaluation["failures"]]
    return lines


def _extra(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the tables of conditions and probe, where they were tried."""
    lines: list[str] = []
    count = sum(1 for case in evaluation["cases"] if case.get("conditions"))
    patients = "one patient" if count == 1 else f"mean of {count} patients"
    for method, costs in conditions.tables(evaluation["conditions"]).items():
        lines += [f"**X-rays that training did not see: {method}, {patients}**", "", *costs.markdown(), ""]
    if evaluation["probe"]:
        rows = probe.as_table(evaluation["probe"]).markdown()
        lines += ["**Findings planted into the CTs before projection**", "", *rows, "", PLANTED, ""]
    return lines
