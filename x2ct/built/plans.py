"""TensorRT plans of a bundle, and its denoiser's typed graphs: what each depends on, and which of the cache's will do.

A typed graph is ONNX for any machine, which ONNX Runtime runs as it is. A plan is native code for one release of
TensorRT and one kind of GPU, and holds for a range of shapes; so none is part of a bundle: `x2ct build` makes them and
keeps them in this machine's cache (`x2ct.built.artefacts`). Those from elsewhere are opened from a folder that is
named, and only if they are trusted. Nothing here needs TensorRT's Python package or onnx.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from x2ct import __version__, _core
from x2ct.built.artefacts import Cache, Recipe
from x2ct.built.sidecar import Sidecar, UnfitError
from x2ct.bundle import Bundle, Network, Tensor
from x2ct.errors import InputError, MissingRuntimeError
from x2ct.runtimes import find_runtime

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
    """What the plan of a graph depends on; the denoiser's typed graph is made from the bundle's, which counts."""
    ranges = [inputs_for(network, volume) for volume in (volumes.least, volumes.usual, volumes.largest)]
    return Recipe(
        kind=BACKEND,
        file=_file_of(network),
        sources=(bundle.file_of(network),),
        runtime=machine.runtime,
        device=machine.device,
        precision=precision,
        profile={name: tuple(one[name] for one in ranges) for name in ranges[0]},
        flags=flags,
    )


def _file_of(network: Network) -> str:
    return f"{Path(network.file).stem}.plan"


TYPED = {"cuda": ("bf16", "f16"), "cpu": ("f16",)}
"""The types of a graph's inside (`x2ct.export.precision`) that ONNX Runtime has kernels or conversions for."""


def typed_recipe(bundle: Bundle, precision: str) -> Recipe:
    """What the denoiser's graph in a precision depends on; it is proven against the whole model."""
    graphs = (bundle.networks.denoiser, *(network for _, network in bundle.networks.items()))
    return Recipe(
        kind="onnx",
        file=f"denoiser.{precision}.onnx",
        sources=tuple(bundle.file_of(network) for network in graphs),
        runtime=f"x2ct {__version__}",
        device="any",
        precision=precision,
    )


def find_typed(bundle: Bundle, precision: str, *, folder: str = "", cache: Path | None = None) -> Path:
    """The denoiser's graph in a precision: from a folder that `x2ct build -o` wrote, or the cache.

    One from a folder need not be this machine's work: it is ONNX, and executes nothing.

    Args:
        bundle: the model.
        precision: "bf16" or "f16".
        folder: where to look in place of the cache.
        cache: by default the user's.

    Raises:
        InputError: the folder's is of another model or precision, or damaged.
        MissingRuntimeError: there is none; the text says what makes it.
    """
    there, wanted = Cache(cache), typed_recipe(bundle, precision)
    if folder:
        path = Path(folder) / wanted.file
        if path.exists():
            return there.open(path, wanted, trust=True).path
    elif found := there.find(wanted):
        return found.path
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
    """The plans of a bundle's three graphs that do for a volume.

    Args:
        bundle: the model.
        precision: of the denoiser, or "auto": the first in `PRECISIONS` that there is a plan for, or the folder's own.
        volume: (X, Y, Z) in voxels.
        machine: see `Machine.here`.
        folder: where to look in place of the cache: what `x2ct build -o` wrote.
        trust: open those of a folder also where another machine built them.
        cache: by default the user's.

    Returns:
        The denoiser's precision, and each graph's plan by the graph's file name.

    Raises:
        InputError: those in the folder are of another model or machine, damaged, or foreign and not trusted.
        MissingRuntimeError: there are none; the text says what builds them.
    """
    there = Cache(cache)
    for candidate in _candidates(bundle, folder) if precision == "auto" else (precision,):
        found = {}
        for name, network in bundle.networks.items():
            wanted = candidate if name == "denoiser" else "f32"
            like = recipe(bundle, network, wanted, Volumes(volume, volume, volume), machine, {})
            path = _in_folder(there, like, Path(folder), trust) if folder else _in_cache(there, like)
            if path is not None:
                found[network.file] = path
        if len(found) == len(bundle.networks.items()):
            return candidate, found
    size = ",".join(str(side) for side in volume)
    where = f"in {folder}" if folder else "in this machine's cache"
    raise MissingRuntimeError(
        f"backend {BACKEND}: no plans of model {bundle.name} in {precision} for {size} voxels on {machine.device} "
        f"{where}; build them: x2ct build {bundle.argument} --shape {size}"
        f"{'' if precision == 'auto' else f' --precision {precision}'}"
    )


def _candidates(bundle: Bundle, folder: str) -> Sequence[str]:
    """The precisions that "auto" looks for; in a folder, what stands beside the denoiser's plan."""
    if not folder:
        return PRECISIONS
    path = Path(folder) / _file_of(bundle.networks.denoiser)
    try:
        told = Sidecar.read(path.with_name(f"{path.name}.json"), path).artefact.ingredients.get("precision")
    except UnfitError:  # whoever opens the plan says so
        told = None
    return tuple(one for one in PRECISIONS if one == told) or PRECISIONS[:1]


def _in_cache(cache: Cache, like: Recipe) -> Path | None:
    """The plan of the narrowest range that holds the shapes: kernels were chosen for what is closest to them."""
    fits = [one for one in cache.recipes(like) if _covers(one, like)]
    for one in sorted(fits, key=_width):
        artefact = cache.find(one)
        if artefact is not None:
            return artefact.path
    return None


def _in_folder(cache: Cache, like: Recipe, folder: Path, trust: bool) -> Path | None:
    if not folder.is_dir():
        raise InputError.of(folder, "artefacts", found="no folder", expected="what x2ct build -o wrote")
    path = folder / like.file
    if not path.exists():
        return None
    told = cache.told(path, like)
    if not _covers(told, like):
        return None
    return cache.open(path, told, trust=trust).path


def _covers(there: Recipe, wanted: Recipe) -> bool:
    def within(name: str) -> bool:
        [shape, *_] = wanted.profile[name]
        if name not in there.profile or len(there.profile[name]) != 3:
            return False
        least, _, largest = there.profile[name]
        return len(least) == len(shape) and all(
            a <= size <= b for a, size, b in zip(least, shape, largest, strict=True)
        )

    return all(within(name) for name in wanted.profile)


def _width(there: Recipe) -> int:
    def sides() -> Iterator[int]:
        for least, *_, largest in there.profile.values():
            yield from (b - a for a, b in zip(least, largest, strict=True))

    return sum(sides())


def _sized(tensor: Tensor, volume: Shape) -> tuple[int, ...]:
    sizes = {"N": 1, **dict(zip("XYZ", volume, strict=True))}

    def size(axis: int | str) -> int:
        if isinstance(axis, int):
            return axis
        letter, _, factor = axis.partition("/")
        return sizes[letter] // int(factor or 1)

    return tuple(size(axis) for axis in tensor.shape)
