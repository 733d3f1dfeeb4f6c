"""Which reader an X-ray's file is for: its first bytes say so, not its name; but a NIfTI is named .nii or .nii.gz."""

from __future__ import annotations

from pathlib import Path

from x2ct.errors import InputError
from x2ct.io.xray.dicompixels import lacks_preamble
from x2ct.io.xray.picture import Picture, read_jpeg, read_nifti, read_npy, read_png, read_tiff, unreadable

KINDS = "PNG, JPEG, TIFF, .npy, NIfTI or DICOM"

_MAGIC = {
    b"\x89PNG": read_png,
    b"\xff\xd8\xff": read_jpeg,
    b"II*\x00": read_tiff,
    b"MM\x00*": read_tiff,
    b"II+\x00": read_tiff,
    b"MM\x00+": read_tiff,
    b"\x93NUM": read_npy,
}


def read(source: Path, frame: int | None) -> Picture:
    """An X-ray's file as a picture, `frame` of several (the first is 1).

    Raises:
        InputError: no file, none of these kinds, or what its reader refuses.
    """
    if source.is_dir():
        hint = "an X-ray is one file"
        raise InputError.of(source, "file", found="a folder", expected=f"a {KINDS} file", hint=hint)
    if not source.exists():
        raise InputError.of(source, "file", found="no such file", expected=f"an X-ray ({KINDS})")
    try:
        with source.open("rb") as stream:
            head = stream.read(132)
    except OSError as error:
        raise unreadable(source, error) from error
    if not head:
        raise InputError.of(source, "file", found="an empty file", expected=f"an X-ray ({KINDS})")
    if source.name.lower().endswith((".nii", ".nii.gz")):
        return read_nifti(source, frame)
    if head[128:132] == b"DICM" or source.suffix.lower() in (".dcm", ".dicom") or lacks_preamble(head):
        from x2ct.io.xray.dicomxray import read_dicom

        return read_dicom(source, frame)
    reader = next((reader for magic, reader in _MAGIC.items() if head.startswith(magic)), None)
    if reader is None:
        raise InputError.of(source, "format", found="another kind of file", expected=KINDS)
    return reader(source, frame)
