"""One frame's stored values out of a radiograph's DICOM file, whose header is not believed before it is checked."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.io.dicom_frames.frames import frame_values
from x2ct.io.xray.picture import check_frame, check_size, unreadable

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILE_BYTES = 4 << 30
MAX_INFLATED_BYTES = 256 << 20  # what a deflated file may become: MAX_PIXELS of 16 bits, and a header
BITS_STORED = (8, 16)

_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"


def lacks_preamble(head: bytes) -> bool:
    """Return whether a file's first bytes are those of a bare dataset, as scanners and old archives write them.

    Such a file begins with an element of group 2 or 8, explicit in either byte order or implicit little endian, where
    PS3.10 7.1 asks for 128 bytes and "DICM".
    """
    if len(head) < 8:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    if head[:3] == b"\0\x08\0":
        return explicit
    return head[:2] in (b"\2\0", b"\x08\0") and head[3] == 0 and (explicit or head[6:8] == b"\0\0")


def open_dicom(source: Path) -> Dataset:
    """A DICOM file's dataset, with or without a preamble.

    Raises:
        InputError: no DICOM, damaged, or larger than any radiograph.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        size = source.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError.of(source, "size", found=f"{size} bytes", expected=f"at most {MAX_FILE_BYTES >> 30} GiB")
        with source.open("rb") as stream:
            bare = lacks_preamble(stream.read(8))
        _refuse_deflate_bomb(source, bare)
        dataset = pydicom.dcmread(source, force=bare)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            syntax = _IMPLICIT if implicit else _EXPLICIT if little else _BIG_ENDIAN
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        return dataset
    except InvalidDicomError as error:
        hint = "it begins with neither a preamble nor a dataset, whatever its name says"
        raise InputError.of(source, "file", found="no DICOM file", expected="a DICOM radiograph", hint=hint) from error
    except (InputError, MemoryError):
        raise
    except Exception as error:  # parsing damaged data raises many kinds
        raise unreadable(source, error) from error


def _refuse_deflate_bomb(source: Path, bare: bool) -> None:
    """A deflated dataset is inflated as a whole by whoever reads it, so it is measured first."""
    from pydicom.filereader import _read_file_meta_info as read_meta
    from pydicom.filereader import read_preamble

    with source.open("rb") as stream:
        read_preamble(stream, force=bare)
        if str(read_meta(stream).get("TransferSyntaxUID", "")) != _DEFLATED:
            return
        inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := inflate.unconsumed_tail or stream.read(1 << 20):
            total += len(inflate.decompress(chunk, 1 << 24))
            if total > MAX_INFLATED_BYTES:
                found = f"more than {MAX_INFLATED_BYTES} bytes"
                raise InputError.of(source, "size", found=found, expected="one radiograph")


def decode(source: Path, dataset: Dataset, frame: int | None) -> npt.NDArray[Any]:
    """One frame's stored values, integers (rows, columns) or (rows, columns, channels).

    Args:
        source: the file, as messages name it.
        dataset: its content.
        frame: which one, the first is 1; None where there must be one only.

    Raises:
        InputError: no picture, a size or a format that no radiograph has, several frames without a choice, a transfer
            syntax that can't be decoded, or damaged data.
    """
    if "Rows" not in dataset or "Columns" not in dataset or "PixelData" not in dataset:
        raise InputError.of(source, "pixel data", found="none", expected="a radiograph")
    check_size(source, int(dataset.Rows), int(dataset.Columns))
    index = check_frame(source, "NumberOfFrames", _frames(source, dataset), frame)
    _check_bits(source, dataset)
    return frame_values(source, dataset, index)


def _frames(source: Path, dataset: Dataset) -> int:
    said = dataset.get("NumberOfFrames")
    try:
        frames = int(said or 1)
    except (TypeError, ValueError):
        frames = 0
    if frames < 1:
        raise InputError.of(source, "NumberOfFrames", found=said, expected="1 or more")
    return frames


def _check_bits(source: Path, dataset: Dataset) -> None:
    stored, allocated = int(dataset.get("BitsStored") or 0), int(dataset.get("BitsAllocated") or 0)
    if not BITS_STORED[0] <= stored <= BITS_STORED[1] or allocated not in (8, 16) or stored > allocated:
        found, expected = f"{stored} of {allocated}", f"{BITS_STORED[0]} to {BITS_STORED[1]} of 8 or 16"
        raise InputError.of(source, "BitsStored of BitsAllocated", found=found, expected=expected)
    if "HighBit" in dataset and int(dataset.HighBit) != stored - 1:
        raise InputError.of(source, "HighBit", found=dataset.HighBit, expected=f"{stored - 1}, one below BitsStored")
