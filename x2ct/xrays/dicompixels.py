"""One frame's stored values out of a DICOM file, with nothing believed that its header or a codestream claims.

Sizes are checked before anything is decoded, in the header and again in a JPEG's or JPEG 2000's own, which is where a
decoder takes them from. Decoders are pydicom's (RLE), Pillow's (JPEG 2000, 8-bit JPEG) and GDCM's (JPEG
Lossless, JPEG-LS, 12-bit JPEG).
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.xrays import codestream, gdcm_frames
from x2ct.xrays.picture import check_frame, check_size, unreadable

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.pixels.decoders.base import Decoder

MAX_FILE_BYTES = 4 << 30
MAX_INFLATED_BYTES = 256 << 20  # what a deflated file may become: MAX_PIXELS of 16 bits, and a header
BITS_STORED = (8, 16)

_DEFLATED = "1.2.840.10008.1.2.1.99"
# The decoders that are tried first; OpenJPEG and libjpeg are newer in Pillow than in GDCM.
_PLUGIN = {
    "1.2.840.10008.1.2.4.50": "pillow",
    gdcm_frames.JPEG_EXTENDED: "gdcm",
    "1.2.840.10008.1.2.4.57": "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "gdcm",
    "1.2.840.10008.1.2.4.81": "gdcm",
    "1.2.840.10008.1.2.4.90": "pillow",
    "1.2.840.10008.1.2.4.91": "pillow",
    "1.2.840.10008.1.2.5": "pydicom",
}
_SUPPORTED = "uncompressed, deflated, RLE, JPEG, JPEG Lossless, JPEG-LS or JPEG 2000"


def open_dicom(source: Path) -> Dataset:
    """A DICOM file's dataset.

    Raises:
        InputError: no DICOM, damaged, or larger than any radiograph.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        size = source.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError.of(source, "size", found=f"{size} bytes", expected=f"at most {MAX_FILE_BYTES >> 30} GiB")
        _refuse_deflate_bomb(source)
        return pydicom.dcmread(source)
    except InvalidDicomError as error:
        hint = "the file has no DICOM header, whatever its name says"
        raise InputError.of(source, "file", found="no DICOM file", expected="a DICOM radiograph", hint=hint) from error
    except (InputError, MemoryError):
        raise
    except Exception as error:  # parsing damaged data raises many kinds
        raise unreadable(source, error) from error


def _refuse_deflate_bomb(source: Path) -> None:
    """A deflated dataset is inflated as a whole by whoever reads it, so it is measured first."""
    from pydicom.filereader import _read_file_meta_info as read_meta
    from pydicom.filereader import read_preamble

    with source.open("rb") as stream:
        read_preamble(stream, force=False)
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
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    decoder = _decoder(source, syntax)
    try:
        if syntax.is_encapsulated:
            _check_codestream(source, dataset, index)
        return _frame(decoder, dataset, index, _PLUGIN.get(str(syntax), ""))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders raise many kinds on damaged or unknown data
        syntax_name = getattr(syntax, "name", "unknown")
        told = {"found": _reason(error), "expected": "a whole picture", "hint": f"its transfer syntax is {syntax_name}"}
        raise InputError.of(source, "pixel data", **told) from error


def _frame(decoder: Decoder, dataset: Dataset, index: int, plugin: str) -> npt.NDArray[Any]:
    if plugin != "gdcm":
        return decoder.as_array(dataset, index=index, raw=True, decoding_plugin=plugin)[0]
    with gdcm_frames.complaints() as said:
        values = decoder.as_array(dataset, index=index, raw=True, decoding_plugin=plugin)[0]
    if said:
        raise ValueError(said[0])
    return values


def _reason(error: Exception) -> str:
    """What a decoder says, in a few words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]  # the first says only that there was one
    if "NoneType" in text:
        return "damaged data (GDCM gives no picture)"
    return text.partition(" - ")[0][:160]


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


def _decoder(source: Path, syntax: Any) -> Decoder:
    from pydicom.pixels.decoders.base import Decoder, get_decoder

    try:
        if str(syntax) == gdcm_frames.JPEG_EXTENDED:  # pydicom leaves it to a package under the GPL; GDCM can do it
            decoder = Decoder(syntax)
            decoder.add_plugin("gdcm", ("x2ct.xrays.gdcm_frames", "decode_extended"))
            return decoder
        decoder = get_decoder(syntax)
    except Exception as error:
        found = getattr(syntax, "name", syntax) or "none"
        raise InputError.of(source, "transfer syntax", found=found, expected=_SUPPORTED) from error
    if not decoder.is_available or (syntax.is_encapsulated and str(syntax) not in _PLUGIN):
        raise InputError.of(source, "transfer syntax", found=syntax.name, expected=_SUPPORTED)
    return decoder


def _check_codestream(source: Path, dataset: Dataset, index: int) -> None:
    """The size that a compressed frame gives itself must be the header's."""
    from pydicom.encaps import get_frame

    frames = int(dataset.get("NumberOfFrames") or 1)
    data = get_frame(dataset.PixelData, index, number_of_frames=frames)
    own = codestream.size_of(data)
    if own is not None and own != (int(dataset.Rows), int(dataset.Columns)):
        found, expected = f"{own[1]} x {own[0]} pixels", f"{dataset.Columns} x {dataset.Rows} as the header says"
        raise InputError.of(source, "compressed data", found=found, expected=expected)
