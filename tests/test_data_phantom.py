"""Phantoms are deterministic, have the tissues they promise, and differ from their mirror images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests import phantom
from x2ct.errors import InputError
from x2ct.geometry.grid import Grid

GRID = Grid((40, 36, 44), (6.0, 6.0, 6.0))


@pytest.mark.parametrize("make", [phantom.limb, phantom.chest])
def test_the_seed_decides_everything(make) -> None:
    first, again, other = make(GRID, 3), make(GRID, 3), make(GRID, 4)
    assert first.dtype == np.float32
    assert first.shape == GRID.shape
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("make", [phantom.limb, phantom.chest])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_no_axis_can_be_flipped_unseen(make, axis: int) -> None:
    hu = make(GRID, 0)
    assert np.abs(hu - np.flip(hu, axis)).max() > 1000
    # Not even without the marker, but for the head-foot axis of a straight limb or trunk.
    if axis == 0:
        plain = make(GRID, 0, marker=False)
        assert np.abs(plain - np.flip(plain, axis)).max() > 300


def test_a_limb_has_shell_core_flesh_and_air() -> None:
    hu = phantom.limb(Grid((96, 96, 24), (1.0, 1.0, 1.0)), 1, marker=False)
    for tissue, share in ((1200, 0.02), (300, 0.01), (50, 0.15), (-1000, 0.2)):
        assert np.mean(np.abs(hu - tissue) < 1) > share
    assert hu.min() == -1000
    assert hu.max() == pytest.approx(1200)


def test_a_chest_has_two_lungs_and_the_heart_on_the_left() -> None:
    from scipy import ndimage

    hu = phantom.chest(Grid((80, 80, 80), (4.0, 4.0, 4.0)), 0)
    labels, count = ndimage.label(np.abs(hu + 820) < 40)
    sizes = np.bincount(labels.ravel())[1:]
    assert count >= 2
    large = np.sort(sizes)[::-1]
    assert large[1] > 0.5 * large[0] > 1000
    right, left = (np.argwhere(labels == k + 1)[:, 0].mean() for k in np.argsort(sizes)[::-1][:2])
    assert right > left  # RAS+: the larger lung, the right one, is at larger x


def test_a_sphere_has_its_volume() -> None:
    grid = Grid((48, 48, 48), (2.0, 2.0, 2.0))
    hu = phantom.sphere(grid, 30.0, hu=0.0, centre_mm=(3.3, -2.2, 1.1))
    water_mm3 = float((1 + hu / 1000).sum()) * 8
    assert water_mm3 == pytest.approx(4 / 3 * math.pi * 30**3, rel=0.01)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed"):
        phantom.limb(GRID, -1)
