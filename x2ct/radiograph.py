"""An X-ray image with its intensity domain and its place made explicit, and its way onto a bundle's detector."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from x2ct import exposure
from x2ct.errors import InputError
from x2ct.picture import MAX_PIXELS, Picture, from_array, read_npy, read_png, read_tiff, unreadable

if TYPE_CHECKING:
    from x2ct.geometry import View

__all__ = ["ASSUMED_SIDE_MM", "MAX_PIXELS", "XRay", "resample"]

FloatImage = npt.NDArray[np.float32]

ASSUMED_SIDE_MM = 430.0  # the longer side of the usual cassettes and flat panels, 35 x 43 cm and 43 x 43 cm
SPACING_MM = (0.01, 20.0)
LINE_INTEGRALS = (-1.0, 100.0)  # noise around air, and more than metal across a whole body

_MAGIC = {
    b"\x89PNG": read_png,
    b"II*\x00": read_tiff,
    b"MM\x00*": read_tiff,
    b"II+\x00": read_tiff,
    b"MM\x00+": read_tiff,
    b"\x93NUM": read_npy,
}


@dataclass(frozen=True, eq=False)
class XRay:
    """An X-ray image.

    Attributes:
        image: (rows, columns) float32; row 0 at the head; column 0 at the patient's right, in a lateral at the front.
            Line integrals where calibrated, else values that grow with attenuation, in any unit and offset.
        calibrated: whether the image holds line integrals of attenuation (dimensionless).
        spacing_mm: (row, column) pixel spacing, or None where nobody knows.
        source: where it came from.
        notes: what was assumed on reading, one sentence each.
        view: "ap", "pa" or "lateral", where the file says so.

    Raises:
        InputError: not 2-D, constant, NaN or infinite; line integrals outside -1 to 100; a senseless spacing.
    """

    image: FloatImage
    calibrated: bool
    spacing_mm: tuple[float, float] | None = None
    source: str = "array"
    notes: tuple[str, ...] = field(default=())
    view: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", np.ascontiguousarray(self.image, np.float32))
        if self.image.ndim != 2:
            raise InputError.of(self.source, "shape", found=self.image.shape, expected="2 axes (rows, columns)")
        _check_values(self.source, self.image, self.calibrated)
        if self.spacing_mm is not None:
            object.__setattr__(self, "spacing_mm", _checked_spacing(self.spacing_mm))

    @classmethod
    def load(cls, path: str | PathLike[str], spacing: float | tuple[float, float] | None = None) -> XRay:
        """Reads a radiograph. What kind of file it is, its first bytes say, not its name.

        Args:
            path: PNG or TIFF (8 or 16 bit: display values; float TIFF: line integrals), .npy (float: line integrals;
                integer: display values), or DICOM.
            spacing: pixel spacing in mm, one number or (row, column); overrides what the file says.

        Raises:
            InputError: a missing, damaged, constant, colour, multi-frame or over-large picture; NaN; not a 2-D array.
        """
        source = Path(path)
        picture = _read(source)
        _check_values(str(source), picture.values, picture.calibrated)
        return cls._of(picture, str(source), spacing)

    @classmethod
    def of(
        cls,
        array: npt.NDArray[Any],
        spacing: float | tuple[float, float] | None = None,
        *,
        source: str = "array",
        view: str | None = None,
    ) -> XRay:
        """An X-ray from a 2-D array: floats are line integrals, integers display values with dense = bright."""
        from dataclasses import replace

        return cls._of(replace(from_array(np.asarray(array), source), view=view), source, spacing)

    @classmethod
    def _of(cls, picture: Picture, source: str, spacing: float | tuple[float, float] | None) -> XRay:
        image, notes = picture.values, picture.notes
        if picture.linear:
            intensity = exposure.dense_bright(image, not picture.dense_is_high)
            image = exposure.minus_log(intensity)
        else:
            image = exposure.dense_bright(image, picture.dense_is_high)
        chosen = picture.spacing_mm if spacing is None else _checked_spacing(spacing)
        return cls(image, picture.calibrated, chosen, source, notes, picture.view)

    def to_detector(
        self, view: View, reference_p99: float, *, exact: bool = False
    ) -> tuple[FloatImage, tuple[str, ...]]:
        """The X-ray as line integrals on a view's detector, centred, antialiased, its aspect kept, air (0) around it.

        Args:
            view: its shape (rows, columns) and spacing_mm are the detector.
            reference_p99: the bundle's reference for X-rays that are not calibrated (see `x2ct.exposure`).
            exact: the view is this image's own (the user's geometry): its pixels are the detector's, nothing
                is resampled, and sizes that contradict each other are an error.

        Returns:
            (rows, columns) float32 line integrals, and every assumption as a sentence.

        Raises:
            InputError: `exact`, and the shape or the known spacing is not the view's.
        """
        if exact:
            self._check_against(view)
        notes = list(self.notes)
        image = self.image
        if not self.calibrated:
            image, more = exposure.line_integrals(image, reference_p99)
            notes += more
        if exact:
            return image, tuple(notes)
        spacing, note = self._spacing_on(view)
        notes += [note] if note else []
        for axis, name in ((0, "rows"), (1, "columns")):
            covered, detector = image.shape[axis] * spacing[axis], view.shape[axis] * view.spacing_mm[axis]
            if covered > 1.01 * detector:
                notes.append(f"The {name} span {covered:.0f} mm; the outer {covered - detector:.0f} mm were cut.")
            elif covered < 0.99 * detector:
                notes.append(f"The {name} span {covered:.0f} of {detector:.0f} mm; the rest was taken as air.")
        return resample(image, spacing, view.shape, view.spacing_mm), tuple(notes)

    def field_on(self, view: View, *, exact: bool = False) -> FloatImage:
        """The share of each detector pixel that the X-ray measured: 0 where `to_detector` has to take air instead.

        Args:
            view: as for `to_detector`.
            exact: likewise.

        Returns:
            (rows, columns) float32, 0 to 1.
        """
        field = np.zeros(self.image.shape, np.float32)
        rows, columns = (slice(None), slice(None)) if self.calibrated else exposure.exposed_field(self.image)
        field[rows, columns] = 1
        return field if exact else resample(field, self._spacing_on(view)[0], view.shape, view.spacing_mm)

    def _check_against(self, view: View) -> None:
        if self.image.shape != tuple(view.shape):
            found = f"{self.image.shape[1]} x {self.image.shape[0]} pixels"
            expected = f"{view.shape[1]} x {view.shape[0]} as the geometry's view '{view.name}' says"
            raise InputError.of(self.source, "size", found=found, expected=expected)
        if self.spacing_mm is not None and not np.allclose(self.spacing_mm, view.spacing_mm, rtol=0.02):
            expected = f"{view.spacing_mm} as the geometry's view '{view.name}' says"
            raise InputError.of(self.source, "pixel spacing in mm", found=self.spacing_mm, expected=expected)

    def _spacing_on(self, view: View) -> tuple[tuple[float, float], str]:
        """The spacing to resample from, and the sentence that says where it comes from unless the file gave it."""
        if self.spacing_mm is not None:
            return self.spacing_mm, ""
        rows, columns = self.image.shape
        if not self.calibrated:
            spacing = ASSUMED_SIDE_MM / max(rows, columns)
            return (spacing, spacing), (
                f"Without a pixel spacing, {ASSUMED_SIDE_MM:.0f} mm were assumed along the longer side "
                f"({spacing:.3g} mm a pixel)."
            )
        fill = [
            extent * step / size
            for extent, step, size in zip(view.shape, view.spacing_mm, (rows, columns), strict=True)
        ]
        if tuple(view.shape) == (rows, columns):
            return (
                fill[0],
                fill[1],
            ), "Without a pixel spacing, the array was taken to be the detector, pixel for pixel."
        if abs(fill[0] / fill[1] - 1) <= 0.01:
            return (
                fill[0],
                fill[1],
            ), f"Without a pixel spacing, the array was taken to fill the detector ({fill[0]:.3g} mm a pixel)."
        spacing = min(fill)
        return (spacing, spacing), (
            f"Without a pixel spacing, and with another aspect than the detector's, the array was taken to fill the "
            f"detector along one side ({spacing:.3g} mm a pixel)."
        )


def resample(
    image: FloatImage,
    spacing_mm: tuple[float, float],
    shape: tuple[int, int],
    target_spacing_mm: tuple[float, float],
) -> FloatImage:
    """Brings an image onto another grid with the same centre; outside the image is 0.

    Each axis is a triangle filter as wide as the coarser of the two pixels: linear interpolation where the target is
    finer, antialiasing where it is coarser. Constants and ramps, away from the borders, come out as they went in.

    Args:
        image: (rows, columns) float32.
        spacing_mm: its (row, column) spacing.
        shape: (rows, columns) of the result.
        target_spacing_mm: its (row, column) spacing.

    Returns:
        float32 of `shape`.
    """
    from x2ct import _core

    return _core.resample(np.ascontiguousarray(image, np.float32), spacing_mm, shape, target_spacing_mm)


def _read(source: Path) -> Picture:
    if source.is_dir():
        hint = "an X-ray is one file"
        raise InputError.of(source, "file", found="a folder", expected="a PNG, TIFF, .npy or DICOM file", hint=hint)
    if not source.exists():
        raise InputError.of(source, "file", found="no such file", expected="an X-ray (PNG, TIFF, .npy or DICOM)")
    try:
        with source.open("rb") as stream:
            head = stream.read(132)
    except OSError as error:
        raise unreadable(source, error) from error
    if not head:
        raise InputError.of(source, "file", found="an empty file", expected="an X-ray (PNG, TIFF, .npy or DICOM)")
    if head[128:132] == b"DICM" or source.suffix.lower() in (".dcm", ".dicom"):
        from x2ct.dicomxray import read_dicom

        return read_dicom(source)
    reader = _MAGIC.get(head[:4])
    if reader is None:
        kind = "a JPEG" if head[:2] == b"\xff\xd8" else "another kind of file"
        hint = "its values were already changed: export it as PNG, TIFF or DICOM" if kind == "a JPEG" else ""
        raise InputError.of(source, "format", found=kind, expected="PNG, TIFF, .npy or DICOM", hint=hint)
    return reader(source)


def _check_values(source: str, image: FloatImage, calibrated: bool) -> None:
    if not np.isfinite(image).all():
        bad = int(np.count_nonzero(~np.isfinite(image)))
        raise InputError.of(source, "values", found=f"{bad} pixels NaN or infinite", expected="finite numbers")
    lowest, highest = float(image.min()), float(image.max())
    if lowest == highest:
        raise InputError.of(source, "values", found=f"{lowest:g} everywhere", expected="an X-ray", hint="is it blank?")
    if calibrated and (lowest < LINE_INTEGRALS[0] or highest > LINE_INTEGRALS[1]):
        raise InputError.of(
            source,
            "values",
            found=f"{lowest:g} to {highest:g}",
            expected="line integrals of attenuation (0 for air, rarely above 20), as float images are",
            hint="save display values as integers",
        )


def _checked_spacing(spacing: float | tuple[float, float]) -> tuple[float, float]:
    pair = tuple(float(value) for value in np.atleast_1d(np.asarray(spacing, np.float64)))
    row, column = pair * 2 if len(pair) == 1 else pair if len(pair) == 2 else (float("nan"),) * 2
    if not all(SPACING_MM[0] <= value <= SPACING_MM[1] for value in (row, column)):
        expected = f"{SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm, one number or (row, column)"
        raise InputError.of("spacing", "pixel spacing in mm", found=spacing, expected=expected)
    return row, column
