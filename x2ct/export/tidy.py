"""Exact rewrites that leave fewer, larger nodes: what a traced graph has and no runtime needs.

Every rewrite is an identity of real numbers; that the rounding stays within the tolerance is measured by `parity.py` on
the rewritten graph.
"""

from __future__ import annotations

import numpy as np
import onnx

from x2ct.export.onnxgraph import Array, LinkedGraph, drop_unused, inferred_types

_LINEAR = {"Conv", "ConvTranspose", "MatMul"}  # nodes that a scale can move into


def tidy(model: onnx.ModelProto) -> None:
    """Rewrite a freshly traced model in place; names and shapes of its inputs and outputs stay."""
    _constants_to_initializers(model.graph)
    types = inferred_types(model)  # once: no rewrite changes the type or the number of axes of a tensor that stays
    rewrites = (_drop_cast, _merge_unsqueezes, _scale_into_next, _scale_into_previous, _ones_to_bias)
    while True:
        graph = LinkedGraph(model.graph, types)
        if not any(rewrite(graph, node) for rewrite in rewrites for node in graph.nodes):
            return
        drop_unused(model.graph)


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initialisers, equal ones into one."""
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


def _drop_cast(graph: LinkedGraph, node: onnx.NodeProto) -> bool:
    """Remove an Identity, and a Cast to the type that its input has."""
    declared = graph.types.get(node.input[0]) if node.op_type == "Cast" else None
    same = declared is not None and declared.elem_type == node.attribute[0].i
    if not (same or node.op_type == "Identity") or node.output[0] in graph.results:
        return False
    graph.bypass(node, node.input[0])
    return True


def _merge_unsqueezes(graph: LinkedGraph, node: onnx.NodeProto) -> bool:
    """Merge Unsqueezes in a row by ascending axes."""
    before = graph.producer.get(node.input[0]) if node.op_type == "Unsqueeze" else None
    if before is None or before.op_type != "Unsqueeze" or len(graph.consumers[before.output[0]]) != 1:
        return False
    first, second = graph.array(before.input[1]), graph.array(node.input[1])
    if first is None or second is None or first.min() < 0 or second.min() <= first.max():
        return False
    name = f"{node.output[0]}.axes"
    graph.put(name, np.concatenate([first, second]))
    node.input[0], node.input[1] = before.input[0], name
    return True


def _factor(graph: LinkedGraph, node: onnx.NodeProto) -> tuple[str, float] | None:
    """Return (input, factor) where a node multiplies by one number."""
    if node.op_type != "Mul":
        return None
    for source, factor in (node.input, reversed(node.input)):
        values = graph.array(factor)
        if values is None or values.size != 1 or values.dtype != np.float32 or source in graph.weights:
            continue
        if source in graph.types and len(graph.types[source].shape.dim) >= values.ndim:
            return source, float(values.reshape(()))
    return None


def _own_weight(graph: LinkedGraph, node: onnx.NodeProto) -> Array | None:
    """Return the weight of a linear node, if no other node shares it."""
    return graph.array(node.input[1]) if node.op_type in _LINEAR and graph.is_own(node.input[1]) else None


def _scale(graph: LinkedGraph, name: str, factor: float) -> None:
    """Multiply an initialiser by a number."""
    values = graph.array(name)
    assert values is not None
    graph.put(name, (values.astype(np.float64) * factor).astype(np.float32))


def _scale_into_next(graph: LinkedGraph, node: onnx.NodeProto) -> bool:
    """Move a factor into the linear nodes that read it: linear(factor x) = (factor linear)(x)."""
    scale, readers = _factor(graph, node), graph.consumers[node.output[0]]
    if scale is None or node.output[0] in graph.results or not readers:
        return False
    if any(_own_weight(graph, one) is None or list(one.input).index(node.output[0]) != 0 for one in readers):
        return False
    for reader in readers:
        _scale(graph, reader.input[1], scale[1])
    graph.bypass(node, scale[0])
    return True


def _scale_into_previous(graph: LinkedGraph, node: onnx.NodeProto) -> bool:
    """Move a factor into the linear node before it, if nothing else reads linear(x)."""
    scale = _factor(graph, node)
    linear = graph.producer.get(scale[0]) if scale is not None else None
    if scale is None or linear is None or _own_weight(graph, linear) is None or node.output[0] in graph.results:
        return False
    source, factor = scale
    biases = [name for name in linear.input[2:] if name]
    if len(graph.consumers[source]) != 1 or source in graph.results or not all(map(graph.is_own, biases)):
        return False
    for name in [linear.input[1], *biases]:
        _scale(graph, name, factor)
    graph.bypass(node, source)
    return True


def _ones_to_bias(graph: LinkedGraph, node: onnx.NodeProto) -> bool:
    """Turn a channel of ones before a convolution without padding into a bias."""
    joined = graph.producer.get(node.input[0]) if node.op_type == "Conv" else None
    weight = _own_weight(graph, node)
    if joined is None or joined.op_type != "Concat" or weight is None or len(graph.consumers[joined.output[0]]) != 1:
        return False
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if any(attributes["pads"].ints) or attributes["group"].i != 1 or joined.attribute[0].i != 1:
        return False
    value = _uniform_value(graph, joined.input[-1])
    if value is None or len(joined.input) < 2 or not all(map(graph.is_own, node.input[2:])):
        return False
    bias = (weight[:, -1:].astype(np.float64) * value).sum(tuple(range(1, weight.ndim))).astype(np.float32)
    if len(node.input) == 2:
        node.input.append(f"{node.input[1]}.bias")
    own_bias = graph.array(node.input[2])
    graph.put(node.input[2], bias if own_bias is None else bias + own_bias)
    graph.put(node.input[1], weight[:, :-1])
    del joined.input[-1]
    if len(joined.input) == 1:
        node.input[0] = joined.input[0]
        graph.proto.node.remove(joined)
    return True


def _uniform_value(graph: LinkedGraph, name: str) -> float | None:
    """Return the value of a tensor of one channel whose values are all equal."""
    values = graph.array(name)
    if values is not None:
        uniform = values.ndim > 1 and values.shape[1] == 1 and bool((values == values.flat[0]).all())
        return float(values.flat[0]) if uniform else None
    node = graph.producer.get(name)
    if node is None or node.op_type != "ConstantOfShape":
        return None
    return float(onnx.numpy_helper.to_array(node.attribute[0].t).reshape(())) if node.attribute else 0.0
