"""Train the networks that the bundled design is compared with, each for the same time on the same patients.

    python benchmarks/baselines.py SHARDS -o runs/baselines --minutes 30
    python benchmarks/baselines.py SHARDS -o runs/baselines --minutes 30 --data CTS     # predictions of CTs' X-rays too

Each leaves a run, a bundle (DIR/NAME.x2ct, for `x2ct evaluate`) and, with --data, one NIfTI a patient
(DIR/NAME-predictions/PERSON.nii.gz, for `x2ct evaluate --predictions`), from X-rays in the training geometry and, of
own, regression and ancestor, from cone beams, of which the networks are told (NAME-cone-predictions). What is there
already is not made again.

- own: this project's network and recipe (chest.json).
- regression: the same network, trained at sigma_max alone, where the answer is the posterior mean (regression.json).
- ancestor: 3D patch diffusion on slabs as published (ancestor.json), with voxels of twice the size, which a CPU can
  carry; ancestor-progressive with Patch Diffusion's progressive schedule, ancestor-frontal from the frontal X-ray
  alone. Sampled as EDM does, 18 steps of Heun; ancestor with and without churn.

Minutes are the trainer's own time, and each run cools down by then. Choices are made on the shards' validation
patients.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import x2ct
from x2ct.data import ShardSet
from x2ct.data.prepare import find_cts, read_body
from x2ct.errors import X2CTError
from x2ct.export import export_run
from x2ct.geometry import Geometry, attenuation
from x2ct.geometry.grid import Grid
from x2ct.render.drr import calibrated
from x2ct.training import TrainConfig, train
from x2ct.training.config import CONFIG_FILE

HERE = Path(__file__).resolve().parent
CHURN = 40.0
"""S_churn of EDM's stochastic sampler for ImageNet (Karras et al. 2022, table 5), with its S_max left open."""

Way = Mapping[str, Any]
"""How a prediction is sampled: arguments of `Sampler.sample`."""


@dataclasses.dataclass(frozen=True)
class Baseline:
    """One network to train.

    Attributes:
        config: what is trained.
        coarser: voxels of so many times the shards' size, and as many fewer along each axis.
        ways: how it is sampled, by the name added to the predictions' folder.
        cone: whether CTs are predicted from cone beams too.
    """

    config: TrainConfig
    coarser: int = 1
    ways: Mapping[str, Way] = dataclasses.field(default_factory=lambda: {"": {}})
    cone: bool = True

    def shards(self, folder: Path) -> ShardSet:
        """Return the patients on this baseline's grid."""
        shards = ShardSet.open(folder)
        x, y, z = (side // self.coarser for side in shards.grid.shape)
        i, j, k = (pitch * self.coarser for pitch in shards.grid.spacing_mm)
        return dataclasses.replace(shards, grid=Grid((x, y, z), (i, j, k)))


def baselines() -> dict[str, Baseline]:
    """Return all baselines, by name."""
    own, regression, ancestor = (
        TrainConfig.load(HERE / f"{name}.json") for name in ("chest", "regression", "ancestor")
    )
    progressive = dataclasses.replace(ancestor, patch=dataclasses.replace(ancestor.patch, schedule="progressive"))
    frontal = dataclasses.replace(
        ancestor,
        model=dataclasses.replace(ancestor.model, views=1),
        augment=dataclasses.replace(ancestor.augment, drop=(0.0,)),
    )
    return {
        "own": Baseline(own, ways={"": {}, "-mean": {"mean": True}}),
        "regression": Baseline(regression, ways={"": {"mean": True}}),
        "ancestor": Baseline(ancestor, 2, {"": {}, "-churn": {"churn": CHURN}}),
        "ancestor-progressive": Baseline(progressive, 2, cone=False),
        "ancestor-frontal": Baseline(frontal, 2, cone=False),
    }


def main() -> int:
    """Train, export and predict; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder for runs, bundles and predictions")
    parser.add_argument("--minutes", type=float, default=30.0, help="training time of each")
    parser.add_argument("--only", nargs="+", choices=list(baselines()), help="these alone")
    parser.add_argument("--data", type=Path, help="CTs to predict from their own X-rays")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    try:
        for name in args.only or baselines():
            baseline = baselines()[name]
            bundle = trained(name, baseline, args)
            if args.data is not None:
                predict(bundle, baseline, args)
    except X2CTError as error:
        print(f"baselines: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def trained(name: str, baseline: Baseline, args: argparse.Namespace) -> Path:
    """Return the baseline's bundle; train and export it if it is not there."""
    bundle: Path = args.output / f"{name}.x2ct"
    if bundle.exists():
        return bundle
    run, shards = args.output / name, baseline.shards(args.shards)
    # Validation would take time from the training, and nothing is chosen by it.
    config = dataclasses.replace(baseline.config, name=name, steps=0, minutes=args.minutes, validate_every=10**9)
    settings = {"device": args.device, "threads": args.threads}
    train(shards, run, config, resume=(run / CONFIG_FILE).exists(), minutes=args.minutes, **settings)
    facts = {
        "data": {split: [p.id for p in shards.select(split)] for split in ("train", "validation")},
        "date": time.strftime("%Y-%m-%d"),
        "recipe": f"benchmarks/baselines.py --minutes {args.minutes:g}",
    }
    export_run(run, bundle, provenance=facts)
    return bundle


def predict(bundle: Path, baseline: Baseline, args: argparse.Namespace) -> None:
    """Predict one CT a patient, way and geometry, from X-rays of the whole CT, projected as `x2ct evaluate` does."""
    sampler = x2ct.Sampler(bundle, threads=args.threads)
    own = sampler.bundle.geometry
    cone = Geometry.cone([view.name for view in own.views], shape=own.views[0].shape)
    for case, path in find_cts(args.data).items():
        patient = read_body(path)
        for suffix, geometry in {"": own, **({"-cone": cone} if baseline.cone else {})}.items():
            images = geometry.project(attenuation(patient.hu), patient.index_to_mm, args.threads)
            xrays = calibrated(geometry, images, case)
            for way, options in baseline.ways.items():
                if suffix and "churn" in options:
                    continue
                target = bundle.with_name(f"{bundle.stem}{way}{suffix}-predictions") / f"{case}.nii.gz"
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    sampler.sample(**xrays, geometry=geometry, force=True, **options).save(target)
                    print(target, flush=True)


if __name__ == "__main__":
    sys.exit(main())
