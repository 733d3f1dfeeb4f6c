"""Honest figures: what a synthesis is worth, against the truth and against simple baselines.

Metrics take HU arrays and know no model; the protocol takes predictions, whichever system made them. NumPy, SciPy and
scikit-image only.
"""

from x2ct.evaluation.metrics import bone_dice, mae_hu, psnr, reprojection_error, spread, ssim
from x2ct.evaluation.protocol import Case, evaluate, make_case, summarise

__all__ = [
    "Case",
    "bone_dice",
    "evaluate",
    "mae_hu",
    "make_case",
    "psnr",
    "reprojection_error",
    "spread",
    "ssim",
    "summarise",
]
