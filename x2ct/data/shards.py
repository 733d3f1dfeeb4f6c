"""Training shards: a folder of memory-mapped CTs and the JSON index that says who they are.

`index.json` lists the patients; `ID.npy` holds one whole body each, int16 HU (x, y, z), at its own spacing. Each
patient's `index_to_mm` places the body in the grid's patient mm, so that any grid, pose and X-ray can be computed from
it later.

A patient table is a CSV that says how each patient of a folder is used, and why one is not. BIDS' `participants.tsv` is
one too: `participant_id` names the patient, whose CTs are `sub-ID` and `sub-ID_*`, "n/a" is nothing, and columns that
are not ours, such as `age`, are passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.files.text import convert, decode_json, read_table
from x2ct.geometry import Geometry, attenuation
from x2ct.geometry.grid import Grid
from x2ct.io.report import sha256
from x2ct.render.drr import calibrated

SCHEMA = 1
INDEX = "index.json"
AIR_HU = -1000
SPLITS = ("train", "validation")
REGIONS = ("chest", "other")
LEAVE_OUT = "leave-out"
COLUMNS = ("id", "split", "region", "reason", "source", "licence")
"""The columns of a patient table. `id` is required; `source` and `licence` are for model cards and are not read."""

FloatArray = npt.NDArray[np.float64]
VolumeArray = npt.NDArray[np.float32]
_Point = tuple[float, float, float]
_Row = tuple[float, float, float, float]


@dataclass(frozen=True)
class Patient:
    """One patient's CT in a shard folder."""

    id: str  # the patient's name in this folder (never a patient identifier)
    split: str  # "train" or "validation"
    file: Path  # the `.npy` with int16 HU (x, y, z), RAS+; table and padding are -1000
    shape: tuple[int, int, int]
    index_to_mm: FloatArray  # 4x4, voxel index -> patient mm of the grid (origin at the grid's centre)
    region: str  # "chest" if both or one lung of plausible size were found, else "other"
    lungs_mm: FloatArray | None  # the lungs' bounding box in patient mm, ((x, y, z) low, (x, y, z) high)
    body_mm: FloatArray | None  # the body's
    sha256: str  # checksum of `file`
    details: Mapping[str, Any]  # the whole index entry, with the source and the options that it was made with

    def hu(self) -> npt.NDArray[np.int16]:
        """Return the whole body, int16 HU (x, y, z), as a read-only memory map.

        Raises InputError: the file is missing, or its shape or type contradicts the index.
        """
        try:
            volume: npt.NDArray[np.int16] = np.load(self.file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError.of(self.file, "shard", found=error, expected="an int16 .npy array") from None
        if volume.dtype != np.int16 or volume.shape != self.shape:
            found = f"{volume.dtype} {volume.shape}"
            raise InputError.of(self.file, "shard", found=found, expected=f"int16 {self.shape} as the index says")
        return volume

    def xrays(self, geometry: Geometry, threads: int = 0) -> dict[str, Any]:
        """Return X-rays by view, as `Sampler.run` takes them: line integrals through the whole CT."""
        images = geometry.project(attenuation(self.hu()), self.index_to_mm, threads)
        return calibrated(geometry, images, self.id)

    def verify(self) -> None:
        """Raise InputError where the file is missing or has changed since `prepare` wrote it."""
        found = sha256(self.file)
        if found != self.sha256:
            raise InputError.of(self.file, "sha256", found=found, expected=self.sha256, hint="prepare it again")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel pitch along the array's axes."""
        x, y, z = (float(s) for s in np.linalg.norm(self.index_to_mm[:3, :3], axis=0))
        return x, y, z


class _Entry(msgspec.Struct):
    """The fields that a patient's entry must have; `prepare` writes more. See `Patient`."""

    id: str
    file: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.npy$")]
    split: Literal["train", "validation"]
    shape: tuple[int, int, int]
    index_to_mm: tuple[_Row, _Row, _Row, _Row]
    sha256: str
    region: str = "other"
    lungs_mm: tuple[_Point, _Point] | None = None
    body_mm: tuple[_Point, _Point] | None = None


@dataclass(frozen=True)
class ShardSet:
    """An opened shard folder: its grid and its patients."""

    path: Path
    grid: Grid
    patients: tuple[Patient, ...]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ShardSet:
        """Read and check a folder's index; the volumes stay on disk until asked for.

        Raises InputError: no index, a schema that this version doesn't know, a wrong field, or a missing file.
        """
        folder = Path(path)
        index = read_index(folder)
        patients = tuple(patient_of(folder, entry) for entry in index.patients)
        if not patients:
            raise InputError.of(folder, "people", found="none", expected="at least one", hint="run x2ct prepare")
        return cls(folder, index.grid, patients)

    def select(self, split: str, region: str | None = None) -> tuple[Patient, ...]:
        """Return the patients of a split ("train", "validation") and, if one is named, a region ("chest", "other")."""
        if split not in SPLITS:
            raise InputError.of("shards", "split", found=split, expected=" or ".join(SPLITS))
        return tuple(p for p in self.patients if p.split == split and region in (None, p.region))


def resample(patient: Patient, grid: Grid) -> VolumeArray:
    """Return a patient's CT on a grid, float32 HU (X, Y, Z); see `resample_array`."""
    return resample_array(patient.hu(), patient.index_to_mm, grid)


def resample_array(hu: npt.NDArray[Any], index_to_mm: npt.ArrayLike, grid: Grid) -> VolumeArray:
    """Return a volume, HU (x, y, z), on a grid: float32 HU; outside the volume is air, -1000.

    Trilinear, smoothed first along the axes that the grid samples more coarsely, by a Gaussian with the variance by
    which the grid voxel's box exceeds the source voxel's, (w^2 - s^2) / 12, so that a coarse voxel is close to the mean
    over what it covers and an equal or finer grid is left sharp. `index_to_mm` is 4x4, voxel index -> patient mm.
    """
    mm_to_index = np.linalg.inv(np.asarray(index_to_mm, np.float64))
    step = mm_to_index @ grid.index_to_mm
    width = np.linalg.norm(step[:3, :3], axis=1)  # of one grid step along each source axis, in source voxels
    sigma = np.sqrt(np.maximum(width**2 - 1.0, 0.0) / 12.0)
    volume = np.asarray(hu, np.float32)
    if np.any(sigma > 0.1):
        volume = ndimage.gaussian_filter(volume, np.where(sigma > 0.1, sigma, 0.0), mode="nearest", truncate=3.0)
    sampled = ndimage.affine_transform(
        volume, step[:3, :3], step[:3, 3], grid.shape, np.float32, order=1, mode="grid-constant", cval=AIR_HU
    )
    return np.asarray(sampled, np.float32)


class Index(msgspec.Struct, frozen=True):
    """An index: the grid that it suggests to trainers, and the entries, which `patient_of` reads."""

    schema: int
    grid: Grid
    patients: list[dict[str, Any]] = msgspec.field(name="people")


def read_index(folder: Path) -> Index:
    """Return a folder's index. Raises InputError: missing, no JSON, another schema, or without grid and patients."""
    path = folder / INDEX
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        hint = "make it with x2ct prepare"
        raise InputError.of(folder, "shards", found=f"no {INDEX}", expected="a shard folder", hint=hint) from None
    except OSError as error:
        raise InputError.of(path, "index", found=error, expected="a JSON file") from None
    schema = decode_json(path, data, dict[str, Any]).get("schema")
    if schema != SCHEMA:
        raise InputError.of(path, "schema", found=schema, expected=SCHEMA)
    return decode_json(path, data, Index)


def write_index(
    folder: Path, grid: Grid, patients: list[dict[str, Any]], left_out: Iterable[tuple[str, str]] = ()
) -> None:
    """Write a folder's index whole or not at all; `left_out` has (id, reason) of patients left out by a table."""
    text = json.dumps(
        {
            "schema": SCHEMA,
            "grid": {"shape": list(grid.shape), "spacing_mm": list(grid.spacing_mm)},
            "people": sorted(patients, key=lambda entry: str(entry["id"])),
            "left_out": [{"id": name, "reason": reason} for name, reason in sorted(left_out)],
        },
        indent=1,
    )
    atomic.write_atomically(folder / INDEX, f"{text}\n".encode())


def patient_of(folder: Path, entry: dict[str, Any]) -> Patient:
    """Read one entry of a folder's index. Raises InputError: a field or the shard is missing, or of the wrong kind."""
    source = folder / INDEX
    facts = convert(source, entry, _Entry)
    if not (folder / facts.file).is_file():
        found, hint = "missing", "run x2ct prepare again"
        raise InputError.of(folder / facts.file, "file", found=found, expected="a shard", hint=hint)
    affine = np.asarray(facts.index_to_mm, np.float64)
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine)) < 1e-9:
        expected = "an invertible 4x4 matrix"
        raise InputError.of(source, f"{facts.id}.index_to_mm", found=affine.tolist(), expected=expected)
    lungs, body = (None if box is None else np.asarray(box, np.float64) for box in (facts.lungs_mm, facts.body_mm))
    arrays = {"index_to_mm": affine, "lungs_mm": lungs, "body_mm": body}
    return Patient(**msgspec.structs.asdict(facts) | arrays | {"file": folder / facts.file, "details": entry})


@dataclass(frozen=True)
class Mark:
    """How one patient is used."""

    split: str = ""  # "train", "validation" or "leave-out"; empty leaves the choice to `prepare`
    region: str = ""  # "chest" or "other"; empty keeps the region that `prepare` finds
    reason: str = ""  # why the patient is left out, or any other remark


def read_patients(path: str | os.PathLike[str], ids: Collection[str]) -> dict[str, Mark]:
    """Return the marks by id of the patients that a table names; `ids` are those of all that are there.

    The table is a CSV in UTF-8 whose first line names its columns, see `COLUMNS`; or BIDS' participants.tsv. Raises
    InputError: no such file, no table, an unknown column, a split or region that does not exist, an id that is unknown
    or there twice, or a patient left out without a reason.
    """
    source = Path(path)
    bids = source.suffix.lower() == ".tsv"  # as BIDS' participants.tsv is
    key = "participant_id" if bids else "id"
    columns, table = read_table(source, None if bids else COLUMNS)
    if key not in columns:
        raise InputError.of(source, "columns", found=", ".join(columns) or "none", expected=f"{key}, and split")
    marks, names = dict[str, Mark](), set[str]()
    for number, row in enumerate(table, 2):
        where, name = f"{source}: line {number}", row[key]
        if name in names:
            raise InputError.of(where, key, found=f"{name} again", expected="one line for each patient")
        names.add(name)
        texts = (row.get(field, "") for field in ("split", "region", "reason"))
        mark = Mark(*("" if bids and text == "n/a" else text for text in texts))
        cts = [each for each in ids if each == name or (bids and each.startswith(f"{name}_"))]
        if bids and not cts and mark == Mark():
            continue  # a participant without a CT, of whom nothing is asked
        if not cts:
            raise InputError.of(where, key, found=name or "none", expected=f"one of {', '.join(sorted(ids))}")
        for field, value, allowed in (("split", mark.split, (*SPLITS, LEAVE_OUT)), ("region", mark.region, REGIONS)):
            if value and value not in allowed:
                raise InputError.of(where, field, found=value, expected=f"{', '.join(allowed)}, or nothing")
        if mark.split == LEAVE_OUT and not mark.reason:
            raise InputError.of(where, "reason", found="none", expected=f"why {name} is left out")
        marks |= dict.fromkeys(cts, mark)
    return marks
