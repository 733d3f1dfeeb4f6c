"""TorchScript files and AOTInductor packages, made from a bundle's ONNX graphs by way of `torchgraph.py`.

Both describe themselves in JSON, which the torch backend (csrc/backends/torch) reads: neither knows its tensors' names
or which of their axes belong together. TorchScript is deprecated by PyTorch; it is here because it needs no compiler.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch

from x2ct.bundle import Bundle, Network, Tensor
from x2ct.errors import MissingRuntimeError, X2CTError
from x2ct.export.precision import first_line, typed
from x2ct.export.torchgraph import OnnxModule
from x2ct.runtimes.cache.cache import Build, Recipe, unchanged
from x2ct.runtimes.cache.engines import DESCRIPTION_SCHEMA, inputs_for, torch_recipe

MOST_VOXELS = 4096  # along an axis: what AOTInductor is told, for its index arithmetic


def builds(bundle: Bundle, kind: str, device: str = "cpu", precision: str = "f32") -> Iterator[tuple[Recipe, Build]]:
    """Yield each graph's recipe and what builds it; see `build`."""
    for _, network in bundle.networks.items():
        one = torch_recipe(bundle, network, kind, device, precision)
        write = partial(build, bundle, network, kind, device=device, precision=one.precision)
        yield one, unchanged(write, {bundle.file_of(network): bundle.files[network.file].sha256})


def build(
    bundle: Bundle, network: Network, kind: str, target: Path, device: str = "cpu", precision: str = "f32"
) -> None:
    """Write one of a bundle's graphs as a compiled engine: "aoti" for the very device, "torchscript" for all.

    In "bf16" or "f16" the graph's inside is typed first. Raises MissingRuntimeError: there is no C++ compiler for
    AOTInductor, or no such device; X2CTError: an operator is not known, or PyTorch can't compile the graph.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise MissingRuntimeError(f"device {device}: PyTorch {torch.__version__} finds no GPU here; use the CPU")
    model = onnx.load(bundle.file_of(network))
    module = OnnxModule(model if precision == "f32" else typed(model, precision).model).eval().to(device)
    # One of each input, on a patch of three different sides, so that its axes can't be confused.
    stride = bundle.patch.stride
    shapes = inputs_for(network, (4 * stride, 5 * stride, 6 * stride))
    example = tuple(torch.ones(shape, device=device) for shape in shapes.values())
    description = _description(bundle, network, device, free_batch=kind == "torchscript")
    with _quiet(), torch.no_grad():
        if kind == "aoti":
            _aoti(module, example, _free_axes(network.inputs, stride), description, network.file, target)
        else:
            traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced.eval())
            torch.jit.save(frozen, str(target), _extra_files={"x2ct.json": description.encode()})


def _aoti(
    module: OnnxModule, example: tuple[torch.Tensor, ...], axes: Any, description: str, source: str, target: Path
) -> None:
    import torch._inductor

    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise MissingRuntimeError("format aoti: AOTInductor needs a C++ compiler: apt-get install g++")
    # dynamic_threads: as many as are set when it runs; otherwise as many as there were when it was compiled. Freezing
    # (weights packed for oneDNN) stays off: with free axes it gave another volume, as a direct comparison showed.
    options: dict[str, Any] = {"cpp.dynamic_threads": True, "aot_inductor.metadata": {"x2ct": description}}
    with tempfile.TemporaryDirectory(prefix="x2ct-aoti-") as scratch:
        try:
            exported = torch.export.export(module, example, dynamic_shapes=(axes,))
            package = torch._inductor.aoti_compile_and_package(
                exported, package_path=str(Path(scratch) / "made.pt2"), inductor_configs=options
            )
        except Exception as error:  # whatever PyTorch's compiler raises, which is of no one family
            raise X2CTError(f"{source}: AOTInductor failed: {first_line(error)}") from error
        shutil.copyfile(package, target)


def _description(bundle: Bundle, network: Network, device: str, *, free_batch: bool) -> str:
    """Return what the backend reads; see csrc/backends/torch/torch_backend.h."""

    def ports(tensors: tuple[Tensor, ...]) -> list[dict[str, Any]]:
        batch = "N" if free_batch else 1
        return [{"name": t.name, "shape": [batch if axis == "N" else axis for axis in t.shape]} for t in tensors]

    description = {
        "schema": DESCRIPTION_SCHEMA,
        "model": bundle.name,
        "graph": network.file,
        "onnx_sha256": bundle.files[network.file].sha256,
        "device": device.partition(":")[0],
        "stride": bundle.patch.stride if network is not bundle.networks.encoder else 1,
        "inputs": ports(network.inputs),
        "outputs": ports(network.outputs),
    }
    return json.dumps(description)


def _free_axes(tensors: tuple[Tensor, ...], stride: int) -> tuple[dict[int, Any] | None, ...]:
    """Return the spatial axes as multiples of the stride; a batch is one sample, as the sampler evaluates it."""
    from torch.export import Dim

    strides = {name: Dim(f"{name.lower()}_strides", min=2, max=MOST_VOXELS // stride) for name in "XYZ"}
    free = []
    for tensor in tensors:
        axes: dict[int, Any] = {}
        for number, axis in enumerate(tensor.shape):
            name, _, divisor = str(axis).partition("/")
            if name in strides:
                times = stride // int(divisor or 1)
                axes[number] = times * strides[name] if times > 1 else strides[name]
        free.append(axes or None)
    return tuple(free)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of TorchScript's deprecation and of traced sizes, and the compiler's log."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
