"""Where a DICOM radiograph's pixels lie, each as a law: however a picture lies in its file, it is the same X-ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydicom.dataset import Dataset

from benchmarks import input_files as files
from tests.xray_files import SHOWN, TRUTH, on_detector, says
from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.engine.conditioning import study_of
from x2ct.errors import InputError
from x2ct.geometry import Geometry, View
from x2ct.io.xray import exposure
from x2ct.io.xray.radiograph import ReadOptions, XRay
from x2ct.io.xray.readoptions import TURNS

# ---------------------------------------------------------------------------------------------- how it lies


def lying(path: Path, turn: int, frontal: bool = True) -> Path:
    """A DICOM file of an upright picture after a turn: PatientOrientation says along a row, then down a column."""
    order = TURNS[turn]
    right, foot = ("L" if frontal else "P"), "F"
    opposite = {"L": "R", "P": "A", "F": "H"}
    along, below = (foot, right) if turn > 4 else (right, foot)
    orientation = [along if order[1] == 1 else opposite[along], below if order[0] == 1 else opposite[below]]
    picture = (SHOWN[:200].T if turn > 4 else SHOWN[:200])[:: order[0], :: order[1]]
    spacing = [0.9, 0.8] if turn > 4 else [0.8, 0.9]
    return files.dicom(path, np.ascontiguousarray(picture), PatientOrientation=orientation, PixelSpacing=spacing)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("frontal", [True, False])
def test_however_it_lies_it_is_set_upright(tmp_path: Path, turn: int, frontal: bool) -> None:
    xray = XRay.load(lying(tmp_path / "a.dcm", turn, frontal))
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
        xray = XRay.load(lying(tmp_path / "a.dcm", turn), options=ReadOptions(rotate=rotate, flip=flip))
        assert np.array_equal(xray.image, expected)
        assert xray.spacing_mm == ((0.9, 0.8) if rotate in (90, 270) else (0.8, 0.9))


def test_a_turn_is_what_its_number_means_as_exif_orientation() -> None:
    picture = SHOWN[:200].astype(np.float32)
    for code in TURNS:
        image = Image.fromarray(picture)
        image.getexif()[0x0112] = code
        turned = exposure.upright(XRay(picture, calibrated=True, turns=(code,))).image
        assert np.array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))


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
    ready = study_of(tiny, {name: xray})
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


def test_an_xray_is_resampled_onto_the_encoders_picture_once_and_stays_as_it_is(tiny: Bundle) -> None:
    """What is judged is what the pipeline reads, although the core brings every X-ray onto the picture."""
    view = View.cone("ap", sod_mm=SOD, sdd_mm=SDD, shape=(300, 300), spacing_mm=(PITCH, PITCH))
    study = study_of(tiny, {"ap": XRay.of(a_ball(view))}, Geometry((view,)))
    matrices = [own.matrix for own in tiny.geometry.views]
    views, _, again, _ = _core.conditions(matrices, tiny.xray.shape, tiny.xray.spacing_mm, study.images)
    assert study.images[0].image.shape == tuple(tiny.xray.shape)
    assert np.array_equal(views, study.views) and views.any()
    assert np.array_equal(again, study.matrices)


def test_distances_by_hand_are_those_of_the_file(tmp_path: Path, tiny: Bundle) -> None:
    view = View.cone("ap", sod_mm=SOD, sdd_mm=SDD, shape=(300, 300), spacing_mm=(PITCH, PITCH))
    Image.fromarray(files.display(a_ball(view), 16)).save(tmp_path / "a.png")
    xray = XRay.load(tmp_path / "a.png", options=ReadOptions(PITCH, sod=SOD, sdd=SDD))
    assert width_mm(tiny, xray) == pytest.approx(BALL_MM, rel=0.02)
    ready = study_of(tiny, {"ap": xray})
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
    ready = study_of(tiny, {name: xray})
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
        study_of(tiny, {"ap": lateral})
    assert study_of(tiny, {"lateral": lateral}).valid.tolist() == [[0.0, 1.0]]
    pa = XRay.load(files.dicom(tmp_path / "b.dcm", SHOWN, ViewPosition="PA"))
    assert any("calls itself pa" in line for line in study_of(tiny, {"ap": pa}).warnings)


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
        warnings = study_of(chest, {"ap": xray}).warnings
        assert any(line == "ap: the file shows FOOT; the model is for the chest" for line in warnings) == warned
