"""Each network's counted FLOP and bytes against what the machine can do, and where the denoiser's time goes.

A network can't be faster than its matrix FLOP at the measured matrix rate, nor than its least bytes at the measured
copy rate; the longer of the two is its bound, and its achieved share is bound over measured time. Bytes that stay in a
cache move faster than a copy of hundreds of megabytes does, so that a memory-bound share may pass 100%.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.benchmark.flops import GraphCost, count
from x2ct.benchmark.graph import read_graph
from x2ct.benchmark.rates import COPY_BYTES, Place, Size, copy_rate, load, matrix_rate, median_s
from x2ct.bundle import Bundle, Network
from x2ct.errors import MissingRuntimeError, X2CTError

TARGET = 0.70
"""Of the measured matrix rate: a network below it gets the list of layers that fall short."""

_OPENS_ONNX = ("auto", "openvino", "onnxruntime")
_BYTES = {"f32": 4, "tf32": 4, "bf16": 2, "f16": 2}

Arrays = dict[str, npt.NDArray[np.float32]]


def roofline(
    bundle: Bundle,
    pairs: Sequence[tuple[str, str]],
    *,
    grid: tuple[int, int, int] | None = None,
    device: str = "cpu",
    threads: int = 0,
    repeats: int = 7,
    size: Size | None = None,
    copy_bytes: int = COPY_BYTES,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the machine and the networks, in one process.

    Args:
        bundle: the model.
        pairs: backend and precision of the denoiser; encoder and lift compute in f32 whatever it computes in.
        grid: voxels; by default the model's.
        device: where.
        threads: of the runtimes.
        repeats: of each network and rate, after two runs that warm up.
        size: of the probes.
        copy_bytes: of the copy.
        say: told what is being done.

    Returns:
        The rates, the `graphs`, and in `missing` the pairs that could not be measured, each with its reason.
    """
    patch = grid or bundle.grid.shape
    say("copy rate")
    copy = copy_rate(threads, repeats, copy_bytes)
    rates: dict[tuple[str, str], dict[str, Any]] = {}
    rows, missing = list[dict[str, Any]](), list[str]()
    for backend, precision in pairs:
        if backend not in _OPENS_ONNX:
            missing.append(f"{backend} {precision}: it opens no ONNX graph, through which a machine's rate is measured")
            continue
        if precision == "int8":
            missing.append(f"{backend} int8: convolutions compute in 8 bits, the rest does not: no one rate holds")
            continue
        place = Place(backend, device, threads)
        try:
            for spec, used in _graphs(bundle, precision, whole=backend not in [row["backend"] for row in rows]):
                if (backend, used) not in rates:
                    say(f"{backend} {used}: matrix rate")
                    rates[backend, used] = matrix_rate(place, used, repeats, size)
                say(f"{backend} {used}: {spec.file}")
                measured = _Graph(bundle, spec, place, used, patch)
                rows.append(measured.row(repeats, rates[backend, used], copy))
        except X2CTError as error:
            missing.append(f"{backend} {precision}: {error}")
    facts = {"grid": list(patch), "device": device, "threads": threads, "copy_rate": copy}
    return {**facts, "graphs": rows, "missing": missing}


def _graphs(bundle: Bundle, precision: str, whole: bool) -> list[tuple[Network, str]]:
    """The denoiser in its precision; and encoder and lift, always in f32."""
    networks = bundle.networks
    return [*([(networks.encoder, "f32"), (networks.lift, "f32")] if whole else []), (networks.denoiser, precision)]


class _Graph:
    """One network at one place."""

    def __init__(
        self, bundle: Bundle, spec: Network, place: Place, precision: str, patch: tuple[int, int, int]
    ) -> None:
        self.spec, self.place, self.precision = spec, place, precision
        self.path = bundle.file_of(spec)
        self.is_denoiser = spec is bundle.networks.denoiser
        self.shapes = {tensor.name: input_shape(tensor.shape, patch) for tensor in spec.inputs}
        self.given = _inputs(self.shapes)
        self.cost = count(read_graph(self.path), self.shapes)

    def row(self, repeats: int, rate: dict[str, Any], copy: dict[str, Any]) -> dict[str, Any]:
        """Its costs, its time, and the shares."""
        network = load(self.path, self.shapes, self.place, self.precision)
        seconds = median_s(lambda: network(self.given), repeats)
        width, cost = _BYTES[network.precision], self.cost
        row = {
            "graph": self.spec.file,
            "backend": self.place.backend,
            "precision": network.precision,
            "runtime": network.runtime_version,
            "matrix_flop": cost.matrix_flop,
            "other_flop": cost.other_flop,
            "weight_bytes": cost.weight_elements * width,
            "bytes": cost.bytes_fused(width),
            "unfused_bytes": cost.bytes_unfused(width),
            "matrix_rate": rate,
            **_share(cost, seconds, width, rate["flop_per_s"], copy["bytes_per_s"]),
        }
        return row | self._layers(rate["flop_per_s"]) if self.is_denoiser else row

    def _layers(self, flop_per_s: float) -> dict[str, Any]:
        """The layers of one profiled evaluation, longest first: what each achieves, and its time above its bound."""
        network = load(self.path, self.shapes, self.place, self.precision, profile=True)
        try:
            told = _least_of(network, self.given, 3)
        except MissingRuntimeError as error:
            return {"layers": [], "no_layers": str(error)}
        flop = {node.name: node.matrix_flop for node in self.cost.nodes if node.matrix_flop}
        layers = []
        for layer in told:
            own, ms = flop.get(layer["name"], 0), layer["ms"]
            ideal_ms = 1e3 * own / flop_per_s
            share = ideal_ms / ms if own and ms > 0 else None
            layers.append({**layer, "matrix_flop": own, "matrix_share": share, "lost_ms": max(0.0, ms - ideal_ms)})
        return {"layers": sorted(layers, key=lambda layer: -float(layer["ms"]))}


def _share(cost: GraphCost, seconds: float, width: int, flop_per_s: float, bytes_per_s: float) -> dict[str, Any]:
    matrix_s, copy_s = cost.matrix_flop / flop_per_s, cost.bytes_fused(width) / bytes_per_s
    return {
        "evaluation_s": seconds,
        "flop_per_s": cost.matrix_flop / seconds,
        "bytes_per_s": cost.bytes_fused(width) / seconds,
        "matrix_share": matrix_s / seconds,
        "copy_share": copy_s / seconds,
        "bound": "matrix" if matrix_s >= copy_s else "copy",
        "achieved_share": max(matrix_s, copy_s) / seconds,
    }


def _least_of(network: _core.Network, given: Arrays, repeats: int) -> list[_core.LayerInfo]:
    """The profile of the fastest of a few evaluations, the first left out."""
    network(given)
    profiles = []
    for _ in range(repeats):
        network(given)
        profiles.append(network.profile())
    return min(profiles, key=lambda layers: sum(layer["ms"] for layer in layers))


def input_shape(declared: Sequence[int | str], patch: tuple[int, int, int]) -> list[int]:
    """An input's declared shape, such as ["N", 96, "X/4", "Y/4", "Z/4"], for one volume of a patch."""
    sizes = {"N": 1, **dict(zip("XYZ", patch, strict=True))}

    def size(axis: int | str) -> int:
        if isinstance(axis, int):
            return axis
        letter, _, factor = axis.partition("/")
        return sizes[letter] // int(factor or 1)

    return [size(axis) for axis in declared]


def _inputs(shapes: Mapping[str, list[int]]) -> Arrays:
    """Something for each input; what it costs does not depend on it, as long as it is of a usual size."""
    random = np.random.default_rng(0)
    given = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return given | {name: np.abs(given[name]) + np.float32(0.5) for name in ("sigma", "valid") if name in given}
