"""What a DICOM radiograph's elements mean, each as a law: two files that say the same give the same line integrals."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import scipy.ndimage
from PIL import Image
from pydicom.dataset import Dataset

from benchmarks import input_files as files
from tests import refusals
from x2ct.bundle import Bundle
from x2ct.conditioning import conditions
from x2ct.errors import InputError
from x2ct.geometry import View
from x2ct.radiograph import ReadOptions, XRay
from x2ct.xrays.beam import Beam
from x2ct.xrays.turn import Turn

VIEW = View.parallel("ap")
P99 = 5.0
TRUTH = files.truth()
SHOWN = files.display(TRUTH)


def on_detector(path: Path, view: View = VIEW, **options: Any) -> np.ndarray:
    return XRay.load(path, options=ReadOptions(1.25, **options)).to_detector(view, P99)[0]


def close(one: np.ndarray, other: np.ndarray, share: float = 2e-3) -> bool:
    return float(np.abs(one - other).max()) <= share * P99


def says(path: Path, words: str) -> bool:
    return any(words in note for note in XRay.load(path).notes)


# ---------------------------------------------------------------------------------------------- what values mean


def test_inverted_values_under_the_other_monochrome_are_the_same(tmp_path: Path) -> None:
    two = files.dicom(tmp_path / "2.dcm", SHOWN, PhotometricInterpretation="MONOCHROME2")
    one = files.dicom(tmp_path / "1.dcm", SHOWN.max() - SHOWN, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(on_detector(one), on_detector(two))
    same = files.dicom(tmp_path / "same.dcm", SHOWN, PhotometricInterpretation="MONOCHROME1")
    assert not close(on_detector(same), on_detector(two), 0.5)


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


def test_a_sign_against_the_display_is_believed_and_doubted(tmp_path: Path) -> None:
    path = files.dicom(tmp_path / "a.dcm", SHOWN.max() - SHOWN, PixelIntensityRelationshipSign=1)
    assert close(on_detector(path), on_detector(files.dicom(tmp_path / "b.dcm", SHOWN)))
    assert any("the sign was believed" in line for line in XRay.load(path).warnings)


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


# ---------------------------------------------------------------------------------------------- how it lies

TURNS = [Turn(transpose, down, across) for transpose, down, across in product((False, True), (1, -1), (1, -1))]


def orientation_of(turn: Turn, frontal: bool = True) -> list[str]:
    """PatientOrientation (along a row, down a column) of an upright picture after this turn."""
    right, down = ("L" if frontal else "P"), "F"
    opposite = {"L": "R", "P": "A", "F": "H"}
    along, below = (down, right) if turn.transpose else (right, down)
    return [along if turn.across == 1 else opposite[along], below if turn.down == 1 else opposite[below]]


@pytest.mark.parametrize("turn", TURNS, ids=str)
@pytest.mark.parametrize("frontal", [True, False])
def test_however_it_lies_it_is_set_upright(tmp_path: Path, turn: Turn, frontal: bool) -> None:
    lying = turn.of(SHOWN[:200])
    spacing = list(turn.spacing((0.8, 0.9)) or ())
    tags = {"PatientOrientation": orientation_of(turn, frontal), "PixelSpacing": spacing}
    xray = XRay.load(files.dicom(tmp_path / "a.dcm", lying, **tags))
    assert np.array_equal(xray.image, SHOWN[:200])
    assert xray.spacing_mm == (0.8, 0.9)


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [None, "horizontal", "vertical"])
def test_what_the_user_turns_is_the_picture_that_the_file_set_upright(
    tmp_path: Path, rotate: int, flip: str | None
) -> None:
    expected = np.rot90(SHOWN[:200], -rotate // 90)
    expected = {None: expected, "horizontal": expected[:, ::-1], "vertical": expected[::-1]}[flip]
    for turn in TURNS:
        tags = {"PatientOrientation": orientation_of(turn), "PixelSpacing": list(turn.spacing((0.8, 0.9)) or ())}
        path = files.dicom(tmp_path / "a.dcm", turn.of(SHOWN[:200]), **tags)
        xray = XRay.load(path, options=ReadOptions(rotate=rotate, flip=flip))
        assert np.array_equal(xray.image, expected)
        assert xray.spacing_mm == ((0.9, 0.8) if rotate in (90, 270) else (0.8, 0.9))


def test_a_turn_and_the_turn_back_are_nothing() -> None:
    picture = SHOWN[:200]
    for degrees, back in ((90, 270), (180, 180), (270, 90)):
        assert np.array_equal(Turn.rotation(back).of(Turn.rotation(degrees).of(picture)), picture)
    for code in range(1, 9):
        turned = Image.fromarray(picture)
        exif = turned.getexif()
        exif[0x0112] = code
        from PIL import ImageOps

        assert np.array_equal(Turn.exif(code).of(picture), np.asarray(ImageOps.exif_transpose(turned)))


# ---------------------------------------------------------------------------------------------- how large it is


def a_ball(view: View, radius_mm: float = 60.0) -> np.ndarray:
    """The line integrals of a ball about the isocentre, by rays through each pixel."""
    rows, columns = np.indices(view.shape)
    pixels = np.stack([columns, rows, np.ones(view.shape)], -1).reshape(-1, 3)
    if view.source_mm is None:
        directions = np.broadcast_to(view.axis, pixels.shape)
        points = (pixels[:, :2] - view.matrix[:2, 3]) @ np.linalg.pinv(view.matrix[:2, :3]).T
    else:
        directions = pixels @ np.linalg.inv(view.matrix[:, :3]).T
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        points = np.broadcast_to(view.source_mm, directions.shape)
    nearest = points - (points * directions).sum(1, keepdims=True) * directions
    chord = 2 * np.sqrt(np.maximum(radius_mm**2 - (nearest**2).sum(1), 0))
    return (0.02 * chord).reshape(view.shape)


def width_mm(tiny: Bundle, xray: XRay, name: str = "ap") -> float:
    """How wide the ball is at the isocentre, by where its middle row crosses half of its chord of 0.866 radii."""
    ready = conditions(tiny, {name: xray})
    slot = 1 if name == "lateral" else 0
    image, matrix = ready.views[0, slot, 0], ready.matrices[0, slot]
    row = image[image.shape[0] // 2 - 1 : image.shape[0] // 2 + 1].mean(axis=0)
    inside = np.flatnonzero(row > row.max() / 2)
    first, last = inside[0], inside[-1]
    half = row.max() / 2
    left = first - (row[first] - half) / (row[first] - row[first - 1])
    right = last + (row[last] - half) / (row[last] - row[last + 1])
    across = matrix[0, :3] - (matrix[0, :3] @ matrix[2, :3]) / max(matrix[2, :3] @ matrix[2, :3], 1e-12) * matrix[2, :3]
    return float((right - left) / np.linalg.norm(across) * matrix[2, 3])


BALL_MM = 120.0 * np.sqrt(0.75)  # at half of the longest chord
SDD, SOD, PITCH = 1300.0, 1000.0, 1.5


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"DistanceSourceToDetector": SDD, "DistanceSourceToPatient": SOD, "ImagerPixelSpacing": [PITCH] * 2}, "cone"),
        (
            {
                "DistanceSourceToDetector": SDD,
                "EstimatedRadiographicMagnificationFactor": SDD / SOD,
                "ImagerPixelSpacing": [PITCH] * 2,
            },
            "cone by its factor",
        ),
        (
            {"EstimatedRadiographicMagnificationFactor": SDD / SOD, "ImagerPixelSpacing": [PITCH] * 2},
            "the factor alone",
        ),
        (
            {
                "PixelSpacing": [PITCH * SOD / SDD] * 2,
                "PixelSpacingCalibrationType": "GEOMETRY",
                "ImagerPixelSpacing": [PITCH] * 2,
            },
            "calibrated",
        ),
        (
            {
                "PixelSpacing": [PITCH * SOD / SDD] * 2,
                "PixelSpacingCalibrationType": "FIDUCIAL",
                "DistanceSourceToDetector": SDD,
                "DistanceSourceToPatient": SOD,
            },
            "calibrated, and a cone",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_known_of_magnification_makes_an_object_as_large_as_it_is(
    tmp_path: Path, tiny: Bundle, tags: dict[str, Any], name: str
) -> None:
    view = View.cone("ap", sod_mm=SOD, sdd_mm=SDD, shape=(300, 300), spacing_mm=(PITCH, PITCH))
    path = files.dicom(tmp_path / "a.dcm", files.display(a_ball(view)), **tags)
    assert width_mm(tiny, XRay.load(path)) == pytest.approx(BALL_MM, rel=0.02)
    assert XRay.load(path).beam.magnification == (pytest.approx(SDD / SOD) if "cone" in name else None)
    # and without, it is as much larger as it was magnified
    unknown = files.dicom(tmp_path / "b.dcm", files.display(a_ball(view)), ImagerPixelSpacing=[PITCH] * 2)
    assert width_mm(tiny, XRay.load(unknown)) == pytest.approx(BALL_MM * SDD / SOD, rel=0.02)
    assert says(unknown, "magnification was not taken out")


def test_distances_by_hand_are_those_of_the_file(tmp_path: Path, tiny: Bundle) -> None:
    view = View.cone("ap", sod_mm=SOD, sdd_mm=SDD, shape=(300, 300), spacing_mm=(PITCH, PITCH))
    Image.fromarray(files.display(a_ball(view), 16)).save(tmp_path / "a.png")
    xray = XRay.load(tmp_path / "a.png", options=ReadOptions(PITCH, beam=Beam(SOD, SDD)))
    assert width_mm(tiny, xray) == pytest.approx(BALL_MM, rel=0.02)
    ready = conditions(tiny, {"ap": xray})
    source = -np.linalg.solve(ready.matrices[0, 0, :, :3], ready.matrices[0, 0, :, 3])
    np.testing.assert_allclose(source, [0, SOD, 0], atol=0.1)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"DistanceSourceToDetector": 1800}, "Only one distance is known"),
        ({"DistanceSourceToDetector": 180, "DistanceSourceToPatient": 0}, "which no radiograph has"),
        ({"DistanceSourceToDetector": 1000, "DistanceSourceToPatient": 1500}, "can't be"),
    ],
)
def test_distances_that_say_nothing_change_nothing(tmp_path: Path, tags: dict[str, Any], words: str) -> None:
    path = files.dicom(tmp_path / "a.dcm", SHOWN, **tags)
    assert not XRay.load(path).beam
    assert says(path, words)
    assert np.array_equal(on_detector(path), on_detector(files.dicom(tmp_path / "b.dcm", SHOWN)))


def test_the_cassette_has_a_size(tmp_path: Path) -> None:
    tall = files.display(TRUTH[:, :288])  # 35 x 43 cm
    assert XRay.load(files.dicom(tmp_path / "a.dcm", tall, CassetteSize="35CMX43CM")).spacing_mm == pytest.approx(
        (430 / 352,) * 2
    )
    assert XRay.load(files.dicom(tmp_path / "b.dcm", tall, CassetteSize="18CMX43CM")).spacing_mm is None


# ---------------------------------------------------------------------------------------------- where it was taken from


@pytest.mark.parametrize("primary", [-90, -30, 0, 30, 90])
@pytest.mark.parametrize("secondary", [-20, 0, 20])
def test_the_positioners_angles_place_the_receptor(
    tmp_path: Path, tiny: Bundle, primary: float, secondary: float
) -> None:
    """PS3.3 C.8.7.5: from the front, positive towards the patient's left; then positive towards the head."""
    tags = {
        "Modality": "XA",
        "PositionerPrimaryAngle": primary,
        "PositionerSecondaryAngle": secondary,
        "DistanceSourceToDetector": SDD,
        "DistanceSourceToPatient": SOD,
    }
    name = "lateral" if abs(primary) > 45 else "pa"
    xray = XRay.load(files.dicom(tmp_path / "a.dcm", SHOWN, **tags))
    assert xray.view == name
    ready = conditions(tiny, {name: xray})
    matrix = ready.matrices[0, int(name == "lateral")].astype(np.float64)
    source = -np.linalg.solve(matrix[:, :3], matrix[:, 3])
    left = np.array([-1.0, 0.0, 0.0])
    front, head = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    p, s = np.radians([primary, secondary])
    receptor = np.cos(s) * (np.cos(p) * front + np.sin(p) * left) + np.sin(s) * head
    np.testing.assert_allclose(source, -SOD * receptor, atol=0.5)


def test_a_frontal_view_is_not_taken_for_a_lateral(tmp_path: Path, tiny: Bundle) -> None:
    lateral = XRay.load(files.dicom(tmp_path / "a.dcm", SHOWN, ViewPosition="LL"))
    with pytest.raises(InputError, match="calls itself lateral, expected a frontal X-ray; give it as --lateral"):
        conditions(tiny, {"ap": lateral})
    assert conditions(tiny, {"lateral": lateral}).valid.tolist() == [[0.0, 1.0]]
    pa = XRay.load(files.dicom(tmp_path / "b.dcm", SHOWN, ViewPosition="PA"))
    assert any("calls itself pa" in line for line in conditions(tiny, {"ap": pa}).warnings)


@pytest.mark.parametrize(
    ("words", "view"),
    [("postero-anterior", "pa"), ("antero-posterior", "ap"), ("left lateral", "lateral"), ("oblique", None)],
)
def test_a_view_and_a_region_may_be_coded(tmp_path: Path, words: str, view: str | None) -> None:
    code, region = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "SCT", words
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "2", "SCT", "Chest"
    tags = {"ViewCodeSequence": [code], "AnatomicRegionSequence": [region]}
    xray = XRay.load(files.dicom(tmp_path / "a.dcm", SHOWN, **tags))
    assert (xray.view, xray.body_part) == (view, "CHEST")


def test_the_wrong_part_of_a_body_is_a_warning(tmp_path: Path) -> None:
    chest = Bundle.load("chest")
    for part, warned in (("FOOT", True), ("CHEST", False), ("LUNG", False), ("", False)):
        xray = XRay.load(files.dicom(tmp_path / "a.dcm", SHOWN, BodyPartExamined=part))
        ready = conditions(chest, {"ap": xray})
        assert any("shows FOOT; the model was trained on chest" in line for line in ready.warnings) == warned


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


# ---------------------------------------------------------------------------------------------- lies and bombs


def refused(path: Path, *words: str) -> None:
    refusals.refused(lambda: XRay.load(path), *words)


@pytest.mark.parametrize("syntax", [name for name in files.SYNTAXES if name != "RLE"])
def test_a_codestream_larger_than_its_header_says_is_not_decoded(tmp_path: Path, syntax: str) -> None:
    path = files.compressed(files.dicom(tmp_path / "a.dcm", SHOWN), files.SYNTAXES[syntax])
    dataset = pydicom.dcmread(path)
    dataset.Rows = 176
    dataset.save_as(path)
    refused(path, "compressed data: found 352 x 352 pixels, expected 352 x 176 as the header says")


@pytest.mark.parametrize("syntax", files.SYNTAXES)
def test_truncated_pixel_data_is_refused(tmp_path: Path, syntax: str) -> None:
    from pydicom.encaps import encapsulate, get_frame

    path = files.compressed(files.dicom(tmp_path / "a.dcm", SHOWN), files.SYNTAXES[syntax])
    dataset = pydicom.dcmread(path)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    for keep in (len(frame) - len(frame) // 10, len(frame) // 2, 30, 4):
        dataset.PixelData = encapsulate([frame[: keep - keep % 2]])
        dataset.save_as(path)
        refused(path, "pixel data")


@pytest.mark.parametrize("syntax", ["JPEG Lossless", "JPEG Lossless SV1"])
def test_a_frame_that_ends_early_within_is_refused(tmp_path: Path, syntax: str) -> None:
    """GDCM fills what is missing and only grumbles."""
    path = files.compressed(files.dicom(tmp_path / "a.dcm", SHOWN), files.SYNTAXES[syntax])
    content = bytearray(path.read_bytes())
    middle = len(content) - 20_000
    content[middle : middle + 2] = b"\xff\xd9"
    path.write_bytes(bytes(content))
    refused(path, "pixel data: found gdcm: Corrupt JPEG data")


def test_a_frame_that_gdcm_breaks_off_on_is_one_line_and_not_the_end_of_the_process() -> None:
    """A fuzzer's find: its libjpeg throws through C, which no Python catches."""
    refused(
        Path(__file__).parent / "data" / "gdcm_breaks_off.dcm",
        "pixel data: found gdcm: damaged data, on which it broke off",
    )


def test_headers_that_lie(tmp_path: Path) -> None:
    refused(files.dicom(tmp_path / "a.dcm", SHOWN, Rows=30000, Columns=30000), "size", "at most 100 million")
    refused(files.dicom(tmp_path / "b.dcm", SHOWN, Rows=353), "pixel data", "less than expected")
    refused(files.dicom(tmp_path / "c.dcm", SHOWN, NumberOfFrames=2**31 - 1), "2147483647 pictures")
    refused(files.dicom(tmp_path / "d.dcm", SHOWN, BitsStored=33), "BitsStored")
    refused(files.dicom(tmp_path / "e.dcm", SHOWN, HighBit=15), "HighBit")
    refused(files.dicom(tmp_path / "f.dcm", SHOWN, Modality="CT"), "a slice")
    refused(files.dicom(tmp_path / "g.dcm", SHOWN, Modality="SEG"), "Modality")
    path = files.dicom(tmp_path / "h.dcm", SHOWN)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"  # HTJ2K
    with pytest.raises(ValueError, match="encapsulat"):
        dataset.save_as(path)
    from pydicom.encaps import encapsulate

    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
    dataset.save_as(path)
    refused(path, "transfer syntax: found High-Throughput JPEG 2000", "expected uncompressed")


def test_a_deflated_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zlib

    from x2ct.xrays import dicompixels

    monkeypatch.setattr(dicompixels, "MAX_INFLATED_BYTES", 20 << 20)

    path = files.dicom(tmp_path / "a.dcm", SHOWN)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    dataset.save_as(path, enforce_file_format=True)
    head = path.read_bytes()
    meta_end = 132 + 12 + int.from_bytes(head[140:144], "little")
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    with path.open("wb") as stream:
        stream.write(head[:meta_end])
        for _ in range(30):
            stream.write(squeeze.compress(bytes(1 << 20)))
        stream.write(squeeze.flush())
    assert path.stat().st_size < 1 << 20
    refused(path, "size: found more than", "one radiograph")


# ---------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_camera_takes_no_xrays(tmp_path: Path, suffix: str) -> None:
    picture = Image.fromarray(files.display(TRUTH, 8).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 1
    exif.get_ifd(0x8769)[0x829D] = exif[0x8769] = {0x829D: 2.8}
    picture.save(tmp_path / f"a.{suffix}", exif=exif)
    refused(tmp_path / f"a.{suffix}", "EXIF: found a camera's f-number", "lost the X-ray's values")
    exif = Image.Exif()
    exif[0x0110] = "a film scanner"
    exif[0x0112] = 6
    picture.save(tmp_path / f"b.{suffix}", exif=exif)
    turned = XRay.load(tmp_path / f"b.{suffix}")
    upright = np.rot90(files.display(TRUTH, 8), -1).astype(float)
    assert np.abs(turned.image - upright).max() <= (40 if suffix == "jpg" else 0)
    assert any("Orientation tag" in note for note in turned.notes)


def test_a_grey_jpeg_is_read_and_a_colourful_one_is_not(tmp_path: Path) -> None:
    grey = Image.fromarray(files.display(TRUTH, 8).astype(np.uint8))
    for mode in ("L", "RGB"):
        grey.convert(mode).save(tmp_path / "a.jpg", quality=95)
        xray = XRay.load(tmp_path / "a.jpg", spacing=1.25)
        assert close(xray.to_detector(VIEW, P99)[0], P99 * TRUTH / np.percentile(TRUTH, 99), 0.06)
        assert any("JPEG stores 8 bits" in note for note in xray.notes)
    colours = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(np.kron(colours, np.ones((8, 8, 1), np.uint8))).save(tmp_path / "b.jpg")
    refused(tmp_path / "b.jpg", "colour", "photo")


def test_a_page_of_a_tiff(tmp_path: Path) -> None:
    import tifffile

    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in (SHOWN, SHOWN[::-1]):
            tiff.write(page, photometric="minisblack")
    refused(tmp_path / "a.tif", "pages: found 2 pictures", "--frame 1 to --frame 2")
    second = XRay.load(tmp_path / "a.tif", options=ReadOptions(frame=2))
    assert np.array_equal(second.image, SHOWN[::-1])
    np.save(tmp_path / "a.npy", TRUTH)
    with pytest.raises(InputError, match=r"--frame: found 2, expected 1"):
        XRay.load(tmp_path / "a.npy", options=ReadOptions(frame=2))
