"""Volumes as one HTML page to look at in any browser, offline: three planes, window presets, the X-rays beside."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.files.text import readable
from x2ct.io.ct.volume import AIR_HU, Volume, int16_hu, stem_and_ending
from x2ct.io.xray.radiograph import ReadOptions, XRay
from x2ct.render import panels, preview

SUFFIXES = (".html",)
WINDOWS: dict[str, tuple[float, float]] = {
    "wide": (-200, 1600),
    "lung": (-600, 1500),
    "soft tissue": (40, 400),
    "bone": (400, 1800),
}
"""Window centre and width in HU, by name; the first is what the page opens with."""
XRAY_PX = 340  # the height of an X-ray
LARGEST_SIDE = 256
"""A page holds at most so many voxels along a side; larger volumes are averaged over blocks, and the page says so."""


def save(
    path: str | PathLike[str],
    volume: Volume,
    xrays: Mapping[str, XRay] | None = None,
    *,
    name: str = "",
    beside: Mapping[str, Volume] | None = None,
    unexplained: Image.Image | None = None,
) -> Path:
    """Write a volume, a CT or a standard deviation in HU, as a page that loads nothing from anywhere.

    `xrays` are by view name; `name` is the page's title, by default the file's name; each volume of `beside` gets a row
    of its own, resampled to `volume`'s grid by their affines; `unexplained` is the map of `preview.unexplained`. Raises
    InputError for a path that doesn't end with .html or can't be written, and X2CTError where the write fails on the
    way.
    """
    target = atomic.check_writable(path, SUFFIXES)
    title = name or target.stem
    volumes = {title: volume, **{other: _onto(volume, further) for other, further in (beside or {}).items()}}
    hu, spacing, factor = _reduced(volume)
    sides, steps = " x ".join(map(str, volume.shape)), " x ".join(f"{step:.3g}" for step in volume.spacing_mm)
    pictures = [
        {"caption": f"X-ray, {view}", "png": panels.data_uri(panels.png(panel.image)), "ends": panel.ends}
        for view, panel in zip(xrays or {}, preview.xray_panels(xrays or {}, XRAY_PX), strict=True)
    ]
    if unexplained is not None:
        pictures.append(
            {
                "caption": "What each X-ray shows beyond the CT",
                "png": panels.data_uri(panels.png(unexplained)),
                "kind": "map",
            }
        )
    facts: dict[str, Any] = {
        "name": title,
        "warning": preview.WARNING if volume.synthetic else "",
        "text": f"{sides} voxels of {steps} mm" + (f"; shown at 1/{factor} of its resolution" if factor > 1 else ""),
        "shape": hu.shape,
        "spacing_mm": spacing,
        "volumes": [{"name": row, **_volume_facts(each)} for row, each in volumes.items()],
        "pictures": pictures,
    }
    page = resources.files("x2ct").joinpath("pages/view.html").read_text(encoding="utf-8")
    # Within a script element, "</" could end it, and "<!--" hide what follows.
    return atomic.write_atomically(target, page.replace("@FACTS@", json.dumps(facts).replace("<", "\\u003c")).encode())


def view_files(
    ct: str | PathLike[str],
    page: str | PathLike[str] | None = None,
    xrays: Mapping[str, Path] | None = None,
    reading: Mapping[str, ReadOptions] | None = None,
    beside: Sequence[Path] = (),
    unexplained: Path | None = None,
) -> Path:
    """Write a CT, further volumes and X-ray files, read by `reading`, to a page, by default beside the CT.

    `unexplained` is the .png file that `x2ct sample --unexplained` wrote. Raises X2CTError, any of the family; nothing
    has been written then.
    """
    source = Path(ct)
    name = stem_and_ending(source.name)[0]
    target = atomic.check_writable(page or source.with_name(f"{name}.html"), SUFFIXES)
    volume = Volume.load(source)
    further: dict[str, Volume] = {}
    for path in beside:
        row = stem_and_ending(path.name)[0]
        further[str(path) if row in (name, *further) else row] = Volume.load(path)
    pictures = {view: XRay.load(path, options=(reading or {}).get(view)) for view, path in (xrays or {}).items()}
    residual_map = None if unexplained is None else _map(unexplained)
    return save(target, volume, pictures, name=name, beside=further, unexplained=residual_map)


def _map(path: Path) -> Image.Image:
    expected = "the .png file that x2ct sample --unexplained wrote"
    if not path.exists():
        raise InputError.of(path, "file", found="no such file", expected=expected)
    with readable(path, expected), Image.open(path, formats=["PNG"]) as image:
        return image.convert("RGB")


def _volume_facts(volume: Volume) -> dict[str, Any]:
    kind, windows = "CT", WINDOWS
    if preview.is_spread(volume.hu):
        low, high = preview.spread_window(volume.hu)
        kind, windows = "standard deviation", {"standard deviation": ((low + high) / 2, high - low)}
    voxels = int16_hu(_reduced(volume)[0]).astype("<i2").tobytes()
    return {"kind": kind, "windows": windows, "voxels": base64.b64encode(gzip.compress(voxels, 6, mtime=0)).decode()}


def _onto(volume: Volume, other: Volume) -> Volume:
    """Return another volume on the first one's grid, by their affines; beyond it is air, or no deviation."""
    if other.shape == volume.shape and np.allclose(other.affine, volume.affine, atol=1e-3):
        return other
    step = np.linalg.inv(other.affine) @ volume.affine
    beyond = 0.0 if preview.is_spread(other.hu) else AIR_HU
    hu = ndimage.affine_transform(
        other.hu, step[:3, :3], step[:3, 3], volume.shape, np.float32, order=1, mode="grid-constant", cval=beyond
    )
    return replace(other, hu=hu, affine=volume.affine)


def _reduced(volume: Volume) -> tuple[npt.NDArray[np.float32], tuple[float, ...], int]:
    """Return HU, their spacing in mm, and over how many voxels along each side they were averaged."""
    factor = -(-max(volume.shape) // LARGEST_SIDE)
    if factor == 1:
        return volume.hu, volume.spacing_mm, 1
    blocks = [(max(1, size // factor), min(factor, size)) for size in volume.shape]
    whole = volume.hu[tuple(slice(count * block) for count, block in blocks)]
    averages = whole.reshape([side for pair in blocks for side in pair]).mean(axis=(1, 3, 5))
    return averages, tuple(step * block for step, (_, block) in zip(volume.spacing_mm, blocks, strict=True)), factor
