"""Line integrals of a volume on any PyTorch device: Joseph's method, as `x2ct.geometry.project` computes it in C++.

Training projects each study anew. On a CPU this costs about as much as the core's projector; on a GPU the volume never
leaves the device.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from x2ct.errors import InputError
from x2ct.geometry import MU_WATER_PER_MM, View

SAMPLES_AT_ONCE = 2**21  # samples that are held in memory at a time (24 bytes each)


def attenuation(hu: Tensor) -> Tensor:
    """Convert HU of any shape to linear attenuation per mm: mu_water max(0, 1 + HU / 1000)."""
    return torch.clamp((hu + 1000) * (MU_WATER_PER_MM / 1000), min=0)


@torch.no_grad()
def ray_sums(mu: Tensor, index_to_mm: npt.ArrayLike, view: View) -> Tensor:
    """Return line integrals through a volume by Joseph's method (IEEE Trans. Med. Imaging 1(3), 1982).

    Each ray is sampled where it crosses the slices of the axis that it follows most closely, bilinearly within the
    slice. Differs from `x2ct.geometry.project` by rounding only.

    `mu` is attenuation per mm, not negative, float32 [X, Y, Z]; outside of the volume is air. `index_to_mm` is (4, 4),
    voxel index to patient mm. The result is float32 [rows, columns] on the device of `mu`, dimensionless. Raises
    InputError where a cone beam's source is not outside of the volume.
    """
    affine = np.asarray(index_to_mm, np.float64)
    origin, direction = _rays(view, affine, tuple(mu.shape))
    corners = np.asarray([(u, v, 1.0) for u in (0, view.shape[1] - 1) for v in (0, view.shape[0] - 1)]) @ direction.T
    axes = np.abs(corners).argmax(1)
    v, u = (torch.arange(n, dtype=torch.float64, device=mu.device) for n in view.shape)
    pixels = torch.stack([*torch.meshgrid(u, v, indexing="xy"), torch.ones(view.shape).to(u)], -1).reshape(-1, 3)
    matrices = (torch.from_numpy(matrix.T).to(mu.device) for matrix in (origin, direction))
    start, along = (pixels @ matrix for matrix in matrices)
    image = mu.new_zeros(len(start))
    first = axes[0]
    if (axes == first).all() and abs(np.sign(corners[:, first]).sum()) == len(corners):
        # Directions are affine in the pixel: what holds at the corners holds for all between.
        image += _sum_slices(mu, affine, start, along, int(first))
    else:
        nearest = along.abs().argmax(1)
        for axis in range(3):
            rays = torch.nonzero(nearest == axis)[:, 0]
            image[rays] = _sum_slices(mu, affine, start[rays], along[rays], axis)
    return image.reshape(view.shape)


def _rays(
    view: View, affine: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return two 3x3 matrices from (u, v, 1) to a point of the pixel's ray and to its direction, in voxel indices."""
    matrix = view.matrix @ affine
    square, offset = matrix[:, :3], matrix[:, 3]
    if view.kind == "parallel":
        inverse = np.linalg.pinv(square[:2])
        origin = np.column_stack([inverse * offset[2], -inverse @ offset[:2]])
        direction = np.zeros((3, 3))
        direction[:, 2] = np.cross(square[0], square[1])
        return origin, direction
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in shape]), -1).reshape(-1, 3)
    nearest = float((ends @ square[2] + offset[2]).min())
    if nearest <= 0:
        found, expected = f"w = {nearest:g} in the volume", "a source outside of the volume"
        raise InputError.of(f"view {view.name}", "matrix", found=found, expected=expected)
    direction = np.asarray(np.linalg.inv(square), np.float64)
    origin = np.zeros((3, 3))
    origin[:, 2] = -direction @ offset
    return origin, direction


def _sum_slices(mu: Tensor, affine: npt.NDArray[np.float64], start: Tensor, along: Tensor, axis: int) -> Tensor:
    """Return line integrals [n] along rays start + t along, both float64 [n, 3], sampled at an axis's slices."""
    slices = mu.movedim(axis, 0)
    others = [k for k in range(3) if k != axis]
    slope = along / along[:, axis : axis + 1]
    base = start - slope * start[:, axis : axis + 1]
    lengths: Tensor = (slope @ torch.from_numpy(affine[:3, :3].T.copy()).to(mu.device)).norm(dim=1)
    # grid_sample's axes run from -1 to 1 between the middles of the outer voxels, the last axis of memory first.
    half = torch.tensor([max(mu.shape[k] - 1, 1) / 2 for k in others], dtype=torch.float64, device=mu.device)
    first = (base[:, others] / half - 1).flip(-1).float()[None, None]
    step = (slope[:, others] / half).flip(-1).float()[None, None]
    total = torch.zeros(len(start), device=mu.device)
    count = max(1, SAMPLES_AT_ONCE // max(len(start), 1))
    occupied = range(len(slices))
    if mu.device.type == "cpu":  # slices of air beside the body; a GPU would wait for the answer
        filled = np.flatnonzero(slices.amax((1, 2)).numpy())
        occupied = range(filled[0], filled[-1] + 1) if len(filled) else range(0)
    for begin in range(occupied.start, occupied.stop, count):
        part = slices[begin : min(begin + count, occupied.stop), None]
        index = torch.arange(begin, begin + len(part), dtype=torch.float32, device=mu.device)
        grid = torch.addcmul(first, step, index[:, None, None, None])
        total += functional.grid_sample(part, grid, align_corners=True).sum((0, 1, 2))
    return total * lengths.float()
