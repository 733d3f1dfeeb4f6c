"""Measure where the air around the body is not air in a CT: where an X-ray shows that it is, and where none does.

    python benchmarks/air.py chest cts/test/ -o benchmarks/results/air-chest

A voxel is seen to be air if the ray through it has a line integral below 0.03 (1.5 mm of water) in either view, in all
pixels within 3 mm. What is left of the air beside the body lies behind or before it in both views (between arm and
trunk, at the corners of the chest): there the X-rays do not say where the skin is. The standard deviation of HU in
either part, more than 10 mm from the truth's body, tells noise from an outline that is guessed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import x2ct
from x2ct.data.prepare import find_cts
from x2ct.errors import X2CTError
from x2ct.evaluation.case import Case, make_case
from x2ct.io.report import markdown_table
from x2ct.render.drr import calibrated

Row = dict[str, Any]
AIR = 0.03
AROUND = 5  # pixels, a square about the ray's


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    sampler = x2ct.Sampler(options.bundle, precision=options.precision, threads=options.threads)
    rows: list[Row] = []
    try:
        for path in find_cts(options.cts).values():
            case = make_case(path, sampler.grid, sampler.bundle.geometry, threads=options.threads)
            air, seen = case.landmarks.air, seen_air(case)
            xrays = calibrated(case.geometry, case.xrays, case.id)
            for name in ("mean estimate", "single sample"):
                hu = sampler.run(**xrays, geometry=case.geometry, mean=name == "mean estimate").volume.hu
                parts = {"all": air, "seen": air & seen, "unseen": air & ~seen}
                stds = {f"std_{part}_hu": float(np.std(hu[where])) for part, where in parts.items()}
                share = float(seen[air].mean())
                wrong = float(seen[case.body].mean())
                rows.append({"case": case.id, "estimate": name, "seen": share, "body_seen_as_air": wrong, **stds})
    except X2CTError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(markdown(rows))
    print(markdown(rows))
    return 0


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


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a bundle's folder or name")
    parser.add_argument("cts", type=Path, help="a folder of CTs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix, of .json and .md")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
