"""PyTorch modules to ONNX graphs: traced, tidied, checked, shape-inferred, and looked at for nodes that cost time.

The TorchScript-based exporter is used on purpose: for these networks it gives one node per operation at opset 18 and
needs no further package; the dynamo-based one goes through opset 18 by conversion and needs onnxscript.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import nn

from x2ct.bundle import OPSET, Network, Tensor
from x2ct.errors import X2CTError
from x2ct.export.parity import Shape
from x2ct.export.precision import first_line
from x2ct.export.tidy import tidy

BATCH_AXIS = "N"
PATCH_AXES = ("X", "Y", "Z")

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
        """How many nodes of each type, the most frequent first; without those that only tell a Reshape its sizes."""
        return dict(Counter(node.op_type for node in computing_nodes(self.model)).most_common())


def trace(
    name: str,
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Mapping[str, torch.Tensor],
    *,
    batch: bool = False,
    patch: Shape | None = None,
    fixed: Collection[str] = (),
) -> Graph:
    """Return a module as an ONNX graph.

    Args:
        name: the graph's name.
        module: in evaluation mode; called with the inputs in their order.
        inputs: example inputs by name; with `patch`, its sizes must differ along the three axes.
        outputs: what the module gives for them, by name.
        batch: leave the first axis of all tensors free.
        patch: the example's patch size (X, Y, Z): the last three axes of 5-axis tensors are left free, named "X" or by
            their ratio to the patch, "X/2".
        fixed: tensors none of whose axes is free.

    Raises:
        X2CTError: the module can't be expressed, or the graph fails ONNX's checker or shape inference.
    """
    tensors = {**inputs, **outputs}
    axes = {key: {} if key in fixed else _free_axes(value, batch, patch) for key, value in tensors.items()}
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings(), _layout_free(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own deprecation, and constants folded on purpose
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                stream,  # type: ignore[arg-type]  # with dynamo=False a stream will do
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={key: free for key, free in axes.items() if free},
                opset_version=OPSET,
                dynamo=False,
            )
        model = onnx.load_from_string(stream.getvalue())
        tidy(model)
        declared = _declare(model, tensors, axes)
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except (
        torch.onnx.errors.OnnxExporterError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise X2CTError(f"{name}: ONNX export failed: {first_line(error)}") from error
    return Graph(name, model, Network(f"{name}.onnx", declared[: len(inputs)], declared[len(inputs) :]))


def check_nodes(graph: Graph) -> None:
    """Raise X2CTError where a denoiser has nodes that every step would pay for."""
    unwanted = Counter(node.op_type for node in computing_nodes(graph.model) if node.op_type in UNWANTED)
    if unwanted:
        listed = ", ".join(f"{count} {kind}" for kind, count in unwanted.items())
        raise X2CTError(f"{graph.name}: the graph has {listed}, which it would pay for at every step")


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


def stamp(graph: Graph, properties: Mapping[str, str]) -> None:
    """Say in the file itself what it is, for whoever finds it alone."""
    graph.model.producer_name, graph.model.producer_version = "x2ct", properties.get("x2ct.version", "")
    graph.model.graph.name = graph.name
    onnx.helper.set_model_props(graph.model, {**properties, "x2ct.network": graph.name})


def _free_axes(value: torch.Tensor, batch: bool, patch: Shape | None) -> dict[int, str]:
    free = {0: BATCH_AXIS} if batch else {}
    if patch is not None and value.ndim == 5:
        for axis, (letter, size) in enumerate(zip(PATCH_AXES, patch, strict=True), start=2):
            factor = size // value.shape[axis]
            free[axis] = letter if factor == 1 else f"{letter}/{factor}"
    return free


def _declare(
    model: onnx.ModelProto, tensors: Mapping[str, torch.Tensor], axes: Mapping[str, Mapping[int, str]]
) -> tuple[Tensor, ...]:
    """Write the intended shapes into the graph's inputs and outputs, where the exporter makes names up; return them."""
    declared = []
    infos = {info.name: info for info in [*model.graph.input, *model.graph.output]}
    for key, value in tensors.items():
        shape = tuple(axes[key].get(axis, extent) for axis, extent in enumerate(value.shape))
        infos[key].CopyFrom(onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape))
        declared.append(Tensor(key, "float32", shape))
    return tuple(declared)


@contextmanager
def _layout_free() -> Iterator[None]:
    """ONNX knows no memory layout, so `x.contiguous(memory_format=...)`, which the exporter refuses, is x."""

    def unchanged(graph: Any, x: Any, memory_format: Any) -> Any:
        return x

    torch.onnx.register_custom_op_symbolic("aten::contiguous", unchanged, OPSET)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::contiguous", OPSET)  # type: ignore[attr-defined]
