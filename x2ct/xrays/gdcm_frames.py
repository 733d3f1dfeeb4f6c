"""GDCM as a decoder: made silent, its complaints heard, and taught to pydicom for the 12-bit JPEG that pydicom refuses.

GDCM returns a picture of damaged JPEG data too, and its libjpeg says so on the process's standard error alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
DECODER_DEPENDENCIES = {JPEG_EXTENDED: ("python-gdcm",)}

_HARMLESS = "Unsupported JPEG data precision"  # from the 8-bit libjpeg, before GDCM turns to the 12-bit one
_LONGEST = 4096
_one_at_a_time = threading.Lock()


def is_available(uid: str) -> bool:
    """Whether frames of this transfer syntax can be decoded: what pydicom asks a plugin."""
    return uid in DECODER_DEPENDENCIES and find_spec("gdcm") is not None


@contextmanager
def complaints() -> Iterator[list[str]]:
    """While it decodes, standard error goes to the list that is yielded, which is filled at the end.

    The descriptor is the process's own, so only one thread at a time does this.
    """
    import gdcm

    gdcm.Trace.ErrorOff()
    gdcm.Trace.WarningOff()
    said: list[str] = []
    with _one_at_a_time, tempfile.TemporaryFile() as heard:
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(heard.fileno(), 2)
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            heard.seek(0)
            lines = heard.read(_LONGEST).decode("ascii", "replace").splitlines()
            said += [line.strip() for line in lines if line.strip() and _HARMLESS not in line]


def decode_extended(src: bytes, runner: DecodeRunner) -> bytes:
    """One frame of 12-bit (or 8-bit) extended JPEG, little endian: what pydicom calls in a plugin."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(src)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    bits = runner.bits_stored
    image.SetPixelFormat(
        gdcm.PixelFormat(runner.samples_per_pixel, runner.bits_allocated, bits, bits - 1, runner.pixel_representation)
    )
    pixels: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM's char* comes as a str
    return pixels
