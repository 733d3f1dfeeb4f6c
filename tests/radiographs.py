"""The real radiograph, pictures of random values, and files made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from tests import refusals
from x2ct.geometry import View
from x2ct.io.xray.radiograph import XRay

CHEST = Path(__file__).parent / "data" / "chest_pa_cr.dcm"
VIEW = View.parallel("ap")  # 352 x 352 of 1.25 mm
P99 = 6.0


def some_picture(rows: int = 160, columns: int = 140, kind: type = np.uint16) -> np.ndarray:
    """Random values around a body that is dense in the middle and below, with air beside its neck."""
    top = 255 if kind is np.uint8 else 4000
    down, across = np.mgrid[0 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = np.clip((0.2 + 0.8 * down) * (1 - across**2), 0, 1)
    noise = np.random.default_rng(1).uniform(0, 1, (rows, columns))
    return (top * (0.7 * body + 0.3 * noise)).astype(kind)


def refused(path: Path, *words: str) -> None:
    refusals.refused(lambda: XRay.load(path), str(path), *words)


def save_dicom(path: Path, change: Callable[[Dataset], None] | None = None) -> Path:
    dataset = pydicom.dcmread(CHEST)
    if change:
        change(dataset)
    dataset.save_as(path, enforce_file_format=True)
    return path
