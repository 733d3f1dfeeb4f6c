"""What a DICOM radiograph's values mean, each as a law: two files that say the same give the same line integrals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import scipy.ndimage
from pydicom.dataset import Dataset

from benchmarks import input_files as files
from tests.xray_files import P99, SHOWN, TRUTH, VIEW, close, on_detector, says
from x2ct.errors import InputError
from x2ct.io.xray.radiograph import ReadOptions, XRay

# ---------------------------------------------------------------------------------------------- what values mean


def test_inverted_values_under_the_other_monochrome_are_the_same(tmp_path: Path) -> None:
    two = files.dicom(tmp_path / "2.dcm", SHOWN, PhotometricInterpretation="MONOCHROME2")
    one = files.dicom(tmp_path / "1.dcm", SHOWN.max() - SHOWN, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(on_detector(one), on_detector(two))


@pytest.mark.parametrize("sign", [1, -1, None])
def test_linear_values_and_their_logarithm_are_the_same(tmp_path: Path, sign: int | None) -> None:
    counts = files.intensity(TRUTH)
    linear = counts if sign != -1 else counts.max() - counts
    log = np.rint(4095 + 4095 * np.log(np.maximum(counts, 1) / 65535) / 12).astype(np.uint16)
    log = log if sign == 1 else 4095 - log
    said = {} if sign is None else {"PixelIntensityRelationshipSign": sign}
    lin = files.dicom(tmp_path / "lin.dcm", linear, 16, PixelIntensityRelationship="LIN", **said)
    logged = files.dicom(tmp_path / "log.dcm", log, PixelIntensityRelationship="LOG", **said)
    assert close(on_detector(lin), on_detector(logged), 0.01)
    assert close(on_detector(lin), P99 * TRUTH / np.percentile(TRUTH, 99), 0.01)  # the demo's air is at 0 already


def test_a_modality_lut_is_for_values_whose_relation_to_intensity_is_unknown(tmp_path: Path) -> None:
    counts = files.intensity(TRUTH)
    rescale = {"RescaleSlope": 0.5, "RescaleIntercept": 20000, "RescaleType": "US"}
    plain = files.dicom(tmp_path / "a.dcm", counts, 16, PixelIntensityRelationship="LIN")
    offset = files.dicom(tmp_path / "b.dcm", counts, 16, PixelIntensityRelationship="LIN", **rescale)
    assert np.array_equal(on_detector(plain), on_detector(offset))

    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "US", [int(65535 * (value / 4095) ** 2) for value in range(4096)])
    curved = np.rint(4095 * np.sqrt(SHOWN / 4095)).astype(np.uint16)
    undone = files.dicom(tmp_path / "c.dcm", curved, ModalityLUTSequence=[table])
    assert close(on_detector(undone), on_detector(files.dicom(tmp_path / "d.dcm", SHOWN)), 2e-3)


def test_a_sign_is_about_stored_values_even_if_the_rescale_falls(tmp_path: Path) -> None:
    down = {"RescaleSlope": -1, "RescaleIntercept": 4095, "RescaleType": "US", "PixelIntensityRelationshipSign": -1}
    falling = files.dicom(tmp_path / "a.dcm", SHOWN, **down)
    assert close(on_detector(falling), on_detector(files.dicom(tmp_path / "b.dcm", SHOWN)))


def test_voi_luts_are_display(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.add_new("LUTData", "US", [65535 - 16 * value for value in range(4096)])
    shown = files.dicom(tmp_path / "a.dcm", SHOWN, VOILUTSequence=[table], PresentationLUTShape="INVERSE")
    assert np.array_equal(on_detector(shown), on_detector(files.dicom(tmp_path / "b.dcm", SHOWN)))


def test_for_processing_without_a_relation_is_doubted(tmp_path: Path) -> None:
    raw = {"PresentationIntentType": "FOR PROCESSING"}
    assert any("FOR PROCESSING" in line for line in XRay.load(files.dicom(tmp_path / "a.dcm", SHOWN, **raw)).warnings)
    known = files.dicom(tmp_path / "b.dcm", SHOWN, PixelIntensityRelationship="LOG", **raw)
    assert not XRay.load(known).warnings
    shown = files.dicom(tmp_path / "c.dcm", SHOWN, PresentationIntentType="FOR PRESENTATION")
    assert not XRay.load(shown).warnings


def test_fluoroscopy_is_shown_the_other_way_round(tmp_path: Path) -> None:
    dark = files.dicom(tmp_path / "a.dcm", SHOWN.max() - SHOWN, Modality="XA")
    assert np.array_equal(on_detector(dark), on_detector(files.dicom(tmp_path / "b.dcm", SHOWN)))


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_and_sign_of_storage_do_not_matter(tmp_path: Path, bits: int, signed: bool) -> None:
    values = files.display(TRUTH, bits).astype(np.int32) - (2 ** (bits - 1) if signed else 0)
    stored = values.astype(np.int16 if signed else np.uint16)
    path = files.dicom(tmp_path / "a.dcm", stored, bits)
    assert close(on_detector(path), P99 * TRUTH / np.percentile(TRUTH, 99), 0.01 if bits == 8 else 2e-3)


@pytest.mark.parametrize("signed", [False, True])
def test_values_of_padding_do_not_matter(tmp_path: Path, signed: bool) -> None:
    kind = np.int16 if signed else np.uint16
    padded = (SHOWN // 2).astype(kind)
    padded[:, :60] = -2000 if signed else 4000
    low = {"PixelPaddingValue": -2047 if signed else 3990, "PixelPaddingRangeLimit": -1990 if signed else 4095}
    a = files.dicom(tmp_path / "a.dcm", padded, **low)
    padded[:, :60] = -1990 if signed else 4095
    image = on_detector(a)
    assert np.array_equal(image, on_detector(files.dicom(tmp_path / "b.dcm", padded, **low)))
    assert image[:, :58].max() == 0
    xray = XRay.load(a, spacing=1.25)
    assert xray.field_on(VIEW)[:, :58].max() == 0
    assert xray.field_on(VIEW)[:, 62:].min() == 1


# ---------------------------------------------------------------------------------------------- transfer syntaxes


@pytest.mark.parametrize("syntax", files.SYNTAXES)
@pytest.mark.parametrize(("bits", "kind"), [(12, "u2"), (16, "u2"), (12, "i2")])
def test_lossless_compression_changes_no_bit(tmp_path: Path, syntax: str, bits: int, kind: str) -> None:
    values = files.display(TRUTH, bits).astype(np.int32) - (2 ** (bits - 1) if kind == "i2" else 0)
    path = files.dicom(tmp_path / "a.dcm", values.astype(kind), bits)
    plain = XRay.load(path).image
    size = path.stat().st_size
    files.compressed(path, files.SYNTAXES[syntax])
    assert path.stat().st_size < size
    assert np.array_equal(XRay.load(path).image, plain)


@pytest.mark.parametrize("syntax", files.LOSSY)
def test_lossy_compression_changes_little(tmp_path: Path, syntax: str) -> None:
    bits = 8 if "8 bit" in syntax else 12
    path = files.dicom(tmp_path / "a.dcm", files.display(TRUTH, bits), bits)
    plain = XRay.load(path).image
    files.compressed(path, files.LOSSY[syntax])
    assert np.abs(XRay.load(path).image - plain).max() <= 2**bits / 80


def test_twelve_bit_jpeg_is_decoded_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = XRay.load(files.extended(tmp_path / "a.dcm", PatientOrientation=["L", "F"])).image
    assert (image[420, 140], image[230, 120]) == (244, 95)  # as pydicom's tests have it from another decoder
    assert capfd.readouterr() == ("", "")


def test_deflated_big_endian_and_implicit(tmp_path: Path) -> None:
    plain = XRay.load(files.dicom(tmp_path / "a.dcm", SHOWN)).image
    for name, uid in (("implicit", "1.2.840.10008.1.2"), ("deflated", "1.2.840.10008.1.2.1.99")):
        dataset = pydicom.dcmread(tmp_path / "a.dcm")
        dataset.file_meta.TransferSyntaxUID = uid
        dataset.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
        assert np.array_equal(XRay.load(tmp_path / f"{name}.dcm").image, plain)
    assert np.array_equal(XRay.load(files.compressed(tmp_path / "a.dcm", "1.2.840.10008.1.2.2")).image, plain)


# ---------------------------------------------------------------------------------------------- shutters

SHUTTERS: dict[str, dict[str, Any]] = {
    "rectangle": {
        "ShutterShape": "RECTANGULAR",
        "ShutterUpperHorizontalEdge": 41,
        "ShutterLowerHorizontalEdge": 300,
        "ShutterLeftVerticalEdge": 31,
        "ShutterRightVerticalEdge": 320,
    },
    "circle": {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [176, 170], "RadiusOfCircularShutter": 150},
    "polygon": {
        "ShutterShape": "POLYGONAL",
        "VerticesOfThePolygonalShutter": [17, 177, 177, 337, 337, 177, 177, 17],
    },
    "plus": {  # with arms so narrow that what is hidden beside them looks like a straight shutter
        "ShutterShape": "POLYGONAL",
        "VerticesOfThePolygonalShutter": [
            *(17, 161, 17, 193, 57, 193, 57, 337, 297, 337, 297, 193),
            *(337, 193, 337, 161, 297, 161, 297, 17, 57, 17, 57, 161),
        ],
    },
    "collimator": {
        "CollimatorShape": ["CIRCULAR"],
        "CenterOfCircularCollimator": [176, 170],
        "RadiusOfCircularCollimator": 150,
    },
    "two": {
        "ShutterShape": ["RECTANGULAR", "CIRCULAR"],
        "ShutterUpperHorizontalEdge": 41,
        "ShutterLowerHorizontalEdge": 300,
        "ShutterLeftVerticalEdge": 31,
        "ShutterRightVerticalEdge": 320,
        "CenterOfCircularShutter": [176, 170],
        "RadiusOfCircularShutter": 150,
    },
}


def open_field(name: str) -> np.ndarray:
    """Where the shutter of that name is open, written down once more."""
    rows, columns = np.mgrid[1:353, 1:353]
    shapes = {
        "rectangle": (rows >= 41) & (rows <= 300) & (columns >= 31) & (columns <= 320),
        "circle": (rows - 176) ** 2 + (columns - 170) ** 2 <= 150**2,
        "polygon": np.abs(rows - 177) + np.abs(columns - 177) <= 160,
    }
    wide, high = (rows >= 57) & (rows <= 297), (columns >= 161) & (columns <= 193)
    shapes["plus"] = (wide & (columns >= 17) & (columns <= 337)) | (high & (rows >= 17) & (rows <= 337))
    shapes["collimator"] = shapes["circle"]
    shapes["two"] = shapes["rectangle"] & shapes["circle"]
    return shapes[name]


@pytest.mark.parametrize("name", SHUTTERS)
def test_what_lies_under_a_shutter_does_not_matter(tmp_path: Path, name: str) -> None:
    is_open = open_field(name)
    near = scipy.ndimage.binary_dilation(is_open, iterations=3)  # an oblique edge's pixels may be called either way
    pair = []
    for number, hidden in enumerate((0, 4095)):
        values = np.where(is_open | near, SHOWN, hidden).astype(np.uint16)
        path = files.dicom(tmp_path / f"{number}.dcm", values, PixelSpacing=[1.25, 1.25], **SHUTTERS[name])
        xray = XRay.load(path)
        assert xray.exposed is not None
        assert np.mean(xray.exposed != is_open) < (0.02 if name == "polygon" else 1e-9)
        pair.append(on_detector(path))
    assert np.array_equal(*pair)
    assert pair[0][~near].max() == 0


def test_a_shutter_that_hides_everything_is_ignored(tmp_path: Path) -> None:
    tags = SHUTTERS["rectangle"] | {"ShutterLeftVerticalEdge": -184, "ShutterRightVerticalEdge": 3}
    path = files.dicom(tmp_path / "a.dcm", SHOWN, **tags)
    assert XRay.load(path).exposed is None
    assert says(path, "ShutterShape RECTANGULAR can't be read or leaves next to nothing")


# ---------------------------------------------------------------------------------------------- frames


def test_one_frame_of_several(tmp_path: Path) -> None:
    stack = np.stack([SHOWN, SHOWN[::-1], SHOWN[:, ::-1]])
    path = files.dicom(tmp_path / "a.dcm", stack)
    with pytest.raises(InputError, match=r"NumberOfFrames: found 3 pictures, .*--frame 1 to --frame 3"):
        XRay.load(path)
    for syntax in ("", *files.SYNTAXES.values()):
        if syntax:
            files.compressed(files.dicom(path, stack), syntax)
        for number in (1, 2, 3):
            assert np.array_equal(XRay.load(path, options=ReadOptions(frame=number)).image, stack[number - 1])
        with pytest.raises(InputError, match=r"--frame: found 4, expected 1 to 3"):
            XRay.load(path, options=ReadOptions(frame=4))


def test_what_functional_groups_say_of_a_frame(tmp_path: Path) -> None:
    shared, per = Dataset(), [Dataset(), Dataset()]
    spacing = Dataset()
    spacing.PixelSpacing = [0.7, 0.7]
    shared.PixelMeasuresSequence = [spacing]
    for number, group in enumerate(per):
        data = Dataset()
        data.PixelIntensityRelationshipSign = (-1, 1)[number]
        group.FramePixelDataPropertiesSequence = [data]
    stack = np.stack([SHOWN, SHOWN.max() - SHOWN])
    groups = {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": per}
    path = files.dicom(tmp_path / "a.dcm", stack, Modality="XA", **groups)
    first, second = (XRay.load(path, options=ReadOptions(frame=number)) for number in (1, 2))
    assert np.array_equal(first.image, second.image)
    assert first.spacing_mm == (0.7, 0.7)
