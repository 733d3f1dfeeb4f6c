"""Compare network designs at equal training time: size, work, learning curve, milliseconds per evaluation.

    python benchmarks/designs.py SHARDS -o benchmarks/results/designs --runs runs/designs --minutes 40
    python benchmarks/designs.py SHARDS -o benchmarks/results/designs-grown --runs runs/grown --init chest --minutes 45

Each design trains alone for the same minutes with the recipe of benchmarks/chest.json, and its run stays in RUNS: what
is there already is not trained again, and an interrupted one goes on. Nothing else may run on the machine meanwhile.
The learning rate does not cool down here, so that a run's curve can be carried on: a power law a + b steps^-c is fitted
to the validation loss from the first quarter on, and `loss_x4` is its value at four times the steps. Choices are made
on the shards' validation patients.

With `--init` the designs are the bundle's network as it is and with more blocks (`ModelConfig.blocks_added`), which
start from its weights and compute at first what it does. Each goes on for these minutes at half the recipe's rates,
cooled down to 0, so that what is compared is what a user would get; no curve is carried on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np
import torch
from scipy.optimize import curve_fit
from torch.utils.flop_counter import FlopCounterMode

from x2ct.export import export_model
from x2ct.export.inverse import starting_point
from x2ct.export.run import spec_of
from x2ct.io.report import markdown_table
from x2ct.model import ModelConfig, X2CTModel
from x2ct.training import TrainConfig, load_run, train
from x2ct.training.config import CONFIG_FILE
from x2ct.training.monitor import HISTORY_FILE

RECIPE = TrainConfig.load(Path(__file__).with_name("chest.json"))


def designs() -> dict[str, ModelConfig]:
    """Return the candidates by name: the bundled one, the one before it, and changes of one thing at a time."""
    bundled = RECIPE.model
    before = ModelConfig(sigma_data=bundled.sigma_data, reference_p99=bundled.reference_p99)
    return {
        "bundled": bundled,
        "before: 96 channels, features of 5 mm": before,
        "before, with fine features": dataclasses.replace(
            before,
            encoder_stem=bundled.encoder_stem,
            encoder_channels=bundled.encoder_channels,
            encoder_features=bundled.encoder_features,
        ),
        "96 and 192 channels": dataclasses.replace(bundled, channels=(96, 192), lift_channels=(96, 192)),
        "three resolutions": dataclasses.replace(
            bundled, lift_channels=(128, 192, 256), lift_blocks=(0, 2, 2), lift_blocks_up=(1, 1)
        ),
        "pairs of 3^3 convolutions": dataclasses.replace(bundled, expand=0),
        "no gate on the input": dataclasses.replace(bundled, gated=False),
    }


def grown() -> dict[str, ModelConfig]:
    """Return the bundled network as it is, and with more blocks."""
    bundled = RECIPE.model
    return {
        "bundled": bundled,
        "4 blocks more in the lift": dataclasses.replace(bundled, lift_blocks_added=(2, 2)),
        "2 blocks more in the denoiser": dataclasses.replace(bundled, blocks_added=(1, 1)),
        "4 coarse blocks more in both": dataclasses.replace(bundled, lift_blocks_added=(0, 2), blocks_added=(0, 2)),
    }


def main() -> None:
    """Print the table and write it as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the training runs")
    parser.add_argument("--minutes", type=float, default=40.0, help="training time of each design")
    parser.add_argument("--init", help="bundle whose weights the designs start from")
    parser.add_argument("--only", nargs="+", help="these alone, by their names in the table")
    args = parser.parse_args()
    candidates = designs() if args.init is None else grown()
    if unknown := set(args.only or ()) - set(candidates):
        parser.error(f"--only: found {', '.join(sorted(unknown))}, expected some of {', '.join(candidates)}")
    rows = []
    for name, model in candidates.items():
        if args.only and name not in args.only:
            continue
        run = args.runs / name.replace(" ", "-").replace(":", "").replace(",", "").replace("^", "")
        trained(args.shards, run, model, args.minutes, args.init)
        rows.append({"design": name, **facts(model), **figures(run)})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    table = {
        "minutes": args.minutes,
        "init": args.init,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "rows": rows,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(table))
    print(markdown(table))


def trained(shards: Path, run: Path, model: ModelConfig, minutes: float, init: str | None) -> None:
    """Train a design for these minutes, or go on with its run; a finished one ends at once."""
    rates = RECIPE.optim
    optim = dataclasses.replace(rates, cooldown=0.0)
    if init is not None:
        optim = dataclasses.replace(rates, rate=rates.rate / 2, muon=rates.muon / 2, cooldown=0.85)
    config = dataclasses.replace(RECIPE, model=model, steps=0, minutes=minutes, validate_every=50, optim=optim)
    resume = (run / CONFIG_FILE).exists()
    weights = None if init is None else starting_point(init).weights
    train(shards, run, None if resume else config, resume=resume, minutes=minutes, init=None if resume else weights)


def facts(model: ModelConfig) -> dict[str, Any]:
    """Return weights in millions, the denoiser's GFLOP at 128^3 (multiplications and additions), receptive radius."""
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
    """Return the shapes that the lift gives for a cube of `side` voxels."""
    return {"c0": [1, model.channels[0], *(side // model.stem,) * 3], "c1": [1, 1, side, side, side]}


def figures(run: Path) -> dict[str, Any]:
    """Return what a run reached, its fitted curve, and the denoiser's time in OpenVINO."""
    rows = [json.loads(line) for line in (run / HISTORY_FILE).read_text().splitlines()]
    last = rows[-1]
    config, model = load_run(run)
    bundle = export_model(model, spec_of(config, config.name, {}), run.with_suffix(".x2ct")).bundle
    milliseconds, precision = evaluation_ms(bundle.path / "denoiser.onnx", config.model)
    return {
        "steps": last["step"],
        "loss": round(last["loss"], 4),
        "loss_train": round(last["train"]["loss"], 4),
        "loss_x4": carried_on(rows, 4 * last["step"]) if config.optim.cooldown == 0 else None,
        "mean_psnr": round(last["mean_psnr"], 2),
        "mean_bone_dice": round(last["mean_bone_dice"], 3),
        "ms_128": round(milliseconds),
        "precision": precision,
    }


def carried_on(rows: list[dict[str, Any]], step: int) -> float | None:
    """Return the fitted validation loss at a later step, or None where the rows do not tell a curve."""
    steps, losses = np.array([[row["step"], row["loss"]] for row in rows if row["step"] >= rows[-1]["step"] / 4]).T
    if len(steps) < 5:
        return None

    def curve(x: Any, a: float, b: float, c: float) -> Any:
        return a + b * (x / steps[0]) ** -c

    try:
        fitted, _ = curve_fit(curve, steps, losses, p0=(losses[-1] / 2, losses[0] / 2, 0.5), bounds=(0, [1, 10, 2]))
    except RuntimeError:
        return None
    return round(float(curve(step, *fitted)), 4)


def evaluation_ms(path: Path, model: ModelConfig, count: int = 5) -> tuple[float, str]:
    """Return the median milliseconds of one evaluation at 128^3 in OpenVINO, and the precision that it ran in."""
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
    """Return the table as Markdown."""
    keys = list(table["rows"][0])
    return (
        "\n".join(
            markdown_table(keys, (["" if row[key] is None else row[key] for key in keys] for row in table["rows"]))
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
