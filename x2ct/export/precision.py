"""A denoiser in another precision, as a graph: strongly typed, so that a runtime has nothing left to choose.

The canonical graph computes in float32. Here its inside, from what the first convolution reads to what the last one
makes, is typed bfloat16 (opset 22, whose Conv takes it) or float16; preconditioning, the noise level's embedding,
inputs and outputs stay in float32. Each weight is stored in the type; a Cast stands at each tensor that enters and at
each that leaves, and nowhere else. "tf32" is the float32 graph, whose inputs a GPU's matrix units round. Bundles store
large weights as float16 with a Cast to float32 behind each (`to_f16`, undone by `onnxgraph.folded`): half the size.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import onnx

from x2ct.bundle import OPSET
from x2ct.errors import InputError, X2CTError
from x2ct.export.onnxgraph import FLOAT, LinkedGraph, drop_unused, folded, inferred_types

PRECISIONS = ("f32", "tf32", "bf16", "f16")
BF16_OPSET = 22
_IR_VERSION = 10  # opset 22's

LEAST_ELEMENTS = 256
"""Smaller tensors (biases, the preconditioning's constants) are stored in f32: they weigh nothing and may need it."""

_HEAVY = {"Conv", "ConvTranspose"}
_LAYOUT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze"}
"""Nodes that move values without computing: done in the narrow type they move half as much."""


@dataclass(frozen=True)
class Typed:
    """A graph in a precision.

    `inside` are the tensors that are computed in the narrow type, and those that are cast to it, by the names that they
    have in the float32 graph; none for f32 and tf32.
    """

    precision: str
    model: onnx.ModelProto
    inside: tuple[str, ...]


def to_f16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose large float32 initialisers are rounded to float16 and cast back at run time.

    Runtimes fold the casts when they compile, so they cost nothing per evaluation. Raises X2CTError where a weight lies
    outside float16's range.
    """
    small = copy.deepcopy(model)
    casts = []
    for weight in small.graph.initializer:
        if weight.data_type == FLOAT and np.prod(weight.dims) >= LEAST_ELEMENTS:
            name = weight.name
            weight.CopyFrom(_rounded(weight, f"{name}.f16", onnx.TensorProto.FLOAT16))
            casts.append(_cast(f"{name}.f16", name, FLOAT, f"{name}.cast"))
    _set_nodes(small.graph, [*casts, *small.graph.node])
    onnx.checker.check_model(small, full_check=True)
    return small


def typed(model: onnx.ModelProto, precision: str) -> Typed:
    """Return a float32 graph at opset 18 in a precision of `PRECISIONS`; the given one is not changed.

    Weights stored as float16 with a Cast behind each are folded first. Raises InputError for another precision,
    X2CTError for a weight that the type can't hold, or a graph that ONNX's checker doesn't take.
    """
    if precision not in PRECISIONS:
        raise InputError.of("export", "precision", found=precision, expected=" or ".join(PRECISIONS))
    plain, inside = folded(model), tuple[str, ...]()
    if precision in ("bf16", "f16"):
        links = _FloatGraph(plain)
        computed = _inside(links)
        entering = {name for node in links.nodes if _makes(node, computed) for name in links.data(node)} - computed
        inside = tuple(sorted(entering | computed))
        _retype(links, computed, precision)
    if precision == "bf16":
        plain = onnx.version_converter.convert_version(plain, BF16_OPSET)
        plain.ir_version = _IR_VERSION
    try:
        onnx.shape_inference.infer_shapes(plain, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(plain, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise X2CTError(f"{precision}: the graph can't be typed: {first_line(error)}") from error
    properties = {entry.key: entry.value for entry in plain.metadata_props}
    onnx.helper.set_model_props(plain, {**properties, "x2ct.precision": precision})
    assert precision == "bf16" or plain.opset_import[0].version == OPSET
    return Typed(precision, plain, inside)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text that is not empty, or its type."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class _FloatGraph(LinkedGraph):
    """A graph with its links, and which of its tensors are float32."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model.graph, inferred_types(model))
        self.floats = {name for name, one in self.types.items() if one.elem_type == FLOAT}
        self.floats |= {name for name, one in self.weights.items() if one.data_type == FLOAT}

    def data(self, node: onnx.NodeProto) -> list[str]:
        """Return the float inputs of a node that are no weights."""
        return [name for name in node.input if name in self.floats and name not in self.weights]

    def makes_floats(self, node: onnx.NodeProto) -> bool:
        return self.floats.issuperset(node.output)

    def moves_or_scales(self, node: onnx.NodeProto) -> bool:
        """Return whether a node only moves a volume's values, or multiplies them by one number."""
        if not self.makes_floats(node) or len(self.types[node.output[0]].shape.dim) < 5:
            return False
        numbers = [name for name in node.input if name in self.weights and not self.weights[name].dims]
        return node.op_type in _LAYOUT or (node.op_type == "Mul" and len(numbers) == 1)


def _makes(node: onnx.NodeProto, tensors: set[str]) -> bool:
    """Return whether a node's outputs are among these tensors: all of them are, or none."""
    return not tensors.isdisjoint(node.output)


def _inside(links: _FloatGraph) -> set[str]:
    """Return what is computed between the first and the last convolutions: whatever lies on a way from one to another.

    No way leads out and in again, so that no cast is undone by a later one.
    """
    after: set[str] = set()
    for node in links.nodes:
        if links.makes_floats(node) and (node.op_type in _HEAVY or not after.isdisjoint(links.data(node))):
            after.update(node.output)
    before: set[str] = set()
    for node in reversed(links.nodes):
        read = any(_makes(reader, before) for name in node.output for reader in links.consumers[name])
        if links.makes_floats(node) and (node.op_type in _HEAVY or read):
            before.update(node.output)
    inside = after & before
    # Outwards over what only moves values, or scales by a number, and serves nothing else.
    for node in reversed(links.nodes):
        served = [one for name in node.output for one in links.consumers[name] if one.op_type != "Shape"]
        if served and all(_makes(one, inside) for one in served) and links.moves_or_scales(node):
            inside.update(node.output)
    for node in links.nodes:
        if node.op_type in _LAYOUT and node.input[0] in inside and links.makes_floats(node):
            inside.update(node.output)
    return inside


def _retype(links: _FloatGraph, inside: set[str], precision: str) -> None:
    """Type the inside in place: store its weights in the type; add a Cast for each tensor in and for each out."""
    graph, wide = links.proto, FLOAT
    narrow = onnx.TensorProto.BFLOAT16 if precision == "bf16" else onnx.TensorProto.FLOAT16
    names: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in links.nodes:
        within = _makes(node, inside)
        for place, name in enumerate(node.input):
            # A Shape looks at a tensor's size only, whatever its type.
            if name not in links.floats or node.op_type == "Shape" or within == (name in inside):
                continue
            if name not in names:
                names[name] = f"{name}.{precision if within else 'f32'}"
                if within and name in links.weights:
                    graph.initializer.add().CopyFrom(_rounded(links.weights[name], names[name], narrow))
                else:
                    nodes.append(_cast(name, names[name], narrow if within else wide))
            node.input[place] = names[name]
        nodes.append(node)
        for place, name in enumerate(node.output):
            if within and name in links.results:
                node.output[place] = f"{name}.{precision}"
                nodes.append(_cast(node.output[place], name, wide))
    _set_nodes(graph, nodes)
    drop_unused(graph)


def _rounded(weight: onnx.TensorProto, name: str, narrow: int) -> onnx.TensorProto:
    """Return a weight in another type and by another name. Raises X2CTError where the type can't hold it."""
    values, dtype = np.asarray(onnx.numpy_helper.to_array(weight)), onnx.helper.tensor_dtype_to_np_dtype(narrow)
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype)
    if not np.isfinite(rounded.astype(np.float32)).all():
        raise X2CTError(f"{name}: a weight of {np.abs(values).max():g} does not fit {dtype.name}")
    return onnx.numpy_helper.from_array(rounded, name)


def _cast(source: str, target: str, to: int, name: str = "") -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name or target, to=to)


def _set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    del graph.node[:]
    graph.node.extend(nodes)
