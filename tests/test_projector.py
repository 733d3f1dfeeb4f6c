"""The projector: matched with its adjoint, exact where there is a closed form, bound to no layout."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from x2ct.errors import InputError
from x2ct.geometry import View, backproject, project
from x2ct.geometry.grid import centred_affine

Array = npt.NDArray[np.float64]


def oblique_affine(shape: tuple[int, ...], spacing: tuple[float, ...], rotvec: tuple[float, ...]) -> Array:
    """A centred grid, turned about its middle."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
    return turn @ centred_affine(shape, spacing)


def rays(name: str, beam: str, shape: tuple[int, int], pitch: float, sod: float, sdd: float) -> tuple[Array, Array]:
    """A point on each pixel's ray and its unit direction, (rows, columns, 3), from the conventions and no matrix.

    Row 0 is the head; column 0 the patient's right in AP and PA, the patient's front in the lateral.
    """
    to_source = {"ap": (0, 1, 0), "pa": (0, -1, 0), "lateral": (1, 0, 0)}[name]
    across = {"ap": (-1, 0, 0), "pa": (-1, 0, 0), "lateral": (0, -1, 0)}[name]
    v, u = np.indices(shape) - (np.array(shape).reshape(2, 1, 1) - 1) / 2
    pixel = pitch * (u[..., None] * np.array(across) + v[..., None] * np.array((0.0, 0.0, -1.0)))
    if beam == "parallel":
        return pixel, np.broadcast_to(-np.array(to_source, float), pixel.shape)
    source = sod * np.array(to_source, float)
    along = pixel - (sdd - sod) * np.array(to_source) - source
    return np.broadcast_to(source, along.shape), along / np.linalg.norm(along, axis=-1, keepdims=True)


def distances(points: Array, directions: Array, centre: Array) -> Array:
    """How far each line passes from a point."""
    return np.linalg.norm(np.cross(points - centre, directions), axis=-1)


def make_view(name: str, beam: str, shape: tuple[int, int], pitch: float, sod: float, sdd: float) -> View:
    if beam == "parallel":
        return View.parallel(name, shape=shape, spacing_mm=(pitch, pitch))
    return View.cone(name, sod_mm=sod, sdd_mm=sdd, shape=shape, spacing_mm=(pitch, pitch))


def adjoint_mismatch(view: View, shape: tuple[int, int, int], affine: Array, seed: int) -> float:
    """| <A a, b> - <a, A^T b> | relative to |A a| |b|."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal(shape, np.float32), rng.standard_normal(view.shape, np.float32)
    seen = project(a, affine, view, threads=1).astype(np.float64)
    spread = backproject(b, shape, affine, view, threads=1).astype(np.float64)
    size = float(np.linalg.norm(seen) * np.linalg.norm(b))
    return abs(float((seen * b).sum() - (a * spread).sum())) / size if size else float(np.abs(spread).max())


VIEWS = [
    View.parallel("ap", shape=(40, 44), spacing_mm=(1.7, 1.9)),
    View.parallel("lateral", shape=(40, 44), spacing_mm=(1.7, 1.9)),
    View.parallel("odd", 33.0, shape=(40, 44), spacing_mm=(1.7, 1.9)),
    View.cone("pa", sod_mm=120, sdd_mm=200, shape=(40, 44), spacing_mm=(2.9, 3.1)),
    View.cone("lateral", sod_mm=120, sdd_mm=200, shape=(40, 44), spacing_mm=(2.9, 3.1), isocentre_mm=(4, -3, 9)),
    View.cone(
        "odd", 47.0, sod_mm=70, sdd_mm=100, shape=(40, 44), spacing_mm=(4.0, 4.0)
    ),  # wide: rays follow three axes
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view.kind}-{view.name}")
@pytest.mark.parametrize("rotvec", [(0.0, 0.0, 0.0), (0.5, -0.3, 0.8)], ids=["straight", "oblique"])
def test_backprojection_is_the_adjoint(view: View, rotvec: tuple[float, ...]) -> None:
    shape = (19, 23, 17)
    assert adjoint_mismatch(view, shape, oblique_affine(shape, (2.1, 1.6, 3.3), rotvec), seed=1) < 1e-5


@settings(max_examples=60, deadline=None)
@given(
    rotvec=st.tuples(*[st.floats(-3, 3)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    numbers=st.tuples(*[st.floats(-1, 1)] * 9),
    source=st.tuples(*[st.floats(-60, 60)] * 3),
    parallel=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_backprojection_is_the_adjoint_for_any_matrix(
    rotvec: tuple[float, ...],
    spacing: tuple[float, ...],
    shape: tuple[int, int, int],
    numbers: tuple[float, ...],
    source: tuple[float, ...],
    parallel: bool,
    seed: int,
) -> None:
    """Matrices without a meaning as a radiograph too: skewed, with the source inside the volume, one voxel thick."""
    left = np.eye(3) + 0.5 * np.array(numbers).reshape(3, 3)
    if parallel:
        left[2] = 0.0
    matrix = np.column_stack([left, -left @ np.array(source) + ([10, 10, 1] if parallel else [0, 0, 0])])
    try:
        view = View("any", matrix, (21, 22), (1.0, 1.0))
    except InputError:
        return  # a matrix of lower rank
    assert adjoint_mismatch(view, shape, oblique_affine(shape, spacing, rotvec), seed) < 1e-5


@pytest.mark.parametrize("view", VIEWS[2:6:3], ids=lambda view: view.kind)
def test_backprojection_has_the_transposed_weights_one_by_one(view: View) -> None:
    shape, small = (4, 3, 5), view.with_detector((7, 6), (12.0, 12.0))
    affine = oblique_affine(shape, (11.0, 14.0, 9.0), (0.3, 0.2, -0.4))
    voxels, pixels = np.eye(60, dtype=np.float32), np.eye(42, dtype=np.float32)
    forward = np.stack([project(voxel.reshape(shape), affine, small, 1).ravel() for voxel in voxels])
    backward = np.stack([backproject(pixel.reshape(7, 6), shape, affine, small, 1).ravel() for pixel in pixels])
    assert (forward > 0).sum() > 100
    np.testing.assert_allclose(forward, backward.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beam", ["parallel", "cone"])
@pytest.mark.parametrize("name", ["ap", "pa", "lateral"])
@pytest.mark.parametrize("rotvec", [(0.0, 0.0, 0.0), (0.4, 0.2, -0.6)], ids=["straight", "oblique"])
def test_gaussian_blob(name: str, beam: str, rotvec: tuple[float, ...]) -> None:
    """Within 0.5% of the maximum of sqrt(2 pi) sigma exp(-d^2 / 2 sigma^2), d the ray's distance from the centre."""
    shape, sigma, centre = (80, 72, 60), 18.0, np.array([9.0, -5.0, 7.0])
    affine = oblique_affine(shape, (2.0, 2.2, 2.5), rotvec)
    places = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    blob = np.exp(-((places - centre) ** 2).sum(-1) / (2 * sigma**2))
    detector = ((61, 71), 3.3, 600.0, 800.0)
    closed = (
        np.sqrt(2 * np.pi) * sigma * np.exp(-(distances(*rays(name, beam, *detector), centre) ** 2) / (2 * sigma**2))
    )
    seen = project(blob, affine, make_view(name, beam, *detector), threads=2)
    assert np.abs(seen - closed).max() < 0.005 * closed.max()


def sphere(shape: tuple[int, int, int], affine: Array, centre: Array, radius: float) -> npt.NDArray[np.float32]:
    """Each voxel holds the part of it that lies inside."""
    steps = [np.arange(n, dtype=np.float32)[:, None] * affine[:3, axis] for axis, n in enumerate(shape)]
    x, y, z = (step.astype(np.float32) for step in steps)
    start = (affine[:3, 3] - centre).astype(np.float32)
    square = sum((start[i] + x[:, None, None, i] + y[None, :, None, i] + z[None, None, :, i]) ** 2 for i in range(3))
    away = np.sqrt(square)
    inside = (away < radius).astype(np.float32)
    edge = np.nonzero(np.abs(away - radius) < 0.87 * np.linalg.norm(affine[:3, 0]))  # half a cube's diagonal
    fine = np.moveaxis(np.indices((4, 4, 4)), 0, -1).reshape(-1, 3) / 4 - 3 / 8
    middle = np.stack(edge, -1) @ affine[:3, :3].T + start
    counted = np.zeros(len(middle))
    for offset in fine @ affine[:3, :3].T:
        counted += ((middle + offset) ** 2).sum(-1) < radius**2
    inside[edge] = counted / len(fine)
    return inside


@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_voxelised_sphere(beam: str) -> None:
    """Within 0.5% RMS of the chords' lengths."""
    shape, radius, centre = (212, 212, 212), 50.0, np.array([1.3, -0.7, 1.1])
    affine = oblique_affine(shape, (0.5, 0.5, 0.5), (0.2, -0.1, 0.3))
    detector = ((81, 81), 1.4, 900.0, 1000.0)
    from_centre = distances(*rays("ap", beam, *detector), centre)
    chord = 2 * np.sqrt(np.maximum(radius**2 - from_centre**2, 0))
    seen = project(sphere(shape, affine, centre, radius), affine, make_view("ap", beam, *detector), threads=2)
    assert np.sqrt(np.mean((seen - chord) ** 2)) < 0.005 * np.sqrt(np.mean(chord**2))


def test_air_around_a_volume_changes_nothing() -> None:
    mu, spacing = np.random.default_rng(5).random((9, 8, 7), np.float32), (3.0, 2.0, 4.0)
    padded = np.pad(mu, 2)
    for view in VIEWS:
        bare = project(mu, centred_affine(mu.shape, spacing), view)
        assert bare.max() > 1
        np.testing.assert_allclose(project(padded, centred_affine(padded.shape, spacing), view), bare, atol=2e-5)


def test_threads_change_no_bit() -> None:
    shape = (21, 40, 33)
    affine = oblique_affine(shape, (2.0, 1.5, 1.0), (0.1, 0.2, 0.3))
    rng = np.random.default_rng(6)
    for view in VIEWS:
        volume, image = rng.random(shape, np.float32), rng.random(view.shape, np.float32)
        seen = [project(volume, affine, view, threads=n).tobytes() for n in (1, 2, 5, 0)]
        spread = [backproject(image, shape, affine, view, threads=n).tobytes() for n in (1, 2, 5, 0)]
        assert len(set(seen)) == 1
        assert len(set(spread)) == 1


def test_the_memory_order_of_a_volume_changes_nothing() -> None:
    volume = np.random.default_rng(7).random((9, 8, 7))
    affine = centred_affine(volume.shape, (3.0, 2.0, 4.0))
    straight = project(np.ascontiguousarray(volume, np.float32), affine, VIEWS[3])
    np.testing.assert_array_equal(project(np.asfortranarray(volume), affine, VIEWS[3]), straight)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda view, affine: project(np.zeros((4, 4), np.float32), affine, view), "volume: shape"),
        (lambda view, affine: project(np.zeros((0, 4, 4), np.float32), affine, view), "volume: shape"),
        (lambda view, affine: project(np.zeros((4, 4, 4), np.float32), affine[:3], view), "index_to_mm: shape"),
        (lambda view, affine: project(np.zeros((4, 4, 4), np.float32), affine * 0, view), "index_to_mm"),
        (lambda view, affine: project(np.zeros((4, 4, 4), np.float32), affine * np.nan, view), "index_to_mm"),
        (lambda view, affine: project(np.zeros((4, 4, 4), np.float32), affine, view, threads=-1), "threads"),
        (lambda view, affine: backproject(np.zeros((4, 4), np.float32), (4, 4, 4), affine, view), "image shape"),
        (lambda view, affine: backproject(np.zeros(view.shape, np.float32), (4, 0, 4), affine, view), "volume: shape"),
    ],
)
def test_what_cannot_be_projected_is_refused(call, names: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=names) as refused:
        call(VIEWS[0], centred_affine((4, 4, 4), (1.0, 1.0, 1.0)))
    assert "\n" not in str(refused.value)
