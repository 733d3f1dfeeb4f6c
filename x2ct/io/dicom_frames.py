"""One frame's stored values out of a DICOM dataset, of an X-ray or of a CT slice.

Decoders are pydicom's (uncompressed, RLE), Pillow's (JPEG 2000, 8-bit JPEG) and GDCM's (JPEG Lossless, JPEG-LS, 12-bit
JPEG): OpenJPEG and libjpeg are newer in Pillow than in GDCM. The size in a codestream must be the header's before a
decoder allocates by it. GDCM returns a picture of damaged JPEG data too, and its libjpeg says so on standard error
alone; of other damage it ends the process. So it works in a process of its own (`gdcm_child.py`), of which nothing but
pixels or a reason comes back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy.typing as npt
from pydicom import Dataset, uid
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import Decoder, DecodeRunner, get_decoder

from x2ct.errors import InputError
from x2ct.files.text import reason

_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_OF_GDCM = (uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1, *_JPEG_LS)
_PLUGIN = dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEG2000, uid.JPEG2000Lossless), "pillow")
_PLUGIN |= dict.fromkeys(_OF_GDCM, "gdcm") | {uid.RLELossless: "pydicom"}

DECODER_DEPENDENCIES = dict.fromkeys(_OF_GDCM, ("python-gdcm",))  # read by pydicom, of a plugin

_CHILD = Path(__file__).with_name("gdcm_child.py")
_SECONDS = 90.0  # more than the child's own limit, which counts the processor's time alone
_HARMLESS = "Unsupported JPEG data precision"  # from the 8-bit libjpeg, before GDCM turns to the 12-bit one
_SUPPORTED = "uncompressed, deflated, RLE, JPEG, JPEG Lossless, JPEG-LS or JPEG 2000"


def frame_values(source: Path, dataset: Dataset, index: int = 0) -> npt.NDArray[Any]:
    """Return a frame's stored values, integers (rows, columns) or (rows, columns, channels).

    `index` counts from 0; the dataset's Rows and Columns must be of a size that may be decoded. Raises InputError, with
    `source` as the file: a transfer syntax that can't be decoded, or damaged data.
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    decoder = _decoder(source, syntax)
    try:
        if syntax.is_encapsulated:
            frames = int(dataset.get("NumberOfFrames") or 1)
            own = size_of(get_frame(dataset.PixelData, index, number_of_frames=frames))
            if own is not None and own != (int(dataset.Rows), int(dataset.Columns)):
                pixels = f"{own[1]} x {own[0]} pixels"
                expected = f"{dataset.Columns} x {dataset.Rows} as the header says"
                raise InputError.of(source, "compressed data", found=pixels, expected=expected)
        return decoder.as_array(dataset, index=index, raw=True, decoding_plugin=_PLUGIN.get(syntax, ""))[0]
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders raise many kinds on damaged or unknown data
        hint = f"its transfer syntax is {getattr(syntax, 'name', 'unknown')}"
        found = reason(error).partition(" - ")[0]
        raise InputError.of(source, "pixel data", found=found, expected="a whole picture", hint=hint) from error


def _decoder(source: Path, syntax: Any) -> Decoder:
    with suppress(Exception):  # pydicom raises several kinds where it knows nothing of a syntax
        if syntax in _OF_GDCM:
            decoder = Decoder(syntax)
            decoder.add_plugin("gdcm", (__name__, decode.__name__))
        else:
            decoder = get_decoder(syntax)
        if decoder.is_available and (syntax in _PLUGIN or not syntax.is_encapsulated):
            return decoder
    raise InputError.of(source, "transfer syntax", found=getattr(syntax, "name", syntax) or "none", expected=_SUPPORTED)


def size_of(data: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it has none that can be read."""
    if data[:2] == b"\xff\x4f" or data[4:8] == b"jP  ":  # JPEG 2000, alone or in its file format
        start = data.find(b"\xff\x4f\xff\x51")
        if start < 0 or len(data) < start + 24:
            return None
        x, y, left, top = (int.from_bytes(data[start + at : start + at + 4]) for at in (8, 12, 16, 20))
        return y - top, x - left
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if (marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def is_available(syntax: str) -> bool:
    """Return whether frames of a transfer syntax can be decoded; pydicom calls this of a plugin."""
    return syntax in _OF_GDCM and find_spec("gdcm") is not None


def decode(src: bytes, runner: DecodeRunner) -> bytes:
    """Return one frame's pixels, little endian; pydicom calls this of a plugin.

    Raises ValueError: GDCM gives no picture, complains, takes too long, or ends its process.
    """
    stored = runner.bits_stored
    if runner.transfer_syntax in _JPEG_LS:
        # As GDCM gives it: colour by pixel, in words of the stream's own precision.
        runner.set_option("planar_configuration", 0)
        stored = runner.get_option("jls_precision", stored)
        runner.set_option("bits_allocated", 8 if stored <= 8 else 16)
    picture = {name: value for name, value in runner.options.items() if isinstance(value, int | str)}
    # Isolated: neither the user's environment nor the current folder decides what is imported.
    command = [sys.executable, "-I", str(_CHILD), json.dumps(picture | {"bits_stored": stored})]
    try:
        process = subprocess.run(command, input=src, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError("damaged data, on which it comes to no end") from None
    lines = [line.strip() for line in process.stderr.decode("ascii", "replace").splitlines()]
    lines = [line for line in lines if line and _HARMLESS not in line]
    if process.returncode < 0:
        raise ValueError("damaged data, on which it broke off")
    if process.returncode > 0:  # the last line of a traceback: the kind of error, and what it says
        raise ValueError(lines[-1].partition(": ")[2] or lines[-1] if lines else "damaged data, no picture")
    if lines:
        raise ValueError(lines[0])
    return process.stdout
