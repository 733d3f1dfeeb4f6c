"""The choice of N levels of a fine trajectory to step on: arithmetic on the trajectory, no network.

A solver's step is linear in x and D, so that whatever it makes of a trajectory's own x_0, x_1, ... and D_0, D_1, ... is
weights on these, and its length comes out of their inner products. Two things are made of that:

- GITS (Chen et al. 2024, "On the trajectory regularity of ODE-based diffusion sampling"): the list with the least sum
  of local errors, by dynamic programming. A local error is how far one step, from the trajectory, ends from it. The
  step here is DPM-Solver++ 2M's, which looks back at one level more than GITS's Euler: the sum goes over triples.
- The sum takes no account of signs, and a later step can make good what an earlier one did. So the list is then moved,
  level by level, to where the whole run ends closest to the trajectory. For that D has to be known beside it:
  D(x + e) = D(x) + e is taken, as errors of a few steps are smooth and a denoiser keeps what is smooth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from x2ct import _core

SOLVER = "dpmpp-2m"

Matrix = npt.NDArray[np.float64]
Way = tuple[int, ...]  # positions in the levels, rising from the first to the last


class Trajectory:
    """Errors of coarse trajectories, from a fine one on falling noise levels.

    `products` are inner products (means over the voxels) of x_0, x_1, ... and then D_0, D_1, ..., [2 levels, 2 levels].
    """

    def __init__(self, levels: Sequence[float], products: Matrix) -> None:
        self.levels, self.products = list(levels), products

    def local_error(self, way: Way) -> float:
        """Return how far the last step of a way ends from the trajectory, all levels before being on it; RMS in x."""
        table = _core.Table.make(SOLVER, [self.levels[k] for k in way], to_zero=False)
        row = dict(zip(table.columns, map(float, table.rows[-1]), strict=True))
        *before, now, then = way
        size = len(self.levels)
        terms = {now: row["x.y"], size + now: row["x.H0"], then: -1.0, **{size + k: row["x.H1"] for k in before}}
        which, weights = list(terms), np.array(list(terms.values()))
        return float(np.sqrt(max(0.0, weights @ self.products[np.ix_(which, which)] @ weights)))

    def end_error(self, way: Way, solver: str) -> float:
        """Return how far a run on these levels ends from D at the last, with D(x + e) = D(x) + e; RMS in x."""
        size = len(self.levels)
        basis = np.eye(2 * size)
        table = _core.Table.make(solver, [self.levels[k] for k in way])
        at = {sigma: k for k, sigma in enumerate(self.levels)}
        x = y = basis[0]
        past: list[Matrix] = []
        for numbers in table.rows:
            row = dict(zip(table.columns, map(float, numbers), strict=True))
            level = at[row["sigma"]]
            denoised = basis[size + level] + y - basis[level]
            past = [row["a"] * y + row["b"] * denoised, *past[:3]]
            x, y = (
                row[f"{to}.x"] * x + row[f"{to}.y"] * y + sum(row[f"{to}.H{k}"] * h for k, h in enumerate(past))
                for to in "xy"
            )
        off = x - basis[2 * size - 1]
        return float(np.sqrt(max(0.0, off @ self.products @ off)))

    def nearest(self, sigmas: Sequence[float]) -> Way | None:
        """Return the way of the levels closest to these; None if two of them would be equal."""
        logs = np.log(self.levels)
        way = tuple(int(np.abs(logs - np.log(sigma)).argmin()) for sigma in sigmas)
        return way if all(a < b for a, b in zip(way, way[1:], strict=False)) else None


def shortest(trajectory: Trajectory, counts: Sequence[int]) -> dict[int, Way]:
    """Return for each count the way with the least sum of local errors from the first level to the last."""
    size = len(trajectory.levels)
    first = np.full((size, size), np.inf)  # of the first step, from level 0 to j
    later = np.full((size, size, size), np.inf)  # of the step from i to j that looks back at h
    for j in range(1, size):
        first[0, j] = trajectory.local_error((0, j))
        for i in range(1, j):
            for h in range(i):
                later[h, i, j] = trajectory.local_error((h, i, j))
    ways_by_count: dict[int, Way] = {1: (0,)}
    best = first  # best[i, j]: the least sum of a way that ends with the levels i and j
    came_from: list[npt.NDArray[np.intp]] = []
    for count in range(2, max(counts) + 1):
        if count > 2:
            ways = best[:, :, None] + later
            came_from.append(ways.argmin(0))
            best = ways.min(0)
        way = [size - 1, int(best[:, -1].argmin())]
        for before in reversed(came_from):
            way.append(int(before[way[-1], way[-2]]))
        ways_by_count[count] = tuple(reversed(way))
    return {count: ways_by_count[count] for count in counts}


def descend(trajectory: Trajectory, way: Way, solver: str) -> tuple[float, Way]:
    """Move levels until no move brings the run's end closer to the trajectory's; return the error and the way."""
    error = trajectory.end_error(way, solver)
    while True:
        for moved in _moves(way):
            closer = trajectory.end_error(moved, solver)
            if closer < error * (1 - 1e-6):
                error, way = closer, moved
                break
        else:
            return error, way


def _moves(way: Way) -> Iterator[Way]:
    """Yield ways with one level, two neighbours or all but the ends moved by a few positions."""
    inner = len(way) - 2
    for by in (8, -8, 4, -4, 2, -2, 1, -1):
        for width in sorted({1, 2, inner}):
            for start in range(1, inner - width + 2):
                moved = tuple(k + by if start <= n < start + width else k for n, k in enumerate(way))
                if all(a < b for a, b in zip(moved, moved[1:], strict=False)):
                    yield moved
