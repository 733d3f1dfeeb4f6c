"""Every kind of X-ray file tried with `x2ct xray`, and what came out.

    python benchmarks/inputs.py -o benchmarks/results/inputs.md

Three tables: files made here from known line integrals (`input_files.py`), so that the error of the whole chain can be
told; the files that pydicom brings for its own tests; and those of pydicom-data (58 MB, `pip install pydicom-data`),
where it is installed, among them the only real radiographs. The command ends with 1 if a file is neither read nor
refused in one line with code 2.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from typer.testing import CliRunner

from x2ct.cli import app
from x2ct.files import atomic
from x2ct.io.report import markdown_table

if __package__:
    from benchmarks import input_files as files
else:
    import input_files as files

PITCH_MM = [1.25, 1.25]
TRUTH = files.truth()
SHOWN = files.display(TRUTH)
SIXTEEN = files.display(TRUTH, 16)
EIGHT = files.display(TRUTH, 8).astype(np.uint8)


@dataclass(frozen=True)
class Row:
    """One file: what it is, what came out, and how the command ended."""

    what: str
    code: int
    facts: dict[str, Any] | None
    line: str
    error: float | None = None

    @property
    def sound(self) -> bool:
        """Read, or refused in one line."""
        return self.code == 0 or (
            self.code == 2 and self.line.count("\n") == 0 and self.line.startswith("x2ct: error: ")
        )


def tried(what: str, path: Path, options: tuple[str, ...] = (), compare: bool = False) -> Row:
    """Run `x2ct xray` on a file."""
    integrals = path.parent / "integrals.npy"
    result = CliRunner().invoke(app, ["xray", str(path), "--json", "-o", str(integrals), *options])
    line = result.stderr.strip().replace(str(path), path.name).replace(str(path.parent), ".")
    if result.exit_code != 0:
        return Row(what, result.exit_code, None, line or repr(result.exception))
    error = None
    if compare:
        found = np.load(integrals)
        expected = TRUTH * (np.percentile(found, 99) / np.percentile(TRUTH, 99))
        error = float(np.abs(found - expected).max() / np.percentile(found, 99))
    return Row(what, 0, json.loads(result.stdout), line, error)


# ---------------------------------------------------------------------------------------------- files made here


def dx(stored: Any = SHOWN, bits: int = 12, **tags: Any) -> Callable[[Path], Path]:
    """Return a function that writes this DICOM file."""
    return lambda folder: files.dicom(folder / "a.dcm", stored, bits, **({"PixelSpacing": PITCH_MM} | tags))


def squeezed(syntax: str, stored: Any = SHOWN, bits: int = 12) -> Callable[[Path], Path]:
    return lambda folder: files.compressed(dx(stored, bits)(folder), syntax)


def picture(name: str, values: Any, mode: str = "", **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        image = Image.fromarray(values)
        (image.convert(mode) if mode else image).save(folder / name, **options)
        return folder / name

    return make


def tiff(values: Any, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tifffile.imwrite(folder / "a.tif", values, **options)
        return folder / "a.tif"

    return make


def array(values: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.save(folder / "a.npy", values)
        return folder / "a.npy"

    return make


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def camera(folder: Path) -> Path:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x829D] = 2.8
    Image.fromarray(EIGHT).save(folder / "a.jpg", exif=exif)
    return folder / "a.jpg"


def spoilt(change: Callable[[pydicom.Dataset], object], syntax: str = "") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = squeezed(syntax)(folder) if syntax else dx()(folder)
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)
        return path

    return make


def half_of_the_frame(dataset: pydicom.Dataset) -> None:
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])


def unknown_syntax(dataset: pydicom.Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"


def truncated(folder: Path) -> Path:
    path = dx()(folder)
    path.write_bytes(path.read_bytes()[:100_000])
    return path


def bomb(folder: Path) -> Path:
    """Write a PNG that has 60000 x 60000 pixels by its header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    return raw("a.png", b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0")))(folder)


def linear(sign: int | None, **tags: Any) -> Callable[[Path], Path]:
    counts = files.intensity(TRUTH)
    said = {} if sign is None else {"PixelIntensityRelationshipSign": sign}
    stored = 65535 - counts if sign == -1 else counts
    return dx(stored, 16, PixelIntensityRelationship="LIN", **said, **tags)


PITCH = ("--spacing", "1.25")
SIGNED = SHOWN.astype(np.int32) - 2048
COLOURS = np.kron(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
CONE = {"DistanceSourceToDetector": 1800, "DistanceSourceToPatient": 1500, "ImagerPixelSpacing": [1.5, 1.5]}
CIRCLE = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [176, 176], "RadiusOfCircularShutter": 150}
POLYGON = {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [17, 177, 177, 337, 337, 177, 177, 17]}
RECTANGLE = {
    "ShutterShape": "RECTANGULAR",
    "ShutterUpperHorizontalEdge": 41,
    "ShutterLowerHorizontalEdge": 320,
    "ShutterLeftVerticalEdge": 31,
    "ShutterRightVerticalEdge": 320,
}

Made = tuple[str, Callable[[Path], Path], tuple[str, ...], bool]


def made() -> Iterator[Made]:
    """What, how to make it, the options, and whether the truth must come out."""
    yield "DX, MONOCHROME2, 12 bits", dx(), (), True
    yield "DX, MONOCHROME1", dx(SHOWN.max() - SHOWN, PhotometricInterpretation="MONOCHROME1"), (), True
    for bits in (8, 10, 14, 16):
        yield f"DX, {bits} bits", dx(files.display(TRUTH, bits), bits), (), True
    yield "DX, signed", dx(SIGNED.astype(np.int16)), (), True
    yield "CR", dx(Modality="CR"), (), True
    yield "XA, dense dark", dx(SHOWN.max() - SHOWN, Modality="XA"), (), True
    yield "RF, dense dark", dx(SHOWN.max() - SHOWN, Modality="RF"), (), True
    for sign in (None, 1, -1):
        yield f"PixelIntensityRelationship LIN, sign {sign}", linear(sign), (), True
    yield "PixelIntensityRelationship LOG", dx(PixelIntensityRelationship="LOG"), (), True
    yield "PixelIntensityRelationship DISP", dx(PixelIntensityRelationship="DISP"), (), True
    yield "FOR PROCESSING, LIN", linear(1, PresentationIntentType="FOR PROCESSING"), (), True
    yield "FOR PROCESSING, no relationship", dx(PresentationIntentType="FOR PROCESSING"), (), True
    yield (
        "FOR PRESENTATION, window",
        dx(PresentationIntentType="FOR PRESENTATION", WindowCenter=9, WindowWidth=3),
        (),
        True,
    )
    yield "rescale", dx(RescaleSlope=2, RescaleIntercept=-100, RescaleType="US"), (), True
    for name, syntax in files.SYNTAXES.items():
        yield name, squeezed(syntax), (), True
    for name, syntax in files.LOSSY.items():
        bits = 8 if "8 bit" in name else 12
        yield name, squeezed(syntax, files.display(TRUTH, bits), bits), (), True
    yield "JPEG extended 12 bit (pydicom's)", lambda folder: files.extended(folder / "a.dcm"), (), False
    yield "big endian", lambda folder: files.compressed(dx()(folder), "1.2.840.10008.1.2.2"), (), True
    yield "several frames", dx(np.stack([SHOWN[::-1], SHOWN])), (), False
    yield "several frames, --frame 2", dx(np.stack([SHOWN[::-1], SHOWN])), ("--frame", "2"), True
    yield "lying, PatientOrientation F, L", dx(SHOWN.T, PatientOrientation=["F", "L"]), (), True
    yield "upside down, PatientOrientation L, H", dx(SHOWN[::-1], PatientOrientation=["L", "H"]), (), True
    yield "lying, --rotate 90", dx(np.rot90(SHOWN), PatientOrientation=None), ("--rotate", "90"), True
    yield "mirrored, --flip horizontal", dx(SHOWN[:, ::-1], PatientOrientation=None), ("--flip", "horizontal"), True
    yield "no PixelSpacing", dx(PixelSpacing=None), (), False
    yield "PixelSpacing 0", dx(PixelSpacing=[0, 0]), (), False
    yield "ImagerPixelSpacing alone", dx(PixelSpacing=None, ImagerPixelSpacing=PITCH_MM), (), True
    yield "CassetteSize 35CMX35CM", dx(PixelSpacing=None, CassetteSize="35CMX35CM"), (), False
    yield "SDD and SOD", dx(PixelSpacing=None, **CONE), (), True
    yield "SDD alone", dx(DistanceSourceToDetector=1800), (), True
    yield "magnification factor", dx(PixelSpacing=None, **_factor()), (), True
    yield "XA angles 30, -10", dx(Modality="XA", **_angles()), (), False
    yield "lateral by ViewPosition", dx(ViewPosition="LL"), (), False
    yield "rectangular shutter", dx(**RECTANGLE), (), False
    yield "circular shutter", dx(**CIRCLE), (), False
    yield "polygonal shutter", dx(**POLYGON), (), False
    yield "padding", dx(_padded(), PixelPaddingValue=4095), (), False
    yield "a foot", dx(BodyPartExamined="FOOT"), (), True
    yield "PNG, 8 bits", picture("a.png", EIGHT), PITCH, True
    yield "PNG, 16 bits", picture("a.png", SIXTEEN), PITCH, True
    yield "PNG, grey as RGB", picture("a.png", EIGHT, "RGB"), PITCH, True
    yield "JPEG, grey", picture("a.jpg", EIGHT, quality=95), PITCH, True
    yield "TIFF, 8 bits", tiff(EIGHT), PITCH, True
    yield "TIFF, 16 bits", tiff(SIXTEEN), PITCH, True
    yield "TIFF, 16 bits, LZW", picture("a.tif", SIXTEEN, compression="tiff_lzw"), PITCH, True
    yield "TIFF, float", tiff(TRUTH), PITCH, True
    yield "TIFF, white is zero", tiff(SIXTEEN.max() - SIXTEEN, photometric="miniswhite"), PITCH, True
    yield "NumPy, float", array(TRUTH), PITCH, True
    yield "NumPy, integers", array(SHOWN), PITCH, True
    yield from refused()


def refused() -> Iterator[Made]:
    """Yield files that are no X-ray, or no longer one."""
    yield "a colour picture", picture("a.png", COLOURS), (), False
    yield "a camera's photo", camera, (), False
    yield "a GIF", picture("a.gif", EIGHT), (), False
    yield "text called .dcm", raw("a.dcm", b"a letter to the referring physician\n" * 20), (), False
    yield "an empty file", raw("a.png", b""), (), False
    yield "a CT slice", dx(Modality="CT"), (), False
    yield "truncated DICOM", truncated, (), False
    for name in ("RLE", "JPEG Lossless SV1", "JPEG-LS", "JPEG 2000 lossless"):
        yield f"half a frame, {name}", spoilt(half_of_the_frame, files.SYNTAXES[name]), (), False
    lie = spoilt(lambda dataset: setattr(dataset, "Rows", 176), files.SYNTAXES["JPEG Lossless SV1"])
    yield "codestream larger than the header", lie, (), False
    yield "a header of 60000 x 60000", dx(Rows=60_000, Columns=60_000), (), False
    yield "2^31 - 1 frames", dx(NumberOfFrames=2**31 - 1), (), False
    yield "32 bits stored", dx(BitsStored=32), (), False
    yield "HTJ2K", spoilt(unknown_syntax, files.SYNTAXES["JPEG 2000 lossless"]), (), False
    yield "a PNG of 60000 x 60000", bomb, (), False
    yield "NaN", array(np.where(TRUTH > 5, np.nan, TRUTH)), (), False
    yield "blank", array(np.zeros((40, 40), np.uint8)), (), False
    yield "three axes", array(np.zeros((3, 40, 40))), (), False
    yield "display values as floats", array(SHOWN.astype(np.float32)), (), False


def _factor() -> dict[str, Any]:
    return {"ImagerPixelSpacing": [1.5, 1.5], "EstimatedRadiographicMagnificationFactor": 1.2}


def _angles() -> dict[str, Any]:
    return {"PositionerPrimaryAngle": 30, "PositionerSecondaryAngle": -10}


def _padded() -> Any:
    padded = np.minimum(SHOWN, 4094)
    padded[:, :40] = 4095
    return padded


# ---------------------------------------------------------------------------------------------- tables


def rows_made() -> list[Row]:
    rows = []
    for what, make, options, compare in made():
        with tempfile.TemporaryDirectory() as folder:
            rows.append(tried(what, make(Path(folder)), options, compare))
    return rows


def rows_of(folder: Path) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for file in sorted(folder.glob("*.dcm")):
            copy = Path(place) / file.name
            copy.write_bytes(file.read_bytes())
            rows.append(tried(file.name, copy))
            copy.unlink()
    return rows


def table(rows: list[Row]) -> list[str]:
    cells = []
    for row in rows:
        error = "" if row.error is None else f"{100 * row.error:.2f}%"
        line = row.line.removeprefix("x2ct: error: ")
        if row.facts is not None:
            line = "; ".join(w.partition(": ")[2] for w in row.facts["warnings"] if "not calibrated" not in w)
        cells.append((row.what, _out(row), error, row.code, line.replace("|", "/")))
    return markdown_table(("file", "came out", "error", "code", "line, or warnings"), cells)


def _out(row: Row) -> str:
    if row.facts is None:
        return ""
    given = row.facts["input"]
    exposed = next((stage["exposed"] for stage in row.facts["stages"] if stage["name"] == "field"), 1.0)
    rows, columns = given["shape"]
    parts = [given["kind"], f"{columns} x {rows}"]
    parts += [f"{given['spacing_mm'][0]:.3g} mm" if given["spacing_mm"] else "no spacing", given["view"]]
    parts += [part for part in (given["body_part"], given["beam"]) if part]
    parts += ["calibrated"] if given["calibrated"] else []
    parts += [f"field {100 * exposed:.0f}%"] if exposed < 0.9995 else []
    return ", ".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="the table, as Markdown; by default stdout")
    options = parser.parse_args()
    parts = [("Files made from known line integrals", rows_made())]
    bundled = Path(pydicom.__file__).parent / "data" / "test_files"
    parts.append((f"pydicom {pydicom.__version__}, its own test files", rows_of(bundled)))
    found = importlib.util.find_spec("data_store")
    if found is not None and found.submodule_search_locations:
        folder = Path(next(iter(found.submodule_search_locations))) / "data"
        parts.append(("pydicom-data 1.0.0", rows_of(folder)))
    text = [
        "# X-ray files tried",
        "",
        "Printed by `python benchmarks/inputs.py`. *Error* is the largest difference between the line integrals that",
        "came out and those that the file was made from, in % of their 99th percentile. Warnings are without the usual",
        "one that display values are not calibrated; [docs/xrays.md](../../docs/xrays.md) says what all of it means.",
    ]
    for title, rows in parts:
        read = sum(row.code == 0 for row in rows)
        text += [
            "",
            f"## {title}",
            "",
            f"{len(rows)} files: {read} read, {len(rows) - read} refused.",
            "",
            *table(rows),
        ]
    told = "\n".join(text) + "\n"
    if options.output:
        atomic.write_atomically(options.output, told.encode())
    else:
        print(told)
    unsound = [row for _, rows in parts for row in rows if not row.sound]
    for row in unsound:
        print(f"neither read nor refused in a line: {row.what}: {row.code}: {row.line}")
    return 1 if unsound else 0


if __name__ == "__main__":
    raise SystemExit(main())
