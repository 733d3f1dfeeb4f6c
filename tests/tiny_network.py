"""A small ONNX network with the denoiser's names and shapes, and inputs for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from x2ct import _core
from x2ct.runtimes.discovery import find_runtime

Array = npt.NDArray[np.float32]

RUNTIME = str(find_runtime("openvino").folder)
GRID = (16, 12, 20)
WHOLE = [1, 1, *GRID]
TABLE = _core.Table.make("dpmpp-2m", _core.schedule("log-snr", 5, 0.03, 20.0))


def save(
    path: Path, nodes: list[Any], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]], **weights: Any
) -> str:
    def infos(tensors: dict[str, list[Any]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in tensors.items()]

    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", infos(inputs), infos(outputs), initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return str(path)


def write_denoiser(path: Path) -> str:
    """denoised = (c0 * x + conv(relu(conv(x)))) / (1 + sigma)^2 on any grid: the contract's names and shapes."""
    rng = np.random.default_rng(0)
    free: list[Any] = ["N", 1, "X", "Y", "Z"]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["hidden"], pads=[1] * 6),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Conv", ["active", "w2"], ["change"], pads=[1] * 6),
        helper.make_node("Mul", ["x", "c0"], ["kept"]),
        helper.make_node("Add", ["kept", "change"], ["raw"]),
        helper.make_node("Add", ["sigma", "one"], ["above"]),
        helper.make_node("Mul", ["above", "above"], ["square"]),
        helper.make_node("Reshape", ["square", "column"], ["scale"]),
        helper.make_node("Div", ["raw", "scale"], ["denoised"]),
    ]
    return save(
        path,
        nodes,
        {"x": free, "sigma": ["N"], "c0": free},
        {"denoised": free},
        w1=rng.normal(0, 0.2, (8, 1, 3, 3, 3)).astype(np.float32),
        w2=rng.normal(0, 0.2, (1, 8, 3, 3, 3)).astype(np.float32),
        one=np.ones(1, np.float32),
        column=np.array([-1, 1, 1, 1, 1]),
    )


def arrays(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=WHOLE).astype(np.float32),
        "sigma": np.array([0.5], np.float32),
        "c0": rng.normal(size=WHOLE).astype(np.float32),
    }


def by_onnx(path: str, inputs: dict[str, Array]) -> Array:
    from onnx.reference import ReferenceEvaluator

    result: Array = ReferenceEvaluator(path).run(None, inputs)[0]
    return result
