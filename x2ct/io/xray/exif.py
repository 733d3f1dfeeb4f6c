"""What EXIF says of a picture: how it lies, and whether a camera took it, which makes it no X-ray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from x2ct.errors import InputError
from x2ct.io.xray.turn import Turn

if TYPE_CHECKING:
    from PIL.Image import Image
    from tifffile import TiffPage

_ORIENTATION, _EXIF, _GPS = 0x0112, 0x8769, 0x8825
_CAMERA = {  # what no detector and no film scanner writes: its tag, its name in tifffile, and in words
    0x829A: ("ExposureTime", "exposure time"),
    0x829D: ("FNumber", "f-number"),
    0x8827: ("PhotographicSensitivity", "ISO speed"),
    0x9209: ("Flash", "flash"),
    0x920A: ("FocalLength", "focal length"),
    0xA434: ("LensModel", "lens"),
}


def turn_of(source: str | Path, image: Image) -> Turn:
    """How a picture that Pillow has opened asks to be turned.

    Raises:
        InputError: a camera took it.
    """
    said = image.getexif()
    taken = [words for tag, (_, words) in _CAMERA.items() if tag in said.get_ifd(_EXIF)]
    if taken or said.get_ifd(_GPS):
        raise _from_camera(source, taken)
    orientation = said.get(_ORIENTATION)
    return Turn.exif(orientation if isinstance(orientation, int) else 1)


def turn_of_page(source: str | Path, page: TiffPage) -> Turn:
    """How a TIFF's page asks to be turned.

    Raises:
        InputError: a camera took it.
    """
    said, place, orientation = (page.tags.get(tag) for tag in (_EXIF, _GPS, _ORIENTATION))
    names = said.value if said is not None and isinstance(said.value, dict) else {}
    taken = [words for name, words in _CAMERA.values() if name in names]
    if taken or place is not None:
        raise _from_camera(source, taken)
    return Turn.exif(int(orientation.value) if orientation is not None else 1)


def _from_camera(source: str | Path, taken: list[str]) -> InputError:
    found = f"a camera's {', '.join(taken) or 'place on the globe'}"
    hint = "a photo of a film or of a screen has lost the X-ray's values"
    return InputError.of(source, "EXIF", found=found, expected="an X-ray", hint=hint)
