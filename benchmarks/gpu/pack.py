"""Pack shards into one archive small enough to carry to a GPU machine: bodies cut to what a chest model's X-rays see.

python benchmarks/gpu/pack.py SHARDS -o gpu-shards.tar.xz
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # works in a checkout, installed or not

import numpy as np

from x2ct.data import ShardSet
from x2ct.data.shards import INDEX, sha256_of

REACH_MM = 260.0
"""Beyond this height above or below the grid's centre no ray of the training's views passes."""


def main() -> None:
    """Cut, checksum and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--region", default="chest")
    args = parser.parse_args()
    index = json.loads((args.shards / INDEX).read_text())
    people = {person.id: person for person in ShardSet.open(args.shards).people if person.region == args.region}
    index["people"] = [entry for entry in index["people"] if entry["id"] in people]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for entry in index["people"]:
            person = people[entry["id"]]
            affine = np.asarray(person.index_to_mm)
            z = affine[2, 2] * np.arange(person.shape[2]) + affine[2, 3]
            first, last = np.flatnonzero(np.abs(z) <= REACH_MM)[[0, -1]]
            body = np.ascontiguousarray(person.hu()[:, :, first : last + 1])
            np.save(out / entry["file"], body)
            affine[:3, 3] += affine[:3, 2] * first
            entry["index_to_mm"], entry["shape"] = affine.tolist(), list(body.shape)
            entry["sha256"], entry["bytes"] = sha256_of(out / entry["file"]), (out / entry["file"]).stat().st_size
        (out / INDEX).write_text(json.dumps(index, indent=1))
        with tarfile.open(args.output, "w:xz", preset=6) as archive:
            for path in sorted(out.iterdir()):
                archive.add(path, path.name)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, {len(index['people'])} people")


if __name__ == "__main__":
    main()
