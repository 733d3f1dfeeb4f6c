"""What one evaluation of a graph costs: floating-point operations and bytes, node by node, for given input shapes.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from x2ct.benchmark.graph import Graph, Node
from x2ct.benchmark.shapes import Known, infer
from x2ct.errors import InputError

_FLOAT32 = 4


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
    known = {name: Known(constant.shape, constant.values) for name, constant in graph.constants.items()}
    for name in graph.inputs:
        if name not in inputs:
            raise InputError.of(graph.path, name, found="no shape", expected="one for each input")
        known[name] = Known(tuple(inputs[name]))
    tally = _Tally(fixed=set(graph.constants))
    for node in graph.nodes:
        given = [known[name] if name else Known(()) for name in node.inputs]
        made = infer(graph, node, given)
        known.update(zip(node.outputs, made, strict=False))
        tally.add(node, given, made)
    return GraphCost(
        nodes=tuple(tally.costs),
        matrix_flop=sum(cost.matrix_flop for cost in tally.costs),
        other_flop=sum(cost.other_flop for cost in tally.costs),
        weight_elements=sum(tally.weights.values()),
        end_elements=sum(known[name].size for name in (*graph.inputs, *graph.outputs)),
        matrix_elements=tally.matrix_elements,
        unfused_elements=sum(cost.unfused_elements for cost in tally.costs),
    )


@dataclass
class _Tally:
    """Costs so far; and which tensors are fixed: what is made of them alone costs nothing when the graph runs."""

    fixed: set[str]
    costs: list[NodeCost] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)
    matrix_elements: int = 0

    def add(self, node: Node, given: Sequence[Known], made: Sequence[Known]) -> None:
        """Count a node that makes this of its inputs."""
        named = [(name, tensor) for name, tensor in zip(node.inputs, given, strict=True) if name]
        if all(name in self.fixed for name, _ in named):
            self.fixed.update(node.outputs)  # a cast of weights, done once when the graph is compiled
            return
        if all(tensor.values is not None for tensor in made):
            return  # bookkeeping of shapes
        self.weights.update({name: tensor.size for name, tensor in named if name in self.fixed})
        sizes = [tensor.size for name, tensor in named if name not in self.fixed] + [tensor.size for tensor in made]
        matrix = _MATRIX[node.op](node, given, made) if node.op in _MATRIX else 0
        other = 0 if matrix or node.op in _LAYOUT else max(sizes)
        self.matrix_elements += sum(sizes) if matrix else 0
        self.costs.append(NodeCost(node.name, node.op, matrix, other, 0 if node.op in _VIEWS else sum(sizes)))


# ------------------------------------------------------------------------------------------------ matrix operators


def _convolution(node: Node, given: Sequence[Known], made: Sequence[Known]) -> int:
    weight = given[1].shape  # [outputs, inputs / group, *kernel]
    return 2 * made[0].size * math.prod(weight[1:])


def _transposed(node: Node, given: Sequence[Known], made: Sequence[Known]) -> int:
    weight = given[1].shape  # [inputs, outputs / group, *kernel]
    return 2 * given[0].size * math.prod(weight[1:])


def _product(node: Node, given: Sequence[Known], made: Sequence[Known]) -> int:
    inner = given[0].shape[0 if node.attributes.get("transA") else -1]
    return 2 * made[0].size * inner


_MATRIX = {"Conv": _convolution, "ConvTranspose": _transposed, "MatMul": _product, "Gemm": _product}
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
_LAYOUT = _VIEWS | {"Cast", "Transpose", "Concat", "Split", "Slice", "Gather", "Expand", "Pad", "ConstantOfShape"}
