"""The way back: a bundle's graphs become a PyTorch model again, to train on, or to run and export in PyTorch.

An exported graph holds each weight once, but moved: transposed, laid out for cells, scaled by constants of its
neighbours, its channel of ones turned into a bias (`tidy.py`). All of this is linear in the weight, so the map is read
off: the same network is traced with made-up weights whose ratios tell, for every number in the graph, which weight it
is, which entry of it, and by what factor. The stored numbers go back that way, and the result has to agree with the
stored graphs in ONNX Runtime.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from x2ct.bundle import Bundle, Patch
from x2ct.errors import InputError
from x2ct.export.parity import F32_TOLERANCE, cases, measure, open_onnxruntime, require_packages
from x2ct.export.run import trace_networks
from x2ct.files.text import Json

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from x2ct.model import X2CTModel
    from x2ct.training import TrainConfig

Array = npt.NDArray[np.float32]
Stored = Mapping[tuple[int, int], npt.NDArray[Any]]
"""Stored tensors by who reads them: the number of the node, and the place among its inputs."""

CONSTANT_TOLERANCE = 1e-3
"""By how much a number that is no weight may differ, relative to the largest beside it: float16's rounding."""

DIGIT = 1024  # an entry's index is told in two digits of this base, each exact in float32 after a few roundings


def load_bundle_model(model: str | os.PathLike[str] | Bundle) -> X2CTModel:
    """Return the network of a bundle (opened, or see `Bundle.load`) in PyTorch: folded, in evaluation mode.

    Raises InputError: the bundle can't be read, does not say how its network was configured, or its graphs are not
    those that this version makes of that configuration; MissingRuntimeError: a package is not installed.
    """
    require_packages("torch", "onnx", "onnxruntime")
    import onnx
    import torch

    from x2ct.model import X2CTModel

    bundle = model if isinstance(model, Bundle) else Bundle.load(model)
    network = X2CTModel(training_config(bundle).model).fold()
    # Small patches show a wrong weight as well as large ones do.
    small = Patch(((2 * bundle.patch.stride,) * 3,), (1.0,), bundle.patch.stride)
    spec = dataclasses.replace(bundle, patch=small)
    examples = tuple(cases(network, spec))
    probes = _Probes(network)
    traced = [trace_networks(probes.network(kind), examples, spec) for kind in _KINDS]
    weights: dict[str, Array] = {}
    for (name, described), *graphs in zip(bundle.networks.items(), *traced, strict=True):
        source, (nodes, stored) = f"{bundle.path}: {name}", _read(onnx.load(bundle.file_of(described)))
        probed = [_read(graph.model) for graph in graphs]
        if nodes != probed[0][0]:
            raise _foreign(source, "another graph")
        weights |= probes.weights(source, stored, [tensors for _, tensors in probed])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name not in weights:
                raise _foreign(bundle.path, f"no weight {name}")
            parameter.copy_(torch.from_numpy(weights[name]))
    files = {name: bundle.file_of(described).read_bytes() for name, described in bundle.networks.items()}
    for row in measure(files, cases(network, spec), "f16", F32_TOLERANCE, (open_onnxruntime(),)):
        if not row.passed:
            raise _foreign(bundle.path, f"other results: {row}")
    return network


@dataclass(frozen=True)
class StartingPoint:
    """What a new run may start from: how the weights were trained, and the weights by name."""

    config: TrainConfig
    weights: Mapping[str, Tensor]


def starting_point(source: str | os.PathLike[str]) -> StartingPoint:
    """Return the averaged weights of a run's folder, or a bundle's (see `Bundle.load`), and their configuration.

    The configuration names a bundle as its parent. Raises InputError: the source is neither, or its network is not one
    of this version; MissingRuntimeError: for a bundle, onnx or ONNX Runtime is not installed.
    """
    from x2ct.training.checkpoint import starting_weights
    from x2ct.training.config import CONFIG_FILE, TrainConfig

    if (Path(source) / CONFIG_FILE).is_file():
        return StartingPoint(TrainConfig.load(Path(source)), starting_weights(Path(source)))
    bundle = Bundle.load(source)
    parent: dict[str, Json] = {
        "name": bundle.name,
        "sha256": bundle.checksum,
        "diffusion": bundle.to_json()["diffusion"],
        **{key: bundle.provenance[key] for key in ("data", "parent") if key in bundle.provenance},
    }
    config = dataclasses.replace(training_config(bundle), name=bundle.name, parent=parent)
    return StartingPoint(config, load_bundle_model(bundle).unfolded())


def training_config(bundle: Bundle) -> TrainConfig:
    """Return how a bundle's network was trained. Raises InputError where it doesn't say, or in unknown fields."""
    from x2ct.training import TrainConfig

    training = bundle.provenance.get("training")
    if not isinstance(training, Mapping):
        expected = "the configuration of the training, as x2ct export writes it"
        raise InputError.of(bundle.path, "provenance.training", found=type(training).__name__, expected=expected)
    return TrainConfig.from_json(dict(training), f"{bundle.path}: provenance.training")


def _read(model: onnx.ModelProto) -> tuple[Any, Stored]:
    """Return what two graphs of one network have in common, and the stored tensors by who reads them."""
    import onnx

    from x2ct.export.onnxgraph import folded

    graph = folded(model).graph
    arrays = {tensor.name: np.asarray(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    reads = [((n, place), name) for n, node in enumerate(graph.node) for place, name in enumerate(node.input)]
    stored = {at: arrays[name] for at, name in reads if name in arrays}
    return ([node.op_type for node in graph.node], {at: one.shape for at, one in stored.items()}), stored


_KINDS = ("plain", "number", "high", "low")


class _Probes:
    """Made-up weights: random ones, and those times each weight's number, and times each entry's two digits."""

    def __init__(self, folded: X2CTModel) -> None:
        rng = np.random.default_rng(0)
        parameters = folded.named_parameters()
        self._folded = folded
        self._plain = {name: rng.uniform(0.5, 1.5, tuple(value.shape)) for name, value in parameters}

    def network(self, kind: str) -> X2CTModel:
        """Return a copy of the network with the probe of one kind as its weights."""
        import torch

        probe = copy.deepcopy(self._folded)
        with torch.no_grad():
            for number, (name, parameter) in enumerate(probe.named_parameters()):
                index = np.arange(parameter.numel()).reshape(parameter.shape)
                factors = {"plain": 1, "number": number + 2, "high": index // DIGIT + 1, "low": index % DIGIT + 1}
                parameter.copy_(torch.from_numpy(self._plain[name] * np.asarray(factors[kind])))
        return probe

    def weights(self, source: str, stored: Stored, traced: Sequence[Stored]) -> dict[str, Array]:
        """Return the weights that a graph's stored tensors hold, by name; `traced` are those of each probe."""
        names, weights = list(self._plain), dict[str, Array]()
        for place, values in stored.items():
            plain, number, high, low = (probe[place].astype(np.float64) for probe in traced)
            if np.array_equal(plain, number):
                scale = np.abs(plain).max(initial=1e-30)
                if np.abs(values - plain).max(initial=0.0) > CONSTANT_TOLERANCE * scale:
                    raise _foreign(source, f"another constant for node {place[0]}")
                continue
            name = names[round(float((number / plain).flat[0])) - 2]
            target = weights.setdefault(name, np.full(self._plain[name].shape, np.nan, np.float32))
            missing = np.isnan(target)
            if place[1] == 2 and not missing.all() and missing.any():
                self._bias(name, target, values, plain)
                continue
            index = ((np.rint(high / plain) - 1) * DIGIT + np.rint(low / plain) - 1).astype(np.int64)
            target.flat[index] = values / (plain / self._plain[name].flat[index])
        return weights

    def _bias(self, name: str, target: Array, values: npt.NDArray[np.generic], plain: npt.NDArray[np.float64]) -> None:
        """Set the last input channel, which saw ones: only its sum is known, and that its row has the norm of all rows.

        The entries are the mean and, in turn, as much above and below it as that norm asks for.
        """
        layer = self._folded.get_submodule(name.rpartition(".")[0])
        cells = target[:, -1].reshape(len(target), -1)
        count = cells.shape[1]
        sums = np.asarray(values, np.float64) * self._plain[name][:, -1].reshape(cells.shape).sum(1) / plain
        mean = sums / count
        squares = np.square(target[:, :-1].reshape(len(target), -1).astype(np.float64)).sum(1)
        whole = (float(layer.scale) ** 2) * target[0].size  # type: ignore[arg-type]
        spread = np.sqrt(np.maximum((whole - squares) / count - mean**2, 0.0)) if count % 2 == 0 else 0 * mean
        signs = np.where(np.arange(count) % 2, -1.0, 1.0)
        target[:, -1] = (mean[:, None] + spread[:, None] * signs).reshape(target[:, -1].shape)


def _foreign(source: str | os.PathLike[str], found: str) -> InputError:
    expected = "the network that this version builds from provenance.training"
    return InputError.of(source, "graph", found=found, expected=expected, hint="export it with this version")
