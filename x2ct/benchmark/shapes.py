"""Shapes of a graph's tensors, node by node, in plain Python.

Where a shape depends on values (Shape, Gather, Concat, then Reshape) those values are followed too. An operator that is
not known here is an error, never a zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from x2ct.benchmark.graph import Array, Graph, Node
from x2ct.errors import InputError

Shape = tuple[int, ...]
_Maker = Callable[[Node, Sequence["Known"]], list["Known"]]

_MOST_VALUES = 4096  # that are followed: shapes and axes are short


@dataclass(frozen=True)
class Known:
    """A tensor: its shape, and its values where they are few and known before any run."""

    shape: Shape
    values: Array | None = None

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


def infer(graph: Graph, node: Node, given: Sequence[Known]) -> list[Known]:
    """What a node makes of its inputs.

    Raises:
        InputError: an operator that is not known here, or a shape that is known only when the graph runs.
    """
    if node.op not in _SHAPES:
        raise InputError.of(
            graph.path, node.name, found=f"operator {node.op}", expected=f"one of {', '.join(sorted(_SHAPES))}"
        )
    made = _SHAPES[node.op](node, given)
    evaluate = _VALUES.get(node.op)
    if evaluate is None or any(tensor.values is None for tensor in given) or made[0].size > _MOST_VALUES:
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
    return [Known(tuple(math.prod(x) // rest if size < 0 else size for size in wanted))]


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
