"""Cut weights down to what comes home from a GPU machine: one average in half precision, as a run that export takes.

python benchmarks/gpu/slim.py RUN -o SLIM          # a run's last and best average, its configuration and history
python benchmarks/gpu/slim.py BUNDLE -o START      # or a bundle's weights, as `train.py --init START` takes them
python benchmarks/gpu/slim.py --join OUT -o RUN    # and back: averages that came home in parts, as a run

An average that is larger than a file may be comes in parts, NAME.safetensors, NAME-2.safetensors and so on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # works in a checkout, installed or not

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from x2ct.errors import InputError
from x2ct.files import atomic

AVERAGES = ("checkpoint.safetensors", "best.safetensors")
TEXTS = ("config.json", "validation.jsonl")
MOST_BYTES = 16 * 2**20

Tensors = dict[str, npt.NDArray[Any]]


def average(source: Path, target: Path) -> int:
    """Write a checkpoint's first average in float16, each part whole or not at all; return the steps that it is from.

    Raises:
        InputError: no readable checkpoint.
    """
    tensors, metadata = _read(source)
    prefix = f"ema{json.loads(metadata['config'])['optim']['ema'][0]:g}."
    half = {name: value.astype(np.float16) for name, value in tensors.items() if name.startswith(prefix)}
    for number, part in enumerate(_parts(half), 1):
        _replace(_part(target, number), save(part, metadata))
    return int(metadata["step"])


def join(source: Path, target: Path) -> None:
    """Write the averages of a folder that came home, whose parts may be several, as a run with one file for each.

    Raises:
        InputError: no average in the folder, a part is damaged, or parts are from different steps, as a kill between
            two of them leaves it.
    """
    names = [name for name in AVERAGES if (source / name).is_file()]
    if not names:
        raise InputError.of(source, "folder", found="no average", expected=f"{' or '.join(AVERAGES)}")
    target.mkdir(parents=True, exist_ok=True)
    texts(source, target)
    for name in names:
        joined, first = _read(source / name)
        number = 2
        while (part := _part(source / name, number)).is_file():
            tensors, metadata = _read(part)
            if metadata["step"] != first["step"]:
                found, expected = f"step {metadata['step']}", f"step {first['step']}, as its first part"
                raise InputError.of(part, "step", found=found, expected=expected, hint="take the other average")
            joined |= tensors
            number += 1
        atomic.write_atomically(target / name, save(joined, first))


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError.of(path, "file", found=error, expected="a whole safetensors file") from error


def _part(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_stem(f"{path.stem}-{number}")


def _parts(tensors: Tensors) -> list[Tensors]:
    """Share tensors out to files of at most `MOST_BYTES`, a little left for their header."""
    parts: list[Tensors] = [{}]
    room = most = MOST_BYTES - 2**18
    for name, value in tensors.items():
        if value.nbytes > room and parts[-1]:
            parts.append({})
            room = most
        parts[-1][name] = value
        room -= value.nbytes
    return parts


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
    atomic.write_atomically(target / AVERAGES[0], save(tensors, metadata))
    atomic.write_atomically(target / TEXTS[0], json.dumps(config, indent=2).encode())


def main() -> None:
    """Cut down a run or a bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a run's folder, a bundle, a bundled model's name, or what came home")
    parser.add_argument("--join", action="store_true", help="join averages that came home in parts")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    run = Path(args.source)
    if args.join:
        join(run, args.output)
    elif (run / AVERAGES[0]).is_file():
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
