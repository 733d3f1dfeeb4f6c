"""Small pictures of volumes for the page, so that a person sees what the figures can't say.

The patient's right is on the left, head or front is up, as in `x2ct.preview`. Pixels are the grid's own, so that a page
stays small; the browser enlarges them.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt

from x2ct.evaluation.case import Case
from x2ct.geometry import attenuation
from x2ct.panels import window
from x2ct.preview import BONE, WIDE, diverging, facing

FloatArray = npt.NDArray[np.float32]
Window = tuple[float, float]
Spacing = tuple[float, float, float]
Panels = list[tuple[str, str]]
"""(caption, PNG as a data URI)."""

DEVIATION: Window = (0.0, 400.0)
APART_MM = 15.0
WORST = 3


def planes(hu: FloatArray, spacing_mm: Spacing) -> Panels:
    """Middle slices, bone (maximum intensity) and X-ray from the front and the side."""
    x, y, z = (n // 2 for n in hu.shape)
    sx, sy, sz = spacing_mm
    mu = attenuation(hu)
    return [
        ("axial", _png(window(hu[:, :, z], WIDE), (sx, sy))),
        ("coronal", _png(window(hu[:, y, :], WIDE), (sx, sz))),
        ("sagittal", _png(window(hu[x, :, :], WIDE), (sy, sz))),
        ("bone, front", _png(window(hu.max(axis=1), BONE), (sx, sz))),
        ("bone, side", _png(window(hu.max(axis=0), BONE), (sy, sz))),
        ("X-ray, front", _png(window(mu.sum(axis=1) * sy, (0.0, 6.0)), (sx, sz))),
        ("X-ray, side", _png(window(mu.sum(axis=0) * sx, (0.0, 9.0)), (sy, sz))),
    ]


def differences(error: FloatArray, spacing_mm: Spacing) -> Panels:
    """An error in HU in the three middle slices: red where the synthesis is higher, blue where it is lower."""
    x, y, z = (n // 2 for n in error.shape)
    sx, sy, sz = spacing_mm
    slices = (
        ("axial", error[:, :, z], (sx, sy)),
        ("coronal", error[:, y, :], (sx, sz)),
        ("sagittal", error[x], (sy, sz)),
    )
    return [(name, _png(diverging(plane), pitch)) for name, plane, pitch in slices]


def deviations(deviation: FloatArray, spacing_mm: Spacing) -> Panels:
    """A standard deviation in HU in the three middle slices, white at 400."""
    x, y, z = (n // 2 for n in deviation.shape)
    sx, sy, sz = spacing_mm
    slices = (
        ("axial", deviation[:, :, z], (sx, sy)),
        ("coronal", deviation[:, y, :], (sx, sz)),
        ("sagittal", deviation[x], (sy, sz)),
    )
    return [(name, _png(window(plane, DEVIATION), pitch)) for name, plane, pitch in slices]


def worst(case: Case, estimate: FloatArray) -> list[Panels]:
    """The axial slices with the largest mean error in the body, apart from each other: truth, synthesis, difference."""
    error = np.where(case.body, estimate - case.truth, np.float32(0))
    body = case.body.sum(axis=(0, 1))
    each = np.abs(error).sum(axis=(0, 1), dtype=np.float64) / np.maximum(body, 1)
    each[body < 0.1 * max(int(body.max()), 1)] = 0
    sx, sy, sz = case.grid.spacing_mm
    apart = max(1, round(APART_MM / sz))
    found: list[Panels] = []
    while len(found) < WORST and each.any():
        k = int(np.argmax(each))
        mm = case.grid.index_to_mm[2, 2] * k + case.grid.index_to_mm[2, 3]
        found.append(
            [
                (f"truth, z {mm:+.0f} mm", _png(window(case.truth[:, :, k], WIDE), (sx, sy))),
                ("synthesis", _png(window(estimate[:, :, k], WIDE), (sx, sy))),
                (f"difference, mean {each[k]:.0f} HU", _png(diverging(error[:, :, k]), (sx, sy))),
            ]
        )
        each[max(0, k - apart) : k + apart + 1] = 0
    return found


def _png(plane: npt.NDArray[np.uint8], pitch_mm: tuple[float, float]) -> str:
    """(across, up) or (across, up, colour) grey levels as they are looked at, in true proportions, as a data URI."""
    from PIL import Image

    turned = plane[::-1, ::-1].swapaxes(0, 1) if plane.ndim == 3 else facing(plane)
    picture = Image.fromarray(np.ascontiguousarray(turned))
    across, up = pitch_mm
    if abs(across / up - 1) > 0.01:
        finest = min(pitch_mm)
        size = (max(1, round(picture.width * across / finest)), max(1, round(picture.height * up / finest)))
        picture = picture.resize(size)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
