"""GDCM as a decoder of pydicom's: kept in a process of its own, its complaints heard, 12-bit JPEG allowed.

GDCM returns a picture of damaged JPEG data too, and its libjpeg says so on standard error alone; of other damage it
ends the process. So it works in a child (`gdcm_child.py`), of which nothing but pixels or a reason comes back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
SYNTAXES = ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", *_JPEG_LS)
"""JPEG Extended (12 bit), JPEG Lossless (any process, and process 14 SV1), JPEG-LS lossless and near-lossless."""

DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("python-gdcm",))
"""Read by pydicom, of a plugin."""

_CHILD = Path(__file__).with_name("gdcm_child.py")
_SECONDS = 90.0  # more than the child's own limit, which counts the processor's time alone
_HARMLESS = "Unsupported JPEG data precision"  # from the 8-bit libjpeg, before GDCM turns to the 12-bit one


def is_available(uid: str) -> bool:
    """Whether frames of this transfer syntax can be decoded: what pydicom asks a plugin."""
    return uid in SYNTAXES and find_spec("gdcm") is not None


def decode(src: bytes, runner: DecodeRunner) -> bytes:
    """One frame's pixels, little endian: what pydicom calls in a plugin.

    Raises:
        ValueError: GDCM gives no picture, complains, takes too long, or ends its process.
    """
    stored = runner.bits_stored
    if runner.transfer_syntax in _JPEG_LS:
        # As GDCM gives it: colour by pixel, in words of the stream's own precision.
        runner.set_option("planar_configuration", 0)
        stored = runner.get_option("jls_precision", stored)
        runner.set_option("bits_allocated", 8 if stored <= 8 else 16)
    told = {
        "syntax": str(runner.transfer_syntax),
        "rows": runner.rows,
        "columns": runner.columns,
        "samples": runner.samples_per_pixel,
        "planar": runner.planar_configuration if runner.samples_per_pixel > 1 else 0,
        "photometric": str(runner.photometric_interpretation),
        "allocated": runner.bits_allocated,
        "stored": stored,
        "signed": runner.pixel_representation,
    }
    # Isolated: neither the user's environment nor the current folder decides what is imported.
    command = [sys.executable, "-I", str(_CHILD), json.dumps(told)]
    try:
        done = subprocess.run(command, input=src, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError("damaged data, on which it comes to no end") from None
    said = [line.strip() for line in done.stderr.decode("ascii", "replace").splitlines()]
    said = [line for line in said if line and _HARMLESS not in line]
    if done.returncode < 0:
        raise ValueError("damaged data, on which it broke off")
    if done.returncode > 0:  # the last line of a traceback: the kind of error, and what it says
        raise ValueError(said[-1].partition(": ")[2] or said[-1] if said else "damaged data, no picture")
    if said:
        raise ValueError(said[0])
    return done.stdout
