"""The map between HU and the network's unit x: monotone, piecewise linear, invertible, stored in the bundle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.errors import InputError

BONE_HU = 200.0  # voxels of at least so many HU count as bone


@dataclass(frozen=True)
class Intensity:
    """A piecewise linear map from HU to x in [-1, 1]; InputError unless its knots are pairs and strictly increasing."""

    hu: tuple[float, ...] = (-1000.0, 1500.0)  # the first and last are the window, outside of which HU is clipped
    x: tuple[float, ...] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.hu) != len(self.x) or len(self.hu) < 2:
            found = f"{len(self.hu)} HU and {len(self.x)} x"
            raise InputError.of("intensity", "knots", found=found, expected="two pairs or more")
        for name, knots in (("hu", self.hu), ("x", self.x)):
            if not all(a < b for a, b in zip(knots, knots[1:], strict=False)):
                raise InputError.of("intensity", name, found=knots, expected="strictly increasing knots")

    @property
    def window_hu(self) -> tuple[float, float]:
        """The lowest and highest HU that the network's range holds."""
        return self.hu[0], self.hu[-1]

    def to_x(self, hu: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """HU of any shape, clipped to the window, in the network's unit (float32)."""
        return np.interp(np.asarray(hu, np.float32), self.hu, self.x).astype(np.float32)

    def to_hu(self, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The inverse: the network's unit, clipped to its range, in HU (float32)."""
        return _core.to_hu(self.hu, self.x, np.asarray(x, np.float32, order="C"))
