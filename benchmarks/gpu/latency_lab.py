"""Where the time of an evaluation goes on a GPU, in PyTorch alone: convolutions, launches, the loop.

    python benchmarks/gpu/latency_lab.py chest -o results/lab                   # less than a minute on a GPU
    python benchmarks/gpu/latency_lab.py chest -o results/lab --device cpu --shape 32,32,32 --rounds 1

For each grid:

- every shape of convolution in the denoiser, in bf16 through cuDNN, with channels last (NDHWC) and first (NCDHW): the
  time of one, and its share of the matrix rate that a large product reaches in the same run; and all of them together;
- the loop of six evaluations: each operator launched by itself (eager), as one CUDA graph (captured), and as a CUDA
  graph of what PyTorch's compiler makes of it (compiled), of X-rays that were encoded and lifted before (cached) and of
  others (fresh); how many kernels there are, how long the GPU idles between them, and the longest gap;
- the kernels that take the longest in the captured loop.

The next step is chosen by these: wider channels where convolutions reach too small a share, fused kernels where other
kernels take the time, graphs where gaps do. What the deadline leaves no time for, and what a device can't do, is
listed. The result is written after each measurement. Times are medians over the rounds, by the GPU's clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # works in a checkout, installed or not

import onnx
import torch
from torch import Tensor

from x2ct.bundle import Bundle, Network
from x2ct.errors import MissingRuntimeError
from x2ct.export.precision import typed
from x2ct.export.torchgraph import OnnxModule
from x2ct.io.report import markdown_table
from x2ct.jobs.options import parse_shape

SHAPES = ("128,128,128", "256,256,160")
EVALUATIONS = 6
MODES = ("eager", "captured", "compiled")
COMPILING_S = 25.0
"""Left until the deadline, below which the compiler is not started."""
LAYOUTS = {"NDHWC": torch.channels_last_3d, "NCDHW": torch.contiguous_format}
KERNELS = 12
TARGET_SHARE = 0.5
"""Of the matrix rate, that all convolutions together are to reach on an H200 at 256 x 256 x 160."""

Shape = tuple[int, int, int]
Work = Callable[[], Any]


def main() -> None:
    """Print the tables and write them as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="chest")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="bf16", help="of the denoiser: bf16, f16 or f32")
    parser.add_argument("--shape", nargs="+", default=SHAPES, help="X,Y,Z")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=55.0, help="until the deadline")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"latency_lab.py: error: device {args.device}: PyTorch {torch.__version__} finds no GPU", file=sys.stderr)
        sys.exit(MissingRuntimeError.exit_code)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    lab = Lab(args, time.monotonic() + args.seconds)
    with torch.inference_mode():
        lab.measure([parse_shape(shape) for shape in args.shape])
    print(markdown(lab.result))


class Lab:
    """The measurements, in the order of their worth; `result` is the JSON."""

    def __init__(self, args: argparse.Namespace, deadline: float) -> None:
        self.args, self.deadline = args, deadline
        self.device = torch.device(args.device)
        self.clock = Clock(self.device, args.rounds)
        self.dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[args.precision]
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.bundle = Bundle.load(args.bundle)
        self.networks = dict(self.bundle.networks.items())
        self.modules = {name: self._module(network, name) for name, network in self.networks.items()}
        on_gpu = self.device.type == "cuda"
        self.result: dict[str, Any] = {
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "CPU",
            "torch": torch.__version__,
            "cudnn": torch.backends.cudnn.version() if on_gpu else None,
            "precision": args.precision,
            "rounds": args.rounds,
            "evaluations": EVALUATIONS,
            "convolutions": [],
            "together": [],
            "loops": [],
            "kernels": [],
            "missing": {},
        }

    def _module(self, network: Network, name: str) -> OnnxModule:
        model = onnx.load(self.bundle.file_of(network))
        return OnnxModule(typed(model, self.args.precision).model if name == "denoiser" else model).eval()

    def measure(self, shapes: list[Shape]) -> None:
        """Measure everything; whatever is missing is a line of the result."""
        convolutions = {shape: self.convolutions(shape) for shape in shapes}  # on PyTorch's device without memory
        for name in self.modules:
            self.modules[name] = self.modules[name].to(self.device)
        self.result["matrix_tflops"] = round(self.matrix_rate() / 1e12, 4)
        for shape in shapes:
            for layout in LAYOUTS:
                for conv, count in convolutions[shape].items():
                    with self._noting(f"{conv} {layout}"):
                        self._require(1.0)
                        rows = self.result["convolutions"]
                        rows.append(self.convolution(shape, conv, count, layout))
                        self.result["together"] = together(rows, self.result["matrix_tflops"])
        for mode in self.args.modes:
            for shape in shapes:
                flop = sum(conv.flop * count for conv, count in convolutions[shape].items())
                with self._noting(f"{mode} {_text(shape)}"):
                    self._require(COMPILING_S if mode == "compiled" else 2.0)
                    self.loops(shape, mode, flop)

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Note what fails, and write the result so far."""
        try:
            yield
        except Exception as error:  # whatever it is, the other measurements go on
            text = str(error).strip().splitlines()
            self.result["missing"][what] = text[0] if text else type(error).__name__
        write(self.result, self.args.output)

    def _require(self, seconds: float) -> None:
        """Raise TimeoutError where fewer seconds are left."""
        if self.deadline - time.monotonic() < seconds:
            raise TimeoutError("the deadline was too near")

    # ------------------------------------------------------------------------------------------ the pieces

    def convolutions(self, shape: Shape) -> Counter[Conv]:
        """Return the denoiser's convolutions on a grid, and how often each occurs."""
        found: Counter[Conv] = Counter()
        plain = torch.nn.functional.conv3d

        def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], *others: Any) -> Tensor:
            found[Conv(tuple(x.shape[1:]), tuple(weight.shape), tuple(stride), tuple(others[0]))] += 1
            return plain(x, weight, bias, stride, *others)

        module = self._module(self.networks["denoiser"], "denoiser").to("meta")
        torch.nn.functional.conv3d = conv3d  # type: ignore[assignment]
        try:
            module(*self.inputs("denoiser", shape, "meta"))
        finally:
            torch.nn.functional.conv3d = plain
        return found

    def inputs(self, name: str, shape: Shape, device: torch.device | str) -> list[Tensor]:
        """Return one of each input of a network: noise, and matrices that project every voxel."""
        sides = {"N": 1, **dict(zip("XYZ", shape, strict=True))}

        def size(axis: int | str) -> int:
            letter, _, divisor = str(axis).partition("/")
            return int(letter) if letter.isdigit() else sides[letter] // int(divisor or 1)

        given = []
        for tensor in self.networks[name].inputs:
            sizes = [size(axis) for axis in tensor.shape]
            if tensor.name == "P":
                matrices = [torch.tensor(view.matrix, dtype=torch.float32) for view in self.bundle.geometry.views]
                given.append(torch.stack(matrices)[None].to(device))
            elif tensor.name in ("sigma", "valid"):
                given.append(torch.ones(sizes, device=device))
            else:
                given.append(torch.randn(sizes, device=device) * 0.5)
        return given

    def matrix_rate(self) -> float:
        """Return the FLOP a second of a large product in the denoiser's precision."""
        side = 8192 if self.device.type == "cuda" else 512
        a, b = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))
        return 2 * side**3 / self.clock.seconds(lambda: a @ b, repeats=5)

    def convolution(self, shape: Shape, conv: Conv, count: int, layout: str) -> dict[str, Any]:
        """Time one convolution in one layout."""
        memory_format = LAYOUTS[layout]
        x, weight = (
            torch.randn(sizes, device=self.device, dtype=self.dtype).contiguous(memory_format=memory_format)
            for sizes in ((1, *conv.input), conv.weight)
        )
        seconds = self.clock.seconds(
            lambda: torch.nn.functional.conv3d(x, weight, None, conv.stride, conv.padding), repeats=10
        )
        rate = conv.flop / seconds
        return {
            "shape": _text(shape),
            "convolution": str(conv),
            "count": count,
            "layout": layout,
            "us": round(1e6 * seconds, 2),
            "tflops": round(rate / 1e12, 2),
            "share": round(rate / 1e12 / self.result["matrix_tflops"], 4) if self.result["matrix_tflops"] else None,
        }

    def loops(self, shape: Shape, mode: str, flop: float) -> None:
        """Time the loop on one grid in one mode, of cached and of fresh X-rays; list the captured one's kernels."""
        if mode == "captured" and self.device.type != "cuda":
            raise RuntimeError("a CPU has no CUDA graphs")
        denoiser: Any = self.modules["denoiser"]
        if mode == "compiled":
            denoiser = torch.compile(denoiser, dynamic=False)
        x, _, *conditions = self.inputs("denoiser", shape, self.device)
        low, high = self.bundle.diffusion.sigma_min, self.bundle.diffusion.sigma_max
        ratio = (low / high) ** (1 / (EVALUATIONS - 1))
        sigmas = [torch.tensor([high * ratio**k], device=self.device) for k in range(EVALUATIONS)] + [
            torch.zeros(1, device=self.device)
        ]

        def loop(given: list[Tensor]) -> Tensor:
            state = x * sigmas[0]
            for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):  # Euler's step: D + s' / s (x - D)
                [denoised] = denoiser(state, sigma, *given)
                state = denoised + following / sigma * (state - denoised)
            return state

        views, valid = self.inputs("encoder", shape, self.device)
        _, matrices, coords, _ = self.inputs("lift", shape, self.device)

        def fresh() -> Tensor:
            [features] = self.modules["encoder"](views, valid)
            return loop(list(self.modules["lift"](features, matrices, coords, valid)))

        row: dict[str, Any] = {"shape": _text(shape), "mode": mode}
        for name, work in (("cached", lambda: loop(conditions)), ("fresh", fresh)):
            run = self.clock.recorded(work) if mode != "eager" else work
            row[f"{name}_ms"] = round(1e3 * self.clock.seconds(run, graph=False), 3)
            if name == "cached":
                loop_s = row["cached_ms"] * 1e-3
                achieved = EVALUATIONS * flop / loop_s / 1e12
                row["share"] = (
                    round(achieved / self.result["matrix_tflops"], 4) if self.result["matrix_tflops"] else None
                )
                kernels = self.clock.kernels(run)
                row |= gaps_of(kernels)
                if mode == "captured":
                    self.result["kernels"] += [{"shape": _text(shape), **one} for one in longest(kernels)]
        self.result["loops"].append(row)


@dataclass(frozen=True)
class Conv:
    """A convolution: the input's channels and voxels, the weight's sizes, stride and padding."""

    input: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def flop(self) -> float:
        """Two for each multiply-add."""
        outputs = [
            (size + 2 * pad - kernel) // step + 1
            for size, pad, kernel, step in zip(self.input[1:], self.padding, self.weight[2:], self.stride, strict=True)
        ]
        return 2.0 * math.prod(self.weight) * math.prod(outputs)

    def __str__(self) -> str:
        kernel = " x ".join(map(str, self.weight[2:])) + (f" / {self.stride[0]}" if self.stride[0] > 1 else "")
        return f"{self.weight[1]} to {self.weight[0]}, {kernel}, on {_text(self.input[1:])}"


class Clock:
    """Times work on a device; `rounds` times, of which the median counts."""

    def __init__(self, device: torch.device, rounds: int) -> None:
        self.on_gpu, self.rounds = device.type == "cuda", rounds

    def recorded(self, work: Work) -> Work:
        """Return what replays `work` from a CUDA graph; on a CPU, `work` itself."""
        if not self.on_gpu:
            return work
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries choose their kernels, the compiler compiles
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = work()  # the graph's memory is its result's

        def replay() -> Any:
            graph.replay()
            return kept

        return replay

    def seconds(self, work: Work, repeats: int = 1, *, graph: bool = True) -> float:
        """Return the seconds of one; as a graph of `repeats` of them, so that no launch is between."""
        if not self.on_gpu:
            work()
            times = []
            for _ in range(self.rounds):
                started = time.perf_counter()
                work()
                times.append(time.perf_counter() - started)
            return statistics.median(times)
        run = self.recorded(lambda: [work() for _ in range(repeats)][-1]) if graph else work
        for _ in range(3):
            run()
        times = []
        for _ in range(self.rounds):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e-3)
        return statistics.median(times) / repeats if graph else statistics.median(times)

    def kernels(self, work: Work) -> list[tuple[str, float, float]]:
        """Return the name, begin and end in microseconds of each kernel of one run; none on a CPU."""
        if not self.on_gpu:
            return []
        activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profile:
            work()
            torch.cuda.synchronize()
        found = [
            (event.name, float(event.time_range.start), float(event.time_range.end))
            for event in profile.events() or ()
            if event.device_type == torch.autograd.DeviceType.CUDA
        ]
        return sorted(found, key=lambda one: one[1])


def gaps_of(kernels: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Return how many kernels there were, how long the GPU idled between them in all, and the longest gap, in us."""
    if not kernels:
        return {"launches": None, "idle_us": None, "longest_gap_us": None}
    idle, longest_gap, reached = 0.0, 0.0, kernels[0][2]
    for _, begin, end in kernels[1:]:
        gap = max(0.0, begin - reached)
        idle, longest_gap, reached = idle + gap, max(longest_gap, gap), max(reached, end)
    return {"launches": len(kernels), "idle_us": round(idle, 1), "longest_gap_us": round(longest_gap, 1)}


def longest(kernels: list[tuple[str, float, float]]) -> list[dict[str, Any]]:
    """Return the kernels that take the longest, each with its calls, its time and its share of all."""
    spent: Counter[str] = Counter()
    for name, begin, end in kernels:
        spent[name] += end - begin  # type: ignore[assignment]
    calls, total = Counter(name for name, _, _ in kernels), sum(spent.values()) or 1
    return [
        {"kernel": name[:120], "calls": calls[name], "us": round(us, 1), "share": round(us / total, 4)}
        for name, us in spent.most_common(KERNELS)
    ]


def together(convolutions: list[dict[str, Any]], matrix_tflops: float) -> list[dict[str, Any]]:
    """Return, by grid and layout, how long all convolutions of an evaluation take, and the rate that they reach."""
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in convolutions:
        kinds.setdefault((one["shape"], one["layout"]), []).append(one)
    rows = []
    for (shape, layout), ones in kinds.items():
        us = sum(one["us"] * one["count"] for one in ones)
        tflops = sum(one["tflops"] * one["us"] * one["count"] for one in ones) / us
        row = {"shape": shape, "layout": layout, "count": sum(one["count"] for one in ones), "us": round(us, 1)}
        share = round(tflops / matrix_tflops, 4) if matrix_tflops else None
        rows.append({**row, "tflops": round(tflops, 2), "share": share})
    return rows


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


# ------------------------------------------------------------------------------------------------ what is written


def write(result: dict[str, Any], output: Path) -> None:
    """Write both files."""
    output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    output.with_suffix(".md").write_text(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    """Return the tables as Markdown."""

    def cell(value: Any, key: str) -> str:
        return "" if value is None else f"{value:.1%}" if key == "share" else str(value)

    def table(title: str, key: str, columns: dict[str, str]) -> list[str]:
        cells = [tuple(cell(row.get(name), name) for name in columns) for row in result[key]]
        return [f"## {title}", "", *markdown_table(list(columns.values()), cells), ""] if cells else []

    lines = [
        f"{result['device']}, PyTorch {result['torch']}, cuDNN {result['cudnn']}; {result['precision']}; a large "
        f"product reaches {result.get('matrix_tflops', 0):g} TFLOP/s, of which shares are; "
        f"medians of {result['rounds']}.",
        "",
    ]
    times = {"us": "us", "tflops": "TFLOP/s", "share": "share"}
    conv = {"shape": "grid", "convolution": "convolution", "count": "times", "layout": "layout"}
    lines += table("Convolutions", "convolutions", conv | times)
    whole = {name: conv[name] for name in ("shape", "layout", "count")}
    lines += table("All convolutions of an evaluation", "together", whole | times)
    if result["together"]:
        lines += [f"Target on an H200 at 256 x 256 x 160: a share of {TARGET_SHARE:.0%}.", ""]
    loop = {
        "shape": "grid",
        "mode": "mode",
        "cached_ms": "cached X-rays, ms",
        "fresh_ms": "fresh, ms",
        "share": "share",
    }
    loop |= {"launches": "kernels", "idle_us": "idle us", "longest_gap_us": "longest gap us"}
    lines += table(f"The loop, {result['evaluations']} evaluations", "loops", loop)
    kernel = {"shape": "grid", "kernel": "kernel", "calls": "calls", "us": "us", "share": "share"}
    lines += table("Kernels of the captured loop", "kernels", kernel)
    lines += [f"Missing: {name}: {reason}" for name, reason in result["missing"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
