"""X-ray files of every kind that a hospital may send, made from known line integrals, for tests and `inputs.py`.

The picture is a projection of a real CT (the demo's frontal one), so that what comes out can be compared with what went
in. Nothing in these files is about a patient.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

DEMO = Path(__file__).resolve().parent.parent / "x2ct" / "models" / "demo"
SYNTAXES = {
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG Lossless": "1.2.840.10008.1.2.4.57",
    "JPEG Lossless SV1": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000 lossless": "1.2.840.10008.1.2.4.90",
}
LOSSY = {
    "JPEG baseline 8 bit": "1.2.840.10008.1.2.4.50",
    "JPEG-LS near-lossless": "1.2.840.10008.1.2.4.81",
    "JPEG 2000": "1.2.840.10008.1.2.4.91",
}

Array = npt.NDArray[Any]


def truth(rows: int = 0) -> npt.NDArray[np.float32]:
    """Return the demo's frontal line integrals, or their first rows only."""
    image = np.load(DEMO / "ap.npy").astype(np.float32)
    return image[:rows] if rows else image


def display(line: Array, bits: int = 12) -> npt.NDArray[np.uint16]:
    """Line integrals as values for display: air 0, dense high."""
    return np.rint(line / line.max() * (2**bits - 1)).astype(np.uint16)


def intensity(line: Array, bits: int = 16) -> npt.NDArray[np.uint16]:
    """Line integrals as what a linear detector counts."""
    return np.rint(np.exp(-line) * (2**bits - 1)).astype(np.uint16)


def dicom(path: Path, stored: Array, bits: int = 12, **tags: Any) -> Path:
    """Write a DX image of these values; any element by its keyword, None removes it. Frames go first in `stored`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    # What GDCM would make up anew, were it not there: the same call gives the same bytes.
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.StudyDate, dataset.StudyTime = "20000101", "000000"
    dataset.Modality, dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "DX", "MONOCHROME2", 1
    dataset.PatientOrientation = ["L", "F"]
    signed = stored.dtype.kind == "i"
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    if stored.ndim == 3:
        dataset.NumberOfFrames = stored.shape[0]
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    kind = f"{'i' if signed else 'u'}{dataset.BitsAllocated // 8}"
    pixels = stored.astype(f"<{kind}").tobytes()
    dataset.add_new("PixelData", "OW" if bits > 8 else "OB", pixels + b"\0" * (len(pixels) % 2))
    for keyword, value in tags.items():
        if keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
            dataset.add_new(keyword, "SS" if signed else "US", value)
        elif value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def compressed(path: Path, syntax: str) -> Path:
    """Write the file in another transfer syntax, in its place.

    Raises:
        ValueError: GDCM can't write it.
    """
    import gdcm

    gdcm.Trace.ErrorOff()
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise ValueError(f"GDCM can't read {path.name}")
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    codec = _lossy_codec(syntax) if syntax in LOSSY.values() else None  # to be kept: GDCM has only its address
    if codec is not None:
        change.SetUserCodec(codec)
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise ValueError(f"GDCM can't write {syntax}")
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise ValueError(f"GDCM can't write {path.name}")
    return path


def _lossy_codec(syntax: str) -> Any:
    import gdcm

    if syntax == LOSSY["JPEG baseline 8 bit"]:
        codec = gdcm.JPEGCodec()
        codec.SetLossless(False)
        codec.SetQuality(95)
        return codec
    if syntax == LOSSY["JPEG-LS near-lossless"]:
        codec = gdcm.JPEGLSCodec()
        codec.SetLossless(False)
        codec.SetLossyError(2)
        return codec
    codec = gdcm.JPEG2000Codec()
    codec.SetRate(0, 12)
    return codec


def extended(path: Path, **tags: Any) -> Path:
    """Write pydicom's real 12-bit extended JPEG, called a radiograph: GDCM reads these, and can't write them."""
    import pydicom
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("JPGExtended.dcm", download=False)))
    for keyword, value in {"Modality": "CR", **tags}.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path
