"""Measure what `--align` recovers of a lateral X-ray that shows the patient higher or lower than the frontal one does.

    python benchmarks/align.py chest cts/test/ -o benchmarks/results/align-chest

Each CT of the folder is projected from the model's own views and from cone beams, as it is and with the patient moved
along z in the lateral alone, of which the model is not told. `x2ct.engine.align` finds the offset from the images. The
mean estimate is taken with the geometry as told and as aligned. Heights are relative: where both views show the patient
10 mm higher, the CT is 10 mm higher too, rightly, and nothing in the images says that the patient should lie elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import x2ct
from benchmarks.cases import Row, measure, parser
from x2ct.engine.align import heights, raised
from x2ct.evaluation.case import Case
from x2ct.evaluation.conditions import Condition, cone, png, shifted
from x2ct.evaluation.metrics import psnr
from x2ct.geometry import Geometry, View
from x2ct.io.report import markdown_table

MOVES_MM = 0.0, 10.0, -25.0
TOLD = {
    "the model's own": (lambda geometry: geometry, ()),
    "cone beams, SOD 1500 and SDD 1800 mm": (cone(1500, 1800), ()),
    "the model's own, 8-bit pictures": (lambda geometry: geometry, (png,)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__).parse_args(arguments)

    def study(sampler: x2ct.Sampler, case: Case) -> Iterator[Row]:
        for name in TOLD:
            for move in MOVES_MM:
                yield _row(sampler, case, name, move, options.threads)

    return measure(options, study, markdown)


def _row(sampler: x2ct.Sampler, case: Case, name: str, move_mm: float, threads: int) -> Row:
    views, exposures = TOLD[name]
    geometry = views(case.geometry)
    taken = Condition(name, name, lambda _: shifted(move_mm, ["lateral"])(geometry), exposures=exposures)
    xrays, _ = taken.take(case, threads)
    ordered = [xrays[view.name] for view in geometry.views]
    height = heights(np.stack([x.image for x in ordered]), np.stack([view.matrix for view in geometry.views]))
    frontal, lateral = geometry.views
    aligned = View(lateral.name, raised(lateral.matrix, height.offset_mm), lateral.shape, lateral.spacing_mm)
    window = sampler.bundle.intensity.window_hu

    def score(views_taken: Geometry) -> float:
        return psnr(case.truth, sampler.run(**xrays, geometry=views_taken, mean=True, force=True).volume.hu, window)

    return {
        "case": case.id,
        "views": name,
        "moved_mm": move_mm,
        "offset_mm": height.offset_mm,
        "correlation": height.correlation,
        "psnr_told": score(geometry),
        "psnr_aligned": score(Geometry((frontal, aligned))),
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return one line for each kind of views and each shift, means over patients."""
    lines = []
    for name in TOLD:
        reference = np.mean([r["psnr_told"] for r in rows if r["views"] == name and r["moved_mm"] == 0])
        for move in MOVES_MM:
            mine = [r for r in rows if r["views"] == name and r["moved_mm"] == move]
            off = max(abs(r["offset_mm"] - move) for r in mine)
            told, aligned = (np.mean([r[key] for r in mine]) for key in ("psnr_told", "psnr_aligned"))
            lost = reference - told
            recovered = f"{(aligned - told) / lost:.0%}" if move and lost > 0 else "-"
            least = min(r["correlation"] for r in mine)
            cells = f"{off:.1f}", f"{least:.2f}", f"{told:.2f}", f"{aligned:.2f}", recovered
            lines.append((name, f"{move:g}", *cells))
    columns = (
        "views",
        "moved, mm",
        "largest error, mm",
        "least correlation",
        "PSNR as told",
        "PSNR aligned",
        "recovered",
    )
    return "\n".join([*markdown_table(columns, lines, text=1), ""])


if __name__ == "__main__":
    sys.exit(main())
