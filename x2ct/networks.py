"""A bundle's three networks, compiled for a grid: whole where memory allows, in tiles where it doesn't.

A plan's memory is counted from what the runtime itself says: the networks are compiled for a small probe, their
scratch memory is read off the compiled graph and taken to grow with the voxels, as that of convolutions does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.bundle import Network as NetworkSpec
from x2ct.conditioning import Conditions
from x2ct.errors import InputError
from x2ct.grid import Grid
from x2ct.memory import available_bytes
from x2ct.onnxfile import Tensor
from x2ct.runtimes import Choice

PROCESS_BYTES = 192 << 20
"""Python, NumPy and the runtime before they have done anything."""

AMPLE_BYTES = 512
"""More a voxel than any network of today takes whole: with that much free there is nothing to plan."""

PROBE = 64
"""The side of the patch, in voxels, that the networks are compiled for to see what they take."""


@dataclass(frozen=True)
class Budget:
    """How much memory sampling may take, and how far tiles reach.

    Attributes:
        bytes: of the whole process; None is what the machine has free.
        halo: of a tile, in voxels; None is the denoiser's receptive radius, with which tiles give what the whole gives.
    """

    bytes: int | None = None
    halo: int | None = None


class Networks:
    """Three compiled networks for one grid, and the core's sampler around the denoiser.

    Encoder and lift always compute in f32: they run once, and bf16 can't even tell one pixel of 352 from the next.

    Args:
        bundle: the model.
        grid: what to fill; its shape must be a multiple of the model's stride.
        choice: backend, device and precision.
        threads: of the runtime; 0 leaves it to the runtime.
        budget: the memory.
        volumes: how many float32 volumes of the grid a run keeps beside the networks.

    Raises:
        InputError: a grid or halo that the model can't take.
        MemoryLimitError: the budget is too small for any tile.
        MissingRuntimeError: the runtime refuses.
    """

    def __init__(self, bundle: Bundle, grid: Grid, choice: Choice, threads: int, budget: Budget, volumes: int) -> None:
        started = time.perf_counter()
        self.bundle, self.grid = bundle, grid
        self._choice, self._threads = choice, threads
        self._slots = len(bundle.geometry.views)
        _check_grid(bundle, grid)
        views = [1, self._slots, 1, *bundle.xray.shape]
        self.encoder = self._network(bundle.networks.encoder, "f32", {"views": views, "valid": [1, self._slots]})
        self.plan = self._plan(budget, volumes)
        self.lift_precision = ""
        self._kept_lift: _core.Network | None = None
        self.denoiser = self._denoiser(self.plan.tile)
        of = grid.shape if self.plan.whole else self.plan
        self.sampler = _core.Sampler(self.denoiser, of)
        self.seconds = time.perf_counter() - started

    def condition_on(self, ready: Conditions) -> None:
        """Run the encoder, and the lift or what will run it, and hand what they say to the denoiser."""
        features = self.encoder({"views": ready.views, "valid": ready.valid})["features"]
        given = {"features": features, "P": ready.matrices, "valid": ready.valid}
        lift = self._kept_lift or self._lift(self.plan.lift_tile)
        self.lift_precision = lift.precision
        self.sampler.lift(lift, given, self.plan, self.grid.spacing_mm)
        # Where memory is counted, a lift that has done its part has to make room.
        self._kept_lift = None if self.planned and self.plan.keep else lift

    def tiles(self) -> dict[str, Any] | None:
        """What the report says of the plan; None where the whole volume is evaluated at once."""
        plan = self.plan
        if plan.whole:
            return None
        return {
            "shape": list(plan.tile),
            "halo": plan.halo,
            "receptive_radius": self.bundle.networks.denoiser.receptive_radius,
            "count": list(plan.count),
            "lift": "once" if plan.keep else "each tile",
            "planned_bytes": plan.bytes,
        }

    def _plan(self, budget: Budget, volumes: int) -> _core.TilePlan:
        bundle = self.bundle
        shape, stride = self.grid.shape, bundle.patch.stride
        radius, lift_radius = bundle.networks.denoiser.receptive_radius, bundle.networks.lift.receptive_radius
        if radius is None:  # only the whole will do
            radius = max(shape)
        halo = radius if budget.halo is None else budget.halo
        memory = budget.bytes if budget.bytes is not None else available_bytes()
        voxels = int(np.prod(shape, dtype=np.int64))
        ample = PROCESS_BYTES + AMPLE_BYTES * voxels
        self.planned = memory is not None and (budget.bytes is not None or memory < ample)
        if memory is None or not self.planned:
            return self._whole_plan(halo)
        probe = tuple(min(size, max(stride, PROBE // stride * stride)) for size in shape)
        patch = float(np.prod(probe, dtype=np.int64))
        features = int(np.prod(self.encoder.outputs["features"], dtype=np.int64))
        views = self._slots * int(np.prod(bundle.xray.shape))
        fixed = PROCESS_BYTES + 3 * bundle.size_bytes + _scratch(self.encoder, views) + 3 * 4 * features
        # Without a budget the process is there already, and only what is still free counts.
        return _core.plan_tiles(
            shape,
            stride,
            halo,
            -1 if lift_radius is None else lift_radius,
            memory if budget.bytes is not None else memory + PROCESS_BYTES,
            fixed=fixed,
            grid_bytes=4.0 * volumes,
            condition_bytes=4.0 * sum(_per_voxel(tensor) for tensor in bundle.networks.lift.outputs),
            denoiser_bytes=_scratch(self._denoiser(probe), patch) / patch,
            lift_bytes=_scratch(self._lift(probe), patch) / patch,
        )

    def _whole_plan(self, halo: int) -> _core.TilePlan:
        """The plan of a machine whose memory is no question."""
        return _core.plan_tiles(
            self.grid.shape,
            self.bundle.patch.stride,
            halo,
            -1,
            1 << 62,
            fixed=0,
            grid_bytes=0.0,
            condition_bytes=1.0,
            denoiser_bytes=1.0,
            lift_bytes=0.0,
        )

    def _denoiser(self, patch: Sequence[int]) -> _core.Network:
        spec = self.bundle.networks.denoiser
        conditions = {
            tensor.name: [1, *_resolved(tensor.shape[1:], patch)]
            for tensor in spec.inputs
            if tensor.name not in ("x", "sigma")
        }
        return self._network(spec, self._choice.precision, {"x": [1, 1, *patch], "sigma": [1], **conditions})

    def _lift(self, patch: Sequence[int]) -> _core.Network:
        slots, features = self._slots, list(self.encoder.outputs["features"])
        shapes = {"features": features, "P": [1, slots, 3, 4], "coords": [1, 3, *patch], "valid": [1, slots]}
        return self._network(self.bundle.networks.lift, "f32", shapes)

    def _network(self, spec: NetworkSpec, precision: str, shapes: Mapping[str, Sequence[int]]) -> _core.Network:
        return _core.Network(
            str(self.bundle.file_of(spec)),
            backend=self._choice.backend,
            device=self._choice.device,
            precision=precision,
            threads=self._threads,
            shapes=dict(shapes),
            runtime_dir=self._choice.runtime_dir,
            provider=self._choice.provider,
            provider_options=self._choice.provider_options,
        )


def _scratch(network: _core.Network, values: float) -> int:
    """What an evaluation holds, in bytes; ample for an input of this many values where the runtime doesn't tell."""
    told = network.scratch_bytes
    return int(AMPLE_BYTES * values) if told < 0 else told


def _check_grid(bundle: Bundle, grid: Grid) -> None:
    stride = bundle.patch.stride
    if any(size % stride for size in grid.shape):
        raise InputError.of(
            "grid", "shape", found=list(grid.shape), expected=f"multiples of the model's stride {stride}"
        )


def _resolved(shape: Sequence[int | str], patch: Sequence[int]) -> list[int]:
    """A declared shape ("X/4") for a patch."""
    sizes = dict(zip("XYZ", patch, strict=True))

    def size(axis: int | str) -> int:
        if isinstance(axis, int):
            return axis
        letter, _, factor = axis.partition("/")
        return sizes[letter] // int(factor or 1)

    return [size(axis) for axis in shape]


def _per_voxel(tensor: Tensor) -> float:
    """How many values of a tensor there are for each voxel of the grid."""
    cell = (1 << 10,) * 3
    return float(np.prod(_resolved(tensor.shape[1:], cell), dtype=np.float64) / np.prod(cell, dtype=np.float64))
