"""Volumes that another system made: a NIfTI a case, brought onto the case's grid by its affine."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import signal
from skimage.transform import downscale_local_mean

from x2ct.data.shards import resample_array
from x2ct.errors import InputError
from x2ct.evaluation.case import Case
from x2ct.evaluation.metrics import FloatArray
from x2ct.io.ct.volume import FORMATS, Volume

FRAMES = ("auto", "patient", "world")
"""What predictions' affines lead to. "patient" mm have their origin in the middle of the case's grid, "world" mm are
those of its CT file; "auto" is the one in which a prediction fills more of the grid, "patient" where both fill as much.
"""
LEAST_COVERED = 0.5  # a prediction that fills less of the case's grid lies somewhere else, or is in another frame
GROSS_MM = 10.0  # a prediction whose best match with the truth is moved by more than this is called misplaced

_COARSE_MM = 5.0


def find(folder: str | PathLike[str]) -> Path:
    """Return the folder of predictions. Raises InputError: it is no folder, or holds no NIfTI file."""
    place = Path(folder)
    if not place.is_dir():
        raise InputError.of(place, "predictions", found="no such folder", expected="a folder of NIfTI files")
    if not any(path.name.lower().endswith(FORMATS["nifti"]) for path in place.iterdir()):
        expected = "files named by case, such as CASE.nii.gz"
        raise InputError.of(place, "predictions", found="no NIfTI file", expected=expected)
    return place


def of_case(folder: Path, case: Case, frame: str) -> tuple[FloatArray | None, list[FloatArray]]:
    """Return a case's prediction CASE.nii.gz, or None, and its samples CASE_000.nii.gz, CASE_001.nii.gz and so on.

    They are HU on the case's grid, air where a file has nothing; affines lead to `frame`, one of `FRAMES`.

    Raises InputError: none of either for this case, the same one twice, or one that can't be used.
    """
    alone = [path for path in (folder / f"{case.id}{suffix}" for suffix in FORMATS["nifti"]) if path.is_file()]
    several = sorted(p for suffix in FORMATS["nifti"] for p in folder.glob(f"{case.id}_[0-9][0-9][0-9]{suffix}"))
    names = [path.name.partition(".nii")[0] for path in (*alone, *several)]
    what = f"predictions of {case.id}"
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError.of(folder, what, found=f"{twice} as .nii and .nii.gz", expected="one of them")
    if not names:
        expected = f"{case.id}.nii.gz, or {case.id}_000.nii.gz and so on"
        raise InputError.of(folder, what, found="none", expected=expected)
    return (read(alone[0], case, frame) if alone else None), [read(path, case, frame) for path in several]


def read(path: Path, case: Case, frame: str = "auto") -> FloatArray:
    """Return one prediction, HU on the case's grid.

    Raises InputError: it can't be read, is not HU, or covers less than half of the case's grid.
    """
    if frame not in FRAMES:
        raise InputError.of("frame", "value", found=frame, expected=" or ".join(FRAMES))
    volume = Volume.load(path)
    affines = {"patient": volume.affine, "world": np.linalg.inv(case.to_world) @ volume.affine}
    shares = {name: _covered(volume.shape, affine, case) for name, affine in affines.items()}
    other = max(shares, key=lambda name: shares[name])
    choice = other if frame == "auto" else frame
    index_to_mm = affines[choice]
    if shares[choice] < LEAST_COVERED:
        found, expected = f"{shares[choice]:.0%} of the case's grid", f"at least {LEAST_COVERED:.0%} in {choice} mm"
        hint = f"are its affines in {other} mm? --frame {other}" if other != choice else ""
        raise InputError.of(path, "affine", found=found, expected=expected, hint=hint)
    if volume.shape == case.grid.shape and np.allclose(index_to_mm, case.grid.index_to_mm, atol=1e-3):
        return volume.hu
    return resample_array(volume.hu, index_to_mm, case.grid)


def misplacement(case: Case, estimate: npt.ArrayLike) -> tuple[float, float, float]:
    """Return the shift along x, y and z, in mm, that the estimate (HU on the case's grid) has against the truth.

    There the cross-correlation of the two, on voxels of about 5 mm and of what is denser than air, is highest.
    """
    grid = case.grid
    steps = [min(n, max(1, round(_COARSE_MM / mm))) for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)]
    truth, estimated = (_density(np.asarray(hu, np.float32), steps) for hu in (case.truth, estimate))
    product = signal.correlate(estimated, truth, method="fft")
    lags = np.subtract(np.unravel_index(int(np.argmax(product)), product.shape), truth.shape) + 1
    x, y, z = (float(lag) * step * mm for lag, step, mm in zip(lags, steps, grid.spacing_mm, strict=True))
    return x, y, z


def misplaced(case: Case, name: str, estimate: npt.ArrayLike) -> str:
    """Return a warning where an estimate is grossly misplaced, else ""."""
    shift = misplacement(case, estimate)
    if float(np.linalg.norm(shift)) <= GROSS_MM:
        return ""
    ways = (("right", "left"), ("front", "back"), ("head", "feet"))
    shifts = " and ".join(f"{abs(mm):.0f} mm to the {way[mm < 0]}" for mm, way in zip(shift, ways, strict=True) if mm)
    return (
        f"{case.id}: the {name} lies {shifts} of the CT, and its figures are those of a misplaced volume: "
        "look at its affine, --frame and --centre"
    )


def _density(hu: FloatArray, steps: list[int]) -> FloatArray:
    """Return density above air, of water 1, averaged over blocks of voxels, its mean removed."""
    whole = hu[tuple(slice(0, n - n % step) for n, step in zip(hu.shape, steps, strict=True))]
    blocks = downscale_local_mean(np.clip(whole / 1000 + 1, 0, 2), tuple(steps))  # type: ignore[no-untyped-call]
    return np.asarray(blocks - blocks.mean(), np.float32)


def _covered(shape: tuple[int, int, int], index_to_mm: npt.NDArray[np.float64], case: Case) -> float:
    """Return the share of every second voxel centre of the grid that lies within the volume's voxels."""
    to_index = np.linalg.inv(index_to_mm) @ case.grid.index_to_mm
    x, y, z = np.meshgrid(*(np.arange(0, n, 2) for n in case.grid.shape), indexing="ij", sparse=True)
    places = (row[0] * x + row[1] * y + row[2] * z + row[3] for row in to_index[:3])
    inside = [(at > -0.5 - 1e-6) & (at < size - 0.5 + 1e-6) for at, size in zip(places, shape, strict=True)]
    return float(np.logical_and.reduce(inside).mean())
