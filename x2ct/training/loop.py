"""The training loop, top to bottom: draw a study, cut patches, add noise, denoise, step, average.

Everything random depends on (seed, step) alone, so a run that was killed and resumed is the run that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from x2ct.data.augment import Study, plain_study
from x2ct.data.shards import ShardSet
from x2ct.grid import Grid
from x2ct.model import X2CTModel
from x2ct.model.ema import PowerEMA
from x2ct.training import checkpoint
from x2ct.training.config import TrainConfig
from x2ct.training.heap import keep_freed_memory
from x2ct.training.loss import bone_weights, draw_sigmas, edm_weight
from x2ct.training.monitor import Monitor
from x2ct.training.optimizer import Optimizer
from x2ct.training.patches import Patch, draw_patches
from x2ct.training.runs import initialise, open_run, people_of, training_geometry
from x2ct.training.studies import StudyPool
from x2ct.training.validate import study_tensors, validate

ProgressCallback = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss of the last step)."""


@dataclass(frozen=True)
class TrainResult:
    """What a call of `train` did: steps done in the run so far, whether that is all of them, seconds in all."""

    steps: int
    finished: bool
    seconds: float


def train(
    shards: str | Path | ShardSet,
    run_dir: str | Path,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    minutes: float | None = None,
    init: Mapping[str, Tensor] | None = None,
    device: str = "auto",
    threads: int = 0,
    progress: ProgressCallback | None = None,
) -> TrainResult:
    """Train a model on shards, or go on with a run.

    Args:
        shards: a folder that `x2ct prepare` wrote, or one that was opened and perhaps given another grid.
        run_dir: the run's folder: config.json, checkpoint.safetensors, TensorBoard logs, previews.
        config: the configuration of a new run; the run's own when resuming.
        resume: go on from the run's checkpoint.
        init: weights by name that a new run starts from, where name and shape agree: another run's
            (`runs.starting_weights`) or a bundle's (`x2ct.export.starting_point`).
        minutes: stop after this many minutes with a checkpoint to resume from.
        device: "auto", "cpu" or "cuda[:N]".
        threads: PyTorch's CPU threads; 0 leaves its default.
        progress: called after each step; an exception in it stops the run, its last checkpoint stays.

    Raises:
        InputError: the shards or the run's folder can't be used.
    """
    run_dir = Path(run_dir)
    shard_set = shards if isinstance(shards, ShardSet) else ShardSet.open(shards)
    config = open_run(run_dir, config, shard_set, resume)
    if threads:
        torch.set_num_threads(threads)
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if target.type == "cpu":
        keep_freed_memory()
    geometry = training_geometry(config)
    people = people_of(shard_set, config, "train")
    held_out = people_of(shard_set, config, "validation")

    state = new_state(config, target)
    if init is not None and not resume:
        initialise(state, init)
    if resume:
        checkpoint.restore(state, run_dir)
    else:
        checkpoint.save(state, run_dir)
    coords = torch.from_numpy(shard_set.grid.coordinates()).to(target)
    validation = [plain_study(person, shard_set.grid, geometry) for person in held_out]
    pool = StudyPool(
        people,
        shard_set.grid,
        geometry,
        config.augment,
        config.display_p99,
        size=config.pool,
        refresh=config.refresh,
        seed=config.seed,
        workers=config.workers,
    )
    started, before = time.monotonic(), state.seconds
    with pool, Monitor(run_dir, state.step) as monitor:
        while state.step < config.steps:
            loss = train_step(state, pool, shard_set.grid, coords)
            state.seconds = before + time.monotonic() - started
            monitor.step(state, loss)
            if progress is not None:
                progress(state.step, config.steps, loss)
            if validation and (state.step % config.validate_every == 0 or state.step == config.steps):
                _validate(state, validation, coords, monitor)
            out_of_time = minutes is not None and time.monotonic() - started > 60 * minutes
            if state.step % config.checkpoint_every == 0 or state.step == config.steps or out_of_time:
                checkpoint.save(state, run_dir)
            if out_of_time:
                break
    return TrainResult(state.step, state.step >= config.steps, state.seconds)


def new_state(config: TrainConfig, device: torch.device) -> checkpoint.State:
    """A freshly initialised run; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(config.seed)  # type: ignore[attr-defined]
        model = X2CTModel(config.model)
    model.normalize()
    model.to(device)
    averages = [PowerEMA(model, width) for width in config.optim.ema]
    return checkpoint.State(config, model, Optimizer(model, config.optim), averages)


def train_step(state: checkpoint.State, pool: StudyPool, grid: Grid, coords: Tensor) -> float:
    """One optimiser step; returns the loss per voxel."""
    config = state.config
    total = 0.0
    for turn in range(config.optim.accumulate):
        study, rng = pool.draw(state.step * config.optim.accumulate + turn)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        patches = draw_patches(grid, config.patch, config.model.stride, rng, state.step / config.steps)
        loss = study_loss(state.model, study, patches, config, coords, generator) / config.optim.accumulate
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optim.clip)
    state.optimizer.step(learning_rate(config, state.step) / config.optim.rate)
    state.model.normalize()
    state.step += 1
    for average in state.averages:
        average.update(state.model, state.step)
    return total


def study_loss(
    model: X2CTModel,
    study: Study,
    patches: list[Patch],
    config: TrainConfig,
    coords: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """EDM's weighted loss over patches of one study, and the condition's own over all of it.

    The X-rays are encoded and lifted once, for the whole volume; each patch gets its part of the condition.
    """
    device = coords.device
    views, valid, projections = study_tensors([study], device)
    x = torch.from_numpy(config.intensity.to_x(study.hu)).to(device)
    truth = torch.stack([x[patch.slices] for patch in patches])[:, None]
    sigma = draw_sigmas(len(patches), config.diffusion, generator).to(device)
    noise = torch.randn(truth.shape, generator=generator).to(device)
    with torch.autocast(device.type, torch.bfloat16) if config.autocast else nullcontext():
        condition, sketch = model.condition(views, valid, projections, coords[None])
        conditions = torch.cat([condition[(..., *patch.cells(config.model.stem))] for patch in patches])
        # The sketch is the posterior mean by its own loss alone; the denoiser works about it as it finds it.
        sketches = torch.cat([sketch.detach()[(..., *patch.slices)] for patch in patches])
        noisy = truth + noise * sigma.reshape(-1, 1, 1, 1, 1)
        denoised = model.denoiser.denoise(noisy, sigma, conditions, sketches)
    loss = (edm_weight(sigma, config.model.sigma_data) * squared_error(denoised, truth, config)).mean()
    # EDM's weight where sigma goes to infinity, where the posterior mean is all that can be said.
    guide = squared_error(sketch, x[None, None], config).mean() / config.model.sigma_data**2
    return loss + config.optim.sketch_weight * guide


def squared_error(result: Tensor, truth: Tensor, config: TrainConfig) -> Tensor:
    """Mean squared error of each of N volumes, bone weighing more; [N]."""
    threshold = float(config.intensity.to_x(config.optim.bone_hu))
    weight = bone_weights(truth, threshold, config.optim.bone_weight)
    return (weight * (result.float() - truth).square()).mean((1, 2, 3, 4))


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, flat, inverse square root (Karras et al. 2024, equation 67), and linear to zero at the end."""
    optim = config.optim
    rate = optim.rate / math.sqrt(max(step / optim.flat, 1.0))
    warm = min(1.0, (step + 1) / max(optim.warmup, 1))
    left = (config.steps - step) / max(optim.cooldown * config.steps, 1.0)
    return rate * warm * min(1.0, left)


def _validate(state: checkpoint.State, studies: list[Study], coords: Tensor, monitor: Monitor) -> None:
    """Validate with the first average's weights, and put the training's own back."""
    average = state.averages[0]
    own = [value.detach().clone() for value in state.model.parameters()]
    average.copy_to(state.model)
    try:
        result = validate(
            state.model,
            studies,
            coords,
            state.config.intensity,
            state.config.diffusion.sigma_max,
            autocast=state.config.autocast,
        )
    finally:
        with torch.no_grad():
            for value, kept in zip(state.model.parameters(), own, strict=True):
                value.copy_(kept)
    monitor.validation(state, result, np.clip(studies[0].hu, *state.config.intensity.window_hu))
