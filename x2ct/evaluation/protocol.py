"""The protocol: test people, predictions by any system, and the table that puts them side by side.

A `Case` is a test person: the truth on the grid and X-rays projected from the whole CT at its own resolution, the body
taken out and centred exactly as `prepare` does. `evaluate` scores named predictions on it; `summarise` makes the table.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct import output
from x2ct.data.body import body_mask
from x2ct.data.prepare import PrepareOptions, read_body
from x2ct.data.shards import resample_array
from x2ct.evaluation import metrics
from x2ct.geometry import Geometry, attenuation, project
from x2ct.grid import Grid

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

SCHEMA = 1
OUTSIDE = 0.02
"""A ray is contained in the grid if no more than this line integral (1 mm of water) lies outside of it."""

COLUMNS = (
    ("psnr_db", "PSNR dB", ".2f"),
    ("ssim", "SSIM", ".3f"),
    ("mae_hu.all", "MAE all", ".0f"),
    ("mae_hu.body", "body", ".0f"),
    ("mae_hu.lung", "lung", ".0f"),
    ("mae_hu.soft", "soft", ".0f"),
    ("mae_hu.bone", "bone", ".0f"),
    ("bone_dice", "bone Dice", ".3f"),
)


@dataclass(frozen=True, eq=False)
class Case:
    """One test person.

    Attributes:
        id: a name, no patient identifier.
        truth: float32 HU on the grid.
        body: where the person is, bool on the grid.
        grid: the grid.
        geometry: the views.
        xrays: line integrals, one float32 (rows, columns) a view, of the whole CT.
        contained: bool, likewise: the rays along which all of the person lies in the grid.
        region: "chest" or "other".
    """

    id: str
    truth: FloatArray
    body: BoolArray
    grid: Grid
    geometry: Geometry
    xrays: tuple[FloatArray, ...]
    contained: tuple[BoolArray, ...]
    region: str


def make_case(
    path: str | os.PathLike[str],
    grid: Grid,
    geometry: Geometry,
    *,
    options: PrepareOptions | None = None,
    threads: int = 0,
) -> Case:
    """A test person from a CT file or DICOM folder.

    Raises:
        InputError: it can't be read, or holds no body.
    """
    person = read_body(path, options)
    return case_of(
        _name(Path(path)), person.hu, person.index_to_mm, grid, geometry, region=person.region, threads=threads
    )


def case_of(
    name: str,
    hu: npt.NDArray[Any],
    index_to_mm: npt.ArrayLike,
    grid: Grid,
    geometry: Geometry,
    *,
    region: str = "other",
    threads: int = 0,
) -> Case:
    """A test person from HU (x, y, z) without table or padding, at their own resolution, placed in patient mm."""
    truth = resample_array(hu, index_to_mm, grid)
    mu = attenuation(hu)
    outside = np.where(_in_grid(hu.shape, index_to_mm, grid), np.float32(0), mu)
    return Case(
        id=name,
        truth=truth,
        body=body_mask(truth, grid.spacing_mm),
        grid=grid,
        geometry=geometry,
        xrays=tuple(project(mu, index_to_mm, view, threads) for view in geometry.views),
        contained=tuple(project(outside, index_to_mm, view, threads) <= OUTSIDE for view in geometry.views),
        region=region,
    )


def score(
    case: Case, estimate: FloatArray, window: metrics.Window = metrics.WINDOW_HU, threads: int = 0
) -> dict[str, Any]:
    """Every metric of one estimate (HU on the case's grid).

    `reprojection` is against the given X-rays and counts the rays that the grid contains (`rays` is their share of
    those that meet the body); `reprojection_grid` is against the truth's own grid and counts every ray that meets it.
    """
    estimate = np.asarray(estimate, np.float32)
    found: dict[str, Any] = {
        "psnr_db": metrics.psnr(case.truth, estimate, window),
        "ssim": metrics.ssim(case.truth, estimate, window),
        "mae_hu": metrics.mae_hu(case.truth, estimate, case.body, window),
        "bone_dice": metrics.bone_dice(case.truth, estimate),
        "reprojection": {},
        "reprojection_grid": {},
        "rays": {},
    }
    mu, true_mu = attenuation(np.clip(estimate, *window)), attenuation(np.clip(case.truth, *window))
    for view, image, contained in zip(case.geometry.views, case.xrays, case.contained, strict=True):
        again = project(mu, case.grid.index_to_mm, view, threads)
        ideal = project(true_mu, case.grid.index_to_mm, view, threads)
        # A ray that misses the body only says that air is air.
        rays = contained & (image > OUTSIDE)
        found["reprojection"][view.name] = metrics.reprojection_error(image, again, rays)
        found["reprojection_grid"][view.name] = metrics.reprojection_error(ideal, again, ideal > OUTSIDE)
        found["rays"][view.name] = float(rays.sum()) / max(1, int((image > OUTSIDE).sum()))
    return found


def evaluate(
    case: Case,
    predictions: Mapping[str, FloatArray],
    samples: Sequence[FloatArray] = (),
    window: metrics.Window = metrics.WINDOW_HU,
    threads: int = 0,
) -> dict[str, Any]:
    """One case's part of the table.

    Args:
        case: the test person.
        predictions: volumes by the name of what made them, HU on the case's grid.
        samples: two or more samples of the model. They add "single sample" (the figures of each, averaged), "mean of K
            samples", and the samples' spread and coverage.
        window: the HU window.
        threads: for re-projection.
    """
    methods = {name: score(case, volume, window, threads) for name, volume in predictions.items()}
    result: dict[str, Any] = {"id": case.id, "region": case.region}
    if samples:
        methods["single sample"] = _average([score(case, sample, window, threads) for sample in samples])
    if len(samples) > 1:
        together = np.asarray(np.mean(np.stack(samples), axis=0, dtype=np.float64), np.float32)
        methods[f"mean of {len(samples)} samples"] = score(case, together, window, threads)
        result["spread"] = metrics.spread(case.truth, samples, case.body, window)
    result["methods"] = methods
    return result


def summarise(results: Sequence[Mapping[str, Any]], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The whole table as JSON data: per case, and the mean over cases of each method that all of them have."""
    shared = [name for name in results[0]["methods"] if all(name in r["methods"] for r in results)] if results else []
    return {
        "schema": SCHEMA,
        **dict(facts or {}),
        "cases": [dict(r) for r in results],
        "mean": {name: _average([r["methods"][name] for r in results]) for name in shared},
    }


def markdown(table: Mapping[str, Any]) -> str:
    """The table for people: one block a case, then the mean over cases."""
    blocks = [(case["id"], case["methods"], case.get("spread")) for case in table["cases"]]
    if len(blocks) > 1:
        blocks.append((f"mean of {len(blocks)} people", table["mean"], None))
    lines: list[str] = []
    for title, methods, spread in blocks:
        lines += [f"### {title}", "", *_rows(methods), ""]
        if spread:
            lines += [
                f"Samples, in the body: standard deviation {spread['std_hu']:.0f} HU, error of their mean "
                f"{spread['rmse_hu']:.0f} HU; {spread['coverage']:.0%} of the truth lies between the lowest and "
                f"highest sample ({spread['coverage_expected']:.0%} if calibrated).",
                "",
            ]
    return "\n".join(lines)


def write(table: Mapping[str, Any], folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write `quality.json` and `quality.md`, each whole or not at all; NaN becomes null."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(table), indent=1, allow_nan=False) + "\n"
    return (
        output.write_atomically(place / "quality.json", text.encode()),
        output.write_atomically(place / "quality.md", markdown(table).encode()),
    )


def _rows(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    views = list(next(iter(methods.values()))["reprojection_grid"]) if methods else []
    columns = [*COLUMNS, *((f"reprojection_grid.{view}", f"re-projection {view}", ".3f") for view in views)]
    lines = ["| | " + " | ".join(title for _, title, _ in columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, figures in methods.items():
        cells = [_cell(_at(figures, key), form) for key, _, form in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _cell(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _at(figures: Mapping[str, Any], key: str) -> float:
    value: Any = figures
    for part in key.split("."):
        value = value[part]
    return float(value)


def _average(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each figure, over the scores where it is defined."""
    found: dict[str, Any] = {}
    for key, first in scores[0].items():
        values = [s[key] for s in scores if key in s]
        if isinstance(first, Mapping):
            found[key] = _average(values)
        else:
            finite = [v for v in values if not math.isnan(v)]
            found[key] = float(np.mean(finite)) if finite else math.nan
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _in_grid(shape: tuple[int, ...], index_to_mm: npt.ArrayLike, grid: Grid) -> BoolArray:
    matrix = np.asarray(index_to_mm, np.float64)
    x, y, z = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    inside = np.ones(shape, np.bool_)
    for row, half in zip(matrix[:3], grid.half_extent_mm, strict=True):
        inside &= np.abs(row[0] * x + row[1] * y + row[2] * z + row[3]) <= half
    return inside


def _name(path: Path) -> str:
    from x2ct.data.prepare import find_cts

    return next(iter(find_cts(path)))
