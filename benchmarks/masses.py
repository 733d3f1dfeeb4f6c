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
from x2ct.evaluation.case import Case
from x2ct.evaluation.metrics import bone_dice, psnr
from x2ct.evaluation.probe import LEAST_CHANGE_HU, SHOWN, nodules
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
    clean = {name: _volume(sampler, case, case.xrays, settings) for name, settings in SETTINGS.items()}
    window = sampler.bundle.intensity.window_hu
    for name, hu in clean.items():
        yield {
            "case": case.id,
            "setting": name,
            "psnr": psnr(case.truth, hu, window),
            "dice": bone_dice(case.truth, hu),
        }
    for ball in nodules(case, options.diameter):
        change = ball.put(case.truth, case.grid.index_to_mm) - case.truth
        where = np.abs(change) >= LEAST_CHANGE_HU
        images = case.project(case.geometry, options.threads, hu=ball.put(case.hu, case.index_to_mm))
        for name, settings in SETTINGS.items():
            shown = (_volume(sampler, case, images, settings) - clean[name])[where].mean() / change[where].mean()
            yield {"case": case.id, "centre_mm": ball.centre.tolist(), "setting": name, "share": float(shown)}


def _volume(
    sampler: x2ct.Sampler, case: Case, images: Sequence[npt.NDArray[np.float32]], settings: dict[str, Any]
) -> npt.NDArray[np.float32]:
    return sampler.run(
        **calibrated(case.geometry, images, case.id), geometry=case.geometry, force=True, **settings
    ).volume.hu


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
    return "\n".join([*markdown_table(columns, lines, text=1), ""])


if __name__ == "__main__":
    sys.exit(main())
