"""An exported bundle computes what PyTorch computes, in every runtime that will run it; or it is not written."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

from tests.tiny_model import CONFIG, SPEC, random_model  # noqa: E402
from x2ct.bundle import OPSET, Bundle, Grid, Patch, XRaySpec  # noqa: E402
from x2ct.bundle.intensity import Intensity  # noqa: E402
from x2ct.errors import InputError, X2CTError  # noqa: E402
from x2ct.export import ExportReport, export_model, export_run, graphs, parity, run  # noqa: E402
from x2ct.export.parity import F16_WEIGHTS_TOLERANCE, F32_TOLERANCE, relative_error  # noqa: E402
from x2ct.export.precision import to_f16  # noqa: E402
from x2ct.export.tidy import tidy  # noqa: E402
from x2ct.training import TrainConfig, checkpoint, load_run  # noqa: E402
from x2ct.training.checkpoint import new_state  # noqa: E402
from x2ct.training.config import PatchConfig  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def report(exported: tuple[ExportReport, tuple[graphs.Graph, ...]]) -> ExportReport:
    return exported[0]


@pytest.fixture
def traced(exported: tuple[ExportReport, tuple[graphs.Graph, ...]]) -> tuple[graphs.Graph, ...]:
    """The graphs that were traced for `report`, to write into."""
    return copy.deepcopy(exported[1])


# ---------------------------------------------------------------------------------------------- what is proven


def test_parity_covers_graphs_runtimes_sigmas_and_patches(report: ExportReport) -> None:
    assert all(row.passed for row in report.rows)
    runtimes = {row.runtime.split()[0] for row in report.rows}
    assert runtimes == {"onnxruntime", "openvino"}
    for weights, tolerance in (("f32", F32_TOLERANCE), ("f16", F16_WEIGHTS_TOLERANCE)):
        for runtime in runtimes:
            rows = [row for row in report.rows if row.weights == weights and row.runtime.startswith(runtime)]
            assert {row.tolerance for row in rows} == {tolerance}
            assert {row.graph for row in rows} == {"encoder", "lift", "denoiser"}
            for graph in ("lift", "denoiser"):
                assert len({row.patch for row in rows if row.graph == graph}) == 2
            for patch in {row.patch for row in rows if row.patch}:
                sigmas = sorted({row.sigma for row in rows if row.graph == "denoiser" and row.patch == patch})
                assert sigmas == pytest.approx([0.03, np.sqrt(0.03 * 20), 20])


def test_rounding_is_seen_and_f32_is_finer(report: ExportReport) -> None:
    """The f16 error is the rounding's, far above the runtimes' own: the two measurements are of different things."""
    worst = {kind: max(row.error for row in report.rows if row.weights == kind) for kind in ("f32", "f16")}
    assert worst["f32"] < 1e-5
    assert worst["f16"] > 10 * worst["f32"]


def test_the_table_is_in_the_bundle(report: ExportReport) -> None:
    bundle = Bundle.load(report.bundle.path)
    assert bundle.checksum == report.bundle.checksum
    assert bundle.parity["rows"] == [row.to_json() for row in report.rows]
    assert bundle.parity["weights"] == "f16"
    assert json.loads(json.dumps(report.to_json()))["parity"] == dict(bundle.parity)
    assert bundle.networks.denoiser.receptive_radius == CONFIG.receptive_radius
    assert bundle.networks.lift.receptive_radius == CONFIG.lift_radius
    assert bundle.provenance == SPEC.provenance


def test_written_graphs_give_the_volume_that_pytorch_gives(report: ExportReport) -> None:
    """X-rays -> features -> condition -> denoised, out of the written files, on a patch that parity never saw."""
    import onnxruntime

    model, bundle = random_model(), report.bundle
    rng = np.random.default_rng(1)
    views = rng.uniform(0, 6, (1, 2, 1, 64, 64)).astype(np.float32)
    valid = np.ones((1, 2), np.float32)
    matrices = np.stack([view.matrix for view in bundle.geometry.views])[None].astype(np.float32)
    coords = rng.uniform(-1, 1, (1, 3, 24, 16, 8)).astype(np.float32)
    x = rng.standard_normal((1, 1, 24, 16, 8)).astype(np.float32)
    sigma = np.array([1.5], np.float32)

    def onnx_run(network: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        path = bundle.file_of(getattr(bundle.networks, network))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))

    features = onnx_run("encoder", {"views": views, "valid": valid})
    lifted = onnx_run("lift", {**features, "P": matrices, "coords": coords, "valid": valid})
    found = onnx_run("denoiser", {"x": x, "sigma": sigma, **lifted})["denoised"]
    with torch.no_grad():
        given = (torch.from_numpy(value) for value in (views, valid, matrices, coords))
        wanted = model.denoiser(torch.from_numpy(x), torch.from_numpy(sigma), *model.condition(*given)).numpy()
    assert relative_error(found, wanted) < F16_WEIGHTS_TOLERANCE


# ---------------------------------------------------------------------------------------------- what the graphs are


def test_graphs_are_plain_and_say_what_they_are(report: ExportReport) -> None:
    for name, network in report.bundle.networks.items():
        model = onnx.load(report.bundle.file_of(network))
        onnx.checker.check_model(model, full_check=True)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
        said = {entry.key: entry.value for entry in model.metadata_props}
        assert said == {
            "x2ct.name": "tiny",
            "x2ct.version": report.bundle.version,
            "x2ct.schema": "1",
            "x2ct.network": name,
        }


def test_free_axes(report: ExportReport) -> None:
    networks = report.bundle.networks
    assert [str(tensor) for tensor in networks.denoiser.inputs] == [
        "x float32 [N, 1, X, Y, Z]",
        "sigma float32 [N]",
        "c0 float32 [N, 8, X/4, Y/4, Z/4]",
        "c1 float32 [N, 1, X, Y, Z]",
    ]
    assert str(networks.denoiser.outputs[0]) == "denoised float32 [N, 1, X, Y, Z]"
    assert [str(tensor) for tensor in networks.lift.inputs] == [
        "features float32 [1, 2, 8, 16, 16]",
        "P float32 [1, 2, 3, 4]",
        "coords float32 [1, 3, X, Y, Z]",
        "valid float32 [1, 2]",
    ]
    assert [str(tensor) for tensor in networks.lift.outputs] == [
        "c0 float32 [1, 8, X/4, Y/4, Z/4]",
        "c1 float32 [1, 1, X, Y, Z]",
    ]
    assert networks.encoder.outputs[0].shape == networks.lift.inputs[0].shape
    assert str(networks.encoder.inputs[0]) == "views float32 [1, 2, 1, 64, 64]"


def test_the_denoiser_is_a_few_large_nodes(report: ExportReport) -> None:
    """Two convolutions a block, stem, down, up and out; no transposes of convolutions, no copies."""
    nodes = report.nodes["denoiser"]
    assert nodes["Conv"] == 2 * 3 + 4
    assert not set(nodes) & graphs.UNWANTED
    assert not set(nodes) & {"ConvTranspose", "Constant", "Identity", "Cast", "Concat"}
    # A block needs a scale for its modulation, two SiLUs and one residual; its other scales lie in the weights. The two
    # gates and the preconditioning about the sketch add the rest, most of it arithmetic on sigma alone.
    assert nodes["Mul"] <= 34
    assert sum(nodes.values()) <= 110


def test_a_denoiser_that_would_pay_at_each_step_is_refused() -> None:
    class Wasteful(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return x * torch.arange(x.shape[2], dtype=torch.float32).reshape(1, 1, -1, 1, 1)

    x = np.ones((1, 1, 8, 12, 16), np.float32)
    graph = graphs.trace(parity.Case("denoiser", {"x": x}, {"y": x}, patch=x.shape[2:]), Wasteful(), batch=True)
    with pytest.raises(X2CTError, match="at every step"):
        graphs.check_nodes(graph)


def test_group_norm_can_be_exported(tmp_path: Path) -> None:
    """A network with norms is slower, not wrong; also node by node in PyTorch, which the proof compares with."""
    from dataclasses import replace

    from x2ct.export.torchgraph import OnnxModule

    model = random_model(replace(CONFIG, norm="group", channels=(8,), blocks=(1,)))
    spec = replace(SPEC, patch=Patch(((16, 16, 16),), (1.0,), CONFIG.stride))
    report = export_model(model, spec, tmp_path / "g.x2ct", dtype="f32")
    assert "InstanceNormalization" in report.nodes["denoiser"]
    case = next(case for case in parity.cases(model, spec) if case.graph == "denoiser")
    module = OnnxModule(onnx.load(report.bundle.file_of(report.bundle.networks.denoiser)))
    assert relative_error(module.evaluate(case.inputs)["denoised"], case.outputs["denoised"]) < F32_TOLERANCE


# ---------------------------------------------------------------------------------------------- tidying


def test_tidying_changes_nodes_not_values() -> None:
    """Scales around, and ones beside, linear nodes: fewer nodes, the same function."""
    import onnxruntime

    rng = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    node = helper.make_node
    pads, strides = [0] * 6, [2] * 3
    nodes = [
        node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2.0))),
        node("Constant", [], ["third"], value=numpy_helper.from_array(np.float32(1 / 3))),
        node("Shape", ["x"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        node("Concat", ["x", "ones"], ["joined"], axis=1),
        node("Conv", ["joined", "w0"], ["h0"], kernel_shape=[2] * 3, pads=pads, strides=strides, group=1),
        node("Mul", ["h0", "two"], ["h1"]),
        node("Mul", ["third", "h1"], ["h2"]),
        node("Cast", ["h2"], ["h3"], to=TensorProto.FLOAT),
        node("Conv", ["h3", "w1", "b1"], ["a"], kernel_shape=[3] * 3, pads=[1] * 6, strides=[1] * 3, group=1),
        node("ConvTranspose", ["h3", "w2", "b2"], ["t"], kernel_shape=[2] * 3, strides=strides),
        node("Mul", ["t", "third"], ["u"]),
        node("Relu", ["a"], ["r"]),
        node("Mul", ["r", "two"], ["kept"]),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 1, "X", "Y", "Z"]),)]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4, None, None, None]) for n in ("u", "kept")]
    initializers = [
        weights("w0", 6, 2, 2, 2, 2),
        weights("w1", 4, 6, 3, 3, 3),
        weights("b1", 4),
        weights("w2", 6, 4, 2, 2, 2),
        weights("b2", 4),
    ]
    graph = helper.make_graph(nodes, "g", ports, results, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    before = copy.deepcopy(model)
    tidy(model)
    onnx.checker.check_model(model, full_check=True)
    # u is an output, so its scale stays; kept follows a Relu, so its scale stays.
    assert sorted(n.op_type for n in model.graph.node) == ["Conv", "Conv", "ConvTranspose", "Mul", "Mul", "Relu"]
    x = rng.standard_normal((2, 1, 8, 4, 6)).astype(np.float32)
    both = [onnxruntime.InferenceSession(m.SerializeToString()).run(["u", "kept"], {"x": x}) for m in (before, model)]
    for wanted, found in zip(*both, strict=True):
        assert relative_error(found, wanted) < 1e-6


def test_padded_ones_are_not_a_bias() -> None:
    """At the border a padded channel of ones is not constant: such a convolution is left alone."""
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        node("Concat", ["x", "ones"], ["joined"], axis=1),
        node("Conv", ["joined", "w"], ["y"], kernel_shape=[3] * 3, pads=[1] * 6, strides=[1] * 3, group=1),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 4, 4, 4]) for n in "xy")
    weight = numpy_helper.from_array(np.ones((1, 2, 3, 3, 3), np.float32), "w")
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weight]), ir_version=8)
    tidy(model)
    assert [n.op_type for n in model.graph.node] == ["Shape", "ConstantOfShape", "Concat", "Conv"]


def test_f16_storage_rounds_to_nearest_and_halves_the_file() -> None:
    model = random_model().fold()
    x, c0 = np.zeros((1, 1, 8, 16, 24), np.float32), np.zeros((1, 8, 2, 4, 6), np.float32)
    inputs = {"x": x, "sigma": np.ones(1, np.float32), "c0": c0, "c1": x}
    case = parity.Case("denoiser", inputs, {"denoised": x}, patch=(8, 16, 24))
    graph = graphs.trace(case, model.denoiser, batch=True)
    small = to_f16(graph.model)
    exact = {t.name: numpy_helper.to_array(t) for t in graph.model.graph.initializer}
    stored = {t.name: numpy_helper.to_array(t) for t in small.graph.initializer}
    rounded = [name for name in exact if f"{name}.f16" in stored]
    assert sum(exact[name].size for name in rounded) > 0.9 * sum(value.size for value in exact.values())
    for name in rounded:
        np.testing.assert_array_equal(stored[f"{name}.f16"], exact[name].astype(np.float16))
    for name in set(exact) - set(rounded):
        np.testing.assert_array_equal(stored[name], exact[name])
    graph.model.graph.initializer.append(numpy_helper.from_array(np.full(300, 1e6, np.float32), "huge"))
    with pytest.raises(X2CTError, match="does not fit float16"):
        to_f16(graph.model)


# ---------------------------------------------------------------------------------------------- what is refused


def _one_weight(values: np.ndarray) -> np.ndarray:
    values.flat[0] += 1.0
    return values


def _nan(values: np.ndarray) -> np.ndarray:
    """What NaN is compared with does not matter; in the lift it reaches only the second of the outputs."""
    return values * np.float32(np.nan)


@pytest.mark.parametrize(
    ("network", "change"), [("encoder", _one_weight), ("lift", _one_weight), ("denoiser", _one_weight), ("lift", _nan)]
)
def test_a_sabotaged_graph_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    traced: tuple[graphs.Graph, ...],
    network: str,
    change: Callable[[np.ndarray], np.ndarray],
) -> None:
    """One weight of a graph's largest tensor is off, or all of them are no numbers."""
    graph = next(graph for graph in traced if graph.name == network)
    tensor = max(graph.model.graph.initializer, key=lambda t: int(np.prod(t.dims)))
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    monkeypatch.setattr(run, "trace_networks", lambda *_: traced)
    with pytest.raises(X2CTError, match="parity failed, nothing written") as caught:
        export_model(random_model(), SPEC, tmp_path / "bad.x2ct", dtype="f32")
    assert network in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_tolerances_bind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced: tuple[graphs.Graph, ...]) -> None:
    """Rounding that the f16 tolerance does not allow is refused too, after f32 has passed."""
    monkeypatch.setattr(run, "trace_networks", lambda *_: traced)
    monkeypatch.setattr(parity, "F16_WEIGHTS_TOLERANCE", 1e-6)
    with pytest.raises(X2CTError, match="f16 weights"):
        export_model(random_model(), SPEC, tmp_path / "bad.x2ct")
    assert not list(tmp_path.iterdir())


def test_errors_of_another_shape_are_infinite() -> None:
    assert relative_error(np.zeros((1, 2), np.float32), np.zeros((2, 1), np.float32)) == np.inf
    assert relative_error(np.zeros(3, np.float32), np.zeros(3, np.float32)) == 0
    assert not parity.Row("lift", "r", "f32", None, None, float("nan"), 1.0).passed


def test_wrong_use_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "cases", lambda *_: pytest.fail("the export started"))
    (tmp_path / "notes").write_text("precious")
    with pytest.raises(InputError, match="dtype"):
        export_model(random_model(), SPEC, tmp_path / "new.x2ct", dtype="int8")
    with pytest.raises(InputError, match="output"):
        export_model(random_model(), SPEC, tmp_path / "notes")
    with pytest.raises(InputError, match="run"):
        export_run(tmp_path / "run", tmp_path / "new.x2ct")


# ---------------------------------------------------------------------------------------------- runs


def test_a_run_becomes_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grid, windows, sigmas and patches come from the run's configuration, weights from its average."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    config = TrainConfig(
        name="limb",
        grid=Grid((32, 32, 16), (5.0, 5.0, 6.0)),
        model=CONFIG,
        patch=PatchConfig((16, 32), (0.5, 0.5)),
        intensity=Intensity((-1000.0, 200.0, 1500.0), (-1.0, 0.2, 1.0)),
        detector_spacing_mm=(6.0, 6.0),
        display_p99=(5.0, 7.0),
    )
    (tmp_path / "run").mkdir()
    config.save(tmp_path / "run")
    state = new_state(config, torch.device("cpu"))
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter.add_(torch.ones(()))  # the averages stay as they were
        for value in state.averages[1].shadow.values():
            value.add_(0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0)))
    checkpoint.save(state, tmp_path / "run")
    said: list[str] = []
    width = config.optim.ema[1]
    done = export_run(
        tmp_path / "run", tmp_path / "limb.x2ct", ema=width, provenance={"data": "none"}, progress=said.append
    )
    bundle = done.bundle
    assert bundle.name == "limb"
    assert (bundle.grid.shape, bundle.grid.spacing_mm) == ((32, 32, 16), (5.0, 5.0, 6.0))
    assert bundle.patch.sizes == ((16, 16, 16), (32, 32, 16))
    assert bundle.intensity == config.intensity
    assert bundle.xray == XRaySpec((64, 64), (6.0, 6.0), config.display_p99)
    assert bundle.created == "1970-01-01T00:00:00Z"
    assert bundle.provenance["data"] == "none"
    assert TrainConfig.from_json(dict(bundle.provenance["training"])) == config  # type: ignore[arg-type]
    assert said

    # The weights are those of the average that was asked for: the encoder's graph holds the folded ones, rounded.
    stored = [numpy_helper.to_array(t) for t in onnx.load(bundle.file_of(bundle.networks.encoder)).graph.initializer]

    def holds(**chosen: Any) -> bool:
        stem = load_run(tmp_path / "run", **chosen)[1].fold().encoder.down[0].weight.detach().numpy()
        return any(value.shape == stem.shape and np.allclose(value, stem, rtol=1e-3, atol=1e-6) for value in stored)

    assert holds(ema=width) and not holds() and not holds(raw=True)
