"""A bundle's ONNX graph as a PyTorch module, node by node: what TorchScript and AOTInductor engines are made from.

The bundle is the only source: the training run need not be at hand. The operators are those of ONNX's opset 18 in the
sense that the graphs of `export/graphs.py` use them in; another one is refused by name. Shape arithmetic stays in
Python numbers, which both tracers follow, so that free axes stay free.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from x2ct.errors import X2CTError

FEWEST_CHANNELS = 16  # an input of fewer is laid out as it comes: the layout pays for what convolutions read

Array = npt.NDArray[np.float32]

Value = Any  # a float tensor, or, for shapes, a whole number or a list of them
Operator = Callable[..., Value]  # takes a node's inputs, None where one is left out, and its attributes by name


class OnnxModule(nn.Module):
    """Evaluates an ONNX graph with float32 inputs and outputs; `operators` stand in for those of `OPERATORS`.

    Float initialisers are buffers, whole numbers plain ones. Weights stored in float16 with a Cast behind them become
    float32 once, here; a graph whose inside is typed (`precision.typed`) computes in its type. Raises X2CTError for an
    operator, or a use of one, that is not known here.
    """

    def __init__(self, model: onnx.ModelProto, operators: Mapping[str, Operator] | None = None) -> None:
        super().__init__()
        graph, operations = model.graph, {**OPERATORS, **(operators or {})}
        self.inputs = [port.name for port in graph.input]
        self.outputs = [port.name for port in graph.output]
        sizes = {port.name: port.type.tensor_type.shape.dim for port in graph.input}
        self._channels_last = {
            name for name, dims in sizes.items() if len(dims) == 5 and dims[1].dim_value >= FEWEST_CHANNELS
        }
        self._numbers: dict[str, Value] = {}
        self._weights: dict[str, str] = {}
        self._steps: list[tuple[Operator, list[str], list[str], dict[str, Any]]] = []
        stored = {initializer.name: _tensor(initializer) for initializer in graph.initializer}
        for node in graph.node:
            attributes = {item.name: _attribute(item) for item in node.attribute}
            inputs = list(node.input)
            if node.op_type == "Constant":
                stored[node.output[0]] = attributes["value"]
                continue
            if node.op_type == "Cast" and inputs[0] in stored and stored[inputs[0]].is_floating_point():
                stored[node.output[0]] = _cast(stored[inputs[0]], **attributes)
                continue
            if node.op_type not in operations:
                raise X2CTError(f"{graph.name}: {node.name}: {node.op_type} is an operator that is not known here")
            if node.op_type == "ConstantOfShape":  # made where the inputs are, of a number
                inputs.insert(0, self.inputs[0])
                attributes = {name: float(value) for name, value in attributes.items()}
            if node.op_type == "Resize" and inputs[2] in stored:  # scales are numbers, not values
                self._numbers[inputs[2]] = stored[inputs[2]].tolist()
            self._steps.append((operations[node.op_type], inputs, list(node.output), attributes))
        read = {name for _, inputs, _, _ in self._steps for name in inputs}.union(self.outputs)
        for name, value in stored.items():
            if value.dtype == torch.int64:
                self._numbers[name] = value.tolist()
            elif name in read and name not in self._numbers:
                self._weights[name] = f"weight_{len(self._weights)}"
                # The layout that convolutions over volumes are fastest in, and what their outputs follow.
                layout = torch.channels_last_3d if value.ndim == 5 else torch.contiguous_format
                self.register_buffer(self._weights[name], value.contiguous(memory_format=layout))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the graph's outputs in order, for its inputs in order."""
        values: dict[str, Value] = {"": None, **self._numbers}
        values.update({name: getattr(self, held) for name, held in self._weights.items()})
        for name, value in zip(self.inputs, tensors, strict=True):
            wide = name in self._channels_last
            values[name] = value.to(memory_format=torch.channels_last_3d) if wide else value
        for compute, inputs, outputs, attributes in self._steps:
            results = compute(*(values[name] for name in inputs), **attributes)
            values.update(zip(outputs, results if len(outputs) > 1 else (results,), strict=True))
        return tuple(values[name].contiguous() for name in self.outputs)

    def evaluate(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the graph's outputs by name, for its inputs by name."""
        with torch.no_grad():
            outputs = self(*(torch.from_numpy(inputs[name]) for name in self.inputs))
        return {name: value.numpy() for name, value in zip(self.outputs, outputs, strict=True)}


def _attribute(item: onnx.AttributeProto) -> Any:
    """Return an attribute as Python or PyTorch has it."""
    value = onnx.helper.get_attribute_value(item)
    if isinstance(value, onnx.TensorProto):
        return _tensor(value)
    return value.decode() if isinstance(value, bytes) else value


def _tensor(stored: onnx.TensorProto) -> Tensor:
    array = onnx.numpy_helper.to_array(stored).copy()
    if stored.data_type == onnx.TensorProto.BFLOAT16:  # a type that NumPy and PyTorch know each by itself
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


def _refuse(what: str) -> X2CTError:
    return X2CTError(f"{what}: found a use of the operator that is not known here")


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, **how: Any) -> Tensor:
    axes = x.ndim - 2
    pads = how.get("pads", [0] * 2 * axes)
    if pads[:axes] != pads[axes:]:
        x = functional.pad(x, [pads[side + axis] for axis in reversed(range(axes)) for side in (0, axes)])
        pads = [0] * axes
    strides, dilations = (how.get(name, [1] * axes) for name in ("strides", "dilations"))
    if axes == 3 and max(weight.shape[2:]) > 1:  # in the layout of the weights; what is in it already is not copied
        x = x.contiguous(memory_format=torch.channels_last_3d)
    conv = functional.conv3d if axes == 3 else functional.conv2d
    return conv(x, weight, bias, strides, pads[:axes], dilations, how.get("group", 1))


def _conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None = None, **how: Any) -> Tensor:
    if any(how.get("pads", [])) or how.get("output_padding"):
        raise _refuse("ConvTranspose")
    conv = functional.conv_transpose3d if x.ndim == 5 else functional.conv_transpose2d
    return conv(x, weight, bias, how.get("strides", 1), groups=how.get("group", 1))


def _average_pool(x: Tensor, **how: Any) -> Tensor:
    axes = x.ndim - 2
    pads = how.get("pads", [0] * 2 * axes)
    if pads[:axes] != pads[axes:] or how.get("ceil_mode", 0):
        raise _refuse("AveragePool")
    pool, counted = functional.avg_pool3d if axes == 3 else functional.avg_pool2d, how.get("count_include_pad", 0)
    return pool(x, how["kernel_shape"], how["strides"], pads[:axes], count_include_pad=bool(counted))


def _resize(x: Tensor, _: object, scales: list[float] | None, sizes: object = None, **how: Any) -> Tensor:
    plain = how.get("coordinate_transformation_mode") == "asymmetric" and how.get("nearest_mode") == "floor"
    if scales is None or how.get("mode", "nearest") != "nearest" or not plain:
        raise _refuse("Resize")
    return functional.interpolate(x, scale_factor=scales[2:], mode="nearest")


def _grid_sample(x: Tensor, grid: Tensor, **how: Any) -> Tensor:
    mode, padding = how.get("mode", "bilinear"), how.get("padding_mode", "zeros")
    return functional.grid_sample(x, grid, mode, padding, bool(how.get("align_corners", 0)))


def _reshape(x: Tensor, shape: Sequence[Any], allowzero: int = 0) -> Tensor:
    if allowzero:
        raise _refuse("Reshape")
    # A size that a tracer follows is not known to be 0.
    return x.reshape([x.shape[i] if isinstance(size, int) and size == 0 else size for i, size in enumerate(shape)])


def _is_number(x: Value) -> bool:
    """Return whether it is a whole number, also one that a tracer follows."""
    return not isinstance(x, Tensor) or (x.ndim == 0 and not x.is_floating_point())


def _slice(x: Value, starts: list[int], ends: list[int], axes: list[int] | None = None, steps: Any = None) -> Value:
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        part = slice(start, end, step)
        x = x[part] if isinstance(x, list) else x[(slice(None),) * (axis % x.ndim) + (part,)]
    return x


def _gather(x: Value, indices: Value, axis: int = 0) -> Value:
    if isinstance(x, list):
        return [x[i] for i in indices] if isinstance(indices, list) else x[indices]
    if isinstance(indices, list):
        return torch.stack([x.select(axis, i) for i in indices], axis)
    return x.select(axis, indices)


def _concat(*parts: Value, axis: int) -> Value:
    return [size for part in parts for size in part] if isinstance(parts[0], list) else torch.cat(parts, axis)


def _unsqueeze(x: Value, axes: list[int]) -> Value:
    if _is_number(x):
        return [x]
    final = x.ndim + len(axes)
    for axis in sorted(axis % final for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduce(x: Tensor, axes: list[int] | None = None, keepdims: int = 1, **_: object) -> Tensor:
        return function(x, list(range(x.ndim)) if axes is None else axes, bool(keepdims))

    return reduce


def _arithmetic(of_tensors: Operator, of_numbers: Operator | None = None) -> Operator:
    """Return an operator of two that also works on whole numbers and on lists of them."""
    whole = of_numbers or of_tensors

    def compute(a: Value, b: Value) -> Value:
        if isinstance(a, list) or isinstance(b, list):
            length = len(a if isinstance(a, list) else b)
            left, right = (x if isinstance(x, list) else [x] * length for x in (a, b))
            return [whole(one, other) for one, other in zip(left, right, strict=True)]
        return whole(a, b) if _is_number(a) and _is_number(b) else of_tensors(a, b)

    return compute


def _cast(x: Value, to: int, **_: object) -> Value:
    floats = {1: torch.float32, 10: torch.float16, 16: torch.bfloat16}
    if to in floats and isinstance(x, Tensor):
        return x.to(floats[to])
    if to == onnx.TensorProto.INT64 and not isinstance(x, Tensor):
        return x
    raise _refuse("Cast")


OPERATORS: dict[str, Operator] = {
    "Abs": torch.abs,
    "Add": _arithmetic(operator.add),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": lambda like, shape, value=0.0: like.new_full(list(shape), value),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Cos": torch.cos,
    "Div": _arithmetic(operator.truediv, operator.floordiv),
    "Exp": torch.exp,
    "Gather": _gather,
    "GridSample": _grid_sample,
    "Identity": lambda x: x,
    "InstanceNormalization": lambda x, scale, bias, epsilon=1e-5: functional.instance_norm(
        x, weight=scale, bias=bias, eps=epsilon
    ),
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mul": _arithmetic(operator.mul),
    "Reciprocal": torch.reciprocal,
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda x: list(x.shape),
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Slice": _slice,
    "Split": lambda x, sizes=None, axis=0, num_outputs=0: (
        x.chunk(num_outputs, axis) if sizes is None else torch.split(x, sizes, axis)
    ),
    "Sqrt": torch.sqrt,
    "Squeeze": lambda x, axes: x.squeeze(tuple(axes)),
    "Sub": _arithmetic(operator.sub),
    "Tanh": torch.tanh,
    "Transpose": lambda x, perm=None: x.permute(perm or list(range(x.ndim))[::-1]),
    "Unsqueeze": _unsqueeze,
}
