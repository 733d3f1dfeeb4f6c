"""NRRD and MetaImage files of CT volumes, by SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError, MissingRuntimeError, X2CTError
from x2ct.files import atomic
from x2ct.io.ct.itkheader import check_header
from x2ct.io.ct.voxels import LPS_TO_RAS, SYNTHETIC, Stored, check_shape, damaged, int16_hu

FloatArray = npt.NDArray[np.float64]

SUFFIXES = (".nrrd", ".mha", ".mhd")
WRITTEN_SUFFIXES = (".nrrd", ".mha")  # an .mhd is two files, which can't appear at once


def read_itk(source: Path) -> Stored:
    """Raises InputError, and MissingRuntimeError without SimpleITK."""
    sitk = _simpleitk(source)
    check_header(source)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(source))
    try:
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1:
            raise InputError.of(source, "channels", found=reader.GetNumberOfComponents(), expected=1)
        check_shape(source, tuple(reader.GetSize()))
        image = reader.Execute()
    except RuntimeError as error:
        raise damaged(source, error) from error
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    values = sitk.GetArrayViewFromImage(image).transpose(2, 1, 0).copy()
    told = image.GetMetaData("content") if image.HasMetaDataKey("content") else ""
    return Stored(values, LPS_TO_RAS @ affine, (), SYNTHETIC in told)


def write_itk(hu: npt.NDArray[np.float32], affine: FloatArray, description: str, target: Path) -> Path:
    """Writes int16 HU with their place in the world, whole or not at all.

    Args:
        hu: (x, y, z), RAS+.
        affine: 4x4, voxel index -> world mm (RAS+), without shear.
        description: goes into an NRRD's header; ITK keeps no text in a MetaImage.
        target: ends with .nrrd or .mha.

    Raises:
        MissingRuntimeError: SimpleITK is not installed.
        X2CTError: the write failed on the way.
    """
    sitk = _simpleitk(target)
    image: Any = sitk.GetImageFromArray(int16_hu(hu).transpose(2, 1, 0))
    world = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((world[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(world[:3, 3].tolist())
    if target.suffix.lower() == ".nrrd":
        image.SetMetaData("content", description)

    def write(part: Path) -> None:
        try:
            sitk.WriteImage(image, str(part), True)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise X2CTError(f"{target}: output: not written: {reason}") from error

    return atomic.write_beside(target, write)


def _simpleitk(path: Path) -> Any:
    """SimpleITK, which ships no usable types."""
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingRuntimeError(f"{path}: {path.suffix} needs SimpleITK; pip install SimpleITK") from error
    return SimpleITK
