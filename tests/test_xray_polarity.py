"""Which side of a picture is dense: tags that count for display, the picture itself, the user; else a refusal."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from benchmarks import input_files as files
from tests import refusals
from tests.commandline import run
from tests.radiographs import CHEST
from tests.xray_files import P99, SHOWN, TRUTH, VIEW, close, on_detector
from x2ct.geometry import Geometry, View
from x2ct.io.xray import exposure
from x2ct.io.xray.exposure import DECIDES, contrast
from x2ct.io.xray.radiograph import ReadOptions, XRay
from x2ct.io.xray.readers import read
from x2ct.render import drr

LATERAL = np.load(files.DEMO / "lateral.npy").astype(np.float32)
NEGATIVE = SHOWN.max() - SHOWN
FLAT = np.random.default_rng(0).integers(0, 4096, SHOWN.shape).astype(np.uint16)
"""No structure: a picture that settles nothing."""
FOR_DISPLAY: list[dict[str, Any]] = [
    {"PresentationIntentType": "FOR PRESENTATION"},
    {"PresentationIntentType": "FOR PRESENTATION", "PixelIntensityRelationship": "LOG"},
    {"Modality": "CR"},
    {"PixelIntensityRelationship": "DISP"},
]


def refused(path: Path, *words: str, options: ReadOptions | None = None) -> None:
    refusals.refused(lambda: XRay.load(path, options=options), str(path), *words)


def right(path: Path, **options: Any) -> bool:
    return close(on_detector(path, **options), P99 * TRUTH / np.percentile(TRUTH, 99), 5e-3)


# ---------------------------------------------------------------------------------------------- what tags say


@pytest.mark.parametrize("tags", FOR_DISPLAY, ids=str)
@pytest.mark.parametrize("sign", [1, -1, None])
def test_for_display_the_photometric_interpretation_counts_and_a_sign_does_not(
    tmp_path: Path, tags: dict[str, Any], sign: int | None
) -> None:
    said = tags if sign is None else tags | {"PixelIntensityRelationshipSign": sign}
    for stored, photometric in ((SHOWN, "MONOCHROME2"), (NEGATIVE, "MONOCHROME1")):
        path = files.dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation=photometric, **said)
        assert right(path)
        assert XRay.load(path).warnings == ()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_for_processing_the_sign_counts_and_the_photometric_interpretation_does_not(
    tmp_path: Path, photometric: str
) -> None:
    raw = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LOG"}
    for sign, stored in ((1, NEGATIVE), (-1, SHOWN)):
        path = files.dicom(
            tmp_path / "a.dcm",
            stored,
            PixelIntensityRelationshipSign=sign,
            PhotometricInterpretation=photometric,
            **raw,
        )
        assert right(path)


def test_where_tags_contradict_each_other_the_picture_decides(tmp_path: Path) -> None:
    against = {"PixelIntensityRelationshipSign": 1, "PhotometricInterpretation": "MONOCHROME2"}
    shown, negative, flat = (
        files.dicom(tmp_path / f"{name}.dcm", stored, **against)
        for name, stored in (("shown", SHOWN), ("negative", NEGATIVE), ("flat", FLAT))
    )
    assert right(shown)
    assert XRay.load(shown).warnings == ()
    assert right(negative)
    assert "it was inverted" in XRay.load(negative).warnings[0]
    refused(flat, "polarity: found tags that contradict each other", "--invert no", "--invert yes")


@pytest.mark.parametrize(
    ("stored", "tags"),
    [
        (NEGATIVE, {}),
        (SHOWN, {"PhotometricInterpretation": "MONOCHROME1"}),
        (NEGATIVE, {"PixelIntensityRelationshipSign": -1}),
        (files.intensity(TRUTH, 12), {"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": -1}),
        (SHOWN, {"PixelIntensityRelationship": "LIN"}),
    ],
)
def test_a_picture_that_contradicts_all_of_its_tags_is_refused(
    tmp_path: Path, stored: np.ndarray, tags: dict[str, Any]
) -> None:
    refused(files.dicom(tmp_path / "a.dcm", stored, **tags), "polarity: found a picture that looks like a negative")


def test_a_picture_that_settles_nothing_leaves_it_to_tags_that_agree(tmp_path: Path) -> None:
    two = XRay.load(files.dicom(tmp_path / "2.dcm", FLAT)).image
    one = XRay.load(files.dicom(tmp_path / "1.dcm", FLAT, PhotometricInterpretation="MONOCHROME1")).image
    assert np.array_equal(two, FLAT)
    assert np.array_equal(one, FLAT.max() - two)


def test_fluoroscopy_keeps_its_sign_or_its_custom_and_is_doubted(tmp_path: Path) -> None:
    """Its fields may be round with black around them: a picture of it can tell that it is odd, and no more."""
    dark = files.dicom(tmp_path / "dark.dcm", NEGATIVE, Modality="XA")
    assert right(dark)
    assert not XRay.load(dark).warnings
    for tags in ({}, {"PixelIntensityRelationshipSign": 1}):
        bright = files.dicom(tmp_path / "bright.dcm", SHOWN, Modality="XA", **tags)
        assert np.array_equal(XRay.load(bright).image, SHOWN.max() - SHOWN.astype(np.float32))
        assert "--invert no" in XRay.load(bright).warnings[0]
        assert right(bright, invert=False)


# ---------------------------------------------------------------------------------------------- without tags


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "npy", "miniswhite"])
def test_without_tags_the_picture_decides(tmp_path: Path, kind: str) -> None:
    grey = files.display(TRUTH, 8).astype(np.uint8)

    def write(name: str, values: np.ndarray) -> Path:
        path = tmp_path / f"{name}.{'tif' if kind == 'miniswhite' else kind}"
        if kind == "npy":
            np.save(path, values)
        elif kind in ("png", "jpg"):
            Image.fromarray(values).save(path)
        else:
            tifffile.imwrite(path, values, photometric="miniswhite" if kind == "miniswhite" else "minisblack")
        return path

    shown, negative = write("shown", grey), write("negative", 255 - grey)
    if kind == "miniswhite":
        shown, negative = negative, shown
    expected = P99 * TRUTH / np.percentile(TRUTH, 99)
    for path in (shown, negative):
        assert close(on_detector(path), expected, 0.06)
    assert not XRay.load(shown).warnings
    assert any("dense tissue was taken to be bright" in note for note in XRay.load(shown).notes)
    assert "looks like a negative" in XRay.load(negative).warnings[0]
    assert not any("taken to be bright" in note for note in XRay.load(negative).notes)
    refused(write("flat", (FLAT // 16).astype(np.uint8)), "polarity: found no tag that tells it", "--invert")


def test_a_png_of_x2ct_itself_says_which_side_is_dense(tmp_path: Path) -> None:
    """A leg, a phantom, whatever was projected: `x2ct drr` knows."""
    view = View.parallel("ap", shape=SHOWN.shape)
    drr.save(tmp_path / "x", {"ap": FLAT.astype(np.float32)}, Geometry((view,)))
    xray = XRay.load(tmp_path / "x" / "ap.png")
    assert np.corrcoef(xray.image.ravel(), FLAT.ravel())[0, 1] > 0.99
    assert not xray.warnings


# ---------------------------------------------------------------------------------------------- the user


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("stored", [SHOWN, NEGATIVE, FLAT], ids=["shown", "negative", "flat"])
@pytest.mark.parametrize("tags", [{}, {"Modality": "XA"}, {"PixelIntensityRelationshipSign": 1}], ids=str)
def test_what_the_user_says_of_what_viewers_show_goes_before_all(
    tmp_path: Path, photometric: str, stored: np.ndarray, tags: dict[str, Any]
) -> None:
    path = files.dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation=photometric, **tags)
    for invert in (False, True):
        upside_down = (photometric == "MONOCHROME1") != invert
        expected = stored.max() - stored.astype(np.float32) if upside_down else stored
        assert np.array_equal(XRay.load(path, options=ReadOptions(invert=invert)).image, expected)


def test_linear_values_that_are_called_the_wrong_way_round_can_be_set_right(tmp_path: Path) -> None:
    tags = {"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": -1}
    path = files.dicom(tmp_path / "a.dcm", files.intensity(TRUTH), 16, **tags)
    assert close(on_detector(path, invert=True), P99 * TRUTH / np.percentile(TRUTH, 99), 0.02)


def test_line_integrals_are_not_inverted(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", TRUTH)
    refused(tmp_path / "a.npy", "--invert: found line integrals", "--values display", options=ReadOptions(invert=True))


def test_the_command_line_says_it_of_each_view(tmp_path: Path, tiny_path: Path) -> None:
    Image.fromarray((FLAT // 16).astype(np.uint8)).save(tmp_path / "a.png")
    said = ["xray", tmp_path / "a.png", "-m", tiny_path, "--view", "ap", "-o", tmp_path / "x.npy", "-q"]
    assert run(*said).exit_code == 2
    made = []
    for word in ("no", "yes"):
        assert run(*said, "--invert", f"ap={word}").exit_code == 0
        made.append(np.load(tmp_path / "x.npy"))
    assert np.corrcoef(*(image[20:-20, 20:-20].ravel() for image in made))[0, 1] < -0.9
    assert "expected yes or no" in run(*said, "--invert", "maybe").stderr


# ---------------------------------------------------------------------------------------------- the picture

PICTURES = {"frontal": TRUTH, "lateral": LATERAL}


@pytest.mark.parametrize("name", PICTURES)
def test_a_chest_tells_its_polarity_whatever_its_tone_curve(name: str) -> None:
    picture = PICTURES[name]
    plain = contrast(picture)
    assert plain > DECIDES
    assert contrast(picture.max() - picture) == pytest.approx(-plain, abs=1e-6)
    for curve in (np.sqrt, np.square, np.exp):
        curved = curve(picture / picture.max()).astype(np.float32)
        assert contrast(curved) == pytest.approx(plain, abs=0.15)
        assert contrast(curved.max() - curved) == pytest.approx(-contrast(curved), abs=1e-6)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("edges", list(product((0, 40), repeat=3)))
def test_shutters_tell_nothing(name: str, edges: tuple[int, int, int]) -> None:
    """A blade is dense, and on a display often black: neither may turn a picture over."""
    top, left, right_edge = edges
    for level in (PICTURES[name].max() * 1.2, 0.0):
        picture = PICTURES[name].copy()
        picture[:top] = picture[:, :left] = level
        picture[:, picture.shape[1] - right_edge :] = level
        assert contrast(picture) > 0
        assert contrast(picture.max() - picture) < 0


def test_a_picture_without_structure_tells_nothing() -> None:
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=(300, 260)).astype(np.float32)
        assert abs(contrast(noise)) < DECIDES / 2
    assert contrast(np.eye(200, dtype=np.float32)) == pytest.approx(0, abs=0.1)


def test_the_real_radiograph_with_every_tag_is_right_or_refused(tmp_path: Path) -> None:
    truth = XRay.load(CHEST).to_detector(VIEW, P99)[0]
    stored = pydicom.dcmread(CHEST).pixel_array
    assert contrast(exposure.upright(read(CHEST, None)).image) < -DECIDES  # MONOCHROME1
    seen = set()
    for flipped, photometric, sign in product((False, True), ("MONOCHROME1", "MONOCHROME2"), (1, -1, None)):
        dataset = pydicom.dcmread(CHEST)
        dataset.PixelData = (stored.max() - stored if flipped else stored).astype("<u2").tobytes()
        dataset.PhotometricInterpretation = photometric
        if sign is not None:
            dataset.PixelIntensityRelationshipSign = sign
        dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        agree = (photometric == "MONOCHROME2") == flipped
        if agree or (sign is not None and (sign == -1) == flipped):
            assert close(XRay.load(tmp_path / "a.dcm").to_detector(VIEW, P99)[0], truth)
            seen.add("right")
        else:
            refused(tmp_path / "a.dcm", "polarity")
            seen.add("refused")
    assert seen == {"right", "refused"}


# ---------------------------------------------------------------------------------------------- what floats are


def test_floats_of_another_size_than_line_integrals_are_refused_with_both_reasons(tmp_path: Path) -> None:
    p99 = float(np.percentile(TRUTH, 99))
    for name in ("a.npy", "a.tif"):
        for factor, good in ((1.0, True), (2.9 * P99 / p99, True), (3.1 * P99 / p99, False), (0.3 * P99 / p99, False)):
            image = (factor * TRUTH).astype(np.float32)
            np.save(tmp_path / name, image) if name == "a.npy" else tifffile.imwrite(tmp_path / name, image)
            if good:
                assert np.array_equal(on_detector(tmp_path / name), image)
                continue
            words = ("values: found a 99th percentile of", "factor of 3 of 5", "--values display", "--values integrals")
            refusals.refused(lambda: on_detector(tmp_path / name), *words)  # noqa: B023 - called at once
            assert np.array_equal(on_detector(tmp_path / name, values="integrals"), image)


def test_display_values_are_the_same_however_they_are_scaled(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", SHOWN)
    np.save(tmp_path / "float.npy", (SHOWN / 4095).astype(np.float32))
    np.save(tmp_path / "large.npy", SHOWN.astype(np.float64))
    for name in ("float.npy", "large.npy"):
        assert close(on_detector(tmp_path / name, values="display"), on_detector(tmp_path / "whole.npy"))
        assert not XRay.load(tmp_path / name, options=ReadOptions(values="display")).calibrated
    np.save(tmp_path / "dark.npy", 1 - (SHOWN / 4095).astype(np.float32))
    assert right(tmp_path / "dark.npy", values="display")
    np.save(tmp_path / "coarse.npy", np.rint(TRUTH).astype(np.uint8))
    assert np.array_equal(on_detector(tmp_path / "coarse.npy", values="integrals"), np.rint(TRUTH))


def test_a_dicom_file_says_itself_what_its_values_are(tmp_path: Path) -> None:
    refused(files.dicom(tmp_path / "a.dcm", SHOWN), "--values: found a DICOM", options=ReadOptions(values="display"))
    refusals.refused(lambda: ReadOptions(values="raw"), "--values: word: found 'raw', expected display or integrals")
