"""X-rays that are not the ones of training: what each departure costs, one at a time.

Test X-rays from the very projector and geometry that trained the network flatter it (the inverse crime). Each condition
takes them in another way; "told" says whether the network learns of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.evaluation.case import Case
from x2ct.evaluation.metrics import FloatArray, Window
from x2ct.evaluation.model import Model, XRays
from x2ct.evaluation.protocol import Figures, average, volume_figures
from x2ct.evaluation.table import Column, at, cell, of_methods
from x2ct.geometry import Geometry, View
from x2ct.io.report import Table
from x2ct.io.xray import degradation
from x2ct.io.xray.radiograph import XRay

Picture = npt.NDArray[Any]
Views = Callable[[Geometry], Geometry]
Exposure = Callable[[FloatArray, View, np.random.Generator], Picture]

SCATTER_MM = 50.0  # standard deviation of scatter's spread on the detector

MEAN, SAMPLE = "mean estimate", "sample of seed 0"
EVERY = "every"


@dataclass(frozen=True)
class Condition:
    """One way to take the X-rays."""

    name: str  # what `--conditions` calls it
    what: str  # what is done, for a reader
    # from the geometry that the network knows to the one that the X-rays are taken with
    views: Views = lambda geometry: geometry
    told: bool = True  # whether the network is told that geometry
    # from line integrals to the picture, one after the other; integers are display values, not calibrated
    exposures: tuple[Exposure, ...] = ()

    def take(self, case: Case, threads: int = 0) -> tuple[XRays, Geometry]:
        """Return a case's X-rays under this condition, and the geometry that the network is told; always the same."""
        actual = self.views(case.geometry)
        # The case's own X-rays were projected already.
        images = case.xrays if actual is case.geometry else case.project(actual, threads)
        nominal = actual if self.told else case.geometry
        xrays = {}
        for index, (view, nominal_view, image) in enumerate(zip(actual.views, nominal.views, images, strict=True)):
            rng = np.random.default_rng([0, index])
            for exposure in self.exposures:
                image = exposure(image, view, rng)
            # Who is not told of a cone beam takes the pixels for those of the view that they are told.
            xrays[view.name] = XRay.of(image, nominal_view.spacing_mm, source=case.id, view=view.name)
        return xrays, nominal


def _each(change: Callable[[int, View], View]) -> Views:
    """Return what changes each view of a geometry, given its number and the view."""
    return lambda geometry: Geometry(tuple(change(index, view) for index, view in enumerate(geometry.views)))


def cone(sod_mm: float, sdd_mm: float) -> Views:
    """Return cone beams from the same sides, with pixels that measure the same at the isocentre."""
    return _each(lambda _, view: View.cone(view.name, view.angle_deg, sod_mm=sod_mm, sdd_mm=sdd_mm, shape=view.shape))


def turned(degrees: float) -> Views:
    """Turn each view about z, every other one the other way, so that it is no mere turn of the patient."""
    return _each(lambda index, view: _moved(view, -degrees if index % 2 else degrees))


def shifted(towards_head_mm: float, names: Sequence[str] = ()) -> Views:
    """Move the patient towards the head, in all views or in the named ones."""
    shift_mm = (0.0, 0.0, towards_head_mm)
    return _each(lambda _, view: _moved(view, shift_mm=shift_mm) if not names or view.name in names else view)


def alone(name: str) -> Views:
    """Keep the view of that name and no other."""
    return lambda geometry: Geometry(tuple(view for view in geometry.views if view.name == name))


def noise(photons: float) -> Exposure:
    """Return an exposure with photon noise, `photons` a pixel before the body."""
    return lambda image, view, rng: degradation.poisson_noise(image, photons, rng)


def scatter(share: float) -> Exposure:
    """Return an exposure with uncorrected scatter."""

    def exposure(image: FloatArray, view: View, rng: np.random.Generator) -> Picture:
        down, across = view.spacing_mm
        return degradation.scatter(image, share, (SCATTER_MM / down, SCATTER_MM / across))

    return exposure


def png(image: FloatArray, view: View, rng: np.random.Generator) -> Picture:
    """Return a display picture of 8 bits."""
    return degradation.window_8bit(image)


def bent(image: FloatArray, view: View, rng: np.random.Generator) -> Picture:
    """Return line integrals on another scale, which are still called calibrated."""
    return degradation.gamma(image, 0.8, 1.1)


TRAINING = Condition("training", "the geometry and intensity of training")
CONDITIONS: tuple[Condition, ...] = (
    TRAINING,
    Condition("frontal-alone", "the frontal X-ray alone", alone("ap")),
    Condition("lateral-alone", "the lateral X-ray alone", alone("lateral")),
    Condition("cone", "cone beams, SOD 1500 and SDD 1800 mm, told", cone(1500, 1800)),
    Condition("cone-near", "cone beams, SOD 850 and SDD 1050 mm, told", cone(850, 1050)),
    Condition("cone-untold", "cone beams, SOD 1500 and SDD 1800 mm, not told", cone(1500, 1800), told=False),
    Condition("off-2", "each view off by 2 degrees, to opposite sides, not told", turned(2), told=False),
    Condition("off-5", "each view off by 5 degrees, to opposite sides, not told", turned(5), told=False),
    Condition("shift-10", "the patient 10 mm higher, not told", shifted(10), told=False),
    Condition(
        "lateral-shift-10",
        "the patient 10 mm higher in the lateral only, not told",
        shifted(10, ["lateral"]),
        told=False,
    ),
    Condition("photons-1e6", "noise of 1 000 000 photons a pixel", exposures=(noise(1e6),)),
    Condition("photons-1e5", "noise of 100 000 photons a pixel", exposures=(noise(1e5),)),
    Condition("scatter-2", "scatter, 2% of the primary", exposures=(scatter(0.02),)),
    Condition("scatter-10", "scatter, 10% of the primary", exposures=(scatter(0.1),)),
    Condition("gamma", "line integrals bent: power 0.8, top 10% higher, not told", exposures=(bent,)),
    Condition("png", "8-bit pictures, read as any uncalibrated X-ray", exposures=(png,)),
    Condition(
        "together",
        "cone beams told, scatter 10%, 100 000 photons, 8-bit pictures",
        cone(1500, 1800),
        exposures=(scatter(0.1), noise(1e5), png),
    ),
)

COLUMNS: tuple[Column, ...] = (
    ("psnr_db", "PSNR dB", ".2f"),
    ("ssim", "SSIM", ".3f"),
    ("mae_hu.body", "MAE HU body", ".0f"),
    ("bone_dice", "bone Dice", ".3f"),
    ("bone_pieces.quarter", "a quarter of the bones there", ".0%"),
)


def named(names: Sequence[str]) -> tuple[Condition, ...]:
    """Return the conditions of these names ("every": all), in order and with training's. Raises InputError."""
    by_name = {condition.name: condition for condition in CONDITIONS}
    for name in names:
        if name not in (*by_name, EVERY):
            expected = f"{EVERY}, or some of {', '.join(by_name)}"
            raise InputError.of("--conditions", "name", found=name, expected=expected)
    return tuple(one for name, one in by_name.items() if name in (*names, TRAINING.name) or EVERY in names)


def try_all(
    model: Model,
    case: Case,
    conditions: Sequence[Condition],
    window: Window,
    threads: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, Figures]]:
    """Return by condition the figures of the mean estimate and of the sample of seed 0."""
    figures = {}
    for condition in conditions:
        say(condition.name)
        model.set_xrays(*condition.take(case, threads))
        volumes = {MEAN: model.mean(), SAMPLE: model.sample(0)}
        figures[condition.name] = {name: volume_figures(case, hu, window) for name, hu in volumes.items()}
    return figures


def summarise(cases: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Figures]]:
    """Return the means over the patients that were tried, by condition and method."""
    figures = [case["conditions"] for case in cases if case.get("conditions")]
    names = figures[0] if figures else ()
    return {name: {m: average([t[name][m] for t in figures]) for m in (MEAN, SAMPLE)} for name in names}


def tables(means: Mapping[str, Mapping[str, Figures]]) -> dict[str, Table]:
    """Return each method's table, a row a condition, its loss of PSNR last; none where no condition was tried."""
    by_method = {}
    for method in (MEAN, SAMPLE) if means else ():
        figures = {one.what: means[one.name][method] for one in CONDITIONS if one.name in means}
        table, best = of_methods(figures, columns=COLUMNS), at(means[TRAINING.name][method], "psnr_db")
        losses = [cell(best - at(each, "psnr_db"), ".2f") for each in figures.values()]
        rows = [[*row, loss] for row, loss in zip(table.rows, losses, strict=True)]
        by_method[method] = Table("", ["X-rays", *table.columns[1:], "PSNR lost"], rows, text=1)
    return by_method


def _moved(view: View, degrees: float = 0.0, shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> View:
    """Return the view of a patient who is turned about z and moved."""
    angle = math.radians(degrees)
    patient = np.eye(4)
    patient[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    patient[:3, 3] = shift_mm
    return View(view.name, view.matrix @ patient, view.shape, view.spacing_mm)
