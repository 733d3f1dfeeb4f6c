"""One DICOM radiograph: what its header says about intensity, spacing, view and how the picture lies.

Notes never repeat what identifies a person.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.picture import Picture, check_size, grey, unreadable

if TYPE_CHECKING:
    from pydicom import Dataset

SPACING_MM = (0.02, 5.0)
SIDE_MM = (20.0, 1500.0)
SLICES = ("CT", "MR", "PT", "NM", "US")  # no projections
FLUOROSCOPY = ("XA", "RF")  # shown with dense tissue dark, unlike radiographs

_VIEWS = {"AP": "ap", "PA": "pa", "LL": "lateral", "RL": "lateral", "LATERAL": "lateral", "LAT": "lateral"}
# What a row must run towards, by view: column 0 is the patient's right in a frontal picture, the front in a lateral.
_ROW_TOWARDS = {"L": 1, "R": -1, "P": 1, "A": -1}
_COLUMN_TOWARDS = {"F": 1, "H": -1}


def read_dicom(source: Path) -> Picture:
    """Reads a CR, DX, XA or RF object. Windows (VOI) are display settings and are not applied.

    Raises:
        InputError: no DICOM, no image, a slice modality, several frames, colour, damage, or past MAX_PIXELS.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        dataset = pydicom.dcmread(source)
    except InvalidDicomError as error:
        hint = "the file has no DICOM header, whatever its name says"
        raise InputError.of(source, "file", found="no DICOM file", expected="a DICOM radiograph", hint=hint) from error
    except Exception as error:  # parsing damaged data raises many kinds
        raise unreadable(source, error) from error
    try:
        return _picture(source, dataset)
    except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError, OverflowError) as error:
        # pydicom converts an element when it is first touched, so a damaged one may speak up anywhere.
        raise unreadable(source, error) from error


def _picture(source: Path, dataset: Dataset) -> Picture:
    _check_kind(source, dataset)
    values, padding = _values(source, dataset)
    dense_is_high, linear, notes = _meaning(dataset)
    if padding is not None and padding.any() and not padding.all():
        # Padding becomes what lets most X-rays through: air.
        kept = values[~padding]
        values[padding] = kept.min() if dense_is_high else kept.max()
        notes.append(f"{100 * padding.mean():.2g}% of the pixels are marked as padding and were taken as air.")
    spacing, spacing_notes = useful_spacing(dataset)
    view, view_notes = _view(dataset)
    values, spacing, lie_notes = _upright(values, spacing, dataset)
    notes += [*spacing_notes, *view_notes, *lie_notes]
    return Picture(np.ascontiguousarray(values), False, dense_is_high, linear, spacing, view, tuple(notes))


def useful_spacing(dataset: Dataset) -> tuple[tuple[float, float] | None, list[str]]:
    """The pixel spacing in mm (row, column), or None with a sentence that says why what is there can't be used."""
    notes = []
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if name not in dataset:
            continue
        try:
            row, column = (float(value) for value in dataset[name].value)
        except (TypeError, ValueError):
            row = column = float("nan")
        sides = (row * int(dataset.Rows), column * int(dataset.Columns))
        good = all(SPACING_MM[0] <= value <= SPACING_MM[1] for value in (row, column))
        if good and all(SIDE_MM[0] <= side <= SIDE_MM[1] for side in sides):
            if name != "PixelSpacing":
                notes.append(f"{name} is that of the detector: magnification was not taken out.")
            return (row, column), notes
        notes.append(f"{name} is {row:g} x {column:g} mm, which no radiograph has, and was ignored.")
    if not notes:
        notes.append("The file has no pixel spacing.")
    return None, notes


def _check_kind(source: Path, dataset: Dataset) -> None:
    modality = str(dataset.get("Modality", ""))
    if modality in SLICES:
        hint = "this is a slice, not an X-ray" if modality in ("CT", "MR") else ""
        raise InputError.of(source, "Modality", found=modality, expected="CR, DX, XA or RF", hint=hint)
    if "Rows" not in dataset or "Columns" not in dataset or "PixelData" not in dataset:
        raise InputError.of(source, "pixel data", found="none", expected="a radiograph")
    check_size(source, int(dataset.Rows), int(dataset.Columns))
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        frames = 0
    if frames != 1:
        raise InputError.of(source, "NumberOfFrames", found=dataset.get("NumberOfFrames"), expected="1")
    if str(dataset.get("PhotometricInterpretation", "")) == "PALETTE COLOR":
        raise InputError.of(source, "PhotometricInterpretation", found="PALETTE COLOR", expected="MONOCHROME1 or 2")


def _values(source: Path, dataset: Dataset) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
    """Stored values after the modality LUT or rescale, and where the file says that pixels are padding."""
    from pydicom.pixels.processing import apply_modality_lut

    try:
        stored: npt.NDArray[Any] = dataset.pixel_array
        if stored.ndim == 3:
            stored = grey(stored, source)
        values = np.array(apply_modality_lut(stored, dataset), np.float32)
    except InputError:
        raise
    except Exception as error:  # decoders raise many kinds on damaged or unknown data
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        syntax = getattr(dataset.file_meta.get("TransferSyntaxUID"), "name", "unknown")
        hint = f"its transfer syntax is {syntax}"
        raise InputError.of(source, "pixel data", found=reason, expected="a whole picture", hint=hint) from error
    if "PixelPaddingValue" not in dataset:
        return values, None
    low = high = int(dataset.PixelPaddingValue)
    if "PixelPaddingRangeLimit" in dataset:
        low, high = sorted((low, int(dataset.PixelPaddingRangeLimit)))
    return values, (stored >= low) & (stored <= high)


def _meaning(dataset: Dataset) -> tuple[bool, bool, list[str]]:
    """Whether high values are dense, whether they are linear in X-ray intensity, and what was assumed for that.

    DICOM PS3.3 C.8.11.3 (DX) and C.8.7.1 (XA): PixelIntensityRelationshipSign 1 means that lower values are less X-ray
    intensity; LIN without a sign is proportional to it. MONOCHROME1 shows its lowest value white, and radiographs are
    shown with dense tissue white.
    """
    relationship = str(dataset.get("PixelIntensityRelationship", "") or "")
    sign = dataset.get("PixelIntensityRelationshipSign")
    linear = relationship == "LIN"
    photometric = str(dataset.get("PhotometricInterpretation", "") or "")
    notes = []
    if sign in (1, -1):
        dense_is_high = sign == -1
    elif linear:
        dense_is_high = False
    else:
        if photometric not in ("MONOCHROME1", "MONOCHROME2"):
            notes.append(f"PhotometricInterpretation is {photometric or 'missing'}: MONOCHROME2 was assumed.")
        dense_is_high = photometric != "MONOCHROME1"
        if str(dataset.get("Modality", "")) in FLUOROSCOPY:
            dense_is_high = not dense_is_high
            notes.append("Fluoroscopy without a sign of its intensity: dense tissue was taken to be shown dark.")
    if linear:
        notes.append("Values are linear in X-ray intensity (PixelIntensityRelationship LIN): their log was taken.")
    elif not relationship:
        notes.append("PixelIntensityRelationship is missing: values were taken as they are, no log.")
    return dense_is_high, linear, notes


def _view(dataset: Dataset) -> tuple[str | None, list[str]]:
    position = str(dataset.get("ViewPosition", "") or "").strip().upper()
    view = _VIEWS.get(position)
    if position and view is None:
        return None, [f"ViewPosition {position} is neither AP, PA nor lateral and was ignored."]
    return view, []


def _upright(
    values: npt.NDArray[np.float32], spacing: tuple[float, float] | None, dataset: Dataset
) -> tuple[npt.NDArray[np.float32], tuple[float, float] | None, list[str]]:
    """Turns the picture by its PatientOrientation: head at row 0; patient's right, or front, at column 0."""
    given = [str(code)[:1].upper() for code in (dataset.get("PatientOrientation") or [])]
    if len(given) == 2 and given[0] in _COLUMN_TOWARDS and given[1] in _ROW_TOWARDS:
        values, given = values.T, given[::-1]
        spacing = (spacing[1], spacing[0]) if spacing else None
        notes = ["PatientOrientation says that the picture lies on its side: it was turned."]
    elif len(given) == 2 and given[0] in _ROW_TOWARDS and given[1] in _COLUMN_TOWARDS:
        notes = []
    else:
        return values, spacing, ["PatientOrientation is missing: head up and patient's right at column 0 were assumed."]
    across, down = _ROW_TOWARDS[given[0]], _COLUMN_TOWARDS[given[1]]
    if across < 0:
        notes.append("PatientOrientation says that the picture is mirrored: left and right were swapped.")
    if down < 0:
        notes.append("PatientOrientation says that the head is below: top and bottom were swapped.")
    return values[::down, ::across], spacing, notes
