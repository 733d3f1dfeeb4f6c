"""One picture a case: a row for each method, with slices and X-ray, for a person to see what the figures can't say."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from x2ct import output
from x2ct.evaluation.protocol import Case
from x2ct.geometry import attenuation

FloatArray = npt.NDArray[np.float32]
Window = tuple[float, float]

TISSUE: Window = (-1000.0, 600.0)
BONE: Window = (0.0, 800.0)
HEIGHT = 256


def save(case: Case, methods: Mapping[str, FloatArray], path: str | os.PathLike[str]) -> Path:
    """Write a PNG: truth first, then each method; axial, coronal and sagittal middle slices, bone, and X-ray.

    The bone columns are maximum-intensity projections from the front and the side: missing ribs and vertebrae show.

    Args:
        case: the test person.
        methods: HU on the case's grid by name.
        path: the PNG.
    """
    from PIL import Image, ImageDraw

    rows = [(name, _row(volume, case.grid.spacing_mm)) for name, volume in {"truth": case.truth, **methods}.items()]
    width = rows[0][1].shape[1]
    label = 16
    page = Image.new("L", (width, len(rows) * (HEIGHT + label)))
    draw = ImageDraw.Draw(page)
    for index, (name, row) in enumerate(rows):
        top = index * (HEIGHT + label)
        draw.text((4, top + 2), name, fill=255)
        page.paste(Image.fromarray(row), (0, top + label))
    data = io.BytesIO()
    page.save(data, "PNG")
    return output.write_atomically(path, data.getvalue())


def _row(hu: FloatArray, spacing: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    x, y, z = (n // 2 for n in hu.shape)
    sx, sy, sz = spacing
    mu = attenuation(hu)
    planes = [
        _grey(hu[:, :, z], TISSUE, sx, sy),
        _grey(hu[:, y, :], TISSUE, sx, sz),
        _grey(hu[x, :, :], TISSUE, sy, sz),
        _grey(hu.max(axis=1), BONE, sx, sz),
        _grey(hu.max(axis=0), BONE, sy, sz),
        _grey(mu.sum(axis=1) * sy, (0.0, 6.0), sx, sz),
        _grey(mu.sum(axis=0) * sx, (0.0, 9.0), sy, sz),
    ]
    return np.concatenate(planes, axis=1)


def _grey(plane: FloatArray, window: Window, across_mm: float, down_mm: float) -> npt.NDArray[np.uint8]:
    """Head or front up, the patient's right on the left, true proportions."""
    from PIL import Image

    low, high = window
    grey = (np.clip((plane - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    width = max(1, round(HEIGHT * plane.shape[0] * across_mm / (plane.shape[1] * down_mm)))
    return np.asarray(Image.fromarray(grey[::-1, ::-1].T).resize((width, HEIGHT)))
