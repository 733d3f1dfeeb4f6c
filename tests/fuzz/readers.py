"""Fuzz targets for the Python readers: whatever the bytes, a reader gives its result or an error of the family.

    python tests/fuzz/readers.py TARGET CORPUS [libFuzzer's options]     # one target
    python tests/fuzz/readers.py --seeds TARGET CORPUS                   # valid files to start from

`make fuzz` runs all of them. Anything but an `X2CTError`, a time-out or too much memory is a finding; libFuzzer (by
atheris) then leaves the input beside the corpus. C++ libraries under the readers are not instrumented.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
DATA = ROOT / "tests" / "data"


def main() -> None:
    """Run a target until libFuzzer ends, or write its seeds."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--seeds"]:
        name, corpus = arguments[1:3]
        for number, content in enumerate(SEEDS[name]()):
            (Path(corpus) / f"seed{number}").write_bytes(content)
        return
    import atheris

    name = arguments[0]
    with atheris.instrument_imports(include=["x2ct", "pydicom", "nibabel", "PIL", "tifffile"]):
        from x2ct.errors import X2CTError

        place = Path(tempfile.mkdtemp(prefix="x2ct-fuzz-"))
        target = TARGETS[name](place)
    warnings.simplefilter("ignore")

    def once(data: bytes) -> None:
        try:
            target(data)
        except X2CTError as error:
            if "\n" in str(error):
                raise AssertionError(f"an error of several lines: {error!r}") from error

    try:
        atheris.Setup([sys.argv[0], *arguments[1:]], once)
        atheris.Fuzz()
    finally:
        shutil.rmtree(place, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ targets

Target = Callable[[bytes], object]


def volume_of(name: str) -> Callable[[Path], Target]:
    """A CT file of this name."""

    def make(place: Path) -> Target:
        from x2ct.io.ct.volume import Volume

        def load(data: bytes) -> None:
            (place / name).write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
            Volume.load(place / name)

        return load

    return make


def series(place: Path) -> Target:
    """A folder of two slices, the second of which is the bytes."""
    from x2ct.io.ct.volume import Volume

    for content, name in zip(_slices(), ("a.dcm", "b.dcm"), strict=True):
        (place / name).write_bytes(content)

    def load(data: bytes) -> None:
        (place / "b.dcm").write_bytes(data)
        Volume.load(place)

    return load


def xray(place: Path) -> Target:
    """An X-ray of whatever kind its first bytes say."""
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin
    import pydicom.pixels.decoders
    import tifffile

    # What the reader imports when it is first needed would not be instrumented.
    from x2ct.io.xray import dicomxray
    from x2ct.io.xray.radiograph import XRay

    _ = PIL.JpegImagePlugin, PIL.PngImagePlugin, pydicom.pixels.decoders, tifffile, dicomxray

    def load(data: bytes) -> None:
        (place / "xray").write_bytes(data)
        XRay.load(place / "xray")

    return load


def geometry(place: Path) -> Target:
    """A geometry file."""
    from x2ct.geometry import Geometry

    def load(data: bytes) -> None:
        (place / "geometry.json").write_bytes(data)
        Geometry.load(place / "geometry.json")

    return load


def manifest(place: Path) -> Target:
    """A cohort's manifest."""
    from x2ct.jobs.cohort import read_manifest

    def load(data: bytes) -> None:
        (place / "cases.csv").write_bytes(data)
        read_manifest(place / "cases.csv")

    return load


def bundle_file(name: str) -> Callable[[Path], Target]:
    """A bundle in which one file is the bytes; its checksum is made to fit, so that what is inside is looked at."""

    def make(place: Path) -> Target:
        import hashlib

        from tests import tiny_bundle
        from x2ct.bundle import Bundle

        folder = place / "tiny.x2ct"
        tiny_bundle.write(folder)
        told = json.loads((folder / "model.json").read_bytes())

        def load(data: bytes) -> None:
            (folder / name).write_bytes(data)
            if name != "model.json":
                told["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                (folder / "model.json").write_text(json.dumps(told))
            Bundle.load(folder)

        return load

    return make


TARGETS: dict[str, Callable[[Path], Target]] = {
    "nifti": volume_of("ct.nii"),
    "nifti_gz": volume_of("ct.nii.gz"),
    "nrrd": volume_of("ct.nrrd"),
    "mha": volume_of("ct.mha"),
    "series": series,
    "xray": xray,
    "geometry": geometry,
    "manifest": manifest,
    "model_json": bundle_file("model.json"),
    "onnx": bundle_file("denoiser.onnx"),
}


# ------------------------------------------------------------------------------------------------ seeds


def _small_volume(name: str) -> list[bytes]:
    import numpy as np

    from x2ct.io.ct.volume import Volume

    with tempfile.TemporaryDirectory() as folder:
        hu = np.random.default_rng(0).integers(-1000, 2000, (4, 5, 6)).astype(np.float32)
        return [Volume(hu, np.diag([2.0, 2.0, 3.0, 1.0])).save(Path(folder) / name).read_bytes()]


def _slices() -> list[bytes]:
    import numpy as np

    from x2ct.io.ct.volume import Volume

    with tempfile.TemporaryDirectory() as folder:
        hu = np.random.default_rng(0).integers(-1000, 2000, (6, 5, 2)).astype(np.float32)
        path = Volume(hu, np.diag([2.0, 2.0, 3.0, 1.0])).save(Path(folder) / "series", kind="dicom")
        return [file.read_bytes() for file in sorted(path.iterdir())]


def _xrays() -> list[bytes]:
    import io

    import numpy as np
    import tifffile
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 4000, (12, 10)).astype(np.uint16)
    found = []
    for write in (
        lambda stream: Image.fromarray(values).save(stream, "PNG"),
        lambda stream: Image.fromarray((values >> 4).astype(np.uint8)).save(stream, "PNG"),
        lambda stream: Image.fromarray((values >> 4).astype(np.uint8)).save(stream, "JPEG"),
        lambda stream: tifffile.imwrite(stream, values),
        lambda stream: tifffile.imwrite(stream, (values / 1000).astype(np.float32), compression="zlib"),
        lambda stream: np.save(stream, (values / 1000).astype(np.float32)),
    ):
        stream = io.BytesIO()
        write(stream)  # type: ignore[no-untyped-call]
        found.append(stream.getvalue())
    return [*found, *_slices()[:1], _radiograph(), *_compressed(values)]


def _compressed(values: Any) -> list[bytes]:
    """A small DX image with all elements that are looked at, in each transfer syntax that there is an encoder for."""
    from benchmarks import input_files

    tags = {
        "PixelIntensityRelationship": "LIN",
        "PixelIntensityRelationshipSign": 1,
        "ShutterShape": ["CIRCULAR", "POLYGONAL"],
        "CenterOfCircularShutter": [6, 5],
        "RadiusOfCircularShutter": 5,
        "VerticesOfThePolygonalShutter": [1, 1, 1, 10, 12, 10, 12, 1],
        "DistanceSourceToDetector": 1800,
        "DistanceSourceToPatient": 1500,
        "ImagerPixelSpacing": [4.0, 4.0],
        "PositionerPrimaryAngle": 10,
        "PositionerSecondaryAngle": -5,
        "PixelPaddingValue": 0,
        "ViewPosition": "PA",
        "BodyPartExamined": "CHEST",
    }
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        for syntax in ("", *input_files.SYNTAXES.values(), input_files.LOSSY["JPEG 2000"]):
            input_files.dicom(path, values, **tags)
            found.append((input_files.compressed(path, syntax) if syntax else path).read_bytes())
    return found


def _radiograph() -> bytes:
    """A small CR image with the header of the real one."""
    import io

    import numpy as np
    import pydicom

    dataset = pydicom.dcmread(DATA / "chest_pa_cr.dcm")
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = 12, 10
    dataset.PixelData = np.random.default_rng(0).integers(0, 1000, (12, 10)).astype("<u2").tobytes()
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def _geometries() -> list[bytes]:
    from x2ct.geometry import Geometry

    return [json.dumps(made.to_json()).encode() for made in (Geometry.parallel(), Geometry.cone(("ap", "lateral")))]


def _bundle(name: str) -> list[bytes]:
    from tests import tiny_bundle

    with tempfile.TemporaryDirectory() as folder:
        tiny_bundle.write(Path(folder) / "tiny.x2ct")
        return [(Path(folder) / "tiny.x2ct" / name).read_bytes()]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "nifti": lambda: _small_volume("ct.nii"),
    "nifti_gz": lambda: _small_volume("ct.nii"),  # the target packs it
    "nrrd": lambda: _small_volume("ct.nrrd"),
    "mha": lambda: _small_volume("ct.mha"),
    "series": lambda: _slices()[1:],
    "xray": _xrays,
    "geometry": _geometries,
    "manifest": lambda: [b"id,ap,lateral,seed\na,a.png,b.png,7\nb,,b.png,\n", b'\xef\xbb\xbfid,pa\n"a","x y.dcm"\n'],
    "model_json": lambda: _bundle("model.json"),
    "onnx": lambda: _bundle("denoiser.onnx"),
}


if __name__ == "__main__":
    main()
