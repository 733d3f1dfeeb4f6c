"""Which compiled engines a backend opens in place of a bundle's ONNX graphs: what each depends on, and where it is.

TensorRT runs plans: native code for one release and one kind of GPU, for a range of shapes. PyTorch runs TorchScript
files or AOTInductor packages. ONNX Runtime in a lower precision runs the denoiser's graph typed in it, which is ONNX
for any machine. All are made by commands (`x2ct build`, `x2ct export`) and kept in the user's cache
(`x2ct.runtimes.cache.cache`); what is code is no part of a bundle, and opened from a folder only if the user trusts it.
Nothing here needs TensorRT's Python package, PyTorch or onnx.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from x2ct import __version__, _core
from x2ct.bundle import Bundle, Network
from x2ct.errors import InputError, MissingRuntimeError
from x2ct.geometry.grid import Grid
from x2ct.runtimes.cache.cache import Cache, Engine, Recipe, open_copy
from x2ct.runtimes.discovery import Choice, find_runtime, gpu_names
from x2ct.runtimes.machine import processor_facts

TENSORRT, TORCH = "tensorrt", "torch"

PRECISIONS = ("bf16", "f16", "tf32", "f32")
"""The denoiser's precisions, in the order in which "auto" looks for a plan. Encoder and lift always run in f32."""

TYPED = {"cuda": ("bf16", "f16"), "cpu": ("f16",)}
"""The types of a graph's inside (`x2ct.export.precision`) that ONNX Runtime has kernels or conversions for."""

TORCH_TYPED = ("bf16", "f16")  # the types that torch's denoiser may have inside; tf32 is f32's engine

SUFFIXES = {"aoti": ".pt2", "torchscript": ".pt"}
"""The ending of each kind of torch's files. If no kind is asked for, the first of which there are engines is used."""

DESCRIPTION_SCHEMA = 1
"""Of a torch engine's description of itself; csrc/backends/torch/torch_backend.h has the same number."""

_ABILITIES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile")

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Store:
    """Where engines are looked for: in a folder that was brought along, or in the cache, by default the user's."""

    folder: str = ""
    trust: bool = False
    cache: Path | None = None

    def get(self, recipe: Recipe, free: tuple[str, ...] = ()) -> Engine | None:
        """Return the engine of a recipe; in a folder it may differ from it in the fields `free`. Raises as `find`."""
        if self.folder:
            return open_copy(self.folder, recipe, trust=self.trust, free=free)
        return Cache(self.cache).find(recipe)

    def __str__(self) -> str:
        return f"in {self.folder}" if self.folder else "in this machine's cache"


def find(bundle: Bundle, grid: Grid, choice: Choice, cache: Path | None = None) -> tuple[str, dict[str, str]]:
    """Return the kind of the compiled engines, and each one's path by the file name of the graph that it replaces.

    That is "" and nothing for backends that open ONNX; else "tensorrt", "torchscript", "aoti" or "typed", with all
    three graphs' engines, or of "typed" the denoiser's alone. Plans hold for the grids that they were built for. The
    choice names a folder to look in, or else it is `cache`, the root of a cache, by default the user's.

    Raises InputError: an engine in the folder is of another model, damaged, or foreign and not trusted;
    MissingRuntimeError: there is none, and the text says what makes it.
    """
    device, precision, store = choice.device, choice.precision, Store(choice.compiled, choice.trust, cache)
    if choice.backend == TORCH:
        kind, files = find_torch(bundle, store, choice.provider, device, precision)
    elif choice.backend == TENSORRT:
        kind, (_, files) = TENSORRT, find_plans(bundle, store, precision, grid.shape, Machine.here(device))
    elif (
        choice.backend == "onnxruntime" and choice.provider != TENSORRT and precision in TYPED[device.partition(":")[0]]
    ):
        kind, files = "typed", {bundle.networks.denoiser.file: _find_typed(bundle, store, precision)}
    else:
        return "", {}
    return kind, {file: str(path) for file, path in files.items()}


def provider_of(choice: Choice) -> str:
    """Return the execution provider; which of its engines torch runs has been decided by `find`."""
    return "" if choice.backend == TORCH else choice.provider


def inputs_for(network: Network, volume: Shape) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's inputs for one volume (X, Y, Z)."""
    sizes = {"N": 1, **dict(zip("XYZ", volume, strict=True))}

    def size(axis: int | str) -> int:
        letter, _, factor = str(axis).partition("/")
        return axis if isinstance(axis, int) else sizes[letter] // int(factor or 1)

    return {tensor.name: tuple(size(axis) for axis in tensor.shape) for tensor in network.inputs}


# ------------------------------------------------------------------------------------------------ TensorRT's plans


@dataclass(frozen=True)
class Machine:
    """The facts that a plan depends on: TensorRT's whole version, the GPU's name and compute capability.

    `runtime_dir` is where the library is; "" where the system's loader finds it.
    """

    runtime: str
    device: str
    runtime_dir: str

    @classmethod
    def here(cls, device: str = "cuda") -> Machine:
        """Ask the backend. Raises MissingRuntimeError, which says what to install, without TensorRT or the GPU."""
        folder = str(find_runtime(TENSORRT).folder or "")
        version, named = _core.plan_machine(TENSORRT, device, folder)
        return cls(f"{TENSORRT} {version}", named, folder)


@dataclass(frozen=True)
class Volumes:
    """The volumes that plans are for, (X, Y, Z) in voxels; kernels are chosen for the usual one."""

    least: Shape
    usual: Shape
    largest: Shape

    @classmethod
    def parse(cls, text: str) -> Volumes:
        """Read "X,Y,Z", or "X,Y,Z:X,Y,Z:X,Y,Z". Raises InputError where it is something else."""
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
        for three in zip(self.least, self.usual, self.largest, strict=True):
            if sorted(three) != list(three) or any(size < 1 or size % stride for size in three):
                expected = f"multiples of the model's stride {stride}, rising"
                raise InputError.of("--shape", "value", found=str(self), expected=expected)

    def __str__(self) -> str:
        shapes = (self.least,) if self.least == self.largest else (self.least, self.usual, self.largest)
        return " : ".join(" x ".join(str(side) for side in shape) for shape in shapes)


def plan_recipe(
    bundle: Bundle, network: Network, precision: str, volumes: Volumes, machine: Machine, flags: Mapping[str, str]
) -> Recipe:
    """Return the recipe of a graph's plan; the denoiser's typed graph is made from the bundle's, which counts."""
    ranges = [inputs_for(network, volume) for volume in (volumes.least, volumes.usual, volumes.largest)]
    return Recipe(
        kind=TENSORRT,
        file=f"{Path(network.file).stem}.plan",
        sources=(bundle.files[network.file].sha256,),
        runtime=machine.runtime,
        device=machine.device,
        precision=precision,
        profile={name: tuple(one[name] for one in ranges) for name in ranges[0]},
        flags=dict(flags),
    )


def find_plans(
    bundle: Bundle, store: Store, precision: str, volume: Shape, machine: Machine
) -> tuple[str, dict[str, Path]]:
    """Return the denoiser's precision, and the plans that fit a volume (X, Y, Z) by the graphs' file names.

    The precision "auto" is the first in `PRECISIONS` that there is a plan for, or, of a folder that `x2ct build -o`
    wrote, its own. Raises as `find`.
    """
    for candidate in PRECISIONS if precision == "auto" and not store.folder else (precision,):
        plans = {}
        for name, network in bundle.networks.items():
            own_precision = candidate if name == "denoiser" else "f32"
            needed = plan_recipe(bundle, network, own_precision, Volumes(volume, volume, volume), machine, {})
            if (plan := _plan(store, needed)) is not None:
                plans[network.file] = plan
        if len(plans) == len(bundle.networks.items()):
            denoiser = plans[bundle.networks.denoiser.file]
            return denoiser.note.recipe.precision, {file: plan.path for file, plan in plans.items()}
    size = ",".join(str(side) for side in volume)
    raise MissingRuntimeError(
        f"backend {TENSORRT}: no plans of model {bundle.name} in {precision} for {size} voxels on {machine.device} "
        f"{store}; build them: x2ct build {bundle.argument} --shape {size}"
        f"{'' if precision == 'auto' else f' --precision {precision}'}"
    )


def _plan(store: Store, needed: Recipe) -> Engine | None:
    """Return the plan with the narrowest range that holds the shapes: its kernels were chosen for the closest ones."""

    def width(plan: Recipe) -> int:
        ranges = plan.profile.values()
        return sum(b - a for least, *_, largest in ranges for a, b in zip(least, largest, strict=True))

    if store.folder:
        plan = store.get(needed, ("profile", "flags", *(("precision",) if needed.precision == "auto" else ())))
        return plan if plan is not None and _covers(plan.note.recipe, needed) else None
    fits = [one for one in Cache(store.cache).similar(needed) if _covers(one, needed)]
    return next((plan for one in sorted(fits, key=width) if (plan := store.get(one))), None)


def _covers(plan: Recipe, needed: Recipe) -> bool:
    """Return whether the plan's range of shapes, of each input, holds the shape that is needed."""
    for name, (shape, *_) in needed.profile.items():
        ranges = plan.profile.get(name, ())
        if len(ranges) != 3 or any(len(one) != len(shape) for one in ranges):
            return False
        if not all(least <= size <= most for least, _, most, size in zip(*ranges, shape, strict=True)):
            return False
    return True


# ------------------------------------------------------------------------------------------------ typed graphs


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


def _find_typed(bundle: Bundle, store: Store, precision: str) -> Path:
    """Return the denoiser's graph in a precision. A folder needs no trust: the graph is ONNX, and executes nothing."""
    engine = replace(store, trust=True).get(typed_recipe(bundle, precision))
    if engine is not None:
        return engine.path
    raise MissingRuntimeError(
        f"precision {precision}: found no graph of model {bundle.name} in it {store}; make it: "
        f"x2ct build {bundle.argument} --graph --precision {precision}"
    )


# ------------------------------------------------------------------------------------------------ torch's files


def torch_recipe(bundle: Bundle, network: Network, kind: str, device: str = "cpu", precision: str = "f32") -> Recipe:
    """Return the recipe of a graph's engine, "torchscript" or "aoti", for torch on a device.

    TorchScript is interpreted, and good for any device; a package is compiled for the processor that it is made on, and
    the GPU. The precision is the denoiser's: encoder and lift are always f32. Raises MissingRuntimeError: PyTorch is
    not installed, or there is no such GPU.
    """
    runtime = find_runtime(TORCH)
    if runtime.folder is None:
        raise MissingRuntimeError(f"backend torch: {runtime.reason}")
    narrow = precision if network is bundle.networks.denoiser and precision in TORCH_TYPED else "f32"
    made_for = "any" if kind == "torchscript" else _processor()
    if kind != "torchscript" and device != "cpu":
        made_for += f" + {gpu_names()[int(device.partition(':')[2] or 0)]}"
    return Recipe(
        kind=kind,
        file=Path(network.file).stem + (f".{narrow}" if narrow in TORCH_TYPED else "") + SUFFIXES[kind],
        sources=(bundle.files[network.file].sha256,),
        runtime=f"torch {runtime.version}",
        device=made_for,
        precision=narrow,
        flags={"description": str(DESCRIPTION_SCHEMA), "stride": str(bundle.patch.stride)},
    )


def find_torch(
    bundle: Bundle, store: Store, kind: str = "", device: str = "cpu", precision: str = "f32"
) -> tuple[str, dict[str, Path]]:
    """Return the kind of torch's engines, and the three by the graphs' file names.

    The kind "" is the first in `SUFFIXES` that is there; the precisions "auto" and "tf32" are f32's. Raises as `find`.
    """
    networks = [network for _, network in bundle.networks.items()]
    for candidate in (kind,) if kind else tuple(SUFFIXES):
        engines = [store.get(torch_recipe(bundle, network, candidate, device, precision)) for network in networks]
        files = {network.file: one.path for network, one in zip(networks, engines, strict=True) if one is not None}
        if len(files) == len(networks):
            return candidate, files
    raise MissingRuntimeError(
        f"backend torch: no compiled engine ({kind or 'torchscript or aoti'}) of model {bundle.name} {store}; "
        f"make it: x2ct export {bundle.argument} --format {kind or 'torchscript'}"
        f"{f' --precision {precision}' if precision in TORCH_TYPED else ''}"
        f"{f' --device {device}' if device != 'cpu' else ''}"
    )


def _processor() -> str:
    """Return the processor's kind and those of its abilities that a compiler makes use of."""
    flags = processor_facts().get("flags", "").split()
    return " ".join([platform.machine(), *(name for name in _ABILITIES if name in flags)])
