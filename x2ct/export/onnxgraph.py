"""Reading and editing ONNX graphs: the links between nodes, stored weights, and further outputs."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[np.generic]

FLOAT = onnx.TensorProto.FLOAT


class LinkedGraph:
    """A model's graph with the links that edits follow; valid until the first change of a node.

    `types` has the inferred type of each tensor but the initialisers, `weights` the initialisers, `producer` and
    `consumers` the nodes that write and read a tensor, `results` the names of the graph's outputs.
    """

    def __init__(self, graph: onnx.GraphProto, types: dict[str, onnx.TypeProto.Tensor]) -> None:
        self.proto, self.types = graph, types
        self.nodes = list(graph.node)
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.consumers[name].append(node)
        self.results = {info.name for info in graph.output}

    def array(self, name: str) -> Array | None:
        """Return an initialiser's values, None for other tensors."""
        tensor = self.weights.get(name)
        return None if tensor is None else np.asarray(onnx.numpy_helper.to_array(tensor))

    def put(self, name: str, values: Array) -> None:
        """Set an initialiser, which is added if there is none of that name."""
        tensor = self.weights.get(name)
        target = self.proto.initializer.add() if tensor is None else tensor
        target.CopyFrom(onnx.numpy_helper.from_array(values, name))

    def is_own(self, name: str) -> bool:
        """Return whether a tensor is an initialiser that one node alone reads."""
        return name in self.weights and len(self.consumers[name]) == 1

    def bypass(self, node: onnx.NodeProto, source: str) -> None:
        """Let the consumers of a node's only output read `source` instead, and remove the node."""
        for consumer in self.consumers[node.output[0]]:
            for place, name in enumerate(consumer.input):
                if name == node.output[0]:
                    consumer.input[place] = source
        self.proto.node.remove(node)


def inferred_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Return the types of a model's tensors by name, but for its initialisers'."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    return {info.name: info.type.tensor_type for info in [*graph.value_info, *graph.input, *graph.output]}


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initialisers that nothing reads, in place."""
    results = {info.name for info in graph.output}
    while True:
        read = results | {name for node in graph.node for name in node.input}
        unused = [node for node in graph.node if not read.intersection(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose weights are float32: what `precision.to_f16` did, undone but for the rounding."""
    plain = copy.deepcopy(model)
    weights = {tensor.name: tensor for tensor in plain.graph.initializer}
    for node in list(plain.graph.node):
        stored = weights.get(node.input[0]) if node.op_type == "Cast" else None
        if stored is not None and node.attribute[0].i == FLOAT:
            values = onnx.numpy_helper.to_array(stored).astype(np.float32)
            plain.graph.initializer.add().CopyFrom(onnx.numpy_helper.from_array(values, node.output[0]))
            plain.graph.node.remove(node)
    drop_unused(plain.graph)
    del plain.graph.value_info[:]
    return plain


def showing(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy with further float32 tensors among its outputs."""
    wide = copy.deepcopy(model)
    shown = {info.name for info in [*wide.graph.input, *wide.graph.output]}
    further = [onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in names if name not in shown]
    wide.graph.output.extend(further)
    return wide
