"""A CT's surface lies where HU cross the threshold, is closed and faces outward; every format holds it to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tests import refusals
from tests.commandline import run
from x2ct.evaluation.metrics import BONE_HU
from x2ct.io.ct.volume import SYNTHETIC, Volume
from x2ct.render import mesh

CHEST = Path(__file__).parent / "data" / "chest_4mm.nii.gz"
SHAPE = (50, 42, 30)
RADIUS_MM = 17.0
CENTRE_MM = np.array([31.0, -47.5, 112.0])  # RAS


def grid(*signs: int, angles: tuple[float, float, float] = (14, -9, 23), shear: float = 0.0) -> np.ndarray:
    """An anisotropic, oblique grid about the centre; a sign of -1 turns an axis round, and an odd number mirrors it."""
    affine = np.eye(4)
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.array(
        [[1, shear, 0], [0, 1, 0], [0, 0, 1]]
    )
    affine[:3, :3] = axes * (1.0, 1.2, 1.9) * signs
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ (np.array(SHAPE) / 2 + 0.3)
    return affine


def ball(affine: np.ndarray, radius_mm: float = RADIUS_MM, centre_mm: np.ndarray = CENTRE_MM) -> np.ndarray:
    """HU that fall by 100 a mm and are 200 on a sphere."""
    places = np.moveaxis(np.indices(SHAPE), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    distance = np.linalg.norm(places - centre_mm, axis=-1)
    return np.clip(200 + 100 * (radius_mm - distance), -1000, 1500).astype(np.float32)


def corners_of(path: Path) -> np.ndarray:
    """The triangles of a file, (m, 3, 3) float32, by the formats' definitions."""
    data = path.read_bytes()
    if path.suffix == ".stl":
        count = int.from_bytes(data[80:84], "little")
        assert len(data) == 84 + 50 * count
        rows = np.frombuffer(data, np.uint8, offset=84).reshape(count, 50)
        numbers = np.ascontiguousarray(rows[:, :48]).view("<f4").reshape(count, 4, 3)
        normals = np.cross(numbers[:, 2] - numbers[:, 1], numbers[:, 3] - numbers[:, 1])
        along = np.einsum("ij,ij->i", normals, numbers[:, 0]) / np.linalg.norm(normals, axis=1)
        np.testing.assert_allclose(along, 1, atol=1e-3)  # the stored normal is the winding's, of length 1
        return numbers[:, 1:]
    if path.suffix == ".ply":
        header, _, body = data.partition(b"end_header\n")
        assert header.startswith(b"ply\nformat binary_little_endian 1.0\n")
        sizes = {line.split()[1]: int(line.split()[2]) for line in header.splitlines() if line.startswith(b"element")}
        vertices = np.frombuffer(body, "<f4", 3 * sizes[b"vertex"]).reshape(-1, 3)
        faces = np.frombuffer(body, np.uint8, offset=vertices.nbytes).reshape(sizes[b"face"], 13)
        assert (faces[:, 0] == 3).all()
        return vertices[np.ascontiguousarray(faces[:, 1:]).view("<i4")]
    lines = [line.split() for line in data.decode("ascii").splitlines()]
    vertices = np.array([line[1:] for line in lines if line[0] == "v"], np.float32)
    return vertices[np.array([line[1:] for line in lines if line[0] == "f"], int) - 1]


def assert_closed(corners: np.ndarray) -> None:
    """Each edge belongs to two triangles, which walk it in opposite directions; corners are one by their place."""
    places, index = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    faces = index.reshape(-1, 3).astype(np.int64)
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    assert (start != end).all()
    there, back = np.sort(start * len(places) + end), np.sort(end * len(places) + start)
    assert (np.diff(there) > 0).all()
    np.testing.assert_array_equal(there, back)


def area_and_volume(corners: np.ndarray) -> tuple[float, float]:
    a, b, c = np.moveaxis(corners.astype(np.float64) - corners.mean(axis=(0, 1), dtype=np.float64), 1, 0)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2), float((a * np.cross(b, c)).sum() / 6)


# ------------------------------------------------------------------------------------------------ the surface


@pytest.mark.parametrize("coordinates", ["lps", "ras"])
@pytest.mark.parametrize(
    "affine",
    [grid(1, 1, 1, angles=(0, 0, 0)), grid(1, 1, 1), grid(-1, 1, 1), grid(-1, -1, -1), grid(1, 1, -1, shear=0.2)],
    ids=["straight", "oblique", "mirrored", "all axes turned", "mirrored and sheared"],
)
def test_a_sphere_is_where_and_as_large_as_it_is(affine: np.ndarray, coordinates: str) -> None:
    surface = mesh.surface(Volume(ball(affine), affine), coordinates=coordinates)
    corners = surface.vertices[surface.triangles]
    assert_closed(corners)
    centre = CENTRE_MM * ((-1, -1, 1) if coordinates == "lps" else (1, 1, 1))
    distances = np.linalg.norm(surface.vertices - centre, axis=1)
    np.testing.assert_allclose(distances, RADIUS_MM, atol=0.06)
    area, volume = area_and_volume(corners)
    assert area == pytest.approx(4 * np.pi * RADIUS_MM**2, rel=0.01)
    assert volume == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.01)  # negative if it faced inward
    assert (surface.area_mm2, surface.volume_mm3) == pytest.approx((area, volume), rel=1e-6)


@pytest.mark.parametrize("values", ["noise", "whole numbers about the threshold", "two values"])
def test_grain_of_equal_values_that_meets_the_border_is_closed_too(values: str) -> None:
    """Ties at saddles and values at the threshold itself are what tears marching cubes apart or folds them."""
    hu = np.random.default_rng(3).normal(200, 300, (24, 25, 26))
    if values != "noise":
        hu = np.rint(hu / 300 - 2 / 3) * 1500 + 200
    if values == "two values":
        hu = np.where(hu > 200, 201, 199)
    surface = mesh.surface(Volume(hu, np.diag([0.7, 0.7, 0.9, 1]) + 400 * np.eye(4, k=3)))
    assert_closed(surface.vertices[surface.triangles])
    assert surface.volume_mm3 > 0


def test_a_bone_that_is_cut_off_ends_at_the_outer_faces_of_the_grid() -> None:
    hu = np.full((20, 24, 28), -600, np.float32)
    hu[:12] = 1000  # 200 HU lies halfway between the two
    surface = mesh.surface(Volume(hu, np.diag([2.0, 3.0, 4.0, 1.0])), coordinates="ras")
    np.testing.assert_allclose(surface.vertices.min(axis=0), (-1, -1.5, -2))
    np.testing.assert_allclose(surface.vertices.max(axis=0), (23, 70.5, 110), rtol=1e-6)
    # Marching cubes cut off the corners of a voxel.
    assert surface.volume_mm3 == pytest.approx(24 * 72 * 112, rel=0.01)


def test_the_surface_of_a_file_is_in_the_files_own_place_whatever_its_axes(tmp_path: Path) -> None:
    affine = grid(-1, 1, 1)
    hu = np.transpose(np.rint(ball(affine)), (2, 0, 1))
    nib.save(nib.Nifti1Image(hu.astype(np.int16), affine[:, [2, 0, 1, 3]]), tmp_path / "ct.nii.gz")
    report = mesh.mesh_files(tmp_path / "ct.nii.gz", tmp_path / "ball.stl")
    corners = corners_of(tmp_path / "ball.stl")
    np.testing.assert_allclose(np.linalg.norm(corners - CENTRE_MM * (-1, -1, 1), axis=-1), RADIUS_MM, atol=0.07)
    assert area_and_volume(corners)[1] > 0
    assert report["hu"] == BONE_HU


def test_a_gaussian_is_as_wide_in_mm_along_every_axis() -> None:
    hu = np.zeros((41, 31, 25), np.float32)
    hu[20, 15, 12] = 30000
    surface = mesh.surface(Volume(hu, np.diag([0.5, 1.0, 1.5, 1.0])), 20, smooth_mm=2)
    wide = np.ptp(surface.vertices, axis=0)
    np.testing.assert_allclose(wide, wide.mean(), rtol=0.03)
    # exp(-r^2 / (2 2^2)) of the peak, 30000 HU x 0.75 mm^3 / (2 pi 2^2)^1.5, is 20 HU
    peak = 30000 * 0.75 / (8 * np.pi) ** 1.5
    assert wide.mean() == pytest.approx(2 * np.sqrt(8 * np.log(peak / 20)), rel=0.03)


# ------------------------------------------------------------------------------------------------ pieces


def hollow_ball_and_two_crumbs() -> tuple[Volume, Volume]:
    """All three, and the hollow ball alone. One crumb is larger than the other; none is as large as the cavity."""
    affine = grid(1, 1, 1)
    alone = np.minimum(ball(affine, 14), 400 - ball(affine, 8))
    crumbs = np.maximum(ball(affine, 4, CENTRE_MM + (19, 4, 0)), ball(affine, 2.5, CENTRE_MM - (19, 4, 0)))
    return Volume(np.maximum(alone, crumbs), affine), Volume(alone, affine)


def triangles_of(surface: mesh.Mesh) -> set[bytes]:
    return {triangle.tobytes() for triangle in surface.vertices[surface.triangles]}


def test_small_pieces_go_and_the_others_stay_to_the_bit_with_their_cavities() -> None:
    volume, alone = hollow_ball_and_two_crumbs()
    everything, ball_alone = mesh.surface(volume), mesh.surface(alone)
    largest = mesh.surface(volume, keep_largest=True)
    shell = 4 / 3 * np.pi * (14**3 - 8**3)
    assert largest.volume_mm3 == pytest.approx(shell, rel=0.01) == ball_alone.volume_mm3
    assert triangles_of(largest) < triangles_of(everything)
    crumbs = [4 / 3 * np.pi * radius**3 for radius in (4, 2.5)]
    assert everything.volume_mm3 == pytest.approx(shell + sum(crumbs), rel=0.01)
    without_smallest = mesh.surface(volume, min_volume_mm3=120)
    assert without_smallest.volume_mm3 - largest.volume_mm3 == pytest.approx(crumbs[0], rel=0.1)
    assert triangles_of(mesh.surface(volume, min_volume_mm3=500)) == triangles_of(largest)
    assert triangles_of(mesh.surface(volume, min_volume_mm3=1)) == triangles_of(everything)
    for corners in (surface.vertices[surface.triangles] for surface in (everything, without_smallest, largest)):
        assert_closed(corners)


def test_voxels_that_touch_at_a_corner_are_one_piece() -> None:
    hu = np.zeros((7, 7, 8), np.float32)
    hu[1:3, 1:3, 1:3] = hu[3:6, 3:6, 3:6] = 1000
    volume = Volume(hu, np.eye(4))
    assert triangles_of(mesh.surface(volume, keep_largest=True)) == triangles_of(mesh.surface(volume))
    assert triangles_of(mesh.surface(volume, min_volume_mm3=35)) == triangles_of(mesh.surface(volume))


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("ending", mesh.SUFFIXES)
def test_every_format_holds_the_mesh_to_the_bit(tmp_path: Path, ending: str) -> None:
    surface = mesh.surface(Volume(ball(grid(1, 1, 1)), grid(1, 1, 1), synthetic=True), 199.5)
    path = mesh.save(tmp_path / "new" / f"ball{ending}", surface)
    np.testing.assert_array_equal(corners_of(path), surface.vertices[surface.triangles])
    assert f"x2ct SPACE=LPS, mm, 199.5 HU; {SYNTHETIC}".encode() in path.read_bytes()[:200]
    before = path.read_bytes()
    mesh.save(path, surface)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_command_writes_the_bones_of_a_chest_and_says_what(tmp_path: Path) -> None:
    path = tmp_path / "bone.ply"
    result = run("mesh", CHEST, "-o", path, "--min-volume", "500", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    corners = corners_of(path)
    assert_closed(corners)
    area, volume = area_and_volume(corners)
    assert (report["hu"], report["coordinates"], report["triangles"]) == (BONE_HU, "lps", len(corners))
    assert (report["area_mm2"], report["volume_mm3"]) == pytest.approx((area, volume), rel=1e-3)
    assert report["outputs"][0]["bytes"] == path.stat().st_size
    ct = Volume.load(CHEST)
    fine = ndimage.zoom(ct.hu, 4, order=1, mode="nearest", grid_mode=True)
    assert volume == pytest.approx((fine >= BONE_HU).sum() * np.prod(ct.spacing_mm) / 4**3, rel=0.03)
    options = ("--hu", "300", "--smooth", "3", "--keep-largest", "--coordinates", "ras")
    line = run("mesh", CHEST, "-o", tmp_path / "bone.obj", *options).stdout
    assert line.startswith("bone.obj: ") and "300 HU, RAS mm" in line
    assert b"SPACE=RAS, mm, 300 HU\n" in (tmp_path / "bone.obj").read_bytes()[:200]
    smooth = mesh.surface(ct, 300, smooth_mm=3, keep_largest=True, coordinates="ras")
    np.testing.assert_array_equal(corners_of(tmp_path / "bone.obj"), smooth.vertices[smooth.triangles])
    assert run("mesh", CHEST, "-o", path, "--quiet").output == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "bone.stl", "--hu", "5000"), ("HU: found -1024 to ", "either side of 5000")),
        (("-o", "bone.stl", "--hu", "-1024"), ("HU: found -1024 to ", "either side of -1024")),
        (("-o", "bone.stl", "--hu", "nan"), ("HU: found -1024 to ",)),
        (("-o", "bone.stl", "--hu", "1000", "--smooth", "50"), ("after smoothing by 50 mm",)),
        (("-o", "bone.stl", "--min-volume", "1e9"), ("pieces: found", "mm^3", "--min-volume")),
        (("-o", "bone.stl", "--min-volume", "-1"), ("--min-volume: value: found -1",)),
        (("-o", "bone.stl", "--smooth", "nan"), ("--smooth: value: found nan",)),
        (("-o", "bone.stl", "--coordinates", "lpi"), ("--coordinates: value: found 'lpi'", "lps or ras")),
        (("-o", "bone.vtk"), ("output: found '.vtk', expected .stl or .ply or .obj",)),
        (("-o", "."), ("output: found",)),
    ],
)
def test_what_can_not_be_meshed_is_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("mesh", CHEST, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert all(word in line for word in words), line
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_ct_leaves_the_older_mesh_whole(tmp_path: Path) -> None:
    (tmp_path / "ct.nii.gz").write_bytes(CHEST.read_bytes()[:3000])
    (tmp_path / "bone.stl").write_bytes(b"older")
    refusals.refused(lambda: mesh.mesh_files(tmp_path / "ct.nii.gz", tmp_path / "bone.stl"), "ct.nii.gz: file: found")
    refusals.refused(lambda: mesh.mesh_files(tmp_path / "none.nii.gz", tmp_path / "bone.stl"), "no such file")
    assert (tmp_path / "bone.stl").read_bytes() == b"older"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bone.stl", "ct.nii.gz"]
