"""A CT volume as a DICOM series: a folder of CT Image Storage objects that say what they are, a synthesis.

Written from DICOM PS3.3, A.3 (CT Image IOD). The same volume from the same X-rays gives the same bytes: UIDs are
derived from the content, and no time of day goes into the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from x2ct import __version__
from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.io.ct.volume import LPS_TO_RAS, FloatArray, Origin, int16_hu

DERIVATION = "Synthetic CT, estimated from X-ray images by a generative model. No scan of a patient, not for diagnosis"

# The Patient and the General Study modules (PS3.3, C.7.1.1 and C.7.2.1), as far as a series takes them over.
_OF_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
_OF_STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")
_OPTIONAL = ("SpecificCharacterSet", "IssuerOfPatientID", "StudyInstanceUID")  # the others are type 2: empty, but there
_SHEAR = 1e-4


def read_headers(xrays: Sequence[Path]) -> list[Dataset]:
    """Return the headers of those X-rays that are DICOM; raises InputError where they are of two patients."""
    headers: list[Dataset] = []
    for path in xrays:
        with suppress(InvalidDicomError, OSError):
            headers.append(pydicom.dcmread(path, stop_before_pixels=True))
    patients = {(str(header.get("PatientID", "")), str(header.get("IssuerOfPatientID", ""))) for header in headers}
    if len(patients) > 1:
        names = " and ".join(path.name for path in xrays)
        raise InputError.of(names, "PatientID", found="two patients", expected="X-rays of one patient")
    return headers


def write_series(
    hu: npt.NDArray[np.float32],
    affine: FloatArray,
    target: str | PathLike[str],
    *,
    description: str = "",
    origin: Origin | None = None,
) -> Path:
    """Write a new or empty folder with one int16 file a slice (HU, slope 1, intercept 0), whole or not at all.

    `hu` is (x, y, z) in RAS+, `affine` the 4x4 from index to world mm, `description` the SeriesDescription; an `origin`
    marks the series as synthetic, and None is for a CT that is no synthesis. Raises InputError where the folder can't
    be made, the affine has shear or the X-rays are of two patients, and X2CTError where the write fails on the way.
    """
    folder = atomic.check_new_folder(target)
    pixels, matrix = _image_order(int16_hu(hu), affine)
    common, seed = _common(pixels, matrix, description, origin)

    def write(part: Path) -> None:
        part.mkdir()
        for index, image in enumerate(pixels):
            one = Dataset(common)
            one.SOPInstanceUID = generate_uid(entropy_srcs=[seed, f"slice {index}"])
            one.InstanceNumber = index + 1
            one.ImagePositionPatient = _decimals(*(matrix @ [0, 0, index, 1])[:3])
            one.PixelData = image.astype("<i2").tobytes()
            one.file_meta = FileMetaDataset()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.save_as(part / f"IM{index + 1:05d}.dcm", enforce_file_format=True)

    return atomic.write_beside(folder, write)


def _image_order(values: npt.NDArray[np.int16], affine: FloatArray) -> tuple[npt.NDArray[np.int16], FloatArray]:
    """Return the volume as slices whose rows and columns grow towards back and left, and their 4x4 to LPS mm."""
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > _SHEAR:
        raise InputError.of("volume", "affine", found="axes with shear", expected="orthogonal axes: DICOM has no other")
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip[:2, 3] = np.asarray(values.shape[:2]) - 1
    return np.ascontiguousarray(values[::-1, ::-1].transpose(2, 1, 0)), LPS_TO_RAS @ affine @ flip


def _common(
    pixels: npt.NDArray[np.int16], matrix: FloatArray, description: str, origin: Origin | None
) -> tuple[Dataset, str]:
    """Return the elements that all slices share, and the seed of their UIDs."""
    headers = read_headers(origin.xrays) if origin else []
    first = headers[0] if headers else Dataset()
    identity = hashlib.sha256(pixels.tobytes() + matrix.tobytes())
    sources = [str(header.get("SOPInstanceUID", "")) for header in headers]
    for part in (__version__, description, *sources, origin.model if origin else ""):
        identity.update(part.encode() + b"\0")
    seed = identity.hexdigest()
    header = Dataset()
    header.SOPClassUID = CTImageStorage
    for name in ("SpecificCharacterSet", *_OF_PATIENT, *_OF_STUDY):
        if name in first:
            header[name] = first[name]
        elif name not in _OPTIONAL:
            setattr(header, name, None)
    header.StudyInstanceUID = first.get("StudyInstanceUID") or generate_uid(entropy_srcs=[seed, "study"])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=[seed, "series"])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=[seed, "frame of reference"])
    header.SeriesNumber, header.AcquisitionNumber = None, None
    header.PositionReferenceIndicator, header.PatientPosition = "", "HFS"
    header.Modality, header.Manufacturer, header.ManufacturerModelName = "CT", "x2ct", "x2ct"
    header.SoftwareVersions = f"x2ct {__version__}"
    header.SeriesDescription = description[:64]
    header.KVP, header.BurnedInAnnotation = None, "NO"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    if origin:
        _mark_synthetic(header, origin, headers)
    column_mm, row_mm, slice_mm = (float(length) for length in np.linalg.norm(matrix[:3, :3], axis=0))
    header.ImageOrientationPatient = _decimals(*(matrix[:3, 0] / column_mm), *(matrix[:3, 1] / row_mm))
    header.PixelSpacing = _decimals(row_mm, column_mm)
    header.SliceThickness, header.SpacingBetweenSlices = _decimals(slice_mm, slice_mm)
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape[1:]
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.RescaleSlope, header.RescaleIntercept, header.RescaleType = *_decimals(1, 0), "HU"
    header.WindowCenter, header.WindowWidth = _decimals(40, 400)
    return header, seed


def _mark_synthetic(header: Dataset, origin: Origin, xrays: Sequence[Dataset]) -> None:
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    header.SyntheticData = "YES"
    header.DerivationDescription = f"{DERIVATION}. Model {origin.model}" if origin.model else DERIVATION
    header.ImageComments = "Synthetic. Research only. Not for diagnosis."
    sources = []
    for xray in xrays:
        if "SOPClassUID" in xray and "SOPInstanceUID" in xray:
            source = Dataset()
            source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = xray.SOPClassUID, xray.SOPInstanceUID
            sources.append(source)
    if sources:
        header.SourceImageSequence = sources
    purpose, code, equipment = codes.DCM.ProcessingEquipment, Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = purpose.value, "DCM", purpose.meaning
    equipment.PurposeOfReferenceCodeSequence = [code]
    equipment.Manufacturer, equipment.ManufacturerModelName = "x2ct", "x2ct"
    equipment.SoftwareVersions = header.SoftwareVersions
    equipment.ContributionDescription = header.DerivationDescription
    header.ContributingEquipmentSequence = [equipment]


def _decimals(*values: float) -> list[Any]:
    """Return numbers as decimal strings of at most 16 characters, rounded to 1e-10."""
    return [DSfloat(round(float(value), 10), auto_format=True) for value in values]
