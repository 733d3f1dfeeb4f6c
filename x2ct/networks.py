"""A bundle's three networks, compiled by the core for a grid: whole where memory allows, in tiles where it doesn't.

What fits is planned and counted in the core (csrc/include/x2ct/networks.h), for whoever embeds it as for Python.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from x2ct import _core
from x2ct.built import plans, torchartefacts
from x2ct.bundle import Bundle
from x2ct.conditioning import Conditions
from x2ct.grid import Grid
from x2ct.runtimes import Choice


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
        volumes: how many float32 volumes of the grid a run keeps beside the networks (`_core.volumes_kept`).

    Raises:
        InputError: a grid or halo that the model can't take, or a bundle that changed since it was opened.
        MemoryLimitError: the budget is too small for any tile.
        MissingRuntimeError: the runtime refuses.
    """

    def __init__(self, bundle: Bundle, grid: Grid, choice: Choice, threads: int, budget: Budget, volumes: int) -> None:
        started = time.perf_counter()
        self.bundle, self.volumes = bundle, volumes
        self.artefacts, files = artefacts_of(bundle, grid, choice)
        self.compiled = _core.Networks(
            str(bundle.path),
            bundle.checksum,
            backend=choice.backend,
            runtime_dir=choice.runtime_dir,
            device=choice.device,
            precision=choice.precision,
            threads=threads,
            shape=grid.shape,
            voxel_mm=grid.spacing_mm,
            memory=budget.bytes or 0,
            halo=-1 if budget.halo is None else budget.halo,
            provider=provider_of(choice),
            provider_options=choice.provider_options,
            artefacts=files,
        )
        self.plan = self.compiled.plan(volumes)
        self.compiled.compile(self.plan)
        self.seconds = time.perf_counter() - started

    def are_for(self, volumes: int) -> bool:
        """Whether a run may keep so many; not where memory was counted for another number: the plan may be another."""
        return volumes == self.volumes or not self.compiled.counted

    @property
    def sampler(self) -> _core.Sampler:
        """The loop over the denoiser."""
        return self.compiled.sampler

    def condition_on(self, ready: Conditions) -> None:
        """Run the encoder, and the lift or what will run it, and hand what they say to the denoiser."""
        self.compiled.condition_on(ready.views, ready.valid, ready.matrices)

    def precisions(self) -> dict[str, str]:
        """What each network computes in, by its name; the lift's is known once it has been conditioned."""
        made = self.compiled
        return {"encoder": made.encoder_precision, "lift": made.lift_precision, "denoiser": made.precision}

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


def artefacts_of(bundle: Bundle, grid: Grid, choice: Choice) -> tuple[str, dict[str, str]]:
    """What kind of artefacts the backend opens, and each by the file name of the graph that it stands for.

    Nothing of either for backends that open ONNX, but for ONNX Runtime in a precision that a graph is typed in.
    """
    if choice.backend == torchartefacts.BACKEND:
        kind, files = torchartefacts.find(
            bundle,
            choice.provider,
            choice.artefacts,
            choice.trust,
            device=choice.device,
            precision=choice.precision,
        )
    elif choice.backend == plans.BACKEND:
        kind = plans.BACKEND
        machine = plans.Machine.here(choice.device)
        _, files = plans.find(
            bundle, choice.precision, grid.shape, machine, folder=choice.artefacts, trust=choice.trust
        )
    elif is_typed(choice):
        kind = "typed"
        files = {
            bundle.networks.denoiser.file: plans.find_typed(bundle, choice.precision, folder=choice.artefacts),
        }
    else:
        return "", {}
    return kind, {file: str(path) for file, path in files.items()}


def is_typed(choice: Choice) -> bool:
    """Whether the denoiser's graph must itself be in the precision that is asked for."""
    takes = plans.TYPED[choice.device.partition(":")[0]]
    return choice.backend == "onnxruntime" and choice.provider != "tensorrt" and choice.precision in takes


def provider_of(choice: Choice) -> str:
    """The execution provider; which of its artefacts torch runs has been decided by now."""
    return "" if choice.backend == torchartefacts.BACKEND else choice.provider
