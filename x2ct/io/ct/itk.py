"""NRRD and MetaImage files of CT volumes, by SimpleITK; their text headers are looked at before ITK parses them.

ITK's parsers believe what they read: a number of axes of many digits keeps MetaIO busy for minutes, a damaged stream of
compressed voxels for ever, and either format can name another file, or many, to read the voxels from. What is let
through is what writers of CTs write.
"""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from x2ct.errors import InputError, X2CTError
from x2ct.files import atomic
from x2ct.files.text import reason
from x2ct.io.ct.volume import LPS_TO_RAS, SYNTHETIC, FloatArray, Stored, check_shape, int16_hu

_HEADER_BYTES = 1 << 16  # of usual files, well below 4 KiB
_PART = 1 << 20  # bytes that are decompressed at a time
_META_LINE = re.compile(rb"[A-Za-z][\w.\-\[\]]*\s*=[^\0]*")
_MANY_FILES = re.compile(r"\s*LIST\b|.*%", re.IGNORECASE)
_ELSEWHERE = re.compile(rb"data ?file\s*:", re.IGNORECASE)


def read_itk(source: Path) -> Stored:
    """Read a CT. Raises InputError, and what SimpleITK raises on damage."""
    compressed = check_header(source)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(source))
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise InputError.of(source, "channels", found=reader.GetNumberOfComponents(), expected=1)
    check_shape(source, tuple(reader.GetSize()))
    if compressed is not None:
        voxel = sitk.Image(1, 1, 1, reader.GetPixelID()).GetSizeOfPixelComponent()
        check_stream(*compressed, expected=math.prod(reader.GetSize()) * voxel)
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    values = sitk.GetArrayViewFromImage(image).transpose(2, 1, 0).copy()
    content = image.GetMetaData("content") if image.HasMetaDataKey("content") else ""
    return Stored(values, LPS_TO_RAS @ affine, (), SYNTHETIC in content)


def write_itk(hu: npt.NDArray[np.float32], affine: FloatArray, description: str, target: Path) -> Path:
    """Write (x, y, z) HU as int16 into an .nrrd or .mha, whole or not at all; `affine` is 4x4 from index to RAS+ mm.

    `description` goes into an NRRD's header; ITK keeps no text in a MetaImage. Raises X2CTError where the write fails
    on the way.
    """
    image: Any = sitk.GetImageFromArray(int16_hu(hu).transpose(2, 1, 0))
    world = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((world[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(world[:3, 3].tolist())
    if target.suffix.lower() == ".nrrd":
        image.SetMetaData("content", description)

    def write(part: Path) -> None:
        try:
            sitk.WriteImage(image, str(part), True)
        except RuntimeError as error:
            raise X2CTError(f"{target}: output: not written: {reason(error)}") from error

    return atomic.write_beside(target, write)


def check_stream(file: Path, start: int, size: int, expected: int) -> None:
    """Raise InputError unless a zlib or gzip stream of `expected` bytes begins at `start` in a file.

    It may be followed by other bytes, but not be longer than `size`, which the header gives; 0 where it gives none.
    """
    total, stream = 0, zlib.decompressobj(zlib.MAX_WBITS + 32)
    try:
        with file.open("rb") as opened:
            opened.seek(start)
            while not stream.eof and total <= expected:
                packed = stream.unconsumed_tail or opened.read(_PART)
                part = stream.decompress(packed, _PART)
                if not packed and not part:
                    break
                total += len(part)
            length = opened.tell() - start - len(stream.unused_data)
    except zlib.error as error:
        raise InputError.of(file, "compressed voxels", found=str(error), expected="a zlib stream") from error
    if total != expected or not stream.eof:
        raise InputError.of(file, "compressed voxels", found=f"{total} bytes", expected=expected)
    if size and length > size:
        raise InputError.of(file, "CompressedDataSize", found=size, expected=length)


def check_header(source: Path) -> tuple[Path, int, int] | None:
    """Raise InputError at a header that no writer of CTs writes: other than three axes, or voxels in other files.

    Returns what `check_stream` wants to know of a MetaImage's compressed voxels: their file, the byte they start at and
    their size; None where ITK may read what it finds.
    """
    with source.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    if source.suffix.lower() == ".nrrd":
        for line in re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0].splitlines():
            if _ELSEWHERE.match(line):
                found = line[:60].decode("ascii", "backslashreplace")
                raise InputError.of(source, "header", found=found, expected="the voxels in the same file")
        return None
    fields: dict[bytes, bytes] = {}
    end = 0
    for row in start.split(b"\n"):
        end += len(row) + 1
        line = row.rstrip(b"\r")
        key, _, value = line.partition(b"=")
        if not _META_LINE.fullmatch(line) or key.strip() in fields:
            found = f"{line[:40].decode('ascii', 'backslashreplace')!r}"
            raise InputError.of(source, "header", found=found, expected="KEY = VALUE, each key once")
        fields[key.strip()] = value.strip()
        if key.strip() == b"ElementDataFile":
            break
    else:
        raise InputError.of(source, "header", found="no ElementDataFile", expected="one, as the header's last line")
    axes = fields.get(b"NDims", b"none").decode("ascii", "backslashreplace")
    if axes != "3":
        raise InputError.of(source, "NDims", found=axes[:20], expected=3)
    name = fields[b"ElementDataFile"].decode("utf-8", "backslashreplace")
    local = name.upper() == "LOCAL"
    outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or ".." in Path(name).parts
    if not local and (outside or not name or _MANY_FILES.match(name)):
        expected = "LOCAL or one file beside it"
        raise InputError.of(source, "ElementDataFile", found=name[:60] or "nothing", expected=expected)
    if fields.get(b"CompressedData", b"False")[:1] not in b"Tt1":
        return None
    skipped, size = fields.get(b"HeaderSize", b"0"), fields.get(b"CompressedDataSize", b"0")
    for field, value, fits in (("HeaderSize", skipped, skipped == b"0"), ("CompressedDataSize", size, size.isdigit())):
        if not fits:
            expected = "0" if value is skipped else "a number of bytes"
            raise InputError.of(source, field, found=value[:20].decode("ascii", "backslashreplace"), expected=expected)
    return source if local else source.with_name(name), end if local else 0, int(size)
