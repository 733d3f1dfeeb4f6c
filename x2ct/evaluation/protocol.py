"""The protocol: what is measured of each prediction of a test patient, whichever system made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct.evaluation import metrics
from x2ct.evaluation.anatomy import STRIDE
from x2ct.evaluation.calibration import calibration
from x2ct.evaluation.case import OUTSIDE, Case
from x2ct.evaluation.metrics import FloatArray
from x2ct.geometry import attenuation, project

Figures = dict[str, Any]  # numbers by name, some of them by two ("mae_hu" has one a band); JSON data


def volume_figures(case: Case, estimate: npt.ArrayLike, window: metrics.Window = metrics.WINDOW_HU) -> Figures:
    """Return the figures that need only the two volumes (HU on the case's grid)."""
    return {
        "psnr_db": metrics.psnr(case.truth, estimate, window),
        "ssim": metrics.ssim(case.truth, estimate, window),
        "mae_hu": metrics.mae_hu(case.truth, estimate, case.body, window),
        "bone_dice": metrics.bone_dice(case.truth, estimate),
        "bone_surface_95_mm": metrics.bone_surface_95(case.truth, estimate, case.grid.spacing_mm),
        "bone_pieces": metrics.pieces_present(case.bones, estimate),
    }


def score(
    case: Case,
    estimate: npt.ArrayLike,
    window: metrics.Window = metrics.WINDOW_HU,
    threads: int = 0,
    stride: int = STRIDE,
) -> Figures:
    """Return every figure of one estimate (HU on the case's grid).

    `reprojection` is against the given X-rays and counts the rays that the grid contains (`rays` is their share of
    those that meet the body); `reprojection_grid` is against the truth's own grid and counts every ray that meets it.
    `anatomy` is measured with cells of `stride` voxels, see `x2ct.evaluation.anatomy`. `legacy` is for old tables only.
    """
    estimate = np.asarray(estimate, np.float32)
    figures = volume_figures(case, estimate, window)
    figures |= {"reprojection": {}, "reprojection_grid": {}, "rays": {}}
    mu, true_mu = (attenuation(np.clip(hu, *window)) for hu in (estimate, case.truth))
    for view, image, contained in zip(case.geometry.views, case.xrays, case.contained, strict=True):
        again, ideal = (project(each, case.grid.index_to_mm, view, threads) for each in (mu, true_mu))
        # A ray that misses the body only says that air is air.
        rays = contained & (image > OUTSIDE)
        figures["reprojection"][view.name] = metrics.reprojection_error(image, again, rays)
        figures["reprojection_grid"][view.name] = metrics.reprojection_error(ideal, again, ideal > OUTSIDE)
        figures["rays"][view.name] = float(rays.sum()) / max(1, int((image > OUTSIDE).sum()))
    figures["anatomy"] = case.landmarks.measure(estimate, stride).figures()
    figures["legacy"] = {
        "psnr_4095_db": metrics.slice_psnr(case.truth, estimate, window),
        "ssim_slices": metrics.slice_ssim(case.truth, estimate, window),
    }
    return figures


def evaluate(
    case: Case,
    predictions: Mapping[str, FloatArray],
    samples: Sequence[FloatArray] = (),
    window: metrics.Window = metrics.WINDOW_HU,
    threads: int = 0,
    stride: int = STRIDE,
    deviation_scale: float = 1.0,
) -> dict[str, Any]:
    """Return one case's part of the table.

    Predictions are volumes by the name of what made them, HU on the case's grid. Samples add "single sample" (the
    figures of each, averaged), and two or more "mean of K samples" and calibration, in which their standard deviation
    is multiplied by `deviation_scale`, as in a run of the model. For the rest see `score`.
    """
    methods = {name: score(case, volume, window, threads, stride) for name, volume in predictions.items()}
    result: dict[str, Any] = {"id": case.id, "region": case.region, "bone_pieces": int(case.bones.max())}
    if samples:
        methods["single sample"] = average([score(case, sample, window, threads, stride) for sample in samples])
    if len(samples) > 1:
        methods[f"mean of {len(samples)} samples"] = score(case, mean_of(samples), window, threads, stride)
        result["calibration"] = calibration(case.truth, samples, case.body, window, deviation_scale)
    result["methods"] = methods
    return result


def mean_of(samples: Sequence[FloatArray]) -> FloatArray:
    """Return the voxel-wise mean."""
    return np.asarray(np.mean(np.stack(samples), axis=0, dtype=np.float64), np.float32)


def average(scores: Sequence[Mapping[str, Any]]) -> Figures:
    """Return the mean of each figure over the scores where it is defined."""
    return each_figure(scores, lambda values: float(np.mean(values)) if values else math.nan)


def each_figure(scores: Sequence[Mapping[str, Any]], of: Callable[[list[float]], Any]) -> Figures:
    """Return by figure, nested as the scores, what a function makes of its defined values."""
    figures: Figures = {}
    for key, first in scores[0].items():
        values = [score[key] for score in scores if key in score]
        nested = isinstance(first, Mapping)
        figures[key] = each_figure(values, of) if nested else of([value for value in values if not math.isnan(value)])
    return figures
