"""The field's ancestor at its published setting, against ours on the same grid: FLOP and time of a volume.

    python benchmarks/ancestor.py -o benchmarks/results/ancestor

The ancestor is 3D patch diffusion as published (benchmarks/ancestor.json): a U-Net on voxels with GroupNorm, at
256 x 256 x 160, with EDM's Heun of 500 steps, 999 evaluations. Its FLOP are counted at that size by PyTorch's
FlopCounterMode, on tensors without memory. Its evaluation is timed in eager PyTorch on a slab of that grid that a CPU
can carry, and taken to grow with the voxels, as its FLOP do; 999 of them are a volume. Ours is measured whole on the
same grid in the same run, end to end. The ancestor's weights are random: a time does not depend on them. Agreement is
no question here, for the two are not the same network.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.roofline import median_s
from x2ct.benchmark.cases import Case
from x2ct.benchmark.fleet import Effort, measure
from x2ct.benchmark.stats import Summary
from x2ct.files import atomic
from x2ct.io import report
from x2ct.model import X2CTModel
from x2ct.model.config import ModelConfig
from x2ct.runtimes.machine import Neighbours, environment

CONFIG = Path(__file__).resolve().parent / "ancestor.json"
GRID = (256, 256, 160)
EVALUATIONS = 999


def main() -> None:
    """Print the figures and write them as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="chest", help="ours")
    parser.add_argument("-o", "--output", type=Path, help="NAME: writes NAME.json and NAME.md")
    parser.add_argument("--slab", type=int, default=16, help="voxels along z of the slab that is timed")
    parser.add_argument("--grid", type=int, nargs=3, default=GRID)
    parser.add_argument("-n", "--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    found = figures(asked)
    if asked.output:
        report.write_json(found, asked.output.with_suffix(".json"))
        atomic.write_atomically(asked.output.with_suffix(".md"), markdown(found).encode())
    print(markdown(found))


def figures(asked: argparse.Namespace) -> dict[str, Any]:
    facts, neighbours = environment(asked.threads), Neighbours()
    torch.set_num_threads(asked.threads)
    config = ModelConfig(**json.loads(CONFIG.read_text())["model"])
    x, y, z = asked.grid
    flop, slab_flop = flop_of(config, (x, y, z)), flop_of(config, (x, y, asked.slab))
    slab_s = seconds_of(config, (x, y, asked.slab), asked.runs)
    evaluation_s = slab_s * z / asked.slab
    case = Case(grid=(x, y, z), threads=asked.threads)
    [row], _ = measure(asked.bundle, [case], Effort(runs=asked.runs, cold=1), lambda _: None, parity=False)
    ours = Summary.of(row.samples["end_to_end_s"]).median
    return {
        "environment": facts | {"others_share": neighbours.share()},
        "grid": [x, y, z],
        "evaluations": EVALUATIONS,
        "runs": asked.runs,
        "flop": flop,
        "volume_flop": EVALUATIONS * flop,
        "slab": {"shape": [x, y, asked.slab], "flop": slab_flop, "median_s": slab_s},
        "evaluation_s": evaluation_s,
        "volume_s": EVALUATIONS * evaluation_s,
        "ours": {"facts": row.facts, "end_to_end_s": ours, "samples": row.samples["end_to_end_s"]},
        "times_faster": EVALUATIONS * evaluation_s / ours,
    }


def flop_of(config: ModelConfig, shape: tuple[int, int, int]) -> int:
    """Count the FLOP of one evaluation, on tensors without memory."""
    with torch.device("meta"):
        denoiser = X2CTModel(config).denoiser.eval()
        given = inputs(config, shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        denoiser(*given)
    return int(counter.get_total_flops())


def seconds_of(config: ModelConfig, shape: tuple[int, int, int], runs: int) -> float:
    """Return the median seconds of one evaluation in eager PyTorch, f32."""
    denoiser, given = X2CTModel(config).denoiser.eval(), inputs(config, shape)
    with torch.no_grad():
        return median_s(lambda: denoiser(*given), runs)


def inputs(config: ModelConfig, shape: tuple[int, int, int]) -> tuple[torch.Tensor, ...]:
    """x, sigma, and what the lift would give: both views along their rays and a coordinate; and no sketch."""
    x = torch.ones(1, 1, *shape)
    return x, torch.ones(1), torch.ones(1, config.views + 1, *shape), torch.zeros_like(x)


def markdown(found: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    ours, slab, share = found["ours"], found["slab"], found["environment"]["others_share"]
    size, part = (" x ".join(map(str, shape)) for shape in (found["grid"], slab["shape"]))
    facts = ours["facts"]
    busy = "" if share is None else f" Others took {100 * share:.0f}% of the processors meanwhile."
    lines = [
        f"{found['environment']['processor']}, {found['environment']['threads']} threads; medians of {found['runs']}."
        f"{busy} The ancestor's evaluation was timed on {part} voxels ({slab['median_s']:.2f} s, "
        f"{slab['flop'] / 1e12:.2f} TFLOP) and extrapolated by voxels; its weights are random.",
        "",
        f"| at {size} | FLOP of an evaluation | s | evaluations | FLOP of a volume | s of a volume |",
        "|---|---|---|---|---|---|",
        f"| the ancestor, PyTorch eager f32 | {found['flop']:.3g} | {found['evaluation_s']:.1f} "
        f"| {found['evaluations']} | {found['volume_flop']:.3g} | {found['volume_s']:.0f} |",
        f"| x2ct, {facts['backend']} {facts['precision']}, end to end | | | {facts['evaluations']} | "
        f"| {ours['end_to_end_s']:.2f} |",
        "",
        f"Ours is {found['times_faster']:.0f} times as fast.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
