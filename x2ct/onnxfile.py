"""What an ONNX file says about itself, read without onnx: opset, inputs, outputs, and whether it stands alone.

A bundle is opened where only NumPy and a runtime are installed, and a runtime follows what an ONNX file refers to:
external data by path, operators of other domains, functions. So the file is looked through before any runtime sees it,
by walking protobuf's wire format (`x2ct.protowire`) by the field numbers of onnx.proto (IR version 8). Weights are
skipped by their lengths, so the cost does not grow with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from x2ct.errors import InputError
from x2ct.protowire import Malformed, Message, Value, fields, integer, text

_DTYPES = {
    1: "float32",
    7: "int64",
    10: "float16",
    16: "bfloat16",
}  # TensorProto.DataType, those that a network's contract may use
_MAX_DEPTH = 8  # of graphs inside nodes; ours have none
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL


@dataclass(frozen=True)
class Tensor:
    """A network's input or output.

    Attributes:
        name: its name in the graph.
        dtype: "float32", "float16", ...
        shape: an extent or the name of a free one ("N", "X", "X/2") per axis.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(str(extent) for extent in self.shape)}]"


@dataclass(frozen=True)
class GraphFacts:
    """The opset of ai.onnx, and the graph's inputs and outputs in their order."""

    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def _location(tensor: Value) -> str:
    """Where a tensor's external data is, "" where it has none."""
    for field, entry in fields(tensor):
        if field == 13:
            pair = {inner: text(content) for inner, content in fields(entry)}
            if pair.get(1) == "location":
                return pair.get(2, "")
    return ""


def _check_tensor(tensor: Value) -> None:
    for field, value in fields(tensor):
        if field == 13 or (field == 14 and value == _EXTERNAL):
            raise Malformed("external data")


def _check_sparse(tensor: Value) -> None:
    for field, value in fields(tensor):
        if field in (1, 2):
            _check_tensor(value)


def _check_node(node: Value, depth: int) -> None:
    for field, value in fields(node):
        if field == 7 and text(value) not in ("", "ai.onnx"):
            raise Malformed(f"an operator of domain '{text(value)}'")
        if field != 5:
            continue
        for inner, content in fields(value):
            if inner in (5, 10):
                _check_tensor(content)
            elif inner in (6, 11):
                _check_graph(content, depth + 1)
            elif inner in (22, 23):
                _check_sparse(content)


def _check_graph(graph: Value, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise Malformed("graphs nested too deep")
    for field, value in fields(graph):
        if field == 1:
            _check_node(value, depth)
        elif field == 5:
            _check_tensor(value)
        elif field == 15:
            _check_sparse(value)


def _tensor_type(value: Value) -> tuple[str, tuple[int | str, ...]]:
    dtype, shape = "", list[int | str]()
    for field, content in fields(value):
        if field == 1:
            code = integer(content)
            dtype = _DTYPES.get(code, f"type {code}")
        elif field == 2:
            for inner, dim in fields(content):
                if inner == 1:
                    extents = [integer(v) if k == 1 else text(v) for k, v in fields(dim) if k in (1, 2)]
                    shape.append(extents[-1] if extents else "?")
    return dtype, tuple(shape)


def _value_info(value: Value) -> Tensor:
    name, dtype, shape = "", "", tuple[int | str, ...]()
    for field, content in fields(value):
        if field == 1:
            name = text(content)
        elif field == 2:
            for kind, tensor in fields(content):
                if kind != 1:
                    raise Malformed("an input or output that is no tensor")
                dtype, shape = _tensor_type(tensor)
    return Tensor(name, dtype, shape)


def _opset(value: Value) -> tuple[str, int]:
    domain, version = "", 0
    for field, content in fields(value):
        if field == 1:
            domain = text(content)
        elif field == 2:
            version = integer(content)
    return domain, version


def _facts(model: Message) -> GraphFacts:
    opset, inputs, outputs, seen = 0, list[Tensor](), list[Tensor](), False
    for field, value in fields(model):
        if field == 7:
            seen = True
            _check_graph(value)
            inputs += [_value_info(content) for inner, content in fields(value) if inner == 11]
            outputs += [_value_info(content) for inner, content in fields(value) if inner == 12]
        elif field == 8:
            domain, version = _opset(value)
            if domain in ("", "ai.onnx"):
                opset = version
        elif field in (20, 25):
            raise Malformed("training information" if field == 20 else "functions")
    if not seen:
        raise Malformed("no graph")
    return GraphFacts(opset, tuple(inputs), tuple(outputs))


def read_facts(path: Path, data: bytes) -> GraphFacts:
    """Look through an ONNX file.

    Args:
        path: the file, as messages name it.
        data: its bytes, whose number the caller has bounded and whose SHA-256 it has checked.

    Raises:
        InputError: not an ONNX model, or one that does not stand alone: external data, operators of another domain than
            ai.onnx, functions, training information.
    """
    try:
        return _facts(memoryview(data))
    except (Malformed, UnicodeDecodeError) as error:
        what = error if isinstance(error, Malformed) else "broken text"
        raise InputError.of(
            path, "ONNX model", found=what, expected="one self-contained graph of ai.onnx operators"
        ) from None


def external_files(path: Path, data: bytes) -> tuple[Path, ...]:
    """The files beside an ONNX file that its graph's weights lie in, each once, by name.

    Raises:
        InputError: not an ONNX model, or one that refers to a file outside its own folder.
    """
    names: set[str] = set()
    try:
        for field, graph in fields(memoryview(data)):
            if field == 7:
                names |= {_location(tensor) for inner, tensor in fields(graph) if inner == 5}
    except (Malformed, UnicodeDecodeError):
        raise InputError.of(path, "ONNX model", found="something else", expected="a graph of ai.onnx") from None
    names.discard("")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError.of(path, "external data", found=name, expected="a file beside it")
    return tuple(path.parent / name for name in sorted(names))
