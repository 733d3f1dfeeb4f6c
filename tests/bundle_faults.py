"""What may be wrong with a bundle: fields, and graphs that reach out of their file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "model.json").read_text())
    change(content)
    (folder / "model.json").write_text(json.dumps(content))


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set (or, with ..., delete) the field at a dotted path."""

    def change(content: dict[str, Any]) -> None:
        *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
        for key in parents:
            content = content[key]
        if value is ...:
            del content[last]
        else:
            content[last] = value

    return change


def replace_graph(folder: Path, model: onnx.ModelProto, file: str = "denoiser.onnx") -> None:
    """Put another graph in place, with the right size and checksum."""
    replace_file(folder, model.SerializeToString(), file)


def replace_file(folder: Path, data: bytes, file: str = "denoiser.onnx") -> None:
    """Put other bytes in place of a file, with the right size and checksum."""
    (folder / file).write_bytes(data)
    edit(folder, put(f"files/{file}", {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}))


FIELD_FAULTS: list[tuple[str, object, str]] = [
    ("schema", 2, "schema: found 2, expected 1"),
    ("schema", "1", "schema"),
    ("schema", True, "schema"),
    ("schema", ..., "schema: found nothing"),
    ("name", "../evil", "name"),
    ("name", "", "name"),
    ("created", "a\nb", "created"),
    ("grid", [], "grid"),
    ("grid/shape", [32, 32], "grid.shape"),
    ("grid/shape", [32, 32, 32.0], "grid.shape"),
    ("grid/shape", [32, 32, 36], "grid.shape"),
    ("grid/shape", [4096, 4096, 4096], "grid.shape"),
    ("grid/shape", [10**400, 8, 8], "no float can hold"),
    ("grid/shape", [2**63, 8, 8], "grid.shape"),
    ("grid/spacing_mm", [10.0, 10.0, 0.0], "grid.spacing_mm"),
    ("grid/spacing_mm", [10.0, 10.0, True], "grid.spacing_mm"),
    ("grid/spacing_mm", [10.0, 10.0, "10"], "grid.spacing_mm"),
    ("intensity/hu", [1500, -1000], "intensity"),
    ("intensity/x", [-1, 0, 1], "intensity"),
    ("xray/shape", [64, 63], "geometry.views[0].shape"),
    ("xray/reference_p99", 6.0, "xray.reference_p99"),
    ("xray/reference_p99", [6.0, -1.0], "xray.reference_p99"),
    ("xray/reference_p99", [6.0], "xray.reference_p99"),
    ("geometry/views", [], "geometry.views"),
    ("geometry/origin_world_mm", [0, 0], "geometry.origin_world_mm"),
    ("geometry/views/0/matrix/0/0", None, "geometry.views[0]"),
    ("diffusion/sigma_max", 0.01, "diffusion.sigma_max"),
    ("diffusion/steps", 0, "diffusion.steps"),
    ("diffusion/solver", "rm -rf", "diffusion.solver"),
    ("diffusion/slover", "euler", "diffusion.slover"),
    ("networks/denoiser/int8", [], "networks.denoiser.int8"),
    ("networks/denoiser/int8", {}, "networks.denoiser.int8.keys"),
    ("networks/denoiser/int8", {"a b": [0.0, 1.0]}, "networks.denoiser.int8.a b"),
    ("networks/denoiser/int8", {"/Conv": [0.0]}, "networks.denoiser.int8./Conv"),
    ("networks/denoiser/int8", {"/Conv": [0.5, 1.0]}, "networks.denoiser.int8./Conv"),
    ("networks/denoiser/int8", {"/Conv": [-1.0, -0.5]}, "networks.denoiser.int8./Conv"),
    ("networks/denoiser/int8", {"/Conv": [0.0, 0.0]}, "networks.denoiser.int8./Conv"),
    ("networks/denoiser/int8", {"/Conv": [0.0, "1"]}, "networks.denoiser.int8./Conv"),
    ("networks/lift/int8", {"/Conv": [0.0, 1.0]}, "networks.lift.int8"),
    ("diffusion/schedules", [[20.0, 0.03]], "diffusion.schedules"),
    ("diffusion/schedules", {"02": [20.0, 0.03]}, "diffusion.schedules"),
    ("diffusion/schedules", {"0": []}, "diffusion.schedules"),
    ("diffusion/schedules", {"3": [20.0, 0.03]}, "diffusion.schedules.3"),
    ("diffusion/schedules", {"2": [19.0, 0.03]}, "diffusion.schedules.2"),
    ("diffusion/schedules", {"2": [20.0, 0.04]}, "diffusion.schedules.2"),
    ("diffusion/schedules", {"4": [20.0, 1.0, 1.0, 0.03]}, "diffusion.schedules.4"),
    ("diffusion/schedules", {"3": [20.0, "1", 0.03]}, "diffusion.schedules.3"),
    ("diffusion/mirror", 1, "diffusion.mirror"),
    ("diffusion/deviation_scale", 1.2, "diffusion.deviation_scale"),
    ("diffusion/deviation_scale", {"six": 1.2}, "diffusion.deviation_scale.six"),
    ("diffusion/deviation_scale", {"6": 0.0}, "diffusion.deviation_scale.6"),
    ("diffusion/deviation_scale", {"6": "1.2"}, "diffusion.deviation_scale.6"),
    ("patch/sizes", [[32, 32, 64]], "patch.sizes"),
    ("patch/sizes", [[32, 32]], "patch.sizes"),
    ("patch/probabilities", [0.5], "patch.probabilities"),
    ("patch/probabilities", [0.5, 0.5], "patch.probabilities"),
    ("networks/lift", ..., "networks.lift"),
    ("networks/upsampler", {}, "networks.upsampler"),
    ("networks/lift/file", "/etc/passwd", "networks.lift.file"),
    ("networks/lift/file", "../lift.onnx", "networks.lift.file"),
    ("networks/lift/file", "..", "networks.lift.file"),
    ("networks/lift/file", "other.onnx", "networks.lift.file"),
    ("networks/lift/inputs/0/name", "F", "networks.lift.inputs"),
    ("networks/lift/inputs/0/dtype", "float64", "networks.lift.inputs[0].dtype"),
    ("networks/lift/inputs/0/shape", [1, -2], "networks.lift.inputs[0].shape"),
    ("networks/lift/inputs/0/shape", [1, 2, 3, 32, 32], "networks.lift.inputs.features.shape"),
    ("networks/denoiser/inputs/2/shape", ["N", 2, "X/2", "Y/2", "Z/2"], "networks.denoiser.inputs.c0.shape"),
    ("networks/lift/inputs/2/shape", [1, 3, "X", "Y", 32], "lift.onnx: inputs"),
    ("networks/encoder/inputs/0/shape", [1, 1, 1, 64, 64], "networks.encoder.inputs.views.shape"),
    ("networks/denoiser/receptive_radius", ..., "networks.denoiser.receptive_radius"),
    ("parity", "fine", "parity"),
    ("provenance", None, "provenance"),
    ("xray_statistics", [], "xray_statistics"),
    ("xray_statistics", {"mean": 1.0}, "xray_statistics.mean"),
    ("xray_statistics", {"mean": [1.0, "2"]}, "xray_statistics.mean"),
    ("xray_statistics", {"mean": [0.123456789] * 100_000}, "xray_statistics: found"),
    ("geometry/views/0/tilt_deg", 5.0, "geometry.views[0].tilt_deg"),
    ("files/..", {"sha256": "0" * 64, "bytes": 1}, "files"),
    ("files/lift.onnx", ..., "networks.lift.file"),
    ("files/lift.onnx/sha256", "f" * 63, "files.lift.onnx.sha256"),
    ("files/lift.onnx/bytes", 10**18, "files.lift.onnx.bytes"),
    ("files/lift.onnx/bytes", 17, "lift.onnx: size"),
    ("extra", 1, "extra"),
]
"""Where in model.json, what stands there (... for nothing), and what a reader says of it."""


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")


def _external_in_attribute(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "inner")
    tensor.data_location = TensorProto.EXTERNAL
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))


def _external_in_subgraph(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "inner")
    tensor.external_data.add(key="location", value="weights.bin")
    branch = helper.make_graph([], "branch", [], [], [tensor])
    model.graph.node.append(helper.make_node("If", ["x"], ["unused"], then_branch=branch, else_branch=branch))


def _external_in_sparse(model: onnx.ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "inner"))
    sparse.values.data_location = TensorProto.EXTERNAL


def _nested(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [])
    for _ in range(20):
        node = helper.make_node("If", ["x"], ["unused"], then_branch=branch, else_branch=branch)
        branch = helper.make_graph([node], "branch", [], [])
        branch.node[0].attribute.pop()
    model.graph.node.append(helper.make_node("If", ["x"], ["unused"], then_branch=branch))


def _custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Run", ["x"], ["unused"], domain="com.example"))


def _function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function("local", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], model.opset_import)
    )


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 22


GRAPH_FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "external": (_external, "external data"),
    "external in an attribute": (_external_in_attribute, "external data"),
    "external in a subgraph": (_external_in_subgraph, "external data"),
    "external in a sparse tensor": (_external_in_sparse, "external data"),
    "nested": (_nested, "graphs nested too deep"),
    "custom operator": (_custom_operator, "com.example"),
    "unprintable operator": (lambda model: model.graph.node.add(domain="a\nb\x1b[31m"), "domain 'a b?[31m'"),
    "training": (lambda model: model.training_info.add(), "training information"),
    "no graph": (lambda model: model.ClearField("graph"), "no graph"),
    "function": (_function, "functions"),
    "opset": (_opset, "opset: found 22, expected 18"),
}
"""By its name what is done to a graph, and what a reader says of it."""
