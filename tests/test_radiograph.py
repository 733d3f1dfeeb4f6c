"""An X-ray means the same whatever file it comes in; a bad one is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image
from pydicom.dataset import Dataset

from tests.radiographs import CHEST, P99, VIEW, refused, save_dicom, some_picture
from x2ct.errors import InputError
from x2ct.io.xray.radiograph import XRay
from x2ct.io.xray.readers import MAX_PIXELS
from x2ct.io.xray.readoptions import ReadOptions

# ---------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tif", "npy"])
def test_integer_pictures_are_display_values(tmp_path: Path, kind: type, suffix: str) -> None:
    picture = some_picture(kind=kind)
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, picture)
    elif suffix == "tif":
        tifffile.imwrite(path, picture)
    else:
        Image.fromarray(picture).save(path)
    xray = XRay.load(path)
    assert not xray.calibrated
    assert xray.spacing_mm is None
    assert xray.image.dtype == np.float32
    assert np.array_equal(xray.image, picture)
    assert any("dense tissue was taken to be bright" in note for note in xray.notes)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_float_pictures_are_line_integrals(tmp_path: Path, kind: type, suffix: str) -> None:
    picture = np.random.default_rng(0).uniform(0, 8, (20, 30)).astype(kind)
    path = tmp_path / f"x.{suffix}"
    np.save(path, picture) if suffix == "npy" else tifffile.imwrite(path, picture)
    xray = XRay.load(path)
    assert xray.calibrated
    assert np.array_equal(xray.image, picture.astype(np.float32))


def test_what_a_file_is_its_bytes_say(tmp_path: Path) -> None:
    Image.fromarray(some_picture()).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x")
    assert XRay.load(tmp_path / "x").image.shape == (160, 140)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_of_one_slice_is_the_picture_that_itk_wrote(tmp_path: Path, suffix: str) -> None:
    picture = some_picture(kind=np.uint16)
    image = sitk.GetImageFromArray(picture[None])  # as nnU-Net does: (1, rows, columns)
    image.SetSpacing((0.5, 0.7, 999.0))
    sitk.WriteImage(image, str(tmp_path / f"x{suffix}"))
    xray = XRay.load(tmp_path / f"x{suffix}")
    assert np.array_equal(xray.image, picture) and not xray.calibrated
    assert xray.spacing_mm == pytest.approx((0.7, 0.5))
    assert any("the first axis was taken as the columns" in note for note in xray.notes)


@pytest.mark.parametrize(("across", "axcodes"), [(0, "RAS"), (0, "LPI"), (1, "RAS"), (1, "LPI"), (1, "SRA")])
def test_a_nifti_that_lies_in_the_patient_is_set_upright(tmp_path: Path, across: int, axcodes: str) -> None:
    """Row 0 at the head, column 0 at the patient's right (front, in a lateral), whatever the file's own order."""
    picture = np.random.default_rng(0).uniform(0, 8, (20, 30)).astype(np.float32)
    volume = np.expand_dims(picture[::-1, ::-1].T, 1 - across)  # x to the right or y to the front; z to the head
    image = nib.Nifti1Image(volume, np.diag([2.0, 2.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm")
    wanted = nib.orientations.axcodes2ornt(axcodes)
    nib.save(
        image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)),
        tmp_path / "x.nii",
    )
    xray = XRay.load(tmp_path / "x.nii")
    assert np.array_equal(xray.image, picture) and xray.calibrated
    assert xray.spacing_mm == pytest.approx((3.0, 2.0))


def test_a_nifti_without_a_unit_has_no_spacing_and_scaled_integers_are_display_values(tmp_path: Path) -> None:
    picture = some_picture(kind=np.int16)
    image = nib.Nifti1Image(picture.T, np.eye(4))
    image.header.set_xyzt_units(0)
    image.header.set_slope_inter(2.0, 5.0)
    nib.save(image, tmp_path / "x.nii.gz")
    xray = XRay.load(tmp_path / "x.nii.gz")
    assert not xray.calibrated and xray.spacing_mm is None
    assert any("states no unit of length" in note for note in xray.notes)


def test_a_nifti_that_is_no_single_picture_or_damaged_is_refused(tmp_path: Path) -> None:
    for shape in ((20, 30, 4), (20, 30, 1, 2), (20, 1, 1)):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), tmp_path / "x.nii")
        refused(tmp_path / "x.nii", "expected one slice")
    colour = np.zeros((20, 30), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "x.nii")
    refused(tmp_path / "x.nii", "data type")
    nib.save(nib.Nifti1Image(some_picture(kind=np.uint16).T, np.eye(4)), tmp_path / "y.nii.gz")
    whole = (tmp_path / "y.nii.gz").read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:40], whole[:-8] + bytes(8), b"no file at all"):
        (tmp_path / "y.nii.gz").write_bytes(broken)
        refused(tmp_path / "y.nii.gz", "what can't be read")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_stored_as_colour_is_fine(tmp_path: Path, mode: str) -> None:
    picture = some_picture(kind=np.uint8)
    Image.fromarray(picture).convert(mode).save(tmp_path / "x.png")
    assert np.array_equal(XRay.load(tmp_path / "x.png").image, picture)


def test_tiff_whose_white_is_zero_is_inverted(tmp_path: Path) -> None:
    picture = some_picture()
    picture = picture.max() - picture
    tifffile.imwrite(tmp_path / "x.tif", picture, photometric="miniswhite")
    assert np.array_equal(XRay.load(tmp_path / "x.tif").image, picture.max() - picture.astype(np.float32))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    picture = some_picture()
    Image.fromarray(picture).save(tmp_path / "x.tif", compression=compression)
    assert np.array_equal(XRay.load(tmp_path / "x.tif").image, picture)


def test_tiff_with_separate_planes(tmp_path: Path) -> None:
    picture = some_picture()
    tifffile.imwrite(tmp_path / "x.tif", np.stack([picture] * 3), photometric="rgb", planarconfig="separate")
    assert np.array_equal(XRay.load(tmp_path / "x.tif").image, picture)


def test_given_spacing_wins() -> None:
    assert XRay.load(CHEST, spacing=0.9).spacing_mm == (0.9, 0.9)
    assert XRay.load(CHEST, spacing=(0.9, 0.8)).spacing_mm == (0.9, 0.8)
    for bad in (0.0, -1.0, float("nan"), 500.0, (1.0, 2.0, 3.0), ("a", "b"), ReadOptions(rotate=90)):
        with pytest.raises(InputError, match="pixel spacing"):
            XRay.load(CHEST, spacing=bad)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- DICOM


def test_the_real_radiograph() -> None:
    xray = XRay.load(CHEST)
    stored = pydicom.dcmread(CHEST).pixel_array.astype(np.float32)
    assert xray.view == "pa"
    assert not xray.calibrated
    assert xray.spacing_mm is None
    assert any("PixelSpacing is 0 x 0 mm" in note for note in xray.notes)
    assert np.array_equal(xray.image, stored.max() - stored)  # MONOCHROME1, and the patient's right is at column 0
    image, notes = xray.to_detector(VIEW, P99)
    assert image.shape == VIEW.shape
    assert np.isfinite(image).all()
    assert image.min() >= 0
    middle = image[170:180, 165:185].mean()  # heart and spine
    lung = np.percentile(image[110:180, 230:260], 20)
    assert 4.0 < middle < 7.0
    assert lung < 0.75 * middle
    assert image[:12].max() == 0  # the shutter at the top is air
    assert image[22:30, 25:35].mean() < 1.0  # beside the neck
    assert any("430 mm" in note for note in notes)
    assert any("Shutters" in note for note in notes)
    assert not any("CompressedSamples" in note or "9RG1" in note for note in notes)


def test_monochrome2_of_inverted_values_is_the_same(tmp_path: Path) -> None:
    def invert(dataset: Dataset) -> None:
        stored = dataset.pixel_array
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.PixelData = (stored.max() - stored).astype("<u2").tobytes()

    assert np.array_equal(XRay.load(save_dicom(tmp_path / "x.dcm", invert)).image, XRay.load(CHEST).image)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("name", ["x.dcm", "x"])
def test_a_file_without_a_preamble_is_the_same(tmp_path: Path, syntax: str, meta: bool, name: str) -> None:
    """As scanners write it that know nothing of PS3.10: from the file meta information on, or from the dataset on."""
    dataset = pydicom.dcmread(CHEST)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "whole.dcm", enforce_file_format=True)
    content = (tmp_path / "whole.dcm").read_bytes()[132:]
    length = 12 + int.from_bytes(content[8:12], "little")
    (tmp_path / name).write_bytes(content if meta else content[length:])
    bare = XRay.load(tmp_path / name)
    assert np.array_equal(bare.image, XRay.load(CHEST).image)
    assert bare.facts() | {"kind": ""} == XRay.load(CHEST).facts() | {"kind": ""}
    (tmp_path / name).write_bytes((content if meta else content[length:])[:3000])
    refused(tmp_path / name, "pixel data")


def test_a_big_endian_file_without_a_preamble_is_the_same(tmp_path: Path) -> None:
    whole, bare = pydicom.dcmread(CHEST), Dataset()
    bare.update({element.tag: element for element in whole})
    bare.PixelData = whole.pixel_array.astype(">u2").tobytes()
    pydicom.dcmwrite(tmp_path / "x.dcm", bare, implicit_vr=False, little_endian=False)
    assert (tmp_path / "x.dcm").read_bytes()[:2] == b"\0\x08"
    assert np.array_equal(XRay.load(tmp_path / "x.dcm").image, XRay.load(CHEST).image)


def test_what_is_no_dataset_is_none_by_its_name(tmp_path: Path) -> None:
    """pydicom's no_meta.dcm has a stray byte before its dataset: forced, it is read as one unknown element."""
    content = pydicom.dcmread(CHEST).SOPInstanceUID.encode()
    (tmp_path / "x.dcm").write_bytes(b"\x20\x08\0\x05\0CS" + content)
    refused(tmp_path / "x.dcm", "no DICOM file")


def test_windows_change_nothing_and_rescale_does(tmp_path: Path) -> None:
    def window(dataset: Dataset) -> None:
        dataset.WindowCenter, dataset.WindowWidth = 3, 2

    def rescale(dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 2, 100, "US"

    plain = XRay.load(CHEST).image
    assert np.array_equal(XRay.load(save_dicom(tmp_path / "w.dcm", window)).image, plain)
    assert np.array_equal(XRay.load(save_dicom(tmp_path / "r.dcm", rescale)).image, 2 * plain)


def test_linear_values_get_their_log(tmp_path: Path) -> None:
    truth = np.linspace(0, 6, 488 * 460).reshape(488, 460)

    def linear(dataset: Dataset) -> None:
        dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LIN", 1
        dataset.PhotometricInterpretation, dataset.BitsStored, dataset.HighBit = "MONOCHROME1", 16, 15
        dataset.PixelData = np.rint(60000 * np.exp(-truth)).astype("<u2").tobytes()

    xray = XRay.load(save_dicom(tmp_path / "x.dcm", linear))
    np.testing.assert_allclose(xray.image - xray.image[0, 0], truth, atol=0.02)
    assert any("their log was taken" in note for note in xray.notes)


@pytest.mark.parametrize(
    ("given", "turn"),
    [
        (["L", "F"], lambda a: a),
        (["R", "F"], lambda a: a[:, ::-1]),
        (["L", "H"], lambda a: a[::-1]),
        (["P", "F"], lambda a: a),
        (["A", "F"], lambda a: a[:, ::-1]),
        (["F", "L"], lambda a: a.T),
        (["F", "R"], lambda a: a.T[:, ::-1]),
    ],
)
def test_pictures_are_set_upright(tmp_path: Path, given: list[str], turn: Callable[[np.ndarray], np.ndarray]) -> None:
    def lie(dataset: Dataset) -> None:
        dataset.PatientOrientation = given
        dataset.PixelSpacing = [0.8, 0.9]

    xray = XRay.load(save_dicom(tmp_path / "x.dcm", lie))
    assert np.array_equal(xray.image, turn(XRay.load(CHEST).image))
    assert xray.spacing_mm == ((0.9, 0.8) if given[0] == "F" else (0.8, 0.9))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PixelSpacing": [0.8, 0.9]}, (0.8, 0.9)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.7, 0.7]}, (0.7, 0.7)),
        ({"PixelSpacing": [100, 100]}, None),
        ({"PixelSpacing": [0.03, 0.03]}, None),  # a chest of 14 mm
        ({"PixelSpacing": None}, None),
    ],
)
def test_only_a_possible_spacing_is_used(
    tmp_path: Path, tags: dict[str, object], expected: tuple[float, float] | None
) -> None:
    def set_tags(dataset: Dataset) -> None:
        for name, value in tags.items():
            setattr(dataset, name, value)

    assert XRay.load(save_dicom(tmp_path / "x.dcm", set_tags)).spacing_mm == expected


def test_padding_is_air(tmp_path: Path) -> None:
    def pad(dataset: Dataset) -> None:
        pixels = dataset.pixel_array.copy()
        pixels[:50] = 0  # MONOCHROME1: would be the densest
        dataset.add_new("PixelPaddingValue", "US", 0)
        dataset.PixelData = pixels.tobytes()

    assert XRay.load(save_dicom(tmp_path / "x.dcm", pad)).image[:50].max() == 0


def test_dicom_that_is_no_radiograph(tmp_path: Path) -> None:
    def setting(**tags: object) -> Callable[[Dataset], None]:
        return lambda dataset: [setattr(dataset, name, value) for name, value in tags.items()] and None

    def cut(dataset: Dataset) -> None:
        dataset.PixelData = dataset.PixelData[:1000]

    def headless(dataset: Dataset) -> None:
        del dataset.PixelData

    (tmp_path / "text.dcm").write_text("This is a letter to the referring physician.\n" * 20)
    refused(tmp_path / "text.dcm", "no DICOM file")
    refused(save_dicom(tmp_path / "ct.dcm", setting(Modality="CT")), "Modality", "a slice")
    refused(save_dicom(tmp_path / "frames.dcm", setting(NumberOfFrames=12)), "NumberOfFrames", "12")
    refused(save_dicom(tmp_path / "cut.dcm", cut), "pixel data")
    refused(save_dicom(tmp_path / "none.dcm", headless), "pixel data")
    refused(save_dicom(tmp_path / "huge.dcm", setting(Rows=60000, Columns=60000)), "size", "60000 x 60000")
    (tmp_path / "truncated.dcm").write_bytes(CHEST.read_bytes()[:100_000])
    refused(tmp_path / "truncated.dcm", "pixel data")


@pytest.mark.parametrize("suffix", ["png", "tif", "npy", "dcm"])
def test_flipped_bytes_are_read_or_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "dcm":
        save_dicom(path)
    elif suffix == "npy":
        np.save(path, some_picture() / 1000)
    elif suffix == "tif":
        tifffile.imwrite(path, some_picture(), compression="zlib")
    else:
        Image.fromarray(some_picture()).save(path)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[random.integers(min(len(whole), 1500))] = random.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            XRay.load(path)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


# ---------------------------------------------------------------------------------------------- bad pictures


@pytest.mark.parametrize("shape", [(127, 400), (400, 127), (16, 16)])
def test_a_thumbnail_is_no_radiograph(tmp_path: Path, shape: tuple[int, int]) -> None:
    np.save(tmp_path / "x.npy", some_picture(*shape))
    refused(tmp_path / "x.npy", f"size: found {shape[1]} x {shape[0]} pixels", "128 or more", "thumbnail")
    np.save(tmp_path / "x.npy", some_picture(*shape) / 1000)
    assert XRay.load(tmp_path / "x.npy").calibrated  # a detector of any size may have been simulated


def test_a_pixel_of_more_than_5_mm_is_no_radiographs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", some_picture())
    XRay.load(tmp_path / "x.npy", spacing=5.0)
    with pytest.raises(InputError, match=r"pixel spacing in mm: found 5\.01 x 5\.01, expected at most 5"):
        XRay.load(tmp_path / "x.npy", spacing=5.01)


def test_no_file_a_folder_an_empty_file_and_other_kinds(tmp_path: Path) -> None:
    refused(tmp_path / "none.png", "no such file")
    refused(tmp_path, "a folder")
    for name in ("empty.png", "empty.dcm", "empty.npy"):
        (tmp_path / name).touch()
        refused(tmp_path / name, "empty file")
    (tmp_path / "text.png").write_text("not a picture")
    refused(tmp_path / "text.png", "another kind of file")
    Image.fromarray(some_picture(kind=np.uint8)).save(tmp_path / "x.gif")
    refused(tmp_path / "x.gif", "another kind of file", "JPEG")


def test_damaged_pictures(tmp_path: Path) -> None:
    Image.fromarray(some_picture(400, 300)).save(tmp_path / "x.png")
    tifffile.imwrite(tmp_path / "x.tif", some_picture(400, 300), rowsperstrip=40)
    np.save(tmp_path / "x.npy", some_picture(400, 300))
    for name in ("x.png", "x.tif", "x.npy"):
        whole = (tmp_path / name).read_bytes()
        for length in (20, len(whole) // 2, len(whole) - 200):
            (tmp_path / name).write_bytes(whole[:length])
            refused(tmp_path / name, "can't be read")


def test_colour_is_refused(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    tifffile.imwrite(tmp_path / "photo.tif", photo, photometric="rgb")
    refused(tmp_path / "photo.png", "colour", "photo")
    refused(tmp_path / "photo.tif", "colour")


def test_transparency_animation_and_bits_are_refused(tmp_path: Path) -> None:
    picture = Image.fromarray(some_picture(kind=np.uint8))
    see_through = picture.convert("LA")
    see_through.putalpha(128)
    see_through.save(tmp_path / "a.png")
    refused(tmp_path / "a.png", "transparency")
    picture.save(tmp_path / "b.png", save_all=True, append_images=[picture.transpose(Image.Transpose.ROTATE_180)])
    refused(tmp_path / "b.png", "animation")
    picture.convert("1").save(tmp_path / "c.png")
    refused(tmp_path / "c.png", "mode")
    tifffile.imwrite(tmp_path / "d.tif", np.stack([some_picture()] * 3), photometric="minisblack")
    refused(tmp_path / "d.tif", "pages")


def test_values_that_are_no_xray(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "black.png")
    refused(tmp_path / "black.png", "0 everywhere")
    line = np.random.default_rng(0).uniform(0, 5, (20, 20))
    for name, value, words in (
        ("nan", np.nan, "1 pixels NaN"),
        ("inf", np.inf, "infinite"),
        ("raw", 4095, "line integ"),
    ):
        line[3, 4] = value
        np.save(tmp_path / f"{name}.npy", line)
        refused(tmp_path / f"{name}.npy", words)


def test_arrays_that_are_no_picture(tmp_path: Path) -> None:
    np.save(tmp_path / "3d.npy", np.zeros((3, 20, 20)))
    refused(tmp_path / "3d.npy", "3 axes")
    np.save(tmp_path / "object.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    refused(tmp_path / "object.npy", "objects")
    np.save(tmp_path / "complex.npy", np.zeros((20, 20), complex))
    refused(tmp_path / "complex.npy", "data type")
    np.save(tmp_path / "bool.npy", np.zeros((20, 20), bool))
    refused(tmp_path / "bool.npy", "data type")
    np.save(tmp_path / "small.npy", np.zeros((3, 20)))
    refused(tmp_path / "small.npy", "size")


def test_size_is_judged_by_the_header_alone(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    for side in (10_001, 60_000):  # past our limit, and past Pillow's own
        assert side * side > MAX_PIXELS
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0")))
        refused(tmp_path / "bomb.png", "size", "100 million")
    with (tmp_path / "bomb.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (100_000, 100_000)}
        )
        stream.truncate(128 + 4 * 100_000**2)
    refused(tmp_path / "bomb.npy", "size", "100000 x 100000")
