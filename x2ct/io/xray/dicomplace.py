"""Where a DICOM radiograph was taken from, how it lies, how large its pixels are, and what its shutters hide.

Sources: DICOM PS3.3, C.8.7.5 (XA positioner), C.8.11.5 (DX positioning), C.7.6.11 (display shutter), C.8.7.3 (X-ray
collimator), 10.7.1.3 (pixel spacing calibration). Notes never repeat what identifies a patient.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset

from x2ct.errors import InputError
from x2ct.io.xray.exposure import BoolImage
from x2ct.io.xray.readoptions import DISTANCE_MM, MAGNIFICATION, TILT_DEG, TURNS, Beam

SPACING_MM = (0.02, 5.0)
SIDE_MM = (20.0, 1500.0)
CASSETTE_ASPECT = 0.05  # by which a picture may differ from its cassette: 35 x 43 cm are 14 x 17 inches, nearly
LEAST_EXPOSED = 0.1  # of the picture; shutters that leave less are a mistake, or in millimetres

_VIEWS = {"AP": "ap", "PA": "pa", "LL": "lateral", "RL": "lateral", "LATERAL": "lateral", "LAT": "lateral"}
_MEANINGS = {  # of ViewCodeSequence, which DX has in place of a position or beside it
    "ANTERO-POSTERIOR": "AP",
    "POSTERO-ANTERIOR": "PA",
    "LEFT LATERAL": "LL",
    "RIGHT LATERAL": "RL",
    "LATERAL": "LATERAL",
}
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_MOST_VERTICES = 10_000

Pair = tuple[float, float]


class Header:
    """A frame's elements by keyword: the dataset's own, else those of the frame's or the shared functional groups."""

    def __init__(self, dataset: Dataset, index: int) -> None:
        groups = [*(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]]
        frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
        if index < len(frames):
            groups.insert(0, frames[index])
        self._sets = [dataset]
        for group in groups:
            self._sets += [item for element in group if element.VR == "SQ" for item in element.value[:1]]

    def __contains__(self, key: str) -> bool:
        return any(key in dataset for dataset in self._sets)

    def get(self, key: str) -> Any:
        """Return an element's value, or None."""
        return next((dataset[key].value for dataset in self._sets if key in dataset), None)


def place(header: Header, shape: tuple[int, int], notes: list[str]) -> tuple[Pair | None, Beam, str | None, int]:
    """Return the spacing, beam, view and turn that the header of a picture of (rows, columns) states; append notes.

    The (row, column) spacing is of the picture as stored: on the detector where the beam has its distances, else as if
    in the patient; None where there is none that can be used. The view is "ap", "pa" or "lateral"; the turn (`TURNS`)
    sets the picture upright.
    """
    view, angle, tilt = _looking(header, notes)
    sdd = _within(header, "DistanceSourceToDetector", DISTANCE_MM, "mm", notes)
    sod = _within(header, "DistanceSourceToPatient", DISTANCE_MM, "mm", notes)
    factor = _within(header, "EstimatedRadiographicMagnificationFactor", MAGNIFICATION, "times", notes)
    if sdd is not None and factor is not None:
        sod = sdd / factor
    try:
        beam = Beam(sod, sdd, angle, tilt)
    except InputError:
        notes.append(f"Distances of {sdd:g} mm to detector and {sod:g} mm to patient can't be, and were ignored.")
        beam = Beam(None, None, angle, tilt)
    return _spacing(header, shape, beam.magnification, factor, notes), beam, view, _turn(header, notes)


def _looking(header: Header, notes: list[str]) -> tuple[str | None, float | None, float]:
    """Return the view's name, and the source's angle and tilt where they differ from the view's own."""
    coded = _MEANINGS.get(meaning(header.get("ViewCodeSequence")), "")
    position = str(header.get("ViewPosition") or "").strip().upper() or coded
    view = _VIEWS.get(position)
    if position and view is None:
        notes.append(f"ViewPosition {position[:16]} is neither AP, PA nor lateral and was ignored.")
    primary, secondary = (number(header.get(f"Positioner{axis}Angle")) for axis in ("Primary", "Secondary"))
    if primary is None or not abs(primary) <= 180:
        # RL: the right side at the detector, the source at the left.
        return view, (-90.0 if position == "RL" else None), 0.0
    # The receptor's angle from in front of the patient towards the patient's left (PS3.3 C.8.7.5.1.2); it faces the
    # source.
    angle = 180.0 - primary
    tilt = -(secondary or 0.0)  # the receptor towards the head, the source towards the feet
    if abs(tilt) > TILT_DEG:
        notes.append(f"PositionerSecondaryAngle {secondary:g} is more than {TILT_DEG:g} degrees and was ignored.")
        tilt = 0.0
    notes.append(f"The positioner's angles are {primary:g} and {secondary or 0:g} degrees: the source was put there.")
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    nearest = "lateral" if abs(sine) > abs(cosine) else "ap" if cosine > 0 else "pa"
    return view or nearest, angle, tilt


def _within(header: Header, name: str, limits: tuple[float, float], unit: str, notes: list[str]) -> float | None:
    value = number(header.get(name))
    if value is None or limits[0] <= value <= limits[1]:
        return value
    if value:  # many files fill it with 0
        notes.append(f"{name} is {value:g} {unit}, which no radiograph has, and was ignored.")
    return None


def _spacing(
    header: Header, shape: tuple[int, int], magnification: float | None, factor: float | None, notes: list[str]
) -> Pair | None:
    """Return the spacing on the detector where the beam's magnification is known, else in the patient."""
    spacings = {name: _usable(header, name, shape, notes) for name in _SPACINGS}
    spacing, imager, scanned = spacings.values()
    calibrated = str(header.get("PixelSpacingCalibrationType") or "").upper() in ("GEOMETRY", "FIDUCIAL")
    differs = spacing is not None and imager is not None and not np.allclose(spacing, imager, rtol=1e-3)
    corrected = spacing if calibrated or differs else None  # a size in the patient, and not of the detector's pixels
    detector = imager or (None if corrected else spacing) or scanned or _of_cassette(header, shape, notes)
    if magnification is not None:
        if detector is None and corrected is not None:
            detector = corrected[0] * magnification, corrected[1] * magnification
        if detector is not None:
            notes.append(f"At the patient a pixel measures {1 / magnification:.3g} times what it does on the detector.")
    elif corrected is not None:
        notes.append("PixelSpacing is calibrated for the patient: magnification is taken out already.")
        return corrected
    elif detector is not None and factor is not None:
        notes.append(f"A magnification of {factor:g} was taken out of the pixel spacing.")
        return detector[0] / factor, detector[1] / factor
    elif detector is not None:
        name = next((name for name in _SPACINGS if spacings[name] == detector), "CassetteSize")
        notes.append(f"{name} is that of the detector: magnification was not taken out.")
    elif not any(name in header for name in _SPACINGS):
        notes.append("The file has no pixel spacing.")
    return detector


def _usable(header: Header, name: str, shape: tuple[int, int], notes: list[str]) -> Pair | None:
    if name not in header:
        return None
    value = "empty"
    if pair := _numbers(header.get(name), 2):
        row, column = pair
        if _fits(SPACING_MM, row, column) and _fits(SIDE_MM, row * shape[0], column * shape[1]):
            return row, column
        value = f"{row:g} x {column:g} mm, which no radiograph has,"
    notes.append(f"{name} is {value} and was ignored.")
    return None


def _fits(limits: tuple[float, float], *values: float) -> bool:
    return all(limits[0] <= value <= limits[1] for value in values)


def _of_cassette(header: Header, shape: tuple[int, int], notes: list[str]) -> Pair | None:
    """Return the spacing by the size of a CR cassette whose aspect is the picture's, or None."""
    size = str(header.get("CassetteSize") or "").strip().upper()
    match = re.fullmatch(r"(\d{1,3})(CM|IN)X(\d{1,3})(CM|IN)", size)
    if match is None:
        return None
    sides = sorted(float(match[at]) * (10.0 if match[at + 1] == "CM" else 25.4) for at in (1, 3))
    short, long = (side / pixels for side, pixels in zip(sides, sorted(shape), strict=True))
    if not abs(short / long - 1) <= CASSETTE_ASPECT or not _fits(SPACING_MM, short, long):
        return None
    notes.append(f"CassetteSize is {size}: a pixel was taken to be {long:.3g} mm.")
    return long, long


# ---------------------------------------------------------------------------------------------- how it lies

# The turn that sets a picture upright, by where its rows, and then its columns, run: left, right, foot or head.
# A lateral's column 0 is at the front, so that the back (P) stands for the left there, and the front (A) for the right.
_LYING = {"LF": 1, "RF": 2, "RH": 3, "LH": 4, "FL": 5, "FR": 6, "HR": 7, "HL": 8}
_LATERAL = str.maketrans("PA", "LR")


def _turn(header: Header, notes: list[str]) -> int:
    """Return the turn that puts head and patient's right (or front) at row and column 0, by PatientOrientation."""
    codes = "".join(str(code)[:1].upper() for code in header.get("PatientOrientation") or [])
    turn = _LYING.get(codes.translate(_LATERAL))
    if turn is None:
        notes.append("PatientOrientation is missing: head up and patient's right at column 0 were assumed.")
        return 1
    down, across = TURNS[turn]
    if turn > 4:
        notes.append("PatientOrientation says that the picture lies on its side: it was turned.")
    if across < 0:
        notes.append("PatientOrientation says that the picture is mirrored: left and right were swapped.")
    if down < 0:
        notes.append("PatientOrientation says that the head is below: top and bottom were swapped.")
    return turn


def exposed(dataset: Dataset, shape: tuple[int, int], notes: list[str]) -> BoolImage | None:
    """Return (rows, columns), False under a shutter or collimator; None where the file states none."""
    inside: BoolImage | None = None
    for kind in ("Shutter", "Collimator"):
        value = dataset.get(f"{kind}Shape") or []
        for word in [value] if isinstance(value, str) else value:
            form = str(word).strip().upper()
            part = _inside(dataset, kind, form, shape)
            if part is None or part.mean() < LEAST_EXPOSED:
                notes.append(f"{kind}Shape {form[:16]} can't be read or leaves next to nothing, and was ignored.")
            elif not part.all():
                inside = part if inside is None else inside & part
                notes.append(f"{kind}Shape {form}: {100 * (1 - part.mean()):.2g}% of the pixels lie outside of it.")
    return inside


def _inside(dataset: Dataset, kind: str, form: str, shape: tuple[int, int]) -> BoolImage | None:
    """Return what a shutter leaves, whose first pixel is 1; None where its form can't be read."""
    inside = np.zeros(shape, np.bool_)
    if form == "RECTANGULAR":
        edges = ("UpperHorizontal", "LowerHorizontal", "LeftVertical", "RightVertical")
        if lines := _numbers([dataset.get(f"{kind}{edge}Edge") for edge in edges], 4):
            top, bottom, left, right = (max(round(line), 0) for line in lines)
            inside[max(top - 1, 0) : bottom, max(left - 1, 0) : right] = True
            return inside
    elif form == "CIRCULAR":
        centre = dataset.get(f"CenterOfCircular{kind}") or []
        if circle := _numbers([*centre, dataset.get(f"RadiusOfCircular{kind}")], 3):
            rows, columns = np.ogrid[1 : shape[0] + 1, 1 : shape[1] + 1]
            return np.asarray((rows - circle[0]) ** 2 + (columns - circle[1]) ** 2 <= circle[2] ** 2)
    elif form == "POLYGONAL":
        values = _numbers(dataset.get(f"VerticesOfThePolygonal{kind}") or [])
        if 6 <= len(values) <= 2 * _MOST_VERTICES and len(values) % 2 == 0:
            canvas = Image.fromarray(inside.astype(np.uint8))
            corners = [(column - 1, row - 1) for row, column in zip(values[::2], values[1::2], strict=True)]
            ImageDraw.Draw(canvas).polygon(corners, fill=1, outline=1)
            return np.asarray(canvas, np.bool_)
    return None


def meaning(sequence: Any) -> str:
    """Return the meaning of a code sequence's first item in upper case; coding schemes change, meanings hardly."""
    return str(sequence[0].get("CodeMeaning") or "").strip().upper() if sequence else ""


def number(value: Any) -> float | None:
    """Return an element's value as a finite number, or None."""
    try:
        return result if math.isfinite(result := float(value)) else None
    except (TypeError, ValueError):
        return None


def _numbers(values: Any, count: int | None = None) -> list[float]:
    """Return values as finite numbers; none where one is no number, or where there are not `count` of them."""
    results = [number(value) for value in values] if isinstance(values, Sequence) else []
    finite = [result for result in results if result is not None]
    return finite if len(finite) == len(results) and count in (None, len(results)) else []
