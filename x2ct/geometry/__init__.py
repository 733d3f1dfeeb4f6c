"""Views as 3x4 projection matrices, and line integrals through them.

Patient mm are the axes of the grid (x right, y front, z head), their origin at the grid's index (N - 1) / 2. A view's
matrix P takes patient mm to the detector, (u w, v w, w) = P (x, y, z, 1): u is the column, v the row, an integer a
pixel's centre; w = 1 for a parallel beam, w > 0 in front of a cone's source. The core makes the
matrices of angles and distances (csrc/core/view.cpp) and reads the files (geometry.cpp).
"""

from x2ct._core import ANGLES_DEG
from x2ct.geometry.view import MU_WATER_PER_MM, Geometry, Image, View, attenuation, backproject, project

__all__ = ["ANGLES_DEG", "MU_WATER_PER_MM", "Geometry", "Image", "View", "attenuation", "backproject", "project"]
