"""Compare network designs at equal training time: parameters, GFLOP, milliseconds per evaluation, validation loss.

    python benchmarks/designs.py SHARDS -o benchmarks/results/designs --minutes 5

The training time is spent by count, not by clock: each design's step is timed (the fastest of several, designs taken
in turn), and it gets as many steps as fit the minutes at that speed. So other load on the machine does not decide.
Choices are made on the shards' validation people.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from x2ct.data import ShardSet
from x2ct.data.augment import plain_study
from x2ct.export import export_model
from x2ct.export.run import spec_of
from x2ct.model import ModelConfig, X2CTModel
from x2ct.training import TrainConfig, load_run, train
from x2ct.training.loop import new_state, study_loss
from x2ct.training.patches import draw_patches
from x2ct.training.runs import training_geometry

BASE = json.loads(Path(__file__).with_name("chest.json").read_text())


def designs() -> dict[str, ModelConfig]:
    """The candidates: the bundled one, and one change each."""
    base = TrainConfig.from_json(BASE).model
    return {
        "bundled: cells of 4^3": base,
        "cells of 2^3": dataclasses.replace(
            base, stem=2, channels=(32, 80, 128), blocks=(1, 1, 1), lift_channels=(32, 64, 96), lift_blocks=(0, 1, 1)
        ),
        "repeated pixels": dataclasses.replace(base, features="pixels"),
        "GroupNorm in the denoiser": dataclasses.replace(base, norm="group"),
        "no 3D blocks in the lift": dataclasses.replace(base, lift_blocks=(0, 0)),
        "one resolution, 112 channels": dataclasses.replace(base, channels=(112,), blocks=(3,)),
    }


def main() -> None:
    """Print the table and write it as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("--minutes", type=float, default=5.0, help="training time of each design")
    parser.add_argument("--only", nargs="+", choices=list(designs()), help="these alone")
    parser.add_argument("--least", type=int, default=50, help="steps that each design gets at least")
    args = parser.parse_args()
    configs = {name: train_config(model) for name, model in designs().items() if not args.only or name in args.only}
    seconds = step_seconds(ShardSet.open(args.shards), configs)
    rows = []
    for name, config in configs.items():
        steps = max(args.least, round(args.minutes * 60 / seconds[name]))
        config = dataclasses.replace(config, steps=steps, validate_every=steps, checkpoint_every=steps)
        rows.append({"design": name, **facts(config.model), "step_s": round(seconds[name], 3), "steps": steps})
        with tempfile.TemporaryDirectory() as folder:
            rows[-1] |= trained(args.shards, Path(folder) / "run", config)
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    table = {
        "minutes": args.minutes,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "rows": rows,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(table))
    print(markdown(table))


def train_config(model: ModelConfig) -> TrainConfig:
    """The bundled recipe with another network."""
    return dataclasses.replace(TrainConfig.from_json(BASE), model=model)


def facts(model: ModelConfig) -> dict[str, Any]:
    """Parameters, the denoiser's GFLOP at 128^3 (counted as multiplications and additions), receptive radius."""
    network = X2CTModel(model).fold()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        x = torch.zeros(1, 1, 64, 64, 64)
        conditions = [torch.zeros(shape) for shape in condition_shapes(model, 64).values()]
        network.denoiser(x, torch.ones(1), *conditions)
    return {
        "parameters_m": round(sum(p.numel() for p in network.parameters()) / 1e6, 2),
        "gflop_128": round(counter.get_total_flops() * 8 / 1e9, 1),
        "receptive_radius": model.receptive_radius,
    }


def condition_shapes(model: ModelConfig, side: int) -> dict[str, list[int]]:
    """What the lift gives for a cube of `side` voxels."""
    return {"c0": [1, model.channels[0], *(side // model.stem,) * 3], "c1": [1, 1, side, side, side]}


def step_seconds(shards: ShardSet, configs: dict[str, TrainConfig], rounds: int = 4) -> dict[str, float]:
    """Fastest forward and backward pass of a step's patches of one study, designs taken in turn."""
    person = shards.select("train")[0]
    coords = torch.from_numpy(shards.grid.coordinates())
    usual = dataclasses.replace(next(iter(configs.values())).patch, sizes=(64,), probabilities=(1.0,))
    patches = draw_patches(shards.grid, usual, 64, np.random.default_rng(0))
    states = {name: new_state(config, torch.device("cpu")) for name, config in configs.items()}
    study = plain_study(person, shards.grid, training_geometry(next(iter(configs.values()))))
    times: dict[str, list[float]] = {name: [] for name in configs}
    for _ in range(rounds):
        for name, config in configs.items():
            start = time.perf_counter()
            study_loss(states[name].model, study, patches, config, coords, torch.Generator()).backward()  # type: ignore[no-untyped-call]
            times[name].append(time.perf_counter() - start)
    return {name: min(values[1:]) for name, values in times.items()}


def trained(shards: Path, run: Path, config: TrainConfig) -> dict[str, Any]:
    """Train, validate, export; the validation's figures and the denoiser's milliseconds in OpenVINO."""
    train(shards, run, config)
    last = json.loads((run / "validation.jsonl").read_text().splitlines()[-1])
    config, model = load_run(run)
    bundle = export_model(model, spec_of(config, config.name, {}), run.with_suffix(".x2ct")).bundle
    milliseconds, precision = evaluation_ms(bundle.path / "denoiser.onnx", config.model)
    figures = {key: round(last[key], 4) for key in ("loss", "mean_psnr", "mean_bone_dice", "low_bone_dice")}
    return {**figures, "ms_128": round(milliseconds), "precision": precision}


def evaluation_ms(path: Path, model: ModelConfig, count: int = 5) -> tuple[float, str]:
    """Median milliseconds of one denoiser evaluation at 128^3 in OpenVINO, and the precision that it ran in."""
    import openvino as ov

    core = ov.Core()
    graph = core.read_model(path)
    shapes = {"x": [1, 1, 128, 128, 128], "sigma": [1], **condition_shapes(model, 128)}
    graph.reshape(shapes)
    compiled = core.compile_model(graph, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    inputs = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    compiled(inputs)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        compiled(inputs)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times), compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()


def markdown(table: dict[str, Any]) -> str:
    """The table as Markdown."""
    rows = table["rows"]
    keys = list(rows[0])
    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(str(row[key]) for key in keys) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
