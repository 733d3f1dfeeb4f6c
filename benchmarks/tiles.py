"""The whole volume against tiles: time, peak memory and difference; one subprocess a case, one run, one machine.

    python benchmarks/tiles.py -o benchmarks/results/tiles                        # 256 x 256 x 160
    python benchmarks/tiles.py --large -o benchmarks/results/tiles-512 --steps 2  # 512^3, to a file, in 6 GiB

Each case is an `x2ct sample` of the bundled pair; its peak resident memory is what the process itself had.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np

import x2ct

ROOT = Path(__file__).resolve().parent.parent
DEMO = Path(x2ct.__file__).resolve().parent / "models" / "demo"
GIB = 1 << 30


def main() -> None:
    """Print the table and write it as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("--model", default="chest")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--shape", default="256,256,160")
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.4, 1.2, 1.0], help="GiB, at a full halo")
    parser.add_argument("--halos", type=int, nargs="*", default=[32, 16, 8, 0], help="at the smallest budget")
    parser.add_argument("--large", action="store_true", help="512^3 alone")
    args = parser.parse_args()
    if args.large:
        rows = [case(args, "512,512,512", 5.5, 16, None)]
    else:
        rows = [case(args, args.shape, 64.0, None, None)]
        whole = rows[0].pop("volume")
        rows += [case(args, args.shape, budget, None, whole) for budget in args.budgets]
        rows += [case(args, args.shape, min(args.budgets), halo, whole) for halo in args.halos]
    for row in rows:
        row.pop("volume", None)
    bundle = x2ct.Bundle.load(args.model)
    table = {
        "model": bundle.checksum,
        "steps": args.steps,
        "precision": args.precision,
        "receptive_radius": bundle.networks.denoiser.receptive_radius,
        "cores": os.cpu_count(),
        "rows": rows,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(table))
    print(markdown(table))


def case(
    args: argparse.Namespace, shape: str, gib: float, halo: int | None, whole: np.ndarray | None
) -> dict[str, Any]:
    """One run in a process of its own, and how far it is from the whole."""
    with tempfile.TemporaryDirectory() as folder:
        output, report = Path(folder) / "ct.nii", Path(folder) / "report.json"
        command = [sys.executable, "-m", "x2ct", "sample", "-q", "--model", args.model, "--precision", args.precision]
        command += ["--ap", str(DEMO / "ap.npy"), "--lateral", str(DEMO / "lateral.npy"), "--solver", "dpmpp-2m"]
        command += ["--steps", str(args.steps), "--shape", shape, "--memory", f"{gib}GiB"]
        command += ["--halo", str(halo)] if halo is not None else []
        command += ["-o", str(output), "--report", str(report)]
        subprocess.run(command, check=True, cwd=ROOT)
        told = json.loads(report.read_text())
        row: dict[str, Any] = {
            "shape": told["grid"]["shape"],
            "budget_gib": gib if told["tiles"] else None,
            "tiles": told["tiles"],
            "loop_s": round(told["timings"]["loop_s"], 2),
            "total_s": round(told["timings"]["total_s"], 2),
            "outside_network_share": round(told["timings"]["outside_network_share"], 4),
            "peak_gib": round(told["peak_memory_bytes"] / GIB, 3),
            "file_bytes": output.stat().st_size,
        }
        if shape != "512,512,512":
            import nibabel as nib

            row["volume"] = np.asarray(nib.load(output).dataobj, np.int16)  # type: ignore[attr-defined]
        if whole is not None:
            off = np.abs(row.pop("volume").astype(np.float32) - whole)
            row |= {"rms_hu": round(float(np.sqrt((off**2).mean())), 4), "max_hu": round(float(off.max()), 1)}
        print(json.dumps({key: value for key, value in row.items() if key != "volume"}), file=sys.stderr, flush=True)
        return row


def markdown(table: dict[str, Any]) -> str:
    """The table as Markdown."""
    slow = table["rows"][0]["loop_s"]
    lines = [
        f"{table['steps']} evaluations, {table['precision']}, {table['cores']} cores; the denoiser looks "
        f"{table['receptive_radius']} voxels far. Differences are between the written files, in whole HU.",
        "",
        "| grid | budget GiB | tiles | halo | lift | peak GiB | loop / first | outside network | RMS HU | max HU |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        tiles = row["tiles"]
        cut = " x ".join(map(str, tiles["count"])) + " of " + " x ".join(map(str, tiles["shape"])) if tiles else "whole"
        lines.append(
            f"| {' x '.join(map(str, row['shape']))} | {row['budget_gib'] or '-'} | {cut} "
            f"| {tiles['halo'] if tiles else '-'} | {tiles['lift'] if tiles else 'once'} | {row['peak_gib']} "
            f"| {row['loop_s'] / slow:.2f} | {100 * row['outside_network_share']:.1f}% "
            f"| {row.get('rms_hu', '-')} | {row.get('max_hu', '-')} |"
        )
    return "\n".join(lines) + f"\n\nThe first loop took {slow} s on a machine that was also doing other work.\n"


if __name__ == "__main__":
    main()
