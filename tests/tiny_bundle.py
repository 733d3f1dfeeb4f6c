"""A whole model bundle of a few kilobytes for tests: real ONNX graphs with real semantics, and nothing learned.

The encoder averages 2 x 2 pixels, the lift samples that picture where P projects each (pooled) voxel and averages the
valid views, and the denoiser is the exact posterior mean of a Gaussian around a mean volume that the lifted picture
decides: dark X-ray (short line integral) -> low x, bright -> high x. So a sample depends on every input that a real
network has, X-rays end up in the volume where the geometry says, and the exact solution of the ODE is known.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from x2ct.bundle import Bundle, Diffusion, Grid, Manifest, Network, Networks, Patch, Tensor, XRaySpec
from x2ct.bundle.intensity import Intensity
from x2ct.geometry import Geometry

GRID = (32, 32, 32)
SPACING_MM = (10.0, 10.0, 10.0)
DETECTOR = (64, 64)
DETECTOR_MM = (7.0, 7.0)
SIGMA_DATA = 0.1
POOL = 2


def mean_of(line_integral: np.ndarray) -> np.ndarray:
    """The x that the denoiser believes in where the lifted line integral has this value."""
    return np.tanh((line_integral - 3.0) / 3.0)


def _constant(name: str, values: object, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
) -> onnx.ModelProto:
    def ports(shapes: dict[str, list[int | str]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in shapes.items()]

    graph = helper.make_graph(nodes, name, ports(inputs), ports(outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def encoder() -> onnx.ModelProto:
    """views [1, V, 1, H, W], valid [1, V] -> features [1, V, 1, H/2, W/2]: each view, averaged over 2 x 2 pixels."""
    node = helper.make_node
    nodes = [
        node("Squeeze", ["views", "axis_0"], ["pictures"]),
        node("AveragePool", ["pictures"], ["pooled"], kernel_shape=[POOL, POOL], strides=[POOL, POOL]),
        node("Unsqueeze", ["pooled", "axis_0"], ["stacked"]),
        node("Unsqueeze", ["valid", "axes_234"], ["mask"]),
        node("Mul", ["stacked", "mask"], ["features"]),
    ]
    constants = [_constant("axis_0", [0], np.int64), _constant("axes_234", [2, 3, 4], np.int64)]
    return _model(
        "encoder",
        nodes,
        constants,
        {"views": [1, 2, 1, *DETECTOR], "valid": [1, 2]},
        {"features": [1, 2, 1, DETECTOR[0] // 2, DETECTOR[1] // 2]},
    )


def lift() -> onnx.ModelProto:
    """features, P [1, V, 3, 4], coords [1, 3, X, Y, Z], valid -> c0 [1, 1, X/2, Y/2, Z/2]: the valid views' mean."""
    node = helper.make_node
    rows, columns = DETECTOR
    nodes = [
        node("AveragePool", ["coords"], ["centres"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        node("Shape", ["centres"], ["shape5"]),
        node("Slice", ["shape5", "two", "five"], ["spatial"]),
        node("Concat", ["ones_11", "spatial"], ["volume_shape"], axis=0),
        node("Reshape", ["centres", "flat"], ["points"]),  # [1, 3, M]
        node("Mul", ["points", "hundred"], ["mm"]),
        node("Slice", ["mm", "zero", "one_i", "axis_1"], ["first"]),
        node("Mul", ["first", "zero_f"], ["zeros"]),
        node("Add", ["zeros", "one_f"], ["ones"]),
        node("Concat", ["mm", "ones"], ["xyz1"], axis=1),  # [1, 4, M]
        node("Unsqueeze", ["xyz1", "axis_1"], ["points_4"]),  # [1, 1, 4, M]
        node("MatMul", ["P", "points_4"], ["uvw"]),  # [1, V, 3, M]
        node("Split", ["uvw"], ["uw", "vw", "w"], axis=2, num_outputs=3),
        node("Div", ["uw", "w"], ["u"]),
        node("Div", ["vw", "w"], ["v"]),
        node("Mul", ["u", "u_scale"], ["u_scaled"]),
        node("Add", ["u_scaled", "u_shift"], ["gx"]),
        node("Mul", ["v", "v_scale"], ["v_scaled"]),
        node("Add", ["v_scaled", "v_shift"], ["gy"]),
        node("Concat", ["gx", "gy"], ["g_row"], axis=2),  # [1, V, 2, M]
        node("Transpose", ["g_row"], ["g_points"], perm=[1, 0, 3, 2]),  # [V, 1, M, 2]
        node("Squeeze", ["features", "axis_0"], ["pictures"]),  # [V, 1, h, w]
        node("GridSample", ["pictures", "g_points"], ["seen"], mode="bilinear", padding_mode="zeros", align_corners=0),
        node("Transpose", ["valid"], ["valid_column"]),  # [V, 1]
        node("Unsqueeze", ["valid_column", "axes_23"], ["mask"]),  # [V, 1, 1, 1]
        node("Mul", ["seen", "mask"], ["masked"]),
        node("ReduceSum", ["masked", "axis_0"], ["total"], keepdims=1),
        node("ReduceSum", ["mask", "axis_0"], ["count"], keepdims=1),
        node("Div", ["total", "count"], ["mean"]),  # [1, 1, 1, M]
        node("Reshape", ["mean", "volume_shape"], ["c0"]),
    ]
    constants = [
        _constant("two", [2], np.int64),
        _constant("five", [5], np.int64),
        _constant("zero", [0], np.int64),
        _constant("one_i", [1], np.int64),
        _constant("axis_0", [0], np.int64),
        _constant("axis_1", [1], np.int64),
        _constant("axes_23", [2, 3], np.int64),
        _constant("ones_11", [1, 1], np.int64),
        _constant("flat", [1, 3, -1], np.int64),
        _constant("hundred", 100.0),
        _constant("zero_f", 0.0),
        _constant("one_f", 1.0),
        _constant("u_scale", 2.0 / columns),
        _constant("u_shift", 1.0 / columns - 1.0),
        _constant("v_scale", 2.0 / rows),
        _constant("v_shift", 1.0 / rows - 1.0),
    ]
    return _model(
        "lift",
        nodes,
        constants,
        {
            "features": [1, 2, 1, DETECTOR[0] // 2, DETECTOR[1] // 2],
            "P": [1, 2, 3, 4],
            "coords": [1, 3, "X", "Y", "Z"],
            "valid": [1, 2],
        },
        {"c0": [1, 1, "X/2", "Y/2", "Z/2"]},
    )


def denoiser() -> onnx.ModelProto:
    """x [N, 1, X, Y, Z], sigma [N], c0 -> denoised: E[x0 | x] for x0 ~ Normal(mean_of(c0), SIGMA_DATA^2)."""
    node = helper.make_node
    nodes = [
        node("Sub", ["c0", "three"], ["centred"]),
        node("Div", ["centred", "three"], ["scaled"]),
        node("Tanh", ["scaled"], ["small"]),
        node("ConvTranspose", ["small", "ones_222"], ["mean"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        node("Mul", ["sigma", "sigma"], ["variance"]),
        node("Add", ["variance", "data_variance"], ["total_variance"]),
        node("Div", ["data_variance", "total_variance"], ["skip_n"]),
        node("Unsqueeze", ["skip_n", "axes_1234"], ["skip"]),
        node("Sub", ["x", "mean"], ["off"]),
        node("Mul", ["off", "skip"], ["kept"]),
        node("Add", ["mean", "kept"], ["denoised"]),
    ]
    constants = [
        _constant("three", 3.0),
        _constant("ones_222", np.ones((1, 1, 2, 2, 2))),
        _constant("data_variance", SIGMA_DATA**2),
        _constant("axes_1234", [1, 2, 3, 4], np.int64),
    ]
    return _model(
        "denoiser",
        nodes,
        constants,
        {"x": ["N", 1, "X", "Y", "Z"], "sigma": ["N"], "c0": [1, 1, "X/2", "Y/2", "Z/2"]},
        {"denoised": ["N", 1, "X", "Y", "Z"]},
    )


def _network(file: str, model: onnx.ModelProto) -> Network:
    def tensors(ports: list[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
        shapes = [[axis.dim_param or axis.dim_value for axis in port.type.tensor_type.shape.dim] for port in ports]
        return tuple(Tensor(port.name, "float32", tuple(shape)) for port, shape in zip(ports, shapes, strict=True))

    radius = None if file == "encoder.onnx" else 1
    return Network(file, tensors(list(model.graph.input)), tensors(list(model.graph.output)), radius)


def manifest(geometry: Geometry | None = None, shape: tuple[int, int, int] = GRID) -> tuple[Manifest, dict[str, bytes]]:
    """The tiny bundle's manifest and graphs."""
    models = {"encoder": encoder(), "lift": lift(), "denoiser": denoiser()}
    networks = {name: _network(f"{name}.onnx", model) for name, model in models.items()}
    content = Manifest(
        name="tiny",
        version="0.1.0",
        created="2026-01-01T00:00:00Z",
        grid=Grid(shape, SPACING_MM),
        intensity=Intensity(),
        xray=XRaySpec(DETECTOR, DETECTOR_MM, (6.0, 6.0)),
        geometry=geometry or Geometry.parallel(("ap", "lateral"), shape=DETECTOR, spacing_mm=DETECTOR_MM),
        diffusion=Diffusion(SIGMA_DATA, 0.03, 20.0, "log-snr", "dpmpp-2m", 6),
        patch=Patch((shape,), (1.0,), 8),
        networks=Networks(**networks),
        parity={},
        provenance={"data": "none"},
    )
    return content, {f"{name}.onnx": model.SerializeToString() for name, model in models.items()}


def write(target: str | Path, geometry: Geometry | None = None, shape: tuple[int, int, int] = GRID) -> Bundle:
    """Write the tiny bundle as a folder, by custom NAME.x2ct, and open it."""
    return Bundle.write(target, *manifest(geometry, shape))
