"""Honest figures: what a synthesis is worth, against the truth and against simple baselines.

`metrics`, `bones`, `anatomy` and `calibration` take HU arrays and know no model. A `Case` is a test patient;
`protocol` scores predictions of one, whichever system made them; `table` puts patients and methods side by side.
`x2ct.jobs.evaluate` is the whole of `x2ct evaluate`. NumPy, SciPy and scikit-image only.
"""

from x2ct.evaluation.anatomy import Anatomy, Landmarks
from x2ct.evaluation.case import Case, make_case
from x2ct.evaluation.metrics import bone_dice, mae_hu, psnr, reprojection_error, ssim
from x2ct.evaluation.protocol import evaluate, score
from x2ct.evaluation.table import summarise

__all__ = [
    "Anatomy",
    "Case",
    "Landmarks",
    "bone_dice",
    "evaluate",
    "mae_hu",
    "make_case",
    "psnr",
    "reprojection_error",
    "score",
    "ssim",
    "summarise",
]
