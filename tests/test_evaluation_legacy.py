"""Legacy figures against scikit-image, slice by slice, on a real chest; and by how much they flatter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from x2ct.evaluation import metrics
from x2ct.io.ct.volume import Volume


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    truth = np.clip(Volume.load(Path(__file__).parent / "data" / "chest_4mm.nii.gz").hu, -1000, 1500)[::2, ::2, ::2]
    return truth, np.clip(truth + np.random.default_rng(0).normal(0, 90, truth.shape), -1000, 1500).astype(np.float32)


def test_they_are_scikit_image_s_slice_by_slice(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = (volume.astype(np.float64) + 1000 for volume in pair)
    psnr, ssim = [], []
    for axis in range(3):
        slices = [(np.take(a, k, axis), np.take(b, k, axis)) for k in range(a.shape[axis])]
        psnr.append(np.mean([peak_signal_noise_ratio(x, y, data_range=4095) for x, y in slices]))
        ssim.append(np.mean([structural_similarity(x, y, data_range=4095) for x, y in slices]))
    assert metrics.slice_psnr(*pair) == pytest.approx(np.mean(psnr), abs=1e-3)
    assert metrics.slice_ssim(*pair) == pytest.approx(np.mean(ssim), abs=1e-4)


def test_they_flatter(pair: tuple[np.ndarray, np.ndarray]) -> None:
    gain = metrics.slice_psnr(*pair) - metrics.psnr(*pair)
    assert gain >= 20 * np.log10(4095 / 2500) - 1e-3  # the peak alone; the mean over slices adds more


def test_a_perfect_slice_counts_100_db_and_a_perfect_volume_has_ssim_1(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth = pair[0]
    assert metrics.slice_psnr(truth, truth) == metrics.PERFECT_DB
    assert metrics.slice_ssim(truth, truth) == pytest.approx(1.0)
    assert np.isnan(metrics.slice_ssim(truth[:5], truth[:5]))
