"""From X-rays to what the core's pipeline takes: an image on a detector, and the matrix that says where it looks.

The encoder was trained on pictures of one size whose pixels measure the same at the isocentre. The core resamples an
image of any other detector onto such a picture, and composes its projection matrix with the same change of pixels, so
that every voxel still finds its own ray (csrc/core/xray.cpp).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct._core import SLOT_OF as SLOT_OF
from x2ct.bundle import Bundle
from x2ct.errors import InputError
from x2ct.geometry import Geometry, View
from x2ct.io.xray.radiograph import XRay

FloatArray = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]


class DetectorImage(NamedTuple):
    """One X-ray as the core takes it."""

    name: str  # "ap", "pa" or "lateral"
    slot: int  # which of the bundle's views it is
    image: FloatArray  # (rows, columns) float32 line integrals, dimensionless, air 0
    matrix: Matrix  # 3x4, patient mm to its pixels
    measured: FloatArray  # (rows, columns) float32, the share of each pixel that the detector measured, 0 to 1
    calibrated: bool  # whether the line integrals are known not only up to a scale and an offset


@dataclass(frozen=True)
class Study:
    """A patient's X-rays as the networks take them: the inputs of encoder and lift, float32 and C-contiguous."""

    images: tuple[DetectorImage, ...]  # each X-ray on the encoder's picture, in their order
    views: FloatArray  # [1, V, 1, H, W] line integrals, dimensionless; zeros in a slot without an X-ray
    valid: FloatArray  # [1, V]; 1 where there is an X-ray
    matrices: FloatArray  # [1, V, 3, 4]; patient mm to pixels of `views`
    measured: tuple[_core.MeasuredView, ...]  # `images` as data consistency and residuals take them
    assumptions: tuple[str, ...]  # a line for each thing that was assumed
    warnings: tuple[str, ...]  # what makes the result less trustworthy, one line each, the worst first


def study_of(
    bundle: Bundle, xrays: Mapping[str, XRay], geometry: Geometry | None = None, *, align: bool = False
) -> Study:
    """Bring X-rays, at least one of "ap" or "pa" and "lateral", onto the encoder's picture.

    The geometry, which must have a view of each X-ray's name, is by default the bundle's; with `align` the images say
    how the two views lie to each other (`x2ct.engine.align`).

    Raises InputError: no X-ray, both "ap" and "pa", a frontal X-ray that says that it is a lateral one, or the other
    way round, a view that the geometry lacks, or a size or spacing that contradicts it; or `align`, and there is one
    X-ray alone, or the two have nothing in common.
    """
    _check_study(xrays)
    images: list[DetectorImage] = []
    assumptions: list[str] = []
    ranked: list[tuple[int, str]] = []
    exact = geometry is not None
    for name, xray in xrays.items():
        slot = SLOT_OF[name]
        view = view_of(name, bundle.geometry.views[slot], xray, geometry)
        pixels, assumed = xray.to_detector(view, bundle.xray.reference_p99[slot], exact=exact)
        field = xray.field_on(view, exact=exact)
        images.append(DetectorImage(name, slot, pixels, view.matrix, field, xray.calibrated))
        assumptions += [f"{name}: {line}" for line in (*assumed, *beam_notes(xray, geometry))]
        ranked += doubts(name, xray, bundle)
    own = [name for name, xray in xrays.items() if not xray.beam]
    if geometry is None and own:
        usual = ", ".join(f"{view.name} {view.kind}" for view in bundle.geometry.views)
        assumptions.append(
            f"geometry: none given for {' and '.join(own)}, so the views are taken to be the model's own ({usual})"
        )
    if align:
        images, line = _aligned(images)
        assumptions.append(line)
    if len(xrays) == 1 and len(bundle.geometry.views) > 1:
        line = f"one view only ({next(iter(xrays))}): depth along its rays is guessed from training data"
        ranked.append((_ONE_VIEW, line))
    own_matrices = [view.matrix for view in bundle.geometry.views]
    views, valid, matrices, measured = _core.conditions(own_matrices, bundle.xray.shape, bundle.xray.spacing_mm, images)
    on_picture = tuple(
        image._replace(
            image=np.asarray(picture, np.float32),
            matrix=np.asarray(matrix, np.float64),
            measured=np.asarray(share, np.float32),
        )
        for image, (_, matrix, picture, share, _) in zip(images, measured, strict=True)
    )
    return Study(on_picture, views, valid, matrices, tuple(measured), tuple(assumptions), by_consequence(ranked))


def _aligned(images: Sequence[DetectorImage]) -> tuple[list[DetectorImage], str]:
    """Return X-rays with matrices that agree with each other, and a line that says what was changed."""
    from x2ct.engine.align import align

    if len(images) != 2:
        raise InputError.of("--align", "X-rays", found=f"{len(images)}", expected="a frontal and a lateral one")
    pair = frontal, lateral = sorted(images, key=lambda image: image.slot)
    calibrated = all(one.calibrated for one in pair)
    alignment = align([one.image for one in pair], [one.matrix for one in pair], calibrated)
    height_mm, size, turn_deg = alignment.lateral
    rest = "size and turn as told, for want of agreement"
    if alignment.whole:
        rest = f"{size:.3f} times as large, turned by {turn_deg:+.1f} degrees and {frontal.name} by "
        rest += f"{alignment.frontal.turn_deg:+.1f}"
    line = (
        f"{lateral.name}: shows the patient {height_mm:+.1f} mm higher than {frontal.name}, {rest}, by the mass of "
        f"slices (correlation {alignment.correlation:.3f}); taken into account"
    )
    poses = alignment.frontal, alignment.lateral
    return [one._replace(matrix=pose.matrix(one.matrix)) for one, pose in zip(pair, poses, strict=True)], line


def _check_study(xrays: Mapping[str, object]) -> None:
    if not xrays:
        raise InputError.of("X-rays", "views", found="none", expected="at least one of ap, pa, lateral")
    unknown = sorted(set(xrays) - set(SLOT_OF))
    if unknown:
        raise InputError.of("X-rays", "views", found=", ".join(unknown), expected="ap, pa or lateral")
    for name, xray in xrays.items():
        if not isinstance(xray, XRay):
            hint = "x2ct.XRay.load reads a file, x2ct.XRay.of takes an array"
            raise InputError.of(name, "type", found=type(xray).__name__, expected="an x2ct.XRay", hint=hint)
        if xray.view is not None and SLOT_OF[xray.view] != SLOT_OF[name]:
            hint = (
                f"give it as --{xray.view}; or, if the file is wrong, write its line integrals, which carry no name: "
                f"x2ct xray {Path(xray.source).name} --view {name} -o x.npy"
            )
            expected = f"a {'frontal' if SLOT_OF[name] == 0 else 'lateral'} X-ray"
            found = f"a file that calls itself {xray.view}"
            raise InputError.of(xray.source, "view", found=found, expected=expected, hint=hint)
    if {"ap", "pa"} <= set(xrays):
        raise InputError.of("X-rays", "views", found="both ap and pa", expected="one frontal view")


def beam_notes(xray: XRay, geometry: Geometry | None) -> list[str]:
    """Return a sentence on how the beam that the file or the user describes was used."""
    if not xray.beam:
        return []
    own = f"Its own geometry ({xray.beam}) gave way to the geometry file."
    return [own if geometry is not None else f"Geometry: {xray.beam}."]


def view_of(name: str, usual: View, xray: XRay, geometry: Geometry | None = None) -> View:
    """Return the view that an X-ray named "ap", "pa" or "lateral" was taken from.

    The geometry's goes before what file or user say of the X-ray's beam, and that before the model's `usual` view.
    Raises InputError where the geometry lacks the view.
    """
    if geometry is None:
        usual = _from_behind(usual) if name == "pa" else usual
        return xray.beam.view(name, usual) if xray.beam else usual
    views = {view.name: view for view in geometry.views}
    other = views.get({"ap": "pa", "pa": "ap"}.get(name, ""))
    if name in views:
        return views[name]
    if other is not None and other.kind == "parallel":
        return other  # parallel rays are the same from both sides
    raise InputError.of("--geometry", "views", found=", ".join(views), expected=f"one named {name}")


def _from_behind(view: View) -> View:
    """The PA view that shows the same side to the same edge of the picture as this AP view does.

    Parallel rays are the same from both sides. A cone's source moves to the other side: the patient is turned by half
    a turn about z, and the picture is mirrored back.
    """
    if view.kind == "parallel":
        return view
    half_turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    mirror = np.array([[-1.0, 0.0, view.shape[1] - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return View("pa", mirror @ view.matrix @ half_turn, view.shape, view.spacing_mm)


_BODY_PART, _READING, _VIEW_NAME, _ONE_VIEW, _SCALE = range(5)
"""Warnings by consequence: the CT of another part of the body first, HU that are approximate last."""


def refuse_warnings(warnings: Sequence[str]) -> None:
    """Raise InputError if there are warnings, as `--strict` requires."""
    if warnings:
        count = f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}"
        raise InputError.of("--strict", "warnings", found=f"{count}: {' | '.join(warnings)}", expected="none")


def by_consequence(ranked: Sequence[tuple[int, str]]) -> tuple[str, ...]:
    """Return the lines of ranked warnings, the worst first."""
    return tuple(line for _, line in sorted(ranked, key=lambda pair: pair[0]))


def doubts(name: str, xray: XRay, bundle: Bundle) -> list[tuple[int, str]]:
    """Return what makes a result from this X-ray less trustworthy: ranks, for `by_consequence`, and lines."""
    lines = [(_READING, line) for line in xray.warnings]
    regions = trained_on(bundle)
    if xray.body_part and regions and not any(_shows(xray.body_part, region) for region in regions):
        parts = " and ".join(f"the {region}" for region in regions)
        lines.append((_BODY_PART, f"the file shows {xray.body_part}; the model is for {parts}"))
    if xray.view and xray.view != name:
        lines.append((_VIEW_NAME, f"the file calls itself {xray.view}"))
    if not xray.calibrated:
        lines.append((_SCALE, "intensities are not calibrated line integrals; HU are approximate"))
    return [(rank, f"{name}: {line}") for rank, line in lines]


def trained_on(bundle: Bundle) -> tuple[str, ...]:
    """Return the regions of the body that the bundle names as its own; "other", where it trained too, is no name."""
    training = bundle.provenance.get("training")
    regions = training.get("regions") if isinstance(training, Mapping) else None
    return tuple(str(region) for region in regions if region != "other") if isinstance(regions, list) else ()


# BodyPartExamined (DICOM PS3.16, annex L) that show at least a good part of a region; other regions match by name.
_PARTS = {
    "chest": ("CHEST", "THORAX", "LUNG", "RIB", "STERNUM", "TSPINE", "HEART", "MEDIASTINUM", "TRUNK", "BODY"),
    "trunk": ("CHEST", "THORAX", "ABDOMEN", "PELVIS", "LUNG", "RIB", "SPINE", "TRUNK", "BODY"),
}


def _shows(body_part: str, region: str) -> bool:
    return any(word in body_part for word in _PARTS.get(region.lower(), (region.upper(),)))
