"""A CT volume: HU on a grid with its place in the world. NIfTI, DICOM series, NRRD and MetaImage in and out.

Whatever a file's axis order, the array that comes out is indexed (x, y, z) and closest to RAS+: indices grow towards
the patient's right, front and head. An oblique affine keeps its rotation; only axes are permuted and flipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.files.text import readable

FloatArray = npt.NDArray[np.float64]

FORMATS = {"nifti": (".nii", ".nii.gz"), "nrrd": (".nrrd",), "mha": (".mha",), "dicom": ()}
"""What can be written, and the endings of its files; a DICOM series is a folder."""
_WRITTEN = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
SUFFIXES = (*_WRITTEN, ".mhd")
"""What can be read; an .mhd is not written: it is two files, which can't appear at once."""

MAX_VOXELS = 1_000_000_000  # 4 GB of float32; checked in the header, before anything is decoded
SPACING_MM = (0.01, 50.0)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM and ITK count world mm towards the patient's left and back, NIfTI and x2ct towards right and front."""

SYNTHETIC = "synthetic CT by x2ct, not for diagnosis"
"""What a file says that is no scan of a patient; a reader knows it again by this."""

AIR_HU = -1000.0
LOWEST_HU = -1024.0  # what 12-bit scanners store as air; anything below is padding
HIGHEST_HU = 32767.0


class Stored(NamedTuple):
    """A CT as a file holds it."""

    values: npt.NDArray[Any]  # (i, j, k) in the file's order of axes
    affine: FloatArray  # 4x4 from that index to RAS+ mm
    notes: tuple[str, ...] = ()  # what was assumed on reading
    synthetic: bool = False  # whether the file says that it is no scan of a patient


class Origin(NamedTuple):
    """What a synthetic CT was made of, as a DICOM series says it."""

    xrays: tuple[Path, ...] = ()  # of those that are DICOM, patient and study are copied, and images referred to
    model: str = ""  # its name and checksum


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume: float32 HU indexed (x, y, z), closest to RAS+, and the 4x4 from voxel index to world mm (RAS+).

    Raises InputError: an array that is not 3-D, or an affine that is not a finite, invertible 4x4.
    """

    hu: npt.NDArray[np.float32]
    affine: FloatArray
    source: str = "array"  # the file or folder that it was read from, or what made it
    original_orientation: str = "RAS"  # the axis codes ("LPS") before the array was turned, where it was
    description: str = ""  # free text; the first 79 characters go into a NIfTI's `descrip`
    notes: tuple[str, ...] = ()  # what was assumed or changed on reading, one sentence each
    synthetic: bool = False  # whether it is known to be no scan of a patient; files that it is written to say so

    def __post_init__(self) -> None:
        object.__setattr__(self, "hu", np.asarray(self.hu, np.float32))
        object.__setattr__(self, "affine", np.array(self.affine, np.float64))
        check_shape(self.source, self.hu.shape)
        check_affine(self.source, self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = self.hu.shape
        return x, y, z

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The length of a voxel along x, y and z, in mm."""
        x, y, z = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Volume:
        """Read a CT and turn it to RAS+: NIfTI (.nii, .nii.gz), .nrrd, .mha, .mhd, or a folder of one DICOM series.

        Raises InputError: the file is missing, damaged, of another kind, not 3-D, past MAX_VOXELS, or not HU.
        """
        source = Path(path)
        name = source.name.lower()
        read: Callable[[Path], Stored]
        if source.is_dir():
            from x2ct.io.ct import dicomseries

            read = dicomseries.read_series
        elif not source.exists():
            raise InputError.of(source, "file", found="no such file or folder", expected="a CT")
        elif name.endswith(FORMATS["nifti"]):
            from x2ct.io.ct import nifti

            read = nifti.read_nifti
        elif name.endswith(SUFFIXES):
            from x2ct.io.ct import itk

            read = itk.read_itk
        else:
            hint = "a DICOM series is given as its folder" if name.endswith((".dcm", ".ima")) else ""
            expected = ", ".join(SUFFIXES) + " or a DICOM folder"
            raise InputError.of(source, "format", found=source.suffix or "no ending", expected=expected, hint=hint)
        with readable(source):
            stored = read(source)
        check_shape(source, stored.values.shape)
        check_affine(source, stored.affine)
        hu, more = plausible_hu(stored.values, source)
        hu, affine, original = to_ras(hu, stored.affine)
        return cls(hu, affine, str(source), original, "", (*stored.notes, *more), stored.synthetic)

    def save(
        self, path: str | PathLike[str], *, synthetic: bool = False, kind: str = "auto", origin: Origin | None = None
    ) -> Path:
        """Write int16 HU with their place in the world, whole or not at all. The same volume gives the same bytes.

        `kind` is one of `FORMATS`, or "auto" for what the path's ending says. With `synthetic`, the file says that it
        is no scan of a patient, though the volume does not know; a DICOM series also says of what `origin`. Raises
        InputError as `check_writable` does, and X2CTError where the write fails on the way, as on a full disk.
        """
        kind, synthetic = check_writable(path, kind), synthetic or self.synthetic
        text = "; ".join(part for part in (SYNTHETIC if synthetic else "", self.description) if part)
        if kind == "nifti":
            from x2ct.io.ct import nifti

            return nifti.write_nifti(self.hu, self.affine, text, Path(path))
        if kind != "dicom":
            from x2ct.io.ct import itk

            return itk.write_itk(self.hu, self.affine, text, Path(path))
        from x2ct.io.ct import dicomexport

        made_of = origin or (Origin() if synthetic else None)
        return dicomexport.write_series(self.hu, self.affine, path, description=text, origin=made_of)


def check_writable(path: str | PathLike[str], kind: str = "auto") -> str:
    """Return the kind of file (one of `FORMATS`) that a volume at `path` will be, before a long run.

    `kind` is one of `FORMATS`, or "auto" for what the ending says; a folder ("dicom") has to be asked for. Raises
    InputError: an unknown kind, an ending that is not the kind's, or a place that can't be written.
    """
    if kind not in ("auto", *FORMATS):
        raise InputError.of("--format", "value", found=kind, expected=f"auto, {', '.join(FORMATS)}")
    if kind == "dicom":
        atomic.check_new_folder(path)
        return kind
    name = atomic.check_writable(path, FORMATS.get(kind, _WRITTEN)).name.lower()
    return next(kind for kind, endings in FORMATS.items() if endings and name.endswith(endings))


def stem_and_ending(name: str) -> tuple[str, str]:
    """Return a file's name before and from the ending that says its format: "ct.nii.gz" is "ct" and ".nii.gz"."""
    before = len(name) - max((len(suffix) for suffix in _WRITTEN if name.lower().endswith(suffix)), default=0)
    return name[:before], name[before:]


def check_shape(source: str | PathLike[str], shape: tuple[int, ...]) -> None:
    """Raise InputError unless there are three axes and at most MAX_VOXELS."""
    if len(shape) != 3 or min(shape) < 2:
        found = " x ".join(map(str, shape)) or "a single number"
        raise InputError.of(source, "shape", found=found, expected="three axes of 2 or more voxels")
    voxels = math.prod(map(int, shape))  # of Python's own numbers: a header's may be past 64 bits
    if voxels > MAX_VOXELS:
        raise InputError.of(source, "size", found=f"{voxels} voxels", expected=f"at most {MAX_VOXELS}")


def check_affine(source: str | PathLike[str], affine: FloatArray) -> None:
    """Raise InputError unless a 4x4 to mm has plausible voxel sizes and three independent axes."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise InputError.of(source, "affine", found=affine.tolist(), expected="a finite 4x4 with last row 0 0 0 1")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    lowest, highest = SPACING_MM
    if spacing.min() < lowest or spacing.max() > highest:
        found = " x ".join(f"{length:g}" for length in spacing) + " mm"
        raise InputError.of(source, "voxel size", found=found, expected=f"{lowest:g} to {highest:g} mm")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 0.1:
        raise InputError.of(source, "affine", found="axes that lie in a plane", expected="three independent axes")


def int16_hu(hu: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Return HU as files hold them: rounded to whole numbers, clipped to the range of int16."""
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(hu), limits.min, limits.max).astype(np.int16)


def to_ras(values: npt.NDArray[np.float32], affine: FloatArray) -> tuple[npt.NDArray[np.float32], FloatArray, str]:
    """Permute and flip the axes of (i, j, k) values so that they are closest to RAS+; `affine` is 4x4 to RAS+ mm.

    Returns (x, y, z) values (C-contiguous), their affine, with the rotation that is left, and the original axis codes,
    such as "LPS".
    """
    from nibabel import orientations

    turn = orientations.io_orientation(affine)
    codes = "".join(str(code) for code in orientations.ornt2axcodes(turn))
    turned = np.ascontiguousarray(orientations.apply_orientation(values, turn))
    return turned, affine @ orientations.inv_ornt_aff(turn, values.shape), codes


def plausible_hu(
    values: npt.NDArray[Any], source: str | PathLike[str]
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Return float32 HU of real numbers of any shape, and notes; repair the two faults that are common and certain.

    Values below -1024 are padding outside the scanner's field of view and become -1024. Stored values whose rescale
    intercept was lost (nothing negative, air at 0, soft tissue around 1024) are shifted by -1024. Raises InputError for
    values that are not finite, range over less than 50, or are past int16: none of these is HU.
    """
    hu = np.asarray(values, np.float32)
    lowest, highest = float(hu.min()), float(hu.max())
    if not np.isfinite(lowest + highest) or not np.isfinite(hu).all():
        bad = int(np.count_nonzero(~np.isfinite(hu)))
        raise InputError.of(source, "values", found=f"{bad} voxels NaN or infinite", expected="finite HU")
    if highest - lowest < 50:
        hint = "a mask, or an image scaled to 0..1?" if highest > lowest else "is the file empty?"
        raise InputError.of(source, "values", found=f"{lowest:g} to {highest:g}", expected="HU of a CT", hint=hint)
    if highest > HIGHEST_HU or lowest < -HIGHEST_HU - 1:
        raise InputError.of(source, "values", found=f"{lowest:g} to {highest:g}", expected="HU that int16 can hold")
    notes: list[str] = []
    if lowest >= 0 and highest > 1000:
        sample = hu.reshape(-1)[:: max(1, hu.size // 1_000_000)]
        air, tissue = np.mean(sample < 200), np.mean((sample > 850) & (sample < 1200))
        if air > 0.01 and tissue > 0.05:
            hu = hu - np.float32(1024)
            notes.append("Nothing is negative and tissue lies around 1024: the rescale intercept of -1024 was added.")
        else:
            notes.append(f"No value is below 0 (0 HU is water): {lowest:g} to {highest:g} was taken as HU as it is.")
    if lowest < LOWEST_HU:
        share = np.count_nonzero(hu < LOWEST_HU) / hu.size
        hu = np.maximum(hu, np.float32(LOWEST_HU))
        notes.append(f"{100 * share:.2g}% of the voxels lay below -1024 HU (padding) and were set to -1024.")
    return hu, tuple(notes)
