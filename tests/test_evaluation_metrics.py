"""Each metric against a closed form or an independent implementation, on a phantom and on a real chest."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio

from tests import phantom
from x2ct.data.body import body_mask
from x2ct.errors import InputError
from x2ct.evaluation import metrics
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume

GRID = Grid((32, 32, 32), (8.0, 8.0, 8.0))


@pytest.fixture(scope="module", params=["phantom", "real chest"])
def truth(request: pytest.FixtureRequest) -> np.ndarray:
    if request.param == "phantom":
        return phantom.chest(GRID, 0)
    hu = Volume.load(Path(__file__).parent / "data" / "chest_4mm.nii.gz").hu
    return np.ascontiguousarray(hu[:, :, : hu.shape[2] // 2])


@pytest.fixture(scope="module")
def noisy(truth: np.ndarray) -> np.ndarray:
    return truth + np.random.default_rng(0).normal(0, 80, truth.shape).astype(np.float32)


def test_a_perfect_estimate_is_perfect(truth: np.ndarray) -> None:
    body = body_mask(truth, GRID.spacing_mm)
    assert metrics.psnr(truth, truth) == math.inf
    assert metrics.ssim(truth, truth) == pytest.approx(1.0)
    assert metrics.bone_dice(truth, truth) == 1.0
    assert set(metrics.mae_hu(truth, truth, body).values()) == {0.0}
    assert metrics.reprojection_error(truth[0], truth[0]) == 0.0


def test_psnr_of_a_constant_error_is_its_closed_form() -> None:
    base = np.full((4, 5, 6), 100.0)
    assert metrics.psnr(base, base + 250) == pytest.approx(20.0)  # a tenth of the window
    assert metrics.psnr(base, base + 250, (-1000.0, 0.0)) == math.inf  # both are clipped to 0
    assert metrics.psnr(base * 0 - 1000, base * 0 + 1500) == pytest.approx(0.0)
    # Metal beyond the window is nobody's error.
    assert metrics.psnr(np.full((2, 2, 2), 3000.0), np.full((2, 2, 2), 1500.0)) == math.inf


def test_psnr_agrees_with_scikit_image(truth: np.ndarray, noisy: np.ndarray) -> None:
    a, b = (np.clip(v, -1000, 1500).astype(np.float64) for v in (truth, noisy))
    assert metrics.psnr(truth, noisy) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=2500), abs=1e-4)


def test_psnr_is_of_the_volume_and_not_the_mean_of_slices(truth: np.ndarray) -> None:
    estimate = truth.copy()
    estimate[:, :, 3] += 300
    slices = [metrics.psnr(truth[:, :, k : k + 1], estimate[:, :, k : k + 1]) for k in range(truth.shape[2])]
    assert sum(math.isinf(s) for s in slices) == truth.shape[2] - 1
    assert math.isfinite(metrics.psnr(truth, estimate))


def ssim_as_in_the_paper(a: np.ndarray, b: np.ndarray, width: float) -> float:
    """Wang et al. 2004, equation 13, with an 11-voxel Gaussian of sigma 1.5, over voxels that it fits around."""

    def mean(v: np.ndarray) -> np.ndarray:
        taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
        for axis in range(3):
            v = ndimage.convolve1d(v, taps / taps.sum(), axis)
        return v[5:-5, 5:-5, 5:-5]

    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    ma, mb = mean(a), mean(b)
    va, vb, vab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    return float(np.mean((2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))


def test_ssim_agrees_with_the_paper(truth: np.ndarray, noisy: np.ndarray) -> None:
    for estimate in (noisy, np.roll(truth, 1, axis=0), np.full_like(truth, -300.0)):
        a, b = (np.clip(v, -1000, 1500).astype(np.float64) + 1000 for v in (truth, estimate))
        assert metrics.ssim(truth, estimate) == pytest.approx(ssim_as_in_the_paper(a, b, 2500.0), abs=1e-3)


def test_ssim_does_not_depend_on_where_hu_has_its_zero(truth: np.ndarray, noisy: np.ndarray) -> None:
    alone = metrics.ssim(truth, noisy)
    for constant in (1000.0, -300.0):
        moved = metrics.ssim(truth + constant, noisy + constant, (-1000 + constant, 1500 + constant))
        assert moved == pytest.approx(alone, abs=1e-4)
    # On signed HU this was -0.12, and the same error elsewhere in the window 0.999.
    assert metrics.ssim(np.full((12, 12, 12), 20.0), np.full((12, 12, 12), -20.0)) > 0.99


def test_ssim_says_when_a_volume_is_too_small() -> None:
    with pytest.raises(InputError, match="11 voxels"):
        metrics.ssim(np.zeros((10, 20, 20)), np.zeros((10, 20, 20)))


def test_mae_counts_each_band_by_the_truth() -> None:
    truth = np.array([-1000.0, -800.0, -300.0, 0.0, 199.0, 200.0, 1200.0]).reshape(7, 1, 1)
    error = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]).reshape(7, 1, 1)
    body = np.arange(7).reshape(7, 1, 1) > 0
    found = metrics.mae_hu(truth, truth + error, body)
    assert found == pytest.approx({"all": 127 / 7, "body": 21.0, "lung": 2.0, "soft": 12.0, "bone": 48.0})
    alone = metrics.mae_hu(truth, truth + error)
    assert alone["all"] == pytest.approx(127 / 7)
    assert all(math.isnan(alone[band]) for band in ("body", "lung", "soft", "bone"))


@pytest.mark.parametrize("shift", [0, 1, 3, 8, 12])
def test_dice_of_a_shifted_block_is_its_overlap(shift: int) -> None:
    truth = np.full((40, 20, 20), -1000.0)
    truth[8:16, 4:12, 4:12] = 700.0
    expected = max(0, 8 - shift) / 8
    assert metrics.bone_dice(truth, np.roll(truth, shift, axis=0)) == pytest.approx(expected)


def test_dice_takes_200_hu_as_bone_and_is_undefined_without_any() -> None:
    truth = np.array([199.0, 200.0, 500.0]).reshape(3, 1, 1)
    assert metrics.bone_dice(truth, np.array([200.0, 0.0, 300.0]).reshape(3, 1, 1)) == pytest.approx(0.5)
    assert math.isnan(metrics.bone_dice(truth * 0, truth * 0))
    assert metrics.bone_dice(truth, truth * 0) == 0.0


def test_reprojection_error_counts_only_the_given_rays() -> None:
    image, other = np.zeros((3, 4)), np.zeros((3, 4))
    other[0] = 2.0
    assert metrics.reprojection_error(image, other) == pytest.approx(2 / math.sqrt(3))
    rays = np.zeros((3, 4), bool)
    rays[1:] = True
    assert metrics.reprojection_error(image, other, rays) == 0.0
    assert math.isnan(metrics.reprojection_error(image, other, np.zeros((3, 4), bool)))


def test_a_sample_costs_3_db_and_the_mean_of_eight_wins_it_back() -> None:
    rng = np.random.default_rng(2)
    mean = np.zeros((32, 32, 32))
    truth, *samples = (mean + rng.normal(0, 50, mean.shape) for _ in range(9))
    best, one, eight = (metrics.psnr(truth, v) for v in (mean, samples[0], np.mean(samples, axis=0)))
    assert best - one == pytest.approx(3.01, abs=0.1)
    assert best - eight == pytest.approx(10 * math.log10(9 / 8), abs=0.1)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, metrics.bone_dice, metrics.mae_hu])
def test_what_can_not_be_compared_is_refused(metric, truth: np.ndarray) -> None:
    with pytest.raises(InputError, match="shape"):
        metric(truth, truth[1:])
    broken = truth.copy()
    broken[3, 3, 3] = np.nan
    with pytest.raises(InputError, match="finite"):
        metric(truth, broken)
