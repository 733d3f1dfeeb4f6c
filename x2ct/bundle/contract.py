"""The three graphs fit together, and are what model.json says: condition once, denoise many times."""

from __future__ import annotations

from pathlib import Path

from x2ct.bundle.manifest import MANIFEST, Network, Networks
from x2ct.errors import InputError
from x2ct.fields import Fields
from x2ct.onnxfile import read_facts

OPSET = 18
"""The opset of the canonical graphs: what OpenVINO, ONNX Runtime and TensorRT 10 all read."""


def check_contract(fields: Fields, networks: Networks, views: int, detector: tuple[int, int]) -> None:
    """Complain unless the networks, as model.json has them, have the contract's tensors, in shapes that fit."""
    _check_tensors(fields, networks)
    _check_flow(fields, networks)
    shape = networks.encoder.inputs[0].shape
    if shape != (1, views, 1, *detector):
        wanted = f"{[1, views, 1, *detector]}, from geometry and xray"
        fields.fail("networks.encoder.inputs.views.shape", found=list(shape), expected=wanted)


def check_graph(path: Path, data: bytes, network: Network) -> None:
    """Complain unless an ONNX file has the tensors that model.json says, and stands alone.

    Raises:
        InputError: it names the file, what it has and what was declared.
    """
    facts = read_facts(path, data)
    if facts.opset != OPSET:
        raise InputError.of(path, "opset", found=facts.opset, expected=OPSET)
    for field, graph, declared in (
        ("inputs", facts.inputs, network.inputs),
        ("outputs", facts.outputs, network.outputs),
    ):
        if graph != declared:
            told = tuple("; ".join(str(tensor) for tensor in tensors) for tensors in (graph, declared))
            raise InputError.of(path, field, found=told[0], expected=f"{told[1]}, as {MANIFEST} says")


def _check_tensors(fields: Fields, networks: Networks) -> None:
    """Names and types of all inputs and outputs."""
    conditions = tuple(tensor.name for tensor in networks.lift.outputs)
    expected = {
        "encoder.inputs": (networks.encoder.inputs, ("views", "valid")),
        "encoder.outputs": (networks.encoder.outputs, ("features",)),
        "lift.inputs": (networks.lift.inputs, ("features", "P", "coords", "valid")),
        "lift.outputs": (networks.lift.outputs, tuple(f"c{i}" for i in range(len(conditions)))),
        "denoiser.inputs": (networks.denoiser.inputs, ("x", "sigma", *conditions)),
        "denoiser.outputs": (networks.denoiser.outputs, ("denoised",)),
    }
    for where, (tensors, names) in expected.items():
        if (found := tuple(tensor.name for tensor in tensors)) != names:
            fields.fail(f"networks.{where}", found=", ".join(found), expected=", ".join(names))
        for tensor in tensors:
            if tensor.dtype != "float32":
                fields.fail(f"networks.{where}.{tensor.name}.dtype", found=tensor.dtype, expected="float32")


def _check_flow(fields: Fields, networks: Networks) -> None:
    """What one network gives has the shape that the next one takes."""
    flow = (
        (networks.encoder.outputs, "lift", networks.lift.inputs),
        (networks.lift.outputs, "denoiser", networks.denoiser.inputs[2:]),
    )
    for before, name, after in flow:
        for given, taken in zip(before, after, strict=False):
            # The first axis is the batch, which only the denoiser may leave free.
            if given.shape[1:] != taken.shape[1:]:
                where = f"networks.{name}.inputs.{taken.name}.shape"
                fields.fail(where, found=list(taken.shape), expected=f"what comes before gives, {list(given.shape)}")
