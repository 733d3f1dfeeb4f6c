"""What one evaluation of a graph costs: floating-point operations and bytes, node by node, for given input shapes.

Shapes are followed through the graph in plain Python; where they depend on values (Shape, Gather, Concat, then Reshape)
those values are followed too. An operator that is not known here is an error, never a zero.

Counted are
- *matrix* FLOP: two for each multiply-add of Conv, ConvTranspose, MatMul and Gemm, which is what PyTorch's
  FlopCounterMode counts;
- *other* FLOP: one for each value that an element-wise node, a reduction or a sampling one makes or reads, whichever is
  more; a sigmoid counts as one, as an addition does;
- *bytes* that each node reads and writes if nothing is fused, and those that no fusion can save: weights, the graph's
  inputs and outputs, and what goes into and out of a matrix node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from x2ct.benchmark.graph import Array, Graph, Node
from x2ct.errors import InputError

Shape = tuple[int, ...]

_FLOAT32 = 4


@dataclass(frozen=True)
class Known:
    """A tensor: its shape, and its values where they are few and known before any run."""

    shape: Shape
    values: Array | None = None


@dataclass(frozen=True)
class NodeCost:
    """One node's part."""

    name: str
    op: str
    matrix_flop: int
    other_flop: int
    unfused_elements: int


@dataclass(frozen=True)
class GraphCost:
    """A graph's. Bytes are for activations and weights of `element_bytes`, and float32 at the graph's ends."""

    nodes: tuple[NodeCost, ...]
    matrix_flop: int
    other_flop: int
    weight_elements: int
    end_elements: int
    matrix_elements: int
    unfused_elements: int

    def bytes_fused(self, element_bytes: int) -> int:
        """What moves at the least: weights, ends, and each matrix node's activations."""
        return element_bytes * (self.weight_elements + self.matrix_elements) + _FLOAT32 * self.end_elements

    def bytes_unfused(self, element_bytes: int) -> int:
        """What moves if every node reads and writes memory."""
        return element_bytes * (self.weight_elements + self.unfused_elements) + _FLOAT32 * self.end_elements


def count(graph: Graph, inputs: Mapping[str, Sequence[int]]) -> GraphCost:
    """Count one evaluation.

    Args:
        graph: from `read_graph`.
        inputs: each input's shape.

    Raises:
        InputError: an input without a shape, or an operator that is not known here.
    """
    known: dict[str, Known] = {name: Known(c.shape, c.values) for name, c in graph.constants.items()}
    for name in graph.inputs:
        if name not in inputs:
            raise InputError.of(graph.path, name, found="no shape", expected="one for each input")
        known[name] = Known(tuple(inputs[name]))
    costs, matrix_elements, weights = [], 0, dict[str, int]()
    fixed = set(graph.constants)
    for node in graph.nodes:
        given = [known[name] if name else Known(()) for name in node.inputs]
        made = _infer(graph, node, given)
        known.update(zip(node.outputs, made, strict=False))
        if all(name in fixed or not name for name in node.inputs):
            fixed.update(node.outputs)  # a cast of weights, done once when the graph is compiled
            continue
        if all(tensor.values is not None for tensor in made):
            continue  # bookkeeping of shapes
        own = [tensor for name, tensor in zip(node.inputs, given, strict=True) if name and name not in fixed]
        for name, tensor in zip(node.inputs, given, strict=True):
            if name in fixed:
                weights[name] = _size(tensor.shape)
        moved = sum(_size(tensor.shape) for tensor in own + made)
        matrix = _MATRIX[node.op](node, given, made) if node.op in _MATRIX else 0
        matrix_elements += moved if matrix else 0
        other = 0 if matrix or node.op in _LAYOUT else max(_size(tensor.shape) for tensor in own + made)
        costs.append(NodeCost(node.name, node.op, matrix, other, 0 if node.op in _VIEWS else moved))
    ends = [known[name] for name in (*graph.inputs, *graph.outputs)]
    return GraphCost(
        tuple(costs),
        sum(cost.matrix_flop for cost in costs),
        sum(cost.other_flop for cost in costs),
        sum(weights.values()),
        sum(_size(tensor.shape) for tensor in ends),
        matrix_elements,
        sum(cost.unfused_elements for cost in costs),
    )


def _size(shape: Sequence[int]) -> int:
    return math.prod(shape)


# ------------------------------------------------------------------------------------------------ matrix operators


def _convolution(node: Node, given: Sequence[Known], made: Sequence[Known]) -> int:
    weight = given[1].shape  # [outputs, inputs / group, *kernel]
    return 2 * _size(made[0].shape) * _size(weight[1:])


def _transposed(node: Node, given: Sequence[Known], made: Sequence[Known]) -> int:
    weight = given[1].shape  # [inputs, outputs / group, *kernel]
    return 2 * _size(given[0].shape) * _size(weight[1:])


def _product(node: Node, given: Sequence[Known], made: Sequence[Known]) -> int:
    inner = given[0].shape[0 if node.attributes.get("transA") else -1]
    return 2 * _size(made[0].shape) * inner


_MATRIX = {"Conv": _convolution, "ConvTranspose": _transposed, "MatMul": _product, "Gemm": _product}
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
_LAYOUT = _VIEWS | {"Cast", "Transpose", "Concat", "Split", "Slice", "Gather", "Expand", "Pad", "ConstantOfShape"}


# ------------------------------------------------------------------------------------------------ shapes

_Maker = Callable[[Node, Sequence[Known]], list[Known]]


def _infer(graph: Graph, node: Node, given: Sequence[Known]) -> list[Known]:
    if node.op not in _SHAPES:
        raise InputError.of(
            graph.path, node.name, found=f"operator {node.op}", expected=f"one of {', '.join(sorted(_SHAPES))}"
        )
    made = _SHAPES[node.op](node, given)
    evaluate = _VALUES.get(node.op)
    if evaluate is None or any(tensor.values is None for tensor in given) or _size(made[0].shape) > 4096:
        return made
    values = evaluate(node, [tensor.values for tensor in given])
    return [Known(values.shape, values)]


def _ints(tensor: Known) -> list[int]:
    if tensor.values is None:
        raise InputError.of("graph", "shape", found="one that is known only when it runs", expected="fixed shapes")
    return [int(value) for value in np.atleast_1d(tensor.values)]


def _same(node: Node, given: Sequence[Known]) -> list[Known]:
    return [Known(given[0].shape)]


def _broadcast(node: Node, given: Sequence[Known]) -> list[Known]:
    return [Known(np.broadcast_shapes(*(tensor.shape for tensor in given)))]


def _conv(node: Node, given: Sequence[Known]) -> list[Known]:
    x, weight = given[0].shape, given[1].shape
    dims = len(x) - 2
    kernel = weight[2:]
    strides, dilations = node.numbers("strides", [1] * dims), node.numbers("dilations", [1] * dims)
    pads = node.numbers("pads", [0] * 2 * dims)
    sides = [
        (size + pads[i] + pads[i + dims] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, size in enumerate(x[2:])
    ]
    return [Known((x[0], weight[0], *sides))]


def _conv_transpose(node: Node, given: Sequence[Known]) -> list[Known]:
    x, weight = given[0].shape, given[1].shape
    dims = len(x) - 2
    strides, dilations = node.numbers("strides", [1] * dims), node.numbers("dilations", [1] * dims)
    pads, extra = node.numbers("pads", [0] * 2 * dims), node.numbers("output_padding", [0] * dims)
    sides = [
        strides[i] * (size - 1) + extra[i] + dilations[i] * (weight[2 + i] - 1) + 1 - pads[i] - pads[i + dims]
        for i, size in enumerate(x[2:])
    ]
    return [Known((x[0], weight[1] * int(node.attributes.get("group", 1)), *sides))]


def _pool(node: Node, given: Sequence[Known]) -> list[Known]:
    x, kernel = given[0].shape, node.numbers("kernel_shape", [])
    dims = len(kernel)
    strides, pads = node.numbers("strides", [1] * dims), node.numbers("pads", [0] * 2 * dims)
    sides = [(size + pads[i] + pads[i + dims] - kernel[i]) // strides[i] + 1 for i, size in enumerate(x[2:])]
    return [Known((*x[:2], *sides))]


def _matmul(node: Node, given: Sequence[Known]) -> list[Known]:
    a, b = given[0].shape, given[1].shape
    return [Known((*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1]))]


def _gemm(node: Node, given: Sequence[Known]) -> list[Known]:
    rows = given[0].shape[1 if node.attributes.get("transA") else 0]
    return [Known((rows, given[1].shape[0 if node.attributes.get("transB") else 1]))]


def _reshape(node: Node, given: Sequence[Known]) -> list[Known]:
    x, wanted = given[0].shape, _ints(given[1])
    if not node.attributes.get("allowzero"):
        wanted = [x[i] if size == 0 else size for i, size in enumerate(wanted)]
    rest = math.prod(size for size in wanted if size >= 0)
    return [Known(tuple(_size(x) // rest if size < 0 else size for size in wanted))]


def _axes(node: Node, given: Sequence[Known], rank: int) -> list[int]:
    found = _ints(given[1]) if len(given) > 1 else node.numbers("axes", [])
    return [axis % rank for axis in found]


def _unsqueeze(node: Node, given: Sequence[Known]) -> list[Known]:
    rank = len(given[0].shape) + len(_ints(given[1]) if len(given) > 1 else node.numbers("axes", []))
    axes, rest = _axes(node, given, rank), iter(given[0].shape)
    return [Known(tuple(1 if axis in axes else next(rest) for axis in range(rank)))]


def _squeeze(node: Node, given: Sequence[Known]) -> list[Known]:
    shape = given[0].shape
    axes = _axes(node, given, len(shape)) or [axis for axis, size in enumerate(shape) if size == 1]
    return [Known(tuple(size for axis, size in enumerate(shape) if axis not in axes))]


def _transpose(node: Node, given: Sequence[Known]) -> list[Known]:
    shape = given[0].shape
    return [Known(tuple(shape[axis] for axis in node.numbers("perm", list(range(len(shape)))[::-1])))]


def _shape(node: Node, given: Sequence[Known]) -> list[Known]:
    shape = given[0].shape[node.attributes.get("start", 0) : node.attributes.get("end")]
    return [Known((len(shape),), np.asarray(shape, np.int64))]


def _gather(node: Node, given: Sequence[Known]) -> list[Known]:
    shape, axis = given[0].shape, int(node.attributes.get("axis", 0)) % len(given[0].shape)
    return [Known((*shape[:axis], *given[1].shape, *shape[axis + 1 :]))]


def _concat(node: Node, given: Sequence[Known]) -> list[Known]:
    shape = list(given[0].shape)
    axis = int(node.attributes["axis"]) % len(shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in given)
    return [Known(tuple(shape))]


def _split(node: Node, given: Sequence[Known]) -> list[Known]:
    shape, parts = given[0].shape, len(node.outputs)
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    sizes = _ints(given[1]) if len(given) > 1 else [-(-shape[axis] // parts)] * parts
    return [Known((*shape[:axis], size, *shape[axis + 1 :])) for size in sizes]


def _slice(node: Node, given: Sequence[Known]) -> list[Known]:
    data, bounds = given[0], [_ints(tensor) for tensor in given[1:]]
    cut = [slice(None)] * len(data.shape)
    axes = bounds[2] if len(bounds) > 2 else list(range(len(bounds[0])))
    steps = bounds[3] if len(bounds) > 3 else [1] * len(axes)
    for start, end, axis, step in zip(bounds[0], bounds[1], axes, steps, strict=True):
        cut[axis] = slice(start, end, step)
    shape = tuple(len(range(size)[one]) for size, one in zip(data.shape, cut, strict=True))
    return [Known(shape, None if data.values is None else data.values[tuple(cut)])]


def _reduce(node: Node, given: Sequence[Known]) -> list[Known]:
    shape = given[0].shape
    axes = _axes(node, given, len(shape)) or list(range(len(shape)))
    if node.attributes.get("keepdims", 1):
        return [Known(tuple(1 if axis in axes else size for axis, size in enumerate(shape)))]
    return [Known(tuple(size for axis, size in enumerate(shape) if axis not in axes))]


def _grid_sample(node: Node, given: Sequence[Known]) -> list[Known]:
    return [Known((*given[0].shape[:2], *given[1].shape[1:-1]))]


def _resize(node: Node, given: Sequence[Known]) -> list[Known]:
    shape = given[0].shape
    if len(given) > 3 and given[3].shape:
        return [Known(tuple(_ints(given[3])))]
    scales = given[2].values
    if scales is None:
        raise InputError.of(node.name, "scales", found="some that are known only when it runs", expected="fixed ones")
    return [Known(tuple(int(size * scale) for size, scale in zip(shape, scales, strict=True)))]


def _constant_of_shape(node: Node, given: Sequence[Known]) -> list[Known]:
    return [Known(tuple(_ints(given[0])))]


def _expand(node: Node, given: Sequence[Known]) -> list[Known]:
    return [Known(np.broadcast_shapes(given[0].shape, tuple(_ints(given[1]))))]


def _constant(node: Node, given: Sequence[Known]) -> list[Known]:
    value = node.attributes["value"]
    return [Known(value.shape, value.values)]


_ELEMENTWISE = """
    Abs Cast Clip Cos Erf Exp Floor Identity InstanceNormalization GroupNormalization LayerNormalization LeakyRelu Log
    Neg Reciprocal Relu Sigmoid Sin Softmax Sqrt Tanh
"""
_BROADCASTING = "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mul Or Pow Sub Where"
_REDUCING = "ReduceMax ReduceMean ReduceMin ReduceSum"

_SHAPES: dict[str, _Maker] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _same),
    **dict.fromkeys(_BROADCASTING.split(), _broadcast),
    **dict.fromkeys(_REDUCING.split(), _reduce),
    "AveragePool": _pool,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Expand": _expand,
    "Gather": _gather,
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

_VALUES: dict[str, Callable[[Node, Sequence[Any]], Array]] = {
    "Add": lambda node, v: np.asarray(v[0] + v[1]),
    "Cast": lambda node, v: np.asarray(v[0]),
    "Concat": lambda node, v: np.concatenate(v, axis=node.attributes["axis"]),
    "Div": lambda node, v: np.asarray(v[0] // v[1] if v[0].dtype.kind == "i" else v[0] / v[1]),
    "Gather": lambda node, v: np.take(v[0], v[1], axis=node.attributes.get("axis", 0)),
    "Mul": lambda node, v: np.asarray(v[0] * v[1]),
    "Sub": lambda node, v: np.asarray(v[0] - v[1]),
    "Unsqueeze": lambda node, v: np.expand_dims(v[0], tuple(int(axis) for axis in v[1])),
    "Squeeze": lambda node, v: np.squeeze(v[0], tuple(int(axis) for axis in v[1]) if len(v) > 1 else None),
}
