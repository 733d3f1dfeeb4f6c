"""PyTorch modules to ONNX graphs: traced, tidied, checked, shape-inferred, and looked at for nodes that cost time.

The TorchScript-based exporter is used on purpose: for these networks it gives one node per operation at opset 18 and
needs no further package; the dynamo-based one goes through opset 18 by conversion and needs onnxscript.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import nn

from x2ct.bundle import OPSET, Network, Tensor
from x2ct.errors import X2CTError
from x2ct.export.parity import Case
from x2ct.export.precision import first_line
from x2ct.export.tidy import tidy

UNWANTED = {"Shape", "Gather", "Resize", "Loop", "If", "Scan", "NonZero", "Expand", "ConstantOfShape"}
"""What the denoiser, which runs at every step, must not contain: control flow, copies, and arithmetic on shapes, but
for what only tells a Reshape its sizes: it is a constant once the sizes are set."""


@dataclass(frozen=True)
class Graph:
    """A network ("encoder", "lift" or "denoiser") with float32 weights as ONNX, and its entry in model.json."""

    name: str
    model: onnx.ModelProto
    network: Network

    @property
    def nodes(self) -> dict[str, int]:
        """Return the number of nodes of each type, the most frequent first, without those that only size a Reshape."""
        return dict(Counter(node.op_type for node in computing_nodes(self.model)).most_common())


def trace(case: Case, module: nn.Module, *, batch: bool = False, fixed: Collection[str] = ()) -> Graph:
    """Return a module in evaluation mode, called with a case's inputs in their order, as an ONNX graph of its name.

    With a patch, whose size must differ along the three axes, the last three axes of 5-axis tensors are left free,
    named "X" or by their ratio to the patch, "X/2"; with `batch` the first axis of all tensors too. No axis of the
    tensors in `fixed` is free. Raises X2CTError: the module can't be expressed, or ONNX's checker or shape inference
    refuses the graph.
    """

    def shape_of(name: str, extents: tuple[int, ...]) -> tuple[int | str, ...]:
        shape: list[int | str] = list(extents)
        if batch:
            shape[0] = "N"
        if case.patch is not None and len(extents) == 5:
            factors = [size // extent for size, extent in zip(case.patch, extents[2:], strict=True)]
            shape[2:] = [axis if n == 1 else f"{axis}/{n}" for axis, n in zip("XYZ", factors, strict=True)]
        return extents if name in fixed else tuple(shape)

    inputs, outputs = (
        tuple(Tensor(name, "float32", shape_of(name, value.shape)) for name, value in part.items())
        for part in (case.inputs, case.outputs)
    )
    free = {
        one.name: {axis: name for axis, name in enumerate(one.shape) if isinstance(name, str)}
        for one in (*inputs, *outputs)
    }
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings(), _layout_free(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own deprecation, and constants folded on purpose
            torch.onnx.export(
                module,
                tuple(torch.from_numpy(value) for value in case.inputs.values()),
                stream,  # type: ignore[arg-type]  # with dynamo=False a stream will do
                input_names=list(case.inputs),
                output_names=list(case.outputs),
                dynamic_axes={name: axes for name, axes in free.items() if axes},
                opset_version=OPSET,
                dynamo=False,
            )
        model = onnx.load_from_string(stream.getvalue())
        tidy(model)
        ports = {port.name: port for port in [*model.graph.input, *model.graph.output]}
        for one in (*inputs, *outputs):  # the exporter makes names of axes up
            ports[one.name].CopyFrom(onnx.helper.make_tensor_value_info(one.name, onnx.TensorProto.FLOAT, one.shape))
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except (
        torch.onnx.errors.OnnxExporterError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise X2CTError(f"{case.graph}: ONNX export failed: {first_line(error)}") from error
    return Graph(case.graph, model, Network(f"{case.graph}.onnx", inputs, outputs))


def check_nodes(graph: Graph) -> None:
    """Raise X2CTError where a denoiser has nodes that every step would pay for."""
    unwanted = ", ".join(f"{count} {kind}" for kind, count in graph.nodes.items() if kind in UNWANTED)
    if unwanted:
        raise X2CTError(f"{graph.name}: the graph has {unwanted}, which it would pay for at every step")


def computing_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes but for those whose values are read for the sizes of a Reshape and for nothing else.

    A runtime folds the latter once the shapes are set.
    """
    read, sizes, computing = set[str](), set[str](), list[onnx.NodeProto]()
    for node in reversed(model.graph.node):  # ONNX keeps nodes in an order in which they can run
        if not sizes.isdisjoint(node.output) and read.isdisjoint(node.output):
            sizes.update(node.input)
        else:
            computing.append(node)
            of_sizes = node.op_type == "Reshape"
            read.update(name for place, name in enumerate(node.input) if not (of_sizes and place == 1))
            sizes.update(node.input[1:2] if of_sizes else ())
    return computing[::-1]


@contextmanager
def _layout_free() -> Iterator[None]:
    """Export `x.contiguous(memory_format=...)`, which the exporter refuses, as x: ONNX has no memory layouts."""

    def unchanged(graph: Any, x: Any, memory_format: Any) -> Any:
        return x

    torch.onnx.register_custom_op_symbolic("aten::contiguous", unchanged, OPSET)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::contiguous", OPSET)  # type: ignore[attr-defined]
