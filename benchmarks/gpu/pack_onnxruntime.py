"""Pack ONNX Runtime's CUDA provider into one archive small enough to carry to a GPU machine: the code of one GPU only.

    python benchmarks/gpu/pack_onnxruntime.py --keep 90 --headers build/onnxruntime-headers -o .gpu/onnxruntime.tar.xz

Downloads the wheel of onnxruntime-gpu by pip, or takes a given one. benchmarks/gpu/run.sh unpacks the archive in front
of what Python has. Packing takes minutes. CUDA's own libraries are not in it: they come with the machine's PyTorch.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from keep_architecture import blank

WANTED = re.compile(r"onnxruntime/capi/libonnxruntime(\.so\.[\d.]+|_providers_(shared|cuda)\.so)$")


def main() -> None:
    """Download, cut, pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=int, default=90, help="the GPU's compute capability times 10")
    parser.add_argument("--wheel", type=Path, help="in place of downloading one")
    parser.add_argument("--headers", type=Path, required=True, help="what cmake/onnxruntime_headers.sh fetched")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = args.wheel or download(Path(folder))
        with zipfile.ZipFile(wheel) as source, tarfile.open(args.output, "w:xz", preset=9) as archive:
            add(archive, "site/onnxruntime/__init__.py", b"")
            for name in filter(WANTED.search, source.namelist()):
                data = bytearray(source.read(name))
                blanked = blank(data, args.keep)
                add(archive, f"site/{name}", bytes(data))
                print(f"{name}: {len(data) / 1e6:.1f} MB, {blanked / 1e6:.1f} MB of it blanked")
            for header in sorted(args.headers.glob("*.h")):
                add(archive, f"onnxruntime-headers/{header.name}", header.read_bytes())
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")


def download(folder: Path) -> Path:
    """The newest wheel for this Python."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    subprocess.run([*command, "onnxruntime-gpu"], check=True)
    [wheel] = folder.glob("onnxruntime_gpu-*.whl")
    return wheel


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """A file of these bytes."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    main()
