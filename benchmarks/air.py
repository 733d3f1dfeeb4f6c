"""Measure where the air around the body is not air in a CT: where an X-ray shows that it is, and where none does.

    python benchmarks/air.py chest cts/test/ -o benchmarks/results/air-chest

A voxel is seen to be air if the ray through it has a line integral below 0.03 (1.5 mm of water) in either view, in all
pixels within 3 mm. What is left of the air beside the body lies behind or before it in both views (between arm and
trunk, at the corners of the chest): there the X-rays do not say where the skin is. The standard deviation of HU in
either part, more than 10 mm from the truth's body, tells noise from an outline that is guessed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import x2ct
from benchmarks.cases import Row, measure, parser
from x2ct.evaluation.case import Case
from x2ct.io.report import markdown_table
from x2ct.render.drr import calibrated

AIR = 0.03
AROUND = 5  # pixels, a square about the ray's


def main(arguments: Sequence[str] | None = None) -> int:
    return measure(parser(__doc__).parse_args(arguments), study, markdown)


def study(sampler: x2ct.Sampler, case: Case) -> Iterator[Row]:
    """Yield one row for each estimate of a patient."""
    air, seen = case.landmarks.air, seen_air(case)
    xrays = calibrated(case.geometry, case.xrays, case.id)
    for name in ("mean estimate", "single sample"):
        hu = sampler.run(**xrays, geometry=case.geometry, mean=name == "mean estimate", force=True).volume.hu
        parts = {"all": air, "seen": air & seen, "unseen": air & ~seen}
        stds = {f"std_{part}_hu": float(np.std(hu[where])) for part, where in parts.items()}
        share = float(seen[air].mean())
        wrong = float(seen[case.body].mean())
        yield {"case": case.id, "estimate": name, "seen": share, "body_seen_as_air": wrong, **stds}


def seen_air(case: Case) -> npt.NDArray[np.bool_]:
    """Return, for each voxel of the grid, whether either X-ray shows that its ray meets nothing but air."""
    from scipy import ndimage

    index = np.stack(np.meshgrid(*(np.arange(n) for n in case.grid.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    points = index @ case.grid.index_to_mm[:3, :3].T + case.grid.index_to_mm[:3, 3]
    lowest = np.full(len(points), np.inf)
    for view, image in zip(case.geometry.views, case.xrays, strict=True):
        columns, rows = view.to_pixels(points)[0].T
        thickest = ndimage.maximum_filter(image, AROUND)
        shown = ndimage.map_coordinates(thickest, [rows, columns], order=1, cval=np.inf)
        lowest = np.minimum(lowest, shown)
    return np.asarray((lowest < AIR).reshape(case.grid.shape))


def markdown(rows: Sequence[Row]) -> str:
    """Return one line for each case and estimate."""
    lines = []
    for row in rows:
        stds = (f"{row[f'std_{part}_hu']:.1f}" for part in ("all", "seen", "unseen"))
        lines.append((row["case"], row["estimate"], *stds, f"{row['seen']:.0%}"))
    columns = "case", "estimate", "all air, HU", "seen to be air, HU", "not seen, HU", "share of air seen"
    return "\n".join([*markdown_table(columns, lines, text=2), ""])


if __name__ == "__main__":
    sys.exit(main())
