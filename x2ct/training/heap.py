"""The C library's allocator, told to keep what PyTorch frees: a step asks for the same tensors as the one before."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_THRESHOLD = 32 * 2**20
"""The most that glibc takes for the threshold above which a block is mapped afresh."""


def keep_freed_memory() -> None:
    """Spare each step the page faults of tensors of up to 32 MB; elsewhere than on Linux with glibc it does nothing.

    By default such tensors are mapped when made and unmapped when freed. It holds for the whole process.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
