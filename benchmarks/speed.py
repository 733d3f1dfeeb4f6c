"""The denoiser in OpenVINO against PyTorch eager, and the sampler's share outside the network; one run, one machine.

    python benchmarks/speed.py RUN chest -o benchmarks/results/speed-cpu     # RUN: the bundle's training run

Every time stands beside the parity of what it computed, against PyTorch eager in f32 on the same inputs. Rows are timed
in turn, round by round, so that the machine's mood falls on all of them; medians and spreads over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np
import numpy.typing as npt
import torch

import x2ct
from x2ct import _core
from x2ct.conditioning import conditions
from x2ct.runtimes import choose
from x2ct.training import load_run

Array = npt.NDArray[np.float32]
DEMO = Path(x2ct.__file__).resolve().parent / "models" / "demo"
SIGMA = 1.0


def main() -> None:
    """Print the table and write it as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("-n", "--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bundle = x2ct.Bundle.load(args.bundle)
    xrays = {name: x2ct.XRay.load(DEMO / f"{name}.npy") for name in ("ap", "lateral")}
    rows = evaluations(bundle, args.run, xrays, args.rounds, args.threads)
    table = {
        "grid": list(bundle.grid.shape),
        "model": bundle.checksum,
        "machine": {"processor": processor(), "threads": args.threads, "torch": torch.__version__},
        "rounds": args.rounds,
        "evaluation": rows,
        "sampling": sampling(bundle, xrays, args.rounds, args.threads),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(table))
    print(markdown(table))


def evaluations(
    bundle: x2ct.Bundle, run: Path, xrays: dict[str, x2ct.XRay], rounds: int, threads: int
) -> list[dict[str, Any]]:
    """One denoiser evaluation on the whole grid, by each runtime and precision."""
    _, model = load_run(run)
    ready = conditions(bundle, xrays)
    noise = _core.normal(bundle.grid.shape, 0).reshape(1, 1, *bundle.grid.shape)
    views, valid, matrices, coords = (
        torch.from_numpy(np.array(part))
        for part in (ready.views, ready.valid, ready.matrices, bundle.grid.coordinates()[None])
    )
    with torch.no_grad():
        condition = model.condition(views, valid, matrices, coords)
        mean = model.denoiser(torch.from_numpy(noise) * 20, torch.tensor([20.0]), *condition)
        x = mean + SIGMA * torch.from_numpy(noise)
    model.fold()
    given = {"x": x.numpy(), "sigma": np.asarray([SIGMA], np.float32)}
    given |= {f"c{level}": np.ascontiguousarray(c.numpy()) for level, c in enumerate(condition)}

    def eager(autocast: bool) -> Callable[[], Array]:
        def call() -> Array:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                return np.asarray(model.denoiser(x, torch.tensor([SIGMA]), *condition).float().numpy(), np.float32)

        return call

    def compiled(precision: str) -> Callable[[], Array]:
        network = _core.Network(
            str(bundle.file_of(bundle.networks.denoiser)),
            precision=precision,
            threads=threads,
            shapes={name: list(value.shape) for name, value in given.items()},
            runtime_dir=choose("cpu", "openvino", precision).runtime_dir,
        )
        return lambda: network(given)["denoised"]

    calls = {"PyTorch eager f32": eager(False), "PyTorch eager bf16": eager(True), "x2ct OpenVINO f32": compiled("f32")}
    openvino = next(entry for entry in _core.backends() if entry["name"] == "openvino")
    if "bf16" in str(openvino):
        calls["x2ct OpenVINO bf16"] = compiled("bf16")
    reference = calls["PyTorch eager f32"]()
    results = {name: call() for name, call in calls.items()}  # the warm-up
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    slow = statistics.median(times["PyTorch eager f32"])
    low, high = bundle.intensity.window_hu
    rows = []
    for name, values in times.items():
        hu, wanted = bundle.intensity.to_hu(results[name]), bundle.intensity.to_hu(reference)
        middle = statistics.median(values)
        rows.append(
            {
                "runtime": name,
                "median_s": round(middle, 4),
                "min_s": round(min(values), 4),
                "max_s": round(max(values), 4),
                "times_faster": round(slow / middle, 2),
                "mean_abs_error_hu": round(float(np.abs(hu - wanted).mean()), 3),
                "rms_share_of_window": float(f"{np.sqrt(np.mean((hu - wanted) ** 2)) / (high - low):.2e}"),
            }
        )
    return rows


def sampling(bundle: x2ct.Bundle, xrays: dict[str, x2ct.XRay], rounds: int, threads: int) -> dict[str, Any]:
    """Whole runs at the bundle's own settings: total, per evaluation, and the share outside the network."""
    sampler = x2ct.Sampler(bundle, threads=threads)
    reports = [sampler.run(**xrays, seed=seed).report for seed in range(rounds + 1)]
    timings = [report["timings"] for report in reports[1:]]

    def middle(key: str) -> float:
        return statistics.median(timing[key] for timing in timings)

    return {
        "precision": reports[0]["precision"]["denoiser"],
        "solver": reports[0]["solver"],
        "evaluations": reports[0]["evaluations"],
        "compile_s": round(reports[0]["timings"]["compile_s"], 3),
        "condition_s": round(reports[0]["timings"]["condition_s"], 3),
        "loop_s": round(middle("loop_s"), 3),
        "per_evaluation_s": round(middle("per_evaluation_s"), 4),
        "outside_network_share": round(middle("outside_network_share"), 4),
    }


def processor() -> str:
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def markdown(table: dict[str, Any]) -> str:
    """The table as Markdown."""
    machine = table["machine"]
    lines = [
        f"{machine['processor']}, {machine['threads']} threads; grid {table['grid']}; medians of {table['rounds']}.",
        "",
        "| runtime | median s | min to max | times faster | mean error HU | RMS / window |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['runtime']} | {row['median_s']:.3f} | {row['min_s']:.3f} to {row['max_s']:.3f} "
        f"| {row['times_faster']:.2f} | {row['mean_abs_error_hu']:.3f} | {row['rms_share_of_window']:.1e} |"
        for row in table["evaluation"]
    ]
    run = table["sampling"]
    lines += [
        "",
        f"Sampling ({run['solver']}, {run['evaluations']} evaluations, {run['precision']}): "
        f"compile {run['compile_s']} s, condition {run['condition_s']} s, "
        f"loop {run['loop_s']} s, {run['per_evaluation_s']} s per evaluation, "
        f"{100 * run['outside_network_share']:.1f}% outside the network.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
