"""What X-rays cost that are not exact line integrals: bundles side by side on the shards' validation patients.

    python benchmarks/radiographs.py SHARDS chest -o benchmarks/results/radiographs-chest

Detector physics leaves line integrals, which are given as such; display pictures are integers and go through the
sampler's own chain for uncalibrated X-rays. Choices may be made on this table: nobody in it is a test patient.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np
import torch

import x2ct
from x2ct.data import ShardSet
from x2ct.data.augment import Study, plain_study
from x2ct.data.imaging import NONE, RadiographConfig, detected, display_picture, draw_display, draw_physics
from x2ct.evaluation import metrics
from x2ct.io.report import markdown_table

PHYSICS = replace(NONE, scatter=0.0, glare=0.0, blur_mm=0.0, photons=(0.0, 0.0))
DISPLAY = replace(PHYSICS, display=1.0, gamma=0.0, clip=0.0, eight_bit=0.0, collimate=0.0, marker=0.0)
SHOWN = replace(DISPLAY, gamma=0.3, clip=1.5, eight_bit=1.0)
CONDITIONS: dict[str, RadiographConfig] = {
    "line integrals": PHYSICS,
    "10^5 photons a pixel": replace(PHYSICS, photons=(1e5, 1e5)),
    "10^4 photons a pixel": replace(PHYSICS, photons=(1e4, 1e4)),
    "scatter": replace(PHYSICS, scatter=0.2),
    "veiling glare": replace(PHYSICS, glare=0.05),
    "blur": replace(PHYSICS, blur_mm=1.5),
    "16-bit picture": DISPLAY,
    "8-bit picture, tone curve, window": SHOWN,
    "the same with blades and a letter": replace(SHOWN, collimate=1.0, marker=1.0),
    "all of it": replace(SHOWN, collimate=1.0, marker=1.0, scatter=0.1, glare=0.03, blur_mm=1.0, photons=(1e5, 1e5)),
}


def main() -> None:
    """Print the table and write it as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("bundles", nargs="+", help="bundles, or names of bundled models")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("--seeds", type=int, default=1, help="corruptions of each kind")
    parser.add_argument("--only", nargs="+", choices=list(CONDITIONS), help="these X-rays alone")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    rows = []
    for bundle in args.bundles:
        sampler = x2ct.Sampler(bundle, threads=args.threads)
        shards = ShardSet.open(args.shards)
        for patient in shards.select("validation", "chest"):
            study = plain_study(patient, sampler.grid, sampler.bundle.geometry)
            for name, config in CONDITIONS.items():
                if args.only and name not in args.only:
                    continue
                for seed in range(args.seeds if config != PHYSICS else 1):
                    figures = estimate(sampler, study, corrupted(sampler, study, config, seed))
                    rows.append({"bundle": str(bundle), "person": patient.id, "x-rays": name, "seed": seed, **figures})
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(rows))
    print(markdown(rows))


def corrupted(sampler: x2ct.Sampler, study: Study, config: RadiographConfig, seed: int) -> dict[str, x2ct.XRay]:
    """Return the study's X-rays with every strength drawn from the seed: the same for each bundle."""
    found = {}
    for slot, view in enumerate(sampler.bundle.geometry.views):
        rng = np.random.default_rng([seed, slot])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        image = detected(study.views[slot], view.spacing_mm, draw_physics(config, rng), generator)
        values: Any = image.numpy()
        if config.display:
            grey = display_picture(image, draw_display(config, view.shape, rng)).numpy()
            values = grey.astype(np.uint8 if config.eight_bit else np.uint16)
        found[view.name] = x2ct.XRay.of(values, view.spacing_mm, view=view.name)
    return found


def estimate(sampler: x2ct.Sampler, study: Study, xrays: dict[str, x2ct.XRay]) -> dict[str, float]:
    """Return the figures of the mean estimate and of one sample."""
    found = {}
    for what, mean in (("mean", True), ("sample", False)):
        hu = sampler.sample(**xrays, mean=mean, force=True).hu
        found[f"{what}_psnr_db"] = round(
            float(metrics.psnr(study.hu.numpy(), hu, sampler.bundle.intensity.window_hu)), 3
        )
        found[f"{what}_bone_dice"] = round(float(metrics.bone_dice(study.hu.numpy(), hu)), 4)
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return a table as Markdown: a row for each condition, bundles side by side, means over patients and seeds."""
    bundles = list(dict.fromkeys(row["bundle"] for row in rows))
    keys = [("mean_psnr_db", "mean dB", ".2f"), ("sample_psnr_db", "sample dB", ".2f")]
    keys += [("mean_bone_dice", "mean bone Dice", ".3f"), ("sample_bone_dice", "sample bone Dice", ".3f")]
    titles = [f"{title}, {Path(bundle).stem}" for _, title, _ in keys for bundle in bundles]
    lines = []
    for name in dict.fromkeys(row["x-rays"] for row in rows):
        cells = []
        for key, _, form in keys:
            for bundle in bundles:
                values = [row[key] for row in rows if (row["bundle"], row["x-rays"]) == (bundle, name)]
                cells.append(format(float(np.mean(values)), form))
        lines.append([name, *cells])
    return "\n".join(markdown_table(["X-rays", *titles], lines, text=1)) + "\n"


if __name__ == "__main__":
    main()
