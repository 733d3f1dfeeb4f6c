"""The training loop, top to bottom: draw a study, cut patches, add noise, denoise, step, average.

Everything random depends on (seed, step, study of the step) alone, so a run of a given number of steps that was killed
and resumed is the run that was not, and its number of ranks changes who computes what, not what is computed.
"""

from __future__ import annotations

import copy
import ctypes
import hashlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from x2ct.data.augment import Study, plain_study
from x2ct.data.shapes import Shapes
from x2ct.data.shards import Patient, ShardSet
from x2ct.errors import InputError
from x2ct.training import checkpoint
from x2ct.training.checkpoint import State, new_state
from x2ct.training.config import TrainConfig
from x2ct.training.cudagraph import Step, captured, cut
from x2ct.training.loss import Cut, Draw, draw_loss, draw_patches, sliced
from x2ct.training.monitor import Monitor, WorkMeter
from x2ct.training.ranks import Ranks
from x2ct.training.runs import initialise, open_run, patients_of, training_geometry
from x2ct.training.studies import StudyPool
from x2ct.training.validate import validate

log = logging.getLogger(__name__)

ProgressCallback = Callable[[int, int, float], None]
"""Called with (steps done, steps in all as far as it is known, loss of the last step)."""

ALONE = Ranks()

WATCHED = 2
"""Training patients that are validated beside the validation patients, to see how far the two drift apart."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a call of `train`."""

    steps: int  # of the run so far
    finished: bool  # whether the run has reached its steps or its minutes
    seconds: float  # training time of the run so far
    signal: str | None = None  # name of the signal that ended this call early, SIGINT or SIGTERM


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
            (`checkpoint.starting_weights`) or a bundle's (`x2ct.export.starting_point`).
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
    limits = {"steps": steps, "minutes": minutes}
    _require_equal_calls(ranks, shard_set, config, {"resume": resume, **limits})
    limits = {name: value for name, value in limits.items() if value is not None}
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    config = ranks.same(lambda: open_run(run_dir, config, shard_set, resume, limits, ranks.count, target.type))
    if threads:
        torch.set_num_threads(threads)
    if target.type == "cpu":
        _keep_freed_memory()
    patients, held_out = (patients_of(shard_set, config, split) for split in ("train", "validation"))

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
            checkpoint.take(state, content, run_dir)
    geometry = training_geometry(config)
    validated, watched = (
        [plain_study(patient, config.grid, geometry) for patient in chosen]
        for chosen in ((held_out, _watched(patients)) if ranks.first else ((), ()))
    )
    shapes = ranks.each(lambda: Shapes.load(shard_set.path)) if config.augment.shape else None
    pool = StudyPool(patients, config, shapes, target)
    take = captured(partial(step_of_tensors, state)) if recorded and target.type == "cuda" else None
    meter = WorkMeter(target, torch.bfloat16 if config.autocast else torch.float32)
    started, before = time.monotonic(), state.seconds
    saved = before
    watch: Monitor | nullcontext[None] = Monitor(run_dir, state.step, meter) if ranks.first else nullcontext()
    with pool, watch as monitor, _finish_on_signal() as caught:
        state.seconds, stop = ranks.agreed(before, caught)
        while state.progress < 1 and not stop:
            loss = train_step(state, pool, meter, take, ranks)
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
                ranks.same(lambda: _validate(state, validated, watched, monitor, run_dir))
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


def _keep_freed_memory() -> None:
    """Spare each step the page faults of its tensors, as it asks for the same ones as the step before.

    By default the C library maps large tensors when made and unmaps them when freed; here it takes them from its heap
    and keeps what is freed there. It holds for the whole process; elsewhere than on Linux with glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def train_step(
    state: State, pool: StudyPool, meter: WorkMeter, take: Step | None = None, ranks: Ranks = ALONE
) -> float:
    """Take one optimiser step at the state's progress; return the loss per voxel.

    Each rank computes its own of the step's studies; gradients and losses are summed over the ranks. With one rank,
    `take` may be the state's `step_of_tensors`, recorded.
    """
    config = state.config
    total = 0.0
    draws: list[Draw] = []
    for turn in range(ranks.index, config.optim.accumulate, ranks.count):
        study, rng = pool.draw(state.step * config.optim.accumulate + turn)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        patches = draw_patches(config.grid, config.patch, config.model.stride, rng, state.progress)
        draw = Draw.of(state, study, patches, generator)
        meter.add(draw.noise.numel(), partial(draw_loss, state, draw))
        if take is None:
            total += float(_add_gradients(state, draw))
        else:
            draws.append(draw)
    share = config.optim.share(state.step, state.progress)
    state.step += 1
    weights = [average.weight(state.step) for average in state.averages]
    if take is not None:
        inputs = (torch.tensor([share, *weights]), *(value for draw in draws for value in draw))
        return float(take(*(value.to(state.coords.device) for value in inputs)))
    total = ranks.sum_gradients(state.model.parameters(), total)
    _move(state, share, weights)
    return total


def step_of_tensors(state: State, numbers: Tensor, *values: Tensor) -> Tensor:
    """Take a step that reads all that changes from tensors, so that a CUDA graph can be made of it; return the loss.

    The numbers are the share of the learning rate and the averages' weights, float32; the values are the fields of each
    draw, on the device. The state's count of steps stays.
    """
    total = torch.zeros((), device=numbers.device)
    for first in range(0, len(values), len(Draw._fields)):
        total += _add_gradients(state, Draw(*values[first : first + len(Draw._fields)]), cut)
    share, *weights = numbers.unbind()
    _move(state, share, weights)
    return total


def _add_gradients(state: State, draw: Draw, cut: Cut = sliced) -> Tensor:
    """Add a draw's part of the step's gradients; return its part of the loss."""
    loss = draw_loss(state, draw, cut) / state.config.optim.accumulate
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _move(state: State, share: float | Tensor, weights: Sequence[float | Tensor]) -> None:
    """Move the weights by their gradients, at a share of the learning rate, and the averages towards them."""
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), state.config.optim.clip)
    state.optimizer.step(share)
    state.model.normalize()
    for average, weight in zip(state.averages, weights, strict=True):
        average.move(state.model, weight)


def _validate(state: State, studies: list[Study], watched: list[Study], monitor: Monitor | None, run_dir: Path) -> None:
    """Validate the first average, and keep it if it is the best so far."""
    assert monitor is not None  # rank 0 has one
    model = copy.deepcopy(state.model)
    model.load_state_dict(state.averages[0].shadow, strict=False)
    result = validate(state, model, studies)
    if result.figures["loss"] < state.best_loss:
        state.best_loss = result.figures["loss"]
        checkpoint.save_best(state, run_dir)
    monitor.validation(state, result, validate(state, model, watched))
