"""How patients differ in shape: each chest of a shard folder registered to one of them, once, by SimpleITK.

With these displacements a study can give a patient part of another's shape: `AugmentConfig.shape`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from x2ct.data.shards import Patient, resample
from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.geometry.grid import Grid

FILE = "shapes.npz"
METHOD = 1  # raised when the same shards would give other displacements

REGISTERED = Grid((80, 80, 80), (5.0, 5.0, 5.0))
NODES = Grid((20, 20, 20), (20.0, 20.0, 20.0))
HU = (-1000.0, 400.0)  # from air to bone
LEVELS = ((4, 60), (2, 40), (1, 20))  # factor by which a level is coarser than `REGISTERED`, and its iterations
SMOOTHED_MM = 15.0  # standard deviation of the Gaussian that keeps the displacements smooth, on the finest level
Progress = Callable[[int, int, str], None]  # called with (patients done, patients in all, what is being worked on)

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shapes:
    """Displacements of some patients."""

    ids: tuple[str, ...]
    # float32 [P, 3, 20, 20, 20], at the voxels of `NODES`: where the reference has its point x, patient p has the same
    # anatomy at x + displacement_mm[p](x).
    displacement_mm: FloatArray

    @classmethod
    def load(cls, folder: Path) -> Shapes:
        """Read a shard folder's displacements. Raises InputError: there are none, or the file is damaged."""
        path = folder / FILE
        hint = "make it with x2ct prepare --shapes"
        try:
            with np.load(path, allow_pickle=False) as file:
                shapes = cls(tuple(file["ids"].tolist()), np.asarray(file["displacement_mm"], np.float32))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError.of(path, "file", found=error, expected="displacements", hint=hint) from None
        expected = (len(shapes.ids), 3, *NODES.shape)
        if shapes.displacement_mm.shape != expected:
            raise InputError.of(path, "shape", found=shapes.displacement_mm.shape, expected=expected, hint=hint)
        return shapes

    def between(self, patient: str, other: str, part: float) -> FloatArray:
        """Return how far a patient's points lie from where they are in a shape part of the way to another's.

        In mm at the voxels of `NODES`, float32 [3, 20, 20, 20]: to first order, what lies at y in that shape lies at
        y + displacement(y) in the patient.
        """
        own, others = (self.displacement_mm[self.ids.index(name)] for name in (patient, other))
        return np.asarray(part * (own - others), np.float32)

    def towards(self, patient: str, rng: np.random.Generator, most: float) -> FloatArray | None:
        """Draw another patient and a part from 0 to `most`: `between`, or None for a patient who was not registered."""
        other, part = self.ids[int(rng.integers(len(self.ids)))], rng.uniform(0, most)
        return self.between(patient, other, part) if patient in self.ids else None


def at_mm(displacement: FloatArray, points_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return displacements [3, ...] at the voxels of `NODES` at other points [3, N] in mm: linear, constant beyond."""
    to_index = np.linalg.inv(NODES.index_to_mm)
    index = to_index[:3, :3] @ points_mm + to_index[:3, 3:]
    return np.stack(
        [ndimage.map_coordinates(axis, index, np.float64, order=1, mode="nearest") for axis in displacement]
    )


def write_shapes(folder: Path, patients: Sequence[Patient], progress: Progress = lambda *_: None) -> None:
    """Register the chests among some training patients to the most average one, and write `FILE` unless it is there.

    Raises InputError: fewer than two chests.
    """
    chests = [patient for patient in patients if patient.region == "chest"]
    if len(chests) < 2:
        expected = "at least 2 training patients of the region chest"
        raise InputError.of(folder, "chests", found=len(chests), expected=expected)
    made_of = json.dumps([METHOD, [[patient.id, patient.sha256] for patient in chests]])
    path = folder / FILE
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            if str(file.get("made_of")) == made_of:
                return
    low, high = HU
    pictures = [(np.clip(resample(patient, REGISTERED), low, high) - low) / (high - low) for patient in chests]
    average = np.mean(pictures, axis=0)
    reference = min(pictures, key=lambda picture: float(np.square(picture - average).sum()))
    fields = []
    for number, (patient, picture) in enumerate(zip(chests, pictures, strict=True)):
        progress(number, len(chests), f"shape of {patient.id}")
        fields.append(registered(reference, picture))
    content: dict[str, Any] = {
        "ids": np.array([p.id for p in chests]),
        "displacement_mm": np.stack(fields),
        "made_of": made_of,
    }

    def write(part: Path) -> None:
        with part.open("wb") as file:  # a name without .npz stays as it is
            np.savez_compressed(file, **content)

    atomic.write_beside(path, write)


def registered(reference: FloatArray, moved: FloatArray) -> FloatArray:
    """Return the displacement that brings a volume onto a reference: SimpleITK's symmetric demons, coarse to fine.

    Both are float32 [80, 80, 80] on `REGISTERED`, 0 for air to 1 for bone. The displacement is float32 [3, 20, 20, 20]
    in mm at the voxels of `NODES`; moved(x + displacement(x)) is like reference(x).
    """
    import SimpleITK

    field: Any = None
    for factor, iterations in LEVELS:
        fixed, moving = (SimpleITK.BinShrink(_image(volume, REGISTERED), [factor] * 3) for volume in (reference, moved))
        demons = SimpleITK.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetStandardDeviations(max(SMOOTHED_MM / (REGISTERED.spacing_mm[0] * factor), 1.0))
        if field is not None:
            field = SimpleITK.Resample(field, fixed, SimpleITK.Transform(), SimpleITK.sitkLinear)
        field = demons.Execute(fixed, moving, field) if field is not None else demons.Execute(fixed, moving)
    nodes = SimpleITK.Image(list(NODES.shape), SimpleITK.sitkFloat32)
    _place(nodes, NODES)
    field = SimpleITK.Resample(field, nodes, SimpleITK.Transform(), SimpleITK.sitkLinear)
    return np.ascontiguousarray(SimpleITK.GetArrayFromImage(field).transpose(3, 2, 1, 0), np.float32)


def _image(volume: FloatArray, grid: Grid) -> Any:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(volume.transpose(2, 1, 0))
    _place(image, grid)
    return image


def _place(image: Any, grid: Grid) -> None:
    """Give an image the grid's patient mm; only differences count, so that ITK's LPS need not be told from RAS."""
    image.SetSpacing(list(grid.spacing_mm))
    image.SetOrigin(grid.index_to_mm[:3, 3].tolist())
