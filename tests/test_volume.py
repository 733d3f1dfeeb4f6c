"""A volume keeps its HU to the bit and its place in the world, whatever file it comes from; bad files are one line."""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests import refusals
from x2ct.errors import InputError, X2CTError
from x2ct.io.ct.volume import LOWEST_HU, MAX_VOXELS, SYNTHETIC, Volume, check_writable, plausible_hu, to_ras

CHEST = Path(__file__).parent / "data" / "chest_4mm.nii.gz"
SHAPE = (5, 6, 7)
AFFINE = np.array([[2.0, 0, 0, -7], [0, 2.5, 0, 11], [0, 0, 3, -40], [0, 0, 0, 1]])


def some_hu(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1024, 3072, shape).astype(np.float32)


def refused(path: Path, *words: str) -> None:
    refusals.refused(lambda: Volume.load(path), str(path), *words)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


# ---------------------------------------------------------------------------------------------- orientation


def world_of_marker(hu: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine @ [*np.unravel_index(int(hu.argmax()), hu.shape), 1.0]


@pytest.mark.parametrize("permutation", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_turning_moves_no_voxel_in_the_world(permutation: tuple[int, ...], signs: tuple[int, ...]) -> None:
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for column, row in enumerate(permutation):
        turn[row, column] = signs[column] * (column + 1.5)
    turn[:3, 3] = 3, -20, 100
    values = some_hu()
    values[1, 4, 2] = 9000
    turned, affine, codes = to_ras(values, turn)
    expected = [("RL", "AP", "SI")[axis][sign < 0] for axis, sign in zip(permutation, signs, strict=True)]
    assert codes == "".join(expected)
    assert (np.diag(affine)[:3] > 0).all()
    np.testing.assert_allclose(world_of_marker(turned, affine), world_of_marker(values, turn), atol=1e-12)
    assert sorted(turned.ravel()) == sorted(values.ravel())


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.tuples(*[st.floats(0.5, 6)] * 3))
def test_an_oblique_affine_keeps_its_rotation(angles: tuple[float, ...], spacing: tuple[float, ...]) -> None:
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    values = some_hu()
    values[3, 1, 5] = 9000
    turned, turned_affine, _ = to_ras(values, affine)
    np.testing.assert_allclose(world_of_marker(turned, turned_affine), world_of_marker(values, affine), atol=1e-9)
    # Only permuted and flipped: the axes' directions are the same set of lines, each closest to its world axis.
    assert abs(np.linalg.det(turned_affine[:3, :3])) == pytest.approx(np.prod(spacing))
    np.testing.assert_allclose(
        sorted(np.linalg.norm(turned_affine[:3, :3], axis=0)), sorted(spacing), rtol=1e-9, atol=1e-9
    )


# ---------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_nifti_round_trip_is_exact(tmp_path: Path, name: str) -> None:
    affine = AFFINE.copy()
    affine[:3, :3] = Rotation.from_euler("xyz", (4, -7, 12), degrees=True).as_matrix() * (2, 2.5, 3)
    volume = Volume(some_hu(), affine)
    volume.save(tmp_path / name, synthetic=True)
    again = Volume.load(tmp_path / name)
    assert np.array_equal(again.hu, volume.hu)
    assert again.original_orientation == "RAS"
    np.testing.assert_allclose(again.affine, affine, atol=1e-5)
    np.testing.assert_allclose(again.spacing_mm, (2, 2.5, 3), rtol=1e-6)
    header = nib.load(tmp_path / name).header
    assert header.get_data_dtype() == np.int16
    assert int(header["sform_code"]) == int(header["qform_code"]) == 1
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)
    assert header["descrip"].item().decode() == SYNTHETIC
    assert header.get_xyzt_units()[0] == "mm"


def test_same_volume_same_bytes_and_no_debris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    volume = Volume.load(CHEST)
    volume.save(tmp_path / "a.nii.gz")
    monkeypatch.setattr(time, "time", lambda: 1e9)  # another second, which gzip would write into its header
    volume.save(tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]
    assert np.array_equal(Volume.load(tmp_path / "a.nii.gz").hu, volume.hu)


def test_saving_rounds_and_clips_to_int16(tmp_path: Path) -> None:
    hu = some_hu()
    hu[0, 0, :5] = -0.6, -0.4, 0.6, 1e6, -1e6
    Volume(hu, AFFINE).save(tmp_path / "ct.nii")
    stored = np.asarray(nib.load(tmp_path / "ct.nii").dataobj)
    assert list(stored[0, 0, :5]) == [-1, 0, 1, 32767, -32768]


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd"])
def test_itk_files_agree_with_nifti(tmp_path: Path, suffix: str) -> None:
    import SimpleITK as sitk

    affine = AFFINE.copy()
    affine[:3, :3] = Rotation.from_euler("xyz", (4, -7, 12), degrees=True).as_matrix() * (2, 2.5, 3)
    hu = some_hu()
    image = sitk.GetImageFromArray(hu.astype(np.int16).transpose(2, 1, 0))
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    image.SetSpacing((2, 2.5, 3))
    image.SetDirection((lps[:3, :3] / (2, 2.5, 3)).ravel())
    image.SetOrigin(lps[:3, 3])
    path = tmp_path / f"ct.{suffix}"
    sitk.WriteImage(image, str(path))
    volume = Volume.load(path)
    assert np.array_equal(volume.hu, hu)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)


def test_original_orientation_is_recorded(tmp_path: Path) -> None:
    hu = some_hu()
    lps = np.diag([-2.0, -2, 3, 1])
    volume = Volume.load(write_nifti(tmp_path / "ct.nii", hu.astype(np.int16), lps))
    assert volume.original_orientation == "LPS"
    assert volume.shape == SHAPE
    assert np.array_equal(volume.hu, hu[::-1, ::-1])
    assert volume.source.endswith("ct.nii")


def test_a_real_chest_is_hu() -> None:
    volume = Volume.load(CHEST)
    assert volume.hu.dtype == np.float32
    assert volume.original_orientation == "RAS"
    assert volume.notes == ()
    assert volume.hu.min() >= LOWEST_HU
    lungs = np.mean((volume.hu > -950) & (volume.hu < -600))
    assert 0.03 < lungs < 0.5


# ---------------------------------------------------------------------------------------------- HU


def test_scaled_values_are_rescaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image((some_hu() + 1024).astype(np.int16), AFFINE)
    image.header.set_slope_inter(1, -1024)
    nib.save(image, tmp_path / "ct.nii")
    assert np.array_equal(Volume.load(tmp_path / "ct.nii").hu, some_hu())


def test_padding_becomes_air_and_is_noted() -> None:
    hu = some_hu()
    hu[0] = -3024
    fixed, notes = plausible_hu(hu, "x")
    assert fixed.min() == LOWEST_HU
    assert np.array_equal(fixed[1:], hu[1:])
    assert len(notes) == 1
    assert "padding" in notes[0]


def test_a_lost_intercept_is_put_back_and_noted() -> None:
    hu = Volume.load(CHEST).hu
    fixed, notes = plausible_hu(np.maximum(hu, -1024) + 1024, "x")
    assert np.array_equal(fixed, hu)
    assert "intercept" in notes[0]


def test_positive_values_without_that_pattern_are_left_and_noted() -> None:
    hu = np.linspace(0, 3500, 500, dtype=np.float32) ** 1.0
    hu[hu < 1500] = 1500
    fixed, notes = plausible_hu(hu, "x")
    assert np.array_equal(fixed, hu)
    assert "0 HU is water" in notes[0]


def test_metres_are_turned_to_mm(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[:3] /= 1000
    image = nib.Nifti1Image(some_hu().astype(np.int16), affine)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "ct.nii")
    volume = Volume.load(tmp_path / "ct.nii")
    np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-5)
    assert "metres" in volume.notes[0]


def test_a_header_without_orientation_is_noted(tmp_path: Path) -> None:
    image = nib.Nifti1Image(some_hu().astype(np.int16), None)
    image.header.set_zooms((2, 2, 3))
    nib.save(image, tmp_path / "ct.nii")
    volume = Volume.load(tmp_path / "ct.nii")
    assert volume.original_orientation == "LAS"
    assert "neither sform nor qform" in volume.notes[0]


# ---------------------------------------------------------------------------------------------- bad input


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.nii.gz", "no such file")
    (tmp_path / "empty.nii").touch()
    refused(tmp_path / "empty.nii", "empty file")
    for name in ("text.nii.gz", "text.nii", "text.nrrd", "text.mha"):
        (tmp_path / name).write_text("This is no CT.\n" * 100)
        refused(tmp_path / name, "KEY = VALUE" if name.endswith(".mha") else "can't be read")
    (tmp_path / "ct.dcm").write_text("x")
    refused(tmp_path / "ct.dcm", "format", "folder")
    (tmp_path / "ct.jpg").write_text("x")
    refused(tmp_path / "ct.jpg", ".nii.gz")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_truncated_nifti(tmp_path: Path, name: str, share: float) -> None:
    whole = gzip.decompress(CHEST.read_bytes()) if name.endswith(".nii") else CHEST.read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    refused(tmp_path / name, "can't be read")


def test_damaged_gzip(tmp_path: Path) -> None:
    content = bytearray(CHEST.read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "ct.nii.gz").write_bytes(bytes(content))
    refused(tmp_path / "ct.nii.gz", "can't be read")


def test_shapes_that_are_no_volume(tmp_path: Path) -> None:
    refused(write_nifti(tmp_path / "4d.nii", np.zeros((5, 6, 7, 3), np.int16)), "shape", "5 x 6 x 7 x 3")
    refused(write_nifti(tmp_path / "2d.nii", np.zeros((5, 6), np.int16)), "shape")
    one = write_nifti(tmp_path / "4d1.nii", some_hu()[..., None].astype(np.int16))
    assert Volume.load(one).shape == SHAPE


def test_values_that_are_no_hu(tmp_path: Path) -> None:
    bad = some_hu()
    bad[2, 3, 4] = np.nan
    refused(write_nifti(tmp_path / "nan.nii", bad), "1 voxels NaN")
    bad[2, 3, 4] = np.inf
    refused(write_nifti(tmp_path / "inf.nii", bad), "infinite")
    refused(write_nifti(tmp_path / "zero.nii", np.zeros(SHAPE, np.int16)), "0 to 0")
    refused(write_nifti(tmp_path / "mask.nii", (some_hu() > 0).astype(np.uint8)), "mask")
    refused(write_nifti(tmp_path / "big.nii", some_hu() * 100), "int16")
    refused(write_nifti(tmp_path / "complex.nii", some_hu().astype(np.complex64)), "data type")
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(write_nifti(tmp_path / "rgb.nii", rgb), "data type")


def test_absurd_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((2000, 2000, 2000))
    header.set_data_dtype(np.int16)
    assert MAX_VOXELS < 2000**3
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(4))
    refused(tmp_path / "huge.nii", "size", "8000000000 voxels")


def test_a_size_past_64_bits_is_refused_too(tmp_path: Path) -> None:
    """A fuzzer's find: as 64-bit numbers these sides multiply to 0."""
    size = f"NDims = 3\nDimSize = 4 {2**31} {2**31}\n"
    header = f"ObjectType = Image\n{size}ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "huge.mha").write_bytes(header.encode() + bytes(4))
    refused(tmp_path / "huge.mha", "size", f"{2**64} voxels")


META = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("NDims = 3", f"NDims = {'8' * 60}", "NDims"),  # a fuzzer's find: MetaIO counts to it
        ("NDims = 3", "NDims = 3\nNDims = 2", "each key once"),
        ("ObjectType = Image", "no key", "KEY = VALUE"),
        ("= LOCAL", "= /etc/hostname", "ElementDataFile"),
        ("= LOCAL", "= ../other.raw", "ElementDataFile"),
        ("= LOCAL", "= LIST", "ElementDataFile"),
        ("ElementDataFile = LOCAL\n", "", "header"),
    ],
)
def test_a_metaimage_header_that_no_ct_has_is_refused_before_it_is_parsed(
    tmp_path: Path, line: str, instead: str, said: str
) -> None:
    good = tmp_path / "good.mha"
    voxels = np.array([-1000, 0, 40, 1000] * 2, "<i2").tobytes()
    good.write_bytes(META.encode() + voxels)
    assert Volume.load(good).shape == (2, 2, 2)
    bad = tmp_path / "bad.mha"
    bad.write_bytes(META.replace(line, instead).encode() + voxels)
    refused(bad, said)


@pytest.mark.parametrize("suffix", ["mha", "mhd"])
@pytest.mark.parametrize(
    ("damage", "fragment"),
    [
        (lambda stream: stream[: len(stream) // 2], "compressed voxels: found"),
        (lambda stream: bytes((stream[0], stream[1] ^ 32)) + stream[2:], "a zlib stream"),  # it wants a dictionary
        (lambda stream: b"x = True\nTransformMatrix", "a zlib stream"),  # a file of this kind kept MetaIO in a loop
        (lambda stream: zlib.compress(bytes(100)), "found 100 bytes, expected 240"),
        (lambda stream: zlib.compress(bytes(100_000)), "expected 240"),
    ],
)
def test_a_damaged_stream_of_voxels_is_refused_and_hangs_nothing(
    tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes], fragment: str
) -> None:
    hu = np.random.default_rng(0).integers(-1000, 2000, (4, 5, 6)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(hu), str(tmp_path / f"ct.{suffix}"), True)
    assert Volume.load(tmp_path / f"ct.{suffix}").hu.shape == (6, 5, 4)
    file = tmp_path / ("ct.mha" if suffix == "mha" else "ct.zraw")
    content = file.read_bytes()
    start = content.index(b"LOCAL\n") + 6 if suffix == "mha" else 0
    file.write_bytes(content[:start] + damage(content[start:]))
    refusals.refused(lambda: Volume.load(tmp_path / f"ct.{suffix}"), str(file), fragment)


def test_a_size_of_the_stream_that_cuts_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ct.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16)), str(path), True)
    for size, fragment in ((b"3", "CompressedDataSize: found 3"), (b"-1", "a number of bytes")):
        path.write_bytes(re.sub(rb"(CompressedDataSize = )\d+", rb"\g<1>" + size, path.read_bytes()))
        refused(path, fragment)


def test_an_nrrd_reads_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "voxels.raw").write_bytes(bytes(16))
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nendian: little\nencoding: raw\ndata file: voxels.raw\n\n"
    )
    (tmp_path / "a.nrrd").write_text(header)
    refused(tmp_path / "a.nrrd", "header", "same file")


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3), np.diag([1e-6, 1, 1, 1.0])])
def test_affines_that_place_nothing(bad: np.ndarray) -> None:
    with pytest.raises(InputError):
        Volume(some_hu(), bad)


def test_axes_in_a_plane_are_refused() -> None:
    affine = np.eye(4)
    affine[:3, 2] = 1, 1, 0
    with pytest.raises(InputError, match="in a plane"):
        Volume(some_hu(), affine)


# ---------------------------------------------------------------------------------------------- output


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    volume = Volume(some_hu(), AFFINE)
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "file").touch()
    for name in ("ct.dcm", "ct", "file/ct.nii.gz", "folder.nii"):
        with pytest.raises(InputError) as caught:
            check_writable(tmp_path / name)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError):
            volume.save(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.nii"]
    check_writable(tmp_path / "no" / "such" / "ct.nii.gz")
    assert not (tmp_path / "no").exists()
    assert volume.save(tmp_path / "no" / "such" / "ct.nii.gz").exists()


def test_check_writable_leaves_an_existing_file_alone(tmp_path: Path) -> None:
    (tmp_path / "ct.nii").write_text("before")
    assert check_writable(tmp_path / "ct.nii") == "nifti"
    assert (tmp_path / "ct.nii").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    import errno
    import os

    target = tmp_path / "ct.nii"
    target.write_text("before")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(X2CTError, match="no space left") as caught:
        Volume(some_hu(), AFFINE).save(target)
    assert caught.value.exit_code == 1
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii"]
