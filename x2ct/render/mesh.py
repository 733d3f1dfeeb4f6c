"""The surface of a CT at a HU threshold, as a triangle mesh in STL, PLY or OBJ files.

Coordinates are mm in the CT's own world, LPS (as DICOM and 3D Slicer count) unless RAS (as NIfTI and x2ct's volumes) is
chosen; a comment in each file says which ("SPACE=LPS"), which 3D Slicer reads.

The surface is that of Lewiner et al., "Efficient implementation of Marching Cubes' cases with topological guarantees"
(Journal of Graphics Tools 8(2), 2003), by scikit-image. It is closed, also where it meets the border of the CT, and
each edge belongs to two triangles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import marching_cubes

from x2ct.bundle.intensity import BONE_HU
from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.io.ct.volume import LPS_TO_RAS, SYNTHETIC, Volume
from x2ct.io.report import file_record

SUFFIXES = (".stl", ".ply", ".obj")
COORDINATES = {"lps": LPS_TO_RAS, "ras": np.eye(4)}
"""What a mesh can count in, each with the 4x4 that takes RAS mm to it (negating x and y undoes itself)."""

MARGIN_HU = 1.0
"""Voxels nearer to the threshold are moved to this distance from it: triangles at a voxel would have no area."""
TIE_HU = 0.01
"""Each voxel is raised by a pseudo-random amount below this: of equal values no side of a saddle is the higher one."""
LARGEST_SMOOTHING_MM = 50.0


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed surface of triangles."""

    vertices: npt.NDArray[np.float32]  # (n, 3) float32, mm
    triangles: npt.NDArray[np.int32]  # (m, 3) int32, indices of vertices, counter-clockwise when seen from outside
    coordinates: str = "lps"  # one of `COORDINATES`
    comment: str = ""  # one ASCII line that goes into files

    @property
    def area_mm2(self) -> float:
        """Return the surface's area."""
        return float(np.linalg.norm(self._normals(), axis=1).sum() / 2)

    @property
    def volume_mm3(self) -> float:
        """The volume that the surface encloses, without its cavities, by the divergence theorem."""
        corners = self.vertices[self.triangles[:, 0]] - self.vertices.mean(axis=0, dtype=np.float64)
        return float(np.einsum("ij,ij->", corners, self._normals()) / 6)

    def _normals(self) -> npt.NDArray[np.float64]:
        """Return (m, 3) outward normals, twice as long as each triangle's area."""
        a, b, c = (self.vertices[self.triangles[:, corner]].astype(np.float64) for corner in range(3))
        return np.cross(b - a, c - a)


def surface(
    volume: Volume,
    hu: float = BONE_HU,
    *,
    smooth_mm: float = 0.0,
    keep_largest: bool = False,
    min_volume_mm3: float = 0.0,
    coordinates: str = "lps",
) -> Mesh:
    """Return the surface that encloses all voxels of at least `hu`, closed at the outer faces of border voxels.

    With `smooth_mm`, the HU are blurred by a Gaussian of that standard deviation first; what is thinner vanishes.
    `keep_largest` leaves out all pieces but the one with the most voxels, `min_volume_mm3` those whose voxels have less
    volume; voxels that touch, be it at a corner, are of one piece. `coordinates` is one of `COORDINATES`.

    Raises InputError: no voxel is on one side of the threshold, no piece is large enough, or an argument is out of
    range.
    """
    if coordinates not in COORDINATES:
        raise InputError.unknown("--coordinates", "value", found=coordinates, known=COORDINATES)
    if not 0 <= min_volume_mm3 < math.inf:
        raise InputError.of("--min-volume", "value", found=min_volume_mm3, expected="0 mm^3 or more")
    excess = _excess(volume, hu, smooth_mm)
    if keep_largest or min_volume_mm3:
        _remove_pieces(excess, volume, keep_largest, min_volume_mm3)
    excess += np.random.default_rng(0).random(excess.shape, np.float32) * np.float32(TIE_HU)
    # By the right-hand rule, "ascent" faces outward for an object above the threshold; a mirrored grid turns it round.
    affine = COORDINATES[coordinates] @ volume.affine
    direction = "ascent" if np.linalg.det(affine[:3, :3]) > 0 else "descent"
    indices, triangles, _, _ = marching_cubes(_bordered(excess), 0.0, gradient_direction=direction)  # type: ignore[no-untyped-call]
    vertices = (indices.astype(np.float64) - 1) @ affine[:3, :3].T + affine[:3, 3]
    text = f"x2ct SPACE={coordinates.upper()}, mm, {hu:g} HU" + (f"; {SYNTHETIC}" if volume.synthetic else "")
    return Mesh(vertices.astype(np.float32), np.ascontiguousarray(triangles, np.int32), coordinates, text)


def save(path: str | PathLike[str], mesh: Mesh) -> Path:
    """Write a mesh in the format of the path's ending, whole or not at all. The same mesh gives the same bytes.

    STL is binary and has each triangle's corners and normal; binary PLY and OBJ have vertices and triangles. Each keeps
    the vertices to the bit. Raises InputError for an ending that is none of `SUFFIXES` or a place that can't be
    written, and X2CTError where the write fails on the way.
    """
    target = atomic.check_writable(path, SUFFIXES)
    return atomic.write_atomically(target, _FORMATS[target.suffix.lower()](mesh))


def mesh_files(
    ct: str | PathLike[str], path: str | PathLike[str], hu: float = BONE_HU, **options: Any
) -> dict[str, Any]:
    """Read a CT, write its surface with the `options` of `surface`, and return the report.

    Raises X2CTError, any of the family; nothing has been written then.
    """
    target, volume = atomic.check_writable(path, SUFFIXES), Volume.load(ct)
    mesh = surface(volume, hu, **options)
    save(target, mesh)
    return {
        "hu": hu,
        "coordinates": mesh.coordinates,
        "vertices": len(mesh.vertices),
        "triangles": len(mesh.triangles),
        "area_mm2": mesh.area_mm2,
        "volume_mm3": mesh.volume_mm3,
        "assumptions": list(volume.notes),
        "warnings": [],
        "outputs": [file_record(target)],
    }


def summary(report: Mapping[str, Any]) -> str:
    """Return what `mesh_files` did as one line."""
    size = f"{report['triangles']} triangles around {report['volume_mm3'] / 1000:.4g} ml"
    return f"{report['outputs'][0]['file']}: {size} of at least {report['hu']:g} HU, {report['coordinates'].upper()} mm"


def _excess(volume: Volume, hu: float, smooth_mm: float) -> npt.NDArray[np.float32]:
    """Return HU above the threshold, none of them nearer to 0 than `MARGIN_HU`, as an array of its own."""
    if not 0 <= smooth_mm <= LARGEST_SMOOTHING_MM:
        raise InputError.of("--smooth", "value", found=smooth_mm, expected=f"0 to {LARGEST_SMOOTHING_MM:g} mm")
    values = volume.hu
    if smooth_mm:
        values = ndimage.gaussian_filter(values, [smooth_mm / side for side in volume.spacing_mm], mode="nearest")
    lowest, highest = float(values.min()), float(values.max())
    if not lowest < hu <= highest:
        found = f"{lowest:g} to {highest:g}" + (f" after smoothing by {smooth_mm:g} mm" if smooth_mm else "")
        hint = "choose --hu within that range"
        raise InputError.of(volume.source, "HU", found=found, expected=f"some on either side of {hu:g}", hint=hint)
    excess = values - np.float32(hu)
    inside = values >= hu
    np.maximum(excess, np.float32(MARGIN_HU), out=excess, where=inside)
    np.minimum(excess, np.float32(-MARGIN_HU), out=excess, where=~inside)
    return excess


def _remove_pieces(excess: npt.NDArray[np.float32], volume: Volume, keep_largest: bool, min_volume_mm3: float) -> None:
    """Put pieces that are too small below the threshold, in place.

    Pieces do not touch, so no cube of eight voxels has corners in two: the surface of the others stays as it is.
    """
    labels, count = ndimage.label(excess > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * abs(np.linalg.det(volume.affine[:3, :3]))
    if sizes.max() < min_volume_mm3:
        found, expected = f"{count}, the largest of {sizes.max():.4g} mm^3", f"one of at least {min_volume_mm3:g} mm^3"
        raise InputError.of(volume.source, "pieces", found=found, expected=expected, hint="choose another --min-volume")
    large = np.arange(count) == sizes.argmax() if keep_largest else sizes >= min_volume_mm3
    excess[np.concatenate([[False], ~large])[labels]] = -MARGIN_HU


def _bordered(excess: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the values within a layer of voxels below the threshold: the mirror image of those at the border above it.

    Halfway between the two, which is the border voxels' outer face, lies the surface.
    """
    padded = np.pad(excess, 1, mode="edge")
    for axis in range(3):
        for end in (0, -1):
            layer = np.moveaxis(padded, axis, 0)[end]
            np.negative(np.abs(layer), out=layer)
    return padded


def _stl(mesh: Mesh) -> Iterator[bytes]:
    """Yield a binary STL: 80 bytes of text, the number of triangles, 50 bytes for each."""
    records = np.zeros(len(mesh.triangles), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    normals = mesh._normals()
    records["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    records["corners"] = mesh.vertices[mesh.triangles]
    yield mesh.comment.encode("ascii")[:80].ljust(80)
    yield len(records).to_bytes(4, "little")
    yield records.tobytes()


def _ply(mesh: Mesh) -> Iterator[bytes]:
    """Yield a PLY 1.0, binary little-endian, with float32 vertices and int32 indices."""
    faces = np.zeros(len(mesh.triangles), [("corners", "u1"), ("indices", "<i4", 3)])
    faces["corners"], faces["indices"] = 3, mesh.triangles
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"comment {mesh.comment}\n"
        f"element vertex {len(mesh.vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    yield header.encode("ascii")
    yield mesh.vertices.astype("<f4").tobytes()
    yield faces.tobytes()


def _obj(mesh: Mesh) -> Iterator[bytes]:
    """Yield an OBJ: a line for each vertex, with all digits of a float32, and each triangle, counted from 1."""
    yield f"# {mesh.comment}\n".encode("ascii")
    for line, rows in (("v %.9g %.9g %.9g\n", mesh.vertices), ("f %d %d %d\n", mesh.triangles + 1)):
        for start in range(0, len(rows), 65536):
            block = rows[start : start + 65536]
            yield (line * len(block) % tuple(block.ravel().tolist())).encode("ascii")


_FORMATS = {".stl": _stl, ".ply": _ply, ".obj": _obj}
