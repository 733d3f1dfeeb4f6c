"""Measure how much of a large mass that both X-rays show comes back in the CT, with and without data consistency.

    python benchmarks/masses.py chest cts/test/ -o benchmarks/results/masses-chest

Each CT of the folder is projected from the model's own views as it is, and with one solid ball (50 HU) in a lung at a
time: `x2ct.evaluation.probe` puts it where the lung is deepest, in its right and left, lower and upper parts, as far
as it fits. The CT from the X-rays with the ball is compared with the CT from those without, of the same seed: the share
is the mean change of HU in the ball's voxels over that of the truth. PSNR and bone Dice of the CTs without a ball say
what a setting costs elsewhere.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import x2ct
from benchmarks.cases import Row, measure, parser
from x2ct.engine.residual import Residual
from x2ct.evaluation.case import Case
from x2ct.evaluation.metrics import bone_dice, psnr
from x2ct.evaluation.probe import LEAST_CHANGE_HU, SHOWN, nodules
from x2ct.geometry import MU_WATER_PER_MM
from x2ct.io.report import markdown_table
from x2ct.render.drr import calibrated

SETTINGS: dict[str, dict[str, Any]] = {
    "mean estimate": {"mean": True},
    "mean estimate, consistency": {"mean": True, "consistency": "last"},
    "sample": {},
    "sample, consistency after the last evaluation": {"consistency": "last"},
    "sample, consistency after each evaluation": {"consistency": "every"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    shared = parser(__doc__)
    shared.add_argument("--diameter", type=float, default=40, help="of the balls, in mm")
    options = shared.parse_args(arguments)
    return measure(options, lambda sampler, case: study(sampler, case, options), markdown)


def study(sampler: x2ct.Sampler, case: Case, options: argparse.Namespace) -> Iterator[Row]:
    """Yield one row for each ball and setting of a patient; a row without a ball is the CT as it is."""
    clean = {name: _run(sampler, case, case.xrays, settings) for name, settings in SETTINGS.items()}
    window = sampler.bundle.intensity.window_hu
    errors = {
        name: [of_size(one.difference, one, options.diameter) for one in run.residuals] for name, run in clean.items()
    }
    for name, run in clean.items():
        row = {"case": case.id, "setting": name, "psnr": psnr(case.truth, run.volume.hu, window)}
        row |= {"dice": bone_dice(case.truth, run.volume.hu), "views": [view.name for view in case.geometry.views]}
        yield row | {"error_mm": [_middle_and_high(np.abs(error)) for error in errors[name]]}
    for ball in nodules(case, options.diameter):
        change = ball.put(case.truth, case.grid.index_to_mm) - case.truth
        where = np.abs(change) >= LEAST_CHANGE_HU
        images = case.project(case.geometry, options.threads, hu=ball.put(case.hu, case.index_to_mm))
        places = [tuple(np.rint(view.to_pixels(ball.centre)[0][::-1]).astype(int)) for view in case.geometry.views]
        for name, settings in SETTINGS.items():
            run = _run(sampler, case, images, settings)
            shown = (run.volume.hu - clean[name].volume.hu)[where].mean() / change[where].mean()
            row = {"case": case.id, "centre_mm": ball.centre.tolist(), "setting": name, "share": float(shown)}
            added, lacking = list[float](), list[float]()
            for view, place in enumerate(places):
                residual, error = run.residuals[view], errors[name][view]
                added.append(of_size(images[view] - case.xrays[view], residual, options.diameter)[place].item())
                with_ball = of_size(residual.difference, residual, options.diameter)
                lacking.append((with_ball - error)[place].item())
            seen = {"added_mm": added, "lacking_mm": lacking}  # nothing where the ball's ray is not judged
            yield row | {key: [mm if np.isfinite(mm) else None for mm in values] for key, values in seen.items()}


def of_size(
    integrals: npt.NDArray[np.float32], residual: Residual, diameter_mm: float
) -> npt.NDArray[np.floating[Any]]:
    """Return means of a picture on a residual's pixels over a disc around each, in mm of water.

    NaN where the residual is not judged; what is not judged does not count.
    """
    from scipy import signal

    down, across = (np.arange(-(r := int(diameter_mm / 2 / pitch)), r + 1) * pitch for pitch in residual.pitch_mm)
    disc = (np.hypot(down[:, None], across) <= diameter_mm / 2).astype(np.float64)
    known = np.isfinite(residual.difference)
    total, weight = (
        signal.fftconvolve(part, disc, mode="same") for part in (np.where(known, integrals, 0.0), known.astype(float))
    )
    return np.where(known, total / np.maximum(weight, 1.0) / MU_WATER_PER_MM, np.nan)


def _run(
    sampler: x2ct.Sampler, case: Case, images: Sequence[npt.NDArray[np.float32]], settings: dict[str, Any]
) -> x2ct.Result:
    return sampler.run(**calibrated(case.geometry, images, case.id), geometry=case.geometry, force=True, **settings)


def _middle_and_high(values: npt.NDArray[np.float64]) -> list[float] | None:
    """Return the median and the 95% quantile of what is known; None where nothing is."""
    judged = values[~np.isnan(values)]
    return np.percentile(judged, (50, 95)).tolist() if judged.size else None


def markdown(rows: Sequence[Row]) -> str:
    """Return one line for each setting."""
    lines = []
    for name in SETTINGS:
        shares = [row["share"] for row in rows if row["setting"] == name and "share" in row]
        clean = [row for row in rows if row["setting"] == name and "psnr" in row]
        half = f"{sum(share >= SHOWN for share in shares)} of {len(shares)}"
        share = f"{np.mean(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})" if shares else "-"
        figures = f"{np.mean([row['psnr'] for row in clean]):.2f}", f"{np.mean([row['dice'] for row in clean]):.3f}"
        lines.append((name, half, share, *figures))
    columns = "estimate", "balls with half of their HU", "share of their HU", "PSNR dB", "bone Dice"
    binds = "patient", "view", "estimate", "ball adds, mm", "CT lacks of it, mm", "residual without a ball, median, 95%"
    return "\n".join([*markdown_table(columns, lines, text=1), "", *markdown_table(binds, binding(rows), text=3), ""])


def binding(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return one line for each patient, view, and estimate without data consistency: see the module."""
    lines = []
    for clean in (row for row in rows if "error_mm" in row and "consistency" not in row["setting"]):
        balls = [
            row
            for row in rows
            if "lacking_mm" in row and (row["case"], row["setting"]) == (clean["case"], clean["setting"])
        ]
        for view, name in enumerate(clean["views"]):
            spans = [
                f"{min(values):.0f} to {max(values):.0f}" if values else "-"
                for values in (
                    [ball[key][view] for ball in balls if ball[key][view] is not None]
                    for key in ("added_mm", "lacking_mm")
                )
            ]
            error = clean["error_mm"][view]
            cell = "-" if error is None else ", ".join(f"{value:.0f}" for value in error)
            lines.append((clean["case"], name, clean["setting"], *spans, cell))
    return lines


if __name__ == "__main__":
    sys.exit(main())
