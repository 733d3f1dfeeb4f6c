"""What is no X-ray, or says other than it is, is refused before it is believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from benchmarks import input_files as files
from tests import refusals
from tests.xray_files import P99, SHOWN, TRUTH, VIEW, close
from x2ct.errors import InputError
from x2ct.io.xray.radiograph import ReadOptions, XRay

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

    from x2ct.io.xray import dicomxray

    monkeypatch.setattr(dicomxray, "MAX_INFLATED_BYTES", 20 << 20)

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
