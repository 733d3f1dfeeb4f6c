"""What data consistency is worth: re-projection error and PSNR of samples with and without it.

    python benchmarks/consistency.py chest --shards shards/ --test cts/test/ -o benchmarks/results/consistency-chest

X-rays are projected from the whole CT at its own resolution, once clean and once with photon noise and 2% scatter. The
strength gamma and when to pull are chosen on the shards' validation patients, by PSNR over both kinds of X-rays; test
patients are reported with what was chosen. Re-projection error is against the clean X-rays, along the rays that the
grid truly contains.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import x2ct
from x2ct import _core
from x2ct.data import ShardSet
from x2ct.data.prepare import find_cts
from x2ct.errors import InputError, X2CTError
from x2ct.evaluation import metrics
from x2ct.evaluation.case import OUTSIDE, Case, case_of, make_case
from x2ct.geometry import Geometry, attenuation, project
from x2ct.io import report
from x2ct.io.xray import degradation
from x2ct.render.drr import calibrated

FloatArray = npt.NDArray[np.float32]
Setting = tuple[str, float | None]

PHOTONS = 1e5  # a pixel, before the body
SCATTER = 0.02  # of the primary, spread by a Gaussian
SCATTER_MM = 50.0
OFF: Setting = ("off", None)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        table = run(options)
    except X2CTError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(markdown(table))
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    sampler = x2ct.Sampler(options.bundle, precision=options.precision, threads=options.threads)
    grid, geometry = sampler.bundle.grid, sampler.bundle.geometry
    shards = ShardSet.open(options.shards)
    settings = [OFF, *((when, gamma) for when in ("last", "every") for gamma in options.gamma)]
    table: dict[str, Any] = {
        "model": sampler.bundle.name,
        "sha256": sampler.bundle.checksum,
        "precision": options.precision,
        "seeds": options.seeds,
        "chosen": None,
        "rows": [],
    }

    def add(split: str, found: Iterator[dict[str, Any]]) -> None:
        for row in found:
            table["rows"].append(row | {"split": split})
            write(table, options.output)  # each, so that a run that is cut short leaves what it had

    for patient in shards.select("validation"):
        case = case_of(patient.id, np.asarray(patient.hu()), patient.index_to_mm, grid, geometry)
        add("validation", study(sampler, case, settings, options.seeds))
    if not table["rows"]:
        raise InputError.of(options.shards, "patients", found="none for validation", expected="at least one")
    best = chosen(table["rows"])
    table["chosen"] = {"when": best[0], "gamma": best[1]}
    cone = Geometry.cone([view.name for view in geometry.views], shape=geometry.views[0].shape)
    for split, views in (("test", None), ("test, cone beam", cone))[: 2 if options.cone else 1]:
        for name, path in find_cts(options.test).items():
            if not options.case or name in options.case:
                case = make_case(path, grid, views or geometry)
                add(split, study(sampler, case, [OFF, best], options.seeds, views))
    return table


def study(
    sampler: x2ct.Sampler,
    case: Case,
    settings: Sequence[Setting],
    seeds: int,
    geometry: Geometry | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one patient's rows: each kind of X-rays with each setting, figures averaged over seeds."""
    for kind, images in (("clean", case.xrays), ("noise, scatter", worsened(case))):
        sampler.set_xrays(**calibrated(case.geometry, images, case.id), geometry=geometry, force=True)
        for when, gamma in settings:
            runs = [figures(sampler, case, sampler.run(seed=s, consistency=when, gamma=gamma)) for s in range(seeds)]
            row = {"person": case.id, "xrays": kind, "when": when, "gamma": gamma, **averaged(runs)}
            if when != "off":
                row["truly_within"] = truly_within(case, images)
            _say(row)
            yield row


def figures(sampler: x2ct.Sampler, case: Case, result: x2ct.Result) -> dict[str, Any]:
    """PSNR, MAE, re-projection errors by view, and consistency's share of the loop's time."""
    window = sampler.bundle.intensity.window_hu
    hu, timings = result.volume.hu, result.report["timings"]
    mae = metrics.mae_hu(case.truth, hu, case.body, window)
    found = {
        "psnr_db": metrics.psnr(case.truth, hu, window),
        "mae_hu": mae["all"],
        "mae_body_hu": mae["body"],
        "bone_dice": metrics.bone_dice(case.truth, hu),
        "share_of_time": timings["consistency_s"] / timings["loop_s"],
    }
    mu = attenuation(np.clip(hu, *window))
    for view, image, contained in zip(case.geometry.views, case.xrays, case.contained, strict=True):
        rays = contained & (image > OUTSIDE)
        again = project(mu, case.grid.index_to_mm, view)
        found[f"reprojection_{view.name}"] = metrics.reprojection_error(image, again, rays)
    for view in result.report["consistency"].get("views", []):
        found[f"rays_{view['view']}"] = view["rays"]
    return found


def truly_within(case: Case, images: Sequence[FloatArray]) -> dict[str, float]:
    """Return the share of the rays through the body that count along which all of the patient lies in the grid."""
    views: list[_core.MeasuredView] = [
        (view.name, view.matrix, image, np.ones(image.shape, np.bool_), True)
        for view, image in zip(case.geometry.views, images, strict=True)
    ]
    found = {}
    within = _core.rays_within(case.grid.shape, case.grid.index_to_mm, views)
    for (name, *_), counts, truth, image in zip(views, within, case.contained, case.xrays, strict=True):
        body = counts & (image > OUTSIDE)
        found[name] = float((body & truth).sum() / max(1, body.sum()))
    return found


def worsened(case: Case) -> tuple[FloatArray, ...]:
    """Return the X-rays with photon noise and scatter, 2% of the primary spread by a Gaussian of 50 mm; uncorrected."""
    random = np.random.default_rng(0)
    images = []
    for view, image in zip(case.geometry.views, case.xrays, strict=True):
        down, across = view.spacing_mm
        scattered = degradation.scatter(image, SCATTER, (SCATTER_MM / down, SCATTER_MM / across))
        images.append(degradation.poisson_noise(scattered, PHOTONS, random))
    return tuple(images)


def chosen(rows: Sequence[dict[str, Any]]) -> Setting:
    """Return the setting with the highest PSNR, averaged over patients and kinds of X-rays; it may not be "off"."""
    scores: dict[Setting, list[float]] = {}
    for row in rows:
        if row["when"] != "off":
            scores.setdefault((row["when"], row["gamma"]), []).append(row["psnr_db"])
    return max(scores, key=lambda setting: float(np.mean(scores[setting])))


def write(table: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "consistency.json").write_text(json.dumps(table, indent=1) + "\n")
    (folder / "consistency.md").write_text(markdown(table))


def averaged(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}


def markdown(table: dict[str, Any]) -> str:
    best = table["chosen"]
    choice = (
        f"Chosen on validation patients: {best['when']}, gamma {best['gamma']:g}." if best else "Nothing chosen yet."
    )
    model = f"{table['model']} ({table['sha256'][:12]})"
    lines = [
        f"Model {model}, {table['precision']}, samples a row: {table['seeds']}. {choice}",
        "",
    ]
    columns = ["person", "X-rays", "consistency", "gamma", "PSNR dB", "MAE body", "bone Dice", "re-projection", "rays"]
    columns += ["truly within", "share of time"]
    rows = []
    views: list[str] = []
    for row in table["rows"]:
        views = [key.removeprefix("reprojection_") for key in row if key.startswith("reprojection_")]
        off = row["when"] == "off"
        cells = [
            f"{row['person']} ({row['split']})",
            row["xrays"],
            row["when"],
            "" if off else f"{row['gamma']:g}",
            f"{row['psnr_db']:.2f}",
            f"{row['mae_body_hu']:.0f}",
            f"{row['bone_dice']:.3f}",
            ", ".join(f"{row[f'reprojection_{view}']:.3f}" for view in views),
            "" if off else ", ".join(f"{row[f'rays_{view}']:.0%}" for view in views),
            "" if off else ", ".join(f"{row['truly_within'][view]:.1%}" for view in views),
            "" if off else f"{row['share_of_time']:.1%}",
        ]
        rows.append(cells)
    lines += [
        *report.markdown_table(columns, rows, text=3),
        "",
        f"Where there are two figures: {', '.join(views)}. Re-projection is the root mean square against the clean "
        "X-rays, a line integral, along rays that the grid truly contains; rays, the share that counted of those that "
        "meet body and grid; truly within, of those that counted, the share that deserved it.",
        "",
    ]
    return "\n".join(lines)


def _say(row: dict[str, Any]) -> None:
    told = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
    print(time.strftime("%H:%M:%S"), told, file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a bundle's folder or name")
    parser.add_argument("--shards", type=Path, required=True, help="shards with the validation patients")
    parser.add_argument("--test", type=Path, required=True, help="a folder of test CTs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="consistency.json and consistency.md go here")
    parser.add_argument("--gamma", type=float, nargs="+", default=[1, 3, 10], help="strengths to choose from")
    parser.add_argument("--seeds", type=int, default=1, help="samples a row")
    parser.add_argument("--case", action="append", help="only this test patient; may be repeated")
    parser.add_argument("--cone", action="store_true", help="test patients in a cone beam too")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
