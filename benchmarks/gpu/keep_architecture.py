"""Blank the machine code of all GPUs but one in a CUDA library, so that it compresses to a fraction.

    python benchmarks/gpu/keep_architecture.py libonnxruntime_providers_cuda.so                  # lists what it holds
    python benchmarks/gpu/keep_architecture.py libonnxruntime_providers_cuda.so --keep 90 -o reduced.so

Sizes and offsets stay as they are, and the driver never reads the code of other GPUs. A fat binary is a header of 16
bytes (magic, version, header size, payload size) and entries: kind (1 the intermediate form, 2 machine code), header
size, payload size, and at byte 28 the compute capability times 10.
"""

from __future__ import annotations

import argparse
import collections
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = struct.pack("<I", 0xBA55ED50)
MACHINE_CODE = 2
ZSTD = b"\x28\xb5\x2f\xfd"
KINDS = {1: "intermediate", MACHINE_CODE: "machine code"}


class Entry(NamedTuple):
    """The code for one GPU in one fat binary."""

    kind: int
    capability: int
    offset: int
    size: int


def fat_binaries(data: bytes | bytearray) -> Iterator[list[Entry]]:
    """The entries of each fat binary in a library."""
    at = data.find(MAGIC)
    while at >= 0:
        _, header, size = struct.unpack_from("<HHQ", data, at + 4)
        if header == 16 and 0 < size <= len(data) - at - header:
            yield list(_entries(data, at + header, at + header + size))
            at += header + size
        else:
            at += 4
        at = data.find(MAGIC, at)


def _entries(data: bytes | bytearray, at: int, end: int) -> Iterator[Entry]:
    while at + 64 <= end:
        kind, _, header, size = struct.unpack_from("<HHIQ", data, at)
        if not 32 <= header <= 4096 or at + header + size > end:
            return
        yield Entry(kind, *struct.unpack_from("<I", data, at + 28), at + header, size)
        at += header + size


def kernels_of(data: bytes | bytearray, capability: int) -> dict[int, list[str] | None]:
    """The mangled names of the kernels in each fat binary with machine code for a GPU, by where that code begins.

    None stands for code that was blanked.
    """
    return {
        entry.offset: _kernels(bytes(data[entry.offset : entry.offset + entry.size]))
        for entries in fat_binaries(data)
        for entry in entries
        if entry.kind == MACHINE_CODE and entry.capability == capability
    }


def _kernels(code: bytes) -> list[str] | None:
    if not any(code):
        return None
    if code.startswith(ZSTD):
        run = subprocess.run(["zstd", "-dcq"], input=code, capture_output=True, check=False)
        code = run.stdout  # complete, though what pads it afterwards is complained about
    if not code.startswith(b"\x7fELF"):
        sys.exit(f"keep_architecture.py: found machine code that begins {code[:4].hex()}, expected ELF or zstd")
    return sorted({name.decode() for name in re.findall(rb"\.text\.([A-Za-z0-9_$]+)", code)})


def blank(data: bytearray, keep: int, wanted: Callable[[list[str]], bool] | None = None) -> int:
    """Blank all but the machine code for `keep`, wherever there is some; returns how many bytes.

    Args:
        data: the library, changed in place.
        keep: compute capability times 10.
        wanted: says by the kernels' mangled names whether a fat binary's code is kept at all.
    """
    blanked = 0
    for entries in list(fat_binaries(data)):
        kept = [entry for entry in entries if entry.kind == MACHINE_CODE and entry.capability == keep]
        if not kept:
            continue
        if wanted is not None:
            kept = [one for one in kept if wanted(_kernels(bytes(data[one.offset : one.offset + one.size])) or [])]
        for entry in entries:
            if entry not in kept:
                data[entry.offset : entry.offset + entry.size] = bytes(entry.size)
                blanked += entry.size
    return blanked


def main() -> None:
    """List, and where asked, blank and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--keep", type=int, help="compute capability times 10")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    if (args.keep is None) != (args.output is None):
        parser.error("--keep and --output go together")
    data = bytearray(args.library.read_bytes())
    held: collections.Counter[tuple[int, int]] = collections.Counter()
    for entries in fat_binaries(data):
        for entry in entries:
            held[entry.kind, entry.capability] += entry.size
    for (kind, capability), size in sorted(held.items()):
        print(f"{KINDS.get(kind, f'kind {kind}'):>14}  sm_{capability:<4} {size:>12,} bytes")
    if args.output:
        blanked = blank(data, args.keep)
        args.output.write_bytes(data)
        print(f"{args.output}: {blanked:,} of {len(data):,} bytes blanked")


if __name__ == "__main__":
    main()
