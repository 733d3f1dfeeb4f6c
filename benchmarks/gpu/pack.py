"""Pack shards into one file small enough to carry to a GPU machine, and unpack it there with Python's standard library.

    python benchmarks/gpu/pack.py SHARDS -o .gpu/patients.tar
    python benchmarks/gpu/pack.py --unpack patients.tar -o SHARDS

Bodies are resampled to the grid's spacing, cut to what the training's views can see, clipped to the HU window and
rounded to steps of 10 HU, so that a voxel is a byte; the recipe's lowest noise level is twice as much. The archive
holds index.json and one xz stream a patient, of differences along one axis. `benchmarks/gpu/run.sh carry` packs one
and refuses what doesn't fit beside the repository's own files, which a machine takes along at each call.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import os
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # works in a checkout, installed or not

import numpy as np
import numpy.typing as npt

from x2ct.data.shapes import FILE as SHAPES
from x2ct.data.shards import INDEX, Patient, ShardSet, resample_array
from x2ct.errors import InputError, X2CTError
from x2ct.files import atomic
from x2ct.geometry.grid import Grid
from x2ct.io.report import sha256

STEP_HU = 10
WINDOW_HU = (-1000, 1500)
REACH_MM = 260.0
"""Beyond this height above or below the grid's centre no ray of the training's views passes."""

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 4, "lp": 0, "pb": 0}]


def encode(hu: npt.NDArray[np.int16]) -> bytes:
    """Compress HU [x, y, z] that are multiples of the step within the window, after `quantised`."""
    levels = ((hu.astype(np.int32) - WINDOW_HU[0]) // STEP_HU).astype(np.uint8)
    steps = np.diff(levels, axis=2, prepend=np.uint8(0))  # modulo 256, as their sums are
    return lzma.compress(steps.tobytes(), lzma.FORMAT_XZ, filters=FILTERS)


def decode(data: bytes, shape: tuple[int, int, int]) -> npt.NDArray[np.int16]:
    """Return what `encode` took, int16 HU [x, y, z]."""
    steps = np.frombuffer(lzma.decompress(data), np.uint8).reshape(shape)
    return np.cumsum(steps, axis=2, dtype=np.uint8).astype(np.int16) * np.int16(STEP_HU) + np.int16(WINDOW_HU[0])


def quantised(hu: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Clip HU to the window and round them to the step."""
    low, high = WINDOW_HU
    return (np.rint((np.clip(hu, low, high) - low) / STEP_HU) * STEP_HU + low).astype(np.int16)


def packed(patient: Patient, spacing_mm: tuple[float, float, float]) -> tuple[dict[str, Any], bytes]:
    """Return a patient's index entry and compressed body, on voxels of the given spacing."""
    corners = np.asarray([[0, 0, 0], np.asarray(patient.shape) - 1], np.float64)
    ends = np.sort(corners @ patient.index_to_mm[:3, :3].T + patient.index_to_mm[:3, 3], axis=0)
    if patient.body_mm is not None:
        ends = np.stack([np.maximum(ends[0], patient.body_mm[0] - 5), np.minimum(ends[1], patient.body_mm[1] + 5)])
    ends[:, 2] = np.clip(ends[:, 2], -REACH_MM, REACH_MM)
    x, y, z = (max(1, int(n)) for n in np.floor((ends[1] - ends[0]) / spacing_mm) + 1)
    grid = Grid((x, y, z), spacing_mm)
    middle = ends.mean(0)
    centred = patient.index_to_mm.copy()
    centred[:3, 3] -= middle
    body = quantised(resample_array(patient.hu(), centred, grid))
    affine = grid.index_to_mm
    affine[:3, 3] += middle
    entry = {**patient.details, "shape": list(body.shape), "index_to_mm": affine.tolist(), "sha256": "", "bytes": 0}
    return entry, encode(body)


def pack(shards: Path, target: Path, regions: tuple[str, ...] = ()) -> None:
    """Write the archive of the patients of some regions, of all where there are none."""
    shard_set = ShardSet.open(shards)
    patients = [patient for patient in shard_set.patients if not regions or patient.region in regions]
    index: dict[str, Any] = json.loads((shards / INDEX).read_text())
    index["people"] = []
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for patient in patients:
            entry, data = packed(patient, shard_set.grid.spacing_mm)
            index["people"].append(entry)
            _add(tar, f"{patient.id}.xz", data)
            print(f"{patient.id}: {tuple(entry['shape'])}, {len(data) / 2**20:.2f} MiB", file=sys.stderr, flush=True)
        if (shards / SHAPES).is_file():
            _add(tar, SHAPES, (shards / SHAPES).read_bytes())
        _add(tar, f"{INDEX}.xz", lzma.compress(json.dumps(index).encode()))
    atomic.write_atomically(target, archive.getvalue())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def unpack(archive: Path, folder: Path) -> None:
    """Write the archive's patients as a shard folder, several at a time; the index comes last.

    Raises:
        InputError: the file is no such archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        index = json.loads(lzma.decompress(members.pop(f"{INDEX}.xz")))
    except (OSError, tarfile.TarError, lzma.LZMAError, KeyError, ValueError) as error:
        raise InputError.of(archive, "file", found=error, expected="an archive of benchmarks/gpu/pack.py") from error
    if SHAPES in members:
        atomic.write_atomically(folder / SHAPES, members[SHAPES])
    jobs = [(entry, members[f"{entry['id']}.xz"], folder) for entry in index["people"]]
    with ProcessPoolExecutor(
        min(len(jobs), os.process_cpu_count() if sys.version_info >= (3, 13) else os.cpu_count() or 1)
    ) as workers:
        index["people"] = list(workers.map(_unpacked, jobs))
    atomic.write_atomically(folder / INDEX, json.dumps(index, indent=1).encode())


def _unpacked(job: tuple[dict[str, Any], bytes, Path]) -> dict[str, Any]:
    entry, data, folder = job
    x, y, z = entry["shape"]
    path = folder / entry["file"]
    np.save(path, decode(data, (x, y, z)))
    return {**entry, "sha256": sha256(path), "bytes": path.stat().st_size}


def main() -> int:
    """Pack or unpack; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="shards, or the archive to unpack")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the archive, or the folder to unpack into")
    parser.add_argument("--unpack", action="store_true", help="write shards from an archive")
    parser.add_argument("--regions", nargs="*", default=[], help="patients of these regions; all where left out")
    args = parser.parse_args()
    try:
        if args.unpack:
            unpack(args.source, args.output)
        else:
            pack(args.source, args.output, tuple(args.regions))
    except X2CTError as error:
        print(f"pack: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
