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
    limits: Mapping[str, Any] | None = None,
    ranks: int = 1,
    device: str = "cpu",
) -> TrainConfig:
    """Return the configuration of a new run, saved in its folder, or that of the run to go on with.

    A resumed run has its own, given or not. `limits` are steps and minutes of the whole run, where they are to be
    others than the configuration's; `ranks` processes share the studies of a step, of which a new run has as many;
    `device` is the kind of device that they compute on.

    Raises:
        InputError: a new run where there is one, none where one is to go on, one that these shards or this
            configuration do not belong to, or one that the device computes wrongly. Only the numbers of steps, minutes
            and ranks may change on the way; the last has to divide the studies of a step.
    """
    limits = limits or {}
    if not resume:
        # Without its first checkpoint, a run was killed while it was made, and may be made again.
        if (run_dir / checkpoint.CHECKPOINT_FILE).exists():
            hint = "use --resume, or choose another folder"
            raise InputError.of(run_dir, "run", found="a run", expected="an empty or new folder", hint=hint)
        chosen = dataclasses.replace(config or TrainConfig(), grid=shards.grid, **limits)
        chosen.require_exact_gradients(device)
        chosen = measured(chosen, shards)
        # At least one study a step, and one pool of studies, for each rank.
        optim = dataclasses.replace(chosen.optim, accumulate=max(chosen.optim.accumulate, ranks))
        chosen = dataclasses.replace(chosen, optim=optim, pools=max(chosen.pools, ranks))
        _require_shares(chosen, ranks)
        if ranks > 1:
            log.info("%d ranks take %d studies a step (optim.accumulate)", ranks, optim.accumulate)
        run_dir.mkdir(parents=True, exist_ok=True)
        chosen.save(run_dir)
        return chosen
    for name in (CONFIG_FILE, checkpoint.CHECKPOINT_FILE):
        if not (run_dir / name).exists():
            hint = "leave out --resume"
            raise InputError.of(run_dir, "run", found=f"no {name}", expected="a run to resume", hint=hint)
    own = TrainConfig.load(run_dir)
    own.require_exact_gradients(device)
    _require_shares(own, ranks)
    if own.grid != shards.grid:
        expected = f"the run's, {own.grid}"
        raise InputError.of("shards", "grid", found=shards.grid, expected=expected, hint="prepare them again")
    changed = dataclasses.replace(own if config is None else config, **limits)
    chosen = measured(dataclasses.replace(changed, display_p99=changed.display_p99 or own.display_p99), shards)
    if dataclasses.replace(chosen, steps=own.steps, minutes=own.minutes) != measured(own, shards):
        expected = "the run's own when resuming (steps and minutes may differ)"
        raise InputError.of(run_dir, "config", found="another configuration", expected=expected)
    if chosen != own:
        chosen.save(run_dir)
    return chosen


def _require_shares(config: TrainConfig, ranks: int) -> None:
    if config.optim.accumulate % ranks:
        expected = f"a divisor of {config.optim.accumulate}, the studies of a step (optim.accumulate)"
        raise InputError.of("torchrun", "ranks", found=ranks, expected=expected, hint="set --nproc-per-node")


def measured(config: TrainConfig, shards: ShardSet) -> TrainConfig:
    """Return the configuration with the shards' grid and the usual brightness of the training patients' X-rays."""
    config = dataclasses.replace(config, grid=shards.grid)
    if config.display_p99:
        return config
    geometry = training_geometry(config)
    studies = [plain_study(patient, shards.grid, geometry) for patient in patients_of(shards, config, "train")]
    tops = np.median([[np.percentile(view.numpy(), 99) for view in study.views] for study in studies], axis=0)
    return dataclasses.replace(config, display_p99=tuple(round(float(top), 3) for top in tops))


@torch.no_grad()
def initialise(state: State, weights: Mapping[str, Tensor]) -> None:
    """Start from those of a run's or a bundle's weights that have the name and the shape of own ones.

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
    """Return the patients of a split in the configuration's regions. Raises InputError: no patient to train on."""
    patients = tuple(p for p in shards.select(split) if not config.regions or p.region in config.regions)
    if split == "train" and not patients:
        regions, field = f"none of region {' or '.join(config.regions)}", "patients to train on"
        raise InputError.of("shards", field, found=regions, expected="at least one", hint="see index.json")
    return patients


def training_geometry(config: TrainConfig) -> Geometry:
    """Return the bundle's own views: parallel, AP and lateral (or AP alone), on the encoder's detector."""
    views = ("ap", "lateral")[: config.model.views]
    return Geometry.parallel(views, shape=config.model.detector, spacing_mm=config.detector_spacing_mm)
