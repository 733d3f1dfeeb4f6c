"""Noise through Python: the same bits whatever the threads, pinned, and refused where it makes no sense."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from x2ct import _core
from x2ct.errors import InputError


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_same_bits_for_any_threads(threads: int) -> None:
    whole = _core.normal((67, 65, 63), seed=11, draw=2, sample=5, threads=1)
    assert whole.dtype == np.float32
    assert whole.shape == (67, 65, 63)
    assert _core.normal((67, 65, 63), seed=11, draw=2, sample=5, threads=threads).tobytes() == whole.tobytes()


def test_a_voxel_is_addressed_by_its_linear_index() -> None:
    flat = _core.normal((4096,), seed=3)
    assert np.array_equal(_core.normal((16, 16, 16), seed=3).ravel(), flat)
    assert np.array_equal(_core.normal((100,), seed=3), flat[:100])


def test_bits_are_pinned() -> None:
    """Any compiler and machine must give these: only operations that IEEE 754 rounds exactly are used."""
    noise = _core.normal((64, 64, 64), seed=2**64 - 1, draw=1, sample=2)
    assert noise.ravel()[:4].tobytes().hex() == PINNED_START
    assert hashlib.sha256(noise.tobytes()).hexdigest() == PINNED_SHA256


PINNED_START = "2a7ca4bf45d20e3fb9fd353f573201bf"
PINNED_SHA256 = "4173ae6329ea3263017b238324c325813e99b76ab5b821abaceea7d6528e8b11"


@pytest.mark.parametrize("shape", [(0,), (4, -1), (), (2**40, 2**40)])
def test_impossible_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="normal: shape"):
        _core.normal(shape, seed=0)
