"""Quarter turns and mirrors of a picture: what its file asks for, and what the user does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError

Scalar = TypeVar("Scalar", bound=np.generic)

_ROTATIONS = {0: 1, 90: 6, 180: 3, 270: 8}  # degrees clockwise, as Orientation has them


@dataclass(frozen=True)
class Turn:
    """First the transposition about the main diagonal, then the order of rows and of columns."""

    transpose: bool = False
    down: int = 1  # -1 where top and bottom change places
    across: int = 1  # -1 where left and right do

    @classmethod
    def rotation(cls, degrees: int) -> Turn:
        """Clockwise, as seen; raises InputError for what is not a quarter turn."""
        if degrees not in _ROTATIONS:
            raise InputError.of("--rotate", "degrees", found=degrees, expected="90, 180 or 270 (clockwise)")
        return cls.exif(_ROTATIONS[degrees])

    @classmethod
    def mirror(cls, flip: str) -> Turn:
        """Horizontal: left and right change places; vertical: top and bottom; raises InputError at another word."""
        if flip not in ("horizontal", "vertical"):
            raise InputError.of("--flip", "direction", found=repr(flip), expected="horizontal or vertical")
        return cls(across=-1) if flip == "horizontal" else cls(down=-1)

    @classmethod
    def exif(cls, code: int) -> Turn:
        """What TIFF's and EXIF's Orientation (1 to 8) asks a viewer to do; any other code means nothing."""
        orders = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
        return cls(code > 4, *orders[code]) if code in orders else cls()

    def __bool__(self) -> bool:
        return self != Turn()

    def of(self, image: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """The turned picture (rows, columns), C-contiguous."""
        turned: npt.NDArray[Any] = image.T if self.transpose else image
        return np.ascontiguousarray(turned[:: self.down, :: self.across])

    def spacing(self, pair: tuple[float, float] | None) -> tuple[float, float] | None:
        """The (row, column) spacing of the turned picture."""
        return (pair[1], pair[0]) if pair is not None and self.transpose else pair
