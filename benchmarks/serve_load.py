"""Load `x2ct serve`: many requests, several at a time, some of them bad; how many are lost, and what memory does.

    python benchmarks/serve_load.py [BUNDLE] [--requests 200] [--at-a-time 8] [--shape 32,32,32] [-o NAME]

Every request waits for its CT (`?wait=true`), with a seed of its own and a preview; every tenth is a damaged file,
which must be refused (422), and every twenty-fifth one larger than the server takes (413). A request is lost that gets
any other answer, a broken one, or none. Resident memory is the server's own figure, read after each request; what
counts is its growth from the reading after the first fifth of the requests to the highest later one. The exit code is 1
where a request was lost, a file was left behind, or memory grew by more than the limit.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import httpx
import numpy as np

from x2ct.bundle import Bundle
from x2ct.bundle.folder import find
from x2ct.files.atomic import write_atomically
from x2ct.io.report import markdown_table, write_json

LIMIT = 0.05
"""The share by which resident memory may grow."""
LARGEST_BYTES = 4 * 2**20
READY_S = 300.0


@dataclass(frozen=True)
class Answer:
    """One request: what kind it was, what came, how long it took, and the server's resident memory after it."""

    kind: str
    status: int
    seconds: float
    resident_bytes: float

    @property
    def lost(self) -> bool:
        """Return whether the answer is not the one that its kind should get."""
        return self.status != {"good": 200, "damaged": 422, "large": 413}[self.kind]


def xrays_of(bundle: Bundle) -> dict[str, bytes]:
    """Return .npy files: the demo pair for a bundle with X-ray statistics, else noise of its views' size."""
    rng, files = np.random.default_rng(0), {}
    if bundle.xray_statistics is not None:
        demo = find("chest").parent / "demo"
        return {view: (demo / f"{view}.npy").read_bytes() for view in ("ap", "lateral")}
    for slot, view in enumerate(bundle.geometry.views):
        stream = io.BytesIO()
        most = 1.1 * bundle.xray.reference_p99[slot]
        np.save(stream, rng.uniform(0, most, view.shape).astype(np.float32))
        files["lateral" if slot else "ap"] = stream.getvalue()
    return files


def ask(client: httpx.Client, number: int, xrays: dict[str, bytes]) -> Answer:
    kind = "large" if number % 25 == 24 else "damaged" if number % 10 == 9 else "good"
    files = {"good": xrays, "damaged": {"ap": xrays["ap"][:100]}, "large": {"ap": bytes(2 * LARGEST_BYTES)}}[kind]
    started = time.perf_counter()
    status = 0
    try:
        answer = client.post("/v1/ct?wait=true", files=files, data={"seed": str(number)})
        status = answer.status_code
        if status == 200:
            gzip.decompress(answer.content)
        else:
            answer.json()
    except (httpx.HTTPError, OSError, ValueError, EOFError):
        status = 0
    seconds = time.perf_counter() - started
    figure = re.search(r"^process_resident_memory_bytes (\S+)", client.get("/metrics").text, re.MULTILINE)
    return Answer(kind, status, seconds, float(figure[1]) if figure else 0.0)


def load(arguments: argparse.Namespace, folder: Path) -> tuple[list[Answer], int, float]:
    """Return all answers, the server's exit code, and the seconds of the whole."""
    command = [sys.executable, "-m", "x2ct", "serve", "-m", arguments.bundle, "--port", "0"]
    command += ["--queue", str(arguments.at_a_time), "--body", str(LARGEST_BYTES), "--threads", str(arguments.threads)]
    command += ["--shape", arguments.shape] if arguments.shape else []
    server = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(folder)}, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        address = re.search(r"http://[^ ]+", server.stderr.readline())
        if address is None:
            raise SystemExit("the server did not start")
        # Who reads nothing stops a server that writes.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        xrays = xrays_of(Bundle.load(arguments.bundle))
        limits = httpx.Limits(max_connections=2 * arguments.at_a_time)
        with httpx.Client(base_url=address[0], timeout=600, limits=limits) as client:
            end = time.monotonic() + READY_S
            while client.get("/readyz").status_code != 200 and time.monotonic() < end:
                time.sleep(0.1)
            started = time.perf_counter()
            with ThreadPoolExecutor(arguments.at_a_time) as pool:
                answers = list(pool.map(lambda number: ask(client, number, xrays), range(arguments.requests)))
            seconds = time.perf_counter() - started
        server.send_signal(signal.SIGTERM)
        return answers, server.wait(120), seconds
    finally:
        server.kill()
        server.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="chest")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-a-time", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", default="")
    parser.add_argument("-o", "--output", type=Path, help="also write NAME.json and NAME.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        answers, code, seconds = load(arguments, Path(name))
        left = sorted(path.name for path in Path(name).rglob("*"))
    good = [answer.seconds for answer in answers if answer.kind == "good"]
    memory = [answer.resident_bytes for answer in answers]
    after = len(memory) // 5
    growth = max(memory[after:]) / memory[after] - 1
    lost = sum(answer.lost for answer in answers)
    cuts = quantiles(good, n=20, method="inclusive")
    figures = {
        "bundle": Bundle.load(arguments.bundle).name,
        "requests": len(answers),
        "at_a_time": arguments.at_a_time,
        "shape": arguments.shape or "the bundle's",
        "lost": lost,
        "refused_rightly": sum(answer.kind != "good" and not answer.lost for answer in answers),
        "seconds": round(seconds, 3),
        "median_s": round(cuts[9], 4),
        "p95_s": round(cuts[18], 4),
        "memory_after_a_fifth_mib": round(memory[after] / 2**20, 1),
        "memory_highest_later_mib": round(max(memory[after:]) / 2**20, 1),
        "memory_growth": round(growth, 4),
        "files_left": len(left),
        "exit_code": code,
    }
    page = "\n".join(markdown_table(("what", "figure"), figures.items(), 1)) + "\n"
    print(page, end="")
    if arguments.output:
        write_json(figures, arguments.output.with_suffix(".json"))
        write_atomically(arguments.output.with_suffix(".md"), page.encode())
    return int(lost > 0 or bool(left) or code != 0 or growth > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
