"""Many samples of one study, one after the other: their mean and spread, without keeping them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_CHUNK = 1 << 20


class Ensemble:
    """The voxel-wise mean and standard deviation of volumes that come one by one (Welford 1962, Technometrics 4(3)).

    Keeps two volumes, whatever the number of samples.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Array = np.empty(0, np.float32)
        self._squares: Array = np.empty(0, np.float32)

    def add(self, volume: Array) -> None:
        """Take one more sample: float32, of the same shape as those before."""
        self.count += 1
        if self.count == 1:
            self._mean, self._squares = volume.copy(), np.zeros_like(volume)
            return
        given, mean, squares = (array.reshape(-1) for array in (volume, self._mean, self._squares))
        for at in range(0, given.size, _CHUNK):
            part = slice(at, at + _CHUNK)
            off = given[part] - mean[part]
            mean[part] += off / np.float32(self.count)
            squares[part] += off * (given[part] - mean[part])

    def mean(self) -> Array:
        """The mean, to be used after the last sample."""
        return self._mean

    def deviation(self) -> Array:
        """The samples' standard deviation (divided by n - 1; zeros for one), to be taken once, after the last."""
        squares, self._squares = self._squares, np.empty(0, np.float32)
        squares /= np.float32(max(1, self.count - 1))
        return np.sqrt(squares, out=squares)
