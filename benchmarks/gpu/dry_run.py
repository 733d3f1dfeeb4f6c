"""Try both calls of benchmarks/gpu/run.sh without a GPU, in a tree of exactly what is carried, without a network.

    CARRY=build/dry GPU_PYTHON=3.11 benchmarks/gpu/run.sh carry SHARDS     # for the Python that plays the machine's
    python benchmarks/gpu/dry_run.py --carry build/dry --python ENV/bin/python -o benchmarks/results/gpu-dry-run.md

ENV is an environment with what a GPU machine has, and without what it lacks (openvino, nibabel, pydicom, SimpleITK,
gdcm, nlohmann-json, msgspec, platformdirs). The measuring is run to its end. The training, made smaller, is killed with
all of its processes as soon as it has taken steps, what it left outside is made a run of, and the same call goes on to
its own end. Sizes, stages and times are printed and written as Markdown, a section a call; a call that isn't tried
again keeps its own. Needs `unshare`, and root or user namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # works in a checkout, installed or not

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from benchmarks.gpu import slim
from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.io.report import markdown_table

ROOT = Path(__file__).resolve().parent.parent.parent
CARRIED = {"measure": ("wheels", "bin", "onnxruntime.tar.xz"), "train": ("wheels", "patients.tar")}
MOST_MIB, MOST_FILES = 62.0, 6
SMALL: dict[str, Any] = {
    "optim": {"accumulate": 1},
    "patch": {"sizes": [64], "probabilities": [1.0], "voxels": 64**3},
    "pool": 2,
    "checkpoint_minutes": 0.01,
}
"""Settings that replace those of the GPU's configuration on a CPU, so that a step takes seconds."""


def main() -> int:
    """Try both calls; return the exit code, 1 where a promise was broken, 2 where the environment is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--carry", type=Path, default=ROOT / ".gpu", help="what benchmarks/gpu/run.sh carry made")
    parser.add_argument("--python", type=Path, required=True, help="the Python that plays the machine's")
    parser.add_argument("--seconds", type=int, default=900, help="until each call's deadline")
    parser.add_argument("--slow", type=int, default=5, help="times the stages' limits")
    parser.add_argument("--calls", nargs="+", default=list(CARRIED), choices=CARRIED)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a Markdown file")
    args = parser.parse_args()
    packages = subprocess.run([args.python, "-I", "-m", "pip", "check"], capture_output=True, text=True, check=False)
    if packages.returncode != 0:  # a call that then fails says nothing of the machine
        print(f"dry_run: {args.python}: packages are missing:\n{packages.stdout}", file=sys.stderr)
        return 2
    sections = tried_before(args.output)
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="x2ct-dry-") as folder:
        for name in args.calls:
            load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
            lines = [f"On {time.strftime('%Y-%m-%d')}, {platform.machine()}, {load} before it began.", ""]
            trial = Trial(args, name, Path(folder) / name)
            lines += [*trial.carried(), *(trial.measure() if name == "measure" else trial.train()), ""]
            lines += [f"Broken: {line}" for line in trial.broken] or ["Every promise was kept."]
            sections[name] = "\n".join(lines)
            broken += trial.broken
            atomic.write_atomically(args.output, page(sections).encode())
    print(page(sections))
    return 1 if broken else 0


def page(sections: dict[str, str]) -> str:
    """Return the page of the calls' sections."""
    lines = ["# Both calls for a GPU machine, tried without one", ""]
    lines += ["By `benchmarks/gpu/dry_run.py`: no GPU, no network, the stages' limits made longer."]
    lines += [f"\n## {name}\n\n{sections[name]}" for name in CARRIED if name in sections]
    return "\n".join(lines).rstrip() + "\n"


def tried_before(path: Path) -> dict[str, str]:
    """Return the sections of a page by their calls: one stays until its call is tried again."""
    text = path.read_text() if path.is_file() else ""
    return {name: body.strip() for name, body in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)}


class Trial:
    """One call: its tree, its folder for results, and the promises that it broke."""

    def __init__(self, args: argparse.Namespace, name: str, folder: Path) -> None:
        self.args, self.name, self.folder = args, name, folder
        self.tree, self.out, self.broken = folder / "tree", folder / "out", list[str]()

    def promise(self, kept: bool, what: str) -> None:
        """Note what was promised and isn't so."""
        if not kept:
            self.broken.append(f"{self.name}: {what}")

    def carried(self) -> list[str]:
        """Make the tree; return the sizes of what it is made of."""
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        pairs = [(ROOT / name, self.tree / name) for name in listed if name]
        sizes = {"the checkout's files": 0.0}
        for name in CARRIED[self.name]:
            whole = self.args.carry / name
            files = sorted(whole.rglob("*")) if whole.is_dir() else [whole] if whole.exists() else []
            pairs += [
                (path, self.tree / ".gpu" / path.relative_to(self.args.carry)) for path in files if path.is_file()
            ]
        for source, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
            part = target.relative_to(self.tree / ".gpu").parts[0] if ".gpu" in target.parts else "the checkout's files"
            sizes[part] = sizes.get(part, 0.0) + target.lstat().st_size / 2**20
        total = sum(sizes.values())
        self.promise(total <= MOST_MIB, f"{total:.1f} MiB are carried, expected at most {MOST_MIB:g}")
        rows = [(name, f"{size:.1f}") for name, size in {**sizes, "in all": total}.items()]
        return markdown_table(["carried", "MiB"], rows)

    def start(self, **further: str) -> subprocess.Popen[str]:
        """Start the call as the first process of namespaces of its own: who kills it kills all that it started."""
        command = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command += ["benchmarks/gpu/run.sh", self.name, str(self.out), str(int(time.time()) + self.args.seconds)]
        path = f"{self.args.python.absolute().parent}:/usr/local/bin:/usr/bin:/bin"
        environment = {"PATH": path, "HOME": str(self.folder), "DEVICE": "cpu", "SLOW": str(self.args.slow)}
        environment |= {"PYTHON": str(self.args.python.absolute()), "WORK": str(self.folder / "work"), **further}
        return subprocess.Popen(command, cwd=self.tree, env=environment, stdout=subprocess.PIPE, text=True)

    def ended(self, process: subprocess.Popen[str], began: float) -> list[str]:
        """Wait for a call; return its stages, and what it left. The logs of stages that failed go to stderr."""
        text, _ = process.communicate()
        seconds = time.time() - began
        self.promise(seconds <= self.args.seconds, f"the call took {seconds:.0f} s of {self.args.seconds}")
        self.promise(process.returncode == 0, f"exit code {process.returncode}")
        pattern = r"^([\w-]+): (?:exit code (\d+) after (\d+) s of (\d+): (.*)|left out.*)$"
        rows = [[cell or "" for cell in found.groups()] for found in re.finditer(pattern, text, re.MULTILINE)]
        failed = {f"results/{row[0]}.log" for row in rows if row[1] != "0"}
        with tarfile.open(self.out / "results.tar.gz") as archive:
            for member in (one for one in archive if one.name in failed):
                log = archive.extractfile(member).read()  # type: ignore[union-attr]
                print(f"{self.name}: {member.name}:\n{log.decode(errors='replace')[-4000:]}", file=sys.stderr)
        stages = markdown_table(
            ["stage", "exit code", "s", "of", "last line"], [(*row[:4], row[4][:60]) for row in rows]
        )
        return ["", f"Ended by itself after {seconds:.0f} s of {self.args.seconds}:", "", *stages, "", *self.left()]

    def left(self) -> list[str]:
        """Return what is in the folder for results, which is to be little."""
        sizes = {path.name: path.stat().st_size / 2**20 for path in sorted(self.out.iterdir())}
        finished = [name for name in sizes if not name.startswith("partial")]
        self.promise(len(finished) <= MOST_FILES, f"{len(finished)} files come home: {', '.join(finished)}")
        self.promise(max(sizes.values()) <= slim.MOST_BYTES / 2**20, "a file is too large to come home")
        with tarfile.open(self.out / "results.tar.gz") as archive:
            names = archive.getnames()
        rows = [(name, f"{size:.2f}") for name, size in sizes.items()]
        return [*markdown_table(["file that comes home", "MiB"], rows), "", f"In results.tar.gz: {len(names)} files."]

    def measure(self) -> list[str]:
        """Run the call to its end."""
        began = time.time()
        return self.ended(self.start(), began)

    def train(self) -> list[str]:
        """Kill the call once steps were taken, look at what is outside, and let the same call go on to its end."""
        small = self.folder / "small.json"
        small.write_text(json.dumps(SMALL))
        last = self.args.seconds // 4
        options = f"--every 1 --last {last} --config benchmarks/chest.json benchmarks/gpu/chest.json {small}"
        began = time.time()
        process = self.start(TRAIN=options)
        while self.step() < 2 and process.poll() is None:
            time.sleep(0.1)
        if process.poll() is not None:
            self.promise(False, "the call ended before it had taken two steps")
            return self.ended(process, began)
        process.kill()
        process.communicate()
        killed = time.time() - began
        lines = ["", f"Killed (SIGKILL, all processes) after {killed:.0f} s, when step {self.step()} had come:", ""]
        lines += [*self.left(), *self.joined("killed")]
        began = time.time()
        lines += ["", "The same call again, in the same place, goes on with that run."]
        return [*lines, *self.ended(self.start(TRAIN=options), began), *self.joined("ended")]

    def step(self) -> int:
        """Return the step of the average outside; -1 where there is none."""
        path = self.out / slim.AVERAGES[0]
        if not path.is_file():
            return -1
        with safe_open(path, framework="np") as file:
            return int(file.metadata()["step"])

    def joined(self, name: str) -> list[str]:
        """Make a run of what is outside; say what it is."""
        try:
            slim.join(self.out, self.folder / name)
        except InputError as error:
            self.promise(False, str(error))
            return []
        weights = load_file(self.folder / name / slim.AVERAGES[0])
        whole = all(bool(np.isfinite(value).all()) for value in weights.values())
        self.promise(whole and self.step() >= 0, "the average that came home isn't whole")
        rows = (self.folder / name / slim.HISTORY).read_text().splitlines()
        entries = sum(value.size for value in weights.values()) / 1e6
        return [
            "",
            f"Made a run of by slim.py: step {self.step()}, {entries:.2f} M finite weights, {len(rows)} validations.",
        ]


if __name__ == "__main__":
    sys.exit(main())
