"""Sampling with networks that something else evaluates: a Triton server, or PyTorch in a MONAI bundle.

X-rays, noise levels, loop and HU are the core's, as in `x2ct.engine.sampler`; only the three networks are called
through a function. What needs to look inside the networks (tiles, data consistency, several samples) is left to
`x2ct.Sampler`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.engine.conditioning import study_of
from x2ct.engine.sampler import SampleOptions
from x2ct.io.xray.radiograph import XRay

Arrays = Mapping[str, npt.NDArray[np.float32]]

Evaluate = Callable[[str, Arrays], Arrays]
"""Evaluates "encoder", "lift" or "denoiser": inputs by name in, outputs by name out, named as in model.json."""


def sample(
    bundle: Bundle,
    evaluate: Evaluate,
    xrays: Mapping[str, XRay],
    *,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    mean: bool = False,
) -> npt.NDArray[np.float32]:
    """Return one CT on the bundle's own grid: float32 HU (X, Y, Z), as `Sampler.run` gives it from the same arguments.

    An exception in `evaluate` ends the run. The X-rays, by view name, are the pictures of the bundle's own views, pixel
    for pixel; for seed, steps, solver and mean see `SampleOptions`. Raises InputError: no X-ray, one that can't be
    used, or an option that can't be had.
    """
    plan = _core.sampling_plan(bundle.diffusion, SampleOptions(seed=seed, steps=steps, solver=solver, mean=mean))
    ready = study_of(bundle, xrays, bundle.geometry)
    coords = bundle.grid.coordinates()[None]

    def volume(
        views: npt.NDArray[np.float32], matrices: npt.NDArray[np.float32], number: int
    ) -> npt.NDArray[np.float32]:
        features = evaluate("encoder", {"views": views, "valid": ready.valid})
        condition = evaluate("lift", {**features, "P": matrices, "coords": coords, "valid": ready.valid})

        def denoise(x: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
            inputs = {"x": x[None, None], "sigma": np.array([sigma], np.float32), **condition}
            denoised: npt.NDArray[np.float32] = evaluate("denoiser", inputs)["denoised"][0, 0]
            return denoised

        result = _core.run(denoise, plan.table, bundle.grid.shape, seed=seed, sample=number)
        return bundle.intensity.to_hu(result)

    own = volume(ready.views, ready.matrices, 0)
    image = _core.mirrored_conditions(ready.views, ready.valid, ready.matrices) if plan.mirrored else None
    return own if image is None else own + (volume(*image, 1)[::-1] - own) * np.float32(0.5)
