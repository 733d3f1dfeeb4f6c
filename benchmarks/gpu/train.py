"""Train on a GPU machine that is lent for minutes: nothing but training, and its results outside as they come.

    python benchmarks/gpu/train.py patients.tar OUT --until DEADLINE --init chest --config recipe.json changes.json

Needs Python with PyTorch, NumPy, SciPy, Pillow, scikit-image, msgspec and safetensors, and `x2ct._core`, by which
geometry is read; to start from a bundle also onnx and ONNX Runtime. `benchmarks/gpu/run.sh train` brings all of it. A
first process unpacks, watches and copies, a second one trains, so that a crash of the second ends nothing: it starts
again from its checkpoint. OUT gets the last average (checkpoint.safetensors) as often as --every says, the best one
(best.safetensors), each in parts of a file's size that are replaced together, and train.log: whatever is killed, and
when, `benchmarks/gpu/slim.py OUT` makes a run of it that `x2ct export` takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # works in a checkout, installed or not

from benchmarks.gpu import slim
from benchmarks.gpu.pack import unpack
from x2ct.errors import InputError, X2CTError

if TYPE_CHECKING:
    from x2ct.training import TrainConfig

STOP_S = 4.0
"""Seconds before the deadline at which what still runs is stopped."""

ATTEMPTS = 5
"""Crashes of the training after which it is not started again."""


def main() -> int:
    """Train, and copy as it goes; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patients", type=Path, help="an archive of benchmarks/gpu/pack.py, or shards")
    parser.add_argument("out", type=Path, help="the folder for results")
    parser.add_argument("--until", type=float, required=True, help="when all ends, in seconds since 1970")
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="a training configuration, and what to change of it"
    )
    parser.add_argument("--init", help="a run, a bundle or a bundled model's name, whose weights are the start")
    parser.add_argument("--work", type=Path, default=Path("/tmp/x2ct-train"), help="a folder for shards and the run")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two copies of the last average")
    parser.add_argument(
        "--last", type=float, default=20.0, help="seconds before the deadline for the last validation and copies"
    )
    parser.add_argument("--recorded", action="store_true", help="take steps from a CUDA graph, until a crash")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        return train(args) if args.child else watch(args)
    except X2CTError as error:
        print(f"train: error: {error}", file=sys.stderr)
        return error.exit_code


# ---------------------------------------------------------------------------------------------- the second process


def train(args: argparse.Namespace) -> int:
    """Train to the deadline, or go on with a run."""
    from x2ct.export import starting_point
    from x2ct.training import train as run
    from x2ct.training.checkpoint import CHECKPOINT_FILE, read_progress

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder = args.work / "run"
    resume = (folder / CHECKPOINT_FILE).is_file()
    spent = read_progress(folder)[1] if resume else 0.0
    config = dataclasses.replace(layered(args.config), steps=0, minutes=1.0)
    start = starting_point(args.init) if args.init and not resume else None
    if start is not None:
        alike = config.diffusion == start.config.diffusion  # its sampling settings were tuned for its noise levels
        parent = {key: value for key, value in start.config.parent.items() if alike or key != "diffusion"}
        top = config.display_p99 or start.config.display_p99
        config = dataclasses.replace(config, parent=parent, display_p99=top)
    result = run(
        _shards(args),
        folder,
        None if resume else config,
        resume=resume,
        minutes=(spent + max(args.child - time.time(), 1.0)) / 60,
        init=start.weights if start else None,
        device=args.device,
        threads=1 if args.device == "cpu" else 0,
        recorded=args.recorded,
    )
    logging.info("%d steps in %.0f s", result.steps, result.seconds)
    return 0


def layered(files: Sequence[Path]) -> TrainConfig:
    """Return the first file's configuration with what the others say in its place, field by field at any depth.

    Raises:
        InputError: a file is missing or not JSON, or has unknown fields.
    """
    from x2ct.files.text import decode_json
    from x2ct.training import TrainConfig

    def lay(over: dict[str, Any], under: dict[str, Any]) -> dict[str, Any]:
        deeper = {key: lay(value, under.get(key) or {}) for key, value in over.items() if isinstance(value, dict)}
        return {**under, **over, **deeper}

    values = TrainConfig.load(files[0]).to_json()
    for file in files[1:]:
        try:
            values = lay(decode_json(file, file.read_bytes(), dict[str, Any]), values)
        except OSError as error:
            raise InputError.of(file, "file", found=error, expected="fields of a training configuration") from error
    return TrainConfig.from_json(values, str(files[-1]))


def _shards(args: argparse.Namespace) -> Path:
    return Path(args.patients) if args.patients.is_dir() else Path(args.work) / "shards"


# ---------------------------------------------------------------------------------------------- the first process


def watch(args: argparse.Namespace) -> int:
    """Unpack, start the training as often as it takes, copy its results, and end in time."""
    args.out.mkdir(parents=True, exist_ok=True)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.until - time.time() < args.last + 5:
        found = f"{args.until - time.time():.0f} s from now"
        raise InputError.of("--until", "deadline", found=found, expected=f"at least {args.last + 5:.0f} s from now")
    if not (_shards(args) / "index.json").is_file():
        unpack(args.patients, _shards(args))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    copies = Copies(args.work / "run", args.out, args.every)
    code = 1
    with (args.out / "train.log").open("ab", buffering=0) as log:
        for attempt in range(ATTEMPTS):
            # A crash may be the recording's: a GPU that a graph has led astray raises nothing that could be caught.
            options = [option for option in sys.argv[1:] if attempt == 0 or option != "--recorded"]
            code = _attempt(args, options, copies, log.fileno())
            if code == 0 or time.time() > args.until - args.last:
                break
            print(f"train: the training ended with code {code}, see train.log; it is started again", file=sys.stderr)
    return code


def _attempt(args: argparse.Namespace, options: list[str], copies: Copies, log: int) -> int:
    """Run one process that trains; return its exit code."""
    command = [sys.executable, str(Path(__file__).resolve()), *options, f"--child={args.until - args.last}"]
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"} | os.environ
    child = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        while child.poll() is None:
            time.sleep(0.2)
            copies.update()
            if time.time() > args.until - STOP_S:
                child.send_signal(signal.SIGTERM)
                if time.time() > args.until - STOP_S / 2:
                    break
    finally:
        child.kill()
        code = child.wait()
        copies.update(now=True)
    return code if code >= 0 else 128 - code  # as a shell counts signals


class Copies:
    """The files that come home, brought up to date.

    Args:
        run: the run's folder.
        out: the folder for results.
        every: seconds between two copies of the last average; the best one is copied whenever there is a better.
    """

    def __init__(self, run: Path, out: Path, every: float) -> None:
        self._run, self._out, self._every = run, out, every
        self._seen: dict[str, int] = {}
        self._copied = 0.0

    def update(self, *, now: bool = False) -> None:
        """Copy what is new and due."""
        last, best = slim.AVERAGES
        due = now or time.monotonic() - self._copied >= self._every
        if due and self._copy(last):
            self._copied = time.monotonic()
        self._copy(best)

    def _copy(self, name: str) -> bool:
        path = self._run / name
        if not path.is_file() or path.stat().st_mtime_ns == self._seen.get(name):
            return False
        self._seen[name] = path.stat().st_mtime_ns
        step = slim.average(path, self._out / name)
        print(f"{name}: step {step}", file=sys.stderr, flush=True)
        return True


if __name__ == "__main__":
    sys.exit(main())
