"""The way from a trained run to a bundle: fold, trace, measure, write; or say why not, and write nothing."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from x2ct import __version__
from x2ct._core import BUNDLE_SCHEMA
from x2ct.bundle import SUFFIX, Bundle, Description, Diffusion, Manifest, Networks, Patch, XRaySpec, check_target
from x2ct.errors import InputError
from x2ct.export import parity
from x2ct.export.parity import Case, Row
from x2ct.files.text import Json
from x2ct.runtimes.cache.cache import Say

if TYPE_CHECKING:
    from x2ct.export.graphs import Graph
    from x2ct.model import X2CTModel
    from x2ct.training import TrainConfig

WEIGHT_TYPES = ("f16", "f32")
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class ExportReport:
    """The bundle as opened again after writing, the parity table, and each graph's number of nodes of each type."""

    bundle: Bundle
    rows: tuple[Row, ...]
    nodes: Mapping[str, Mapping[str, int]]

    def to_json(self) -> dict[str, Json]:
        """Return plain data for a report: the nodes and the parity."""
        return {"nodes": {graph: dict(one) for graph, one in self.nodes.items()}, "parity": dict(self.bundle.parity)}


def export_run(
    run_dir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    name: str | None = None,
    dtype: str = "f16",
    ema: float | None = None,
    best: bool = False,
    provenance: Mapping[str, Json] | None = None,
    progress: Say = lambda _: None,
) -> ExportReport:
    """Turn a training run into a bundle; see `export_model` for output, dtype, progress and errors.

    `run_dir` is a folder that `x2ct train` wrote; InputError if it can't be read. The model's name is by default the
    run's, or the output's where the run has its parent's. `ema` is the relative width of the weights' average to
    export, by default the run's first; `best` exports the average with the lowest validation loss instead of the last
    one. `provenance` is of data, compute, date and figures, beside the training's configuration.
    """
    check_target(Path(output))
    parity.require_packages(*PACKAGES)
    from x2ct.training import load_run

    progress("reading the run")
    config, model = load_run(Path(run_dir), ema=ema, best=best)
    parent = {key: value for key, value in config.parent.items() if key != "diffusion"}
    training = {key: value for key, value in config.to_json().items() if key != "parent"}
    facts: dict[str, Json] = {**(provenance or {}), **({"parent": parent} if parent else {}), "training": training}
    if not name:  # a further trained model is not its parent
        own = config.name != config.parent.get("name")
        name = config.name if own else Path(output).resolve().name
    return export_model(model, spec_of(config, name, facts), output, dtype=dtype, progress=progress)


def export_model(
    model: X2CTModel,
    spec: Description,
    output: str | os.PathLike[str],
    *,
    dtype: str = "f16",
    progress: Say = lambda _: None,
) -> ExportReport:
    """Turn a model, folded or not, into a bundle, by custom NAME.x2ct; one that is there is replaced whole.

    `spec` is all that the bundle says beside the graphs. Large weights are stored as `dtype`, "f16" or "f32"; the
    graphs compute in f32 either way. `progress` is called with one line before each stage.

    Raises InputError: the output can't be written, or dtype is unknown; MissingRuntimeError: onnx, ONNX Runtime or
    OpenVINO is not installed; X2CTError: a graph can't be made, or computes something else than PyTorch; nothing is
    written.
    """
    if dtype not in WEIGHT_TYPES:
        raise InputError.of("export", "dtype", found=dtype, expected=" or ".join(WEIGHT_TYPES))
    check_target(Path(output))
    parity.require_packages(*PACKAGES)
    from x2ct.export.precision import to_f16

    progress("evaluating PyTorch in float32")
    references = tuple(parity.cases(model.eval(), spec))
    progress("tracing three ONNX graphs")
    graphs = trace_networks(copy.deepcopy(model).fold(), references, spec)
    tolerances = {"f32": parity.F32_TOLERANCE, "f16": parity.F16_WEIGHTS_TOLERANCE}
    rows: tuple[Row, ...] = ()
    worst: dict[str, float] = {}
    for weights in ("f32", "f16") if dtype == "f16" else ("f32",):
        progress(f"measuring parity in ONNX Runtime and OpenVINO with {weights} weights")
        models = {graph.name: graph.model if weights == "f32" else to_f16(graph.model) for graph in graphs}
        files = {name: model.SerializeToString(deterministic=True) for name, model in models.items()}
        measured = parity.measure(files, references, weights, tolerances[weights])
        rows, worst[weights] = rows + measured, max(row.error for row in measured)
        parity.require(measured)
    progress("writing the bundle")
    encoder, lift, denoiser = (graph.network for graph in graphs)
    networks = Networks(
        encoder,
        dataclasses.replace(lift, receptive_radius=model.config.lift_radius),
        dataclasses.replace(denoiser, receptive_radius=model.config.receptive_radius),
    )
    facts: dict[str, Any] = {
        "weights": dtype,
        "measure": "RMS of the difference to PyTorch in float32, over the RMS of PyTorch's output",
        "tolerances": tolerances,
        "worst": dict(sorted(worst.items())),
        "rows": [row.to_json() for row in rows],
    }
    manifest = Manifest(**vars(spec), version=__version__, created=_now(), networks=networks, parity=facts)
    bundle = Bundle.write(output, manifest, {f"{name}.onnx": data for name, data in files.items()})
    return ExportReport(bundle, rows, {graph.name: graph.nodes for graph in graphs})


def trace_networks(model: X2CTModel, references: Sequence[Case], spec: Description) -> tuple[Graph, Graph, Graph]:
    """Return a folded model's encoder, lift and denoiser as ONNX graphs, in float32, stamped with what they are.

    Of `references`, from `parity.cases`, those on the uneven patch, by which axes can't be confused, are traced. Raises
    X2CTError where a network can't be expressed, or the denoiser has nodes that it should not.
    """
    import onnx

    from x2ct.export.graphs import check_nodes, trace

    examples = {case.graph: case for case in references}  # the last of each
    encoder = trace(examples["encoder"], model.encoder)
    lift = trace(examples["lift"], model.lift, fixed=("features", "P", "valid"))
    denoiser = trace(examples["denoiser"], model.denoiser, batch=True)
    check_nodes(denoiser)
    for graph in (encoder, lift, denoiser):
        graph.model.producer_name, graph.model.producer_version = "x2ct", __version__
        graph.model.graph.name = graph.name
        facts = {"name": spec.name, "version": __version__, "schema": str(BUNDLE_SCHEMA), "network": graph.name}
        onnx.helper.set_model_props(graph.model, {f"x2ct.{key}": value for key, value in facts.items()})
    return encoder, lift, denoiser


def spec_of(config: TrainConfig, name: str, provenance: Mapping[str, Json]) -> Description:
    """Return a bundle's description of a model with this training; it is sampled as its parent is, if any."""
    from x2ct.training.runs import training_geometry

    own, network, parent = config.diffusion, config.model, config.parent.get("diffusion", {})
    diffusion = Diffusion(network.sigma_data, own.sigma_min, own.sigma_max, own.schedule, own.solver, own.steps)
    if (parent.get("sigma_data"), parent.get("sigma_max")) == (diffusion.sigma_data, diffusion.sigma_max):
        tuned = {int(count): tuple(sigmas) for count, sigmas in parent.get("schedules", {}).items()}
        # The factors are the parent's weights'.
        diffusion = Diffusion(**{**parent, "schedules": tuned, "deviation_scale": {}})
    diffusion = dataclasses.replace(diffusion, mirror=config.augment.flip > 0)
    x, y, z = config.grid.shape
    sizes = tuple((min(side, x), min(side, y), min(side, z)) for side in config.patch.sizes)
    return Description(
        name=name.removesuffix(SUFFIX),
        grid=config.grid,
        intensity=config.intensity,
        xray=XRaySpec(network.detector, config.detector_spacing_mm, config.display_p99),
        geometry=training_geometry(config),
        diffusion=diffusion,
        patch=Patch(sizes, config.patch.probabilities, network.stride),
        provenance=provenance,
    )


def _now() -> str:
    """Return the time, or SOURCE_DATE_EPOCH (reproducible-builds.org) where it is set: the same run, the same bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdigit() else datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
