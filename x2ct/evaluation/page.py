"""The report as one HTML page with its pictures inside: nothing to load, nothing to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct.evaluation import card, conditions, pictures, plots, probe, table
from x2ct.evaluation.calibration import reliability
from x2ct.evaluation.case import Case
from x2ct.evaluation.metrics import Window
from x2ct.evaluation.protocol import mean_of
from x2ct.report import NOTICE

FloatArray = npt.NDArray[np.float32]

_STYLE = """
:root { color-scheme: dark; --ink: #e6e9ee; --dim: #93a0b0; --line: #2b333d; --back: #11151a; --panel: #181e25; }
body { margin: 0 auto; max-width: 1320px; padding: 24px 28px 60px; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 40px 0 8px; }
h3 { font-size: 15px; margin: 22px 0 6px; }
p { max-width: 88ch; margin: 6px 0; color: var(--dim); } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: 8px 0 14px; }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: bottom; }
th { color: var(--dim); font-weight: 500; } td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tbody tr:hover { background: var(--panel); }
.row { display: flex; gap: 6px; align-items: flex-end; margin: 2px 0 8px; }
.row > b { width: 118px; flex: none; font-weight: 500; font-size: 13px; align-self: center; }
figure { margin: 0; } figure img { height: 140px; display: block; background: #000; border-radius: 3px; }
figcaption { font-size: 11px; color: var(--dim); } .worst { display: flex; gap: 28px; flex-wrap: wrap; }
.worst img { height: 124px; } .plots { display: flex; gap: 40px; flex-wrap: wrap; }
svg text { fill: var(--dim); font: 12px system-ui, sans-serif; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--dim); }
""".strip()


@dataclass(frozen=True)
class Shown:
    """One case's pictures.

    Attributes:
        id: whose.
        rows: (what, panels) from the truth down.
        subject: what the worst slices are of.
        worst: the worst slices' panels.
    """

    id: str
    rows: tuple[tuple[str, pictures.Panels], ...]
    subject: str
    worst: tuple[pictures.Panels, ...]


def show(case: Case, methods: Mapping[str, FloatArray], samples: Sequence[FloatArray], window: Window) -> Shown:
    """Draw a case: truth, methods, the first sample; difference and standard deviation; the worst slices.

    The difference and the worst slices are of the first method, or else of the samples' mean.
    """
    spacing = case.grid.spacing_mm
    volumes = {"truth": case.truth, **methods}
    if samples:
        volumes["sample, seed 0"] = samples[0]
    if len(samples) > 1:
        volumes[f"mean of {len(samples)} samples"] = mean_of(samples)
    subject = next(iter(methods), None) or list(volumes)[-1]
    clipped = np.clip(volumes[subject], *window)
    truth = np.clip(case.truth, *window)
    drawn = [(name, pictures.planes(volume, spacing)) for name, volume in volumes.items()]
    drawn.append((f"{subject} - truth", pictures.differences(clipped - truth, spacing)))
    if len(samples) > 1:
        deviation = np.std(np.stack(samples), axis=0, ddof=1, dtype=np.float32)
        drawn.append(("standard deviation", pictures.deviations(deviation, spacing)))
    return Shown(case.id, tuple(drawn), subject, tuple(pictures.worst(case, clipped)))


def html(found: Mapping[str, Any], shown: Sequence[Shown]) -> str:
    """The page."""
    parts = [f"<h1>Evaluation</h1><p>{escape(NOTICE)}</p>"]
    parts += [f"<p>{escape(line)}</p>" for line in card.who(found)]
    parts += [f"<p>{escape(text)}</p>" for text in (card.READING, card.ANATOMY)]
    if len(found["cases"]) > 1:
        parts.append(f"<h2>Mean of {len(found['cases'])} people</h2>")
        parts.append(_worse(found["mean"]) + _table(table.rows(found["mean"], found["interval"])))
        parts.append(_table(table.rows(found["mean"], columns=table.ANATOMY)))
        parts.append("<p>In brackets: the 95% bootstrap interval over these people, who are few.</p>")
    parts += _calibration(found["cases"])
    if found["conditions"]:
        parts.append("<h2>X-rays that training did not see</h2>")
        for method in (conditions.MEAN, conditions.SAMPLE):
            parts.append(f"<h3>{escape(method)}</h3>" + _table(conditions.rows(found["conditions"], method)))
    if found["probe"]:
        parts.append("<h2>Findings planted before projection</h2>" + _table(probe.rows(found["probe"])))
        parts.append(f"<p>{escape(card.PLANTED)}</p>")
    by_id = {case["id"]: case for case in found["cases"]}
    for case in shown:
        parts += _case(case, by_id[case.id])
    head = f'<meta charset="utf-8"><title>x2ct evaluation</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _calibration(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    ranks = {case["id"]: case["calibration"]["ranks"] for case in cases if (case.get("calibration") or {}).get("ranks")}
    if not ranks:
        return []
    curves = {name: reliability(shares) for name, shares in ranks.items()}
    return [
        "<h2>Calibration of the samples</h2><p>Left: below the diagonal samples are too sure of themselves. Right: a U "
        "says the same, a slope that they lie to one side.</p>",
        f'<div class="plots">{plots.reliability(curves)}{plots.ranks(ranks)}</div>',
    ]


def _case(shown: Shown, case: Mapping[str, Any]) -> list[str]:
    parts = [f"<h2>{escape(shown.id)}</h2>", _worse(case["methods"]), _table(table.rows(case["methods"]))]
    parts.append(_table(table.rows(case["methods"], columns=table.ANATOMY)))
    if case.get("calibration"):
        parts.append(f"<p>{escape(table.said(case['calibration']))}</p>")
    parts += [_row(name, panels) for name, panels in shown.rows]
    worst = "".join(_row("", panels) for panels in shown.worst)
    parts.append(f'<h3>Worst axial slices of {escape(shown.subject)}</h3><div class="worst">{worst}</div>')
    return parts


def _worse(methods: Mapping[str, Any]) -> str:
    return "".join(f"<p>{escape(line.removeprefix('- '))}</p>" for line in card.worse(methods) if line)


def _row(name: str, panels: pictures.Panels) -> str:
    label = f"<b>{escape(name)}</b>" if name else ""
    return f'<div class="row">{label}{"".join(_figure(name, *panel) for panel in panels)}</div>'


def _figure(name: str, caption: str, uri: str) -> str:
    text = escape(caption)
    return f'<figure><img src="{uri}" alt="{escape(name)} {text}"><figcaption>{text}</figcaption></figure>'


def _table(lines: Sequence[str]) -> str:
    """A Markdown table as HTML."""
    cells = [[escape(part.strip()) for part in line.strip().strip("|").split("|")] for line in lines]
    head = "".join(f"<th>{text}</th>" for text in cells[0])
    body = "".join("<tr>" + "".join(f"<td>{text}</td>" for text in row) + "</tr>" for row in cells[2:])
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
