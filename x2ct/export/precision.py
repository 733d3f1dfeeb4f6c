"""A denoiser in another precision, as a graph: strongly typed, so that a runtime has nothing left to choose.

The canonical graph computes in float32. Here its inside, from what the first convolution reads to what the last one
makes, is typed bfloat16 (opset 22, whose Conv takes it) or float16; preconditioning, the noise level's embedding,
inputs and outputs stay in float32. Each weight is stored in the type; a Cast stands at each tensor that enters and at
each that leaves, and nowhere else. "tf32" is the float32 graph: a GPU's matrix units round their inputs, the graph
doesn't know of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from x2ct.bundle import OPSET
from x2ct.errors import InputError, X2CTError

PRECISIONS = ("f32", "tf32", "bf16", "f16")
BF16_OPSET = 22
_IR_VERSION = 10  # opset 22's

_HEAVY = {"Conv", "ConvTranspose"}
_LAYOUT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze"}
"""Nodes that move values without computing: done in the narrow type they move half as much."""


@dataclass(frozen=True)
class Typed:
    """A graph in a precision.

    Attributes:
        precision: one of `PRECISIONS`.
        model: the ModelProto.
        inside: the tensors that are computed in the narrow type, and those that are cast to it, by the names that they
            have in the float32 graph; empty for f32 and tf32.
    """

    precision: str
    model: onnx.ModelProto
    inside: tuple[str, ...]


def typed(model: onnx.ModelProto, precision: str) -> Typed:
    """A canonical graph in a precision; the given one is not changed.

    Args:
        model: float32 at opset 18; weights stored as float16 with a Cast behind each are folded first.
        precision: one of `PRECISIONS`.

    Raises:
        InputError: another precision.
        X2CTError: a weight that the type can't hold, or a graph that ONNX's checker doesn't take.
    """
    if precision not in PRECISIONS:
        raise InputError.of("export", "precision", found=precision, expected=" or ".join(PRECISIONS))
    plain = folded(model)
    if precision in ("f32", "tf32"):
        return _checked(plain, precision, ())
    narrow = onnx.TensorProto.BFLOAT16 if precision == "bf16" else onnx.TensorProto.FLOAT16
    links = _Links(plain)
    inside = _inside(links)
    entering = _entering(links, inside)
    kept = tuple(entering | {name for i in inside for name in links.nodes[i].output})
    _retype(plain, links, inside, precision, narrow)
    if precision == "bf16":
        plain = onnx.version_converter.convert_version(plain, BF16_OPSET)
        plain.ir_version = _IR_VERSION
    return _checked(plain, precision, kept)


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are float32: what `weights.to_f16` did, undone but for the rounding."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in plain.graph.initializer}
    for node in list(plain.graph.node):
        stored = weights.get(node.input[0]) if node.op_type == "Cast" else None
        if stored is not None and node.attribute[0].i == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(stored).astype(np.float32)
            plain.graph.initializer.add().CopyFrom(onnx.numpy_helper.from_array(values, node.output[0]))
            plain.graph.node.remove(node)
    _drop_unread(plain.graph)
    del plain.graph.value_info[:]
    return plain


class _Links:
    """Who makes and who reads a tensor, and which are float32."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        infos = [*graph.value_info, *graph.input, *graph.output]
        self.ranks = {info.name: len(info.type.tensor_type.shape.dim) for info in infos}
        self.floats = {info.name for info in infos if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.floats |= {name for name, one in self.weights.items() if one.data_type == onnx.TensorProto.FLOAT}
        self.nodes = list(model.graph.node)
        self.maker = {name: i for i, node in enumerate(self.nodes) for name in node.output}
        self.readers: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in node.input:
                self.readers.setdefault(name, []).append(i)

    def data(self, i: int) -> list[str]:
        """The float inputs of a node that are no weights."""
        return [name for name in self.nodes[i].input if name in self.floats and name not in self.weights]

    def makes_floats(self, i: int) -> bool:
        return all(name in self.floats for name in self.nodes[i].output)

    def told_sizes(self, i: int) -> bool:
        """Whether a node looks at a tensor's size only, whatever its type."""
        return str(self.nodes[i].op_type) == "Shape"


def _inside(links: _Links) -> set[int]:
    """The nodes between the first and the last convolutions: whatever lies on a way from one to another.

    No way leads out and in again, so that no cast is undone by a later one.
    """
    after: set[int] = set()
    for i, node in enumerate(links.nodes):
        follows = any(links.maker.get(name) in after for name in links.data(i))
        if links.makes_floats(i) and (node.op_type in _HEAVY or follows):
            after.add(i)
    before: set[int] = set()
    for i in reversed(range(len(links.nodes))):
        read = any(reader in before for name in links.nodes[i].output for reader in links.readers.get(name, []))
        if links.makes_floats(i) and (links.nodes[i].op_type in _HEAVY or read):
            before.add(i)
    inside = after & before
    # Outwards over what only moves values, or scales by a number, and serves nothing else.
    for i in reversed(range(len(links.nodes))):
        served = [r for name in links.nodes[i].output for r in links.readers.get(name, []) if not links.told_sizes(r)]
        if i not in inside and served and inside.issuperset(served) and _moves_or_scales(links, i):
            inside.add(i)
    for i, node in enumerate(links.nodes):
        if node.op_type in _LAYOUT and links.maker.get(node.input[0]) in inside and links.makes_floats(i):
            inside.add(i)
    return inside


def _moves_or_scales(links: _Links, i: int) -> bool:
    node = links.nodes[i]
    if not links.makes_floats(i) or links.ranks.get(node.output[0], 0) < 5:
        return False
    if node.op_type == "Mul":
        numbers = [name for name in node.input if name in links.weights and not links.weights[name].dims]
        return len(numbers) == 1
    return node.op_type in _LAYOUT


def _entering(links: _Links, inside: set[int]) -> set[str]:
    return {name for i in inside for name in links.data(i) if links.maker.get(name) not in inside}


def _retype(model: onnx.ModelProto, links: _Links, inside: set[int], precision: str, narrow: int) -> None:
    """Types the inside in place: weights stored in it, one Cast for each tensor in and one for each out."""

    def cast(source: str, target: str, to: int) -> onnx.NodeProto:
        return onnx.helper.make_node("Cast", [source], [target], target, to=to)

    names: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    results = {info.name for info in model.graph.output}
    for i, node in enumerate(links.nodes):
        for place, name in enumerate(node.input):
            within = links.maker.get(name) in inside
            if name not in links.floats or links.told_sizes(i) or (i in inside) == within:
                continue
            if i not in inside:  # it leaves
                wide = f"{name}.f32"
                if name not in names:
                    nodes.append(cast(name, wide, onnx.TensorProto.FLOAT))
                names[name] = wide
            elif name not in names:
                names[name] = f"{name}.{precision}"
                if name in links.weights:
                    values = np.asarray(onnx.numpy_helper.to_array(links.weights[name]))
                    model.graph.initializer.add().CopyFrom(_stored(names[name], values, narrow))
                else:
                    nodes.append(cast(name, names[name], narrow))
            node.input[place] = names[name]
        nodes.append(node)
        for place, name in enumerate(node.output):
            if i in inside and name in results:
                node.output[place] = f"{name}.{precision}"
                nodes.append(cast(node.output[place], name, onnx.TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unread(model.graph)


def _stored(name: str, values: npt.NDArray[np.generic], narrow: int) -> onnx.TensorProto:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(narrow)
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype)
    if not np.isfinite(rounded.astype(np.float32)).all():
        raise X2CTError(f"{name}: a weight of {np.abs(values).max():g} does not fit {dtype.name}")
    return onnx.numpy_helper.from_array(rounded, name)


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def _checked(model: onnx.ModelProto, precision: str, inside: tuple[str, ...]) -> Typed:
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        line = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
        raise X2CTError(f"{precision}: the graph can't be typed: {line}") from error
    properties: Mapping[str, str] = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**properties, "x2ct.precision": precision})
    assert precision == "bf16" or model.opset_import[0].version == OPSET
    return Typed(precision, model, inside)
