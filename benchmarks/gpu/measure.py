"""What sampling takes on a GPU: evaluation by evaluation, from end to end, and what the host and our kernels add.

    python benchmarks/gpu/measure.py chest -o results/gpu                      # needs a GPU
    python benchmarks/gpu/measure.py chest -o results/gpu --device cpu --shape 32,32,32 --rounds 2
    python benchmarks/gpu/measure.py chest -o results/gpu --backend torch/aoti --precision bf16

One row a grid, backend and precision, each beside its parity: the mean absolute difference from the CPU's volume of the
same seed, in HU. Times of the denoiser and of our kernels are by the GPU's own clock, a sample's and a pull's
(consistency after every evaluation, in runs of their own) by the host's; a sample's of the same X-rays as before, and
of others, both without the residual. It and the judging of other X-rays are the host's, and columns of their own. What
torch runs (torch/torchscript, torch/aoti), and the graph that bf16 and f16 take, are made here (and not proven: the
row's parity is). With --no-graphs nothing is recorded as a CUDA graph. A row that can't be had is listed with the
reason. Medians over the rounds, after three that warm up; written after each row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # works in a checkout, installed or not

import numpy as np

import x2ct
from x2ct.engine.conditioning import study_of
from x2ct.engine.plausibility import judge_seen, seen_by
from x2ct.errors import InputError, MissingRuntimeError, X2CTError
from x2ct.geometry.grid import Grid
from x2ct.io.report import markdown_table
from x2ct.jobs.options import parse_shape
from x2ct.runtimes.discovery import choose_device

DEMO = Path(x2ct.__file__).resolve().parent / "models" / "demo"
SHAPES = ("128,128,128", "256,256,160")
EVALUATIONS = 6
WARM_UP = 3
PULLED = 5
"""Rounds with consistency, at most: before each of them the host finds which rays count."""
TARGET_MS = {"128 x 128 x 128": (10.0, 5.0), "256 x 256 x 160": (50.0, 15.0)}
"""Target times of 6 evaluations on an H200, in bf16 or f16: end to end with fresh X-rays, and in the loop."""
GAP_US, KERNEL_SHARE, APART_HU = 20.0, 0.02, 2.0


def main() -> None:
    """Print the table and write it as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--backend", nargs="+", default=["torch/torchscript", "onnxruntime"], help="BACKEND, or BACKEND/PROVIDER"
    )
    parser.add_argument("--no-graphs", action="store_true", help="evaluate eagerly, to see what recording saves")
    parser.add_argument("--precision", nargs="+", default=["f32", "tf32", "bf16", "f16"])
    parser.add_argument("--shape", nargs="+", default=SHAPES, help="X,Y,Z")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    try:
        choose_device(args.device)  # before the CPU's volume, which takes long
    except X2CTError as error:
        print(f"measure.py: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    table = {"device": args.device, "devices": device_names(), "rounds": args.rounds, "rows": rows, "missing": missing}
    table |= {"graphs": not args.no_graphs}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for shape in args.shape:
        grid = Grid(parse_shape(shape), x2ct.Bundle.load(args.bundle).grid.spacing_mm)
        wanted: np.ndarray | None = None
        for backend in args.backend:
            for precision in args.precision:
                try:
                    wanted = reference(args.bundle, grid) if wanted is None else wanted
                    rows.append(measure(args, grid, backend, precision, wanted))
                except Exception as error:  # whatever it is, PyTorch's too: the other rows go on
                    missing[f"{backend} {precision} {shape}"] = str(error).strip().partition("\n")[0] or repr(error)
                args.output.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
                args.output.with_suffix(".md").write_text(markdown(table))
    print(markdown(table))
    if not rows:
        sys.exit("measure.py: nothing could be measured")


def device_names() -> list[str]:
    """Return the names of the GPUs here."""
    from x2ct import _core

    return [name for device in _core.devices() if device["name"] == "cuda" for name in device["found"]]


def xrays() -> dict[str, x2ct.XRay]:
    return {name: x2ct.XRay.load(DEMO / f"{name}.npy") for name in ("ap", "lateral")}


def typed_graph(bundle: str, precision: str) -> None:
    """Make the denoiser's graph in a precision, where the cache has none."""
    import onnx

    from x2ct.export.precision import typed
    from x2ct.runtimes.cache.cache import Cache
    from x2ct.runtimes.cache.engines import typed_recipe

    model = x2ct.Bundle.load(bundle)
    plain = onnx.load(model.file_of(model.networks.denoiser))

    def build(target: Path) -> None:
        target.write_bytes(typed(plain, precision).model.SerializeToString())

    Cache().obtain(typed_recipe(model, precision), build)


def torch_engines(bundle: str, kind: str, device: str, precision: str) -> None:
    """Make what torch runs of a bundle, where the cache has none."""
    from x2ct.export.torchfiles import builds
    from x2ct.runtimes.cache.cache import Cache

    for recipe, build in builds(x2ct.Bundle.load(bundle), kind, device, precision):
        Cache().obtain(recipe, build)


def reference(bundle: str, grid: Grid) -> np.ndarray:
    """Return the CPU's volume in f32: ONNX Runtime's, or PyTorch's where that is not here."""
    try:
        sampler = x2ct.Sampler(bundle, device="cpu", backend="onnxruntime", precision="f32", grid=grid)
        sampler.compile()
    except MissingRuntimeError:
        torch_engines(bundle, "torchscript", "cpu", "f32")
        sampler = x2ct.Sampler(
            bundle, device="cpu", backend="torch", provider="torchscript", precision="f32", grid=grid
        )
    return sampler.sample(**xrays(), seed=0, steps=EVALUATIONS).hu


def measure(args: argparse.Namespace, grid: Grid, backend: str, precision: str, wanted: np.ndarray) -> dict[str, Any]:
    """Sample one grid in one precision: the first sample is compared, the rest are timed."""
    name, _, provider = backend.partition("/")
    if name == "torch":
        torch_engines(args.bundle, provider or "torchscript", args.device, precision)
    elif name == "onnxruntime" and precision in ("bf16", "f16"):
        typed_graph(args.bundle, precision)
    on_gpu = args.device.startswith("cuda")
    option = {"torch": "cuda_graph", "onnxruntime": "enable_cuda_graph"}
    eagerly = {option[name]: "0"} if args.no_graphs and on_gpu and name in option else {}
    sampler = x2ct.Sampler(
        args.bundle,
        device=args.device,
        backend=name,
        provider=provider,
        provider_options=eagerly,
        precision=precision,
        grid=grid,
    )
    options: dict[str, Any] = {"steps": EVALUATIONS, "residual": False}
    sampler.set_xrays(**xrays())
    first = sampler.run(seed=0, **options)
    away = np.abs(first.volume.hu - wanted)
    for seed in range(WARM_UP):
        sampler.run(seed=seed, **options)
    times, ends = [], []
    for seed in range(args.rounds):
        started = time.perf_counter()
        times.append(sampler.run(seed=seed, **options).report["timings"])
        ends.append(time.perf_counter() - started)
    fresh = []
    for seed in range(args.rounds):
        given = xrays()
        started = time.perf_counter()
        result = sampler.run(**given, seed=seed, **options)
        fresh.append(time.perf_counter() - started)
        assert not result.report["condition_reused"]
    bundle, prepared = x2ct.Bundle.load(args.bundle), []
    for _ in range(args.rounds):
        given, started = xrays(), time.perf_counter()
        judge_seen(bundle, seen_by(bundle, study_of(bundle, given)))
        prepared.append(time.perf_counter() - started)
    residual_s = sampler.run(**xrays(), seed=0, steps=EVALUATIONS).report["timings"]["residual_s"]

    def milliseconds(key: str) -> float:
        return 1e3 * statistics.median(one[key] for one in times)

    evaluation = milliseconds("per_evaluation_s")
    has_clock = "kernel_s" in times[0]
    return {
        "runtime": f"{backend} {first.report['runtime']}",
        "precision": first.report["precision"]["denoiser"],
        "shape": " x ".join(str(size) for size in grid.shape),
        "tiles": first.report["tiles"],
        "compile_s": round(first.report["timings"]["compile_s"], 2),
        "first_condition_ms": round(1e3 * first.report["timings"]["condition_s"], 2),
        "per_evaluation_ms": round(evaluation, 3),
        "loop_ms": round(milliseconds("loop_s"), 3),
        "loop_min_ms": round(1e3 * min(one["loop_s"] for one in times), 3),
        "loop_max_ms": round(1e3 * max(one["loop_s"] for one in times), 3),
        "end_to_end_ms": round(1e3 * statistics.median(ends), 3),
        "fresh_end_to_end_ms": round(1e3 * statistics.median(fresh), 3),
        "judging_ms": round(1e3 * statistics.median(prepared), 3),
        "residual_ms": round(1e3 * residual_s, 1),
        **with_consistency(sampler, args.rounds),
        "kernel_share": round(milliseconds("kernel_s") / (milliseconds("kernel_s") + EVALUATIONS * evaluation), 5)
        if has_clock
        else None,
        "longest_gap_us": round(1e6 * max(one["longest_gap_s"] for one in times), 1) if has_clock else None,
        "waits": times[-1]["waits"] if has_clock else None,
        "mean_abs_difference_hu": round(float(away.mean()), 4),
        "max_abs_difference_hu": round(float(away.max()), 2),
    }


def with_consistency(sampler: x2ct.Sampler, rounds: int) -> dict[str, Any]:
    """Return the time of data consistency after every evaluation, or the reason where no ray of the grid counts."""
    try:
        times = [
            sampler.run(**xrays(), seed=seed, steps=EVALUATIONS, consistency="every", residual=False).report["timings"]
            for seed in range(1 + min(rounds, PULLED))
        ][1:]  # the first one allocates
    except InputError as error:
        return {"pulled_loop_ms": None, "pull_ms": None, "not_pulled": str(error)}
    loop, pull = (1e3 * statistics.median(one[key] for one in times) for key in ("loop_s", "consistency_s"))
    return {"pulled_loop_ms": round(loop, 3), "pull_ms": round(pull / EVALUATIONS, 3)}


def markdown(table: dict[str, Any]) -> str:
    """Return the table as Markdown, with the targets."""
    head = "; ".join(table["devices"]) or table["device"]
    lines = [
        f"{head}; {EVALUATIONS} evaluations a sample{'' if table['graphs'] else ', nothing recorded'}; medians of "
        f"{table['rounds']}; HU apart from the CPU in f32.",
        "",
    ]
    columns = ["runtime", "precision", "grid", "ms per evaluation", "loop ms", "min to max", "end to end ms"]
    columns += ["other X-rays", "judging them", "residual", "own kernels", "longest gap us"]
    columns += ["with consistency, ms", "ms a pull"]
    cells = []
    for row in table["rows"]:
        share = "" if row["kernel_share"] is None else f"{row['kernel_share']:.2%}"
        pulled = ["" if row["pull_ms"] is None else f"{row[name]:.2f}" for name in ("pulled_loop_ms", "pull_ms")]
        gap = "" if row["longest_gap_us"] is None else f"{row['longest_gap_us']:.1f}"
        spread = f"{row['loop_min_ms']:.2f} to {row['loop_max_ms']:.2f}"
        times = f"{row['per_evaluation_ms']:.2f}", f"{row['loop_ms']:.2f}", spread, f"{row['end_to_end_ms']:.2f}"
        apart = f"{row['mean_abs_difference_hu']:.4f}", f"{row['max_abs_difference_hu']:.2f}"
        facts = row["runtime"], row["precision"], row["shape"], *times, f"{row['fresh_end_to_end_ms']:.2f}"
        on_host = f"{row['judging_ms']:.2f}", f"{row['residual_ms']:.0f}"
        cells.append((*facts, *on_host, share, gap, *pulled, *apart))
    lines += markdown_table([*columns, "mean HU apart", "max"], cells)
    wanted = ", ".join(
        f"{shape} in {fresh:g} ms with other X-rays, {loop:g} ms in the loop"
        for shape, (fresh, loop) in TARGET_MS.items()
    )
    lines.append(
        f"\nTargets on an H200 in bf16 or f16: {wanted}; gaps of {GAP_US:g} us; own kernels {KERNEL_SHARE:.0%}; "
        f"{APART_HU:g} HU apart in the mean."
    )
    lines += [f"\nMissing: {name}: {reason}" for name, reason in table["missing"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
