"""Tiles and many samples from Python: the same volume, within the memory that was asked for; samples as one by one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import x2ct
from tests import tiny_bundle
from x2ct.errors import InputError, MemoryLimitError
from x2ct.geometry.grid import Grid
from x2ct.runtimes.discovery import parse_bytes

CHECKOUT = Path(__file__).resolve().parent.parent
SHAPE = (64, 48, 96)


def xray(seed: int) -> x2ct.XRay:
    return x2ct.XRay.of(np.random.default_rng(seed).uniform(0.5, 6, tiny_bundle.DETECTOR).astype(np.float32))


@pytest.fixture
def grid() -> Grid:
    return Grid(SHAPE, (4.0, 4.0, 3.0))


def test_a_grid_of_ones_own_lies_about_the_origin(tiny_path: Path, grid: Grid) -> None:
    result = x2ct.Sampler(tiny_path, precision="f32", threads=1, grid=grid).run(ap=xray(1), lateral=xray(2))
    assert result.volume.shape == SHAPE
    np.testing.assert_allclose(result.volume.affine @ (31.5, 23.5, 47.5, 1), (0, 0, 0, 1))
    assert result.report["grid"] == {"shape": list(SHAPE), "spacing_mm": [4.0, 4.0, 3.0]}
    assert any("trained on" in line for line in result.report["warnings"])
    assert result.report["tiles"] is None
    with pytest.raises(InputError, match="multiples of the model's stride"):
        x2ct.Sampler(tiny_path, grid=Grid((60, 48, 96))).compile()


def test_tiles_give_what_the_whole_gives(tiny_path: Path, grid: Grid) -> None:
    """The tiny lift and denoiser look no further than their own cells, so that a halo of one stride is ample."""
    given = {"ap": xray(1), "lateral": xray(2), "seed": 4}
    whole = x2ct.Sampler(tiny_path, precision="f32", threads=1, grid=grid).sample(**given)
    with pytest.raises(MemoryLimitError) as least:
        x2ct.Sampler(tiny_path, precision="f32", threads=1, grid=grid, memory=1 << 20).compile()
    budget = re.search(r"at least (\d+) MiB", str(least.value))
    assert budget is not None
    for mib in (int(budget[1]), int(budget[1]) + 2):
        result = x2ct.Sampler(tiny_path, precision="f32", threads=1, grid=grid, memory=mib << 20).run(**given)
        assert result.report["tiles"]["count"] != [1, 1, 1]
        np.testing.assert_allclose(result.volume.hu, whole.hu, atol=0.01)


def peak_of_two_studies(tmp_path: Path, model: str, side: int, budget: int) -> tuple[int, Any]:
    """In a process of its own, since a peak is a process's: its bytes, and the report's tiles."""
    script = tmp_path / "run.py"
    script.write_text(
        "import json, sys, numpy as np, x2ct\n"
        "from x2ct.geometry.grid import Grid\n"
        "model, side, budget = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
        "sampler = x2ct.Sampler(model, precision='f32', threads=1, grid=Grid((side,) * 3), memory=budget)\n"
        "image = np.linspace(1, 5, 64 * 64, dtype=np.float32).reshape(64, 64)\n"
        "for shown in (image, image + 1):\n"
        "    report = sampler.run(ap=x2ct.XRay.of(shown), steps=2).report\n"
        "print(json.dumps([report['peak_memory_bytes'], report['tiles']]))\n"
    )
    command = [sys.executable, str(script), model, str(side), str(budget)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=CHECKOUT)
    peak, tiles = json.loads(told.stdout)
    return peak, tiles


def test_a_budget_is_kept(tiny_path: Path, tmp_path: Path) -> None:
    small, tiles = peak_of_two_studies(tmp_path, str(tiny_path), 192, 380 << 20)
    assert small <= 380 << 20
    assert tiles is not None
    large, tiles = peak_of_two_studies(tmp_path, str(tiny_path), 192, 2 << 30)
    assert large <= 2 << 30
    assert tiles is None
    assert small < large - (50 << 20)


@pytest.mark.parametrize(("side", "share"), [(32, 0.75), (128, 0.75)])
def test_the_least_budget_is_kept_and_used(tmp_path: Path, side: int, share: float) -> None:
    """Of 128 voxels lift and denoiser take turns: the second study is lifted when a run has filled the denoiser's."""
    with pytest.raises(MemoryLimitError) as least:
        x2ct.Sampler("chest", precision="f32", threads=1, grid=Grid((side,) * 3), memory=1 << 20).compile()
    budget = int(re.findall(r"at least (\d+) MiB", str(least.value))[0]) << 20
    peak, tiles = peak_of_two_studies(tmp_path, "chest", side, budget)
    assert tiles is None
    assert share * budget <= peak <= budget


def test_a_budget_that_nothing_fits_into_is_refused(tiny_path: Path) -> None:
    with pytest.raises(MemoryLimitError, match="expected at least"):
        x2ct.Sampler(tiny_path, memory=50 << 20).compile()


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("2 GiB", 2 << 30), ("1.5g", 1500000000), ("800MiB", 800 << 20), ("4096", 4096)],
)
def test_sizes_in_words(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-2GB", "2XB", "two", "0", "1e9"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--memory"):
        parse_bytes(text)


def test_many_samples_are_the_single_ones_their_mean_and_their_spread(tiny_path: Path) -> None:
    sampler = x2ct.Sampler(tiny_path, precision="f32", threads=1)
    given = {"ap": xray(1), "lateral": xray(2), "seed": 7}
    seen: list[np.ndarray] = []
    told: list[tuple[int, int]] = []
    result = sampler.run(
        **given,
        samples=5,
        each=lambda number, ct: seen.append(ct.hu.copy()),
        progress=lambda done, total, sigma: told.append((done, total)),
    )
    assert told == [(done, 30) for done in range(1, 31)]
    assert len(seen) == 5
    np.testing.assert_array_equal(seen[0], sampler.sample(**given).hu)
    assert not np.array_equal(seen[0], seen[1])
    stack = np.stack(seen).astype(np.float64)
    np.testing.assert_allclose(result.volume.hu, stack.mean(0), atol=0.01)
    assert result.spread is not None
    np.testing.assert_allclose(result.spread.hu, stack.std(0, ddof=1), atol=0.01)
    assert result.report["samples"] == 5
    assert sampler.run(**given).spread is None


def keep(shown: list[x2ct.Volume], done: int, total: int, sigma: float, ct: x2ct.Volume) -> None:
    shown.append(ct)


def test_samples_are_the_same_whether_somebody_looks_on_or_keeps_them(tiny_path: Path) -> None:
    """A callback may keep what it is handed, or let go of it at once; the mean knows the sample all the same."""
    sampler = x2ct.Sampler(tiny_path, precision="f32", threads=1)
    sampler.set_xrays(ap=xray(1), lateral=xray(2))
    alone = sampler.run(seed=7, samples=3, steps=3)
    kept: list[x2ct.Volume] = []
    for each in (lambda number, ct: kept.append(ct), lambda number, ct: None):
        shown: list[x2ct.Volume] = []
        told = sampler.run(seed=7, samples=3, steps=3, each=each, preview=partial(keep, shown))
        assert alone.spread is not None and told.spread is not None
        np.testing.assert_array_equal(told.volume.hu, alone.volume.hu)
        np.testing.assert_array_equal(told.spread.hu, alone.spread.hu)
        for ct, last in zip(kept, shown[2::3], strict=True):  # a last step to sigma 0 lands on D
            np.testing.assert_array_equal(ct.hu, last.hu)
    np.testing.assert_array_equal(kept[0].hu, sampler.sample(seed=7, steps=3).hu)


def test_files_of_many_samples_appear_together_or_not_at_all(tiny_path: Path, tmp_path: Path) -> None:
    from x2ct.jobs.sample import SampleJob, sample_files

    np.save(tmp_path / "ap.npy", xray(1).image)
    job = SampleJob(tmp_path / "ct.nii.gz", ap=tmp_path / "ap.npy", model=str(tiny_path), samples=2, threads=1)
    names = ["ct.nii.gz", "ct_000.nii.gz", "ct_001.nii.gz", "ct_std.nii.gz"]

    class StopError(Exception):
        pass

    def stop(done: int, total: int, sigma: float) -> None:
        if done == total:
            raise StopError

    with pytest.raises(StopError):
        sample_files(job, progress=stop)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ap.npy"]
    report = sample_files(job)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ap.npy", *names]
    assert sorted(entry["file"] for entry in report["outputs"]) == names
    mean, *each = (x2ct.Volume.load(tmp_path / name).hu for name in names[:3])
    np.testing.assert_allclose(mean, (each[0] + each[1]) / 2, atol=1.01)
