"""Volumes that another system made: a NIfTI a case, brought onto the case's grid by its affine."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from x2ct.data.shards import resample_array
from x2ct.errors import InputError
from x2ct.evaluation.case import Case
from x2ct.volume import Volume
from x2ct.volumes.nifti import SUFFIXES as NIFTI_SUFFIXES

FloatArray = npt.NDArray[np.float32]

FRAMES = ("patient", "world")
LEAST_COVERED = 0.5
"""A prediction that fills less of the case's grid lies somewhere else, or is in another frame."""


def find(folder: str | PathLike[str]) -> Path:
    """The folder of predictions.

    Raises:
        InputError: it is no folder, or holds no NIfTI file.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError.of(place, "predictions", found="no such folder", expected="a folder of NIfTI files")
    if not any(path.name.lower().endswith(NIFTI_SUFFIXES) for path in place.iterdir()):
        expected = "files named by case, such as CASE.nii.gz"
        raise InputError.of(place, "predictions", found="no NIfTI file", expected=expected)
    return place


def of_case(folder: Path, case: Case, frame: str) -> tuple[FloatArray | None, list[FloatArray]]:
    """A case's prediction CASE.nii.gz, and its samples CASE_000.nii.gz, CASE_001.nii.gz, ...; either or both.

    Args:
        folder: where they are.
        case: whose.
        frame: what their affines lead to: "patient" mm, whose origin is the middle of the case's grid (as in what
            `x2ct sample` writes), or the "world" mm of the case's CT file.

    Returns:
        HU on the case's grid, air where the file has nothing; None where there is no CASE.nii.gz.

    Raises:
        InputError: none of either for this case, the same one twice, or one that can't be used.
    """
    alone = [path for path in (folder / f"{case.id}{suffix}" for suffix in NIFTI_SUFFIXES) if path.is_file()]
    several = sorted(p for suffix in NIFTI_SUFFIXES for p in folder.glob(f"{case.id}_[0-9][0-9][0-9]{suffix}"))
    names = [path.name.partition(".nii")[0] for path in (*alone, *several)]
    what = f"predictions of {case.id}"
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError.of(folder, what, found=f"{twice} as .nii and .nii.gz", expected="one of them")
    if not names:
        expected = f"{case.id}.nii.gz, or {case.id}_000.nii.gz and so on"
        raise InputError.of(folder, what, found="none", expected=expected)
    return (read(alone[0], case, frame) if alone else None), [read(path, case, frame) for path in several]


def read(path: Path, case: Case, frame: str = "patient") -> FloatArray:
    """One prediction, HU on the case's grid.

    Raises:
        InputError: it can't be read, is not HU, or covers less than half of the case's grid.
    """
    if frame not in FRAMES:
        raise InputError.of("frame", "value", found=frame, expected=" or ".join(FRAMES))
    volume = Volume.load(path)
    to_patient = np.eye(4) if frame == "patient" else np.linalg.inv(case.to_world)
    index_to_mm = to_patient @ volume.affine
    covered = _covered(volume.shape, index_to_mm, case)
    if covered < LEAST_COVERED:
        other = FRAMES[1 - FRAMES.index(frame)]
        raise InputError.of(
            path,
            "affine",
            found=f"{covered:.0%} of the case's grid",
            expected=f"at least {LEAST_COVERED:.0%} in {frame} mm",
            hint=f"are its affines in {other} mm? --frame {other}",
        )
    if volume.shape == case.grid.shape and np.allclose(index_to_mm, case.grid.index_to_mm, atol=1e-3):
        return volume.hu
    return resample_array(volume.hu, index_to_mm, case.grid)


def _covered(shape: tuple[int, int, int], index_to_mm: npt.NDArray[np.float64], case: Case) -> float:
    """The share of the grid's voxel centres that lie within the volume, to its voxels' outer faces."""
    to_index = np.linalg.inv(index_to_mm) @ case.grid.index_to_mm
    axes = np.meshgrid(*(np.arange(0, n, 2) for n in case.grid.shape), indexing="ij", sparse=True)
    inside = np.ones([len(axis.ravel()) for axis in axes], np.bool_)
    for row, size in zip(to_index[:3], shape, strict=True):
        at = sum(weight * axis for weight, axis in zip(row[:3], axes, strict=True)) + row[3]
        inside &= (at > -0.5 - 1e-6) & (at < size - 0.5 + 1e-6)
    return float(inside.mean())
