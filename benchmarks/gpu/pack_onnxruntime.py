"""Pack ONNX Runtime's CUDA provider into one archive small enough to carry to a GPU machine.

    python benchmarks/gpu/pack_onnxruntime.py --keep 90 --headers build/onnxruntime-headers -o .gpu/onnxruntime.tar.xz

Downloads the wheel of onnxruntime-gpu for Python 3.12 by pip, or takes a given one. Of the provider it keeps the code
of one GPU, and of that no fat binary with attention, quantised matrix products, mixtures of experts and the like, which
are nine tenths of it; entry headers stay, sizes and offsets with them, and the driver loads a fat binary when one of
its kernels is first started (never set CUDA_MODULE_LOADING=EAGER). Every operator of the bundled models must be listed
here with its kernels, and every fat binary with one of these must be kept. benchmarks/gpu/run.sh unpacks the archive in
front of what Python has. Packing takes minutes and needs zstd. CUDA's own libraries are not in it: they come with the
machine's PyTorch.

A fat binary is a header of 16 bytes (magic, version, header size, payload size) and entries: kind (1 the intermediate
form, 2 machine code), header size, payload size, and at byte 28 the compute capability times 10.
"""

from __future__ import annotations

import argparse
import io
import lzma
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # works in a checkout, installed or not

MAGIC = struct.pack("<I", 0xBA55ED50)
MACHINE_CODE = 2
ZSTD = b"\x28\xb5\x2f\xfd"
WANTED = re.compile(r"onnxruntime/capi/libonnxruntime(\.so\.[\d.]+|_providers_(shared|cuda)\.so)$")
DROPPED = re.compile(
    r"flash|fmha|_mha|cutlass|cute|attention|paged|moe|gemm(?!_small)|nbits|_[248]bits|Float[48]b|marlin|fpA_intB|xqa"
    r"|quant|beam|decod|sampling|logits|ngram|topk|softmax|norm|rotary|skip|dropout|radixsort|padding|mamba|conv1d"
    r"|hyper_connection|deform_conv|roialign|random|stridetwo|bicubic(?!Kernel)|nonmax|SequenceIndex|KVInPlace|AddBias",
    re.IGNORECASE,
)
"""Parts of mangled names of kernels that are not these models'."""

NOTHING = ""  # no kernel of the provider's own: cuDNN, cuBLAS or a copy
KERNELS = {
    **dict.fromkeys(["Add", "Sub", "Mul", "Div", "LessOrEqual"], r"_BinaryElementWise"),
    **dict.fromkeys(["Sqrt", "Log", "Exp", "Abs", "Sin", "Cos", "Reciprocal", "Sigmoid"], r"_UnaryElementWise"),
    **dict.fromkeys(["Reshape", "Squeeze", "Unsqueeze", "Shape"], NOTHING),
    "AveragePool": r"AveragePoolWithPadKernel",
    "Cast": r"OP_Cast|CastKernelSat|CastKernelStd|CudaCastPairwiseKernel",
    "Concat": r"_ConcatKernel|ConcatTensorToTensor",
    "ConstantOfShape": r"5_Fill|4FillI",
    "Conv": r"BroadcastBiasKernel|_PadKernel",
    "Gather": r"_GatherKernel",
    "GridSample": r"_GridSampleKernel",
    "MatMul": r"SmallNGemv|CopyVector",
    "QuickGelu": r"OP_QuickGelu",  # what x * sigmoid(x) is made into
    "ReduceMax": r"reduce_matrix|_BinaryElementWise",
    "Resize": r"_ResizeNearestKernel|_UpsampleNearestKernel",
    "Slice": r"_SliceKernel",
    "Split": r"_SplitKernel",
    "Transpose": r"\d(?:Transpose\w*Kernel)|4cuda\d+Transpose",
    "Variadic": r"VariadicElementWise",
    "Expand": r"ExpandKernel",
}
"""Patterns of kernels by operator: the bundled models', and what the runtime's optimiser makes of them."""


def main() -> None:
    """Download, cut, prove, pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=int, default=90, help="the GPU's compute capability times 10")
    parser.add_argument("--wheel", type=Path, help="in place of downloading one")
    parser.add_argument("--headers", type=Path, required=True, help="what cmake/onnxruntime_headers.sh fetched")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = args.wheel or download(Path(folder))
        with zipfile.ZipFile(wheel) as source, compressed(args.output) as archive:
            add(archive, "site/onnxruntime/__init__.py", b"")
            for name in filter(WANTED.search, source.namelist()):
                data = bytearray(source.read(name))
                if name.endswith("_cuda.so"):
                    cut(data, args.keep)
                add(archive, f"site/{name}", bytes(data))
            for header in sorted(args.headers.glob("*.h")):
                add(archive, f"onnxruntime-headers/{header.name}", header.read_bytes())


def cut(data: bytearray, capability: int) -> None:
    """Blank what isn't needed of the provider; raise SystemExit where a kernel that is needed would go with it."""
    before = kernels_of(data, capability)
    blanked = blank(data, capability, lambda names: not any(map(DROPPED.search, names)) or is_needed(names))
    kept = {at: before[at] for at, names in kernels_of(data, capability).items() if names is not None}
    size = sum(names is not None for names in before.values())
    print(f"{len(kept)} of {size} fat binaries for sm_{capability} kept, {blanked / 1e6:.1f} MB blanked")
    for operator in sorted(operators() | {"QuickGelu", "Variadic", "Expand"}):
        if operator not in KERNELS:
            sys.exit(f"pack_onnxruntime.py: operator {operator}: found none of its kernels listed; add it to KERNELS")
        pattern = re.compile(KERNELS[operator])
        having = {at for at, names in before.items() if KERNELS[operator] and any(map(pattern.search, names or ()))}
        if KERNELS[operator] and not having:
            sys.exit(f"pack_onnxruntime.py: operator {operator}: found no kernel like {pattern.pattern} in the library")
        if lost := having - kept.keys():
            sys.exit(f"pack_onnxruntime.py: operator {operator}: found its kernels in blanked code at {sorted(lost)}")
        print(
            f"  {operator}: {len(having)} fat binaries, all kept" if having else f"  {operator}: no kernel of its own"
        )


# ------------------------------------------------------------------------------------------------ fat binaries


class Entry(NamedTuple):
    """The code for one GPU in one fat binary."""

    kind: int
    capability: int
    offset: int
    size: int


def fat_binaries(data: bytes | bytearray) -> Iterator[list[Entry]]:
    """Yield the entries of each fat binary in a library."""
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
    """Return the mangled names of the kernels in each fat binary with a GPU's machine code, by where that code begins.

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
        sys.exit(f"pack_onnxruntime.py: found machine code that begins {code[:4].hex()}, expected ELF or zstd")
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


# ------------------------------------------------------------------------------------------------ what is kept


def is_needed(names: Iterable[str]) -> bool:
    """Return whether some of a fat binary's kernels are an operator's, whatever else is in it."""
    return any(re.search(pattern, name) for name in names for pattern in KERNELS.values() if pattern)


def operators() -> set[str]:
    """Those of the bundled models' graphs, the denoiser's in f16 and bf16 among them."""
    import onnx

    from x2ct import Bundle
    from x2ct.bundle import bundled
    from x2ct.export.precision import typed

    found: set[str] = set()
    for name in bundled():
        bundle = Bundle.load(name)
        for kind, network in bundle.networks.items():
            graphs = [onnx.load(bundle.file_of(network))]
            if kind == "denoiser":
                graphs += [typed(graphs[0], precision).model for precision in ("f16", "bf16")]
            found |= {node.op_type for graph in graphs for node in graph.graph.node}
    return found


def download(folder: Path) -> Path:
    """Download the newest wheel for the machine's Python; return its path."""
    tags = [f"--platform=manylinux_2_{release}_x86_64" for release in (28, 27)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    subprocess.run([*command, "--python-version=3.12", *tags, "onnxruntime-gpu"], check=True)
    [wheel] = folder.glob("onnxruntime_gpu-*.whl")
    return wheel


def compressed(path: Path) -> tarfile.TarFile:
    """Return an archive that `tar -xf` reads, with jumps in machine code made the same before compressing."""
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 256 << 20}]
    return tarfile.open(fileobj=lzma.open(path, "wb", filters=filters), mode="w")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file of these bytes to the archive."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    main()
