"""Opening a run's folder: a new one, or one to go on with; and what a configuration takes from its shards."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from x2ct.data.augment import plain_study
from x2ct.data.shards import Patient, ShardSet
from x2ct.errors import InputError
from x2ct.geometry import Geometry
from x2ct.training import checkpoint
from x2ct.training.checkpoint import State
from x2ct.training.config import CONFIG_FILE, TrainConfig

log = logging.getLogger(__name__)


def open_run(
    run_dir: Path,
    config: TrainConfig | None,
    shards: ShardSet,
    resume: bool,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    ranks: int = 1,
) -> TrainConfig:
    """Return the configuration of a new run, saved in its folder, or that of the run to go on with.

    Args:
        run_dir: the run's folder.
        config: of a new run; of a resumed one its own, or None.
        shards: what is trained on.
        resume: whether the run goes on.
        steps: steps of the whole run, if they are to be others than the configuration's.
        minutes: minutes of the whole run, if they are to be others than the configuration's.
        ranks: number of processes that share its studies, which a new run has at least one a step for.

    Raises:
        InputError: a new run where there is one, none where one is to go on, or one that these shards or this
            configuration do not belong to. Only the numbers of steps, minutes and ranks may change on the way; the
            last has to divide the studies of a step.
    """
    limits: dict[str, Any] = {k: v for k, v in (("steps", steps), ("minutes", minutes)) if v is not None}
    if not resume:
        # Without its first checkpoint, a run was killed while it was made, and may be made again.
        if (run_dir / checkpoint.CHECKPOINT_FILE).exists():
            hint = "use --resume, or choose another folder"
            raise InputError.of(run_dir, "run", found="a run", expected="an empty or new folder", hint=hint)
        chosen = _shared_out(measured(dataclasses.replace(config or TrainConfig(), **limits), shards), ranks)
        run_dir.mkdir(parents=True, exist_ok=True)
        chosen.save(run_dir)
        return chosen
    for name in (CONFIG_FILE, checkpoint.CHECKPOINT_FILE):
        if not (run_dir / name).exists():
            hint = "leave out --resume"
            raise InputError.of(run_dir, "run", found=f"no {name}", expected="a run to resume", hint=hint)
    own = TrainConfig.load(run_dir)
    _require_shares(own, ranks)
    if own.grid != shards.grid:
        expected = f"the run's, {own.grid}"
        raise InputError.of("shards", "grid", found=shards.grid, expected=expected, hint="prepare them again")
    wanted = dataclasses.replace(own if config is None else config, **limits)
    chosen = measured(dataclasses.replace(wanted, display_p99=wanted.display_p99 or own.display_p99), shards)
    if dataclasses.replace(chosen, steps=own.steps, minutes=own.minutes) != measured(own, shards):
        expected = "the run's own when resuming (steps and minutes may differ)"
        raise InputError.of(run_dir, "config", found="another configuration", expected=expected)
    if chosen != own:
        chosen.save(run_dir)
    return chosen


def _shared_out(config: TrainConfig, ranks: int) -> TrainConfig:
    """Return a new run's configuration with at least one study a step, and one pool of studies, for each rank."""
    studies = max(config.optim.accumulate, ranks)
    optim = dataclasses.replace(config.optim, accumulate=studies)
    config = dataclasses.replace(config, optim=optim, pools=max(config.pools, ranks))
    _require_shares(config, ranks)
    if ranks > 1:
        log.info("%d ranks take %d studies a step (optim.accumulate)", ranks, studies)
    return config


def _require_shares(config: TrainConfig, ranks: int) -> None:
    if config.optim.accumulate % ranks:
        expected = f"a divisor of {config.optim.accumulate}, the studies of a step (optim.accumulate)"
        raise InputError.of("torchrun", "ranks", found=ranks, expected=expected, hint="set --nproc-per-node")


def measured(config: TrainConfig, shards: ShardSet) -> TrainConfig:
    """The configuration with the shards' grid, and with the usual brightness of the training patients' X-rays."""
    config = dataclasses.replace(config, grid=shards.grid)
    if config.display_p99:
        return config
    geometry = training_geometry(config)
    studies = [plain_study(patient, shards.grid, geometry) for patient in patients_of(shards, config, "train")]
    tops = np.median([[np.percentile(view.numpy(), 99) for view in study.views] for study in studies], axis=0)
    return dataclasses.replace(config, display_p99=tuple(round(float(top), 3) for top in tops))


def starting_weights(run: Path) -> dict[str, Tensor]:
    """Another run's averaged weights by name, for `initialise`.

    Raises:
        InputError: there is no readable run in the folder.
    """
    return checkpoint.averaged_weights(run, TrainConfig.load(run).optim.ema[0])


@torch.no_grad()
def initialise(state: State, weights: Mapping[str, Tensor]) -> None:
    """Start from other weights, a run's or a bundle's: those of the same name and shape; the others stay as they are.

    Raises:
        InputError: none of them fit.
    """
    own = dict(state.model.named_parameters())
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise InputError.of("--init", "weights", found="none that fit", expected="those of a similar network")
    for name, value in fitting.items():
        own[name].copy_(value)
        for average in state.averages:
            average.shadow[name].copy_(value)
    log.info("%d of %d weights are given", len(fitting), len(own))


def patients_of(shards: ShardSet, config: TrainConfig, split: str) -> tuple[Patient, ...]:
    """The patients of a split whose region the configuration asks for.

    Raises:
        InputError: there is nobody to train on.
    """
    patients = tuple(p for p in shards.select(split) if not config.regions or p.region in config.regions)
    if split == "train" and not patients:
        found = f"none of region {' or '.join(config.regions)}"
        raise InputError.of(
            "shards", "patients to train on", found=found, expected="at least one", hint="see index.json"
        )
    return patients


def training_geometry(config: TrainConfig) -> Geometry:
    """The bundle's own views: parallel, AP and lateral (or AP alone), on the encoder's detector."""
    views = ("ap", "lateral")[: config.model.views]
    return Geometry.parallel(views, shape=config.model.detector, spacing_mm=config.detector_spacing_mm)
