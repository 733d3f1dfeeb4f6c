"""A bundle as a model repository of NVIDIA's Triton Inference Server.

Four models: NAME_encoder, NAME_lift and NAME_denoiser are the bundle's ONNX graphs, run by Triton's onnxruntime
backend; NAME is the sampling loop, a copy of `tritonmodel.py` for its python backend, which calls the three. The bundle
itself lies beside the loop, whole: it has the noise levels, the views and the map to HU.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from x2ct.bundle import MANIFEST, Bundle, Tensor

LOOP = "tritonmodel.py"
BUNDLE = "bundle.x2ct"  # the bundle's folder beside the loop; `tritonmodel.py` has the same name
TYPES = {"float32": "TYPE_FP32"}  # Triton's name of each type that a bundle's graphs may take and give

Port = tuple[str, str, Sequence[int], bool]
"""Name, Triton's type, extents (-1: free), whether a request may leave it out."""


def write(bundle: Bundle, target: Path) -> None:
    """Write a model repository for Triton to a folder that is not there yet. Raises OSError where it can't."""
    for name, network in bundle.networks.items():
        own_name = f"{bundle.name}_{name}"
        content = _config(own_name, "onnxruntime", map(_port, network.inputs), map(_port, network.outputs))
        folder = _model(target / own_name, content)
        (folder / "model.onnx").write_bytes(bundle.file_of(network).read_bytes())
    views: list[Port] = [(view.name, "TYPE_FP32", view.shape, True) for view in bundle.geometry.views]
    options: list[Port] = [("seed", "TYPE_UINT64", (1,), True), ("steps", "TYPE_INT32", (1,), True)]
    content = _config(bundle.name, "python", [*views, *options], [("hu", "TYPE_FP32", bundle.grid.shape, False)])
    folder = _model(target / bundle.name, content + "instance_group [ { count: 1 kind: KIND_CPU } ]\n")
    (folder / "model.py").write_bytes(files("x2ct.export").joinpath(LOOP).read_bytes())
    copy_bundle(bundle, folder / BUNDLE)


def copy_bundle(bundle: Bundle, target: Path) -> None:
    """Copy a bundle to a new folder, byte for byte: the copy has the same checksum."""
    target.mkdir()
    for file in (MANIFEST, *bundle.files):
        (target / file).write_bytes((bundle.path / file).read_bytes())


def _model(folder: Path, config: str) -> Path:
    """Make one model's folder; return that of its first version."""
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return version


def _port(tensor: Tensor) -> Port:
    extents = [extent if isinstance(extent, int) else -1 for extent in tensor.shape]
    return tensor.name, TYPES[tensor.dtype], extents, False


def _config(name: str, backend: str, inputs: Iterable[Port], outputs: Iterable[Port]) -> str:
    """Return a ModelConfig in protobuf's text format. No batching: the first axis is a tensor's own."""

    def ports(kind: str, tensors: Iterable[Port]) -> str:
        return "".join(
            f"{kind} {{ name: {json.dumps(name)} data_type: {dtype} dims: {list(dims)}"
            f"{' optional: true' if optional else ''} }}\n"
            for name, dtype, dims, optional in tensors
        )

    head = f"name: {json.dumps(name)}\nbackend: {json.dumps(backend)}\nmax_batch_size: 0\n"
    return head + ports("input", inputs) + ports("output", outputs)
