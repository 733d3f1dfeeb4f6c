"""Shards: what is written is what is read, a damaged folder says so, and resampling keeps places and densities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import phantom
from x2ct.data.shards import ShardSet, resample, resample_array, write_index
from x2ct.errors import InputError
from x2ct.geometry.grid import Grid
from x2ct.io.report import sha256

GRID = Grid((24, 20, 28), (4.0, 4.0, 4.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two patients, one of them for validation."""
    entries = []
    for seed, split in enumerate(("train", "validation")):
        hu = np.rint(phantom.limb(GRID, seed)).astype(np.int16)
        np.save(tmp_path / f"p{seed}.npy", hu)
        entries.append(
            {
                "id": f"p{seed}",
                "split": split,
                "file": f"p{seed}.npy",
                "shape": list(hu.shape),
                "index_to_mm": GRID.index_to_mm.tolist(),
                "region": "other",
                "sha256": sha256(tmp_path / f"p{seed}.npy"),
            }
        )
    write_index(tmp_path, GRID, entries)
    return tmp_path


def edit(folder: Path, **changes: object) -> None:
    index = json.loads((folder / "index.json").read_text())
    for key, value in changes.items():
        if key in index:
            index[key] = value
        else:
            index["people"][0][key] = value
    (folder / "index.json").write_text(json.dumps(index))


def test_what_is_written_is_read(folder: Path) -> None:
    shards = ShardSet.open(folder)
    assert shards.grid == GRID
    assert [p.id for p in shards.patients] == ["p0", "p1"]
    assert [p.id for p in shards.select("validation")] == ["p1"]
    assert shards.select("train", "chest") == ()
    patient = shards.patients[0]
    hu = patient.hu()
    assert isinstance(hu, np.memmap)
    assert not hu.flags.writeable
    assert np.array_equal(hu, np.rint(phantom.limb(GRID, 0)).astype(np.int16))
    assert patient.spacing_mm == pytest.approx((4, 4, 4))
    patient.verify()
    assert np.allclose(resample(patient, GRID), hu)
    assert resample(patient, Grid((8, 8, 8), (10.0, 10.0, 10.0))).shape == (8, 8, 8)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schema": 9}, "schema"),
        ({"people": "none"}, "people"),
        ({"people": []}, "people"),
        ({"grid": {"shape": [1, 2], "spacing_mm": [1, 1, 1]}}, "shape"),
        ({"grid": {"shape": [8, 8, 8], "spacing_mm": [1, -1, 1]}}, "spacing_mm"),
        ({"split": "test"}, "split"),
        ({"file": "../outside.npy"}, "file"),
        ({"file": "gone.npy"}, "missing"),
        ({"index_to_mm": np.zeros((4, 4)).tolist()}, "index_to_mm"),
        ({"sha256": None}, "sha256"),
    ],
)
def test_a_wrong_index_is_one_line_that_names_the_field(folder: Path, changes: dict[str, object], named: str) -> None:
    edit(folder, **changes)
    with pytest.raises(InputError, match=named) as caught:
        ShardSet.open(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="x2ct prepare"):
        ShardSet.open(tmp_path)


def test_a_flipped_byte_is_found(folder: Path) -> None:
    file = folder / "p0.npy"
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)
    patient = ShardSet.open(folder).patients[0]
    with pytest.raises(InputError, match="sha256"):
        patient.verify()


def test_a_shard_of_another_shape_is_found(folder: Path) -> None:
    np.save(folder / "p0.npy", np.zeros((3, 3, 3), np.int16))
    with pytest.raises(InputError, match="as the index says"):
        ShardSet.open(folder).patients[0].hu()


def centroid_mm(hu: np.ndarray, grid: Grid) -> np.ndarray:
    weight = hu + 1000.0
    mean = np.array([(weight * np.arange(n).reshape([-1 if a == b else 1 for b in range(3)])).sum() for a, n in
                     enumerate(hu.shape)]) / weight.sum()  # fmt: skip
    return (grid.index_to_mm @ [*mean, 1.0])[:3]


def test_resampling_keeps_place_and_mass_on_an_oblique_anisotropic_source() -> None:
    fine = Grid((60, 60, 40), (2.0, 2.0, 3.0))
    centre = np.array([12.0, -7.0, 9.0])
    hu = phantom.sphere(fine, 24.0, hu=0.0, centre_mm=tuple(centre))
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, -s, 0, 5.0], [s, c, 0, -3.0], [0, 0, 1, 2.0], [0, 0, 0, 1]])
    coarse = Grid((40, 40, 40), (4.0, 5.0, 4.5))
    out = resample_array(hu, turn @ fine.index_to_mm, coarse)
    assert np.allclose(centroid_mm(out, coarse), (turn @ [*centre, 1.0])[:3], atol=0.05)
    mass = (out + 1000.0).sum() * np.prod(coarse.spacing_mm)
    assert mass == pytest.approx((hu + 1000.0).sum() * np.prod(fine.spacing_mm), rel=2e-3)


def test_coarse_voxels_are_means_not_picks() -> None:
    # A one-voxel checkerboard is grey at four times the pitch; picking voxels would show full contrast.
    fine = Grid((65, 65, 65), (1.0, 1.0, 1.0))  # odd, so that samples fall on voxels and not between them
    board = (np.indices(fine.shape).sum(axis=0) % 2 * 1000.0).astype(np.float32)
    out = resample_array(board, fine.index_to_mm, Grid((12, 12, 12), (4.0, 4.0, 4.0)))
    assert np.abs(out[2:-2, 2:-2, 2:-2] - 500.0).max() < 25


def test_outside_is_air_and_the_own_grid_is_untouched() -> None:
    hu = phantom.limb(GRID, 0)
    wide = resample_array(hu, GRID.index_to_mm, Grid((40, 36, 44), (4.0, 4.0, 4.0)))
    assert np.array_equal(wide[8:-8, 8:-8, 8:-8], hu)
    for axis in range(3):  # the limb itself reaches the faces in z
        assert np.all(np.moveaxis(wide, axis, 0)[:7] == -1000)
