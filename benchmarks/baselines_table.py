"""One table of the networks that `benchmarks/baselines.py` trained and of the fitted baselines, on the same patients.

    python benchmarks/baselines_table.py runs/baselines --shards SHARDS --data CTS -o benchmarks/results/baselines

Every folder of predictions there is judged by `x2ct.evaluation` as if another system had made it; figures are means
over the patients. Steps and seconds are those of a network's own training.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

from x2ct.errors import X2CTError
from x2ct.files import atomic
from x2ct.io import report
from x2ct.jobs.evaluate import EvaluateJob, evaluate_files
from x2ct.model import X2CTModel
from x2ct.training import TrainConfig
from x2ct.training.checkpoint import read_progress

SUFFIX = "-predictions"
PARALLEL, CONE = "parallel", "cone"


def main() -> int:
    """Judge, write and print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="what benchmarks/baselines.py --data wrote")
    parser.add_argument("--shards", type=Path, required=True, help="to fit the other baselines on")
    parser.add_argument("--data", type=Path, required=True, help="the test patients' CTs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="NAME: writes NAME.json and NAME.md")
    asked = parser.parse_args()
    try:
        patients, rows = fitted(asked.shards, asked.data, PARALLEL)
        rows += fitted(asked.shards, asked.data, CONE)[1]
        for folder in sorted(asked.runs.glob(f"*{SUFFIX}")):
            rows += trained(folder, asked.data)
    except X2CTError as error:
        print(f"baselines_table: error: {error}", file=sys.stderr)
        return error.exit_code
    table = {"patients": patients, "rows": rows}
    atomic.write_atomically(asked.output.with_suffix(".json"), report.to_json(table).encode())
    atomic.write_atomically(asked.output.with_suffix(".md"), markdown(table).encode())
    print(markdown(table))
    return 0


def fitted(shards: Path, data: Path, xrays: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the patients' names, and a row for each baseline that needs no training."""
    found = judged(EvaluateJob(data=data, output=Path(), baselines=shards, geometry=xrays))
    rows = [{"system": name, "xrays": xrays, **figures} for name, figures in found["mean"].items()]
    return sorted(case["id"] for case in found["cases"]), rows


def trained(folder: Path, data: Path) -> list[dict[str, Any]]:
    """Return the rows of a network's predictions, sampled in one way."""
    name = folder.name.removesuffix(SUFFIX)
    way = name.removesuffix(f"-{CONE}")
    runs = [run for run in folder.parent.iterdir() if run.is_dir() and way.startswith(run.name)]
    run = max(runs, key=lambda run: len(run.name))
    steps, seconds = read_progress(run)
    network = X2CTModel(TrainConfig.load(run).model)
    facts = {
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "steps": steps,
        "training_s": seconds,
    }
    found = judged(EvaluateJob(data=data, output=Path(), predictions=folder))
    kind = {"system": way, "xrays": PARALLEL if name == way else CONE}
    return [{**kind, **facts, **figures} for figures in found["mean"].values()]


def judged(job: EvaluateJob) -> dict[str, Any]:
    """Evaluate into a folder that is not kept; return the table."""
    with tempfile.TemporaryDirectory(prefix="x2ct-baselines-") as name:
        return dict(evaluate_files(dataclasses.replace(job, output=Path(name))).table)


def markdown(table: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    lines = [
        f"Means over {', '.join(table['patients'])}; X-rays in the training geometry (parallel) and as cone beams, "
        "told. Steps are what fitted into the same time. The ancestor's voxels are of twice the size.",
        "",
    ]
    measures = "PSNR dB", "SSIM", "MAE HU body", "bone Dice", "bones touched"
    rows = []
    for row in table["rows"]:
        facts = (
            (f"{row['parameters'] / 1e6:.2f}", row["steps"], f"{row['training_s']:.0f}")
            if "steps" in row
            else ("-", "-", "-")
        )
        figures = (
            f"{row['psnr_db']:.2f}",
            f"{row['ssim']:.3f}",
            f"{row['mae_hu']['body']:.0f}",
            f"{row['bone_dice']:.3f}",
            f"{row['bone_pieces']['any']:.0%}",
        )
        rows.append((row["system"], row["xrays"], *facts, *figures))
    lines += report.markdown_table(("system", "X-rays", "M weights", "steps", "s", *measures), rows, text=2)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
