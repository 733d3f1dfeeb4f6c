"""What the machine itself can do, measured in the same run: its matrix rate in a backend and precision, its copy rate.

The matrix rate is the better one of two chains that are as friendly to a runtime as a network can be: large products of
matrices, and 3^3 convolutions of many channels. They go through the same runtime as the bundle's networks, so that the
share that a network achieves says what the network leaves lying, not what the runtime does.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.benchmark.flops import count
from x2ct.benchmark.graph import read_graph
from x2ct.protowire import write
from x2ct.runtimes import choose

FloatArray = npt.NDArray[np.float32]

_IR_VERSION, _OPSET, _FLOAT = 8, 18, 1
COPY_BYTES = 256 << 20


@dataclass(frozen=True)
class Place:
    """Where networks run: a backend, a device of it, and how many threads (0 leaves it to the runtime)."""

    backend: str = "auto"
    device: str = "cpu"
    threads: int = 0


@dataclass(frozen=True)
class Size:
    """How large the probes are; the defaults keep a processor of many cores busy."""

    rows: int = 1024
    width: int = 2048
    products: int = 8
    channels: int = 128
    side: int = 32
    convolutions: int = 4


def matrix_rate(place: Place, precision: str, repeats: int = 5, size: Size | None = None) -> dict[str, Any]:
    """FLOP per second of both chains, and the better one; medians.

    Raises:
        MissingRuntimeError: the backend or the precision is not here.
    """
    size, random = size or Size(), np.random.default_rng(0)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="x2ct-rate-") as folder:
        for name, (model, shape) in {
            "products": product_chain(size, random),
            "convolutions": convolution_chain(size, random),
        }.items():
            path = Path(folder) / f"{name}.onnx"
            path.write_bytes(model)
            network = load(path, {"h0": list(shape)}, place, precision)
            given = {"h0": random.standard_normal(shape, np.float32)}
            seconds = median_s(lambda network=network, given=given: network(given), repeats)  # type: ignore[misc]
            found[name] = count(read_graph(path), {"h0": shape}).matrix_flop / seconds
    best = max(found, key=lambda name: found[name])
    return {"flop_per_s": found[best], "by": best, "each": found, "precision": network.precision, "repeats": repeats}


def copy_rate(threads: int, repeats: int = 5, size: int = COPY_BYTES) -> dict[str, Any]:
    """Bytes per second of a large copy, read and written counted, by as many threads; the median."""
    workers = threads or len(_affinity())
    source, target = np.ones(size // 4, np.float32), np.zeros(size // 4, np.float32)
    parts = [slice(size // 4 * i // workers, size // 4 * (i + 1) // workers) for i in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        seconds = median_s(lambda: list(pool.map(lambda part: np.copyto(target[part], source[part]), parts)), repeats)
    return {"bytes_per_s": 2 * size / seconds, "bytes": size, "threads": workers, "repeats": repeats}


def load(
    path: Path, shapes: Mapping[str, list[int]], place: Place, precision: str, profile: bool = False
) -> _core.Network:
    """A network out of an ONNX file. Raises X2CTError."""
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
    """The median time of a call, in seconds, after two that warm up."""
    call()
    call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _affinity() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


# ------------------------------------------------------------------------------------------------ the probes' graphs


def product_chain(size: Size, random: np.random.Generator) -> tuple[bytes, tuple[int, ...]]:
    """A chain of products with square matrices, narrow at both ends, where data comes and goes in float32."""
    widths = [16, *[size.width] * (size.products + 1), 16]
    weights = [_weight(random, (a, b), a) for a, b in pairwise(widths)]
    nodes = [_node("MatMul", f"h{i}", f"w{i}", f"h{i + 1}") for i in range(len(weights))]
    return _model(nodes, weights, (size.rows, 16), (size.rows, 16)), (size.rows, 16)


def convolution_chain(size: Size, random: np.random.Generator) -> tuple[bytes, tuple[int, ...]]:
    """A chain of 3^3 convolutions, narrow at both ends."""
    widths = [8, *[size.channels] * (size.convolutions + 1), 8]
    weights, nodes = [], []
    for i, (a, b) in enumerate(pairwise(widths)):
        side = 1 if i in (0, len(widths) - 2) else 3
        weights.append(_weight(random, (b, a, side, side, side), a * side**3))
        nodes.append(_node("Conv", f"h{i}", f"w{i}", f"h{i + 1}", pads=[side // 2] * 6))
    shape = (1, 8, size.side, size.side, size.side)
    return _model(nodes, weights, shape, shape), shape


def _weight(random: np.random.Generator, shape: tuple[int, ...], inputs: int) -> FloatArray:
    return random.standard_normal(shape, np.float32) / np.float32(np.sqrt(inputs))


def _node(op: str, x: str, weight: str, y: str, **lists: list[int]) -> bytes:
    attributes = b"".join(
        write(5, write(1, name) + b"".join(write(8, value) for value in values) + write(20, 7))
        for name, values in lists.items()
    )
    return write(1, write(1, x) + write(1, weight) + write(2, y) + write(3, y) + write(4, op) + attributes)


def _model(nodes: list[bytes], weights: list[FloatArray], given: tuple[int, ...], made: tuple[int, ...]) -> bytes:
    """A model of a chain h0 -> h1 -> ... , as a file."""
    last = f"h{len(nodes)}"
    chain = b"".join(nodes)
    initializers = b"".join(
        write(
            5,
            b"".join(write(1, extent) for extent in weight.shape)
            + write(2, _FLOAT)
            + write(8, f"w{i}")
            + write(9, weight.tobytes()),
        )
        for i, weight in enumerate(weights)
    )
    graph = chain + write(2, "rate") + initializers + write(11, _port("h0", given)) + write(12, _port(last, made))
    return write(1, _IR_VERSION) + write(7, graph) + write(8, write(1, "") + write(2, _OPSET))


def _port(name: str, shape: tuple[int, ...]) -> bytes:
    extents = b"".join(write(1, write(1, extent)) for extent in shape)
    return write(1, name) + write(2, write(1, write(1, _FLOAT) + write(2, extents)))
