"""How much of the sampling loop is spent outside of the network, with each feature that a run can have.

    python benchmarks/overhead.py [chest] -o benchmarks/results/overhead

The bundled X-rays, the model's own grid; each variant runs a few times after one run that warms up, and the medians
count. The two shares are those of a run's report: what the loop took beside the network and consistency, and what
consistency took.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import x2ct
from x2ct.files import atomic
from x2ct.io import report
from x2ct.runtimes.machine import Neighbours, environment

DEMO = Path(x2ct.__file__).parent / "models" / "demo"
RUNS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "progress": {"progress": lambda done, total, sigma: None},
    "a preview of each evaluation": {"preview": lambda done, total, sigma, ct: None},
    "stochastic, dpmpp-2m-sde": {"solver": "dpmpp-2m-sde", "schedule": "log-snr"},
    "the most registers, unipc-3": {"solver": "unipc-3", "schedule": "log-snr"},
    "heun with churn": {"solver": "heun", "schedule": "edm", "churn": 10.0},
    "4 samples, their mean and spread": {"samples": 4},
    "consistency, last": {"consistency": "last"},
    "consistency, every": {"consistency": "every"},
}
CONE = {"consistency, every, cone beams": {"consistency": "every"}}


def shares(sampler: x2ct.Sampler, study: dict[str, Any], run: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """Return the denoiser's precision, and medians of the shares of the loop and of an evaluation's seconds."""
    sampler.set_xrays(**study)
    reports = [sampler.run(**run, seed=seed).report for seed in range(rounds + 1)][1:]
    timings = [report["timings"] for report in reports]
    pulled = [one["consistency_s"] / one["loop_s"] for one in timings]
    outside = [max(0.0, one["outside_network_share"] - share) for one, share in zip(timings, pulled, strict=True)]
    return {
        "precision": reports[0]["precision"]["denoiser"],
        "outside_share": statistics.median(outside),
        "consistency_share": statistics.median(pulled),
        "per_evaluation_s": statistics.median(one["per_evaluation_s"] for one in timings),
    }


def markdown(found: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    machine = found["environment"]
    grid = " x ".join(map(str, found["grid"]))
    lines = [
        f"{found['model']}, {grid} voxels, {machine['processor']}, {found['threads']} threads; "
        f"medians of {found['rounds']}; others took {found['others_share']:.0%} of the processors meanwhile.",
        "",
    ]
    columns = "run", "precision", "outside of network and consistency", "consistency", "an evaluation ms"
    rows = []
    for row in found["rows"]:
        shares = f"{row['outside_share']:.2%}", f"{row['consistency_share']:.1%}"
        rows.append((row["run"], row["precision"], *shares, f"{1e3 * row['per_evaluation_s']:.0f}"))
    lines += report.markdown_table(columns, rows, text=2)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="chest")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True, help="NAME: writes NAME.json and NAME.md")
    asked = parser.parse_args()
    study: dict[str, Any] = {name: x2ct.XRay.load(DEMO / f"{name}.npy") for name in ("ap", "lateral")}
    cone = {**study, "geometry": x2ct.Geometry.cone(("ap", "lateral"))}
    rows, neighbours = [], Neighbours()
    for precision in ("f32", "auto"):
        sampler = x2ct.Sampler(asked.model, precision=precision, threads=asked.threads)
        for given, runs in ((study, RUNS), (cone, CONE)):
            for name, run in runs.items():
                rows.append({"run": name, **shares(sampler, given, run, asked.rounds)})
                print(rows[-1], file=sys.stderr, flush=True)
    found = {
        "model": asked.model,
        "grid": list(sampler.grid.shape),
        "threads": asked.threads,
        "rounds": asked.rounds,
        "environment": environment(asked.threads),
        "others_share": neighbours.share(),
        "rows": rows,
    }
    atomic.write_atomically(asked.output.with_suffix(".json"), json.dumps(found, indent=1).encode() + b"\n")
    atomic.write_atomically(asked.output.with_suffix(".md"), markdown(found).encode())
    print(markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
