"""Cut weights down to what comes home from a GPU machine, and make a run of what came.

    python benchmarks/gpu/slim.py OUT -o RUN     # at home: OUT's averages, and what they say of themselves, as a run

`train.py` writes an average in half precision, in parts where it is larger than a file may be: NAME.safetensors,
NAME-2.safetensors. The first part also says the configuration and the validations so far.
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

from x2ct.errors import InputError, X2CTError
from x2ct.files import atomic

AVERAGES = ("checkpoint.safetensors", "best.safetensors")
CONFIG, HISTORY = "config.json", "validation.jsonl"
MOST_BYTES = 16 * 2**20
"""The largest size of a file that is brought back."""
MOST_PARTS = 2
"""The most parts of an average. Two averages, a log and an archive are six files; eight can be brought back."""

Tensors = dict[str, npt.NDArray[Any]]


def average(source: Path, target: Path) -> int:
    """Write a checkpoint's first average in float16; return the steps that it is from.

    Its parts are written beside and renamed one right after the other, the first one last. A kill just between leaves
    parts of two steps, which `join` finds, and the other average whole.

    Raises:
        InputError: no readable checkpoint, or an average in more parts than come home.
    """
    tensors, metadata = _read(source)
    prefix = f"ema{json.loads(metadata['config'])['optim']['ema'][0]:g}."
    half = {name: value.astype(np.float16) for name, value in tensors.items() if name.startswith(prefix)}
    parts = _parts(half)
    if len(parts) > MOST_PARTS:
        expected = f"at most {MOST_PARTS} of {MOST_BYTES >> 20} MiB"
        raise InputError.of(source, "average", found=f"{len(parts)} parts", expected=expected, hint="a smaller network")
    history = source.with_name(HISTORY)
    facts = {**metadata, "history": history.read_text() if history.is_file() else ""}
    facts["parts"] = str(len(parts))
    written = []
    for number, part in enumerate(parts, 1):
        beside = _part(target.with_name("partial"), number)  # one name a part, so that few such files can be left
        beside.write_bytes(save(part, facts if number == 1 else {"step": metadata["step"]}))
        written.append((beside, _part(target, number)))
    for beside, path in reversed(written):
        beside.replace(path)
    return int(metadata["step"])


def join(source: Path, target: Path) -> list[InputError]:
    """Write the averages of a folder that came home, whose parts may be several, as a run with one file for each.

    Returns:
        Why an average is left out, where there is another.

    Raises:
        InputError: no average in the folder is whole: a part is damaged or missing, or parts are of different steps, as
            a kill between two of them leaves it.
    """
    problems, latest = list[InputError](), -1
    for name in AVERAGES:
        if not (source / name).is_file():
            continue
        try:
            joined, first = _joined(source / name)
        except InputError as error:
            problems.append(error)
            continue
        history = first.pop("history")
        atomic.write_atomically(target / name, save(joined, first))
        if int(first["step"]) > latest:
            latest = int(first["step"])
            config = json.dumps(json.loads(first["config"]), indent=2)
            atomic.write_atomically(target / CONFIG, f"{config}\n".encode())
            atomic.write_atomically(target / HISTORY, history.encode())
    if latest >= 0:
        return problems
    expected = " or ".join(AVERAGES)
    raise problems[0] if problems else InputError.of(source, "folder", found="no average", expected=expected)


def _joined(path: Path) -> tuple[Tensors, dict[str, str]]:
    tensors, first = _read(path)
    for number in range(2, int(first["parts"]) + 1):
        part = _part(path, number)
        further, metadata = _read(part)
        if metadata["step"] != first["step"]:
            found, expected = f"step {metadata['step']}", f"step {first['step']}, as its first part"
            raise InputError.of(part, "step", found=found, expected=expected)
        tensors |= further
    return tensors, first


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


def main() -> int:
    """Make a run of what came home; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="what came home")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the run's folder")
    args = parser.parse_args()
    try:
        for problem in join(args.source, args.output):
            print(f"slim: left out: {problem}", file=sys.stderr)
    except X2CTError as error:
        print(f"slim: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
