"""NIfTI files of CT volumes: read whole or refused, written slab by slab and the same to the byte each time."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.io.ct.volume import SYNTHETIC, FloatArray, Stored, check_shape, int16_hu

_OFFSET = 352  # the header, and four bytes that say that no extension follows
_SLAB = 16  # slices that are written at a time
_TRAILING_BYTES = 1 << 20  # what may follow the voxels; more is not read


def read_nifti(source: Path) -> Stored:
    """Read a CT, its values scaled as the header says. Raises InputError, and what nibabel raises on damage."""
    image = nib.load(source)
    if not isinstance(image, nib.Nifti1Image):
        raise InputError.of(source, "file", found=type(image).__name__, expected="a NIfTI")
    dtype, shape = image.get_data_dtype(), image.shape
    if dtype.kind not in "iuf":
        raise InputError.of(source, "data type", found=dtype, expected="real numbers")
    if set(shape[3:]) == {1}:
        shape = shape[:3]
    check_shape(source, shape)
    if source.name.lower().endswith(".gz"):
        size = math.prod(map(int, shape)) * dtype.itemsize
        offset = min(int(image.header.get_data_offset()), _TRAILING_BYTES)
        with gzip.open(source) as stream:  # to its end, where its checksum is
            image = type(image).from_stream(io.BytesIO(stream.read(offset + size + _TRAILING_BYTES)))
    values = image.get_fdata(caching="unchanged", dtype=np.float32).reshape(shape)
    header, affine, notes = image.header, np.array(image.affine, np.float64), []
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        notes.append("The header has neither sform nor qform: the patient's left was taken where x indices grow.")
    unit, millimetres = {1: ("metres", 1000.0), 3: ("microns", 0.001)}.get(int(header["xyzt_units"]) & 7, ("mm", 1.0))
    if unit != "mm":
        affine[:3] *= millimetres
        notes.append(f"The header gives lengths in {unit}; they were turned to mm.")
    return Stored(values, affine, tuple(notes), SYNTHETIC in header["descrip"].item().decode("latin-1"))


def write_nifti(hu: npt.NDArray[np.float32], affine: FloatArray, description: str, target: Path) -> Path:
    """Write (x, y, z) HU as int16, whole or not at all; sform and qform are `affine`, 4x4 from index to RAS+ mm.

    The same volume gives the same bytes: no time, host or file name goes into the file. The first 79 characters of
    `description` go into `descrip`. Raises X2CTError where the write fails on the way, as on a full disk.
    """
    parts = _slabs(hu, affine, description)
    return atomic.write_atomically(target, _gzip(parts) if target.name.lower().endswith(".gz") else parts)


def _slabs(hu: npt.NDArray[np.float32], affine: FloatArray, description: str) -> Iterator[bytes]:
    """Yield the file slab by slab, so that a large volume is not in memory twice."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(hu.shape)
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    header["descrip"] = description.encode("ascii", "replace")[:79]
    header["vox_offset"], header["magic"] = _OFFSET, b"n+1"
    header["scl_slope"], header["scl_inter"] = np.nan, np.nan
    yield header.binaryblock + bytes(_OFFSET - len(header.binaryblock))
    for at in range(0, hu.shape[2], _SLAB):
        yield int16_hu(hu[:, :, at : at + _SLAB]).astype("<i2").tobytes(order="F")  # x is the fastest in a NIfTI


def _gzip(parts: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # gzip, without a time or a name in it
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()
