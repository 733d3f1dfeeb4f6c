"""Count the floating-point operations and bytes of one evaluation of an ONNX graph, node by node.

Counted are
- *matrix* FLOP: two for each multiply-add of Conv, ConvTranspose, MatMul and Gemm, which is what PyTorch's
  FlopCounterMode counts;
- *other* FLOP: one for each value that an element-wise node, a reduction or a sampling node writes or reads, whichever
  is more; a sigmoid counts as one, like an addition;
- *bytes* that each node reads and writes if nothing is fused, and those that no fusion can save: weights, the graph's
  inputs and outputs, and what goes into and out of a matrix node.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from x2ct.errors import InputError

Shapes = dict[str, tuple[int, ...]]

_FLOAT32 = 4
_SMALL = 4096
"""Constants of no more elements are evaluated, because shapes, axes and pads depend on them."""

_MATRIX = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
_LAYOUT = _VIEWS | {"Cast", "Transpose", "Concat", "Split", "Slice", "Gather", "Expand", "Pad", "ConstantOfShape"}
_OTHER = """
    Abs Add And AveragePool Clip Cos Div Equal Erf Exp Floor Greater GreaterOrEqual GridSample GroupNormalization
    InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log Max MaxPool Min Mul Neg Or Pow
    Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu Resize Sigmoid Sin Softmax Sqrt Sub Tanh Where
"""


@dataclass(frozen=True)
class NodeCost:
    """The cost of one node, by the name that a runtime's profile gives it."""

    name: str
    op: str
    matrix_flop: int
    other_flop: int
    unfused_elements: int


@dataclass(frozen=True)
class GraphCost:
    """The cost of a graph. Activations and weights have `element_bytes` each, the graph's ends are float32."""

    nodes: tuple[NodeCost, ...]
    matrix_flop: int
    other_flop: int
    weight_elements: int
    end_elements: int
    matrix_elements: int
    unfused_elements: int

    def bytes_fused(self, element_bytes: int) -> int:
        """Return the bytes that move at the least: weights, ends, and each matrix node's activations."""
        return element_bytes * (self.weight_elements + self.matrix_elements) + _FLOAT32 * self.end_elements

    def bytes_unfused(self, element_bytes: int) -> int:
        """Return the bytes that move if every node reads and writes memory."""
        return element_bytes * (self.weight_elements + self.unfused_elements) + _FLOAT32 * self.end_elements


def count(path: Path, inputs: Mapping[str, Sequence[int]]) -> GraphCost:
    """Count one evaluation of an ONNX file.

    Args:
        path: the file.
        inputs: the shape of each input.

    Raises:
        InputError: no ONNX model, an input without a shape, an operator that is not known here, or a shape that is
            known only when the graph runs.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf has its own exceptions
        raise InputError.of(path, "file", found=error, expected="an ONNX model") from error
    constant = {tensor.name for tensor in model.graph.initializer}
    ends = [port for port in model.graph.input if port.name not in constant]
    for port in ends:
        if port.name not in inputs:
            raise InputError.of(path, port.name, found="no shape", expected="one for each input")
        for dim, size in zip(port.type.tensor_type.shape.dim, inputs[port.name], strict=True):
            dim.dim_value = size
    shapes, nodes = _fold(path, model)
    fixed = {tensor.name for tensor in model.graph.initializer}
    costs, weights, matrix_elements = list[NodeCost](), dict[str, int](), 0
    for node in nodes:
        names = [name for name in node.input if name]
        if all(name in fixed for name in names):
            fixed.update(node.output)  # a cast of weights, done once when the graph is compiled
            continue
        weights |= {name: math.prod(shapes[name]) for name in names if name in fixed}
        sizes = [math.prod(shapes[name]) for name in (*names, *node.output) if name and name not in fixed]
        matrix = _matrix_flop(node, shapes)
        other = 0 if matrix or node.op_type in _LAYOUT else max(sizes)
        matrix_elements += sum(sizes) if matrix else 0
        unfused = 0 if node.op_type in _VIEWS else sum(sizes)
        costs.append(NodeCost(_name(node), node.op_type, matrix, other, unfused))
    return GraphCost(
        nodes=tuple(costs),
        matrix_flop=sum(cost.matrix_flop for cost in costs),
        other_flop=sum(cost.other_flop for cost in costs),
        weight_elements=sum(weights.values()),
        end_elements=sum(math.prod(shapes[port.name]) for port in (*ends, *model.graph.output)),
        matrix_elements=matrix_elements,
        unfused_elements=sum(cost.unfused_elements for cost in costs),
    )


def _fold(path: Path, model: onnx.ModelProto) -> tuple[Shapes, list[onnx.NodeProto]]:
    """Return the shape of every tensor, and the nodes that are left when arithmetic on shapes is evaluated.

    ONNX's shape inference follows values through most such nodes, but not through a division: those are evaluated
    here, and the inference repeated, until every shape is known.
    """
    counted = {*_MATRIX, *_LAYOUT, *_OTHER.split(), "Shape", "Constant"}
    graph, opsets = model.graph, {entry.domain: entry.version for entry in model.opset_import}
    for node in graph.node:
        if node.op_type not in counted:
            raise InputError.of(path, _name(node), found=f"operator {node.op_type}", expected="one that is counted")
    del graph.value_info[:]
    for port in graph.output:
        port.type.tensor_type.ClearField("shape")
    while True:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
        shapes: Shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for port in (*graph.input, *inferred.value_info, *inferred.output):
            if all(dim.HasField("dim_value") for dim in port.type.tensor_type.shape.dim):
                shapes[port.name] = tuple(dim.dim_value for dim in port.type.tensor_type.shape.dim)
        known = {t.name: numpy_helper.to_array(t) for t in graph.initializer if math.prod(t.dims) <= _SMALL}
        left = []
        for node in graph.node:
            if node.op_type == "Shape" and node.input[0] in shapes:
                cut = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                extents = shapes[node.input[0]][cut.get("start", 0) : cut.get("end")]
                values = [np.asarray(extents, np.int64)]
            elif all(name in known for name in node.input if name):
                evaluator = ReferenceEvaluator(node, opsets=opsets)
                values = list(evaluator.run(None, {name: known[name] for name in node.input if name}))
            else:
                left.append(node)
                continue
            if sum(value.size for value in values) > _SMALL:
                left.append(node)
                continue
            for name, value in zip(node.output, values, strict=True):
                known[name] = np.asarray(value)
                graph.initializer.append(numpy_helper.from_array(known[name], name))
                shapes[name] = known[name].shape
        missing = [name for node in left for name in node.output if name and name not in shapes]
        folded = len(left) < len(graph.node)
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in left]
        del graph.node[:]
        graph.node.extend(kept)
        if not missing:
            return shapes, kept
        if not folded:
            raise InputError.of(path, missing[0], found="a shape that only a run can know", expected="fixed shapes")


def _name(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]


def _matrix_flop(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return two for each multiply-add; a convolution's weight is [outputs, inputs / group, *kernel]."""
    if node.op_type not in _MATRIX:
        return 0
    first, second, made = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type == "Conv":
        return 2 * math.prod(made) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":  # its weight is [inputs, outputs / group, *kernel]
        return 2 * math.prod(first) * math.prod(second[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * math.prod(made) * first[0 if transposed else -1]
