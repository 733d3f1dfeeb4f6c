"""A DICOM CT series in a folder: found, checked, put in order along its normal, rescaled to HU.

Error lines and notes name files, series numbers and geometry, never what identifies a patient.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset
from pydicom.pixels.processing import apply_rescale

from x2ct.errors import InputError
from x2ct.files.text import readable
from x2ct.io.ct.volume import LPS_TO_RAS, FloatArray, Stored, check_shape
from x2ct.io.dicom_frames import frame_values

MAX_FILES = 20_000
POSITION_MM = 0.11  # positions are often written with one decimal
SPACING_SHARE = 0.05  # of the median gap, that a gap may differ from it

_PLACE = {"PixelSpacing": 2, "ImageOrientationPatient": 6, "ImagePositionPatient": 3}  # and how many numbers each has
_HEADER_TAGS = ["SeriesInstanceUID", "SeriesNumber", "Modality", "ImageType", "NumberOfFrames", "SamplesPerPixel"]
_HEADER_TAGS += ["Rows", "Columns", "SyntheticData", *_PLACE]


class _Slice(NamedTuple):
    path: Path
    header: Dataset
    spacing: tuple[float, ...]
    orientation: tuple[float, ...]
    position: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return int(self.header.Rows), int(self.header.Columns)


def read_series(folder: Path) -> Stored:
    """Read the one CT series in a folder and its subfolders, as HU indexed (column, row, slice).

    Files that are no DICOM images, and scouts, are passed over. Raises InputError: no series or several, a missing or
    doubled slice, uneven gaps, slices of different shape or orientation, more than MAX_VOXELS, a multi-frame or colour
    object, another modality than CT, or a slice that can't be decoded.
    """
    slices, skipped = _scan(folder)
    _check_alike(folder, slices)
    slices, step = _in_order(folder, slices)
    first = slices[0]
    shape = (*first.shape[::-1], len(slices))
    check_shape(folder, shape)
    hu = np.empty(shape, np.float32)
    for index, item in enumerate(slices):
        hu[:, :, index] = _pixels(item).T
    row_cosine, column_cosine = np.reshape(first.orientation, (2, 3))
    affine = np.eye(4)
    affine[:3, 0] = row_cosine * first.spacing[1]  # the column index runs along a row
    affine[:3, 1] = column_cosine * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    notes = []
    if skipped:
        notes.append(f"{skipped} files in the folder are no slices of the series and were passed over.")
    normal = np.cross(row_cosine, column_cosine)
    tilt = np.degrees(np.arccos(min(1.0, abs(float(step @ normal)) / float(np.linalg.norm(step)))))
    if tilt > 0.5:
        notes.append(f"Slices are stacked at {tilt:.1f} degrees to their normal (gantry tilt); the affine keeps it.")
    return Stored(hu, LPS_TO_RAS @ affine, tuple(notes), str(first.header.get("SyntheticData", "")) == "YES")


def _scan(folder: Path) -> tuple[list[_Slice], int]:
    """Return the slices in a folder, and how many files are none."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if len(files) > MAX_FILES:
        raise InputError.of(folder, "folder", found=f"{len(files)} files", expected=f"at most {MAX_FILES}")
    slices, skipped, other_modality = [], 0, ""
    for path in files:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
            scout = "LOCALIZER" in (header.get("ImageType") or ())
            modality, rows, columns = str(header.get("Modality", "")), header.get("Rows"), header.get("Columns")
        except Exception:  # no DICOM, or a damaged one: pydicom raises many kinds
            skipped += 1
            continue
        if modality != "CT" or scout or not isinstance(rows, int) or not isinstance(columns, int):
            skipped += 1
            other_modality = modality if modality != "CT" else other_modality
            continue
        with readable(path):
            slices.append(_slice(path, header))
    if not slices:
        text = f"{len(files)} files, none a CT slice" + (f" (but Modality {other_modality})" if other_modality else "")
        raise InputError.of(folder, "folder", found=text, expected="the slices of one CT series")
    return slices, skipped


def _slice(path: Path, header: Dataset) -> _Slice:
    list(header)  # each element is converted here, and not where it is first used
    for name in ("NumberOfFrames", "SamplesPerPixel"):
        if (header.get(name) or 1) != 1:
            raise InputError.of(path, name, found=header.get(name), expected="1: one grey slice a file")
    return _Slice(path, header, *(_numbers(path, header, name, count) for name, count in _PLACE.items()))


def _numbers(path: Path, header: Dataset, name: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in header[name].value)
    except (KeyError, TypeError, ValueError):
        values = ()
    if len(values) != count or not np.isfinite(values).all():
        raise InputError.of(path, name, found="none that can be read", expected=f"{count} numbers")
    return values


def _check_alike(folder: Path, slices: list[_Slice]) -> None:
    """Raise InputError where slices are not one series of one shape, spacing and orientation."""
    series: dict[str, list[_Slice]] = defaultdict(list)
    for item in slices:
        series[str(item.header.get("SeriesInstanceUID", ""))].append(item)
    if len(series) > 1:
        names = "; ".join(
            f"series {one[0].header.get('SeriesNumber', '?')} "
            f"({len(one)} slices, {one[0].path.relative_to(folder)} ...)"
            for one in list(series.values())[:6]
        )
        more = f"; and {len(series) - 6} more" if len(series) > 6 else ""
        hint = "put one series in a folder of its own"
        raise InputError.of(folder, "folder", found=f"{len(series)} series: {names}{more}", expected="one", hint=hint)
    if len(slices) < 2:
        raise InputError.of(folder, "folder", found="1 slice", expected="a series of 2 or more")
    first, field = slices[0], "ImageOrientationPatient"
    cosines = np.reshape(first.orientation, (2, 3))
    if not np.allclose(cosines @ cosines.T, np.eye(2), atol=1e-3):
        raise InputError.of(first.path, field, found=first.orientation, expected="two orthogonal unit vectors")
    for item in slices[1:]:
        if item.shape != first.shape:
            found, expected = (f"{columns} x {rows}" for rows, columns in (item.shape, first.shape))
            expected += f" as in {first.path.name}"
            raise InputError.of(item.path, "Columns x Rows", found=found, expected=expected)
        if not np.allclose(item.spacing, first.spacing, rtol=1e-3):
            raise InputError.of(item.path, "PixelSpacing", found=item.spacing, expected=first.spacing)
        if not np.allclose(item.orientation, first.orientation, atol=1e-3):
            expected, hint = f"{first.orientation} as in {first.path.name}", "is a scout in the folder?"
            raise InputError.of(item.path, field, found=item.orientation, expected=expected, hint=hint)


def _in_order(folder: Path, slices: list[_Slice]) -> tuple[list[_Slice], FloatArray]:
    """Return the slices by their position along the normal, and the step in LPS mm from one to the next."""
    row_cosine, column_cosine = np.reshape(slices[0].orientation, (2, 3))
    normal = np.cross(row_cosine, column_cosine)
    heights = np.asarray([np.dot(item.position, normal) for item in slices])
    order = np.argsort(heights, kind="stable")
    slices, heights = [slices[index] for index in order], heights[order]
    gaps = np.diff(heights)
    if gaps.min() < 0.01:
        index = int(gaps.argmin())
        found = f"{slices[index].path.name} and {slices[index + 1].path.name} at the same position"
        hint = "are two reconstructions or phases mixed?"
        raise InputError.of(folder, "ImagePositionPatient", found=found, expected="one slice a position", hint=hint)
    median = float(np.median(gaps))
    if np.abs(gaps - median).max() > max(SPACING_SHARE * median, min(POSITION_MM, 0.3 * median)):
        index = int(np.abs(gaps - median).argmax())
        between = f"{gaps[index]:.4g} mm between {slices[index].path.name} and {slices[index + 1].path.name}"
        hint = "a slice is missing" if gaps[index] > 1.5 * median else "the slices are unevenly spaced"
        raise InputError.of(folder, "slice spacing", found=between, expected=f"{median:.4g} mm throughout", hint=hint)
    step = (np.asarray(slices[-1].position) - np.asarray(slices[0].position)) / (len(slices) - 1)
    return slices, step


def _pixels(item: _Slice) -> npt.NDArray[np.float32]:
    """Return one slice's HU, (rows, columns); the pixel padding value becomes air."""
    with readable(item.path):
        dataset = pydicom.dcmread(item.path)
        stored = frame_values(item.path, dataset)
        hu = np.asarray(apply_rescale(stored, dataset), np.float32)
    if hu.shape != item.shape:
        raise InputError.of(item.path, "pixel data", found=hu.shape, expected=item.shape)
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        hu[stored == padding] = -1024.0
    return hu
