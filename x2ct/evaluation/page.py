"""The report as one HTML page with its pictures inside: nothing to load, nothing to run.

Jinja2 fills in `pages/evaluation.html`, Matplotlib draws the calibration; both come with the extra `report`. Pictures
have the grid's own pixels, so that a page stays small; the browser enlarges them. The patient's right is on the left,
head or front is up, as in `x2ct.render.preview`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from importlib import resources, util
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from x2ct.evaluation import card, conditions, probe, table
from x2ct.evaluation.calibration import reliability
from x2ct.evaluation.case import Case
from x2ct.evaluation.metrics import FloatArray, Window
from x2ct.evaluation.protocol import mean_of
from x2ct.geometry import attenuation
from x2ct.io.report import NOTICE
from x2ct.render.panels import data_uri, png, window
from x2ct.render.preview import BONE, WIDE, diverging

Pixels = npt.NDArray[np.uint8]
Panels = list[tuple[str, str]]  # (caption, PNG as a data URI)

DEVIATION: Window = (0.0, 400.0)
APART_MM = 15.0
WORST = 3

_INK, _LINE = "#93a0b0", "#445566"
_PALETTE = ("#4fa3ff", "#ffb454", "#7ddf8b", "#e07be0", "#ff7b72", "#9aa7b5")


def unavailable() -> str:
    """Return why the page can't be written, and what to install; "" where it can."""
    packages = [name for name in ("jinja2", "matplotlib") if util.find_spec(name) is None]
    return f"{' and '.join(packages)} not installed: pip install 'x2ct[report]'" if packages else ""


class Shown(NamedTuple):
    """One case's pictures."""

    id: str  # the case's
    rows: Sequence[tuple[str, Panels]]  # (name, panels) from the truth down
    subject: str  # the volume that the worst slices are from
    worst: Sequence[Panels]  # the worst slices' panels


def show(case: Case, methods: Mapping[str, FloatArray], samples: Sequence[FloatArray], hu_window: Window) -> Shown:
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
    clipped = np.clip(volumes[subject], *hu_window)
    error = clipped - np.clip(case.truth, *hu_window)
    rows = [(name, _slices(hu, spacing, _wide) + _projections(hu, spacing)) for name, hu in volumes.items()]
    rows.append((f"{subject} - truth", _slices(error, spacing, diverging)))
    if len(samples) > 1:
        deviation = np.std(np.stack(samples), axis=0, ddof=1, dtype=np.float32)
        rows.append(("standard deviation", _slices(deviation, spacing, lambda plane: window(plane, DEVIATION))))
    return Shown(case.id, rows, subject, _worst(case, clipped))


def html(evaluation: Mapping[str, Any], shown: Sequence[Shown]) -> str:
    """Return the page of an evaluation's JSON data and its cases' pictures. Needs the extra `report`."""
    import jinja2

    def figures_of(methods: Mapping[str, Any], intervals: Mapping[str, Any] | None = None) -> dict[str, Any]:
        worse = [line.removeprefix("- ") for line in card.worse(methods) if line]
        anatomy = table.of_methods(methods, columns=table.ANATOMY)
        return {"worse": worse, "tables": [table.of_methods(methods, intervals), anatomy]}

    by_id = {case["id"]: case for case in evaluation["cases"]}
    calibrations = {name: case["calibration"] for name, case in by_id.items() if case.get("calibration")}
    ranks = {name: figures["ranks"] for name, figures in calibrations.items() if figures["ranks"]}
    text = resources.files("x2ct").joinpath("pages/evaluation.html").read_text(encoding="utf-8")
    settings: dict[str, Any] = {"autoescape": True, "undefined": jinja2.StrictUndefined}
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, **settings).from_string(text)
    return template.render(
        about=[NOTICE, *card.who(evaluation), card.READING, card.ANATOMY],
        mean=figures_of(evaluation["mean"], evaluation["interval"]) if len(by_id) > 1 else None,
        plot=calibration_plot(ranks) if ranks else "",
        conditions=conditions.tables(evaluation["conditions"]).items(),
        probe=probe.as_table(evaluation["probe"]) if evaluation["probe"] else None,
        planted=card.PLANTED,
        cases=[
            {
                "shown": case,
                **figures_of(by_id[case.id]["methods"]),
                "calibration": card.calibration(calibrations[case.id]) if case.id in calibrations else "",
            }
            for case in shown
        ],
    )


def calibration_plot(ranks: Mapping[str, Sequence[float]]) -> str:
    """Draw how well samples know their error, as an SVG element; equal ranks give equal bytes.

    `ranks` has by case the shares of voxels whose truth has the rank 0 .. K among K samples. Left, the coverage
    expected of intervals between samples against the observed one; right, the ranks, all alike if calibrated.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    style: dict[Any, Any] = dict.fromkeys(("xtick.color", "ytick.color", "text.color", "axes.labelcolor"), _INK)
    style |= {"axes.edgecolor": _LINE, "font.size": 9}
    style |= {"svg.hashsalt": "x2ct", "svg.fonttype": "none", "text.parse_math": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(10, 4), layout="constrained")
        coverage, counts = figure.subplots(1, 2)
        coverage.plot((0, 1), (0, 1), "--", color=_LINE)
        for index, shares in enumerate(ranks.values()):
            colour = _PALETTE[index % len(_PALETTE)]
            coverage.plot(*zip((0.0, 0.0), *sorted(reliability(shares)), strict=True), "o-", color=colour, ms=4)
            width = 0.8 / len(ranks)
            counts.bar(np.arange(len(shares)) - 0.4 + (index + 0.5) * width, shares, width, color=colour)
            counts.axhline(1 / len(shares), ls="--", color=_LINE)
        coverage.set(xlabel="share expected in the interval", ylabel="share of the truth found in it", aspect="equal")
        counts.set(xlabel="samples below the truth", ylabel="share of voxels")
        for axis in (coverage.xaxis, coverage.yaxis, counts.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        counts.xaxis.set_major_locator(MaxNLocator(integer=True))
        # Matplotlib leaves a label out that begins with "_", so the names are put in afterwards.
        numbers = [str(index) for index in range(len(ranks))]
        legend = figure.legend(counts.containers, numbers, loc="outside right upper", frameon=False)
        for label, name in zip(legend.get_texts(), ranks, strict=True):
            label.set_text(name)
        for axes in (coverage, counts):
            axes.patch.set_alpha(0)
        stream = io.StringIO()
        undated = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=undated)
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _slices(volume: FloatArray, spacing_mm: Sequence[float], draw: Callable[[FloatArray], Pixels]) -> Panels:
    """Return the three middle slices."""
    return [
        (plane, _uri(draw(np.take(volume, volume.shape[axis] // 2, axis)), spacing_mm, axis))
        for plane, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0))
    ]


def _projections(hu: FloatArray, spacing_mm: Sequence[float]) -> Panels:
    """Return bone (maximum intensity) and X-ray, from the front and the side."""
    mu, sides = attenuation(hu), (("front", 1, 6.0), ("side", 0, 9.0))
    bone = [(f"bone, {side}", _uri(window(hu.max(axis=axis), BONE), spacing_mm, axis)) for side, axis, _ in sides]
    rays = [(side, axis, window(mu.sum(axis=axis) * spacing_mm[axis], (0.0, white))) for side, axis, white in sides]
    return [*bone, *((f"X-ray, {side}", _uri(pixels, spacing_mm, axis)) for side, axis, pixels in rays)]


def _worst(case: Case, estimate: FloatArray) -> list[Panels]:
    """Return the axial slices with the largest mean error in the body, apart from each other."""
    error = np.where(case.body, estimate - case.truth, np.float32(0))
    body = case.body.sum(axis=(0, 1))
    each = np.abs(error).sum(axis=(0, 1), dtype=np.float64) / np.maximum(body, 1)
    each[body < 0.1 * max(int(body.max()), 1)] = 0
    spacing_mm = case.grid.spacing_mm
    apart = max(1, round(APART_MM / spacing_mm[2]))
    worst: list[Panels] = []
    while len(worst) < WORST and each.any():
        k = int(np.argmax(each))
        mm = case.grid.index_to_mm[2, 2] * k + case.grid.index_to_mm[2, 3]
        pictures = {
            f"truth, z {mm:+.0f} mm": _wide(case.truth[:, :, k]),
            "synthesis": _wide(estimate[:, :, k]),
            f"difference, mean {each[k]:.0f} HU": diverging(error[:, :, k]),
        }
        worst.append([(caption, _uri(pixels, spacing_mm, 2)) for caption, pixels in pictures.items()])
        each[max(0, k - apart) : k + apart + 1] = 0
    return worst


def _wide(plane: FloatArray) -> Pixels:
    return window(plane, WIDE)


def _uri(plane: Pixels, spacing_mm: Sequence[float], axis: int) -> str:
    """Return (across, up) or (across, up, colour) grey levels along an axis, as they are looked at, as a data URI."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(plane[::-1, ::-1].swapaxes(0, 1)))
    across, up = (mm for other, mm in enumerate(spacing_mm) if other != axis)
    if abs(across / up - 1) > 0.01:
        finest = min(across, up)
        sides = (picture.width * across, picture.height * up)
        picture = picture.resize([max(1, round(side / finest)) for side in sides])
    return data_uri(png(picture))
