"""Scripts of benchmarks/ that look into a model: counted FLOP, the roofline, solver error, scaling."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import agreement, align, flops, masses, roofline, scaling
from tests import tiny_bundle
from x2ct import _core
from x2ct.benchmark.cases import Case
from x2ct.benchmark.fleet import Effort
from x2ct.bundle import Bundle
from x2ct.engine.residual import Residual
from x2ct.errors import InputError
from x2ct.runtimes.discovery import choose

SIZE = roofline.Size(rows=64, width=128, products=2, channels=16, side=8, convolutions=2)


# ------------------------------------------------------------------------------------------------ counting


def shapes_of(bundle: Bundle, name: str, side: int) -> dict[str, list[int]]:
    spec = getattr(bundle.networks, name)
    return {tensor.name: roofline.input_shape(tensor.shape, (side,) * 3) for tensor in spec.inputs}


def test_the_denoisers_flop_are_those_that_pytorch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from x2ct.model import X2CTModel
    from x2ct.model.config import ModelConfig

    bundle, side = Bundle.load("chest"), 32
    shapes = shapes_of(bundle, "denoiser", side)
    cost = flops.count(bundle.file_of(bundle.networks.denoiser), shapes)
    training: Any = bundle.provenance["training"]
    model = X2CTModel(ModelConfig(**training["model"])).fold()
    given = [torch.ones(shapes[name]) for name in ("x", "sigma", "c0", "c1")]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.denoiser(*given)
    assert cost.matrix_flop == counter.get_total_flops()
    assert not any(node.op == "Cast" for node in cost.nodes)  # of weights, once when the graph is compiled
    # Weights once, x, c0, c1 and the result at the ends, and nothing twice.
    assert cost.weight_elements == pytest.approx(sum(p.numel() for p in model.denoiser.parameters()), rel=0.01)
    assert cost.end_elements == sum(int(np.prod(shape)) for shape in shapes.values()) + side**3


def test_the_lab_times_every_convolution_of_the_denoiser() -> None:
    """Their FLOP are those that are counted in the graph, but for the products of the noise level's embedding."""
    from benchmarks.gpu import latency_lab

    bundle = Bundle.load("chest")
    args = SimpleNamespace(bundle="chest", device="cpu", precision="f32", rounds=1, output=None)
    lab = latency_lab.Lab(args, 0.0)  # type: ignore[arg-type]
    found = lab.convolutions((32, 16, 24))
    spec = bundle.networks.denoiser
    shapes = {tensor.name: roofline.input_shape(tensor.shape, (32, 16, 24)) for tensor in spec.inputs}
    cost = flops.count(bundle.file_of(spec), shapes)
    wanted = sum(node.matrix_flop for node in cost.nodes if node.op == "Conv")
    assert sum(conv.flop * times for conv, times in found.items()) == wanted


def test_what_the_labs_deadline_leaves_no_time_for_is_listed(tmp_path: Path) -> None:
    """The page is written all the same, and nothing is begun."""
    from benchmarks.gpu import latency_lab

    args = SimpleNamespace(bundle="chest", device="cpu", precision="f32", rounds=1, output=tmp_path / "lab")
    args.modes = latency_lab.MODES
    lab = latency_lab.Lab(args, 0.0)  # type: ignore[arg-type]
    lab.matrix_rate = lambda: 1e12  # type: ignore[method-assign]
    lab.measure([(8, 8, 8)])
    assert set(lab.result["missing"].values()) == {"the deadline was too near"}
    assert {f"{mode} 8 x 8 x 8" for mode in latency_lab.MODES} < set(lab.result["missing"])
    assert "Missing: eager 8 x 8 x 8: the deadline was too near" in (tmp_path / "lab.md").read_text()


def test_all_convolutions_together_reach_the_work_over_the_time() -> None:
    from benchmarks.gpu.latency_lab import together

    one = {"shape": "8 x 8 x 8", "layout": "NDHWC", "count": 3, "us": 10.0, "tflops": 400.0}
    other = {**one, "count": 1, "us": 30.0, "tflops": 100.0}
    elsewhere = {**one, "layout": "NCDHW", "count": 1}
    whole, alone = together([one, other, elsewhere], 500.0)
    assert (whole["count"], whole["us"], whole["tflops"], whole["share"]) == (4, 60.0, 250.0, 0.5)
    assert (alone["layout"], alone["tflops"], alone["share"]) == ("NCDHW", 400.0, 0.8)


def test_gaps_are_where_no_kernel_runs() -> None:
    from benchmarks.gpu.latency_lab import gaps_of, longest

    kernels = [("a", 0.0, 10.0), ("b", 4.0, 6.0), ("a", 12.0, 20.0), ("c", 25.0, 26.0)]
    assert gaps_of(kernels) == {"launches": 4, "idle_us": 7.0, "longest_gap_us": 5.0}
    assert gaps_of([])["launches"] is None
    assert longest(kernels)[0] == {"kernel": "a", "calls": 2, "us": 18.0, "share": 0.8571}


def test_flop_and_bytes_of_one_convolution_in_closed_form(tmp_path: Path) -> None:
    path = tmp_path / "chain.onnx"
    shape = roofline.convolution_chain(path, SIZE, np.random.default_rng(0))
    cost = flops.count(path, {"h0": shape})
    first, wide, last = cost.nodes[0], cost.nodes[1], cost.nodes[-1]
    assert first.matrix_flop == 2 * 8**3 * 8 * 16
    assert wide.matrix_flop == 2 * 8**3 * 16 * 16 * 27
    assert cost.matrix_flop == first.matrix_flop + SIZE.convolutions * wide.matrix_flop + last.matrix_flop
    weights = 8 * 16 * 2 + SIZE.convolutions * 16 * 16 * 27
    between = 8**3 * (8 + 16 + SIZE.convolutions * 2 * 16 + 16 + 8)
    assert cost.bytes_fused(2) == 2 * (weights + between) + 4 * 2 * 8 * 8**3


def test_shapes_that_depend_on_arithmetic_on_shapes_are_followed_and_cost_nothing(tmp_path: Path) -> None:
    """A reshape by a quotient of the input's own extent, which ONNX's shape inference alone does not follow."""
    from onnx import TensorProto, helper

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    constants = [
        helper.make_tensor("four", TensorProto.INT64, [1], [4]),
        helper.make_tensor("w", TensorProto.FLOAT, [4, 8], [0.5] * 32),
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["extent"]),
        helper.make_node("Div", ["extent", "four"], ["rows"]),
        helper.make_node("Concat", ["rows", "four"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["cells"]),
        helper.make_node("MatMul", ["cells", "w"], ["y"]),
    ]
    ports[1] = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", 8])
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    path = tmp_path / "cells.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    cost = flops.count(path, {"x": [24]})
    assert [node.op for node in cost.nodes] == ["Reshape", "MatMul"]
    assert cost.matrix_flop == 2 * 6 * 4 * 8 and cost.other_flop == 0
    assert cost.end_elements == 24 + 6 * 8


def test_an_operator_that_is_not_known_is_an_error_and_never_a_zero(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Elu", ["x"], ["y"], name="act")], "g", ports[:1], ports[1:])
    path = tmp_path / "elu.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(InputError, match="act: found operator Elu"):
        flops.count(path, {"x": [4]})


@pytest.mark.parametrize("name", ["encoder", "lift", "denoiser"])
def test_each_graph_of_the_bundled_model_can_be_counted(name: str) -> None:
    bundle = Bundle.load("chest")
    path = bundle.file_of(getattr(bundle.networks, name))
    small, large = (flops.count(path, shapes_of(bundle, name, side)) for side in (32, 64))
    assert small.bytes_fused(4) < small.bytes_unfused(4)
    grows = large.matrix_flop / small.matrix_flop
    assert grows == (1 if name == "encoder" else pytest.approx(8, rel=0.02))


def test_the_roofline_of_a_model_names_rates_shares_and_layers(tmp_path: Path) -> None:
    bundle = tiny_bundle.write(tmp_path / "tiny.x2ct")
    found = roofline.roofline(bundle, [("openvino", "f32")], threads=1, repeats=2, size=SIZE, copy_bytes=1 << 20)
    assert [row["graph"] for row in found["graphs"]] == ["encoder.onnx", "lift.onnx", "denoiser.onnx"]
    row = found["graphs"][-1]
    assert row["matrix_share"] == pytest.approx(row["flop_per_s"] / row["matrix_rate"]["flop_per_s"])
    assert row["achieved_share"] == max(row["matrix_share"], row["copy_share"])
    assert row["layers"] and all(layer["ms"] >= 0 for layer in row["layers"])
    assert found["copy_rate"]["bytes_per_s"] > 0
    assert found["missing"] == []


def test_a_backend_that_can_not_be_looked_into_costs_no_other_its_roofline(tmp_path: Path) -> None:
    bundle = tiny_bundle.write(tmp_path / "tiny.x2ct")
    pairs = [("tensorrt", "f32"), ("openvino", "f32")]
    found = roofline.roofline(bundle, pairs, threads=1, repeats=1, size=SIZE, copy_bytes=1 << 20)
    assert len(found["graphs"]) == 3
    assert found["missing"] and found["missing"][0].startswith("tensorrt f32: ")


# ------------------------------------------------------------------------------------------------ layers' times


def network(path: Path, **more: Any) -> _core.Network:
    more.setdefault("runtime_dir", choose().runtime_dir)
    return _core.Network(str(path), precision="f32", threads=1, shapes={"h0": [1, 8, 8, 8, 8]}, **more)


def test_a_profiled_network_tells_its_layers_times_and_another_does_not(tmp_path: Path) -> None:
    path = tmp_path / "chain.onnx"
    shape = roofline.convolution_chain(path, SIZE, np.random.default_rng(0))
    given = {"h0": np.ones(shape, np.float32)}
    profiled = network(path, profile=True)
    with pytest.raises(InputError, match="expected a call before it"):
        profiled.profile()
    profiled(given)
    layers = profiled.profile()
    assert sum(layer["type"] == "Convolution" for layer in layers) == SIZE.convolutions + 2
    assert all(layer["ms"] > 0 and layer["kernel"] for layer in layers if layer["type"] == "Convolution")
    plain = network(path)
    plain(given)
    with pytest.raises(InputError, match="expected one loaded with profile"):
        plain.profile()


# ------------------------------------------------------------------------------------------------ the other scripts


def test_exponents_are_those_of_power_laws() -> None:
    assert scaling.exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)
    assert scaling.exponent([5, 5], [1, 2]) is None


def test_the_scripts_measure_a_bundle_and_print_what_they_measured(tmp_path: Path) -> None:
    tiny_bundle.write(tmp_path / "tiny.x2ct")
    source = str(tmp_path / "tiny.x2ct")
    effort, lines = Effort(runs=1, warmup=0, cold=1, together=False), list[str]()
    base = Case(backend="openvino", precision="f32", threads=1)
    found = agreement.agreement(source, base, effort, lines.append, plain=(), steps=(), fine=12)
    assert found["rows"][0]["evaluations"] == 35  # EDM's defaults come first
    assert all(row["error_percent"] >= 0 for row in found["rows"])
    [table] = agreement.tables(found)
    assert len(table.rows) == len(found["rows"]) and lines[0] == "the converged solution"
    points = scaling._axis("steps", [])
    assert points["fitted"] == [] and points["exponents"]["loop_s"] is None


# ------------------------------------------------------------------------------------------------ masses, alignment


def test_what_binds_a_mass_is_its_mean_over_its_disc() -> None:
    """A disc of 20 mm of water has that mean at its middle, half of it at its edge, and nothing where none is known."""
    rows, columns = np.indices((90, 80))
    disc = (np.hypot((rows - 40) * 1.0, (columns - 30) * 2.0) <= 20).astype(np.float32) * 20 * 0.02
    known = np.where(rows < 80, disc, np.nan).astype(np.float32)
    means = masses.of_size(known, Residual("ap", known, (1.0, 2.0), 1.0, None, ()), 40)
    assert means[40, 30] == pytest.approx(20, abs=0.1) and means[60, 30] == pytest.approx(8, abs=1)
    assert np.isnan(means[85, 30]) and abs(means[5, 75]) < 1e-6
    clean = {"case": "a", "setting": "sample", "views": ["ap", "lateral"], "error_mm": [[4.0, 26.0], [3.0, 9.0]]}
    ball = {"case": "a", "setting": "sample", "added_mm": [27.0, None], "lacking_mm": [15.0, None]}
    lines = [("a", "ap", "sample", "27 to 27", "15 to 15", "4, 26"), ("a", "lateral", "sample", "-", "-", "3, 9")]
    assert masses.binding([clean, ball]) == lines


def test_what_alignment_recovers_is_a_share_of_what_the_error_cost() -> None:
    row = {
        "case": "a",
        "views": align.OWN,
        "correlation": 1.0,
        "whole": True,
        "rms_mm": [10.0, 12.0],
        "psnr_there": 24.0,
    }
    told = {"error": align.AS_TOLD, "found": [0, 1, 0, 0], "expected": [0, 1, 0, 0], "psnr_told": 24.0}
    higher = {"error": "lateral 10 mm higher", "found": [9.5, 1, 0, 1.5], "expected": [10, 1, 0, 0], "psnr_told": 23.0}
    both = {"error": "both 10 mm higher", "found": [0, 1, 0, 0], "expected": [0, 1, 0, 0], "psnr_told": 21.0}
    ends = zip((told, higher, both), (24.0, 23.9, 21.0), strict=True)
    table = align.markdown([row | one | {"psnr_aligned": psnr} for one, psnr in ends])
    assert (
        "| lateral 10 mm higher | 0.5 mm, 0.0%, 0.0 and 1.5 | 1 of 1 | 1.000 | 10.0 and 12.0 | 23.00 | 23.90 | 90% |"
        in table
    )
    assert "| both 10 mm higher | 0.0 mm, 0.0%, 0.0 and 0.0 | 10.0 and 12.0 | 21.00 | 21.00 | 24.00 | 24.00 |" in table
