"""Exact rewrites that leave fewer, larger nodes: what a traced graph has and no runtime needs.

Every rewrite is an identity of real numbers; that the rounding stays within the tolerance is measured by `parity.py` on
the rewritten graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx

_LINEAR = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}
"""Nodes that a scale can move into, and the axis of their weight that counts outputs."""

Array = npt.NDArray[np.generic]


def tidy(model: onnx.ModelProto) -> None:
    """Rewrite a freshly traced model in place; names and shapes of its inputs and outputs stay."""
    _constants_to_initializers(model.graph)
    # Inferred once: no rewrite changes the type or the number of axes of a tensor that stays.
    typed = onnx.shape_inference.infer_shapes(model).graph
    types = {info.name: info.type.tensor_type for info in [*typed.value_info, *typed.input]}
    rewrites: tuple[Callable[[_Graph], bool], ...] = (
        _drop_casts,
        _merge_unsqueezes,
        _scale_into_next,
        _scale_into_previous,
        _ones_to_bias,
    )
    while any(rewrite(_Graph(model.graph, types)) for rewrite in rewrites):
        _drop_unused(model.graph)


class _Graph:
    """A model's graph with the links that rewrites follow; valid until the first change."""

    def __init__(self, graph: onnx.GraphProto, types: Mapping[str, onnx.TypeProto.Tensor]) -> None:
        self.proto = graph
        self.nodes = list(graph.node)
        self.types = types
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.consumers[name].append(node)
        self.results = {info.name for info in graph.output}

    def array(self, name: str) -> Array | None:
        """An initialiser's values, None for other tensors."""
        tensor = self.weights.get(name)
        return None if tensor is None else np.asarray(onnx.numpy_helper.to_array(tensor))

    def put(self, name: str, values: Array) -> None:
        """Set an initialiser, which is added if there is none of that name."""
        tensor = self.weights.get(name)
        (self.proto.initializer.add() if tensor is None else tensor).CopyFrom(
            onnx.numpy_helper.from_array(values, name)
        )

    def bypass(self, node: onnx.NodeProto, source: str) -> None:
        """Let the consumers of a node's only output read `source` instead."""
        for consumer in self.consumers[node.output[0]]:
            for place, name in enumerate(consumer.input):
                if name == node.output[0]:
                    consumer.input[place] = source
        self.proto.node.remove(node)

    def scaled(self, node: onnx.NodeProto) -> tuple[str, float] | None:
        """(input, factor) where a node multiplies by one number."""
        if node.op_type != "Mul":
            return None
        for source, factor in (node.input, reversed(node.input)):
            values = self.array(factor)
            if values is None or values.size != 1 or values.dtype != np.float32 or source in self.weights:
                continue
            if source in self.types and len(self.types[source].shape.dim) >= values.ndim:
                return source, float(values.reshape(()))
        return None

    def own_weight(self, node: onnx.NodeProto) -> Array | None:
        """The weight of a linear node, if no other node shares it."""
        if node.op_type not in _LINEAR or len(self.consumers[node.input[1]]) != 1:
            return None
        return self.array(node.input[1])


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Constant nodes become initialisers, equal ones the same."""
    names: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = node.attribute[0].t
        tensor.name = ""
        key = tensor.SerializeToString()
        if key not in names:
            names[key] = node.output[0]
            tensor.name = node.output[0]
            graph.initializer.add().CopyFrom(tensor)
        renamed[node.output[0]] = names[key]
        graph.node.remove(node)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)


def _drop_casts(graph: _Graph) -> bool:
    """A Cast to the type that its input has, and Identity."""
    for node in graph.nodes:
        declared = graph.types.get(node.input[0]) if node.op_type == "Cast" else None
        same = declared is not None and declared.elem_type == node.attribute[0].i
        if (same or node.op_type == "Identity") and node.output[0] not in graph.results:
            graph.bypass(node, node.input[0])
            return True
    return False


def _merge_unsqueezes(graph: _Graph) -> bool:
    """Unsqueezes in a row by ascending axes become one."""
    for node in graph.nodes:
        before = graph.producer.get(node.input[0]) if node.op_type == "Unsqueeze" else None
        if before is None or before.op_type != "Unsqueeze" or len(graph.consumers[before.output[0]]) != 1:
            continue
        first, second = graph.array(before.input[1]), graph.array(node.input[1])
        if first is None or second is None or first.min() < 0 or second.min() <= first.max():
            continue
        name = f"{node.output[0]}.axes"
        graph.put(name, np.concatenate([first, second]))
        node.input[0], node.input[1] = before.input[0], name
        return True
    return False


def _scale_into_next(graph: _Graph) -> bool:
    """linear(factor x) = (factor linear)(x), where all that reads the product is linear."""
    for node in graph.nodes:
        scale = graph.scaled(node)
        readers = graph.consumers[node.output[0]]
        if scale is None or node.output[0] in graph.results or not readers:
            continue
        weights = [graph.own_weight(reader) for reader in readers]
        if all(
            weight is not None and list(reader.input).index(node.output[0]) == 0
            for reader, weight in zip(readers, weights, strict=True)
        ):
            source, factor = scale
            for reader, weight in zip(readers, weights, strict=True):
                assert weight is not None
                graph.put(reader.input[1], (weight.astype(np.float64) * factor).astype(np.float32))
            graph.bypass(node, source)
            return True
    return False


def _scale_into_previous(graph: _Graph) -> bool:
    """factor linear(x) = (factor linear)(x), where nothing else reads linear(x)."""
    for node in graph.nodes:
        scale = graph.scaled(node)
        if scale is None or node.output[0] in graph.results:
            continue
        source, factor = scale
        linear = graph.producer.get(source)
        weight = None if linear is None else graph.own_weight(linear)
        if linear is None or weight is None or len(graph.consumers[source]) != 1 or source in graph.results:
            continue
        biases = [name for name in linear.input[2:] if name]
        if any(len(graph.consumers[name]) != 1 or graph.array(name) is None for name in biases):
            continue
        for name in [linear.input[1], *biases]:
            values = graph.array(name)
            assert values is not None
            graph.put(name, (values.astype(np.float64) * factor).astype(np.float32))
        graph.bypass(node, source)
        return True
    return False


def _ones_to_bias(graph: _Graph) -> bool:
    """A convolution without padding over a channel of ones has a bias."""
    for node in graph.nodes:
        joined = graph.producer.get(node.input[0]) if node.op_type == "Conv" else None
        attributes = {attribute.name: attribute for attribute in node.attribute}
        weight = graph.own_weight(node)
        if (
            joined is None
            or joined.op_type != "Concat"
            or weight is None
            or len(graph.consumers[joined.output[0]]) != 1
        ):
            continue
        if any(attributes["pads"].ints) or attributes["group"].i != 1 or joined.attribute[0].i != 1:
            continue
        value = _uniform_value(graph, joined.input[-1])
        if value is None or len(joined.input) < 2:
            continue
        bias = (weight[:, -1:].astype(np.float64) * value).sum(tuple(range(1, weight.ndim))).astype(np.float32)
        if len(node.input) > 2:
            own_bias = graph.array(node.input[2])
            if own_bias is None or len(graph.consumers[node.input[2]]) != 1:
                continue
            graph.put(node.input[2], bias + own_bias)
        else:
            node.input.append(f"{node.input[1]}.bias")
            graph.put(node.input[2], bias)
        graph.put(node.input[1], weight[:, :-1])
        del joined.input[-1]
        if len(joined.input) == 1:
            node.input[0] = joined.input[0]
            graph.proto.node.remove(joined)
        return True
    return False


def _uniform_value(graph: _Graph, name: str) -> float | None:
    """The one value of a tensor of one channel that has only one."""
    values = graph.array(name)
    if values is not None:
        uniform = values.ndim > 1 and values.shape[1] == 1 and bool((values == values.flat[0]).all())
        return float(values.flat[0]) if uniform else None
    node = graph.producer.get(name)
    if node is None or node.op_type != "ConstantOfShape":
        return None
    return float(onnx.numpy_helper.to_array(node.attribute[0].t).reshape(())) if node.attribute else 0.0


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Nodes and initialisers that nothing reads any more."""
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
