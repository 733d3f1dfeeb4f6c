"""`make demo`: the main job on the bundled X-ray pair, beside the true CT that the X-rays were projected from.

    python benchmarks/demo.py -o demo/

Runs the same `x2ct sample` as anyone, for one sample and for the posterior mean, prints the figures of both, and
draws truth, synthesis, difference and X-rays into demo/comparison.png. Needs no PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

from x2ct import XRay, output, preview
from x2ct.bundle import Bundle
from x2ct.errors import X2CTError
from x2ct.evaluation import metrics
from x2ct.volume import Volume

PAIR = Path(os.path.relpath(Path(__file__).resolve().parent.parent / "x2ct" / "models" / "demo"))
COLUMNS = ("PSNR dB", "SSIM", "MAE HU", "bone Dice")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="the folder to write to")
    parser.add_argument("-m", "--model", default="chest", help="a bundle's folder or name")
    options = parser.parse_args(arguments)
    try:
        return run(options.output, options.model)
    except X2CTError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def run(folder: Path, model: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    xrays = {"ap": PAIR / "ap.npy", "lateral": PAIR / "lateral.npy"}
    given = ["--ap", str(xrays["ap"]), "--lateral", str(xrays["lateral"]), "--geometry", str(PAIR / "geometry.json")]
    made = {"one sample": folder / "ct.nii.gz", "posterior mean": folder / "mean.nii.gz"}
    for options in (
        ["-o", str(made["one sample"]), "--preview", str(folder / "ct.png"), "--report", str(folder / "run.json")],
        ["-o", str(made["posterior mean"]), "--mean"],
    ):
        command = ["sample", *given, "-m", model, *options]
        print(f"\n$ x2ct {shlex.join(command)}", flush=True)
        started = time.monotonic()
        code = subprocess.run([sys.executable, "-m", "x2ct", *command], check=False).returncode
        if code:
            return code
        print(f"{time.monotonic() - started:.1f} s for the whole command")
    truth = Volume.load(PAIR / "truth.nii.gz")
    figures = score(truth, {name: Volume.load(path) for name, path in made.items()}, model)
    output.write_atomically(folder / "figures.json", (json.dumps(figures, indent=1) + "\n").encode())
    picture = folder / "comparison.png"
    pair = {name: XRay.load(path) for name, path in xrays.items()}
    preview.save(picture, Volume.load(made["one sample"]), pair, truth=truth)
    print(f"\nagainst the true CT, {'x'.join(map(str, truth.shape))} voxels, over the whole volume:")
    print(f"{'':16}" + "".join(f"{column:>11}" for column in COLUMNS))
    for name, row in figures.items():
        print(f"{name:16}" + "".join(f"{value:11.3f}" for value in row.values()))
    print(f"\n{picture}: truth, synthesis, their difference, and the X-rays")
    return 0


def score(truth: Volume, made: dict[str, Volume], model: str) -> dict[str, dict[str, float]]:
    """PSNR, SSIM, MAE and bone Dice of each volume, over the whole of it."""
    window = Bundle.load(model).intensity.window_hu
    rows = {}
    for name, volume in made.items():
        values = (
            metrics.psnr(truth.hu, volume.hu, window),
            metrics.ssim(truth.hu, volume.hu, window),
            metrics.mae_hu(truth.hu, volume.hu, window=window)["all"],
            metrics.bone_dice(truth.hu, volume.hu),
        )
        rows[name] = {column: round(float(value), 4) for column, value in zip(COLUMNS, values, strict=True)}
    return rows


if __name__ == "__main__":
    sys.exit(main())
