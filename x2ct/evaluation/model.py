"""The bundle under test, through the sampler's public face: X-rays in, HU on the model's grid out."""

from __future__ import annotations

from collections.abc import Mapping

from x2ct import _core
from x2ct.engine.sampler import SampleOptions, Sampler
from x2ct.evaluation.anatomy import STRIDE
from x2ct.evaluation.metrics import FloatArray, Window
from x2ct.geometry import Geometry
from x2ct.io.xray.radiograph import XRay

XRays = Mapping[str, XRay]  # by the name of their view: ap or pa, lateral


class Model:
    """A sampler with what an evaluation asks of it; `steps` of a sample, by default the bundle's."""

    def __init__(self, sampler: Sampler, steps: int | None = None) -> None:
        self._sampler, self._steps = sampler, steps or sampler.bundle.diffusion.steps
        bundle, choice = sampler.bundle, sampler.choice
        self.name, self.checksum, self.grid, self.geometry = bundle.name, bundle.checksum, bundle.grid, bundle.geometry
        self.window: Window = bundle.intensity.window_hu
        plan = _core.sampling_plan(sampler.bundle.diffusion, SampleOptions(steps=self._steps))
        self.deviation_scale: float = plan.deviation_scale
        self.choice: dict[str, str | int] = {"device": choice.device, "backend": choice.backend, "steps": self._steps}
        # The side, in voxels, of the cells that the denoiser is conditioned on: 4 for a condition of "X/4".
        extents = (str(extent).partition("/")[2] for tensor in bundle.networks.lift.outputs for extent in tensor.shape)
        self.stride = min((int(side) for side in extents if side), default=STRIDE)

    def set_xrays(self, xrays: XRays, geometry: Geometry | None) -> None:
        """Set what the volumes that follow are made from."""
        ap, pa, lateral = (xrays.get(name) for name in ("ap", "pa", "lateral"))
        self._sampler.set_xrays(ap=ap, pa=pa, lateral=lateral, geometry=geometry, force=True)

    def mean(self) -> FloatArray:
        """Return the posterior mean."""
        return self._volume(0, True)

    def sample(self, seed: int) -> FloatArray:
        """Return one sample."""
        return self._volume(seed, False)

    def _volume(self, seed: int, mean: bool) -> FloatArray:
        result = self._sampler.run(seed=seed, mean=mean, steps=None if mean else self._steps)
        self.choice["precision"] = result.report["precision"]["denoiser"]
        return result.volume.hu
