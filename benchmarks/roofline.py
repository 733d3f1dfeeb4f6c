"""How near each network comes to what the machine can do, and where the denoiser's time goes.

    python benchmarks/roofline.py chest --threads 2 -o benchmarks/results/roofline
    python benchmarks/roofline.py chest --sweep precision=f32,bf16 --sweep grid=64

FLOP and bytes are counted from the ONNX graph (benchmarks/flops.py). In the same run the machine shows what it can do:
its matrix rate through the same runtime and precision, the better of a chain of large products and a chain of 3^3
convolutions, and the rate of a copy of 256 MiB. A network can't be faster than its matrix FLOP at the one, nor than its
least bytes at the other; the longer of the two is its bound, and its share is bound over measured time. Bytes that stay
in a cache move faster than such a copy does, so that a memory-bound share may pass 100%. The denoiser's layers are
those of the runtime's own profile, which only OpenVINO has.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from benchmarks.flops import GraphCost, count
from x2ct import _core
from x2ct.benchmark import document
from x2ct.benchmark.cases import cases_of
from x2ct.benchmark.document import ms, page
from x2ct.bundle import Bundle, Network
from x2ct.errors import MissingRuntimeError, X2CTError
from x2ct.io.report import Table
from x2ct.runtimes.discovery import choose

TARGET = 0.70
"""Share of the measured matrix rate that a denoiser should reach."""
COPY_BYTES = 256 << 20

_LAYERS = 12
_OPENS_ONNX = ("auto", "openvino", "onnxruntime")
_BYTES = {"f32": 4, "tf32": 4, "bf16": 2, "f16": 2}

Arrays = dict[str, npt.NDArray[np.float32]]
Rate = dict[str, Any]


def main() -> None:
    """Print the tables and write them as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="chest")
    parser.add_argument("-o", "--output", type=Path, help="NAME: writes NAME.json and NAME.md")
    parser.add_argument(
        "--sweep", action="append", default=[], help="backend=, precision=, grid=, as x2ct bench has it"
    )
    parser.add_argument("--threads", type=int, default=0, help="of the runtimes; 0 leaves it to them")
    options = parser.parse_args()
    bundle, cases = Bundle.load(options.bundle), cases_of(options.sweep, options.threads, plain=False)
    session = document.Session(bundle, options.threads)
    pairs = list(dict.fromkeys((case.backend, case.precision) for case in cases))
    result = roofline(bundle, pairs, grid=cases[0].grid, threads=options.threads, say=print)
    figures = session.facts() | result
    if options.output:
        document.write(figures, markdown(figures), options.output)
    print(markdown(figures))


# ------------------------------------------------------------------------------------------------ the machine's rates


@dataclass(frozen=True)
class Place:
    """Where networks run: a backend, a device of it, and how many threads (0 leaves it to the runtime)."""

    backend: str = "auto"
    device: str = "cpu"
    threads: int = 0


@dataclass(frozen=True)
class Size:
    """The size of the chains; the defaults keep a processor of many cores busy."""

    rows: int = 1024
    width: int = 2048
    products: int = 8
    channels: int = 128
    side: int = 32
    convolutions: int = 4


def matrix_rate(place: Place, precision: str, repeats: int = 5, size: Size | None = None) -> Rate:
    """Return the FLOP per second of both chains, and the better one; medians.

    Raises:
        MissingRuntimeError: the backend or the precision is not here.
    """
    size, random = size or Size(), np.random.default_rng(0)
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="x2ct-rate-") as folder:
        for name, chain in {"products": product_chain, "convolutions": convolution_chain}.items():
            path = Path(folder) / f"{name}.onnx"
            shape = chain(path, size, random)
            network = load(path, {"h0": list(shape)}, place, precision)
            values = {"h0": random.standard_normal(shape, np.float32)}
            seconds = median_s(lambda network=network, values=values: network(values), repeats)  # type: ignore[misc]
            rates[name] = count(path, {"h0": shape}).matrix_flop / seconds
    best = max(rates, key=lambda name: rates[name])
    return {"flop_per_s": rates[best], "by": best, "each": rates, "precision": network.precision, "repeats": repeats}


def copy_rate(threads: int, repeats: int = 5, size: int = COPY_BYTES) -> Rate:
    """Return the bytes per second of a large copy, read and written counted, by as many threads; the median."""
    workers = threads or len(os.sched_getaffinity(0))
    source, target = np.ones(size // 4, np.float32), np.zeros(size // 4, np.float32)
    parts = [slice(size // 4 * i // workers, size // 4 * (i + 1) // workers) for i in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        seconds = median_s(lambda: list(pool.map(lambda part: np.copyto(target[part], source[part]), parts)), repeats)
    return {"bytes_per_s": 2 * size / seconds, "bytes": size, "threads": workers, "repeats": repeats}


def load(
    path: Path, shapes: Mapping[str, list[int]], place: Place, precision: str, profile: bool = False
) -> _core.Network:
    """Load a network from an ONNX file. Raises X2CTError."""
    choice = choose(place.device, place.backend, precision)
    return _core.Network(
        str(path),
        backend=choice.backend,
        device=choice.device,
        precision=precision,
        threads=place.threads,
        shapes=dict(shapes),
        runtime_dir=choice.runtime_dir,
        profile=profile,
    )


def median_s(call: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call in seconds, after two calls that warm up."""
    seconds = []
    for _ in range(2 + repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[2:]))


def product_chain(path: Path, size: Size, random: np.random.Generator) -> tuple[int, ...]:
    """Write a chain of products with square matrices, narrow at both ends, and return the shape of its input h0."""
    widths = [16, *[size.width] * (size.products + 1), 16]
    weights = [random.standard_normal((a, b), np.float32) / np.float32(np.sqrt(a)) for a, b in pairwise(widths)]
    return _write_chain(path, "MatMul", weights, (size.rows, 16))


def convolution_chain(path: Path, size: Size, random: np.random.Generator) -> tuple[int, ...]:
    """Write a chain of 3^3 convolutions, narrow at both ends, and return the shape of its input h0."""
    widths = [8, *[size.channels] * (size.convolutions + 1), 8]
    weights = []
    for i, (a, b) in enumerate(pairwise(widths)):
        side = 1 if i in (0, len(widths) - 2) else 3
        shape = (b, a, side, side, side)
        weights.append(random.standard_normal(shape, np.float32) / np.float32(np.sqrt(a * side**3)))
    return _write_chain(path, "Conv", weights, (1, 8, size.side, size.side, size.side))


def _write_chain(
    path: Path, op: str, weights: Sequence[npt.NDArray[np.float32]], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Write h0 -> h1 -> ... of one operator; input and output have the same shape."""
    nodes = [
        helper.make_node(
            op,
            [f"h{i}", f"w{i}"],
            [f"h{i + 1}"],
            name=f"h{i + 1}",
            **({"pads": [weight.shape[-1] // 2] * 6} if op == "Conv" else {}),
        )
        for i, weight in enumerate(weights)
    ]
    ends = [helper.make_tensor_value_info(f"h{i}", onnx.TensorProto.FLOAT, shape) for i in (0, len(nodes))]
    initializers = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "rate", ends[:1], ends[1:], initializers)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)]), path)
    return shape


# ------------------------------------------------------------------------------------------------ the networks


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
        size: of the chains.
        copy_bytes: of the copy.
        say: is called with a line on what is being done.

    Returns:
        The rates, the `graphs`, and in `missing` the pairs that could not be measured, each with its reason.
    """
    patch = grid or bundle.grid.shape
    say("copy rate")
    copy = copy_rate(threads, repeats, copy_bytes)
    rates: dict[tuple[str, str], Rate] = {}
    rows, missing = list[dict[str, Any]](), list[str]()
    networks = bundle.networks
    for backend, precision in pairs:
        if backend not in _OPENS_ONNX:
            missing.append(f"{backend} {precision}: it opens no ONNX graph, through which a machine's rate is measured")
            continue
        if precision == "int8":
            missing.append(f"{backend} int8: convolutions compute in 8 bits, the rest does not: no one rate holds")
            continue
        place = Place(backend, device, threads)
        first = backend not in [row["backend"] for row in rows]
        graphs = [(networks.encoder, "f32"), (networks.lift, "f32")] if first else []
        try:
            for spec, used in [*graphs, (networks.denoiser, precision)]:
                if (backend, used) not in rates:
                    say(f"{backend} {used}: matrix rate")
                    rates[backend, used] = matrix_rate(place, used, repeats, size)
                say(f"{backend} {used}: {spec.file}")
                graph = _Graph(bundle, spec, place, used, patch)
                rows.append(graph.row(repeats, rates[backend, used], copy))
        except X2CTError as error:
            missing.append(f"{backend} {precision}: {error}")
    facts = {"grid": list(patch), "device": device, "threads": threads, "copy_rate": copy}
    return {**facts, "graphs": rows, "missing": missing}


class _Graph:
    """One network at one place."""

    def __init__(
        self, bundle: Bundle, spec: Network, place: Place, precision: str, patch: tuple[int, int, int]
    ) -> None:
        self.spec, self.place, self.precision = spec, place, precision
        self.path = bundle.file_of(spec)
        self.is_denoiser = spec is bundle.networks.denoiser
        self.shapes = {tensor.name: input_shape(tensor.shape, patch) for tensor in spec.inputs}
        self.inputs = _inputs(self.shapes)
        self.cost = count(self.path, self.shapes)

    def row(self, repeats: int, rate: Rate, copy: Rate) -> dict[str, Any]:
        """Return its costs, its time, and the shares."""
        network = load(self.path, self.shapes, self.place, self.precision)
        seconds = median_s(lambda: network(self.inputs), repeats)
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
        """Return the layers of the fastest of three profiled evaluations, longest first."""
        network = load(self.path, self.shapes, self.place, self.precision, profile=True)
        profiles = []
        try:
            for _ in range(4):
                network(self.inputs)
                profiles.append(network.profile())
        except MissingRuntimeError as error:
            return {"layers": [], "no_layers": str(error)}
        flop = {node.name: node.matrix_flop for node in self.cost.nodes if node.matrix_flop}
        layers = []
        for layer in min(profiles[1:], key=lambda layers: sum(layer["ms"] for layer in layers)):
            own, milliseconds = flop.get(layer["name"], 0), layer["ms"]
            ideal = 1e3 * own / flop_per_s
            share = ideal / milliseconds if own and milliseconds > 0 else None
            lost = max(0.0, milliseconds - ideal)
            layers.append({**layer, "matrix_flop": own, "matrix_share": share, "lost_ms": lost})
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


def input_shape(declared: Sequence[int | str], patch: tuple[int, int, int]) -> list[int]:
    """Return an input's declared shape, such as ["N", 96, "X/4", "Y/4", "Z/4"], for one volume of a patch."""
    sizes = {"N": 1, **dict(zip("XYZ", patch, strict=True))}

    def size(axis: int | str) -> int:
        if isinstance(axis, int):
            return axis
        letter, _, factor = axis.partition("/")
        return sizes[letter] // int(factor or 1)

    return [size(axis) for axis in declared]


def _inputs(shapes: Mapping[str, list[int]]) -> Arrays:
    """Return random values of a usual size for each input; the cost does not depend on them."""
    random = np.random.default_rng(0)
    values = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return values | {name: np.abs(values[name]) + np.float32(0.5) for name in ("sigma", "valid") if name in values}


# ------------------------------------------------------------------------------------------------ tables


def percent(value: float | None) -> str:
    """Return a share in percent."""
    return "-" if value is None else f"{100 * value:.1f}%"


def markdown(figures: dict[str, Any]) -> str:
    """Return the figures as a page of Markdown."""
    return page("roofline", figures, tables(figures))


def tables(result: dict[str, Any]) -> list[Table]:
    """Return how near the networks come to what the machine can do, and then their layers."""
    rows = [
        [
            f"{row['graph']}, {row['backend']} {row['precision']}",
            f"{row['matrix_flop'] / 1e9:.2f}",
            f"{row['other_flop'] / 1e9:.3f}",
            f"{row['bytes'] / 1e6:.0f} / {row['unfused_bytes'] / 1e6:.0f}",
            ms(row["evaluation_s"]),
            f"{row['flop_per_s'] / 1e9:.0f} of {row['matrix_rate']['flop_per_s'] / 1e9:.0f}",
            f"{row['bytes_per_s'] / 1e9:.1f} of {result['copy_rate']['bytes_per_s'] / 1e9:.1f}",
            row["bound"],
            percent(row["achieved_share"]),
        ]
        for row in result["graphs"]
    ]
    notes = [
        f"Grid {' x '.join(map(str, result['grid']))}. Matrix GFLOP are two for each multiply-add; MB are the least "
        "that must move / what moves if nothing is fused. The rates are achieved, of those that the machine showed in "
        "the same run: the better of a chain of matrix products and one of 3^3 convolutions through the same runtime "
        f"and precision, and a copy of {result['copy_rate']['bytes'] >> 20} MiB by {result['copy_rate']['threads']} "
        "threads, read and written counted. The share is of whichever bounds.",
        *(f"Not measured: {reason}." for reason in result["missing"]),
    ]
    columns = ["graph", "GFLOP", "other", "MB least / unfused", "ms", "GFLOP/s", "GB/s", "bound by", "share"]
    return [Table("Roofline", columns, rows, notes), *(_layers(row) for row in result["graphs"] if "layers" in row)]


def _layers(row: dict[str, Any]) -> Table:
    title = f"Layers of {row['graph']}, {row['backend']} {row['precision']}"
    if not row["layers"]:
        return Table(title, ["layer"], [], [str(row.get("no_layers", "none told"))])
    total = sum(layer["ms"] for layer in row["layers"])
    rows = [
        [
            layer["name"],
            layer["type"],
            layer["kernel"],
            f"{layer['ms']:.2f}",
            percent(layer["ms"] / total),
            f"{layer['matrix_flop'] / 1e9:.2f}" if layer["matrix_flop"] else "-",
            percent(layer["matrix_share"]),
            f"{layer['lost_ms']:.2f}",
        ]
        for layer in row["layers"][:_LAYERS]
    ]
    matrix = sum(layer["ms"] for layer in row["layers"] if layer["matrix_flop"])
    verdict = "at or above" if row["matrix_share"] >= TARGET else "below"
    notes = [
        f"In all {percent(row['matrix_share'])} of the measured matrix rate, {verdict} the {100 * TARGET:.0f}% aimed "
        f"at. One profiled evaluation of {total:.1f} ms (profiling costs time itself): {percent(matrix / total)} in "
        "layers that multiply matrices. Above its bound: what a layer takes beyond its FLOP at the matrix rate; all of "
        f"it for a layer that has none. The longest {len(rows)} of {len(row['layers'])}."
    ]
    columns = ["layer", "type", "kernel", "ms", "of all", "GFLOP", "of the matrix rate", "ms above its bound"]
    return Table(title, columns, rows, notes)


if __name__ == "__main__":
    main()
