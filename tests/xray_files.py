"""X-ray files by what they come to on a view's detector, to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import input_files as files
from x2ct.geometry import View
from x2ct.io.xray.radiograph import ReadOptions, XRay

VIEW = View.parallel("ap")
P99 = 5.0
TRUTH = files.truth()
SHOWN = files.display(TRUTH)


def on_detector(path: Path, view: View = VIEW, **options: Any) -> np.ndarray:
    return XRay.load(path, options=ReadOptions(1.25, **options)).to_detector(view, P99)[0]


def close(one: np.ndarray, other: np.ndarray, share: float = 2e-3) -> bool:
    return float(np.abs(one - other).max()) <= share * P99


def says(path: Path, words: str) -> bool:
    return any(words in note for note in XRay.load(path).notes)
