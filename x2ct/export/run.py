"""The way from a trained run to a bundle: fold, trace, measure, write; or say why not, and write nothing."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from x2ct import __version__
from x2ct._core import BUNDLE_SCHEMA
from x2ct.bundle import SUFFIX, Bundle, Description, Diffusion, Manifest, Networks, Patch, XRaySpec, check_target
from x2ct.errors import InputError, MissingRuntimeError
from x2ct.export.parity import F16_WEIGHTS_TOLERANCE, F32_TOLERANCE, Case, Row, cases, measure, require
from x2ct.files.text import Json

if TYPE_CHECKING:
    from x2ct.export.graphs import Graph
    from x2ct.model import X2CTModel
    from x2ct.training import TrainConfig

Progress = Callable[[str], None]
"""Called with one line before each stage."""

WEIGHT_TYPES = ("f16", "f32")


@dataclass(frozen=True)
class ModelSpec(Description):
    """What a bundle says of a model beside its graphs, and how far in voxels denoiser and lift look."""

    receptive_radius: int
    lift_radius: int | None


@dataclass(frozen=True)
class ExportReport:
    """The bundle as opened again after writing, the parity table, and each graph's number of nodes of each type."""

    bundle: Bundle
    rows: tuple[Row, ...]
    nodes: Mapping[str, Mapping[str, int]]

    def to_json(self) -> dict[str, Json]:
        """The report as plain data."""
        return {
            "path": str(self.bundle.path),
            "checksum": self.bundle.checksum,
            "bytes": self.bundle.size_bytes,
            "nodes": {graph: dict(counts) for graph, counts in self.nodes.items()},
            "parity": dict(self.bundle.parity),
        }


def export_run(
    run_dir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    name: str | None = None,
    dtype: str = "f16",
    ema: float | None = None,
    best: bool = False,
    provenance: Mapping[str, Json] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Turn a training run into a bundle.

    Args:
        run_dir: a folder that `x2ct train` wrote; an InputError if it can't be read.
        output: see `export_model`, as for dtype, progress and all other errors.
        name: the model's name; by default the run's, or the output's where the run has its parent's.
        dtype: how large weights are stored.
        ema: relative width of the weights' average to export; by default the run's first.
        best: export the average with the lowest validation loss instead of the last one.
        provenance: of data, compute, date and figures, beside the training's configuration.
        progress: called with one line before each stage.
    """
    check_target(Path(output))
    require_packages()
    from x2ct.training import load_run

    if progress is not None:
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
    spec: ModelSpec,
    output: str | os.PathLike[str],
    *,
    dtype: str = "f16",
    progress: Progress | None = None,
) -> ExportReport:
    """Turn a model into a bundle.

    Args:
        model: the network, folded or not; it is not changed.
        spec: all that the bundle says beside the graphs.
        output: the bundle's folder, by custom NAME.x2ct; a bundle that is there is replaced whole.
        dtype: "f16" or "f32", how large weights are stored; the graphs compute in f32 either way.
        progress: called with one line before each stage.

    Raises:
        InputError: the output can't be written, or dtype is unknown.
        MissingRuntimeError: onnx, ONNX Runtime or OpenVINO is not installed.
        X2CTError: a graph can't be made, or computes something else than PyTorch; nothing is written.
    """
    if dtype not in WEIGHT_TYPES:
        raise InputError.of("export", "dtype", found=dtype, expected=" or ".join(WEIGHT_TYPES))
    check_target(Path(output))
    require_packages()
    from x2ct.export.precision import to_f16

    say = progress or (lambda _: None)
    say("evaluating PyTorch in float32")
    references = tuple(cases(model.eval(), spec))
    say("tracing three ONNX graphs")
    graphs = trace_networks(copy.deepcopy(model).fold(), references, spec)
    tolerances = {"f32": F32_TOLERANCE, "f16": F16_WEIGHTS_TOLERANCE}
    rows: tuple[Row, ...] = ()
    for weights in ("f32", "f16") if dtype == "f16" else ("f32",):
        say(f"measuring parity in ONNX Runtime and OpenVINO with {weights} weights")
        models = {graph.name: graph.model if weights == "f32" else to_f16(graph.model) for graph in graphs}
        files = {name: model.SerializeToString(deterministic=True) for name, model in models.items()}
        rows += measure(files, references, weights, tolerances[weights])
        require(rows)
    say("writing the bundle")
    encoder, lift, denoiser = graphs
    manifest = Manifest.of(
        spec,
        version=__version__,
        created=_now(),
        networks=Networks(
            encoder.network,
            dataclasses.replace(lift.network, receptive_radius=spec.lift_radius),
            dataclasses.replace(denoiser.network, receptive_radius=spec.receptive_radius),
        ),
        parity={
            "weights": dtype,
            "measure": "RMS of the difference to PyTorch in float32, over the RMS of PyTorch's output",
            "tolerances": {**tolerances},
            "worst": {
                kind: max(row.error for row in rows if row.weights == kind)
                for kind in sorted({row.weights for row in rows})
            },
            "rows": [row.to_json() for row in rows],
        },
    )
    bundle = Bundle.write(output, manifest, {graph.network.file: files[graph.name] for graph in graphs})
    return ExportReport(bundle, rows, {graph.name: graph.nodes for graph in graphs})


def trace_networks(model: X2CTModel, references: tuple[Case, ...], spec: Description) -> tuple[Graph, Graph, Graph]:
    """Return encoder, lift and denoiser as ONNX graphs, with float32 weights and stamped with what they are.

    Args:
        model: folded, in evaluation mode.
        references: from `parity.cases`; the uneven patch, by which axes can't be confused, is the example to trace.
        spec: the model's name goes into the files.

    Raises:
        X2CTError: a network can't be expressed, or the denoiser has nodes that it should not.
    """
    import torch

    from x2ct.export.graphs import check_nodes, stamp, trace

    def traced(name: str, module: torch.nn.Module, **options: Any) -> Graph:
        case = next(case for case in reversed(references) if case.graph == name)
        inputs, outputs = (
            {key: torch.from_numpy(value) for key, value in part.items()} for part in (case.inputs, case.outputs)
        )
        return trace(name, module, inputs, outputs, patch=case.patch, **options)

    encoder = traced("encoder", model.encoder)
    lift = traced("lift", model.lift, fixed=("features", "P", "valid"))
    denoiser = traced("denoiser", model.denoiser, batch=True)
    check_nodes(denoiser)
    for graph in (encoder, lift, denoiser):
        stamp(graph, {"x2ct.name": spec.name, "x2ct.version": __version__, "x2ct.schema": str(BUNDLE_SCHEMA)})
    return encoder, lift, denoiser


def spec_of(config: TrainConfig, name: str, provenance: Mapping[str, Json]) -> ModelSpec:
    """Return what a bundle says of a model that was trained like this; it is sampled as its parent is, if any."""
    from x2ct.training.runs import training_geometry

    grid = config.grid
    x, y, z = grid.shape
    sizes = tuple((min(side, x), min(side, y), min(side, z)) for side in config.patch.sizes)
    return ModelSpec(
        name=name.removesuffix(SUFFIX),
        grid=grid,
        intensity=config.intensity,
        xray=XRaySpec(config.model.detector, config.detector_spacing_mm, config.display_p99),
        geometry=training_geometry(config),
        diffusion=_diffusion(config),
        patch=Patch(sizes, config.patch.probabilities, config.model.stride),
        receptive_radius=config.model.receptive_radius,
        lift_radius=config.model.lift_radius,
        provenance=provenance,
    )


def _diffusion(config: TrainConfig) -> Diffusion:
    own = config.diffusion
    trained = Diffusion(config.model.sigma_data, own.sigma_min, own.sigma_max, own.schedule, own.solver, own.steps)
    parent = config.parent.get("diffusion")
    if not parent or (parent["sigma_data"], parent["sigma_max"]) != (trained.sigma_data, trained.sigma_max):
        return trained
    tuned = {int(count): tuple(sigmas) for count, sigmas in parent.get("schedules", {}).items()}
    return Diffusion(**{**parent, "schedules": tuned, "deviation_scale": {}})  # the factors are the parent's weights'


def _now() -> str:
    """The time, or SOURCE_DATE_EPOCH (reproducible-builds.org) where it is set: the same run, the same bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdigit() else datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def require_packages(packages: tuple[str, ...] = ("torch", "onnx", "onnxruntime", "openvino")) -> None:
    """Raise MissingRuntimeError before an export begins where one of the packages is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingRuntimeError(f"export needs {package}, which is not installed: pip install 'x2ct[train]'")
