"""Every measurement that is kept under benchmarks/results, by name: what to run after the bundled model was replaced.

    python benchmarks/refresh.py SHARDS CTS                        # all that depend on the model
    python benchmarks/refresh.py SHARDS CTS --only bench overhead  # these
    python benchmarks/refresh.py SHARDS CTS --only bench --list    # say what would be run

SHARDS is what `x2ct prepare` wrote, CTS the folder of the test patients' CTs. Each command writes its own results; one
that fails stops no other, and the exit code is then 1. `make benchmarks` makes the tables from them. A new model is
tuned and calibrated first (`x2ct tune`, `x2ct calibrate`), for both are part of what is measured.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

from x2ct.io.report import markdown_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks/results"
LATENCY = "x2ct bench chest --no-pytorch --apart --threads 2 -n 1 --warmup 0 --cold 1"
TILED = f"{LATENCY} --sweep grid=256x256x160 --sweep steps=2 --sweep precision=f32"
EVALUATE = "--data CTS --baselines SHARDS"


@dataclass(frozen=True)
class Measurement:
    """One or several commands, run one after another.

    Attributes:
        name: what `--only` calls it.
        what: it measures.
        commands: with SHARDS and CTS where those folders belong.
        minutes: on two cores that do nothing else.
        of_model: whether its figures change with the bundled model's weights.
    """

    name: str
    what: str
    commands: tuple[str, ...]
    minutes: int
    of_model: bool = True


MEASUREMENTS = (
    Measurement(
        "bench",
        "latency in each runtime and precision beside the plain PyTorch loop; roofline and layers; agreement with the "
        "converged solution",
        (
            f"x2ct bench chest --threads 2 -o {RESULTS}/bench",
            f"python benchmarks/roofline.py chest --threads 2 -o {RESULTS}/roofline",
            f"python benchmarks/agreement.py chest --threads 2 -o {RESULTS}/agreement",
        ),
        8,
    ),
    Measurement(
        "scaling",
        "time and peak memory against voxels to 512^3, steps, batch, threads",
        (f"python benchmarks/scaling.py chest --threads 2 -o {RESULTS}/scaling",),
        5,
        of_model=False,
    ),
    Measurement(
        "tiles",
        "what a memory budget costs, and a thinner halo at the seams",
        (
            f"{TILED} --sweep tiles=whole,1.4GiB,1.2GiB,1GiB -o {RESULTS}/tiles",
            f"{TILED} --sweep tiles=1.2GiB --sweep halo=32,16,8,0 -o {RESULTS}/tiles-halo",
        ),
        6,
    ),
    Measurement(
        "large",
        "512^3 voxels to a written file within 6 GiB",
        (
            "x2ct sample --ap x2ct/models/demo/ap.npy --lateral x2ct/models/demo/lateral.npy --shape 512,512,512 "
            "--voxel 0.625 --memory 6GiB --solver dpmpp-2m --steps 4 --threads 2 -o build/large-512.nii.gz "
            f"--report {RESULTS}/large-512.json",
        ),
        3,
        of_model=False,
    ),
    Measurement(
        "ancestor",
        "the field's ancestor at its published setting: FLOP, and an evaluation's time, against ours",
        (f"python benchmarks/ancestor.py -o {RESULTS}/ancestor",),
        3,
        of_model=False,
    ),
    Measurement(
        "evaluate",
        "quality: see [docs/evaluation.md](../docs/evaluation.md)",
        (
            f"x2ct evaluate chest {EVALUATE} --conditions every --probe -o {RESULTS}/evaluate-chest",
            f"x2ct evaluate chest {EVALUATE} --geometry cone -o {RESULTS}/evaluate-chest-cone",
            f"x2ct evaluate chest --data CTS --steps 3 -o {RESULTS}/evaluate-chest-steps3",
        ),
        14,
    ),
    Measurement(
        "picture",
        "what the README shows: one sample of the demo pair, drawn",
        ("python benchmarks/demo_pair.py --picture docs/demo.jpg",),
        1,
    ),
    Measurement(
        "radiographs",
        "what X-rays as hospitals have them cost the bundled model, on the validation patients",
        (f"python benchmarks/radiographs.py SHARDS chest -o {RESULTS}/radiographs-chest",),
        3,
    ),
    Measurement(
        "runtimes",
        "one volume in each runtime, each within its bound of the first",
        (
            "x2ct export chest --format torchscript --format aoti",
            f"python benchmarks/runtimes.py chest -o {RESULTS}/runtimes-cpu",
        ),
        3,
    ),
    Measurement(
        "solvers",
        "solvers, schedules and numbers of evaluations; tuned noise levels on validation and test patients",
        (
            f"python benchmarks/solvers.py chest --shards SHARDS --shape 48 48 48 -o {RESULTS}/solvers",
            "python benchmarks/solvers.py chest --shards SHARDS --solver unipc-2 --schedule log-snr --schedule tuned "
            f"--evaluations 3 4 5 6 8 10 --reference 40 -o {RESULTS}/solvers-tuned",
            "python benchmarks/solvers.py chest --shards SHARDS --test CTS --shape 64 64 64 --solver unipc-2 "
            f"--schedule log-snr --schedule tuned --reference 40 -o {RESULTS}/solvers-tuned-test",
        ),
        15,
    ),
    Measurement(
        "consistency",
        "what pulling towards the X-rays is worth",
        (f"python benchmarks/consistency.py chest --shards SHARDS --test CTS --cone -o {RESULTS}/consistency-chest",),
        10,
    ),
    Measurement(
        "unexplained",
        "synthetic lesions that the CT lacks, found by what its X-rays show beyond it, against false alarms",
        (
            f"python benchmarks/unexplained.py chest SHARDS -o {RESULTS}/unexplained-chest",
            f"python benchmarks/unexplained.py chest CTS -o {RESULTS}/unexplained-chest-test",
        ),
        30,
    ),
    Measurement(
        "masses",
        "how much of a 40 mm mass that both X-rays show comes back in the CT, and what binds",
        (f"python benchmarks/masses.py chest CTS -o {RESULTS}/masses-chest",),
        15,
    ),
    Measurement(
        "align",
        "what `--align` recovers where the two X-rays show the patient at another height, in another size, or turned",
        (f"python benchmarks/align.py chest CTS -o {RESULTS}/align-chest",),
        10,
    ),
    Measurement(
        "serve",
        "`x2ct serve` under load: 200 requests, eight at a time, some of them bad",
        (f"python benchmarks/serve_load.py chest --shape 64,64,64 --threads 2 -o {RESULTS}/serve-load",),
        5,
        of_model=False,
    ),
    Measurement(
        "overhead",
        "what the loop spends outside of the network, feature by feature",
        (f"python benchmarks/overhead.py -o {RESULTS}/overhead",),
        4,
        of_model=False,
    ),
    Measurement(
        "int8",
        "what 8 bits cost and gain, on the validation patient and on test patients; needs VNNI",
        (
            "x2ct quantize x2ct/models/chest.x2ct SHARDS -o build/chest-int8.x2ct --threads 2 "
            f"--report {RESULTS}/int8-cpu.json",
            f"x2ct evaluate chest {EVALUATE} --precision int8 -o {RESULTS}/evaluate-chest-int8",
        ),
        3,
    ),
    Measurement(
        "deviation",
        "how far the samples' standard deviation falls short of their error, on the validation patients",
        (
            "x2ct calibrate x2ct/models/chest.x2ct SHARDS --steps 6 --steps 3 -o build/chest-calibrated.x2ct "
            f"--threads 2 --report {RESULTS}/deviation.json",
        ),
        3,
    ),
    Measurement(
        "batch",
        "what it would gain to evaluate two or four samples at once",
        (f"python benchmarks/batch.py chest --threads 2 -o {RESULTS}/batch",),
        3,
        of_model=False,
    ),
    Measurement(
        "designs",
        "designs of the network, trained for equal time; the bundled one with more blocks, trained on",
        (
            f"python benchmarks/designs.py SHARDS -o {RESULTS}/designs --runs runs/designs --minutes 40",
            f"python benchmarks/designs.py SHARDS -o {RESULTS}/designs-grown --runs runs/grown --minutes 45 "
            "--init chest",
        ),
        250,
        of_model=False,
    ),
    Measurement(
        "baselines",
        "the ancestor, a regression network and ours, trained for the same time, beside the fitted baselines",
        (
            "python benchmarks/baselines.py SHARDS -o runs/baselines --minutes 6 --data CTS",
            f"python benchmarks/baselines_table.py runs/baselines --shards SHARDS --data CTS -o {RESULTS}/baselines",
        ),
        75,
        of_model=False,
    ),
    Measurement(
        "ranks",
        "training on two ranks against one process: the loss of each step, and how far apart the weights end",
        (f"python benchmarks/ranks.py -o {RESULTS}/ranks",),
        1,
        of_model=False,
    ),
    Measurement(
        "clock",
        "training by the clock, of 3, 10 and 30 minutes: each ends with a learning rate of zero",
        (f"python benchmarks/clock.py SHARDS -o {RESULTS}/clock",),
        45,
        of_model=False,
    ),
    Measurement(
        "faults",
        "kill -9 at random moments: what is lost",
        (
            f"python benchmarks/faults.py --trials 140 --only sample --only cohort --only prepare -o {RESULTS}/faults",
            f"python benchmarks/faults.py --trials 60 --only train --only export -o {RESULTS}/faults-train",
            f"python benchmarks/ray_lost_worker.py -o {RESULTS}/ray-lost-worker",
        ),
        20,
        of_model=False,
    ),
    Measurement(
        "inputs",
        "every kind of X-ray file, and what came out of it",
        (f"python benchmarks/inputs.py -o {RESULTS}/inputs.md",),
        1,
        of_model=False,
    ),
    Measurement(
        "polarity",
        "which side of real radiographs is dense, with right and wrong tags",
        (f"python benchmarks/polarity.py -o {RESULTS}/polarity",),
        5,
        of_model=False,
    ),
    Measurement(
        "plausibility",
        "how often sample warns of chests, and of what is none, lies, or is of two patients",
        (f"python benchmarks/plausibility.py chest SHARDS TEST --others OTHERS -o {RESULTS}/plausibility-test",),
        5,
        of_model=False,
    ),
    Measurement(
        "soak",
        "whether memory stays flat: 1000 runs of one kind, 500 of all kinds",
        (
            f"python benchmarks/soak.py -o {RESULTS}/soak",
            f"python benchmarks/soak.py --mixed --runs 500 --threads 2 -o {RESULTS}/soak-mixed",
        ),
        20,
        of_model=False,
    ),
    Measurement(
        "fuzz",
        "what hostile files do to the readers, the core and the C interface: [fuzz.md](results/fuzz.md)",
        ("make fuzz SECONDS=600",),
        120,
        of_model=False,
    ),
)


def markdown() -> str:
    """Return the README's table of commands."""
    rows = [
        (one.name, one.what, ", then ".join(f"`{command}`" for command in one.commands), one.minutes)
        for one in MEASUREMENTS
    ]
    return "\n".join(markdown_table(("name", "measures", "command", "minutes"), rows, text=3)) + "\n"


def arguments(command: str, shards: Path, cts: Path) -> list[str]:
    """Return the command as a process of this Python, with the folders in their places."""
    places = {
        "SHARDS": [str(shards)],
        "CTS": [str(cts)],
        "python": [sys.executable],
        "x2ct": [sys.executable, "-m", "x2ct"],
    }
    return [part for word in shlex.split(command) for part in places.get(word, [word])]


def main() -> int:
    """Run what is asked for; returns the exit code."""
    names = [one.name for one in MEASUREMENTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("cts", type=Path)
    parser.add_argument("--only", nargs="+", choices=names, help="these, in this module's order")
    parser.add_argument("--list", action="store_true", help="run nothing")
    asked = parser.parse_args()
    failed = 0
    (ROOT / "build").mkdir(exist_ok=True)  # for what is made on the way and not kept
    for one in MEASUREMENTS:
        if one.name not in asked.only if asked.only else not one.of_model:
            continue
        for command in one.commands:
            print(f"{time.strftime('%H:%M:%S')} {one.name}: {command}", flush=True)
            if asked.list:
                continue
            code = subprocess.call(arguments(command, asked.shards.resolve(), asked.cts.resolve()), cwd=ROOT)
            failed += code != 0
            if code:
                print(f"refresh.py: {one.name}: exit code {code}: {command}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
