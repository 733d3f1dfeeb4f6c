"""What all tests share: few threads, so that what runs beside the tests keeps its share of a small machine."""

from __future__ import annotations

import os

# Before NumPy, PyTorch or a BLAS is loaded; a test that is about threads sets its own number.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "2")
