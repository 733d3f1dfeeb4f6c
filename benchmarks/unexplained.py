"""Measure the map of unexplained attenuation: synthetic lesions that a CT lacks against false alarms per study.

    python benchmarks/unexplained.py chest shards/ -o benchmarks/results/unexplained-chest
    python benchmarks/unexplained.py chest cts/test/ -o benchmarks/results/unexplained-chest-test

Each CT is projected from the model's own views and sampled, as it is and with a ball in the lung, one at a time: HU are
added where the ball's voxels are lung (below -200 HU). Balls lie where the lung is deepest, at the chest wall, behind
the heart, and then where the other quarters of the lungs are deepest. A ball is found at a threshold if either view has
an area of unexplained attenuation (`x2ct.engine.residual`) of at least that excess whose centre lies within the ball's
disc, 5 mm added; each area of the CT as it is that reaches the threshold is a false alarm. Places of balls in the CT as
it is give what is found by chance. `WARNS_MM` is chosen on shards' validation patients; test patients are reported.

A patient takes `--seeds` samples and one for each site, diameter and rise (by default 4 + 3 x 5 x 1 = 19); only a
ball's own box is projected. With `--seeds 1 --sites 1 --diameters 40` it takes two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import x2ct
from benchmarks.cases import Row, means_by_view, measure, parser
from x2ct.engine.residual import WARNS_MM, Area
from x2ct.evaluation.case import Case
from x2ct.evaluation.probe import deepest, lungs
from x2ct.geometry import MU_WATER_PER_MM, Image, attenuation, project
from x2ct.io.report import markdown_table
from x2ct.render.drr import calibrated

LUNG_HU = -200.0
MARGIN_MM = 5.0
WALL_MM = 5.0
"""How deep in the lung the middle of a ball at the chest wall, or behind the heart, lies at least."""
LEVEL_MM, HEART_MM = 20.0, 50.0
"""How far in height from the deepest place the other two are sought."""


def main(arguments: Sequence[str] | None = None) -> int:
    shared = parser(__doc__)
    shared.add_argument("--diameters", type=float, nargs="+", default=[10, 20, 30, 40, 50], help="of balls, in mm")
    shared.add_argument("--rises", type=float, nargs="+", default=[900], help="HU that are added; 900 is a solid mass")
    shared.add_argument("--sites", type=int, default=3, help="places a patient, at most 6")
    shared.add_argument("--seeds", type=int, default=4, help="samples of each CT as it is")
    shared.add_argument("--thresholds", type=float, nargs="+", default=[5, 10, 15, 20, 25, 30, 35, 40, 50])
    options = shared.parse_args(arguments)
    return measure(
        options, lambda sampler, case: study(sampler, case, options), lambda rows: markdown(rows, options.thresholds)
    )


def study(sampler: x2ct.Sampler, case: Case, options: argparse.Namespace) -> Iterator[Row]:
    """Yield one patient's rows: the CT as it is, each seed; then with each ball, the first seed."""
    for seed in range(options.seeds):
        yield {"case": case.id, "seed": seed, **sampled(sampler, case, case.xrays, seed)}
    for site, centre in list(sites(case).items())[: options.sites]:
        places = [place(case, view, centre, sampler) for view in range(len(case.geometry.views))]
        for diameter in options.diameters:
            for rise in options.rises:
                added = shadows(case, centre, diameter, rise, options.threads)
                shown = [float(shadow.max() / MU_WATER_PER_MM) for shadow in added]
                ball = {"site": site, "diameter_mm": diameter, "rise_hu": rise, "places_mm": places, "shown_mm": shown}
                images = [image + shadow for image, shadow in zip(case.xrays, added, strict=True)]
                yield {"case": case.id, "ball": ball, **sampled(sampler, case, images, 0)}


def sites(case: Case) -> dict[str, npt.NDArray[np.float64]]:
    """Return places of balls, in patient mm, by name; the first are the most telling."""
    from scipy import ndimage

    first, *others = deepest(case)
    mask = lungs(case)
    assert mask is not None  # or there was no deepest place
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), case.grid.spacing_mm)[1:-1, 1:-1, 1:-1]
    points = case.grid.index_to_mm[:3, :3] @ np.argwhere(depth >= WALL_MM).T + case.grid.index_to_mm[:3, 3:]
    level = points[:, np.abs(points[2] - first[2]) < LEVEL_MM]
    wall = level[:, np.abs(level[0]).argmax()]
    # The heart is the most soft tissue that has lung behind it and in front of it.
    tissue = (case.truth > LUNG_HU) & case.body & (mask[:, ::-1].cumsum(axis=1)[:, ::-1] > 0)
    left, _, high = case.grid.coordinates() * np.float32(100)
    inner = (depth >= WALL_MM) & (left < 0) & (np.abs(high - first[2]) < HEART_MM)  # the heart, not the diaphragm
    before = np.where(inner, tissue[:, ::-1].cumsum(axis=1)[:, ::-1], -1)
    heart = np.asarray(np.unravel_index(int(before.argmax()), before.shape))
    behind = case.grid.index_to_mm[:3, :3] @ heart + case.grid.index_to_mm[:3, 3]
    return {"deepest": first, "chest wall": wall, "behind the heart": behind} | {
        f"quarter {number + 2}": place for number, place in enumerate(others)
    }


def sampled(sampler: x2ct.Sampler, case: Case, images: Sequence[Image], seed: int) -> Row:
    """Sample from X-rays of a case; return the areas and figures of each view's residual."""
    result = sampler.run(**calibrated(case.geometry, images, case.id), seed=seed, force=True)
    figures = [residual.figures() or {} for residual in result.residuals]
    return {
        "areas": [[asdict(area) for area in residual.areas] for residual in result.residuals],
        "rms_mm": [figure.get("rms_mm_water") for figure in figures],
        "mean_mm": [figure.get("mean_mm_water") for figure in figures],
        "share_of_loop": result.report["timings"]["residual_s"] / result.report["timings"]["loop_s"],
    }


def shadows(
    case: Case, centre: npt.NDArray[np.float64], diameter_mm: float, rise_hu: float, threads: int
) -> list[Image]:
    """Return what a ball adds to each X-ray: HU where it is lung, its edge soft by a voxel; projections are linear."""
    pitch = np.linalg.norm(case.index_to_mm[:3, :3], axis=0)
    middle = np.linalg.inv(case.index_to_mm)[:3] @ np.append(centre, 1.0)
    reach = (diameter_mm / 2 + 2 * pitch.max()) / pitch
    low = np.clip(np.floor(middle - reach), 0, case.hu.shape).astype(int)
    high = np.clip(np.ceil(middle + reach) + 1, 0, case.hu.shape).astype(int)
    hu = np.asarray(case.hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], np.float32)
    index = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1)
    distance = np.linalg.norm((index - middle) @ case.index_to_mm[:3, :3].T, axis=-1)
    share = np.clip((diameter_mm / 2 - distance) / pitch.max() + 0.5, 0, 1)
    with_ball = hu + np.where(hu < LUNG_HU, share * rise_hu, 0).astype(np.float32)
    affine = case.index_to_mm.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    added = attenuation(with_ball) - attenuation(hu)
    return [project(added, affine, view, threads) for view in case.geometry.views]


def place(case: Case, view: int, centre: npt.NDArray[np.float64], sampler: x2ct.Sampler) -> tuple[float, float]:
    """Return where a view shows a point: mm from the X-ray's middle at the isocentre, to the right and downwards."""
    seen = case.geometry.views[view]
    pixels = seen.to_pixels(centre)[0]
    rows, columns = seen.shape
    down, across = sampler.bundle.xray.spacing_mm
    return float((pixels[0] - (columns - 1) / 2) * across), float((pixels[1] - (rows - 1) / 2) * down)


def best(row: Row, ball: Row) -> float:
    """Return the highest excess of the areas at a ball's place, in mm of water; 0 without one."""
    excess = 0.0
    for areas, (across, down) in zip(row["areas"], ball["places_mm"], strict=True):
        for area in (Area(**fields) for fields in areas):
            if np.hypot(area.across_mm - across, area.down_mm - down) <= ball["diameter_mm"] / 2 + MARGIN_MM:
                excess = max(excess, area.excess_mm)
    return excess


def markdown(rows: Sequence[Row], thresholds: Sequence[float]) -> str:
    """Sensitivity by ball against false alarms per study, one row a threshold."""
    clean = [row for row in rows if "ball" not in row]
    balls = [row for row in rows if "ball" in row]
    kinds = sorted({(row["ball"]["diameter_mm"], row["ball"]["rise_hu"]) for row in balls})
    columns = ["excess of, mm of water", "false alarms a study", "studies with one", "by chance"]
    columns += [f"{diameter:g} mm +{rise:g} HU" for diameter, rise in kinds]
    table = []
    for threshold in thresholds:
        alarms = [sum(a["excess_mm"] >= threshold for view in row["areas"] for a in view) for row in clean]
        chance = [
            best(row, other["ball"]) >= threshold for other in balls for row in clean if row["case"] == other["case"]
        ]
        cells = [
            f"{threshold:g}",
            f"{np.mean(alarms):.1f}" if clean else "",
            f"{sum(n > 0 for n in alarms)}/{len(clean)}",
        ]
        cells.append(f"{np.mean(chance):.0%}" if chance else "")
        for kind in kinds:
            mine = [r for r in balls if (r["ball"]["diameter_mm"], r["ball"]["rise_hu"]) == kind]
            cells.append(f"{sum(best(row, row['ball']) >= threshold for row in mine)}/{len(mine)}")
        table.append(cells)
    diameters = sorted({row["ball"]["diameter_mm"] for row in balls})
    by_site = []
    for site in dict.fromkeys(row["ball"]["site"] for row in balls):
        mine = [row for row in balls if row["ball"]["site"] == site]
        hits = [[best(r, r["ball"]) > WARNS_MM for r in mine if r["ball"]["diameter_mm"] == d] for d in diameters]
        by_site.append([site, *(f"{sum(some)}/{len(some)}" for some in hits)])
    highest = max((a["excess_mm"] for row in clean for view in row["areas"] for a in view), default=0.0)
    shares = [row["share_of_loop"] for row in rows]
    patients = len({row["case"] for row in rows})
    mean, rms = (", ".join(means_by_view(row[key] for row in clean)) for key in ("mean_mm", "rms_mm"))
    lines = [
        *markdown_table(columns, table, text=0),
        "",
        f"Warned of, above {WARNS_MM:g} mm of water, by place and diameter, all rises of HU together:",
        "",
        *markdown_table(["place", *(f"{diameter:g} mm" for diameter in diameters)], by_site, text=1),
        "",
        f"{patients} patients, {len(clean)} samples of CTs as they are, {len(balls)} of CTs with a ball. The highest "
        f"excess in CTs as they are is {highest:.1f} mm of water. Residual of CTs as they are, by view: mean {mean}, "
        f"root mean square {rms} mm of water. Projecting and comparing took {np.mean(shares):.0%} of the time of the "
        "sampling loop.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
