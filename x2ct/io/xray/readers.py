"""X-ray files, their values as stored: PNG, JPEG, TIFF, NumPy, NIfTI. Sizes are checked before anything is decoded."""

from __future__ import annotations

import gzip
import io
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.files.text import readable
from x2ct.io.xray.exposure import TAGGED, UNTOLD
from x2ct.io.xray.radiograph import XRay

if TYPE_CHECKING:
    from tifffile import TiffPage

MAX_PIXELS = 100_000_000
MIN_SIDE = 8
_MILLIONS = f"at most {MAX_PIXELS // 1_000_000} million"
_NIFTI_REST = 2 << 20  # bytes of header, extensions and rest that are read beside the pixels

KINDS = "PNG, JPEG, TIFF, .npy, NIfTI or DICOM"
_ORIENTATION, _EXIF, _GPS = 0x0112, 0x8769, 0x8825
_CAMERA = {  # what no detector and no film scanner writes: its tag, and the tag's name in tifffile
    "exposure time": {0x829A, "ExposureTime"},
    "f-number": {0x829D, "FNumber"},
    "ISO speed": {0x8827, "PhotographicSensitivity"},
    "flash": {0x9209, "Flash"},
    "focal length": {0x920A, "FocalLength"},
    "lens": {0xA434, "LensModel"},
}

COLOUR_SHARE = 1e-3  # of the pixels, that may be coloured (a stamp, an annotation) in a grey picture
COLOUR_SPREAD = 8 / 255  # between the channels, from which on a pixel is coloured: JPEG leaves less in a grey one

UPRIGHT = "The file does not say how the picture lies: head up, patient's right (front, in a lateral) at column 0."
PLACED = "The header's affine says how the picture lies."
FLAT = "The NIfTI says nothing of the patient's axes: the first axis was taken as the columns, the second as the rows."
DENSE_KEY, DENSE_BRIGHT = "Dense tissue", "bright"
"""What a PNG of `x2ct drr` says of itself, as a tEXt chunk; such a PNG's pHYs chunk is its pixel pitch."""
LOSSY = "JPEG stores 8 bits and loses some of them: the detector's values are not in it."


def check_size(source: str | Path, rows: int, columns: int) -> None:
    """Raise InputError where a picture is too small to be an X-ray or has more than MAX_PIXELS."""
    found = f"{columns} x {rows} pixels"
    if rows * columns > MAX_PIXELS:
        raise InputError.of(source, "size", found=found, expected=_MILLIONS)
    if min(rows, columns) < MIN_SIDE:
        raise InputError.of(source, "size", found=found, expected=f"{MIN_SIDE} or more along each side")


def grey(values: npt.NDArray[Any], source: str | Path) -> npt.NDArray[Any]:
    """Return (rows, columns) of such, or of (rows, columns, 1 to 4) unsigned integers, a grey picture stored as RGBA.

    Raises InputError: colour, or transparency.
    """
    if values.ndim == 2:
        return values
    full = np.iinfo(values.dtype).max
    if values.shape[2] in (2, 4):
        if values[..., -1].min() < full:
            raise InputError.of(source, "alpha channel", found="transparency", expected="an opaque picture")
        values = values[..., :-1]
    if values.shape[2] == 1:
        return values[..., 0]
    spread = values.max(axis=2).astype(np.int64) - values.min(axis=2)
    share = float(np.mean(spread > COLOUR_SPREAD * full))
    if share > COLOUR_SHARE:
        found = f"colour in {100 * share:.3g}% of the pixels"
        raise InputError.of(source, "colour", found=found, expected="a grey picture", hint="is this a photo?")
    return values[..., 1]


def check_frame(source: str | Path, field: str, frames: int, frame: int | None) -> int:
    """Return the index of the frame that was asked for (the first is 1), or of the only one.

    Raises InputError: there are several and none was chosen, or there is none of that number.
    """
    if frame is None and frames != 1:
        hint = f"choose one: --frame 1 to --frame {frames}"
        raise InputError.of(source, field, found=f"{frames} pictures", expected="one X-ray", hint=hint)
    if frame is not None and not 1 <= frame <= frames:
        raise InputError.of(source, "--frame", found=frame, expected=f"1 to {frames}" if frames > 1 else "1")
    return (frame or 1) - 1


def read_pillow(source: Path, frame: int | None, kind: str) -> XRay:
    """Read an 8- or 16-bit PNG or a grey JPEG, as `kind` says: display values, not calibrated.

    Raises InputError: animated, colour, bilevel, from a camera, or past MAX_PIXELS.
    """
    from PIL import Image

    try:
        image = Image.open(source, formats=[kind])
    except Image.DecompressionBombError as error:
        expected = f"{_MILLIONS} pixels"
        raise InputError.of(source, "size", found="a picture past every limit", expected=expected) from error
    with image:
        check_size(source, image.height, image.width)
        if getattr(image, "n_frames", 1) != 1:
            raise InputError.of(source, "frames", found="an animation", expected="one picture")
        check_frame(source, "frames", 1, frame)
        tags = image.getexif()
        turns, notes = _turns(source, {**tags, _EXIF: tags.get_ifd(_EXIF), _GPS: tags.get_ifd(_GPS)})
        if image.mode not in ("L", "LA", "I;16", "I", "RGB", "RGBA", "P"):
            raise InputError.of(source, "mode", found=image.mode, expected="8- or 16-bit grey")
        values = np.asarray(image.convert("RGB") if image.mode == "P" else image)
        tagged = image.info.get(DENSE_KEY) == DENSE_BRIGHT
        across, down = image.info.get("dpi", (0, 0)) if tagged else (0, 0)
    return replace(
        from_array(grey(values, source), source),
        # Of other pictures the resolution is that of a screen or printer.
        spacing_mm=(25.4 / down, 25.4 / across) if down > 0 and across > 0 else None,
        notes=(LOSSY, *notes) if kind == "JPEG" else notes,
        kind=kind,
        polarity=TAGGED if tagged else UNTOLD,
        turns=turns,
    )


def read_tiff(source: Path, frame: int | None) -> XRay:
    """Read a TIFF's only page, or page `frame`: 8- and 16-bit values are for display, float ones are line integrals.

    Raises InputError: several pages and no frame, colour, from a camera, another kind of number, or past MAX_PIXELS.
    """
    import tifffile

    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages[check_frame(source, "pages", len(tiff.pages), frame)]
        page = page if isinstance(page, tifffile.TiffPage) else page.aspage()
        check_size(source, int(page.imagelength), int(page.imagewidth))
        photometric = str(getattr(page.photometric, "name", page.photometric))
        if photometric not in ("MINISBLACK", "MINISWHITE", "RGB"):
            raise InputError.of(source, "photometric interpretation", found=photometric, expected="grey")
        if page.dtype is None or not (page.dtype.kind == "f" or (page.dtype.kind == "u" and page.dtype.itemsize <= 2)):
            raise InputError.of(source, "data type", found=page.dtype, expected="8- or 16-bit unsigned, or float")
        if int(page.imagedepth) != 1 or int(page.samplesperpixel) > 4:
            found = f"{page.imagedepth} x {page.samplesperpixel}"
            raise InputError.of(source, "depth x channels", found=found, expected="one grey picture")
        tags = {tag: page.tags[tag].value for tag in (_ORIENTATION, _EXIF, _GPS) if tag in page.tags}
        turns, notes = _turns(source, tags)
        values = _tiff_values(page, source)
    xray = from_array(values if values.dtype.kind == "f" else grey(values, source), source)
    white_is_high = photometric != "MINISWHITE"
    xray = replace(xray, notes=notes, kind=f"TIFF, {values.dtype}", turns=turns)
    return replace(xray, dense_is_high=white_is_high, white_is_high=white_is_high)


def _tiff_values(page: TiffPage, source: Path) -> npt.NDArray[Any]:
    """Return (rows, columns) or (rows, columns, channels)."""
    from PIL import Image

    try:
        values = page.asarray()
    except ValueError as error:
        # LZW and JPEG need a package that tifffile does not bring; Pillow decodes them, but inverts MINISWHITE.
        if "imagecodecs" not in str(error) or getattr(page.photometric, "name", "") == "MINISWHITE":
            raise
        with Image.open(source, formats=["TIFF"]) as image:
            values = np.asarray(image)
        if values.dtype != page.dtype:
            raise
    return np.moveaxis(values, 0, -1) if values.ndim == 3 and values.shape[-1] > 4 else values


def read_npy(source: Path, frame: int | None) -> XRay:
    """Read a 2-D .npy: floats are line integrals, integers display values.

    Raises InputError: objects (never unpickled), another kind of number, not 2-D, or past MAX_PIXELS.
    """
    check_frame(source, "arrays", 1, frame)
    return from_array(np.load(source, mmap_mode="r", allow_pickle=False), source)


def read_nifti(source: Path, frame: int | None) -> XRay:
    """Read a NIfTI of one slice: floats are line integrals, integers display values.

    Where one axis of the slice runs along the patient, the affine says how the picture lies. Otherwise axes are taken
    as ITK and nnU-Net write pictures: the first is the columns, the second the rows from the top.

    Raises InputError: more than one slice, colour, another kind of number, or past MAX_PIXELS.
    """
    import nibabel as nib

    header = nib.load(source)
    if not isinstance(header, nib.Nifti1Image):
        raise InputError.of(source, "file", found=type(header).__name__, expected="a NIfTI of one slice")
    axes = [axis for axis, size in enumerate(header.shape) if size > 1]
    if len(axes) != 2 or max(axes) > 2:
        found, hint = " x ".join(map(str, header.shape)), "`x2ct drr` makes X-rays of a CT"
        raise InputError.of(source, "shape", found=found, expected="one slice", hint=hint)
    check_frame(source, "slices", 1, frame)
    check_size(source, header.shape[axes[1]], header.shape[axes[0]])
    stored = header.get_data_dtype()
    most = math.prod(map(int, header.shape)) * stored.itemsize + _NIFTI_REST
    zipped = source.name.lower().endswith(".gz")
    with gzip.open(source) if zipped else source.open("rb") as stream:  # to the end, where the checksum of a .gz is
        image = type(header).from_stream(io.BytesIO(stream.read(most)))
    values = np.asanyarray(image.dataobj).reshape([header.shape[axis] for axis in axes])
    codes = [str(nib.aff2axcodes(image.affine)[axis]) for axis in axes]
    unit = {1: 1000.0, 2: 1.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7)
    pitch = [float(image.header.get_zooms()[axis]) * (unit or math.nan) for axis in axes]
    has_affine = bool(image.header["sform_code"] or image.header["qform_code"])
    if has_affine and (codes[0] in "SI") != (codes[1] in "SI"):
        notes: tuple[str, ...] = (PLACED,)
        for axis, code in enumerate(codes):  # rows begin at the head, columns at the patient's right or front
            values = np.flip(values, axis) if code in "SRA" else values
    else:
        notes, codes = (FLAT, UPRIGHT), ["", "I"]
    if codes[1] in ("S", "I"):
        values, pitch = values.T, pitch[::-1]
    xray = from_array(values, source)
    whole = all(math.isfinite(step) and step > 0 for step in pitch)
    notes += () if whole else ("The NIfTI states no unit of length, so that its pixel spacing is not used.",)
    kind, spacing = f"NIfTI, {stored}", (pitch[0], pitch[1]) if whole else None
    return replace(xray, calibrated=stored.kind == "f", kind=kind, spacing_mm=spacing, notes=notes)


def from_array(values: npt.NDArray[Any], source: str | Path) -> XRay:
    """Return a 2-D array as an X-ray: floats are line integrals, integers display values."""
    if values.dtype.kind not in "iuf":
        raise InputError.of(source, "data type", found=values.dtype, expected="float line integrals or integers")
    if values.ndim != 2:
        found = f"{values.ndim} axes {values.shape}"
        raise InputError.of(source, "shape", found=found, expected="2 axes (rows, columns)", hint="one view a file")
    check_size(source, *values.shape)
    calibrated, kind = values.dtype.kind == "f", f"array, {values.dtype}"
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, which is refused later
        image = np.array(values, np.float32)
    notes = () if calibrated else (UPRIGHT,)
    return XRay(image, calibrated, source=str(source), notes=notes, kind=kind, polarity=UNTOLD)


def _turns(source: Path, tags: Mapping[int, Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the turn that a picture's Orientation tag asks for, if any, and the notes on it.

    Raises InputError: a camera has written its own tags (of the EXIF's, by number or name), or its place.
    """
    exif, orientation = tags.get(_EXIF), tags.get(_ORIENTATION)
    camera = [words for words, own in _CAMERA.items() if isinstance(exif, dict) and not own.isdisjoint(exif)]
    if camera or tags.get(_GPS):
        found = f"a camera's {', '.join(camera) or 'place on the globe'}"
        hint = "a photo of a film or of a screen has lost the X-ray's values"
        raise InputError.of(source, "EXIF", found=found, expected="an X-ray", hint=hint)
    if not isinstance(orientation, int) or orientation not in range(2, 9):
        return (), (UPRIGHT,)
    return (orientation,), (UPRIGHT, "Its Orientation tag asks for a turn, which was made.")


_MAGIC: dict[bytes, Callable[[Path, int | None], XRay]] = {
    b"\x89PNG": partial(read_pillow, kind="PNG"),
    b"\xff\xd8\xff": partial(read_pillow, kind="JPEG"),
    **dict.fromkeys((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), read_tiff),
    b"\x93NUM": read_npy,
}


def read(source: Path, frame: int | None) -> XRay:
    """Read an X-ray's file, picture `frame` of several (the first is 1): what kind it is, its first bytes say.

    Raises InputError: no file, none of these kinds, damaged, or what its reader refuses.
    """
    if source.is_dir():
        hint = "an X-ray is one file"
        raise InputError.of(source, "file", found="a folder", expected=f"a {KINDS} file", hint=hint)
    if not source.exists():
        raise InputError.of(source, "file", found="no such file", expected=f"an X-ray ({KINDS})")
    # The warnings are the libraries', on what a file does not keep to.
    with readable(source, "a whole picture", hint=""), warnings.catch_warnings(action="ignore"):
        return _reader(source)(source, frame)


def _reader(source: Path) -> Callable[[Path, int | None], XRay]:
    with source.open("rb") as stream:
        head = stream.read(132)
    if not head:
        raise InputError.of(source, "file", found="an empty file", expected=f"an X-ray ({KINDS})")
    if source.name.lower().endswith((".nii", ".nii.gz")):
        return read_nifti
    if head[128:132] == b"DICM" or _lacks_preamble(head):
        from x2ct.io.xray.dicomxray import read_dicom

        return read_dicom
    if source.suffix.lower() in (".dcm", ".dicom"):
        hint = "it begins with neither a preamble nor a dataset, whatever its name says"
        raise InputError.of(source, "file", found="no DICOM file", expected="a DICOM radiograph", hint=hint)
    reader = next((reader for magic, reader in _MAGIC.items() if head.startswith(magic)), None)
    if reader is None:
        raise InputError.of(source, "format", found="another kind of file", expected=KINDS)
    return reader


def _lacks_preamble(head: bytes) -> bool:
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
