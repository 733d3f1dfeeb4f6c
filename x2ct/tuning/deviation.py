"""`x2ct calibrate`: the scale of HU and the standard deviation of samples, by what validation patients' CTs hold.

A loss in which bone weighs more draws all that could be bone towards it: soft tissue and lungs come out too dense. The
map from the network's unit to HU is changed so that samples have the distribution of HU of the true CTs, below bone
only (`BONE_HU`): what is bone in a sample stays bone.

A model that has seen few patients is too sure of itself: its samples differ less from each other than from the truth.
The factor corrects the standard deviation that a run reports, not the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.bundle.intensity import BONE_HU, Intensity
from x2ct.data.body import body_mask
from x2ct.data.shards import ShardSet, resample
from x2ct.engine.sampler import SampleOptions, Sampler
from x2ct.errors import InputError
from x2ct.evaluation.calibration import INTERVAL, half_width
from x2ct.io import report as reports
from x2ct.io.ct.volume import Volume
from x2ct.tuning.search import Progress, counter

SAMPLES = 8
LEAST, MOST = 0.01, 100.0  # what a bundle may hold; see csrc/core/manifest.cpp
KNOTS_HU = (-950, -900, -800, -700, -550, -400, -250, -150, -100, -50, 0, 50, 100, 150)
"""Where a calibrated scale has knots below `BONE_HU`, in HU of the scale before."""
QUANTILES = np.linspace(0, 1, 1001)
Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scale:
    """One number of steps: the factor, and what share of the truth the 80% interval holds without it and with it."""

    steps: int
    scale: float
    before: float
    after: float


@dataclass(frozen=True)
class Calibrated:
    """What was found on so many samples of each validation patient.

    `bias_hu` are the mean errors of the first sample over the bodies, in HU of the scale before and of `intensity`.
    """

    patients: tuple[str, ...]
    samples: int
    rows: tuple[Scale, ...]
    intensity: Intensity
    bias_hu: tuple[float, float]

    def changes(self, bundle: Bundle) -> dict[str, Any]:
        """Return what the bundle stores; other numbers of steps keep their factors."""
        scales = {**bundle.diffusion.deviation_scale, **{row.steps: row.scale for row in self.rows}}
        return {"diffusion": replace(bundle.diffusion, deviation_scale=scales), "intensity": self.intensity}

    def to_json(self) -> dict[str, Any]:
        """Plain data for a report."""
        parts = {"rows": [vars(row) for row in self.rows], "intensity": vars(self.intensity)}
        return {**vars(self), **parts, "versions": reports.versions()}


def calibrate(
    bundle: Bundle,
    shards: ShardSet,
    *,
    counts: Sequence[int] | None = None,
    samples: int = SAMPLES,
    threads: int = 0,
    progress: Progress = lambda *_: None,
) -> Calibrated:
    """Find the scale of HU and the factor on the shards' validation patients, for the model's own solver.

    The scale is that of `matched` for one sample of each patient. The factor is for samples in that scale. Its interval
    is that of a further draw from a Gaussian of which `samples` are known, mean +- t sqrt(1 + 1/K) s,
    over the voxels of all bodies together; its factor is the one with which it holds 80% of the truth.

    There is a factor for each of `counts`, numbers of steps, by default the model's own; `samples` are the noise seeds
    of a patient, 4 or more. `threads` are the runtime's, 0 its own choice. `progress` is called with (evaluations done,
    of how many, sigma); an exception from it ends the run. Raises InputError: nobody to validate on, an argument that
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
    plans = [_core.sampling_plan(bundle.diffusion, options) for options in (SampleOptions(), *runs)]
    count = counter(progress, len(patients) * sum(plan.evaluations for plan in plans))
    truths = [np.clip(resample(patient, bundle.grid), low, high) for patient in patients]
    bodies = [body_mask(truth, bundle.grid.spacing_mm) for truth in truths]
    drawn: list[Array] = []
    for patient in patients:
        sampler.set_xrays(**patient.xrays(bundle.geometry, threads), force=True)
        drawn.append(sampler.run(progress=count, residual=False).volume.hu)
    scale = matched(bundle.intensity, drawn, truths)

    def in_scale(hu: Array, body: npt.NDArray[np.bool_]) -> Array:
        return scale.to_hu(bundle.intensity.to_x(hu[body]))

    before, after = [], []
    for hu, truth, body in zip(drawn, truths, bodies, strict=True):
        before.append((hu - truth)[body])
        after.append(in_scale(hu, body) - truth[body])
    bias_hu = float(np.concatenate(before).mean()), float(np.concatenate(after).mean())
    for patient, truth, body in zip(patients, truths, bodies, strict=True):
        sampler.set_xrays(**patient.xrays(bundle.geometry, threads), force=True)
        for steps, options in zip(counts, runs, strict=True):
            sums = np.zeros((2, np.count_nonzero(body)))

            def add(_: int, volume: Volume, sums: Array = sums, body: npt.NDArray[np.bool_] = body) -> None:
                hu = in_scale(volume.hu, body).astype(np.float64)
                sums += hu, np.square(hu)

            sampler.run(options, progress=count, each=add, residual=False)
            mean = sums[0] / samples
            deviation = np.sqrt(np.maximum(sums[1] / samples - np.square(mean), 0) * samples / (samples - 1))
            ratios[steps].append(np.abs(mean - truth[body]) / np.maximum(deviation, 1e-3))
    rows = tuple(_scale(steps, np.concatenate(parts), samples, bundle) for steps, parts in ratios.items())
    return Calibrated(tuple(patient.id for patient in patients), samples, rows, scale, bias_hu)


def matched(intensity: Intensity, samples: Sequence[Array], truths: Sequence[Array]) -> Intensity:
    """Return the scale in which samples have the distribution of HU of their truths below `BONE_HU`.

    Knots are at `KNOTS_HU`; each becomes the HU of the truths' quantile, the mean over patients, that it is of the
    samples'. The window's ends, `BONE_HU` and what is above stay. Volumes are of any shape, in HU of `intensity`.
    """
    low, high = intensity.window_hu
    top = min(BONE_HU, high)
    below = np.array([low, *(hu for hu in KNOTS_HU if low < hu < top)], np.float64)
    have, want = (np.mean([np.quantile(one, QUANTILES) for one in volumes], axis=0) for volumes in (samples, truths))
    level = np.interp(below, have + 1e-6 * np.arange(len(QUANTILES)), want)
    level[0] = low
    least = 0.1 * np.arange(len(below))  # the knots rise
    level = np.clip(np.maximum.accumulate(level), low, top - 2.0) + least
    above = sorted({top, *(hu for hu in intensity.hu if hu > top)})
    return Intensity(
        hu=(*np.round(level, 1).tolist(), *above),
        x=tuple(round(float(x), 6) for x in intensity.to_x([*below, *above])),
    )


def markdown(found: Calibrated) -> str:
    """Return the factors as a table."""
    rows = [(row.steps, f"{row.scale:.3f}", f"{row.before:.0%}", f"{row.after:.0%}") for row in found.rows]
    before, after = found.bias_hu
    title = (
        f"Mean error of a sample of {len(found.patients)} validation patients over their bodies: {before:+.1f} HU, in "
        f"the new scale {after:+.1f} HU. Of {found.samples} samples in it the 80% interval holds:"
    )
    return "\n".join([title, "", *reports.markdown_table(("steps", "factor", "without it", "with it"), rows)])


def _scale(steps: int, ratios: Any, samples: int, bundle: Bundle) -> Scale:
    width = half_width(samples)
    scale = round(float(np.quantile(ratios, INTERVAL)) / width, 3)
    if not LEAST <= scale <= MOST:
        expected = f"{LEAST:g} to {MOST:g}"
        raise InputError.of(bundle.argument, f"factor for {steps} steps", found=scale, expected=expected)
    before, after = (float(np.mean(ratios <= factor * width)) for factor in (1.0, scale))
    return Scale(steps, scale, before, after)
