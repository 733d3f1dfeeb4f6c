"""kill -9 at random moments: no half file under a final name, and the next run goes on or does it all.

    python benchmarks/faults.py -o benchmarks/results/faults [--trials 200]

Each trial starts a command in a process of its own, kills it after a random part of the time that the command takes,
and looks at what is there: whatever has a final name must be whole, and, where the undisturbed command gives the same
bytes each time, be those bytes. Then the command is run again as a user would (with --resume or --continue where there
is one) and must end as if nothing had happened. A loss is any trial in which that isn't so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np

from tests import phantom, tiny_bundle, tiny_run
from x2ct.bundle import Bundle
from x2ct.data.shards import ShardSet
from x2ct.errors import X2CTError
from x2ct.files import atomic
from x2ct.io import report
from x2ct.io.ct.volume import Volume
from x2ct.training.checkpoint import CHECKPOINT_FILE, read_progress

ROOT = Path(__file__).resolve().parent.parent
SHARES = {"sample": 0.3, "cohort": 0.2, "prepare": 0.2, "train": 0.15, "export": 0.15}
Content = Mapping[str, bytes]


@dataclass(frozen=True)
class Fault:
    """A command that is killed.

    Attributes:
        arguments: of `x2ct`, with the output's folder in place of OUT.
        again: what is added to go on after a kill.
        check: raises where a file with a final name is not whole.
        same: whether the whole output has the same bytes each time.
        first: what is added where there is nothing to go on with.
    """

    arguments: tuple[str, ...]
    again: tuple[str, ...]
    check: Callable[[Path], object]
    same: bool = True
    first: tuple[str, ...] = ()

    def command(self, out: Path, again: bool = False) -> list[str]:
        """Return the command line, with or without the option that goes on."""
        given = [part.replace("OUT", str(out)) for part in self.arguments]
        return [sys.executable, str(ROOT / "cli.py"), *given, *(self.again if again else self.first)]


def visible(folder: Path) -> Content:
    """Return what has a final name: hidden files and folders are leftovers of a kill, which nothing can clear.

    TensorBoard's logs are named after time and process, one for each start of a training, and are left out.
    """
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "tensorboard")
    kept = (path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def faults(work: Path) -> dict[str, Fault]:
    """Return the commands, on inputs made in `work`."""
    model, ap = work / "tiny.x2ct", work / "ap.npy"
    tiny_bundle.write(model)
    np.save(ap, np.random.default_rng(0).uniform(0, 5, tiny_bundle.DETECTOR).astype(np.float32))
    (work / "cases.csv").write_text("id,ap\n" + "".join(f"s{k},ap.npy\n" for k in range(6)))
    for seed in range(3):
        hu = phantom.chest(tiny_run.GRID, seed, marker=False)
        Volume(hu, tiny_run.GRID.index_to_mm).save(_folder(work / "cts") / f"p{seed}.nii.gz")
    shards = tiny_run.write_shards(work / "shards")
    (work / "config.json").write_text(json.dumps(tiny_run.CONFIG))
    quiet = ("--quiet", "--threads", "1")
    run_x2ct("train", str(shards), "-o", str(work / "run"), "--config", str(work / "config.json"), *quiet)

    def volumes(out: Path) -> None:
        for name in visible(out):
            if name.endswith(".nii.gz"):
                Volume.load(out / name)
            elif name.endswith(".json"):
                json.loads((out / name).read_bytes())

    def shard_set(out: Path) -> None:
        if (out / "shards/index.json").exists():
            ShardSet.open(out / "shards")

    def checkpoint(out: Path) -> None:
        if (out / "run" / CHECKPOINT_FILE).exists():
            read_progress(out / "run")

    def bundle(out: Path) -> None:
        if (out / "new.x2ct").exists():
            Bundle.load(out / "new.x2ct")

    side, step = str(tiny_run.GRID.shape[0]), str(tiny_run.GRID.spacing_mm[0])
    grid = ("--shape", f"{side},{side},{side}", "--voxel", step, "--validation", "p2", "--quiet")
    sample = ("sample", "--ap", str(ap), "-m", str(model), "-o", "OUT/ct.nii.gz", "--samples", "2", *quiet)
    cohort = ("sample", "--manifest", str(work / "cases.csv"), "-m", str(model), "-o", "OUT/cohort", *quiet)
    train = ("train", str(shards), "-o", "OUT/run", *quiet)
    return {
        "sample": Fault((*sample, "--preview", "OUT/ct.png"), (), volumes),
        "cohort": Fault(cohort, ("--continue",), volumes, same=False),
        "prepare": Fault(("prepare", str(work / "cts"), "-o", "OUT/shards", *grid), (), shard_set),
        "train": Fault(train, ("--resume",), checkpoint, same=False, first=("--config", str(work / "config.json"))),
        "export": Fault(("export", str(work / "run"), "-o", "OUT/new.x2ct", "--quiet"), (), bundle, same=False),
    }


def run_x2ct(*arguments: str) -> None:
    """Run an undisturbed command, which must succeed."""
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *arguments], check=True)


def trial(fault: Fault, whole: Content, seconds: float, out: Path) -> str:
    """Kill once and go on; return what was lost, or nothing."""
    process = subprocess.Popen(fault.command(out), stderr=subprocess.PIPE)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    try:
        fault.check(out)
    except (X2CTError, ValueError) as error:
        return f"after the kill: {error}"
    there = visible(out)
    if fault.same and any(whole.get(name) != data for name, data in there.items() if not _grows(name)):
        return f"after the kill: other bytes in {', '.join(n for n, d in there.items() if whole.get(n) != d)}"
    begun = any(path.is_file() and not path.name.startswith(".") for path in out.rglob("*"))
    again = subprocess.run(fault.command(out, again=begun), stderr=subprocess.PIPE, text=True, check=False)
    if again.returncode and fault.again and begun:  # killed before there was anything to go on with
        again = subprocess.run(fault.command(out), stderr=subprocess.PIPE, text=True, check=False)
    if again.returncode:
        return f"the next run: code {again.returncode}: {again.stderr.strip()}"
    fault.check(out)
    now = visible(out)
    if now.keys() != whole.keys() or (fault.same and now != whole):
        return f"the next run: found {', '.join(sorted(now))}, expected {', '.join(sorted(whole))}"
    return ""


def _grows(name: str) -> bool:
    """Return whether a run writes this file anew as it goes, such as an index of what is done so far."""
    return name.endswith("index.json")


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=SHARES)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    rows, losses = [], []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, fault in faults(work).items():
            if args.only and name not in args.only:
                continue
            started = time.perf_counter()
            subprocess.run(fault.command(_folder(work / "whole" / name)), check=True)
            length = time.perf_counter() - started
            fault.check(work / "whole" / name)
            whole = visible(work / "whole" / name)
            count, lost = max(1, round(SHARES[name] * args.trials)), 0
            for number in range(count):
                out = _folder(work / "trial")
                found = trial(fault, whole, chance.uniform(0, length), out)
                if found:
                    lost += 1
                    losses.append(f"{name} {number}: {found.replace(str(work), '')}")
                    print(losses[-1], file=sys.stderr, flush=True)
                shutil.rmtree(out)
            rows.append({"command": name, "trials": count, "losses": lost, "seconds_undisturbed": round(length, 2)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    told = {"seed": args.seed, "cpus": os.cpu_count(), "rows": rows, "losses": losses}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_atomically(args.output.with_suffix(".json"), (json.dumps(told, indent=1) + "\n").encode())
    cells = [(row["command"], row["trials"], row["losses"]) for row in rows]
    cells.append(("all", sum(row["trials"] for row in rows), len(losses)))
    lines = report.markdown_table(("command", "kills", "losses"), cells, text=1)
    atomic.write_atomically(args.output.with_suffix(".md"), ("\n".join(lines) + "\n").encode())
    print("\n".join(lines))
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
