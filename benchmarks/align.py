"""Measure what `--align` recovers where two X-rays show a patient otherwise than told, and what no image can recover.

    python benchmarks/align.py chest cts/test/ -o benchmarks/results/align-chest

Each CT of the folder is projected from the model's own views, from cone beams, and from the model's own with scatter
and photon noise as 8-bit pictures; as told, and with the patient at another height, in another size (another distance
from the source) or turned in one picture. The mean estimate is taken as told and with `--align`; the share is of the
PSNR lost that comes back. RMS is the CT's residual as told, in mm of water: what its re-projection shows of the error.

A second table has errors that two images do not determine (see `x2ct.engine.align`): the patient at another height, in
another size or farther to the side in both views, or views from another angle. There `--align` finds next to nothing,
and the PSNR is also taken against the CT as it was projected, moved and scaled: what is not lost there was never wrong.

A patient takes 20 pairs of runs; `--errors "as told" "10 mm higher"` are some of them, of a short try.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import x2ct
from benchmarks.cases import Row, means_by_view, measure, parser
from x2ct.data.shards import resample_array
from x2ct.engine.align import Pose, align
from x2ct.evaluation.case import Case
from x2ct.evaluation.conditions import Exposure, Views, cone, noise, png, scatter, turned
from x2ct.evaluation.metrics import psnr
from x2ct.geometry import Geometry, View
from x2ct.io.report import markdown_table
from x2ct.io.xray.radiograph import XRay

TOLD: Mapping[str, tuple[Views, tuple[Exposure, ...]]] = {
    "the model's own": (lambda geometry: geometry, ()),
    "cone beams, SOD 1500 and SDD 1800 mm": (cone(1500, 1800), ()),
    "8-bit pictures, scatter 10%, 100 000 photons": (lambda geometry: geometry, (scatter(0.1), noise(1e5), png)),
}
OWN = next(iter(TOLD))


@dataclass(frozen=True, eq=False)
class Error:
    """The way in which the pictures show the patient otherwise than stated.

    Attributes:
        poses: of the frontal and the lateral picture.
        patient: 4x4, by which the patient is moved and scaled, in both; None for not at all.
        degrees: by which the frontal view is turned about the patient's axis, and the lateral one the other way.
        determined: whether two images tell.
        everywhere: whether it is tried with all kinds of views.
    """

    poses: tuple[Pose, Pose] = (Pose(), Pose())
    patient: npt.NDArray[np.float64] | None = None
    degrees: float = 0.0
    determined: bool = True
    everywhere: bool = True


def _moved(x: float = 0.0, y: float = 0.0, z: float = 0.0, size: float = 1.0) -> npt.NDArray[np.float64]:
    patient = np.diag([size, size, size, 1.0])
    patient[:3, 3] = x, y, z
    return patient


AS_TOLD = "as told"
ERRORS: Mapping[str, Error] = {
    AS_TOLD: Error(),
    "lateral 10 mm higher": Error((Pose(), Pose(10.0))),
    "lateral 25 mm lower": Error((Pose(), Pose(-25.0)), everywhere=False),
    "lateral 5% larger": Error((Pose(), Pose(size=1.05))),
    "lateral turned by 3 degrees": Error((Pose(), Pose(turn_deg=3.0)), everywhere=False),
    "frontal turned by 3 degrees": Error((Pose(turn_deg=3.0), Pose()), everywhere=False),
    "frontal turned by 3 degrees, lateral by -2, 12 mm lower and 5% smaller": Error(
        (Pose(turn_deg=3.0), Pose(-12.0, 0.95, -2.0))
    ),
    "both 10 mm higher": Error(patient=_moved(z=10.0), determined=False),
    "frontal 10 mm to the side": Error(patient=_moved(x=10.0), determined=False),
    "lateral 10 mm to the side": Error(patient=_moved(y=10.0), determined=False),
    "both 5% larger": Error(patient=_moved(size=1.05), determined=False),
    "each from 5 degrees to its side": Error(degrees=5.0, determined=False),
}


def main(arguments: Sequence[str] | None = None) -> int:
    shared = parser(__doc__)
    shared.add_argument("--errors", nargs="+", choices=ERRORS, default=list(ERRORS), metavar="NAME", help="by name")
    options = shared.parse_args(arguments)

    def study(sampler: x2ct.Sampler, case: Case) -> Iterator[Row]:
        for views in TOLD:
            for name in options.errors:
                if views == OWN or (ERRORS[name].determined and ERRORS[name].everywhere):
                    yield _row(sampler, case, views, name, options.threads)

    return measure(options, study, markdown)


def _row(sampler: x2ct.Sampler, case: Case, views: str, name: str, threads: int) -> Row:
    change, exposures = TOLD[views]
    told, error = change(case.geometry), ERRORS[name]
    patient = np.eye(4) if error.patient is None else error.patient
    taken = [
        View(view.name, pose.matrix(view.matrix @ patient), view.shape, view.spacing_mm)
        for view, pose in zip(turned(error.degrees)(told).views, error.poses, strict=True)
    ]
    images = case.xrays if views == OWN and name == AS_TOLD else case.project(Geometry(tuple(taken)), threads)
    xrays: dict[str, Any] = {}
    for number, (view, image) in enumerate(zip(told.views, images, strict=True)):
        rng = np.random.default_rng([0, number])
        for exposure in exposures:
            image = exposure(image, view, rng)
        xrays[view.name] = XRay.of(image, view.spacing_mm, source=case.id, view=view.name)
    both = [xrays[view.name] for view in told.views]
    alignment = align(
        [one.image for one in both], [view.matrix for view in told.views], all(x.calibrated for x in both)
    )
    window = sampler.bundle.intensity.window_hu
    results = [sampler.run(**xrays, geometry=told, mean=True, force=True, align=aligned) for aligned in (False, True)]
    there = case.truth if error.patient is None else resample_array(case.hu, patient @ case.index_to_mm, case.grid)
    rms = [(residual.figures() or {}).get("rms_mm_water") for residual in results[0].residuals]
    return {
        "case": case.id,
        "views": views,
        "error": name,
        "found": [*alignment.lateral, alignment.frontal.turn_deg],
        "expected": [*error.poses[1], error.poses[0].turn_deg],
        "correlation": alignment.correlation,
        "whole": alignment.whole,
        "rms_mm": rms,
        "psnr_told": psnr(case.truth, results[0].volume.hu, window),
        "psnr_aligned": psnr(case.truth, results[1].volume.hu, window),
        "psnr_there": psnr(there, results[0].volume.hu, window),
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return a line for each kind of views and error, means over patients: what is determined, and what is not."""
    determined, open_ = list[tuple[str, ...]](), list[tuple[str, ...]]()
    for views, name in dict.fromkeys((row["views"], row["error"]) for row in rows):
        mine = [row for row in rows if (row["views"], row["error"]) == (views, name)]
        usual = [row["psnr_told"] for row in rows if (row["views"], row["error"]) == (views, AS_TOLD)]
        told, aligned, there = (
            float(np.mean([row[key] for row in mine])) for key in ("psnr_told", "psnr_aligned", "psnr_there")
        )
        rms = " and ".join(means_by_view(row["rms_mm"] for row in mine))
        lost = float(np.mean(usual)) - told if usual and name != AS_TOLD else 0.0
        off = np.abs(np.array([row["found"] for row in mine]) - [row["expected"] for row in mine]).max(axis=0)
        worst = f"{off[0]:.1f} mm, {off[1]:.1%}, {off[2]:.1f} and {off[3]:.1f}"
        figures = f"{told:.2f}", f"{aligned:.2f}"
        if ERRORS[name].determined:
            back = f"{(aligned - told) / lost:.0%}" if lost > 0 else "-"
            whole = f"{sum(row['whole'] for row in mine)} of {len(mine)}"
            least = f"{min(row['correlation'] for row in mine):.3f}"
            determined.append((views, name, worst, whole, least, rms, *figures, back))
        else:
            open_.append((name, worst, rms, *figures, f"{there:.2f}", f"{np.mean(usual):.2f}" if usual else "-"))
    columns = (
        "views",
        "error",
        "largest error of height, size, turns in degrees",
        "size and turns found",
        "least correlation",
        "RMS as told, mm",
        "PSNR as told",
        "PSNR aligned",
        "recovered",
    )
    lines = markdown_table(columns, determined, text=2)
    if open_:
        shown = "error", columns[2], *columns[5:8], "PSNR against the CT as projected", "PSNR without the error"
        lines += ["", "Errors that two images do not determine:", "", *markdown_table(shown, open_, text=1)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
