"""Laws of the trainer: what is drawn, what is refused, and that a killed run is the run that was not."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny_run import CONFIG, GRID
from x2ct.data import ShardSet
from x2ct.data.augment import AugmentConfig, Study, body_of, draw_plan, interpolated, plain_study, render
from x2ct.data.imaging import NONE
from x2ct.data.shards import Patient
from x2ct.errors import InputError, X2CTError
from x2ct.geometry.grid import Grid
from x2ct.model import ModelConfig, X2CTModel
from x2ct.model.ema import PowerEMA, posthoc_shares, power_gamma
from x2ct.training import TrainConfig, checkpoint, load_run, train
from x2ct.training.checkpoint import BEST_FILE, CHECKPOINT_FILE, State, new_state, read_progress, starting_weights
from x2ct.training.config import DiffusionConfig, PatchConfig
from x2ct.training.loop import step_of_tensors, train_step
from x2ct.training.loss import (
    Draw,
    Patches,
    detail_error,
    draw_loss,
    draw_patches,
    draw_sigmas,
    edm_weight,
    squared_error,
)
from x2ct.training.monitor import WorkMeter
from x2ct.training.runs import initialise, training_geometry
from x2ct.training.studies import StudyPool

ROOT = Path(__file__).parent.parent
TOPS = (6.0, 8.0)
TINY = dataclasses.replace(TrainConfig.from_json(CONFIG), grid=GRID)
WHOLE = Patches(torch.tensor([[0, 0, 0]]), (32, 32, 32))
TWO = Patches(torch.tensor([[0, 0, 0], [16, 8, 0]]), (16, 16, 16))


def study_of(patient: Patient, config: AugmentConfig, seed: int = 0) -> Study:
    plan = draw_plan(patient, GRID, training_geometry(TINY), config, np.random.default_rng(seed), TOPS)
    return render(body_of(patient), plan)


def loss_of(state: State, study: Study, patches: Patches, seed: int = 0) -> torch.Tensor:
    return draw_loss(state, Draw.of(state, study, patches, torch.Generator().manual_seed(seed)))


def test_a_probability_to_drop_each_view_fits_the_views(shards: Path) -> None:
    alone = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, views=1))
    patient, geometry = ShardSet.open(shards).select("train")[0], training_geometry(alone)
    plan = draw_plan(patient, GRID, geometry, alone.augment, np.random.default_rng(0), TOPS[:1])
    assert render(body_of(patient), plan).valid.tolist() == [1]  # one view is never missing
    assert TrainConfig.from_json(alone.to_json()) == alone
    with pytest.raises(InputError, match=r"augment\.drop: found \(0\.1, 0\.1\), expected .* each of 1 views"):
        dataclasses.replace(alone, augment=AugmentConfig(drop=(0.1, 0.1)))


def test_sigmas_are_log_normal_but_for_the_mean_share() -> None:
    config = DiffusionConfig()
    sigmas = draw_sigmas(200_000, config, torch.Generator().manual_seed(0))
    assert sigmas.max() == config.sigma_max
    top = (sigmas == config.sigma_max).float().mean().item()
    logs = sigmas[sigmas < config.sigma_max].log()
    assert top == pytest.approx(config.mean_share, abs=0.025)  # and what the cut at sigma_max adds
    assert logs.median().item() == pytest.approx(config.log_mean, abs=0.1)


def test_edm_weight_makes_the_loss_of_an_untrained_network_one() -> None:
    """D = c_skip x misses by c_out, and lambda = 1 / c_out^2 (Karras et al. 2022, Table 1)."""
    sigma = torch.tensor([0.01, 0.4, 20.0])
    c_out = sigma * 0.4 / (sigma.square() + 0.16).sqrt()
    assert torch.allclose(edm_weight(sigma, 0.4) * c_out.square(), torch.ones(3), rtol=1e-5)


def test_what_is_taken_for_bone_weighs_more() -> None:
    """Whatever the truth is: -1, 150 HU and 1 are none, half and all of bone."""
    half = float(TINY.intensity.to_x(TINY.optim.bone_hu))
    result = torch.tensor([-1.0, half, 1.0]).reshape(3, 1, 1, 1, 1)
    whole = 1.0 + TINY.optim.bone_weight
    for miss in (-1, 1):
        errors = squared_error(result, result + miss, TINY).tolist()
        assert errors == pytest.approx([1.0, (1 + whole) / 2, whole])


def test_detail_is_what_changes_from_rib_to_rib() -> None:
    """Half the mean square of e(z + 10 mm) - e(z) is 2 sin^2(pi 10 / wavelength) times a wave's own mean square."""
    z, pitch = torch.arange(96) * 2.5, (2.5, 2.5, 2.5)

    def of(wavelength_mm: float) -> float:
        wave = torch.sin(2 * math.pi * z / wavelength_mm).expand(1, 1, 8, 8, -1)
        return float(detail_error(wave, torch.ones_like(wave), pitch) / wave.square().mean())

    assert of(20.0) == pytest.approx(2 / 3, rel=0.01)
    assert of(10.0) == pytest.approx(0, abs=1e-6)
    assert of(120.0) == pytest.approx(2 / 3 * math.sin(math.pi / 12) ** 2, rel=0.1)
    noise = torch.randn((2, 1, 64, 64, 64), generator=torch.Generator().manual_seed(0))
    assert detail_error(noise, torch.ones_like(noise), pitch).tolist() == pytest.approx([1, 1], rel=0.02)


def test_the_posterior_mean_minimises_the_loss() -> None:
    """Of two truths that are as likely as each other: the gradient at their mean, over both."""
    truths = torch.randn((2, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    config = dataclasses.replace(TINY, optim=dataclasses.replace(TINY.optim, bone_weight=2.0, detail_weight=4.0))
    mean = truths.mean(0, keepdim=True).requires_grad_()
    squared_error(mean.expand_as(truths), truths, config).mean().backward()
    assert mean.grad is not None
    assert mean.grad.abs().max() < 1e-7


def test_patches_lie_on_the_stride_inside_the_grid() -> None:
    rng = np.random.default_rng(0)
    config = PatchConfig((8, 16, 64), (0.4, 0.4, 0.2), 16384)
    sizes = set()
    for _ in range(200):
        patches = draw_patches(GRID, config, 4, rng)
        for origin in patches.origins.tolist():
            assert all(
                o % 4 == 0 and 0 <= o <= n - s for o, s, n in zip(origin, patches.sides, GRID.shape, strict=True)
            )
        sizes.add(patches.sides[0])
    assert sizes == {8, 16, 32}  # 64 means the whole of a 32^3 grid


def test_coordinates_are_patient_millimetres() -> None:
    coords = GRID.coordinates() * 100
    mm = GRID.index_to_mm @ [3, 7, 30, 1]
    assert coords[:, 3, 7, 30].tolist() == pytest.approx(mm[:3].tolist())


def test_without_augmentation_a_study_is_the_patient(shards: Path) -> None:
    patient = ShardSet.open(shards).patients[0]
    nothing = AugmentConfig(
        margin_mm=(0, 0, 0), rotation_deg=0, scale=0, shift_mm=0, warp_mm=0, flip=0, density=0, crop=0, cone=0,
        view_deg=0, unknown_deg=0, noise=0, uncalibrated=0, drop=(0, 0), radiograph=NONE,
    )  # fmt: skip
    study, plain = study_of(patient, nothing), plain_study(patient, GRID, training_geometry(TINY))
    assert (study.hu - plain.hu).abs().max() < 0.1
    assert (study.views - plain.views).abs().max() < 1e-3
    assert torch.equal(study.projections, plain.projections)


def test_studies_depend_on_their_generator_alone(shards: Path) -> None:
    patient = ShardSet.open(shards).patients[0]
    a, b, c = (study_of(patient, TINY.augment, seed) for seed in (1, 1, 2))
    assert torch.equal(a.views, b.views) and torch.equal(a.hu, b.hu)
    assert not torch.equal(a.hu, c.hu)


def test_a_flipped_body_has_flipped_x_rays(shards: Path) -> None:
    """Pose acts on the body before both grid and X-rays, so they stay one anatomy."""
    patient = ShardSet.open(shards).patients[0]
    config = dataclasses.replace(
        TINY.augment, margin_mm=(0, 0, 0), rotation_deg=0, scale=0, shift_mm=0, warp_mm=0, flip=1, density=0, crop=0,
        cone=0, view_deg=0, unknown_deg=0, noise=0, uncalibrated=0, drop=(0, 0), radiograph=NONE,
    )  # fmt: skip
    study, plain = study_of(patient, config), plain_study(patient, GRID, training_geometry(TINY))
    assert (study.hu - plain.hu.flip(0)).abs().max() < 0.1
    assert (study.views[0] - plain.views[0].flip(1)).abs().max() < 1e-2


def test_a_fine_warp_leaves_the_coarse_one_and_the_rest_of_the_plan(shards: Path) -> None:
    """Between the coarse nodes the field is linear, so that the finer nodes carry it as it is."""
    patient = ShardSet.open(shards).patients[0]
    positions = []
    for config in (AugmentConfig(), AugmentConfig(fine_warp_mm=1e-9), AugmentConfig(fine_warp_mm=8.0)):
        plan = draw_plan(patient, GRID, training_geometry(TINY), config, np.random.default_rng(0), TOPS)
        positions.append(plan.positions)
    assert np.abs(positions[1][:, ::2, ::2, ::2] - positions[0]).max() < 1e-6
    moved = (positions[2] - positions[1]) * np.reshape(patient.shape, (3, 1, 1, 1)) / 2 * 10.0  # in mm
    assert 2.0 < moved.std() < 8.0  # smoothed to about half


def test_interpolation_is_numpy_s() -> None:
    values, knots, results = np.linspace(-3, 3, 101, dtype=np.float32), (-2.0, -0.5, 1.0), (-1.0, 0.5, 0.75)
    seen = interpolated(torch.from_numpy(values), knots, results).numpy()
    assert np.abs(seen - np.interp(values, knots, results)).max() < 1e-6


def test_studies_made_on_demand_are_those_made_ahead(shards: Path) -> None:
    """On a GPU nothing is made ahead; what a step draws does not depend on it."""

    def drawn(workers: int) -> list[Study]:
        config = dataclasses.replace(TINY, display_p99=TOPS, pool=3, refresh=2, seed=5, workers=workers)
        with StudyPool(ShardSet.open(shards).patients, config) as pool:
            return [pool.draw(step)[0] for step in (0, 1, 4, 5, 6)]

    for ahead, demanded in zip(drawn(2), drawn(0), strict=True):
        assert torch.equal(ahead.hu, demanded.hu) and torch.equal(ahead.views, demanded.views)


def one_loss(shards: Path, device: str) -> tuple[X2CTModel, torch.Tensor]:
    """A fresh tiny network and its loss on one study, backward pass done."""
    shard_set = ShardSet.open(shards)
    study = plain_study(shard_set.select("train")[0], GRID, training_geometry(TINY))
    state = new_state(TINY, torch.device(device))
    loss = loss_of(state, study, TWO)
    loss.backward()  # type: ignore[no-untyped-call]
    return state.model, loss


def test_all_tensors_of_a_step_are_on_the_model_s_device(shards: Path) -> None:
    """PyTorch refuses to mix devices, and its device without data is one that every machine has."""
    model, loss = one_loss(shards, "meta")
    assert loss.device.type == "meta"
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_sketch_learns_from_its_own_loss_alone(shards: Path) -> None:
    """The denoiser's loss would pull it from the posterior mean to whatever eases denoising."""
    shard_set = ShardSet.open(shards)
    study = plain_study(shard_set.select("train")[0], GRID, training_geometry(TINY))
    config = dataclasses.replace(TINY, optim=dataclasses.replace(TINY.optim, sketch_weight=0.0))
    state = new_state(config, torch.device("cpu"))
    loss_of(state, study, WHOLE).backward()  # type: ignore[no-untyped-call]
    assert float(state.model.lift.sketcher.weight.grad.abs().max()) == 0.0  # type: ignore[union-attr]
    assert float(state.model.lift.out.weight.grad.abs().max()) > 0.0  # type: ignore[union-attr]


def test_the_rate_warms_up_stays_and_ends_at_zero_by_steps_and_by_the_clock() -> None:
    by_steps = dataclasses.replace(TrainConfig(), steps=10_000)
    by_clock = dataclasses.replace(TrainConfig(), steps=0, minutes=30)
    optim = by_steps.optim
    assert optim.share(0, 0.0) == pytest.approx(1 / optim.warmup)
    assert optim.share(optim.flat, by_steps.progress(optim.flat, 0.0)) == pytest.approx(1.0)
    assert optim.share(4 * optim.flat - 1, 0.5) < 0.51
    assert optim.share(9_999, by_steps.progress(9_999, 0.0)) < 1e-3
    assert optim.share(optim.flat, by_clock.progress(optim.flat, 15 * 60)) == pytest.approx(1.0)
    assert optim.share(optim.flat, by_clock.progress(optim.flat, 30 * 60)) == 0.0


def test_progress_follows_the_nearer_limit() -> None:
    both = dataclasses.replace(TrainConfig(), steps=100, minutes=10)
    assert both.progress(50, 60.0) == 0.5 and both.progress(10, 540.0) == 0.9 and both.progress(500, 0.0) == 1.0
    with pytest.raises(InputError, match="steps and minutes"):
        dataclasses.replace(TrainConfig(), steps=0)


def test_configuration_survives_its_file(tmp_path: Path) -> None:
    TINY.save(tmp_path)
    assert TrainConfig.load(tmp_path) == TINY


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stepz": 3}, r"config: found 'stepz', expected .*; did you mean 'steps'\?"),
        ({"optim": {"ratee": 3}}, r"optim: found 'ratee', expected .*; did you mean 'rate'\?"),
        ({"steps": "many"}, "train config: steps: found str, expected int"),
        ({"optim": {"betas": [0.9, "b"]}}, r"train config: optim\.betas\[1\]: found str, expected float"),
        ({"detector_spacing_mm": [1.0]}, r"detector_spacing_mm: found another value, expected array of length 2"),
        ({"model": {"norm": "batch"}}, "norm"),
        ({"patch": {"sizes": [10], "probabilities": [1.0]}}, "multiples"),
        ({"patch": {"sizes": [16], "probabilities": [0.5]}}, "probability"),
    ],
)
def test_wrong_configurations_are_one_line(change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        TrainConfig.from_json({**CONFIG, **change})
    assert "\n" not in str(caught.value)


SHORT = Grid((16, 64, 64))
DEEP_LIFT = ModelConfig(lift_channels=(8,) * 5, lift_blocks=(1,) * 5)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"patch": PatchConfig((16,), (1.0,))}, "patch.sizes: found 16 voxels"),
        ({"patch": PatchConfig((8,), (1.0,))}, "patch.sizes: found 8 voxels"),  # two cells above the coarsest level
        ({"patch": PatchConfig((64,), (1.0,), shape="slab"), "grid": SHORT}, "patch.sizes: found 16 voxels"),
        ({"patch": PatchConfig((64,), (1.0,)), "model": DEEP_LIFT}, "grid: found 128 voxels"),
    ],
)
def test_bf16_gradients_that_a_cpu_computes_wrong_are_refused(change: dict[str, Any], found: str) -> None:
    """Of two cells along x: PyTorch 2.13 makes the weight gradient of a 3^3 convolution of memory never written to."""
    config = dataclasses.replace(TrainConfig(), **change)
    with pytest.raises(InputError, match=f'train config: {found}.* set "autocast" to false') as caught:
        config.require_exact_gradients("cpu")
    assert "\n" not in str(caught.value)
    config.require_exact_gradients("cuda")
    dataclasses.replace(config, autocast=False).require_exact_gradients("cpu")


def test_a_run_of_wrong_gradients_is_refused_before_anything_is_written(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 24, three cells"):
        train(shards, tmp_path / "run", dataclasses.replace(TINY, autocast=True), device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["chest.json", "ancestor.json"])
def test_the_recipes_gradients_are_right_on_a_cpu(recipe: str) -> None:
    TrainConfig.load(ROOT / "benchmarks" / recipe).require_exact_gradients("cpu")


def test_training_lowers_the_loss_and_leaves_what_it_promises(shards: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=40, validate_every=4, checkpoint_every=40)
    seen: list[int] = []
    result = train(shards, tmp_path / "run", config, progress=lambda step, total, loss: seen.append(step))
    assert result.finished and result.steps == 40 and seen == list(range(1, 41))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"config.json", CHECKPOINT_FILE, BEST_FILE, "tensorboard", "validation.jsonl", "preview_000040.png"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(4, 41, 4))
    # On somebody the training never saw, on fixed noise.
    assert rows[-1]["mean_psnr"] > rows[0]["mean_psnr"] + 1
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    loaded, model = load_run(tmp_path / "run")
    assert loaded == dataclasses.replace(config, grid=GRID, display_p99=loaded.display_p99) and not model.training
    assert len(loaded.display_p99) == 2 and min(loaded.display_p99) > 1


def test_a_run_can_start_from_another(shards: Path, tmp_path: Path) -> None:
    """The averaged weights of the same name and shape, to the bit; a network without any of them is refused."""
    train(shards, tmp_path / "first", dataclasses.replace(TINY, steps=3))
    train(
        shards,
        tmp_path / "second",
        dataclasses.replace(TINY, steps=1, seed=5, optim=dataclasses.replace(TINY.optim, warmup=10**9)),
        init=starting_weights(tmp_path / "first"),
    )
    given, taken = (load_run(tmp_path / "first")[1], load_run(tmp_path / "second", raw=True)[1])
    pairs = zip(given.parameters(), taken.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)  # one step at a billionth of the rate
    state = new_state(dataclasses.replace(TINY, seed=5), torch.device("cpu"))
    initialise(state, starting_weights(tmp_path / "first"))
    assert all(torch.equal(a, b) for a, b in zip(given.parameters(), state.model.parameters(), strict=True))
    with pytest.raises(InputError, match=r"config\.json"):
        starting_weights(tmp_path)
    with pytest.raises(InputError, match="none that fit"):
        train(shards, tmp_path / "third", TINY, init={"another": torch.zeros(1)})


def test_a_run_is_not_trained_over(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path, dataclasses.replace(TINY, steps=1))
    with pytest.raises(InputError, match="--resume"):
        train(shards, tmp_path, TINY)
    with pytest.raises(InputError, match="another configuration"):
        train(shards, tmp_path, dataclasses.replace(TINY, seed=9), resume=True)
    with pytest.raises(InputError, match="run to resume"):
        train(shards, tmp_path / "nowhere", resume=True)


def test_a_run_that_was_killed_before_its_first_checkpoint_is_made_again(shards: Path, tmp_path: Path) -> None:
    dataclasses.replace(TINY, seed=9).save(tmp_path)
    with pytest.raises(InputError, match=f"no {CHECKPOINT_FILE}, expected a run to resume; leave out --resume"):
        train(shards, tmp_path, resume=True)
    assert train(shards, tmp_path, dataclasses.replace(TINY, steps=1)).steps == 1


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint_that_is_there(tmp_path: Path) -> None:
    """A limit on a file's size fails a write as a full disk does: in the middle, by the system's word."""
    state = new_state(TINY, torch.device("cpu"))
    checkpoint.save(state, tmp_path)
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
    try:
        with pytest.raises(X2CTError) as caught:
            checkpoint.save(state, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f"{tmp_path / CHECKPOINT_FILE}: output: not written: file too large (os error 27)"
    assert caught.value.exit_code == 1
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


def test_a_damaged_checkpoint_is_one_line(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path, dataclasses.replace(TINY, steps=1))
    whole = (tmp_path / CHECKPOINT_FILE).read_bytes()
    (tmp_path / CHECKPOINT_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=CHECKPOINT_FILE) as caught:
        load_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_best_average_is_the_one_of_the_lowest_validation_loss(shards: Path, tmp_path: Path) -> None:
    """Kept beside the last, and named by its step; a rate that destroys the weights later does not touch it."""
    optim = dataclasses.replace(TINY.optim, rate=0.5, warmup=60, cooldown=0.0, ema=(0.01,))
    config = dataclasses.replace(TINY, steps=40, validate_every=4, checkpoint_every=40, optim=optim)
    train(shards, tmp_path, config)
    rows = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["loss"])
    with safe_open(tmp_path / BEST_FILE, framework="pt") as file:
        assert int(file.metadata()["step"]) == best["step"]
        assert float(file.metadata()["best_loss"]) == best["loss"]
    assert load_run(tmp_path, best=True)[1].training is False
    assert {"loss", "mean_psnr"} <= best["train"].keys()


def test_a_run_by_the_clock_ends_cooled_down_and_goes_on_with_more_minutes(shards: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=0, minutes=0.05, validate_every=10**9)
    done = train(shards, tmp_path, config)
    assert done.finished and done.seconds >= 3.0 and done.steps > 1
    own = TrainConfig.load(tmp_path)
    assert own.optim.share(done.steps, own.progress(done.steps, done.seconds)) == 0.0
    more = train(shards, tmp_path, resume=True, minutes=0.07)
    assert more.finished and more.steps > done.steps and more.seconds >= 4.2
    assert TrainConfig.load(tmp_path).minutes == 0.07


def test_what_a_lost_part_said_of_later_steps_is_not_said_twice(shards: Path, tmp_path: Path) -> None:
    """A kill between a validation and its checkpoint leaves a row that the resumed run writes again."""
    train(shards, tmp_path, dataclasses.replace(TINY, steps=8))
    history = tmp_path / "validation.jsonl"
    rows = history.read_text().splitlines()
    history.write_text("\n".join([*rows, json.dumps({"step": 12, "loss": 9.0})]) + "\n")
    train(shards, tmp_path, resume=True, steps=12)
    assert [json.loads(row)["step"] for row in history.read_text().splitlines()] == [4, 8, 12]


PROGRAM = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from x2ct.training import TrainConfig, train
shards, run, config, resume = sys.argv[1:]
train(shards, run, None if resume == "yes" else TrainConfig.load(Path(config)), resume=resume == "yes",
      progress=lambda step, total, loss: print(step, flush=True))
"""


def test_killed_and_resumed_is_uninterrupted(shards: Path, tmp_path: Path) -> None:
    """kill -9 in the middle, resume: the same weights, averages and moments to the bit."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))

    def start(run: Path, resume: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(shards), str(run), str(config), resume]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    whole = start(tmp_path / "whole", "no")
    killed = start(tmp_path / "killed", "no")
    assert killed.stdout is not None
    for line in killed.stdout:
        if int(line) >= 3:
            time.sleep(0.02)
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    resumed = start(tmp_path / "killed", "yes")
    assert resumed.wait(100) == 0 and whole.wait(100) == 0
    for process in (whole, resumed):
        process.communicate()
    a, b = (load_file(tmp_path / name / CHECKPOINT_FILE) for name in ("whole", "killed"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_signal_finishes_the_step_and_the_resumed_run_is_uninterrupted(shards: Path, tmp_path: Path) -> None:
    """Also where a checkpoint is not due for long: the command says how to go on and ends with the signal's code."""
    config, total = tmp_path / "config.json", 30
    config.write_text(json.dumps({**CONFIG, "steps": total, "checkpoint_every": 1000, "validate_every": 1000}))

    def command(run: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "x2ct", "train", str(shards), "-o", str(tmp_path / run), *options, "--threads=1"]

    def start(*arguments: str) -> subprocess.Popen[str]:
        # A suite that was started in the background has SIGINT ignored, and its children would inherit that.
        return subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    codes = {signal.SIGTERM: 143, signal.SIGINT: 130}
    interrupted = {number: start(number.name, "--config", str(config)) for number in codes}
    while not all((tmp_path / number.name / CHECKPOINT_FILE).exists() for number in codes):
        time.sleep(0.05)
    time.sleep(0.5)
    for number, process in interrupted.items():
        process.send_signal(number)
    for number, process in interrupted.items():
        output, errors = process.communicate(timeout=300)
        assert process.returncode == codes[number], errors
        assert "--resume" in output and f"{number.name}: finishing the step" in errors
        steps, _ = read_progress(tmp_path / number.name)
        assert 1 <= steps < total
    for process in (start("SIGTERM", "--resume"), start("whole", "--config", str(config))):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    a, b = (load_file(tmp_path / name / CHECKPOINT_FILE) for name in ("whole", "SIGTERM"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_an_average_made_afterwards_is_the_one_made_in_training() -> None:
    model, steps = nn.Linear(40, 25, bias=False), 600
    widths, wanted = (0.05, 0.1), 0.16
    averages = [PowerEMA(model, width) for width in (*widths, wanted)]
    generator, kept = torch.Generator().manual_seed(0), []
    for step in range(1, steps + 1):
        with torch.no_grad():
            model.weight.add_(torch.randn(model.weight.shape, generator=generator))  # a random walk
        for average in averages:
            average.move(model, average.weight(step))
        if step % 50 == 0:
            kept += [(step, average.relative_width, average.shadow["weight"].clone()) for average in averages[:2]]
    shares = posthoc_shares([(step, width) for step, width, _ in kept], steps, wanted)
    made = sum(share * value.double() for share, (_, _, value) in zip(shares, kept, strict=True))
    true = averages[2].shadow["weight"].double()
    away = [float((value.double() - true).norm() / true.norm()) for value in (made, kept[-1][2])]
    assert away[0] < 0.005 < 0.1 < away[1]
    # Of all shares, those by brute force come hardly nearer to the profile.
    t = (np.arange(6000) + 0.5) / 10

    def profile(end: float, width: float) -> np.ndarray:
        gamma = power_gamma(width)
        return np.where(t <= end, (gamma + 1) * (t / end) ** gamma / end, 0)

    profiles, goal = np.stack([profile(step, width) for step, width, _ in kept], 1), profile(steps, wanted)
    nearest = np.linalg.norm(profiles @ np.linalg.lstsq(profiles, goal, rcond=None)[0] - goal)
    assert np.linalg.norm(profiles @ shares - goal) < 1.1 * nearest


def test_a_run_exports_averages_of_other_widths_where_it_kept_some(shards: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=8, optim=dataclasses.replace(TINY.optim, keep=4))
    train(shards, tmp_path / "run", config, threads=1)
    assert sorted(path.stem for path in (tmp_path / "run/averages").iterdir()) == [f"{s:08d}" for s in (2, 4, 6, 8)]
    weights = {
        width: dict(load_run(tmp_path / "run", ema=width)[1].named_parameters()) for width in (0.05, 0.0501, 0.2)
    }
    for name, value in weights[0.05].items():
        torch.testing.assert_close(weights[0.0501][name], value, rtol=2e-3, atol=2e-3)
    assert any((weights[0.2][name] - value).abs().max() > 0.01 for name, value in weights[0.05].items())
    with pytest.raises(InputError, match=r"ema: found 0\.3, expected 0\.05, 0\.1, or a width above 0 and below 0\.28"):
        load_run(tmp_path / "run", ema=0.3)
    (tmp_path / "run/averages/00000010.safetensors").touch()  # of steps that a killed run took after its checkpoint
    checkpoint.restore(new_state(TrainConfig.load(tmp_path / "run"), torch.device("cpu")), tmp_path / "run")
    assert not (tmp_path / "run/averages/00000010.safetensors").exists()
    train(shards, tmp_path / "without", dataclasses.replace(TINY, steps=1), threads=1)
    with pytest.raises(InputError, match=r"ema: found 0\.2, expected 0\.05, 0\.1; other widths need optim\.keep"):
        load_run(tmp_path / "without", ema=0.2)


@pytest.mark.parametrize("muon", [0.0, 0.02])
def test_one_step_of_either_optimiser_moves_every_weight(shards: Path, muon: float) -> None:
    config = dataclasses.replace(TINY, optim=dataclasses.replace(TINY.optim, muon=muon))
    state = new_state(config, torch.device("cpu"))
    study = plain_study(ShardSet.open(shards).select("train")[0], GRID, training_geometry(TINY))
    before = {name: value.detach().clone() for name, value in state.model.named_parameters()}
    for seed in range(2):  # gains that start at 0 keep what lies behind them still for a step
        loss_of(state, study, WHOLE, seed).backward()  # type: ignore[no-untyped-call]
        state.optimizer.step(1.0)
    assert all(not torch.equal(value, before[name]) for name, value in state.model.named_parameters())
    kinds = {name.split(".")[0] for name in state.optimizer.state()}
    assert kinds == ({"step", "exp_avg", "exp_avg_sq"} | ({"momentum_buffer"} if muon else set()))


@pytest.mark.parametrize("muon", [0.0, 0.02])
def test_the_step_that_a_gpu_records_is_the_step(shards: Path, muon: float) -> None:
    """Two patch sizes, two draws a step, a rate that changes: weights and averages to rounding."""
    optim = dataclasses.replace(TINY.optim, muon=muon, accumulate=2)
    config = dataclasses.replace(TINY, display_p99=TOPS, optim=optim, steps=4, seed=5, workers=0)
    device = torch.device("cpu")
    states, losses = [new_state(config, device) for _ in range(2)], []
    for state in states:
        take = partial(step_of_tensors, state) if state is states[1] else None  # in place of a CUDA graph
        with StudyPool(ShardSet.open(shards).patients, config) as pool:
            meter = WorkMeter(device, torch.float32)
            losses.append([train_step(state, pool, meter, take) for _ in range(3)])
    plain, other = states
    assert plain.step == other.step == 3
    np.testing.assert_allclose(*losses, rtol=1e-4)
    for name, value in plain.model.named_parameters():
        moved = dict(other.model.named_parameters())[name]
        assert float((value - moved).abs().max()) < 1e-3 * float(value.abs().max() + 0.1), name
        for average, same in zip(plain.averages, other.averages, strict=True):
            away = float((average.shadow[name] - same.shadow[name]).abs().max())
            assert away < 1e-3 * float(value.abs().max() + 0.1), name


class OffTheHost(TorchDispatchMode):
    """Refuses what a CUDA graph can't record: tensors made of the host's numbers, and numbers read from tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in ("lift_fresh", "local_scalar_dense", "nonzero")), func
        return func(*args, **(kwargs or {}))


def test_a_recorded_step_asks_the_host_for_nothing(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for AdamW, which counts its steps on the host where there is no GPU."""
    state = new_state(TINY, torch.device("cpu"))
    study = plain_study(ShardSet.open(shards).select("train")[0], GRID, training_geometry(TINY))
    draw = Draw.of(state, study, TWO, torch.Generator().manual_seed(0))
    monkeypatch.setattr(state.optimizer, "step", lambda share: None)
    numbers = torch.full((1 + len(state.averages),), 0.5)
    with OffTheHost():
        loss = step_of_tensors(state, numbers, *draw)
    assert float(loss) > 0


def test_the_denoiser_can_be_trained_alone(shards: Path) -> None:
    config = dataclasses.replace(TINY, optim=dataclasses.replace(TINY.optim, denoiser_only=True))
    state = new_state(config, torch.device("cpu"))
    study = plain_study(ShardSet.open(shards).select("train")[0], GRID, training_geometry(TINY))
    before = {name: value.detach().clone() for name, value in state.model.named_parameters()}
    loss_of(state, study, WHOLE).backward()  # type: ignore[no-untyped-call]
    state.optimizer.step(1.0)
    moved = {
        name.split(".")[0] for name, value in state.model.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved == {"denoiser"}


def test_training_and_inference_sample_the_same_places(shards: Path) -> None:
    """Under autocast, points were projected in bfloat16: image features came from up to 3.7 pixels beside."""
    study = plain_study(ShardSet.open(shards).select("train")[0], GRID, training_geometry(TINY))
    state = new_state(TINY, torch.device("cpu"))
    inputs = *study.inputs(torch.device("cpu")), state.coords[None]
    plain = state.model.condition(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = state.model.condition(*inputs)
    for a, b in zip(plain, mixed, strict=True):
        assert float((a - b.float()).abs().mean() / a.abs().mean()) < 0.01
