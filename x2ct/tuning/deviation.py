"""`x2ct calibrate`: the factor that brings the samples' standard deviation up to the error of validation patients.

A model that has seen few patients is too sure of itself: its samples differ less from each other than from the truth.
The factor corrects the standard deviation that a run reports, not the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.data.body import body_mask
from x2ct.data.shards import ShardSet, resample
from x2ct.engine.sampler import SampleOptions, Sampler
from x2ct.errors import InputError
from x2ct.evaluation.calibration import INTERVAL, half_width
from x2ct.io import report as reports
from x2ct.tuning.search import Progress, counter

SAMPLES = 8
LEAST, MOST = 0.01, 100.0  # what a bundle may hold; see csrc/core/manifest.cpp


@dataclass(frozen=True)
class Scale:
    """One number of steps: the factor, and what share of the truth the 80% interval holds without it and with it."""

    steps: int
    scale: float
    before: float
    after: float


@dataclass(frozen=True)
class Calibrated:
    """The factors that were found on so many samples of each validation patient."""

    patients: tuple[str, ...]
    samples: int
    rows: tuple[Scale, ...]

    def changes(self, bundle: Bundle) -> dict[str, Any]:
        """Return what the bundle stores; other numbers of steps keep their factors."""
        scales = {**bundle.diffusion.deviation_scale, **{row.steps: row.scale for row in self.rows}}
        return {"diffusion": replace(bundle.diffusion, deviation_scale=scales)}

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a report."""
        return {**vars(self), "rows": [vars(row) for row in self.rows], "versions": reports.versions()}


def calibrate(
    bundle: Bundle,
    shards: ShardSet,
    *,
    counts: Sequence[int] | None = None,
    samples: int = SAMPLES,
    threads: int = 0,
    progress: Progress = lambda *_: None,
) -> Calibrated:
    """Find the factor on the shards' validation patients, for the model's own solver.

    The interval is that of a further draw from a Gaussian of which `samples` are known, mean +- t sqrt(1 + 1/K) s,
    over the voxels of all bodies together; its factor is the one with which it holds 80% of the truth.

    There is a factor for each of `counts`, numbers of steps, by default the model's own; `samples` are the noise seeds
    of a patient, 4 or more. `threads` are the runtime's, 0 its own choice. `progress` is called with (evaluations done,
    of how many, sigma); an exception from it ends the run. Raises InputError: no validation patients, an argument that
    can't be used, or samples that do not differ.
    """
    if samples < 4:
        raise InputError.of("--samples", "value", found=samples, expected="4 or more")
    patients = shards.select("validation")
    if not patients:
        raise InputError.of(shards.path, "validation patients", found="none", expected="at least one")
    sampler = Sampler(bundle, threads=threads)
    counts = sorted(set(counts or [bundle.diffusion.steps]))
    ratios: dict[int, list[Any]] = {steps: [] for steps in counts}
    low, high = bundle.intensity.window_hu
    runs = [SampleOptions(steps=steps, samples=samples) for steps in counts]
    evaluations = sum(_core.sampling_plan(bundle.diffusion, options).evaluations for options in runs)
    count = counter(progress, len(patients) * evaluations)
    for patient in patients:
        truth = resample(patient, bundle.grid)
        body = body_mask(truth, bundle.grid.spacing_mm)
        sampler.set_xrays(**patient.xrays(bundle.geometry, threads), force=True)
        for steps, options in zip(counts, runs, strict=True):
            result = sampler.run(options, progress=count)
            if result.spread is None:
                raise AssertionError("several samples have a standard deviation")
            deviation = result.spread.hu[body] / result.report["deviation_scale"]
            error = np.abs(result.volume.hu - np.clip(truth, low, high))[body]
            ratios[steps].append(error / np.maximum(deviation, 1e-3))
    rows = tuple(_scale(steps, np.concatenate(parts), samples, bundle) for steps, parts in ratios.items())
    return Calibrated(tuple(patient.id for patient in patients), samples, rows)


def markdown(result: Calibrated) -> str:
    """Return the factors as a table."""
    rows = [(row.steps, f"{row.scale:.3f}", f"{row.before:.0%}", f"{row.after:.0%}") for row in result.rows]
    title = f"{result.samples} samples of {len(result.patients)} validation patients; the 80% interval holds:"
    return "\n".join([title, "", *reports.markdown_table(("steps", "factor", "without it", "with it"), rows)])


def _scale(steps: int, ratios: Any, samples: int, bundle: Bundle) -> Scale:
    width = half_width(samples)
    scale = round(float(np.quantile(ratios, INTERVAL)) / width, 3)
    if not LEAST <= scale <= MOST:
        expected = f"{LEAST:g} to {MOST:g}"
        raise InputError.of(bundle.argument, f"factor for {steps} steps", found=scale, expected=expected)
    before, after = (float(np.mean(ratios <= factor * width)) for factor in (1.0, scale))
    return Scale(steps, scale, before, after)
