"""TensorRT plans of a bundle, and its denoiser's typed graphs: what each depends on, and which engine fits a run.

A typed graph is ONNX for any machine, which ONNX Runtime runs as it is. A plan is native code for one release of
TensorRT and one kind of GPU, and holds for a range of shapes; so neither is part of a bundle: `x2ct build` makes them
and keeps them in the user's cache (`x2ct.runtimes.cache.cache`). Plans from a folder are opened only if the user trusts
them. Nothing here needs TensorRT's Python package or onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from x2ct import __version__, _core
from x2ct.bundle import Bundle, Network, Tensor
from x2ct.errors import InputError, MissingRuntimeError
from x2ct.runtimes.cache.cache import Cache, Engine, Recipe, open_copy
from x2ct.runtimes.discovery import find_runtime

BACKEND = "tensorrt"
PRECISIONS = ("bf16", "f16", "tf32", "f32")
"""Of the denoiser, in the order in which "auto" looks for a plan. Encoder and lift are always f32: they run once."""

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Machine:
    """What of this machine a plan depends on.

    Attributes:
        runtime: TensorRT's whole version.
        device: the GPU's name and compute capability.
        runtime_dir: where the library is; "" where the system's loader finds it.
    """

    runtime: str
    device: str
    runtime_dir: str

    @classmethod
    def here(cls, device: str = "cuda") -> Machine:
        """Ask the backend.

        Raises:
            MissingRuntimeError: TensorRT or the GPU can't be had here; the text says what to install.
        """
        folder = str(find_runtime(BACKEND).folder or "")
        version, named = _core.plan_machine(BACKEND, device, folder)
        return cls(f"{BACKEND} {version}", named, folder)


@dataclass(frozen=True)
class Volumes:
    """The volumes that plans are for, (X, Y, Z) in voxels; kernels are chosen for the usual one."""

    least: Shape
    usual: Shape
    largest: Shape

    @classmethod
    def parse(cls, text: str) -> Volumes:
        """Read "X,Y,Z", or "X,Y,Z:X,Y,Z:X,Y,Z".

        Raises:
            InputError: it is something else.
        """
        try:
            parts = [tuple(int(size) for size in part.replace("x", ",").split(",")) for part in text.split(":")]
            shapes = [(x, y, z) for x, y, z in parts]
            least, usual, largest = shapes if len(shapes) == 3 else shapes * 3
        except ValueError:
            raise InputError.of(
                "--shape", "value", found=repr(text), expected="X,Y,Z, or LEAST:USUAL:LARGEST of these"
            ) from None
        return cls(least, usual, largest)

    def check(self, stride: int) -> None:
        """Raise InputError unless all are multiples of the model's stride and rise from the least to the largest."""
        sides = list(zip(self.least, self.usual, self.largest, strict=True))
        if any(size < 1 or size % stride for three in sides for size in three) or any(
            sorted(three) != list(three) for three in sides
        ):
            raise InputError.of(
                "--shape", "value", found=str(self), expected=f"multiples of the model's stride {stride}, rising"
            )

    def __str__(self) -> str:
        shapes = (self.least,) if self.least == self.largest else (self.least, self.usual, self.largest)
        return " : ".join(" x ".join(str(side) for side in shape) for shape in shapes)


def recipe(
    bundle: Bundle, network: Network, precision: str, volumes: Volumes, machine: Machine, flags: Mapping[str, str]
) -> Recipe:
    """Return the recipe of a graph's plan; the denoiser's typed graph is made from the bundle's, which counts."""
    ranges = [inputs_for(network, volume) for volume in (volumes.least, volumes.usual, volumes.largest)]
    return Recipe(
        kind=BACKEND,
        file=f"{Path(network.file).stem}.plan",
        sources=(bundle.files[network.file].sha256,),
        runtime=machine.runtime,
        device=machine.device,
        precision=precision,
        profile={name: tuple(one[name] for one in ranges) for name in ranges[0]},
        flags=dict(flags),
    )


TYPED = {"cuda": ("bf16", "f16"), "cpu": ("f16",)}
"""The types of a graph's inside (`x2ct.export.precision`) that ONNX Runtime has kernels or conversions for."""


def typed_recipe(bundle: Bundle, precision: str) -> Recipe:
    """Return the recipe of the denoiser's graph in a precision; it is proven against the whole model."""
    return Recipe(
        kind="onnx",
        file=f"denoiser.{precision}.onnx",
        sources=tuple(bundle.files[network.file].sha256 for _, network in bundle.networks.items()),
        runtime=f"x2ct {__version__}",
        device="any",
        precision=precision,
    )


def find_typed(bundle: Bundle, precision: str, *, folder: str = "") -> Path:
    """Return the denoiser's graph in a precision: from a folder that `x2ct build -o` wrote, or the cache.

    A folder needs no trust: the graph is ONNX, and executes nothing.

    Args:
        bundle: the model.
        precision: "bf16" or "f16".
        folder: where to look in place of the cache.

    Raises:
        InputError: the folder's graph is of another model or precision, or damaged.
        MissingRuntimeError: there is no such graph; the text has the command that makes it.
    """
    needed = typed_recipe(bundle, precision)
    engine = open_copy(folder, needed, trust=True) if folder else Cache().find(needed)
    if engine is not None:
        return engine.path
    where = f"in {folder}" if folder else "in this machine's cache"
    raise MissingRuntimeError(
        f"precision {precision}: found no graph of model {bundle.name} in it {where}; make it: "
        f"x2ct build {bundle.argument} --graph --precision {precision}"
    )


def inputs_for(network: Network, volume: Shape) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's inputs for one volume."""
    return {tensor.name: _sized(tensor, volume) for tensor in network.inputs}


def find(
    bundle: Bundle,
    precision: str,
    volume: Shape,
    machine: Machine,
    *,
    folder: str = "",
    trust: bool = False,
    cache: Path | None = None,
) -> tuple[str, Mapping[str, Path]]:
    """Return the plans of a bundle's three graphs that fit a volume.

    Args:
        bundle: the model.
        precision: of the denoiser, or "auto": the first in `PRECISIONS` that there is a plan for, or the folder's own.
        volume: (X, Y, Z) in voxels.
        machine: see `Machine.here`.
        folder: where to look in place of the cache: what `x2ct build -o` wrote.
        trust: the user vouches for whoever made the folder's plans.
        cache: the cache's root; by default the user's.

    Returns:
        The denoiser's precision, and each graph's plan by the graph's file name.

    Raises:
        InputError: the folder's plans are not trusted, of another model or machine, or damaged.
        MissingRuntimeError: there are no such plans; the text has the command that builds them.
    """
    kept = Cache(cache)
    for candidate in PRECISIONS if precision == "auto" and not folder else (precision,):
        plans = {}
        for name, network in bundle.networks.items():
            own_precision = candidate if name == "denoiser" else "f32"
            needed = recipe(bundle, network, own_precision, Volumes(volume, volume, volume), machine, {})
            plan = _in_folder(folder, needed, trust) if folder else _in_cache(kept, needed)
            if plan is not None:
                plans[name] = plan
        if len(plans) == len(bundle.networks.items()):
            files = {network.file: plans[name].path for name, network in bundle.networks.items()}
            return plans["denoiser"].note.recipe.precision, files
    size = ",".join(str(side) for side in volume)
    where = f"in {folder}" if folder else "in this machine's cache"
    raise MissingRuntimeError(
        f"backend {BACKEND}: no plans of model {bundle.name} in {precision} for {size} voxels on {machine.device} "
        f"{where}; build them: x2ct build {bundle.argument} --shape {size}"
        f"{'' if precision == 'auto' else f' --precision {precision}'}"
    )


def _in_cache(cache: Cache, needed: Recipe) -> Engine | None:
    """Return the plan with the narrowest range that holds the shapes: its kernels were chosen for the closest ones."""
    fits = [one for one in cache.similar(needed) if _covers(one, needed)]
    return next((plan for one in sorted(fits, key=_width) if (plan := cache.find(one))), None)


def _in_folder(folder: str, needed: Recipe, trust: bool) -> Engine | None:
    free = ("profile", "flags", *(("precision",) if needed.precision == "auto" else ()))
    plan = open_copy(folder, needed, trust=trust, free=free)
    return plan if plan is not None and _covers(plan.note.recipe, needed) else None


def _covers(plan: Recipe, needed: Recipe) -> bool:
    """Return whether the plan's range of shapes, of each input, holds the shape that is needed."""

    def within(name: str) -> bool:
        [shape, *_] = needed.profile[name]
        ranges = plan.profile.get(name, ())
        if len(ranges) != 3 or any(len(one) != len(shape) for one in ranges):
            return False
        least, _, largest = ranges
        return all(a <= size <= b for a, size, b in zip(least, shape, largest, strict=True))

    return all(within(name) for name in needed.profile)


def _width(plan: Recipe) -> int:
    return sum(b - a for least, *_, largest in plan.profile.values() for a, b in zip(least, largest, strict=True))


def _sized(tensor: Tensor, volume: Shape) -> tuple[int, ...]:
    sizes = {"N": 1, **dict(zip("XYZ", volume, strict=True))}

    def size(axis: int | str) -> int:
        if isinstance(axis, int):
            return axis
        letter, _, factor = axis.partition("/")
        return sizes[letter] // int(factor or 1)

    return tuple(size(axis) for axis in tensor.shape)
