"""The projector against an independent one: RTK's, on a real chest. Apart because loading RTK takes its time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from x2ct.geometry import View, attenuation, project
from x2ct.geometry.grid import centred_affine

CHEST = Path(__file__).parent / "data" / "chest_4mm.nii.gz"
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning")  # SWIG's


def chest() -> tuple[npt.NDArray[np.float32], tuple[float, ...]]:
    import nibabel as nib

    image = nib.load(CHEST)
    return attenuation(np.asarray(image.dataobj, np.float32)), tuple(float(s) for s in image.header.get_zooms())


def rtk_joseph(
    mu: npt.NDArray[np.float32], spacing: tuple[float, ...], view: View, angle: float, sod: float, sdd: float
) -> npt.NDArray[np.float32]:
    """The same picture by RTK. Its patient has y towards the head and z towards the back; sdd = 0 is a parallel beam.

    RTK counts what lies beyond the outermost voxel centres as nothing, not as half a voxel fading into air: hence the
    layer of air around the volume.
    """
    import itk
    from itk import RTK as rtk

    image_type = itk.Image[itk.F, 3]
    volume = itk.image_from_array(np.ascontiguousarray(np.pad(mu, 1).transpose(1, 2, 0)[::-1]))
    steps = np.array([spacing[0], spacing[2], spacing[1]])
    volume.SetSpacing(steps)
    volume.SetOrigin(-(np.array(itk.size(volume)) - 1) / 2 * steps)
    rows, cols = view.shape
    empty = rtk.ConstantImageSource[image_type].New()
    empty.SetSize([cols, rows, 1])
    empty.SetSpacing([view.spacing_mm[1], view.spacing_mm[0], 1.0])
    empty.SetOrigin([-(cols - 1) / 2 * view.spacing_mm[1], -(rows - 1) / 2 * view.spacing_mm[0], 0.0])
    circle = rtk.ThreeDCircularProjectionGeometry.New()
    circle.AddProjection(sod, sdd, 180.0 - angle)
    joseph = rtk.JosephForwardProjectionImageFilter[image_type, image_type].New()
    joseph.SetInput(0, empty.GetOutput())
    joseph.SetInput(1, volume)
    joseph.SetGeometry(circle)
    joseph.Update()
    return np.asarray(itk.array_from_image(joseph.GetOutput())[0, ::-1])


@pytest.mark.parametrize("angle", [0.0, 37.0, 90.0])
@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_agrees_with_rtk_on_a_real_chest(beam: str, angle: float) -> None:
    """Within 1% RMS of RTK's Joseph projector; angle, side and units included."""
    mu, spacing = chest()
    if beam == "parallel":
        view, sdd = View.parallel("any", angle, shape=(128, 128), spacing_mm=(2.6, 2.7)), 0.0
    else:
        view, sdd = View.cone("any", angle, sod_mm=1000, sdd_mm=1300, shape=(128, 128), spacing_mm=(3.4, 3.5)), 1300.0
    theirs = rtk_joseph(mu, spacing, view, angle, 1000.0, sdd)
    if angle == 90.0:
        theirs = theirs[:, ::-1]  # RTK shows every view as its source sees it, we show the lateral with the front first
    ours = project(mu, centred_affine(mu.shape, spacing), view, threads=2)
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.01 * np.sqrt(np.mean(theirs**2))
