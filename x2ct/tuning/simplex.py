"""Noise levels moved to where a measured error is least."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

Sigmas = tuple[float, ...]


def moved(sigmas: Sigmas, error: Callable[[Sigmas], float], runs: int) -> tuple[float, Sigmas]:
    """Nelder and Mead's search in ln sigma about a list whose ends stay: the least error of so many runs, and where."""
    tried = {sigmas: error(sigmas)}

    def measured(logs: npt.NDArray[np.float64]) -> float:
        levels = (sigmas[0], *(float(sigma) for sigma in np.exp(logs)), sigmas[-1])
        if any(after >= before for before, after in zip(levels, levels[1:], strict=False)):
            return np.inf
        if levels not in tried:
            tried[levels] = error(levels)
        return tried[levels]

    if runs:
        start = np.log(sigmas[1:-1])
        steps = np.diag(0.25 * (-1.0) ** np.arange(len(start)))
        simplex = np.concatenate([start[None], start + steps])
        minimize(measured, start, method="Nelder-Mead", options={"maxfev": runs, "initial_simplex": simplex})
    best = min(tried, key=lambda levels: tried[levels])
    return tried[best], best
