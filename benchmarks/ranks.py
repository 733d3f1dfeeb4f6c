"""Two ranks against one: the loss of each step, and how far apart the weights end.

    python benchmarks/ranks.py -o benchmarks/results/ranks

A tiny network learns from phantoms on the processor, with two studies a step, AdamW and Muon: in one process; on two
ranks that torchrun starts; and on two ranks that a signal to rank 1 alone stops half-way, after which one process goes
on. The exit code is 1 where losses or weights are further apart than rounding takes them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

from tests import tiny_run
from x2ct.files import atomic
from x2ct.io import report

STEPS, STUDIES, THREADS = 20, 2, 1
BOUND = 1e-3
"""Largest relative difference of losses and weights that rounding explains: it grows from step to step."""

RUNS = {"one": "one process", "two": "two ranks", "resumed": "two ranks, then one"}


def train(folder: Path, name: str, resume: bool, stop: int) -> int:
    """Train as one of the ranks that the environment names, and keep each step's loss; return an exit code."""
    import torch

    from x2ct.training import TrainConfig
    from x2ct.training import train as run
    from x2ct.training.ranks import joined

    torch.set_num_threads(THREADS)
    config = TrainConfig.from_json(tiny_run.CONFIG)
    optim = dataclasses.replace(config.optim, muon=0.02, accumulate=STUDIES)
    config = dataclasses.replace(config, steps=STEPS, pools=STUDIES, validate_every=STEPS, optim=optim)
    with joined("cpu") as ranks, (folder / f"{name}.jsonl").open("a") as losses:

        def progress(step: int, total: int, loss: float) -> None:
            if ranks.first:
                losses.write(json.dumps([step, loss]) + "\n")
            elif step + 1 == stop:  # is agreed on with the next step
                os.kill(os.getpid(), signal.SIGTERM)

        shards = folder / "shards"
        chosen = None if resume else config
        run(shards, folder / name, chosen, resume=resume, device=ranks.device, ranks=ranks, progress=progress)
    return 0


def measure(folder: Path) -> dict[str, Any]:
    """Train in all ways; return the losses of each and how far the weights of the others end from the first's."""
    import torch
    from safetensors.torch import load_file

    from x2ct.training.checkpoint import CHECKPOINT_FILE

    tiny_run.write_shards(folder / "shards")
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={STUDIES}"]
    for name, launcher, options in (
        ("one", [], []),
        ("two", torchrun, []),
        ("resumed", torchrun, [f"--stop={STEPS // 2}"]),
        ("resumed", [], ["--resume"]),
    ):
        command = [sys.executable, *launcher, str(Path(__file__).resolve()), f"--way={name}", *options]
        subprocess.run(
            [*command, f"--folder={folder}"], check=True, env={**os.environ, "OMP_NUM_THREADS": str(THREADS)}
        )
    losses = {name: dict(map(json.loads, (folder / f"{name}.jsonl").read_text().splitlines())) for name in RUNS}
    ends = {name: load_file(folder / name / CHECKPOINT_FILE) for name in RUNS}

    def apart(name: str, kind: str) -> float:
        """Return the largest difference from the first run's tensors of a kind, each over its largest number."""
        tensors = {key: value for key, value in ends["one"].items() if key.startswith(kind)}
        return max(
            float((ends[name][key] - own).abs().max() / own.abs().max().clamp(1e-9)) for key, own in tensors.items()
        )

    return {
        "studies": STUDIES,
        "bound": BOUND,
        "torch": torch.__version__,
        "losses": [{"step": step, **{name: losses[name][step] for name in RUNS}} for step in range(1, STEPS + 1)],
        "apart": {name: {kind: apart(name, kind) for kind in ("model.", "ema")} for name in RUNS if name != "one"},
    }


def relative(row: dict[str, float], name: str) -> float:
    """Return the difference of a step's loss from that of one process, relative to it."""
    return abs(row[name] - row["one"]) / row["one"]


def agree(result: dict[str, Any]) -> bool:
    """Return whether no difference is beyond the bound."""
    losses = [relative(row, name) for row in result["losses"] for name in result["apart"]]
    return max(*losses, *(value for kinds in result["apart"].values() for value in kinds.values())) <= result["bound"]


def markdown(result: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    others = list(result["apart"])
    rows = [
        (row["step"], f"{row['one']:.6f}", *(v for n in others for v in (f"{row[n]:.6f}", f"{relative(row, n):.1e}")))
        for row in result["losses"]
    ]
    columns = ("step", RUNS["one"], *(text for name in others for text in (RUNS[name], "difference")))
    lines = [
        f"Loss of each step of a tiny network, {result['studies']} studies a step, AdamW and Muon, on a CPU; PyTorch "
        f"{result['torch']}. Differences are relative to one process.",
        "",
        *report.markdown_table(columns, rows),
        "",
    ]
    for name, kinds in result["apart"].items():
        lines.append(
            f"{RUNS[name]}: at the end the weights are at most {kinds['model.']:.1e}, the averages {kinds['ema']:.1e} "
            "from those of one process, relative to each tensor's largest number."
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, write and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="NAME: writes NAME.json and NAME.md")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--stop", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        return train(options.folder, options.way, options.resume, options.stop)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder))
    if options.output:
        report.write_json(result, options.output.with_suffix(".json"))
        atomic.write_atomically(options.output.with_suffix(".md"), markdown(result).encode())
    print(markdown(result), end="")
    return 0 if agree(result) else 1


if __name__ == "__main__":
    sys.exit(main())
