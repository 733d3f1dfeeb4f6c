"""A DICOM series written slice by slice comes back whole, in order and in place; anything ambiguous is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks import input_files as files
from tests import refusals
from x2ct.errors import InputError
from x2ct.io.ct.volume import Volume

SHAPE = (10, 8, 6)  # columns, rows, slices
SPACING = (1.5, 2.0, 3.0)  # between columns, rows, slices
ORIGIN_LPS = (-30.0, 12.5, -100.0)
Change = Callable[[Dataset, int], None]


def hu() -> np.ndarray:
    return np.random.default_rng(3).integers(-1000, 2000, SHAPE).astype(np.float32)


def write_series(
    folder: Path,
    values: np.ndarray,
    change: Change | None = None,
    *,
    series: str = "1.2.3",
    prefix: str = "slice",
    step: tuple[float, float, float] = (0.0, 0.0, SPACING[2]),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
) -> Path:
    """Slices whose file names and instance numbers tell nothing about their order; positions do."""
    folder.mkdir(exist_ok=True)
    for index in range(values.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        name = folder / f"{prefix}_{(index * 5 + 3) % values.shape[2]}.dcm"
        slice_ = FileDataset(str(name), {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.PatientName, slice_.PatientID = "Doe^Jane", "4711"
        slice_.SeriesInstanceUID, slice_.SeriesNumber, slice_.Modality = series, 7, "CT"
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.ImageOrientationPatient = [float(value) for value in orientation]
        slice_.ImagePositionPatient = [float(o + index * s) for o, s in zip(ORIGIN_LPS, step, strict=True)]
        slice_.PixelSpacing = [SPACING[1], SPACING[0]]
        slice_.Rows, slice_.Columns = values.shape[1], values.shape[0]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
        slice_.PixelData = (values[:, :, index].T + 1024).astype("<u2").tobytes()
        if change:
            change(slice_, index)
        slice_.save_as(name, enforce_file_format=True)
    return folder


def refused(folder: Path, *words: str) -> None:
    line = refusals.refused(lambda: Volume.load(folder), *words)
    assert "Doe" not in line
    assert "4711" not in line


def test_series_comes_back_in_place_and_to_the_bit(tmp_path: Path) -> None:
    volume = Volume.load(write_series(tmp_path / "ct", hu()))
    assert volume.original_orientation == "LPS"
    assert volume.shape == SHAPE
    assert volume.spacing_mm == pytest.approx(SPACING)
    assert np.array_equal(volume.hu, hu()[::-1, ::-1])
    # The voxel that DICOM puts at its origin, in LPS, lies at the same place in RAS.
    at = volume.affine @ [SHAPE[0] - 1, SHAPE[1] - 1, 0, 1]
    np.testing.assert_allclose(at[:3], np.multiply(ORIGIN_LPS, (-1, -1, 1)))


def test_simpleitk_puts_every_voxel_at_the_same_place(tmp_path: Path) -> None:
    import SimpleITK as sitk

    folder = write_series(tmp_path / "ct", hu(), orientation=(0, 1, 0, 0, 0, -1), step=(3.0, 0, 0))
    volume = Volume.load(folder)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    values = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    for index in ((0, 0, 0), (9, 2, 4), (3, 7, 5)):
        world = np.multiply(image.TransformIndexToPhysicalPoint(index), (-1, -1, 1))
        here = np.linalg.inv(volume.affine) @ [*world, 1]
        assert volume.hu[tuple(np.rint(here[:3]).astype(int))] == values[index]


def test_subfolders_foreign_files_and_scouts_are_passed_over(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", hu())
    (folder / "README.txt").write_text("not a slice")

    def scout(dataset: Dataset, _: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(folder / "scout", hu()[:, :, :1], scout, series="9.9", prefix="scout")
    volume = Volume.load(folder)
    assert np.array_equal(volume.hu, hu()[::-1, ::-1])
    assert volume.notes == ("2 files in the folder are no slices of the series and were passed over.",)


def test_a_series_of_too_many_voxels_is_refused_by_its_headers(tmp_path: Path) -> None:
    def large(dataset: Dataset, _: int) -> None:
        dataset.Rows = dataset.Columns = 40_000

    refused(write_series(tmp_path / "ct", hu(), large), "ct", "9600000000 voxels", "at most 1000000000")


def test_gantry_tilt_stays_in_the_affine(tmp_path: Path) -> None:
    volume = Volume.load(write_series(tmp_path / "ct", hu(), step=(0, 0.5, 3.0)))
    assert "gantry tilt" in volume.notes[0]
    np.testing.assert_allclose(volume.affine[:3, 2], (0, -0.5, 3.0), atol=1e-9)


def test_padding_value_becomes_air(tmp_path: Path) -> None:
    def pad(dataset: Dataset, _: int) -> None:
        pixels = np.frombuffer(dataset.PixelData, "<u2").copy()
        pixels[:5] = 60000
        dataset.PixelData, dataset.PixelPaddingValue = pixels.tobytes(), 60000

    volume = Volume.load(write_series(tmp_path / "ct", hu(), pad))
    assert (volume.hu[-5:, -1] == -1024).all()
    assert volume.hu.max() < 2000


def test_missing_slice(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", hu())
    (folder / f"slice_{(2 * 5 + 3) % SHAPE[2]}.dcm").unlink()
    refused(folder, "slice spacing", "6 mm between", "a slice is missing")


def test_uneven_gaps(tmp_path: Path) -> None:
    def shift(dataset: Dataset, index: int) -> None:
        if index > 3:
            dataset.ImagePositionPatient[2] += 1.0

    refused(write_series(tmp_path / "ct", hu(), shift), "slice spacing", "unevenly")


def test_doubled_position(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", hu())
    write_series(folder, hu(), prefix="again")
    refused(folder, "same position", "slice_")


def test_two_series_are_listed(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", hu())
    write_series(folder / "other", hu(), series="1.2.4")
    refused(folder, "2 series", "series 7 (6 slices", "slice_0.dcm")


def test_slices_that_do_not_belong_together(tmp_path: Path) -> None:
    def size(dataset: Dataset, index: int) -> None:
        if index == 2:
            dataset.Rows, dataset.PixelData = 4, dataset.PixelData[: len(dataset.PixelData) // 2]

    def orientation(dataset: Dataset, index: int) -> None:
        if index == 2:
            dataset.ImageOrientationPatient = [0.0, 1, 0, 0, 0, -1]

    refused(write_series(tmp_path / "a", hu(), size), "Columns x Rows", "10 x 4")
    refused(write_series(tmp_path / "b", hu(), orientation), "ImageOrientationPatient")


def test_folders_without_a_series(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "0 files")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "ct.dcm").write_text("no")
    refused(tmp_path / "text", "none a CT slice")

    def magnetic(dataset: Dataset, _: int) -> None:
        dataset.Modality = "MR"

    refused(write_series(tmp_path / "mr", hu(), magnetic), "Modality MR")
    refused(write_series(tmp_path / "one", hu()[:, :, :1]), "1 slice")


def test_headers_that_miss_or_lie(tmp_path: Path) -> None:
    def unplaced(dataset: Dataset, index: int) -> None:
        if index == 1:
            del dataset.ImagePositionPatient

    def frames(dataset: Dataset, _: int) -> None:
        dataset.NumberOfFrames = 3

    def cut(dataset: Dataset, index: int) -> None:
        if index == 1:
            dataset.PixelData = dataset.PixelData[:50]

    unknown_kind = write_series(tmp_path / "d", hu()) / "slice_3.dcm"
    whole = unknown_kind.read_bytes()
    tag = whole.index(bytes.fromhex("28003000") + b"DS")  # PixelSpacing
    unknown_kind.write_bytes(whole[: tag + 4] + b"D\0" + whole[tag + 6 :])
    refused(tmp_path / "d", "slice_3.dcm", "can't be read")
    refused(write_series(tmp_path / "a", hu(), unplaced), "ImagePositionPatient", "3 numbers")
    refused(write_series(tmp_path / "b", hu(), frames), "NumberOfFrames")
    refused(write_series(tmp_path / "c", hu(), cut), "pixel data")


@pytest.mark.parametrize("syntax", sorted(files.SYNTAXES))
def test_compressed_slices_come_back_to_the_bit(tmp_path: Path, syntax: str) -> None:
    folder = write_series(tmp_path / "ct", hu())
    plain = Volume.load(folder)
    for path in folder.iterdir():
        files.compressed(path, files.SYNTAXES[syntax])
    assert np.array_equal(Volume.load(folder).hu, plain.hu)


def test_a_slice_that_its_decoder_breaks_off_on_is_one_line(tmp_path: Path) -> None:
    """The X-ray that ends GDCM's process, among the slices."""
    broken = dcmread(Path(__file__).parent / "data" / "gdcm_breaks_off.dcm")

    def damage(slice_: Dataset, index: int) -> None:
        if index == 2:
            slice_.file_meta.TransferSyntaxUID = broken.file_meta.TransferSyntaxUID
            slice_.Rows, slice_.Columns, slice_.PixelData = broken.Rows, broken.Columns, broken.PixelData
            slice_["PixelData"].VR = "OB"

    folder = write_series(tmp_path / "ct", np.zeros((broken.Columns, broken.Rows, 4), np.float32), damage)
    with pytest.raises(InputError, match="pixel data: found gdcm: damaged data"):
        Volume.load(folder)
