"""Which TorchScript file or AOTInductor package stands for a graph of a bundle, for the torch backend.

They hold code, so neither is part of a bundle: `x2ct export` makes them of its ONNX graphs and keeps them in the user's
cache (`x2ct.runtimes.cache.cache`). One from a folder is opened only if the user trusts it. Nothing here needs PyTorch,
whose release is read from the installed wheel.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from x2ct.bundle import Bundle, Network
from x2ct.errors import MissingRuntimeError
from x2ct.runtimes.cache.cache import Cache, Recipe, open_copy
from x2ct.runtimes.discovery import find_runtime, gpu_names
from x2ct.runtimes.machine import processor_facts

BACKEND = "torch"

DESCRIPTION_SCHEMA = 1
"""Of an engine's description of itself; csrc/backends/torch/torch_backend.h has the same number."""

SUFFIXES = {"aoti": ".pt2", "torchscript": ".pt"}
"""The ending of each kind's files. If no kind is asked for, the first of which there are engines is used."""

TYPED = ("bf16", "f16")
"""Precisions that the inside of the denoiser's graph is typed in (`x2ct.export.precision`); tf32 is f32's engine."""

_ABILITIES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile")


def recipe(bundle: Bundle, network: Network, kind: str, device: str = "cpu", precision: str = "f32") -> Recipe:
    """Return the recipe of a graph's engine.

    TorchScript is interpreted, and good for any device; a package is compiled for the processor that it is made on, and
    the GPU.

    Args:
        bundle: the model.
        network: which of its graphs.
        kind: "torchscript" or "aoti".
        device: "cpu", "cuda" or "cuda:N", that the engine is to run on.
        precision: of the denoiser; encoder and lift are always f32.

    Raises:
        MissingRuntimeError: PyTorch is not installed, or there is no such GPU.
    """
    runtime = find_runtime("torch")
    if runtime.folder is None:
        raise MissingRuntimeError(f"backend torch: {runtime.reason}")
    narrow = precision if network is bundle.networks.denoiser and precision in TYPED else "f32"
    return Recipe(
        kind=kind,
        file=Path(network.file).stem + (f".{narrow}" if narrow in TYPED else "") + SUFFIXES[kind],
        sources=(bundle.files[network.file].sha256,),
        runtime=f"torch {runtime.version}",
        device="any" if kind == "torchscript" else processor() + _and_gpu(device),
        precision=narrow,
        flags={"description": str(DESCRIPTION_SCHEMA), "stride": str(bundle.patch.stride)},
    )


def find(
    bundle: Bundle,
    kind: str = "",
    folder: str = "",
    trust: bool = False,
    cache: Path | None = None,
    device: str = "cpu",
    precision: str = "f32",
) -> tuple[str, Mapping[str, Path]]:
    """Return the engines of a bundle's three graphs.

    Args:
        bundle: the model.
        kind: "torchscript" or "aoti"; "" is the first in `SUFFIXES` that is there.
        folder: where to look in place of the cache: what `x2ct export --compiled` copied.
        trust: the user vouches for whoever made the folder's engines.
        cache: the cache's root; by default the user's.
        device: that they are to run on.
        precision: of the denoiser; "auto" and "tf32" are f32's.

    Returns:
        The kind, and each graph's engine by the graph's file name.

    Raises:
        InputError: the folder's engines are not trusted, of another model, or damaged.
        MissingRuntimeError: there are no such engines; the text has the command that makes them.
    """
    kept = Cache(cache)
    for candidate in (kind,) if kind else tuple(SUFFIXES):
        networks = (network for _, network in bundle.networks.items())
        needed = {network.file: recipe(bundle, network, candidate, device, precision) for network in networks}
        engines = {
            file: open_copy(folder, one, trust=trust) if folder else kept.find(one) for file, one in needed.items()
        }
        files = {file: engine.path for file, engine in engines.items() if engine is not None}
        if len(files) == len(needed):
            return candidate, files
    where = f"in {folder}" if folder else "in this machine's cache"
    raise MissingRuntimeError(
        f"backend torch: no compiled engine ({kind or 'torchscript or aoti'}) of model {bundle.name} {where}; "
        f"make it: x2ct export {bundle.argument} --format {kind or 'torchscript'}"
        f"{f' --precision {precision}' if precision in TYPED else ''}"
        f"{f' --device {device}' if device != 'cpu' else ''}"
    )


def processor() -> str:
    """The processor's kind and those of its abilities that a compiler makes use of."""
    flags = processor_facts().get("flags", "").split()
    return " ".join([platform.machine(), *(name for name in _ABILITIES if name in flags)])


def _and_gpu(device: str) -> str:
    """The GPU's name and what it computes, after a processor's; nothing for the CPU."""
    if device == "cpu":
        return ""
    return f" + {gpu_names()[int(device.partition(':')[2] or 0)]}"
