"""One DICOM radiograph (CR, DX, XA, RF): what its header says about intensity, place and view.

What is display is left alone: windows and VOI LUTs shape values for eyes, and end in no unit of X-ray physics. A
modality LUT or rescale is applied, unless PixelIntensityRelationship says of the stored values themselves that they are
linear in X-ray intensity or logarithmic: that is all the chain needs to know. Notes never repeat what identifies a
patient.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset, uid
from pydicom.filereader import _read_file_meta_info as read_meta
from pydicom.filereader import read_preamble
from pydicom.pixels.processing import apply_modality_lut

from x2ct.errors import InputError
from x2ct.io.dicom_frames import frame_values
from x2ct.io.xray.dicomplace import Header, exposed, meaning, place
from x2ct.io.xray.exposure import ASSUMED, DISPUTED, TAGGED, UNTOLD, BoolImage
from x2ct.io.xray.radiograph import XRay
from x2ct.io.xray.readers import check_frame, check_size, grey

RADIOGRAPHS = ("CR", "DX", "XA", "RF", "RG")
UNSURE = ("", "OT", "MG", "PX", "IO")  # may hold an X-ray, or one of what no model here knows
SLICES = ("CT", "MR", "PT")
FLUOROSCOPY = ("XA", "RF")  # shown with dense tissue dark, unlike radiographs

MAX_FILE_BYTES = 4 << 30
MAX_INFLATED_BYTES = 256 << 20  # what a deflated file may become: MAX_PIXELS of 16 bits, and a header
BITS_STORED = (8, 16)


def read_dicom(source: Path, frame: int | None = None) -> XRay:
    """Read a CR, DX, XA or RF object, with or without a preamble; `frame` is which picture of several, from 1.

    Raises InputError: no image, a slice modality, several frames without a choice, colour, damaged pixels, a transfer
    syntax that can't be decoded, or past MAX_PIXELS; and whatever pydicom raises on damage, as it converts an element
    when it is first touched.
    """
    dataset = _opened(source)
    kind = _kind(source, dataset)
    stored = grey(_decoded(source, dataset, frame), source)
    header = Header(dataset, (frame or 1) - 1)
    relationship = str(header.get("PixelIntensityRelationship") or "").strip().upper()
    physical = relationship in ("LIN", "LOG")
    values = np.array(stored if physical else apply_modality_lut(stored, dataset), np.float32)
    dense_is_high, polarity, notes, doubts = _meaning(header, relationship, _falls(dataset) and not physical)
    white_is_high = str(header.get("PhotometricInterpretation") or "") != "MONOCHROME1"
    if str(header.get("Modality") or "") in UNSURE:
        doubts.append(f"Modality is {header.get('Modality') or 'missing'}: it was taken for a radiograph.")
    shape = (values.shape[0], values.shape[1])
    field = exposed(dataset, shape, notes)
    padding = _padding(dataset, stored)
    if padding is not None:
        # Padding becomes what lets most X-rays through: air.
        rest = values[~padding]
        values[padding] = rest.min() if dense_is_high else rest.max()
        notes.append(f"{100 * padding.mean():.2g}% of the pixels are marked as padding and were taken as air.")
        field = ~padding if field is None else field & ~padding
    if field is not None and not field.any():
        raise InputError.of(source, "shutters and padding", found="no pixel left", expected="an exposed field")
    spacing, beam, view, turn = place(header, shape, notes)
    part = str(header.get("BodyPartExamined") or "").strip().upper()
    signed = int(dataset.get("PixelRepresentation") or 0)
    return XRay(
        values,
        calibrated=False,
        spacing_mm=spacing,
        source=str(source),
        notes=tuple(notes),
        view=view,
        exposed=field,
        beam=beam,
        body_part=(part or meaning(header.get("AnatomicRegionSequence")))[:16] or None,
        kind=kind,
        warnings=tuple(doubts),
        polarity=polarity,
        dense_is_high=dense_is_high,
        white_is_high=white_is_high,
        linear=relationship == "LIN",
        highest=2 ** (int(dataset.BitsStored) - signed) - 1 if relationship == "LIN" else None,
        turns=(turn,),
    )


def _kind(source: Path, dataset: Dataset) -> str:
    """Return what a file is, in a few words; raises InputError for another kind of picture than an X-ray."""
    modality, photometric = (str(dataset.get(name) or "") for name in ("Modality", "PhotometricInterpretation"))
    if modality not in RADIOGRAPHS + UNSURE:
        hint = "this is a slice, not an X-ray" if modality in SLICES else ""
        raise InputError.of(source, "Modality", found=modality[:16], expected="CR, DX, XA or RF", hint=hint)
    if photometric == "PALETTE COLOR":
        raise InputError.of(source, "PhotometricInterpretation", found=photometric, expected="MONOCHROME1 or 2")
    intent = str(dataset.get("PresentationIntentType") or "").strip().lower()
    syntax = str(getattr(dataset.file_meta.get("TransferSyntaxUID"), "name", "")).partition(",")[0]
    return "DICOM " + ", ".join(part for part in (modality[:4], intent[:16], syntax) if part)


def _falls(dataset: Dataset) -> bool:
    """Return whether the modality LUT or rescale makes low of high."""
    tables = dataset.get("ModalityLUTSequence")
    if tables:
        data = np.asarray(tables[0].LUTData)
        return bool(data.size and float(data[-1]) < float(data[0]))
    return float(dataset.get("RescaleSlope") or 1) < 0


def _padding(dataset: Dataset, stored: npt.NDArray[Any]) -> BoolImage | None:
    """Return where the file says that pixels are no measurement."""
    if "PixelPaddingValue" not in dataset:
        return None
    names, limits = ("PixelPaddingValue", "PixelPaddingRangeLimit"), np.iinfo(stored.dtype)
    ends = [int(dataset[name].value) for name in names if name in dataset]
    if limits.min < 0:  # some files write them unsigned beside signed pixels
        ends = [end - (1 << limits.bits) if end > limits.max else end for end in ends]
    padding = (stored >= min(ends)) & (stored <= max(ends))
    return padding if padding.any() and not padding.all() else None


def _meaning(header: Header, relationship: str, falls: bool) -> tuple[bool, str, list[str], list[str]]:
    """Return whether high values are dense, how far that is known, what was assumed for it, and what is doubtful.

    DICOM PS3.3 C.8.11.3.1.2 (DX) and C.8.7.1 (XA): PixelIntensityRelationshipSign 1 means that lower stored values are
    less X-ray intensity; LIN without a sign is proportional to it. Sign and relationship "do not define a
    transformation intended to be applied to the pixel data for presentation": there, PhotometricInterpretation counts.
    MONOCHROME1 shows its lowest value white, and radiographs are shown with dense tissue white.
    """
    sign = header.get("PixelIntensityRelationshipSign")
    photometric = str(header.get("PhotometricInterpretation") or "")
    modality = str(header.get("Modality") or "")
    intent = str(header.get("PresentationIntentType") or "").strip().upper()
    notes, doubts, polarity = [], [], TAGGED
    shown_bright = photometric != "MONOCHROME1"
    for_eyes = relationship != "LIN" and intent != "FOR PROCESSING" and modality not in FLUOROSCOPY
    if sign in (1, -1) and not (for_eyes and photometric):
        dense_is_high = (sign == -1) != falls
    elif relationship == "LIN":
        dense_is_high = False
    else:
        if photometric not in ("MONOCHROME1", "MONOCHROME2"):
            notes.append(f"PhotometricInterpretation is {photometric[:16] or 'missing'}: MONOCHROME2 was assumed.")
            polarity = UNTOLD
        dense_is_high = shown_bright
        if sign in (1, -1) and dense_is_high != ((sign == -1) != falls):
            notes.append(
                "PixelIntensityRelationshipSign contradicts PhotometricInterpretation, which counts for display: the "
                "picture itself had to confirm it."
            )
            polarity = DISPUTED
        if modality in FLUOROSCOPY:
            dense_is_high = not dense_is_high
            notes.append("Fluoroscopy without a sign of its intensity: dense tissue was taken to be shown dark.")
    if modality in FLUOROSCOPY:
        polarity = ASSUMED
    notes.append(_INTENSITY.get(relationship) or _INTENSITY[""])
    if intent == "FOR PROCESSING" and relationship not in ("LIN", "LOG"):
        doubts.append(
            "The file is FOR PROCESSING and does not say whether its values are linear (LIN) or logarithmic (LOG) in "
            "X-ray intensity: they were taken as they are, no log."
        )
    return dense_is_high, polarity, notes, doubts


_INTENSITY = {
    "LIN": "Values are linear in X-ray intensity (PixelIntensityRelationship LIN): their log was taken.",
    "LOG": "Values are logarithmic in X-ray intensity (PixelIntensityRelationship LOG): no log was taken.",
    "DISP": "Values are those for display (PixelIntensityRelationship DISP): taken as they are, no log.",
    "": "PixelIntensityRelationship is missing: values were taken as they are, no log.",
}


def _opened(source: Path) -> Dataset:
    size = source.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InputError.of(source, "size", found=f"{size} bytes", expected=f"at most {MAX_FILE_BYTES >> 30} GiB")
    _refuse_deflate_bomb(source)
    dataset = pydicom.dcmread(source, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _refuse_deflate_bomb(source: Path) -> None:
    """Measure a deflated dataset, which whoever reads it inflates as a whole; raises InputError."""
    with source.open("rb") as stream:
        read_preamble(stream, force=True)
        if str(read_meta(stream).get("TransferSyntaxUID", "")) != uid.DeflatedExplicitVRLittleEndian:
            return
        inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while chunk := inflate.unconsumed_tail or stream.read(1 << 20):
            total += len(inflate.decompress(chunk, 1 << 24))
            if total > MAX_INFLATED_BYTES:
                found = f"more than {MAX_INFLATED_BYTES} bytes"
                raise InputError.of(source, "size", found=found, expected="one radiograph")


def _decoded(source: Path, dataset: Dataset, frame: int | None) -> npt.NDArray[Any]:
    """Return one frame's stored values, integers (rows, columns) or (rows, columns, channels)."""
    if "Rows" not in dataset or "Columns" not in dataset or "PixelData" not in dataset:
        raise InputError.of(source, "pixel data", found="none", expected="a radiograph")
    check_size(source, int(dataset.Rows), int(dataset.Columns))
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        frames = 0
    if frames < 1:
        raise InputError.of(source, "NumberOfFrames", found=dataset.get("NumberOfFrames"), expected="1 or more")
    index = check_frame(source, "NumberOfFrames", frames, frame)
    stored, allocated = int(dataset.get("BitsStored") or 0), int(dataset.get("BitsAllocated") or 0)
    if not BITS_STORED[0] <= stored <= BITS_STORED[1] or allocated not in (8, 16) or stored > allocated:
        found, expected = f"{stored} of {allocated}", f"{BITS_STORED[0]} to {BITS_STORED[1]} of 8 or 16"
        raise InputError.of(source, "BitsStored of BitsAllocated", found=found, expected=expected)
    if "HighBit" in dataset and int(dataset.HighBit) != stored - 1:
        raise InputError.of(source, "HighBit", found=dataset.HighBit, expected=f"{stored - 1}, one below BitsStored")
    return frame_values(source, dataset, index)
