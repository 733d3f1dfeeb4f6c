"""Whatever format a volume is written in, other programs find the same HU at the same place, and what it
is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from scipy.spatial.transform import Rotation

from x2ct.errors import InputError
from x2ct.io.ct.volume import Origin, Volume

SPACING_MM = (2.0, 2.5, 3.0)
FORMATS = {"nifti": "ct.nii.gz", "nrrd": "ct.nrrd", "mha": "ct.mha", "dicom": "ct"}


def oblique(seed: int = 0) -> Volume:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (4, -7, 12), degrees=True).as_matrix() * SPACING_MM
    affine[:3, 3] = -7, 11, -40
    hu = np.random.default_rng(seed).integers(-1024, 3072, (5, 6, 7)).astype(np.float32)
    return Volume(hu, affine, description="made by a test")


def xray(path: Path, patient: str = "P1", name: str = "Doe^Jane") -> Path:
    header = pydicom.Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3.4"
    header.StudyInstanceUID, header.StudyDate, header.AccessionNumber = "1.2.3", "20240102", "A7"
    header.PatientID, header.PatientName, header.PatientSex = patient, name, "F"
    header.save_as(path, enforce_file_format=True)
    return path


def by_simpleitk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """HU (i, j, k) and the affine to LPS mm, as SimpleITK (for a series, GDCM) reads them."""
    reader = sitk.ImageSeriesReader()
    if path.is_dir():
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine


@pytest.mark.parametrize("kind", FORMATS)
def test_another_reader_finds_each_voxel_where_it_is(tmp_path: Path, kind: str) -> None:
    volume = oblique()
    volume.hu[1, 4, 2] = 3072  # the only one, so that it can be found again
    path = volume.save(tmp_path / FORMATS[kind], kind=kind, synthetic=True)
    values, to_lps = by_simpleitk(path)
    assert values.dtype == np.int16
    assert sorted(values.ravel()) == sorted(volume.hu.ravel())
    found = to_lps @ [*np.unravel_index(int(values.argmax()), values.shape), 1]
    expected = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine @ [1, 4, 2, 1]
    np.testing.assert_allclose(found, expected, atol=1e-4 if kind == "nifti" else 1e-8)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_round_trip_keeps_hu_to_the_bit_and_the_affine(tmp_path: Path, kind: str) -> None:
    volume = oblique()
    again = Volume.load(volume.save(tmp_path / FORMATS[kind], kind=kind))
    np.testing.assert_array_equal(again.hu, volume.hu)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-6 if kind == "nifti" else 1e-9)
    np.testing.assert_allclose(again.spacing_mm, SPACING_MM, rtol=1e-6)
    assert again.notes == ()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_volume_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    def content(folder: str) -> list[bytes]:
        (tmp_path / folder).mkdir()
        path = oblique().save(tmp_path / folder / FORMATS[kind], kind=kind, synthetic=True)
        return [file.read_bytes() for file in (sorted(path.iterdir()) if path.is_dir() else [path])]

    assert content("a") == content("b")
    assert [p.name for p in (tmp_path / "a").iterdir()] == [FORMATS[kind]]


def test_a_synthetic_series_says_what_it_is_and_whose_xrays_it_was_made_of(tmp_path: Path) -> None:
    origin = Origin((xray(tmp_path / "ap.dcm"), tmp_path / "lateral.npy"), "chest 0123abc")
    folder = oblique().save(tmp_path / "series", kind="dicom", synthetic=True, origin=origin)
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    assert len(slices) == 7
    for one in slices:
        assert list(one.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        assert one.SyntheticData == "YES"
        assert "chest 0123abc" in one.DerivationDescription
        assert "not for diagnosis" in one.SeriesDescription
        assert (one.PatientID, str(one.PatientName), one.PatientSex) == ("P1", "Doe^Jane", "F")
        assert (one.StudyInstanceUID, one.AccessionNumber) == ("1.2.3", "A7")
        assert one.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert len({one.SOPInstanceUID for one in slices}) == 7
    for shared in ("SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({one[shared].value for one in slices}) == 1
        assert slices[0][shared].value not in ("1.2.3", "1.2.3.4")


def test_another_volume_has_other_uids(tmp_path: Path) -> None:
    series = [oblique(seed).save(tmp_path / f"{seed}", kind="dicom") for seed in (0, 1)]
    uids = [pydicom.dcmread(folder / "IM00001.dcm").SeriesInstanceUID for folder in series]
    assert uids[0] != uids[1]


def test_a_scan_is_not_marked_synthetic(tmp_path: Path) -> None:
    one = pydicom.dcmread(oblique().save(tmp_path / "series", kind="dicom") / "IM00001.dcm")
    assert "SyntheticData" not in one
    assert list(one.ImageType)[:2] == ["ORIGINAL", "PRIMARY"]


def test_xrays_of_two_patients_are_refused_without_naming_them(tmp_path: Path) -> None:
    origin = Origin((xray(tmp_path / "ap.dcm"), xray(tmp_path / "lateral.dcm", "P2", "Roe^Richard")))
    with pytest.raises(InputError, match=r"ap\.dcm and lateral\.dcm: PatientID: found two patients") as caught:
        oblique().save(tmp_path / "series", kind="dicom", synthetic=True, origin=origin)
    assert not any(word in str(caught.value) for word in ("P1", "P2", "Doe", "Roe"))
    assert not (tmp_path / "series").exists()


def test_a_folder_with_files_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="a folder with files"):
        oblique().save(tmp_path / "series", kind="dicom")
    assert [p.name for p in tmp_path.rglob("*")] == ["series", "mine.txt"]


def test_shear_has_no_place_in_dicom(tmp_path: Path) -> None:
    volume = oblique()
    volume.affine[0, 2] += 1
    with pytest.raises(InputError, match="axes with shear"):
        volume.save(tmp_path / "series", kind="dicom")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["nifti", "nrrd", "mha"])
def test_an_ending_that_is_not_the_kinds_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"ct\.dcm: output: found '\.dcm', expected"):
        oblique().save(tmp_path / "ct.dcm", kind=kind)
    assert list(tmp_path.iterdir()) == []
