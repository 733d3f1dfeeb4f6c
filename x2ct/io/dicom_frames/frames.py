"""One frame's stored values out of a DICOM dataset.

Decoders are pydicom's (uncompressed, RLE), Pillow's (JPEG 2000, 8-bit JPEG) and GDCM's (JPEG Lossless, JPEG-LS, 12-bit
JPEG): OpenJPEG and libjpeg are newer in Pillow than in GDCM.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.io.dicom_frames import codestream, gdcm_frames

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.pixels.decoders.base import Decoder

_PLUGIN = {
    "1.2.840.10008.1.2.4.50": "pillow",
    **dict.fromkeys(gdcm_frames.SYNTAXES, "gdcm"),
    "1.2.840.10008.1.2.4.90": "pillow",
    "1.2.840.10008.1.2.4.91": "pillow",
    "1.2.840.10008.1.2.5": "pydicom",
}
_SUPPORTED = "uncompressed, deflated, RLE, JPEG, JPEG Lossless, JPEG-LS or JPEG 2000"


def frame_values(source: Path, dataset: Dataset, index: int = 0) -> npt.NDArray[Any]:
    """A frame's stored values, integers (rows, columns) or (rows, columns, channels).

    Args:
        source: the file, as messages name it.
        dataset: its content, whose Rows and Columns are of a size that may be decoded.
        index: which frame, from 0.

    Raises:
        InputError: a transfer syntax that can't be decoded, or damaged data.
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    decoder = _decoder(source, syntax)
    try:
        if syntax.is_encapsulated:
            _check_codestream(source, dataset, index)
        return decoder.as_array(dataset, index=index, raw=True, decoding_plugin=_PLUGIN.get(str(syntax), ""))[0]
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders raise many kinds on damaged or unknown data
        hint = f"its transfer syntax is {getattr(syntax, 'name', 'unknown')}"
        found = _reason(error)
        raise InputError.of(source, "pixel data", found=found, expected="a whole picture", hint=hint) from error


def _decoder(source: Path, syntax: Any) -> Decoder:
    from pydicom.pixels.decoders.base import Decoder, get_decoder

    try:
        if str(syntax) in gdcm_frames.SYNTAXES:
            decoder = Decoder(syntax)
            decoder.add_plugin("gdcm", (gdcm_frames.__name__, gdcm_frames.decode.__name__))
        else:
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


def _reason(error: Exception) -> str:
    """What a decoder says, in a few words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]  # the first says only that there was one
    return text.partition(" - ")[0][:160]
