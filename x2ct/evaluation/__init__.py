"""Honest figures: what a synthesis is worth, against the truth and against simple baselines.

`metrics`, `anatomy` and `calibration` take HU arrays and know no model. A `Case` is a test patient;
`protocol` scores predictions of one, whichever system made them; `table` puts patients and methods side by side.
`x2ct.jobs.evaluate` is the whole of `x2ct evaluate`. NumPy, SciPy and scikit-image only.
"""

from x2ct.evaluation.case import make_case as make_case
from x2ct.evaluation.protocol import score as score
