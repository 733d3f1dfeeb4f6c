"""What of a CT is the patient: the body without table and padding, and where the lungs lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from x2ct.data.shards import AIR_HU, FloatArray

BoolArray = npt.NDArray[np.bool_]

TISSUE_HU = -500  # between lung (about -800) or foam, and fat (about -100)
BONE_HU = 150  # above soft tissue; contrast in vessels and bowel reaches it too
OPENING_MM = 6.0  # radius of the opening: table tops, tubes and clothes are thinner than 12 mm, a limb is not
SMALLEST_LUNG_MM2 = 1500.0  # a slice through a lung is larger; a pocket of air and cloth under a back is smaller

HULL_GROWTH = 0.5
"""A lost lung may widen the body's convex hull by this share of itself; a table's hollow widens it by all of itself."""

LUNG_LITRES = 1.0  # less air than this inside a body is bowel gas or the lungs' bases


@dataclass(frozen=True)
class Body:
    """One patient, ready to be projected and resampled."""

    hu: npt.NDArray[np.int16]  # (x, y, z), in [-1000, 3000]; -1000 beside the body, unless the couch was kept
    index_to_mm: FloatArray  # 4x4, voxel index -> patient mm of the grid, whose origin is the anatomy's centre
    region: str  # "chest" if lungs were found, else "other"
    lungs_mm: FloatArray | None  # (2, 3) bounding box of the lungs in patient mm
    body_mm: FloatArray  # (2, 3) bounding box of the body in patient mm
    bone_share: float  # share of the body's voxels above `BONE_HU`
    origin: FloatArray  # 4x4, patient mm -> the source's world mm (a translation)


def body_mask(hu: npt.NDArray[Any], spacing_mm: tuple[float, float, float]) -> BoolArray:
    """Return the body in a CT, with its lungs, airways and bowel gas inside, without the table.

    Threshold; an opening with a disc in each slice, which cuts the table's thin shells off; the largest connected
    piece; grown back to the tissue that the opening shaved off, and to the lungs where their wall is as thin as a
    shell; then the holes of each slice filled.

    The mask has the shape of `hu`, (x, y, z) with z along the body; it is empty without tissue as thick as a body.
    """
    tissue = np.asarray(hu) > TISSUE_HU
    core = np.stack([_erode(tissue[:, :, k], spacing_mm, OPENING_MM) for k in range(tissue.shape[2])], axis=2)
    labels, sizes = _pieces(core)
    body, missing = np.zeros(tissue.shape, np.bool_), np.zeros(tissue.shape, np.bool_)
    if not sizes.any():
        return body
    core = labels == int(np.argmax(sizes))
    for k in range(tissue.shape[2]):
        # A pixel more than was eroded: the skin's own blurred edge belongs to the body.
        grown = tissue[:, :, k] & _dilate(core[:, :, k], spacing_mm, OPENING_MM + max(spacing_mm[:2]))
        body[:, :, k] = ndimage.binary_fill_holes(grown)
        missing[:, :, k] = ndimage.binary_fill_holes(tissue[:, :, k]) & ~tissue[:, :, k] & ~body[:, :, k]
    # In thin patients the chest wall beside a lung is thinner than the opening, which then leaves the lung outside.
    lungs = _lost_lungs(np.asarray(hu), missing, body, spacing_mm)
    for k in range(tissue.shape[2]):
        if not lungs[:, :, k].any():
            continue
        wall = tissue[:, :, k] & _dilate(lungs[:, :, k], spacing_mm, 2 * OPENING_MM)
        body[:, :, k] = ndimage.binary_fill_holes(body[:, :, k] | lungs[:, :, k] | wall)
    return body


def lung_mask(hu: npt.NDArray[Any], body: BoolArray, spacing_mm: tuple[float, float, float]) -> BoolArray | None:
    """Return the one or two largest pieces of lung-like air in the body; None if they are too small to be lungs.

    They end with the first and the last slice that holds `SMALLEST_LUNG_MM2` of them, so that the windpipe above the
    lungs, of which a scan holds more or less, does not count.
    """
    labels, sizes = _pieces(body & (np.asarray(hu) < TISSUE_HU))
    litres = sizes * float(np.prod(spacing_mm)) * 1e-6
    lungs = np.zeros(body.shape, np.bool_)
    for label in np.argsort(litres)[::-1][:2]:
        piece = labels == label
        if litres[label] >= 0.2 * LUNG_LITRES and _is_lung(hu[piece]):
            lungs |= piece
    if float(lungs.sum()) * float(np.prod(spacing_mm)) * 1e-6 < LUNG_LITRES:
        return None
    large = np.flatnonzero(lungs.sum(axis=(0, 1)) * spacing_mm[0] * spacing_mm[1] >= SMALLEST_LUNG_MM2)
    if not len(large):
        return None
    lungs[:, :, : large[0]] = lungs[:, :, large[-1] + 1 :] = False
    return lungs


def extract_body(
    hu: npt.NDArray[Any], affine: npt.ArrayLike, centre: str = "lungs", keep_couch: bool = False
) -> Body | None:
    """Return a CT's patient, centred for the grid; None if no body is found.

    The grid's axes are the world's (RAS+), so that an oblique or sheared scan keeps its true shape. x and y: the
    median over the slices of the middle of the body's extent, which an arm or a cut edge in a few slices does not
    move. z: the middle of the lungs (`centre` "lungs", where there are some), else of the body. With `centre` "file"
    the middle of the volume is the centre; where the couch is kept too, no body is needed. `affine` is 4x4, voxel index
    -> world mm.
    """
    matrix = np.asarray(affine, np.float64)
    x, y, z = (float(s) for s in np.linalg.norm(matrix[:3, :3], axis=0))
    body = body_mask(hu, (x, y, z))
    if not body.any():
        if centre != "file" or not keep_couch:
            return None
        body = np.ones(body.shape, np.bool_)
    lungs = lung_mask(hu, body, (x, y, z))
    if centre == "file":
        middle = (np.array(body.shape) - 1) / 2
    else:
        focus = np.flatnonzero((lungs if lungs is not None and centre == "lungs" else body).any(axis=(0, 1)))
        low, high = int(focus[0]), int(focus[-1])
        middles = [_middle(body[:, :, k]) for k in range(low, high + 1) if body[:, :, k].any()]
        middle = np.array([*np.median(np.array(middles), axis=0), (low + high) / 2])
    origin = np.eye(4)
    origin[:3, 3] = (matrix @ [*middle, 1.0])[:3]
    index_to_mm = np.linalg.inv(origin) @ matrix
    clean = np.where(body | keep_couch, np.clip(hu, AIR_HU, 3000), AIR_HU)
    return Body(
        hu=np.ascontiguousarray(np.round(clean).astype(np.int16)),
        index_to_mm=index_to_mm,
        region="other" if lungs is None else "chest",
        lungs_mm=None if lungs is None else _box_mm(lungs, index_to_mm),
        body_mm=_box_mm(body, index_to_mm),
        bone_share=float((hu[body] > BONE_HU).mean()),
        origin=origin,
    )


def coarsen(
    hu: npt.NDArray[Any], affine: npt.ArrayLike, finest_mm: float
) -> tuple[npt.NDArray[np.float32], FloatArray]:
    """Bring the axes that are finer than `finest_mm` there (smoothed as in `resample_array`); leave the others alone.

    Returns float32 HU and its affine. The outer faces of the volume stay where they were.
    """
    matrix = np.array(affine, np.float64)
    volume = np.asarray(hu, np.float32)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    for axis in range(3):
        ratio = finest_mm / float(spacing[axis])
        count = int(volume.shape[axis] / ratio)
        if ratio <= 1.0 + 1e-3 or count < 1:
            continue
        sigma = ((ratio**2 - 1.0) / 12.0) ** 0.5
        smooth = ndimage.gaussian_filter1d(volume, sigma, axis=axis, mode="nearest", truncate=3.0)
        first = (volume.shape[axis] - 1 - (count - 1) * ratio) / 2
        scale, offset, shape = np.ones(3), np.zeros(3), list(volume.shape)
        scale[axis], offset[axis], shape[axis] = ratio, first, count
        volume = ndimage.affine_transform(smooth, scale, offset, tuple(shape), np.float32, order=1, mode="nearest")
        matrix[:3, 3] += matrix[:3, axis] * first
        matrix[:3, axis] *= ratio
    return volume, matrix


def _pieces(mask: BoolArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the connected pieces' labels by voxel, and their sizes in voxels by label; 0 for the background."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels, sizes


def _lost_lungs(
    hu: npt.NDArray[Any], missing: BoolArray, body: BoolArray, spacing_mm: tuple[float, float, float]
) -> BoolArray:
    # The missing air that is lung by its HU, size and place: a lung that was lost leaves a hollow in the body, while a
    # table lies beside the body, whose convex hull would have to grow to hold the table's hollow.
    labels, count = ndimage.label(missing)
    lungs = np.zeros(missing.shape, np.bool_)
    for label, place in enumerate(ndimage.find_objects(labels, count), 1):
        piece = labels[place] == label
        largest_mm2 = piece.sum(axis=(0, 1)).max() * spacing_mm[0] * spacing_mm[1]
        if largest_mm2 < SMALLEST_LUNG_MM2 or not _is_lung(hu[place][piece]):
            continue
        growth = 0.0
        for k in range(place[2].start, place[2].stop):
            growth += _hull_area(body[:, :, k] | (labels[:, :, k] == label)) - _hull_area(body[:, :, k])
        if growth < HULL_GROWTH * float(piece.sum()):
            lungs[place] |= piece
    return lungs


def _hull_area(mask: BoolArray) -> float:
    points = np.argwhere(mask)
    if len(points) < 3 or np.any(np.ptp(points, axis=0) == 0):
        return 0.0
    return float(spatial.ConvexHull(points).volume)  # in two dimensions, "volume" is the area


def _is_lung(hu: npt.NDArray[Any]) -> bool:
    # Lungs keep some blood and walls in nearly every voxel. Air outside and gas in the bowel are -1000, but for noise.
    return float(np.percentile(hu, 25)) > -970 and float(np.median(hu)) < -600


def _erode(mask: BoolArray, spacing_mm: tuple[float, float, float], radius_mm: float) -> BoolArray:
    # The array's border is no edge of the body: a cut field of view must not lose a rim.
    if mask.all():
        return mask
    return np.asarray(ndimage.distance_transform_edt(mask, spacing_mm[:2]) > radius_mm)


def _dilate(mask: BoolArray, spacing_mm: tuple[float, float, float], radius_mm: float) -> BoolArray:
    return ~_erode(~mask, spacing_mm, radius_mm)


def _middle(plane: BoolArray) -> tuple[float, float]:
    columns, rows = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
    return float(columns[0] + columns[-1]) / 2, float(rows[0] + rows[-1]) / 2


def _box_mm(mask: BoolArray, index_to_mm: FloatArray) -> FloatArray:
    spans = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))[[0, -1]] for axis in range(3)]
    corners = np.array(np.meshgrid(*spans, indexing="ij")).reshape(3, -1)
    points = index_to_mm[:3, :3] @ corners + index_to_mm[:3, 3:]
    return np.stack([points.min(axis=1), points.max(axis=1)])
