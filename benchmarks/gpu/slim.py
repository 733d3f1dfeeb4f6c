"""Cut weights down to what comes home from a GPU machine: one average in half precision, as a run that export takes.

python benchmarks/gpu/slim.py RUN -o SLIM          # a run's last and best average, its configuration and history
python benchmarks/gpu/slim.py BUNDLE -o START      # or a bundle's weights, as `train.py --init START` takes them
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # works in a checkout, installed or not

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from x2ct import output
from x2ct.errors import InputError

AVERAGES = ("checkpoint.safetensors", "best.safetensors")
TEXTS = ("config.json", "validation.jsonl")
MOST_BYTES = 16 * 2**20


def average(source: Path, target: Path) -> int:
    """Write a checkpoint's first average in float16, whole or not at all; return the steps that it is from.

    Raises:
        InputError: no readable checkpoint, or an average of more than `MOST_BYTES`.
    """
    try:
        with safe_open(source, framework="np") as file:
            metadata = file.metadata()
            prefix = f"ema{json.loads(metadata['config'])['optim']['ema'][0]:g}."
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            tensors = {name: file.get_tensor(name).astype(np.float16) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError.of(source, "file", found=error, expected="a whole safetensors file") from error
    data = save(tensors, metadata)
    if len(data) > MOST_BYTES:
        found, expected = f"{len(data) / 2**20:.1f} MiB in float16", f"at most {MOST_BYTES / 2**20:g} MiB"
        raise InputError.of(source, "average", found=found, expected=expected, hint="train a smaller network")
    _replace(target, data)
    return int(metadata["step"])


def texts(run: Path, target: Path) -> None:
    """Copy the configuration and the validations."""
    for name in TEXTS:
        if (run / name).is_file():
            _replace(target / name, (run / name).read_bytes())


def _replace(target: Path, data: bytes) -> None:
    """Write beside and rename; one name for all that is unfinished, so that a kill leaves at most one such file."""
    partial = target.with_name("partial")
    partial.write_bytes(data)
    partial.replace(target)


def from_bundle(bundle: str, target: Path) -> None:
    """Write a bundle's weights and configuration as a run."""
    from x2ct.export import starting_point

    start = starting_point(bundle)
    config = start.config.to_json()
    prefix = f"ema{start.config.optim.ema[0]:g}."
    tensors = {f"{prefix}{name}": value.numpy().astype(np.float16) for name, value in start.weights.items()}
    metadata = {"step": "0", "seconds": "0.0", "config": json.dumps(config)}
    output.write_atomically(target / AVERAGES[0], save(tensors, metadata))
    output.write_atomically(target / TEXTS[0], json.dumps(config, indent=2).encode())


def main() -> None:
    """Cut down a run or a bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a run's folder, a bundle, or a bundled model's name")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    run = Path(args.source)
    if (run / AVERAGES[0]).is_file():
        for name in AVERAGES:
            if (run / name).is_file():
                average(run / name, args.output / name)
        texts(run, args.output)
    else:
        from_bundle(args.source, args.output)
    for path in sorted(args.output.iterdir()):
        print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
