"""The field's ancestor as a configuration: what its network sees, what its slabs are; that it trains and exports."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import x2ct
from tests.tiny_run import GRID
from x2ct.data import ShardSet
from x2ct.data.augment import plain_study
from x2ct.errors import InputError
from x2ct.export import export_run
from x2ct.geometry.grid import Grid
from x2ct.model import ModelConfig, X2CTModel
from x2ct.model.config import EVERYWHERE
from x2ct.training import TrainConfig, train
from x2ct.training.config import PatchConfig
from x2ct.training.loss import draw_patches, size_probabilities, sliced
from x2ct.training.runs import training_geometry

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "ancestor.json"
CONFIG = {
    "name": "ancestor",
    "steps": 12,
    "model": {
        "kind": "slabs",
        "features": "pixels",
        "stem": 1,
        "detector": [64, 64],
        "encoder_channels": [8, 8],
        "channels": [8, 8],
        "blocks": [1, 1],
        "embedding": 8,
        "sigma_max": 80.0,
    },
    "diffusion": {"sigma_min": 0.002, "sigma_max": 80.0, "mean_share": 0.0, "log_mean": -1.2, "log_std": 1.2,
                  "schedule": "edm", "solver": "heun", "steps": 2},
    "optim": {"rate": 0.01, "warmup": 2, "flat": 100, "bone_weight": 0.0, "sketch_weight": 0.0, "ema": [0.1]},
    "patch": {"shape": "slab", "sizes": [8, 16, 32], "probabilities": [0.25, 0.25, 0.5], "voxels": 8192},
    "detector_spacing_mm": [6.0, 6.0],
    "pool": 2,
    "refresh": 4,
    "checkpoint_every": 12,
    "validate_every": 4,
    "autocast": False,
}  # fmt: skip
TINY = TrainConfig.from_json(CONFIG)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_benchmark_s_network_is_the_described_one() -> None:
    """Four levels, four blocks each way, 32 channels at full resolution; noisy volume, two views, one coordinate."""
    config = TrainConfig.load(BENCHMARK)
    with torch.device("meta"):
        core = X2CTModel(config.model).denoiser.core
    assert core.enter.weight.shape == (32, 1 + 2 + 1, 3, 3, 3)
    assert [len(blocks) for blocks in core.encode] == [len(blocks) for blocks in core.decode] == [4, 4, 4, 4]
    assert sum(isinstance(module, torch.nn.GroupNorm) for module in core.modules()) == 2 * 32 + 1
    assert config.model.stride == 8 and config.patch.shape == "slab"


@pytest.mark.parametrize("views", [1, 2])
def test_pixels_are_repeated_along_their_rays(shards: Path, views: int) -> None:
    """What the condition has at a voxel is the X-ray where the voxel is seen: constant along y, and along x."""
    config = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, views=views))
    geometry = training_geometry(config)
    assert len(geometry.views) == views
    study = plain_study(ShardSet.open(shards).patients[0], GRID, geometry)
    model = X2CTModel(config.model)
    coords = torch.from_numpy(GRID.coordinates())[None]
    with torch.no_grad():
        condition, sketch = model.condition(*study.inputs(torch.device("cpu")), coords)
    assert condition.shape == (1, views + 1, *GRID.shape)
    assert sketch.shape == (1, 1, *GRID.shape) and not sketch.any()
    torch.testing.assert_close(condition[0, 0], condition[0, 0, :, :1].expand(GRID.shape), atol=1e-4, rtol=0)
    assert condition[0, 0].std(0).max() > 0.1
    if views == 2:
        torch.testing.assert_close(condition[0, 1], condition[0, 1, :1].expand(GRID.shape), atol=1e-4, rtol=0)
    torch.testing.assert_close(condition[0, -1], coords[0, 2])


def test_slabs_have_all_of_x_and_y_and_their_own_heights() -> None:
    grid = Grid((32, 24, 64), (10.0, 10.0, 10.0))
    coords = grid.coordinates()
    sizes = set()
    for seed in range(40):
        config = PatchConfig((16, 32, 64), (0.3, 0.3, 0.4), 3 * 32 * 24 * 16, shape="slab")
        patches = draw_patches(grid, config, 8, np.random.default_rng(seed))
        height = patches.sides[2]
        sizes.add(height)
        assert patches.sides == (32, 24, height) and len(patches.origins) == max(1, 48 // height)
        slabs = sliced(torch.from_numpy(coords)[None], *patches)
        for (x, y, z), slab in zip(patches.origins.tolist(), slabs, strict=True):
            assert (x, y) == (0, 0) and z % 8 == 0
            # Patient mm / 100 of the slab's own slices, whatever its size.
            wanted = (z + np.arange(height) - 31.5) * 0.1
            np.testing.assert_allclose(slab[2, 0, 0], wanted, atol=1e-6)
    assert sizes == {16, 32, 64}


def test_the_progressive_schedule_goes_through_the_sizes_by_their_shares() -> None:
    stochastic = PatchConfig((16, 32, 64), (0.2, 0.3, 0.5))
    progressive = dataclasses.replace(stochastic, schedule="progressive")
    assert size_probabilities(stochastic, 0.9) == (0.2, 0.3, 0.5)
    now = [size_probabilities(progressive, step / 1000) for step in range(1000)]
    assert all(sum(row) == 1 and max(row) == 1 for row in now)
    assert [sum(row[k] for row in now) for k in range(3)] == [200, 300, 500]
    assert now == sorted(now, reverse=True)  # small ones first
    drawn = [draw_patches(GRID, progressive, 8, rng(), share).sides[0] for share in (0.0, 0.4, 0.99)]
    assert drawn == [16, 32, 32]  # 64 is the whole of a grid of 32


def test_it_trains_and_its_bundle_samples(shards: Path, tmp_path: Path) -> None:
    """By the same trainer, exporter and sampler as every other network."""
    losses: list[float] = []
    train(shards, tmp_path / "run", TINY, progress=lambda step, total, loss: losses.append(loss))
    history = (tmp_path / "run" / "validation.jsonl").read_text().splitlines()
    assert len(losses) == 12 and len(history) == 3
    first, last = (float(line.split('"loss": ')[1].split(",")[0]) for line in (history[0], history[-1]))
    assert last < 0.9 * first  # on somebody the training never saw, on fixed noise
    bundle = export_run(tmp_path / "run", tmp_path / "a.x2ct").bundle
    assert bundle.networks.denoiser.receptive_radius == EVERYWHERE  # its norms tie each voxel to all
    sampler = x2ct.Sampler(bundle, threads=1)
    xray = x2ct.XRay.of(rng().uniform(0, 4, (64, 64)).astype(np.float32))
    volume, again = (sampler.sample(ap=xray, churn=churn).hu for churn in (0.0, 10.0))
    assert volume.shape == GRID.shape and np.isfinite(volume).all()
    assert not np.array_equal(volume, again)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "cubes"}, "kind"),
        ({"kind": "slabs"}, "stem 1 and pixels"),
    ],
)
def test_what_is_no_network_is_refused(change: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ModelConfig(**change)  # type: ignore[arg-type]
    for field in ("shape", "schedule"):
        with pytest.raises(InputError, match=field):
            PatchConfig(**{field: "round"})  # type: ignore[arg-type]
