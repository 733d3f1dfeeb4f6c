"""The map between HU and the network's unit: piecewise linear, clipped to the window, and its own inverse inside."""

from __future__ import annotations

import numpy as np
import pytest

from x2ct import _core
from x2ct.bundle.intensity import Intensity
from x2ct.errors import InputError

BONE = Intensity((-1000.0, -150.0, 600.0, 1500.0), (-1.0, -0.45, 0.6, 1.0))


def test_hu_are_numpys_interpolation_to_the_bit() -> None:
    x = np.random.default_rng(0).uniform(-1.2, 1.2, (20, 30, 40)).astype(np.float32)
    x[0, 0, :5] = np.nan, -1, -0.45, 1, np.inf
    expected = np.interp(x, BONE.x, BONE.hu).astype(np.float32)
    assert np.array_equal(BONE.to_hu(x), expected, equal_nan=True)
    assert np.array_equal(BONE.to_hu(x.T), expected.T, equal_nan=True)


def test_there_and_back_is_where_it_began_inside_the_window() -> None:
    hu = np.linspace(-1000, 1500, 1001, dtype=np.float32)
    np.testing.assert_allclose(BONE.to_hu(BONE.to_x(hu)), hu, atol=1e-3)
    assert BONE.to_hu(BONE.to_x([-3000, 3000])).tolist() == [-1000, 1500]


@pytest.mark.parametrize("knots", [((0.0,), (0.0,)), ((0.0, 1.0), (0.0,)), ((0.0, 0.0), (-1.0, 1.0))])
def test_knots_that_are_no_map_are_refused(knots: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    with pytest.raises(InputError, match="intensity"):
        Intensity(*knots)


@pytest.mark.parametrize("knots", [((), ()), ((0.0,), (0.0,)), ((0.0, 1.0), (0.0,)), ((0.0, 1.0), (0.0, 0.0))])
def test_the_core_refuses_knots_that_are_no_map(knots: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    with pytest.raises(InputError, match=r"knots: found \d HU and \d x, expected two or more of each, x rising"):
        _core.to_hu(*knots, np.zeros(3, np.float32))
