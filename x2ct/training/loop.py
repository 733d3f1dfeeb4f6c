"""The training loop, top to bottom: draw a study, cut patches, add noise, denoise, step, average.

Everything random depends on (seed, step, study of the step) alone, so a run of a given number of steps that was killed
and resumed is the run that was not, and its number of ranks changes who computes what, not what is computed.
"""

from __future__ import annotations

import hashlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from x2ct.data.augment import Study, interpolated, plain_study
from x2ct.data.shapes import Shapes
from x2ct.data.shards import Patient, ShardSet
from x2ct.errors import InputError
from x2ct.geometry.grid import Grid
from x2ct.model import X2CTModel
from x2ct.model.ema import PowerEMA
from x2ct.training import checkpoint
from x2ct.training.config import TrainConfig
from x2ct.training.cudagraph import captured, cut
from x2ct.training.heap import keep_freed_memory
from x2ct.training.loss import bone_weights, draw_sigmas, edm_weight
from x2ct.training.monitor import Monitor
from x2ct.training.optimizer import Optimizer
from x2ct.training.patches import Patch, draw_patches
from x2ct.training.ranks import Ranks
from x2ct.training.runs import initialise, open_run, patients_of, training_geometry
from x2ct.training.speed import WorkMeter
from x2ct.training.studies import StudyPool
from x2ct.training.validate import Validation, study_tensors, validate

log = logging.getLogger(__name__)

ProgressCallback = Callable[[int, int, float], None]
"""Called with (steps done, steps in all as far as it is known, loss of the last step)."""

ALONE = Ranks()

WATCHED = 2
"""Training patients that are validated beside the validation patients, to see how far the two drift apart."""


@dataclass(frozen=True)
class TrainResult:
    """What a call of `train` did.

    Attributes:
        steps: steps of the run so far.
        finished: whether the run has reached its steps or its minutes.
        seconds: training time of the run so far.
        signal: name of the signal that ended this call early, SIGINT or SIGTERM, or None.
    """

    steps: int
    finished: bool
    seconds: float
    signal: str | None = None


def train(
    shards: str | Path | ShardSet,
    run_dir: str | Path,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    steps: int | None = None,
    minutes: float | None = None,
    init: Mapping[str, Tensor] | None = None,
    device: str = "auto",
    threads: int = 0,
    recorded: bool = False,
    ranks: Ranks = ALONE,
    progress: ProgressCallback | None = None,
) -> TrainResult:
    """Train a model on shards, or go on with a run.

    SIGINT and SIGTERM, when this runs in the main thread, end the call after the step at hand with a checkpoint; a
    second one acts as it did before.

    Args:
        shards: a folder that `x2ct prepare` wrote, or one that was opened and perhaps given another grid.
        run_dir: the run's folder: config.json, checkpoint.safetensors, best.safetensors, logs, previews.
        config: the configuration of a new run; the run's own when resuming.
        resume: go on from the run's checkpoint.
        steps: steps of the whole run, in place of the configuration's.
        minutes: minutes of training of the whole run, in place of the configuration's. A finished run that is resumed
            with more minutes goes on, at the learning rate of its new progress.
        init: weights by name that a new run starts from, where name and shape agree: another run's
            (`runs.starting_weights`) or a bundle's (`x2ct.export.starting_point`).
        device: "auto", "cpu" or "cuda[:N]".
        threads: PyTorch's CPU threads; 0 leaves its default.
        recorded: take steps from a CUDA graph, on a GPU. Not tried on one so far; see `x2ct.training.cudagraph`.
        ranks: the processes that train together, from `x2ct.training.ranks.joined`, whose `device` belongs in `device`.
            All are called alike; rank 0 alone writes files. Not with `recorded`.
        progress: called after each step; an exception in it stops the run, its last checkpoint stays.

    Raises:
        InputError: the shards or the run's folder can't be used, or not with these ranks.
    """
    run_dir = Path(run_dir)
    if recorded and ranks.count > 1:
        raise InputError.of("train", "recorded", found=f"{ranks.count} ranks", expected="one, to take recorded steps")
    shard_set = ranks.each(lambda: shards if isinstance(shards, ShardSet) else ShardSet.open(shards))
    _require_equal_calls(ranks, shard_set, config, {"resume": resume, "steps": steps, "minutes": minutes})
    config = ranks.same(
        lambda: open_run(run_dir, config, shard_set, resume, steps=steps, minutes=minutes, ranks=ranks.count)
    )
    if threads:
        torch.set_num_threads(threads)
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if target.type == "cpu":
        keep_freed_memory()
    geometry = training_geometry(config)
    patients = patients_of(shard_set, config, "train")
    held_out = patients_of(shard_set, config, "validation")

    state = new_state(config, target)

    def begin() -> None:
        if init is not None and not resume:
            initialise(state, init)
        if resume:
            checkpoint.restore(state, run_dir)
        else:
            checkpoint.save(state, run_dir)

    ranks.same(begin)
    if ranks.count > 1:
        content = ranks.same(lambda: checkpoint.content_of(state))
        if not ranks.first:
            checkpoint.take(state, *content, run_dir)
    coords = torch.from_numpy(shard_set.grid.coordinates()).to(target)
    validated = {"validation": held_out, "train": _watched(patients)} if ranks.first else {}
    studies = {
        split: [plain_study(patient, shard_set.grid, geometry) for patient in chosen]
        for split, chosen in validated.items()
    }
    turns = dict(zip(config.regions, config.turns, strict=True)) if config.turns else {}
    pool = StudyPool(
        [patient for patient in patients for _ in range(turns.get(patient.region, 1))],
        shard_set.grid,
        geometry,
        config.augment,
        config.display_p99,
        size=config.pool,
        refresh=config.refresh,
        seed=config.seed,
        pools=config.pools,
        workers=config.workers if target.type == "cpu" else 0,
        shapes=ranks.each(lambda: Shapes.load(shard_set.path)) if config.augment.shape else None,
        device=target,
    )
    take_step = RecordedStep(state, coords) if recorded and target.type == "cuda" else None
    meter = WorkMeter(target, torch.bfloat16 if config.autocast else torch.float32)
    started, before = time.monotonic(), state.seconds
    saved = before
    watch: Monitor | nullcontext[None] = Monitor(run_dir, state.step, meter) if ranks.first else nullcontext()
    with pool, watch as monitor, _finish_on_signal() as caught:
        state.seconds, stop = ranks.agreed(before, caught)
        while state.progress < 1 and not stop:
            loss = train_step(state, pool, shard_set.grid, coords, meter, take_step, ranks)
            state.seconds, stop = ranks.agreed(before + time.monotonic() - started, caught)
            previous, state.progress = state.progress, config.progress(state.step, state.seconds)
            if int(state.progress * config.optim.keep) > int(previous * config.optim.keep):
                ranks.same(lambda: checkpoint.keep_averages(state, run_dir))
            if monitor is not None:
                monitor.step(state, loss)
            if progress is not None:
                progress(state.step, max(state.step, round(state.step / max(state.progress, 1e-9))), loss)
            last = state.progress >= 1
            if held_out and (state.step % config.validate_every == 0 or last):
                ranks.same(lambda: _validate(state, studies, coords, monitor, run_dir))
            waited = config.checkpoint_minutes > 0 and state.seconds - saved > 60 * config.checkpoint_minutes
            if state.step % config.checkpoint_every == 0 or last or stop or waited:
                hint = "the ranks' processors compute differently; go on with --resume on equal ones"
                ranks.require_equal(
                    f"weights at step {state.step}", lambda: {"checksum": checkpoint.weights_checksum(state)}, hint
                )
                ranks.same(lambda: checkpoint.save(state, run_dir))
                saved = state.seconds
    return TrainResult(state.step, state.progress >= 1, state.seconds, stop[0] if stop else None)


def _require_equal_calls(
    ranks: Ranks, shards: ShardSet, config: TrainConfig | None, options: Mapping[str, object]
) -> None:
    """Require that all ranks were called with one configuration, and with the CTs of rank 0."""

    def values() -> dict[str, object]:
        cts = "".join(f"{patient.id} {patient.split} {patient.sha256}\n" for patient in shards.patients)
        flat = {**options, "checksum of the shards": hashlib.sha256(cts.encode()).hexdigest()[:16]}
        for name, value in ({} if config is None else config.to_json()).items():
            flat |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
        return flat

    ranks.require_equal("train", values, "start all ranks with the same command and files")


def _watched(patients: tuple[Patient, ...]) -> tuple[Patient, ...]:
    """Return the training patients that are validated: of the region of the first, spread over the list."""
    same = [patient for patient in patients if patient.region == patients[0].region]
    return tuple(same[:: max(1, len(same) // WATCHED)][:WATCHED])


@contextmanager
def _finish_on_signal() -> Iterator[list[str]]:
    """Collect the names of SIGINT and SIGTERM instead of stopping; a second signal finds the handlers from before."""
    caught: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def finish(number: int, _: FrameType | None) -> None:
        caught.append(signal.Signals(number).name)
        log.info("%s: finishing the step", caught[0])
        restore()

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, finish)
    try:
        yield caught
    finally:
        restore()


def new_state(config: TrainConfig, device: torch.device) -> checkpoint.State:
    """Return a freshly initialised run; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(config.seed)  # type: ignore[attr-defined]
        model = X2CTModel(config.model)
    model.normalize()
    model.to(device)
    averages = [PowerEMA(model, width) for width in config.optim.ema]
    return checkpoint.State(config, model, Optimizer(model, config.optim), averages)


def train_step(
    state: checkpoint.State,
    pool: StudyPool,
    grid: Grid,
    coords: Tensor,
    meter: WorkMeter,
    recorded: RecordedStep | None = None,
    ranks: Ranks = ALONE,
) -> float:
    """Take one optimiser step at the state's progress, `recorded` or as it is; return the loss per voxel.

    Each rank computes its own of the step's studies; gradients and losses are summed over the ranks.
    """
    config = state.config
    total = 0.0
    draws: list[Draw] = []
    for turn in range(ranks.index, config.optim.accumulate, ranks.count):
        study, rng = pool.draw(state.step * config.optim.accumulate + turn)
        seed = int(rng.integers(2**62))
        patches = draw_patches(grid, config.patch, config.model.stride, rng, state.progress)

        def forward(study: Study = study, patches: list[Patch] = patches, seed: int = seed) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            return study_loss(state.model, study, patches, config, coords, generator) / config.optim.accumulate

        meter.add(len(patches) * math.prod(patches[0].shape), forward)
        if recorded is not None:
            draws.append(Draw.of(study, patches, config, coords.device, torch.Generator().manual_seed(seed)))
            continue
        loss = forward()
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    if recorded is not None:
        return recorded.take(draws)
    total = ranks.sum_gradients(state.model.parameters(), total)
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optim.clip)
    state.optimizer.step(config.optim.share(state.step, state.progress))
    state.model.normalize()
    state.step += 1
    for average in state.averages:
        average.update(state.model, state.step)
    return total


class Draw(NamedTuple):
    """What a loss is computed of, as tensors on the training's device."""

    views: Tensor
    valid: Tensor
    projections: Tensor
    x: Tensor  # the true volume [X, Y, Z], in the network's unit
    origins: Tensor  # of N patches; int64 [N, 3]
    sigma: Tensor  # [N]
    noise: Tensor  # [N, 1, X, Y, Z]; its sides are the patches'

    @classmethod
    def of(
        cls,
        study: Study,
        patches: list[Patch],
        config: TrainConfig,
        device: torch.device,
        generator: torch.Generator,
    ) -> Draw:
        """Draw noise levels and noise for patches of a study."""
        views, valid, projections = study_tensors([study], device)
        x = interpolated(study.hu.to(device), config.intensity.hu, config.intensity.x)
        origins = torch.tensor([patch.origin for patch in patches]).to(device)
        sigma = draw_sigmas(len(patches), config.diffusion, generator).to(device)
        noise = torch.randn((len(patches), 1, *patches[0].shape), generator=generator).to(device)
        return cls(views, valid, projections, x, origins, sigma, noise)


class RecordedStep:
    """An optimiser step that reads all that changes from tensors, so that a CUDA graph can be made of it.

    Args:
        state: what is trained, in place.
        coords: [3, X, Y, Z] of the grid.
        record: makes the function that replays; `cudagraph.captured` unless a test gives another.
    """

    def __init__(
        self, state: checkpoint.State, coords: Tensor, record: Callable[[Callable[..., Tensor]], Any] = captured
    ) -> None:
        self._state, self._coords, self._run = state, coords, record(self._step)

    def take(self, draws: list[Draw]) -> float:
        """Take one step; return the loss per voxel."""
        state, device = self._state, self._coords.device
        share = state.config.optim.share(state.step, state.progress)
        state.step += 1
        weights = [average.weight(state.step) for average in state.averages]
        return float(
            self._run(torch.tensor([share, *weights]).to(device), *(value for draw in draws for value in draw))
        )

    def _step(self, numbers: Tensor, *values: Tensor) -> Tensor:
        """The share of the learning rate and the averages' weights; then the fields of each draw."""
        state, config, width = self._state, self._state.config, len(Draw._fields)
        total = torch.zeros((), device=numbers.device)
        for first in range(0, len(values), width):
            draw = Draw(*values[first : first + width])
            sides = tuple(draw.noise.shape[2:])

            def patches(volume: Tensor, stride: int, draw: Draw = draw, sides: tuple[int, ...] = sides) -> Tensor:
                return cut(volume, draw.origins // stride, [side // stride for side in sides])

            loss = draw_loss(state.model, draw, patches, config, self._coords) / config.optim.accumulate
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optim.clip)
        state.optimizer.step(numbers[0])
        state.model.normalize()
        for number, average in enumerate(state.averages, 1):
            average.move(state.model, numbers[number])
        return total


def study_loss(
    model: X2CTModel,
    study: Study,
    patches: list[Patch],
    config: TrainConfig,
    coords: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Return EDM's weighted loss over patches of one study, plus the coarse prediction's over all of it.

    The X-rays are encoded and lifted once, for the whole volume; each patch gets its part of the condition.
    """

    def cut_out(volume: Tensor, stride: int) -> Tensor:
        return torch.cat([volume[(..., *patch.cells(stride))] for patch in patches])

    return draw_loss(model, Draw.of(study, patches, config, coords.device, generator), cut_out, config, coords)


def draw_loss(
    model: X2CTModel,
    draw: Draw,
    cut_out: Callable[[Tensor, int], Tensor],
    config: TrainConfig,
    coords: Tensor,
) -> Tensor:
    """Return the loss of a draw; `cut_out` returns its patches of a volume [1, C, X, Y, Z] at a stride."""
    views, valid, projections, x, _, sigma, noise = draw
    truth = cut_out(x[None, None], 1)
    with torch.autocast(coords.device.type, torch.bfloat16) if config.autocast else nullcontext():
        with torch.no_grad() if config.optim.denoiser_only else nullcontext():
            condition, sketch = model.condition(views, valid, projections, coords[None])
        conditions = cut_out(condition, config.model.stem)
        # The coarse prediction is the posterior mean by its own loss alone; the denoiser works about it as it is.
        sketches = cut_out(sketch.detach(), 1)
        noisy = truth + noise * sigma.reshape(-1, 1, 1, 1, 1)
        denoised = model.denoiser.denoise(noisy, sigma, conditions, sketches)
    loss = (edm_weight(sigma, config.model.sigma_data) * squared_error(denoised, truth, config)).mean()
    if config.optim.denoiser_only:
        return loss
    # EDM's weight where sigma goes to infinity, where the posterior mean is all that can be said.
    guide = squared_error(sketch, x[None, None], config).mean() / config.model.sigma_data**2
    return loss + config.optim.sketch_weight * guide


def squared_error(result: Tensor, truth: Tensor, config: TrainConfig) -> Tensor:
    """Return the mean squared error of each of N volumes, bone weighing more; [N]."""
    threshold = float(config.intensity.to_x(config.optim.bone_hu))
    weight = bone_weights(truth, threshold, config.optim.bone_weight)
    return (weight * (result.float() - truth).square()).mean((1, 2, 3, 4))


def _validate(
    state: checkpoint.State, studies: Mapping[str, list[Study]], coords: Tensor, monitor: Monitor | None, run_dir: Path
) -> None:
    """Validate with the first average's weights, keep them if they are the best so far, and put the own ones back."""
    assert monitor is not None  # rank 0 has one
    average = state.averages[0]
    own = [value.detach().clone() for value in state.model.parameters()]
    average.copy_to(state.model)
    config = state.config

    def judge(chosen: list[Study]) -> Validation:
        sigma_max = config.diffusion.sigma_max
        return validate(state.model, chosen, coords, config.intensity, sigma_max, autocast=config.autocast)

    try:
        result, watched = judge(studies["validation"]), judge(studies["train"])
        if result.loss < state.best_loss:
            state.best_loss = result.loss
            checkpoint.save_best(state, run_dir)
    finally:
        with torch.no_grad():
            for value, kept in zip(state.model.parameters(), own, strict=True):
                value.copy_(kept)
    truth = studies["validation"][0].hu.clamp(*config.intensity.window_hu)
    monitor.validation(state, result, watched, truth.cpu().numpy())
