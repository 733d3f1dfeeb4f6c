"""An X-ray image with its intensity domain and its place made explicit, and its way onto a bundle's detector."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct._core import LINE_INTEGRALS
from x2ct.errors import InputError
from x2ct.geometry import View
from x2ct.io.xray import exposure
from x2ct.io.xray.exposure import STATED, UNTOLD, BoolImage, FloatImage, Stage, Watch, resample
from x2ct.io.xray.readoptions import UNKNOWN, Beam, ReadOptions, Spacing, checked_spacing

__all__ = ["FloatImage", "ReadOptions", "XRay", "resample"]

LEAST_PIXELS = 128  # along each side of a radiograph: 3.4 mm a pixel on the largest cassette
COARSEST_MM = 5.0
SCALE_FACTOR = 3.0  # by which the 99th percentile of line integrals may differ from the model's reference


@dataclass(frozen=True, eq=False)
class XRay:
    """An X-ray: (rows, columns) float32, how large its pixels are, where it was taken from, and what its values are.

    Row 0 is at the head, column 0 at the patient's right, in a lateral at the front. Values are line integrals where
    calibrated, else they grow with attenuation, in any unit and offset. The spacing is that on the detector where
    `beam` has its distances, else as if in the patient.

    A reader makes one of a file, its values as stored; `load` and `of` take it through the stages that file and user
    decide; after that the last six fields have nothing more to say. Raises InputError for an image that is not 2-D, or
    another shape of `exposed`; values are checked by `load`, by `of` and by the core.
    """

    image: FloatImage
    calibrated: bool  # whether the image holds line integrals of attenuation (dimensionless)
    spacing_mm: tuple[float, float] | None = None  # (row, column); None where it is unknown
    source: str = "array"  # where it came from
    notes: tuple[str, ...] = ()  # what was assumed or done, one sentence each
    view: str | None = None  # "ap", "pa" or "lateral", where the file says so
    exposed: BoolImage | None = None  # False under shutters and padding, as far as file or stages say; None: all True
    beam: Beam = UNKNOWN  # where it was taken from, as far as file or user say
    body_part: str | None = None  # what the file says that it shows, such as "CHEST"
    kind: str = "array"  # what the file is, in a few words
    warnings: tuple[str, ...] = ()  # what makes it less trustworthy, one sentence each

    # How far it is known what the values mean, a word of `x2ct.io.xray.exposure`. Of line integrals that are not STATED
    # to be such, by caller or user, `to_detector` compares the size with the model's.
    polarity: str = STATED
    dense_is_high: bool = True  # whether a higher value means more attenuation
    white_is_high: bool = True  # whether viewers show a higher value brighter
    linear: bool = False  # whether the values are linear in X-ray intensity, so that a log is due
    highest: int | None = None  # that can be stored, where linear values fall with intensity; None: their largest
    turns: tuple[int, ...] = ()  # of `readoptions.TURNS`, what sets the picture upright, in this order

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", np.ascontiguousarray(self.image, np.float32))
        if self.image.ndim != 2:
            raise InputError.of(self.source, "shape", found=self.image.shape, expected="2 axes (rows, columns)")
        if self.exposed is not None and self.exposed.shape != self.image.shape:
            raise InputError.of(self.source, "exposed", found=self.exposed.shape, expected=self.image.shape)

    @property
    def inside(self) -> BoolImage:
        """`exposed`, True everywhere where it is None."""
        return np.ones(self.image.shape, np.bool_) if self.exposed is None else self.exposed

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        spacing: Spacing | None = None,
        *,
        options: ReadOptions | None = None,
        watch: Watch | None = None,
    ) -> XRay:
        """Read a PNG, JPEG, TIFF, .npy, NIfTI of one slice or DICOM; which it is, its first bytes say, not its name.

        Floats are line integrals, 8 and 16 bit integers display values. `spacing` is the pixel spacing in mm, one
        number or (row, column), and goes before the file's; `options` are that and more of how to read it; `watch` sees
        the X-ray after each stage of `exposure.loading_stages`.

        Raises InputError: a missing, damaged, constant, colour, over-large or very coarse picture, one of several
        without a choice of frame, or what can't be an X-ray; NaN; not a 2-D array; an option that the file contradicts;
        a picture of which nothing tells which side is dense (`x2ct.io.xray.exposure`).
        """
        from x2ct.io.xray.readers import read

        options = options or ReadOptions()
        options = options if spacing is None else replace(options, spacing=spacing)
        stored = read(Path(path), options.frame)
        if options.values is not None:
            if stored.kind.startswith("DICOM"):
                found, expected = "a DICOM file, which says it", "PNG, JPEG, TIFF, .npy or NIfTI"
                raise InputError.of(stored.source, "--values", found=found, expected=expected)
            calibrated = options.values == "integrals"
            stored = replace(stored, calibrated=calibrated, polarity=STATED if calibrated else UNTOLD)
        _check_values(stored)
        if not stored.calibrated:
            _check_detail(stored, options.spacing_mm or stored.spacing_mm)
        return stored._loaded(options, watch)

    @classmethod
    def of(
        cls, array: npt.NDArray[Any], spacing: Spacing | None = None, *, source: str = "array", view: str | None = None
    ) -> XRay:
        """Return an X-ray from a 2-D array: floats are line integrals, integers display values with dense = bright."""
        from x2ct.io.xray.readers import from_array

        stored = replace(from_array(np.asarray(array), source), view=view, polarity=STATED)
        return stored._loaded(ReadOptions(spacing))

    def _loaded(self, options: ReadOptions, watch: Watch | None = None) -> XRay:
        """Return this X-ray, which is as stored, after what file and user decide."""
        stages = exposure.loading_stages(options.invert)
        xray = exposure.run(stages, replace(self, turns=(*self.turns, *options.turns)), watch)
        beam, notes = _combined(self.source, xray.beam, options.beam)
        _check_values(xray)
        turns = [f"turned by {options.rotate} degrees clockwise"] if options.rotate else []
        turns += [f"mirrored ({options.flip})"] if options.flip else []
        turn_notes = (f"On request, the picture was {' and then '.join(turns)}.",) if turns else ()
        spacing = options.spacing_mm or (xray.spacing_mm and checked_spacing(xray.spacing_mm))
        return replace(xray, spacing_mm=spacing, beam=beam, notes=(*xray.notes, *turn_notes, *notes))

    def to_detector(
        self, view: View, reference_p99: float, *, exact: bool = False, watch: Watch | None = None
    ) -> tuple[FloatImage, tuple[str, ...]]:
        """Return line integrals on a view's detector, (rows, columns) float32, and every assumption as a sentence.

        The picture is centred and antialiased, its aspect kept, with air (0) around it. Where `exact`, the view is this
        image's own (the user's geometry), its pixels are the detector's, and nothing is resampled. `reference_p99` is
        the bundle's for X-rays that are not calibrated (see `x2ct.io.xray.exposure`), and `watch` sees the X-ray after
        each stage. Raises InputError: `exact`, and the shape or the known spacing is not the view's; a float file whose
        99th percentile is far from the reference, unless `values` of its options says what it is.
        """
        if exact:
            self._check_against(view)
        if self.calibrated and self.polarity != STATED:
            _check_scale(self.source, self.image, reference_p99)
        stages = () if self.calibrated else exposure.intensity_stages(reference_p99)
        if not exact:
            does = f"{view.shape[1]} x {view.shape[0]} pixels of the view"
            stages += (Stage("detector", does, partial(exposure.detector, view=view)),)
        xray = exposure.run(stages, self, watch)
        return xray.image, xray.notes

    def field_on(self, view: View, *, exact: bool = False) -> FloatImage:
        """Return the share (0 to 1) of each detector pixel that was measured, (rows, columns) float32.

        It is 0 where `to_detector`, with the same `view` and `exact`, has to take air instead.
        """
        xray = self if self.calibrated else exposure.field(self)
        share = np.asarray(xray.inside, np.float32)
        return share if exact else resample(share, exposure.spacing_on(self, view)[0], view.shape, view.spacing_mm)

    def facts(self) -> dict[str, Any]:
        """Return what was read, as plain data for a report; nothing that identifies a patient."""
        return {
            "kind": self.kind,
            "shape": list(self.image.shape),
            "spacing_mm": list(self.spacing_mm) if self.spacing_mm else None,
            "calibrated": self.calibrated,
            "says_view": self.view,
            "body_part": self.body_part,
            "beam": str(self.beam) if self.beam else None,
        }

    def _check_against(self, view: View) -> None:
        if self.image.shape != tuple(view.shape):
            found = f"{self.image.shape[1]} x {self.image.shape[0]} pixels"
            expected = f"{view.shape[1]} x {view.shape[0]} as the geometry's view '{view.name}' says"
            raise InputError.of(self.source, "size", found=found, expected=expected)
        if self.spacing_mm is not None and not np.allclose(self.spacing_mm, view.spacing_mm, rtol=0.02):
            expected = f"{view.spacing_mm} as the geometry's view '{view.name}' says"
            raise InputError.of(self.source, "pixel spacing in mm", found=self.spacing_mm, expected=expected)


def _check_detail(stored: XRay, spacing: tuple[float, float] | None) -> None:
    """Raise InputError where a radiograph is too coarse to show a chest."""
    rows, columns = stored.image.shape
    if min(rows, columns) < LEAST_PIXELS:
        found, expected = f"{columns} x {rows} pixels", f"a radiograph of {LEAST_PIXELS} or more along each side"
        raise InputError.of(stored.source, "size", found=found, expected=expected, hint="is this a thumbnail?")
    if spacing is not None and max(spacing) > COARSEST_MM:
        found = " x ".join(f"{step:g}" for step in spacing)
        raise InputError.of(stored.source, "pixel spacing in mm", found=found, expected=f"at most {COARSEST_MM:g}")


def _check_scale(source: str, image: FloatImage, reference_p99: float) -> None:
    """Raise InputError where an image's 99th percentile is far from that of the model's training X-rays."""
    p99 = float(np.percentile(image, 99))
    if not reference_p99 / SCALE_FACTOR <= p99 <= reference_p99 * SCALE_FACTOR:
        expected = f"within a factor of {SCALE_FACTOR:g} of {reference_p99:.3g}, as line integrals of the model have it"
        hint = (
            "these may be display values scaled as floats (say --values display), or line integrals in another unit or "
            "of another part of the body (say --values integrals)"
        )
        raise InputError.of(source, "values", found=f"a 99th percentile of {p99:.3g}", expected=expected, hint=hint)


def _combined(source: str, file: Beam, user: Beam) -> tuple[Beam, tuple[str, ...]]:
    """Return what file and user say of the beam, the user first, and notes; distances only where both are known."""
    own = {name: value for name, value in vars(user).items() if value is not None and name != "tilt_deg"}
    beam = replace(file, **own)
    if beam.magnification is not None or (beam.sod_mm is None and beam.sdd_mm is None):
        return beam, ()
    option, missing = ("--sdd", "--sod") if beam.sod_mm is None else ("--sod", "--sdd")
    if user.sod_mm is not None or user.sdd_mm is not None:
        raise InputError.of(option, "options", found=f"no {missing}", expected=f"both, for {source} says neither")
    note = f"Only one distance is known ({beam.sdd_mm or beam.sod_mm:g} mm, {option[2:].upper()}): a parallel beam was "
    return replace(beam, sod_mm=None, sdd_mm=None), (note + "assumed, and magnification was not taken out.",)


def _check_values(xray: XRay) -> None:
    """Raise InputError where values are not finite, constant, or no line integrals though they should be."""
    image, source = xray.image, xray.source
    if not np.isfinite(image).all():
        bad = int(np.count_nonzero(~np.isfinite(image)))
        raise InputError.of(source, "values", found=f"{bad} pixels NaN or infinite", expected="finite numbers")
    lowest, highest = float(image.min()), float(image.max())
    if lowest == highest:
        raise InputError.of(source, "values", found=f"{lowest:g} everywhere", expected="an X-ray", hint="is it blank?")
    if xray.calibrated and (lowest < LINE_INTEGRALS[0] or highest > LINE_INTEGRALS[1]):
        extent, hint = f"{lowest:g} to {highest:g}", "if these are values for display, say --values display"
        expected = "line integrals of attenuation (0 for air, rarely above 20), as float images are"
        raise InputError.of(source, "values", found=extent, expected=expected, hint=hint)
