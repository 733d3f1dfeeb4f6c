"""An ONNX graph's nodes and constants, read without onnx, for counting what an evaluation costs.

The file is a bundle's, which `x2ct.onnxfile` has looked through before; field numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.protowire import Malformed, Value, fields, integer, packed, text

Array = npt.NDArray[Any]

_DTYPES = {1: "<f4", 6: "<i4", 7: "<i8", 9: "|b1", 10: "<f2", 11: "<f8"}  # TensorProto.DataType
_SMALL = 4096
"""Constants of no more elements are read: shapes, axes and pads; weights are known by their shapes alone."""


@dataclass(frozen=True)
class Constant:
    """An initializer: its shape, and its values where there are few.

    Attributes:
        shape: its extents.
        values: the array, or None of a large one.
    """

    shape: tuple[int, ...]
    values: Array | None


@dataclass(frozen=True)
class Node:
    """One node. `name` is what a runtime calls it too; an attribute is a number, some numbers, a text or a constant."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def numbers(self, key: str, default: list[int]) -> list[int]:
        """An attribute that is a list of whole numbers."""
        return list(self.attributes.get(key, default))


@dataclass(frozen=True)
class Graph:
    """Nodes in the file's order, which ONNX wants to be one of execution."""

    path: Path
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_graph(path: Path) -> Graph:
    """Read a bundle's ONNX file.

    Raises:
        InputError: it can't be read.
    """
    try:
        model = memoryview(path.read_bytes())
        [graph] = [value for number, value in fields(model) if number == 7]
        return _graph(path, graph)
    except (OSError, ValueError) as error:
        raise InputError.of(path, "file", found=error, expected="an ONNX model") from error


def _graph(path: Path, graph: Value) -> Graph:
    nodes, inputs, outputs = list[Node](), list[str](), list[str]()
    constants: dict[str, Constant] = {}
    for number, value in fields(graph):
        if number == 1:
            nodes.append(_node(value))
        elif number == 5:
            name, constant = _constant(value)
            constants[name] = constant
        elif number in (11, 12):
            (inputs if number == 11 else outputs).append(_name(value))
    given = tuple(name for name in inputs if name not in constants)
    return Graph(path, tuple(nodes), constants, given, tuple(outputs))


def _name(value_info: Value) -> str:
    return next(text(value) for number, value in fields(value_info) if number == 1)


def _node(message: Value) -> Node:
    inputs, outputs, attributes = list[str](), list[str](), dict[str, Any]()
    name = op = ""
    for number, value in fields(message):
        if number == 1:
            inputs.append(text(value))
        elif number == 2:
            outputs.append(text(value))
        elif number == 3:
            name = text(value)
        elif number == 4:
            op = text(value)
        elif number == 5:
            key, content = _attribute(value)
            attributes[key] = content
    return Node(name or (outputs[0] if outputs else op), op, tuple(inputs), tuple(outputs), attributes)


def _attribute(message: Value) -> tuple[str, Any]:
    key, numbers = "", list[int]()
    content: Any = None
    for number, value in fields(message):
        if number == 1:
            key = text(value)
        elif number == 2:
            content = float(np.frombuffer(_bytes(value), "<f4")[0])
        elif number == 3:
            content = packed(value)[0]
        elif number == 4:
            content = text(value)
        elif number == 5:
            content = _constant(value)[1]
        elif number == 8:
            numbers += packed(value)
    return key, numbers if numbers else content


def _constant(message: Value) -> tuple[str, Constant]:
    shape, name, dtype, raw, plain = list[int](), "", 0, None, list[int]()
    floats = b""
    for number, value in fields(message):
        if number == 1:
            shape += packed(value)
        elif number == 2:
            dtype = integer(value)
        elif number == 4:
            floats += _bytes(value)
        elif number in (5, 7):
            plain += packed(value)
        elif number == 8:
            name = text(value)
        elif number == 9:
            raw = _bytes(value)
    count = int(np.prod(shape, dtype=np.int64))
    values: Array | None = None
    if count <= _SMALL and dtype in _DTYPES:
        if raw is not None:
            values = np.frombuffer(raw, _DTYPES[dtype]).reshape(shape)
        elif floats:
            values = np.frombuffer(floats, "<f4").reshape(shape)
        else:
            values = np.asarray(plain, _DTYPES[dtype]).reshape(shape)
    return name, Constant(tuple(shape), values)


def _bytes(value: Value) -> bytes:
    if isinstance(value, int):
        raise Malformed("a number where bytes belong")
    return bytes(value)
