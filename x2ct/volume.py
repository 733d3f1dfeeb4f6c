"""A CT volume: HU on a grid with its place in the world. NIfTI, DICOM series, NRRD and MetaImage in; NIfTI out.

Whatever a file's axis order, the array that comes out is indexed (x, y, z) and closest to RAS+: indices grow towards
the patient's right, front and head. An oblique affine keeps its rotation; only axes are permuted and flipped.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from x2ct import output
from x2ct.errors import InputError, MissingRuntimeError

if TYPE_CHECKING:
    import nibabel as nib

FloatArray = npt.NDArray[np.float64]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".mha", ".mhd")
MAX_VOXELS = 1_000_000_000  # 4 GB of float32; checked in the header, before anything is decoded
SYNTHETIC = "synthetic CT by x2ct, not for diagnosis"

AIR_HU = -1000.0
LOWEST_HU = -1024.0  # what 12-bit scanners store as air; anything below is padding
HIGHEST_HU = 32767.0
SPACING_MM = (0.01, 50.0)

_NIFTI_OFFSET = 352  # the header, and four bytes that say that no extension follows
_SLAB = 16  # slices that are written at a time
_TRAILING_BYTES = 1 << 20  # what may follow the voxels; more is not read
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume.

    Attributes:
        hu: float32 HU, indexed (x, y, z), closest to RAS+.
        affine: 4x4 float64, voxel index -> world mm (RAS+).
        source: the file or folder that it was read from, or what made it.
        original_orientation: the axis codes before the array was turned ("LPS"); "RAS" where nothing was turned.
        description: free text; the first 79 characters go into a NIfTI's `descrip`.
        notes: what was assumed or changed on reading, one sentence each.

    Raises:
        InputError: an array that is not 3-D, or an affine that is not a finite, invertible 4x4.
    """

    hu: npt.NDArray[np.float32]
    affine: FloatArray
    source: str = "array"
    original_orientation: str = "RAS"
    description: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "hu", np.asarray(self.hu, np.float32))
        object.__setattr__(self, "affine", np.array(self.affine, np.float64))
        _check_shape(self.source, self.hu.shape)
        _check_affine(self.source, self.affine)

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
        """Reads a CT and turns it to RAS+.

        Args:
            path: a NIfTI file (.nii, .nii.gz), a folder that holds one DICOM series, or an .nrrd, .mha or .mhd file.

        Raises:
            InputError: the file is missing, damaged, of another kind, not 3-D, past MAX_VOXELS, or not HU.
            MissingRuntimeError: SimpleITK is needed for the format and not installed.
        """
        source = Path(path)
        name = source.name.lower()
        if source.is_dir():
            from x2ct.dicomseries import read_series

            values, affine, notes = read_series(source)
        elif not source.exists():
            raise InputError.of(source, "file", found="no such file or folder", expected="a CT")
        elif name.endswith(NIFTI_SUFFIXES):
            values, affine, notes = _read_nifti(source)
        elif name.endswith(ITK_SUFFIXES):
            values, affine, notes = _read_itk(source)
        else:
            hint = "a DICOM series is given as its folder" if name.endswith((".dcm", ".ima")) else ""
            expected = ", ".join((*NIFTI_SUFFIXES, *ITK_SUFFIXES)) + " or a DICOM folder"
            raise InputError.of(source, "format", found=source.suffix or "no ending", expected=expected, hint=hint)
        _check_shape(source, values.shape)
        _check_affine(source, affine)
        hu, more = plausible_hu(values, source)
        hu, affine, original = to_ras(hu, affine)
        return cls(hu, affine, str(source), original, "", (*notes, *more))

    def save(self, path: str | PathLike[str], *, synthetic: bool = False) -> Path:
        """Writes a NIfTI of int16 HU whose sform and qform are the affine, whole or not at all.

        The same volume gives the same bytes: no time, host or file name goes into the file.

        Args:
            path: ends with .nii or .nii.gz.
            synthetic: whether the description must say that this is no scan of a person.

        Raises:
            InputError: a wrong ending, or a place that can't be written (see `check_writable`).
            X2CTError: the write failed on the way, as on a full disk.
        """
        target = check_writable(path)
        parts = self._nifti(synthetic)
        return output.write_atomically(target, _gzip(parts) if target.name.lower().endswith(".gz") else parts)

    def _nifti(self, synthetic: bool) -> Iterator[bytes]:
        """The file, slab by slab: a large volume is never there a second time."""
        import nibabel as nib

        header = nib.Nifti1Header()
        header.set_data_dtype(np.int16)
        header.set_data_shape(self.shape)
        header.set_xyzt_units("mm")
        header.set_sform(self.affine, code="scanner")
        header.set_qform(self.affine, code="scanner", strip_shears=True)
        text = "; ".join(part for part in (SYNTHETIC if synthetic else "", self.description) if part)
        header["descrip"] = text.encode("ascii", "replace")[:79]
        header["vox_offset"], header["magic"] = _NIFTI_OFFSET, b"n+1"
        header["scl_slope"], header["scl_inter"] = np.nan, np.nan
        yield header.binaryblock + bytes(_NIFTI_OFFSET - len(header.binaryblock))
        limits = np.iinfo(np.int16)
        for at in range(0, self.shape[2], _SLAB):
            slab = np.clip(np.rint(self.hu[:, :, at : at + _SLAB]), limits.min, limits.max).astype("<i2")
            yield slab.tobytes(order="F")  # x is the fastest in a NIfTI


def _gzip(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Gzip without a time or a name in it, or the same volume would differ in its bytes from one second to the next."""
    import zlib

    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


def check_writable(path: str | PathLike[str]) -> Path:
    """Raises InputError, before a long run, when a volume can't be saved at `path` (see `output.check_writable`)."""
    return output.check_writable(path, NIFTI_SUFFIXES)


def to_ras(values: npt.NDArray[np.float32], affine: FloatArray) -> tuple[npt.NDArray[np.float32], FloatArray, str]:
    """Permutes and flips axes so that they are closest to RAS+; a rotation that is left stays in the affine.

    Args:
        values: (i, j, k) in any axis order.
        affine: its 4x4, index -> RAS+ mm.

    Returns:
        (x, y, z) values (C-contiguous), their affine, and the original axis codes, such as "LPS".
    """
    from nibabel import orientations

    turn = orientations.io_orientation(affine)
    codes = "".join(str(code) for code in orientations.ornt2axcodes(turn))
    turned = np.ascontiguousarray(orientations.apply_orientation(values, turn))
    return turned, affine @ orientations.inv_ornt_aff(turn, values.shape), codes


def plausible_hu(
    values: npt.NDArray[Any], source: str | PathLike[str]
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Checks that values can be HU, and repairs the two faults that are common and certain.

    Values below -1024 are padding outside the scanner's field of view and become -1024. Stored values whose rescale
    intercept was lost (nothing negative, air at 0, soft tissue around 1024) are shifted by -1024. Both are noted.

    Args:
        values: real numbers of any shape.
        source: what error lines name.

    Returns:
        float32 HU and the notes.

    Raises:
        InputError: non-finite values, a range below 50 or values past int16, none of which is HU.
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
        if _looks_unshifted(hu):
            hu = hu - np.float32(1024)
            notes.append("Nothing is negative and tissue lies around 1024: the rescale intercept of -1024 was added.")
        else:
            notes.append(f"No value is below 0 (0 HU is water): {lowest:g} to {highest:g} was taken as HU as it is.")
    if lowest < LOWEST_HU:
        share = np.count_nonzero(hu < LOWEST_HU) / hu.size
        hu = np.maximum(hu, np.float32(LOWEST_HU))
        notes.append(f"{100 * share:.2g}% of the voxels lay below -1024 HU (padding) and were set to -1024.")
    return hu, tuple(notes)


def _looks_unshifted(hu: npt.NDArray[np.float32]) -> bool:
    sample = hu.reshape(-1)[:: max(1, hu.size // 1_000_000)]
    air, tissue = np.mean(sample < 200), np.mean((sample > 850) & (sample < 1200))
    return bool(air > 0.01 and tissue > 0.05)


def _check_shape(source: str | PathLike[str], shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or min(shape) < 2:
        found = " x ".join(map(str, shape)) or "a single number"
        raise InputError.of(source, "shape", found=found, expected="three axes of 2 or more voxels")
    voxels = int(np.prod(shape, dtype=np.int64))
    if voxels > MAX_VOXELS:
        raise InputError.of(source, "size", found=f"{voxels} voxels", expected=f"at most {MAX_VOXELS}")


def _check_affine(source: str | PathLike[str], affine: FloatArray) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise InputError.of(source, "affine", found=affine.tolist(), expected="a finite 4x4 with last row 0 0 0 1")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    lowest, highest = SPACING_MM
    if spacing.min() < lowest or spacing.max() > highest:
        found = " x ".join(f"{length:g}" for length in spacing) + " mm"
        raise InputError.of(source, "voxel size", found=found, expected=f"{lowest:g} to {highest:g} mm")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 0.1:
        raise InputError.of(source, "affine", found="axes that lie in a plane", expected="three independent axes")


def _read_nifti(source: Path) -> tuple[npt.NDArray[Any], FloatArray, tuple[str, ...]]:
    import zlib

    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    damage = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, OverflowError)
    try:
        image = nib.load(source)
    except damage as error:
        raise _damaged(source, error) from error
    if not isinstance(image, nib.Nifti1Image):
        raise InputError.of(source, "file", found=type(image).__name__, expected="a NIfTI")
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError.of(source, "data type", found=dtype, expected="real numbers")
    shape = image.shape
    if len(shape) > 3 and set(shape[3:]) == {1}:
        shape = shape[:3]
    _check_shape(source, shape)
    try:
        if source.name.lower().endswith(".gz"):
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            offset = min(int(image.header.get_data_offset()), _TRAILING_BYTES)
            image = type(image).from_stream(_unzipped(source, offset + size))
        values = image.get_fdata(caching="unchanged", dtype=np.float32).reshape(shape)
    except damage as error:
        raise _damaged(source, error) from error
    affine, notes = _nifti_affine(image)
    return values, affine, notes


def _unzipped(source: Path, size: int) -> io.BytesIO:
    """A .gz file's content. Read to its end, where its checksum is: nibabel stops before it and misses damage."""
    import gzip

    with gzip.open(source) as stream:
        return io.BytesIO(stream.read(size + _TRAILING_BYTES))


def _nifti_affine(image: nib.Nifti1Image) -> tuple[FloatArray, tuple[str, ...]]:
    header = image.header
    affine = np.array(image.affine, np.float64)
    notes = []
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        notes.append("The header has neither sform nor qform: the patient's left was taken where x indices grow.")
    unit, millimetres = {1: ("metres", 1000.0), 3: ("microns", 0.001)}.get(int(header["xyzt_units"]) & 7, ("mm", 1.0))
    if unit != "mm":
        affine[:3] *= millimetres
        notes.append(f"The header gives lengths in {unit}; they were turned to mm.")
    return affine, tuple(notes)


def _read_itk(source: Path) -> tuple[npt.NDArray[Any], FloatArray, tuple[str, ...]]:
    try:
        import SimpleITK as sitk
    except ImportError as error:
        raise MissingRuntimeError(f"{source}: {source.suffix} needs SimpleITK; pip install SimpleITK") from error

    reader: Any = sitk.ImageFileReader()  # SimpleITK ships no usable types
    reader.SetFileName(str(source))
    try:
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1:
            raise InputError.of(source, "channels", found=reader.GetNumberOfComponents(), expected=1)
        _check_shape(source, tuple(reader.GetSize()))
        image = reader.Execute()
    except RuntimeError as error:
        raise _damaged(source, error) from error
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    values = sitk.GetArrayViewFromImage(image).transpose(2, 1, 0).copy()
    return values, _LPS_TO_RAS @ affine, ()


def _damaged(source: Path, error: Exception) -> InputError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = lines[-1].replace(str(source), "").strip(" :")[:160]
    found = "an empty file" if source.exists() and source.stat().st_size == 0 else f"what can't be read ({reason})"
    return InputError.of(source, "file", found=found, expected="a whole file", hint="was the copy cut short?")
