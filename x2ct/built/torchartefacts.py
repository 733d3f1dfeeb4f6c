"""Which TorchScript file or AOTInductor package stands for a graph of a bundle, for the torch backend.

They hold code, so none is part of a bundle: `x2ct export` makes them of its ONNX graphs and keeps them in this
machine's cache (`x2ct.built.artefacts`), from which they are opened by what they were made of. One from elsewhere is
opened from a folder that is named, and only if it is trusted. Nothing here needs PyTorch, whose release is
read off the wheel.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from x2ct.built.artefacts import Cache, Recipe
from x2ct.bundle import Bundle, Network
from x2ct.errors import InputError, MissingRuntimeError
from x2ct.runtimes import find_runtime

BACKEND = "torch"

DESCRIPTION_SCHEMA = 1
"""Of what an artefact says of itself; csrc/backends/torch/description.h has the same number."""

SUFFIXES = {"aoti": ".pt2", "torchscript": ".pt"}
"""What a kind's files end in. Where none is asked for, the first that has been made is taken."""

_ABILITIES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile")


def recipe(bundle: Bundle, network: Network, kind: str, device: str = "cpu") -> Recipe:
    """What the artefact of a graph depends on.

    TorchScript is interpreted, and good for any device; a package is compiled for the processor that it is made on, and
    the GPU.

    Args:
        bundle: the model.
        network: which of its graphs.
        kind: "torchscript" or "aoti".
        device: "cpu", "cuda" or "cuda:N", that the artefact is to run on.

    Raises:
        MissingRuntimeError: PyTorch is not installed, or there is no such GPU.
    """
    runtime = find_runtime("torch")
    if runtime.folder is None:
        raise MissingRuntimeError(f"backend torch: {runtime.reason}")
    return Recipe(
        kind=kind,
        file=Path(network.file).stem + SUFFIXES[kind],
        sources=(bundle.file_of(network),),
        runtime=f"torch {runtime.version}",
        device="any" if kind == "torchscript" else processor() + _and_gpu(device),
        precision="f32",
        flags={"description": str(DESCRIPTION_SCHEMA), "stride": str(bundle.patch.stride)},
    )


def find(
    bundle: Bundle,
    kind: str = "",
    folder: str = "",
    trust: bool = False,
    cache: Path | None = None,
    device: str = "cpu",
) -> tuple[str, Mapping[str, Path]]:
    """The artefacts of a bundle's three graphs.

    Args:
        bundle: the model.
        kind: "torchscript" or "aoti"; "" is the first in `SUFFIXES` that is there.
        folder: where to look in place of the cache: what `x2ct export --artefacts` copied.
        trust: open those of a folder also where another machine made them.
        cache: by default the user's.
        device: that they are to run on.

    Returns:
        The kind, and each graph's artefact by the graph's file name.

    Raises:
        InputError: those in the folder are of another model, damaged, or foreign and not trusted.
        MissingRuntimeError: there are none; the text says what makes them.
    """
    for candidate in (kind,) if kind else tuple(SUFFIXES):
        there = Cache(cache)
        wanted = {network.file: recipe(bundle, network, candidate, device) for _, network in bundle.networks.items()}
        found = _in_folder(wanted, Path(folder), trust) if folder else _in_cache(wanted, there)
        if found is not None:
            return candidate, found
    where = f"in {folder}" if folder else "in this machine's cache"
    raise MissingRuntimeError(
        f"backend torch: no {kind or 'torchscript or aoti'} artefact of model {bundle.name} {where}; "
        f"make it: x2ct export {bundle.argument} --format {kind or 'torchscript'}"
    )


def processor() -> str:
    """The processor's kind and those of its abilities that a compiler makes use of."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    except (OSError, StopIteration):
        flags = []
    return " ".join([platform.machine(), *(name for name in _ABILITIES if name in flags)])


def _and_gpu(device: str) -> str:
    """The GPU's name and what it computes, after a processor's; nothing for the CPU."""
    if device == "cpu":
        return ""
    from x2ct import _core

    [status] = (one for one in _core.devices() if one["name"] == "cuda")
    if not status["available"]:
        raise MissingRuntimeError(status["reason"])
    return f" + {status['found'][int(device.partition(':')[2] or 0)]}"


def _in_cache(wanted: Mapping[str, Recipe], cache: Cache) -> Mapping[str, Path] | None:
    found = {}
    for file, one in wanted.items():
        artefact = cache.find(one)
        if artefact is None:
            return None
        found[file] = artefact.path
    return found


def _in_folder(wanted: Mapping[str, Recipe], folder: Path, trust: bool) -> Mapping[str, Path] | None:
    if not folder.is_dir():
        raise InputError.of(folder, "artefacts", found="no folder", expected="what x2ct export --artefacts wrote")
    if not any((folder / one.file).exists() for one in wanted.values()):
        return None
    cache = Cache()
    return {file: cache.open(folder / one.file, one, trust=trust).path for file, one in wanted.items()}
