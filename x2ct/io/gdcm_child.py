"""Decodes one compressed frame with GDCM, in a process of its own: run as a script by `dicom_frames`, never imported.

Damaged data makes GDCM's libjpeg throw through C, which ends the process that it happens in, whatever Python catches.
Knows nothing of x2ct, so that it starts quickly. The frame comes on stdin, what it is as JSON in the one argument; the
pixels leave on stdout, little endian; complaints, and what is raised, on stderr.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

MAX_SECONDS = 60
MAX_BYTES = 8 << 30


def decoded(frame: bytes, picture: dict[str, Any]) -> bytes:
    """Return a frame's pixels, `picture` being pydicom's options of its decoder.

    Raises what GDCM raises, and ValueError where it gives none.
    """
    import gdcm

    gdcm.Trace.ErrorOff()
    gdcm.Trace.WarningOff()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((picture["columns"], picture["rows"], 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(picture["photometric_interpretation"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    samples, bits = picture["samples_per_pixel"], picture["bits_stored"]
    if samples > 1:
        image.SetPlanarConfiguration(picture["planar_configuration"])
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(picture["transfer_syntax_uid"])))
    signed = picture["pixel_representation"]
    image.SetPixelFormat(gdcm.PixelFormat(samples, picture["bits_allocated"], bits, bits - 1, signed))
    pixels = image.GetBuffer()  # GDCM's char* comes as a str
    if pixels is None:
        raise ValueError("damaged data, no picture")
    return bytes(pixels.encode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.buffer.write(decoded(sys.stdin.buffer.read(), json.loads(sys.argv[1])))
