"""A bundle whose weights lie between two of the same network: a model and what fine-tuning made of it.

    python benchmarks/blend.py chest runs/tuned.x2ct --share 0.5 --name chest -o runs/blend.x2ct

Fine-tuning on other data gains there and loses at home; weights in between often keep most of both (Wortsman et al.
2022, "Robust fine-tuning of zero-shot models"). Choose the share on validation patients, with
benchmarks/radiographs.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import torch

from x2ct.bundle import Bundle
from x2ct.errors import InputError, X2CTError
from x2ct.export import StartingPoint, export_model, starting_point
from x2ct.export.run import spec_of
from x2ct.model import X2CTModel


def main() -> int:
    """Write the bundle; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="a bundle, or a bundled model's name; its solver and noise levels are kept")
    parser.add_argument(
        "second", help="a bundle of the same network, perhaps with blocks added; its provenance is kept"
    )
    parser.add_argument("--share", type=float, default=0.5, help="of the second's weights")
    parser.add_argument("--name", help="the model's name; by default the second's")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    try:
        first, second = starting_point(args.first), starting_point(args.second)
        networks = [
            dataclasses.replace(start.config.model, blocks_added=(), lift_blocks_added=()) for start in (first, second)
        ]
        if networks[0] != networks[1] or first.config.intensity != second.config.intensity:
            raise InputError.of(args.second, "network", found="another one", expected=f"that of {args.first}")
        base, tuned = Bundle.load(args.first), Bundle.load(args.second)
        said = f"benchmarks/blend.py: {args.share:g} of these weights, {1 - args.share:g} of {base.checksum}"
        spec = spec_of(second.config, args.name or tuned.name, {**tuned.provenance, "blend": said})
        # Solver and noise levels were chosen for the first, and the weights have not gone far.
        kept = dataclasses.replace(base.diffusion, deviation_scale={}, mirror=spec.diffusion.mirror)
        spec = dataclasses.replace(spec, diffusion=kept)
        report = export_model(blended(first, second, args.share), spec, args.output)
    except X2CTError as error:
        print(f"blend: error: {error}", file=sys.stderr)
        return error.exit_code
    print(report.bundle.path)
    return 0


@torch.no_grad()
def blended(first: StartingPoint, second: StartingPoint, share: float) -> X2CTModel:
    """Return the network with weights between the two, each row brought back to unit norm.

    Blocks that only the second has are its own, with their gains as if the first's were 0.
    """
    model = X2CTModel(second.config.model)
    for name, value in model.named_parameters():
        goal = second.weights[name]
        value.copy_(torch.lerp(first.weights.get(name, goal if goal.ndim else goal * 0), goal, share))
    model.normalize()
    return model.eval()


if __name__ == "__main__":
    sys.exit(main())
