"""Which way round: an asymmetric phantom, stored in eight ways, gives the same X-rays, its marks where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from x2ct.geometry import Geometry, Image
from x2ct.geometry.grid import centred_affine
from x2ct.io.ct.volume import Volume
from x2ct.render import drr

SPACING = (3.0, 4.0, 5.0)
SHAPE = (50, 40, 36)
# How a file may store a body: its axes' directions. RAS+ first; permuted, flipped, and both.
ORIENTATIONS = ("RAS", "LPS", "LAS", "RPI", "ASR", "SLP", "PIR", "ILA")


def phantom() -> npt.NDArray[np.int16]:
    """A trunk of water with a dense mark at its right, one at its front and one at its head; RAS+."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[8:42, 8:32, 4:32] = 0
    hu[36:39, 18:22, 16:20] = 2500  # right: x grows towards it
    hu[20:24, 27:30, 10:13] = 2000  # front: y grows towards it, below the middle
    hu[23:26, 15:18, 28:31] = 1500  # head: z grows towards it
    return hu


def stored(path: Path, codes: str) -> Path:
    """The phantom in a NIfTI file whose axes run as the codes say."""
    import nibabel as nib
    from nibabel import orientations

    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-60.0, 25.0, 310.0)
    straight = nib.Nifti1Image(phantom(), affine)
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(codes)))
    turned = straight.as_reoriented(turn)
    assert "".join(nib.aff2axcodes(turned.affine)) == codes
    nib.save(turned, path)
    return path


def radiographs(volume: Volume, geometry: Geometry) -> dict[str, Image]:
    """X-rays of a volume that lies in the middle of patient mm."""
    return drr.radiographs(volume.hu, centred_affine(volume.shape, volume.spacing_mm), geometry, threads=1)


GEOMETRIES = {
    "parallel": Geometry.parallel(("ap", "pa", "lateral", 25.0), shape=(96, 104), spacing_mm=(2.2, 2.2)),
    "cone": Geometry.cone(
        ("ap", "pa", "lateral", 25.0), shape=(96, 104), sod_mm=800, sdd_mm=1000, spacing_mm=(2.7, 2.7)
    ),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return Volume.load(stored(tmp_path_factory.mktemp("phantom") / "ras.nii.gz", "RAS"))


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_the_way_a_file_is_stored_changes_no_x_ray(codes: str, kind: str, reference: Volume, tmp_path: Path) -> None:
    turned = Volume.load(stored(tmp_path / "ct.nii.gz", codes))
    expected = radiographs(reference, GEOMETRIES[kind])
    for name, image in radiographs(turned, GEOMETRIES[kind]).items():
        np.testing.assert_allclose(image, expected[name], atol=1e-5)


def densest(image: npt.NDArray[np.float32], without: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The centre (row, column) of what a mark adds to a picture, from its middle on."""
    extra = np.maximum(image - without, 0)
    rows, cols = np.indices(image.shape)
    middle = (np.array(image.shape) - 1) / 2
    total = float(extra.sum())
    return float((rows * extra).sum()) / total - middle[0], float((cols * extra).sum()) / total - middle[1]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
@pytest.mark.parametrize("kind", GEOMETRIES)
def test_marks_lie_where_a_radiographer_looks_for_them(kind: str, codes: str, tmp_path: Path) -> None:
    """Row 0 is the head; column 0 the patient's right in AP and PA, the front in the lateral."""
    volume = Volume.load(stored(tmp_path / "ct.nii.gz", codes))
    images = radiographs(volume, GEOMETRIES[kind])

    def place(mark: tuple[slice, slice, slice], view: str) -> tuple[float, float]:
        hu = volume.hu.copy()
        hu[mark] = 0
        without = radiographs(Volume(hu, volume.affine), GEOMETRIES[kind])
        return densest(images[view], without[view])

    # a mark's place in mm from the volume's middle, by hand from the phantom's indices
    right_mm = ((36 + 38) / 2 - 24.5) * 3.0
    front_mm = ((27 + 29) / 2 - 19.5) * 4.0
    low_mm = ((10 + 12) / 2 - 17.5) * 5.0
    head_mm = ((28 + 30) / 2 - 17.5) * 5.0
    right = (slice(36, 39), slice(18, 22), slice(16, 20))
    front = (slice(20, 24), slice(27, 30), slice(10, 13))
    head = (slice(23, 26), slice(15, 18), slice(28, 31))
    per_mm = 1 / 2.2 if kind == "parallel" else 1.25 / 2.7  # pixels; a cone magnifies the middle by SDD / SOD
    for view in ("ap", "pa"):
        assert place(right, view)[1] == pytest.approx(-right_mm * per_mm, rel=0.05)
        assert place(head, view)[0] == pytest.approx(-head_mm * per_mm, rel=0.05)
        assert place(front, view)[0] == pytest.approx(-low_mm * per_mm, rel=0.06)
    assert place(front, "lateral")[1] == pytest.approx(-front_mm * per_mm, rel=0.05)
    assert place(head, "lateral")[0] == pytest.approx(-head_mm * per_mm, rel=0.05)


def test_ap_and_pa_differ_by_the_side_of_the_source(reference: Volume) -> None:
    """Alike for parallel rays; in a cone what is nearer to the source is larger, so the front mark grows in AP."""
    parallel = radiographs(reference, GEOMETRIES["parallel"])
    np.testing.assert_array_equal(parallel["ap"], parallel["pa"])
    hu = reference.hu.copy()
    hu[20:24, 27:30, 10:13] = 0
    without = radiographs(Volume(hu, reference.affine), GEOMETRIES["cone"])
    cone = radiographs(reference, GEOMETRIES["cone"])
    rows = {view: densest(cone[view], without[view])[0] for view in ("ap", "pa")}
    depth_mm = ((27 + 29) / 2 - 19.5) * 4.0
    assert rows["ap"] / rows["pa"] == pytest.approx((800 + depth_mm) / (800 - depth_mm), rel=0.01)
