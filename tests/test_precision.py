"""Strongly typed graphs: where the casts are, what range is refused, and what rounding may cost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

from tests import tiny_bundle  # noqa: E402
from x2ct.bundle import OPSET, Bundle  # noqa: E402
from x2ct.errors import InputError, X2CTError  # noqa: E402
from x2ct.export import rounding  # noqa: E402
from x2ct.export.onnxgraph import folded  # noqa: E402
from x2ct.export.parity import open_onnxruntime  # noqa: E402
from x2ct.export.precision import BF16_OPSET, to_f16, typed  # noqa: E402

NARROW = {"bf16": TensorProto.BFLOAT16, "f16": TensorProto.FLOAT16}


@pytest.fixture(scope="module")
def chest() -> onnx.ModelProto:
    bundle = Bundle.load("chest")
    return onnx.load(bundle.file_of(bundle.networks.denoiser))


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    infos = [*graph.value_info, *graph.input, *graph.output]
    return {info.name: info.type.tensor_type.elem_type for info in infos} | {
        tensor.name: tensor.data_type for tensor in graph.initializer
    }


# ------------------------------------------------------------------------------------------------ the graphs


@pytest.mark.parametrize("precision", NARROW)
def test_all_that_convolves_is_narrow_and_nothing_is_cast_twice(chest: onnx.ModelProto, precision: str) -> None:
    made = typed(chest, precision)
    assert list(made.inside) == sorted(made.inside), "the record of its rounding depends on the order of a set"
    types, narrow = types_of(made.model), NARROW[precision]
    heavy = [node for node in made.model.graph.node if node.op_type == "Conv"]
    assert len(heavy) == 17  # stem, down, up, head, gate, and three in each of four blocks
    for node in heavy:
        assert {types[name] for name in (*node.input, *node.output)} == {narrow}
    weights = {tensor.name for tensor in made.model.graph.initializer}
    casts = [node for node in made.model.graph.node if node.op_type == "Cast"]
    made_by_casts = {name for node in casts for name in node.output}
    for node in casts:
        assert node.input[0] not in weights, "a weight is cast at each evaluation"
        assert node.input[0] not in made_by_casts, "a cast undoes a cast"
    # In: the scaled input, the condition, and a modulation for each of six products. Out: the output and the gate.
    assert Counter(node.attribute[0].i for node in casts) == {narrow: 8, TensorProto.FLOAT: 2}


@pytest.mark.parametrize("precision", ["f32", "tf32", *NARROW])
def test_inputs_outputs_and_preconditioning_stay_in_f32(chest: onnx.ModelProto, precision: str) -> None:
    model = typed(chest, precision).model
    types = types_of(model)
    for port in (*model.graph.input, *model.graph.output):
        assert types[port.name] == TensorProto.FLOAT
    for node in model.graph.node:
        if node.op_type in ("Log", "Exp", "Sqrt", "Reciprocal", "Cos", "MatMul"):
            assert types[node.output[0]] == TensorProto.FLOAT
    assert model.opset_import[0].version == (BF16_OPSET if precision == "bf16" else OPSET)
    assert {"x2ct.precision": precision}.items() <= {p.key: p.value for p in model.metadata_props}.items()


def test_stored_f16_weights_are_folded(chest: onnx.ModelProto) -> None:
    """The canonical graph with float16 weights and the folded one are one function; and folding adds no rounding."""
    plain = folded(chest)
    assert "Cast" not in {node.op_type for node in plain.graph.node}
    stored = {t.name.removesuffix(".f16"): t for t in chest.graph.initializer if t.data_type == TensorProto.FLOAT16}
    assert len(stored) > 10
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in plain.graph.initializer}
    for name, tensor in stored.items():
        np.testing.assert_array_equal(kept[name], numpy_helper.to_array(tensor).astype(np.float32))
    # Weights that float16 holds already are not rounded again.
    half = {t.name: numpy_helper.to_array(t) for t in typed(chest, "f16").model.graph.initializer}
    kernels = [name for name, tensor in stored.items() if len(tensor.dims) == 5]
    assert len(kernels) == 17
    for name in kernels:
        np.testing.assert_array_equal(half[f"{name}.f16"], numpy_helper.to_array(stored[name]))


def test_folding_is_the_inverse_of_storing() -> None:
    weight = np.linspace(-1, 1, 512, dtype=np.float32).reshape(8, 64, 1, 1, 1)
    weight = weight.astype(np.float16).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1, 1])
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 2, 2, 2]) for n, c in (("x", 64), ("y", 8))]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    back = folded(to_f16(model))
    assert [n.op_type for n in back.graph.node] == ["Conv"]
    np.testing.assert_array_equal(numpy_helper.to_array(back.graph.initializer[0]), weight)


def test_an_unknown_precision_is_refused(chest: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match="precision: found fp8, expected f32 or tf32 or bf16 or f16"):
        typed(chest, "fp8")


# ------------------------------------------------------------------------------------------------ the rounding


@pytest.mark.parametrize(("precision", "digits"), [("bf16", 16), ("f16", 13)])
def test_the_evaluator_rounds_what_a_convolution_gives(precision: str, digits: int) -> None:
    """Sums are of float32; the result is a number of the type, the nearest."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 6, 3, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3] * 3, pads=[1, 0, 1, 0, 1, 1])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 8, 7, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, "X", "Y", "Z"])
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(weight[:, 0, 0, 0, 0], "b")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], constants), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
    )
    made = typed(model, precision).model
    given = {"x": rng.normal(size=(1, 6, 8, 7, 6)).astype(np.float32)}
    dtype = helper.tensor_dtype_to_np_dtype(NARROW[precision])
    near = {"x": given["x"].astype(dtype).astype(np.float32)}
    plain = folded(model)
    for tensor in plain.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(dtype).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    wanted = open_onnxruntime()[1](plain.SerializeToString())(near)["y"]
    found = rounding.rounded(made)(given)["y"]
    assert not np.any(found.view(np.uint32) & ((1 << digits) - 1)), "more digits than the type has"
    half_step = 2.0 ** -(24 - digits)
    assert np.all(np.abs(found - wanted) <= half_step * np.abs(wanted) * 1.001 + 1e-6)


@pytest.mark.parametrize("precision", NARROW)
def test_the_tiny_bundle_passes_and_rounding_is_seen(tiny: Bundle, precision: str) -> None:
    done = rounding.typed_denoiser(tiny, precision)
    assert len({row.sigma for row in done.rows}) == rounding.SIGMAS
    runtimes = {row.runtime.split()[0] for row in done.rows}
    assert runtimes == {"each", "openvino"} | ({"onnxruntime"} if precision == "f16" else set())
    worst = max(row.error for row in done.rows)
    assert rounding.TOLERANCES[precision] / 100 < worst <= rounding.TOLERANCES[precision]
    assert done.volume is not None
    assert 0 < done.volume["mae_hu"] < rounding.VOLUME_TOLERANCE_HU[precision]
    assert done.to_json()["precision"] == precision


def test_bf16_rounds_more_than_f16(tiny: Bundle) -> None:
    errors = [max(row.error for row in rounding.typed_denoiser(tiny, precision).rows) for precision in NARROW]
    assert errors[0] > 4 * errors[1]


def scaled(bundle: Bundle, folder: Path, factor: float) -> Bundle:
    """The tiny bundle whose convolution makes `factor` times as much, which a later node takes back."""
    content, files = tiny_bundle.manifest()
    model = onnx.load_from_string(files["denoiser.onnx"])
    ones = next(one for one in model.graph.initializer if one.name == "ones_222")
    ones.CopyFrom(numpy_helper.from_array(factor * numpy_helper.to_array(ones), ones.name))
    turned = next(node for node in model.graph.node if node.op_type == "ConvTranspose")
    turned.output[0] = "large"
    place = list(model.graph.node).index(turned) + 1
    model.graph.node.insert(place, helper.make_node("Mul", ["large", "back"], ["mean"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1 / factor), "back"))
    return Bundle.write(folder / "loud.x2ct", content, {**files, "denoiser.onnx": model.SerializeToString()})


def test_what_would_overflow_f16_is_refused_and_bf16_holds_it(tiny: Bundle, tmp_path: Path) -> None:
    loud = scaled(tiny, tmp_path, 40_000.0)
    with pytest.raises(X2CTError, match=r"f16: large reaches .*, at most 16376 is allowed, 0\.25 of what .*; use bf16"):
        rounding.typed_denoiser(loud, "f16")
    assert rounding.typed_denoiser(loud, "bf16").peaks["large"] > 16376


def test_a_weight_that_f16_cannot_hold_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(X2CTError, match=r"ones_222\.f16: a weight of 70000 does not fit float16"):
        rounding.typed_denoiser(scaled(tiny, tmp_path, 70_000.0), "f16")


@pytest.mark.parametrize(
    ("bound", "words"),
    [("TOLERANCES", "parity failed, nothing written: denoiser"), ("VOLUME_TOLERANCE_HU", "HU from float32's")],
)
def test_what_is_past_its_bound_is_refused(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, bound: str, words: str
) -> None:
    monkeypatch.setattr(rounding, bound, {"f16": 1e-6})
    with pytest.raises(X2CTError, match=words):
        rounding.typed_denoiser(tiny, "f16")
