"""Pictures lie as radiologists expect, keep millimetres, and say what they are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from x2ct.engine.residual import Residual
from x2ct.errors import InputError
from x2ct.io.ct.volume import Volume
from x2ct.io.xray.radiograph import XRay
from x2ct.render import panels, preview

DATA = Path(__file__).parent / "data"


def marked(shape: tuple[int, int, int], where: tuple[int, int, int]) -> np.ndarray:
    hu = np.full(shape, -1000.0, np.float32)
    hu[where] = 1000
    return hu


@pytest.mark.parametrize(
    ("plane", "where", "expected"),
    [
        # A mark near the patient's right (high x), front (high y) and head (high z); (row, column) as it is looked at.
        ("coronal", (9, 3, 11), (0, 0)),
        ("coronal", (0, 3, 0), (11, 9)),
        ("sagittal", (5, 6, 11), (0, 0)),
        ("sagittal", (5, 0, 0), (11, 6)),
        ("axial", (9, 6, 6), (0, 0)),
        ("axial", (0, 0, 6), (6, 9)),
    ],
)
def test_right_front_and_head_lie_left_left_and_up(
    plane: str, where: tuple[int, int, int], expected: tuple[int, int]
) -> None:
    picture = preview.plane_of(marked((10, 7, 12), where), plane)
    assert np.unravel_index(int(picture.argmax()), picture.shape) == expected
    assert picture.max() == 1000


def test_a_frontal_xray_and_the_coronal_slice_lie_alike() -> None:
    """Column 0 of an AP is the patient's right: the liver's side, opposite to the heart's apex, as in the coronal."""
    from x2ct.geometry import View, attenuation, project
    from x2ct.geometry.grid import centred_affine

    hu = marked((12, 10, 14), (10, 5, 12))
    view = View.parallel("ap", shape=(14, 12), spacing_mm=(2.0, 2.0))
    image = project(attenuation(hu), centred_affine(hu.shape, (2.0, 2.0, 2.0)), view, threads=1)
    coronal = preview.plane_of(hu, "coronal")
    assert image.argmax() == coronal.argmax()
    assert image.shape == coronal.shape


def test_a_millimetre_is_as_long_along_both_sides() -> None:
    hu = np.full((40, 30, 20), -1000.0, np.float32)
    hu[10:30, 5:25, 8:12] = 1000  # 40 x 60 x 40 mm in voxels of 2 x 3 x 10 mm
    page = np.asarray(preview.training_progress(hu, hu, (2.0, 3.0, 10.0)))
    panel = page[24:224, 8 : 8 + 80, 0]  # 80 x 200 mm, a pixel a millimetre
    bright = panel > 128
    bright[90:110, :12] = bright[90:110, -12:] = False  # the letters at the sides
    rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
    assert np.ptp(rows) + 1 == pytest.approx(40, abs=3)
    assert np.ptp(columns) + 1 == pytest.approx(40, abs=3)


def test_a_real_chest_beside_a_real_xray(tmp_path: Path) -> None:
    volume, xray = Volume.load(DATA / "chest_4mm.nii.gz"), XRay.load(DATA / "chest_pa_cr.dcm")
    preview.save(tmp_path / "a.png", volume, {"pa": xray})
    preview.save(tmp_path / "b.png", volume, {"pa": xray})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "RGB"
        assert picture.width > 900
        pixels = np.asarray(picture)
    assert 0.1 < np.mean(pixels > 100) < 0.8
    alone = preview.preview(volume)
    assert alone.width < pixels.shape[1]


def test_it_says_that_it_is_synthetic() -> None:
    volume = Volume.load(DATA / "chest_4mm.nii.gz")
    footers = [np.asarray(preview.preview(volume, synthetic=synthetic))[-28:] for synthetic in (True, False)]
    assert not np.array_equal(*footers)
    assert np.count_nonzero(footers[0]) > np.count_nonzero(footers[1])
    assert "not for diagnosis" in preview.WARNING


def test_the_standard_deviation_of_samples_has_a_row_and_a_window_of_its_own() -> None:
    volume = Volume(np.full((20, 20, 20), -1000.0, np.float32), np.eye(4))
    spread = np.zeros((20, 20, 20), np.float32)
    spread[:10] = 97.0  # the patient's left: the right of the picture
    assert preview.spread_window(spread) == (0.0, 100.0)
    assert preview.is_spread(spread) and not preview.is_spread(volume.hu)
    alone = preview.preview(volume, panel_px=100)
    page = np.asarray(preview.preview(volume, panel_px=100, spread=Volume(spread, np.eye(4))))
    assert page.shape[0] == alone.height + 128
    row = page[20 + 4 + 2 * 128 + 20 : 20 + 4 + 2 * 128 + 40, 8:108].mean(axis=(0, 2))
    assert row[:40].max() < 20 and row[60:].min() > 200


def test_comparison_shows_where_and_which_way_it_differs() -> None:
    truth = Volume(np.zeros((20, 20, 20), np.float32), np.eye(4))
    changed = truth.hu.copy()
    changed[12:18, :, :] = 400  # the patient's right: the left of the picture
    changed[2:8, :, :] = -400
    page = np.asarray(preview.comparison(truth, Volume(changed, np.eye(4)), panel_px=100)).astype(int)
    row = page[20 + 4 + 2 * 128 + 20 : 20 + 4 + 2 * 128 + 40, 8:108].mean(axis=0)
    red, blue = row[:, 0] - row[:, 2], row[:, 2] - row[:, 0]
    assert red[10:40].mean() > 100
    assert blue[60:90].mean() > 100
    assert abs(red[46:54]).max() < 60


def test_comparison_needs_one_grid() -> None:
    truth = Volume(np.zeros((20, 20, 20), np.float32), np.eye(4))
    for other in (Volume(np.zeros((20, 20, 21)), np.eye(4)), Volume(truth.hu, np.diag([2.0, 1, 1, 1]))):
        with pytest.raises(InputError, match="grid"):
            preview.comparison(truth, other)
    with pytest.raises(InputError, match="shape"):
        preview.training_progress(truth.hu, truth.hu[1:])


def test_only_a_png_is_written(tmp_path: Path) -> None:
    volume = Volume(np.zeros((20, 20, 20), np.float32), np.eye(4))
    with pytest.raises(InputError, match="png"):
        preview.save(tmp_path / "a.jpg", volume)
    assert list(tmp_path.iterdir()) == []
    assert Image.open(io.BytesIO(panels.png(preview.preview(volume)))).format == "PNG"


def test_a_map_of_an_xray_that_could_not_be_compared_says_so() -> None:
    """One that is grey all over would else look as if the CT lacked nothing."""
    unknown = np.full((12, 10), np.nan, np.float32)
    for difference, title in ((unknown, "ap: could not be compared"), (np.zeros_like(unknown), "ap, -50 to 50 mm")):
        (panel,) = preview._residual_panels([Residual("ap", difference, (4.0, 4.0), 0.0, None, ())], 48)
        assert title in panel.title
