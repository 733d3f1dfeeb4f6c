"""The training's configuration: one frozen, typed object, saved as config.json with the run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from x2ct.bundle.intensity import Intensity
from x2ct.data.augment import AugmentConfig
from x2ct.errors import InputError
from x2ct.files.atomic import write_atomically
from x2ct.files.text import decode_json
from x2ct.geometry.grid import Grid
from x2ct.model import ModelConfig

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class DiffusionConfig:
    """EDM's training distribution and the sampler's defaults (Karras et al. 2022, section 5).

    Attributes:
        sigma_min: lowest noise level of the sampler, in the network's unit.
        sigma_max: highest noise level; at it, the denoised volume is the posterior mean.
        mean_share: share of patches trained at sigma_max itself.
        log_mean: mean of ln sigma for the others.
        log_std: standard deviation of ln sigma for the others.
        schedule: the sampler's default noise schedule: with the solver, the best untuned of benchmarks/solvers.py.
        solver: the sampler's default solver.
        steps: the sampler's default number of evaluations.
    """

    sigma_min: float = 0.03
    sigma_max: float = 20.0
    mean_share: float = 0.2
    log_mean: float = -0.2
    log_std: float = 1.6
    schedule: str = "log-snr"
    solver: str = "unipc-2"
    steps: int = 6


@dataclass(frozen=True)
class PatchConfig:
    """Patch Diffusion's size schedule (Wang et al. 2023, section 3.2), in three dimensions.

    Attributes:
        sizes: in voxels, multiples of the network's stride; sizes beyond the grid mean the whole volume.
        probabilities: how often each size is drawn.
        voxels: voxels per step that a draw is filled up to with patches of its size (at least one patch).
        shape: "cube", of which a size is the side, or "slab", of which it is the extent along z, the axis that frontal
            and lateral views share; along x and y a slab has all of the grid.
        schedule: "stochastic" draws sizes all the time; "progressive" goes through the sizes as they are listed, each
            for its probability's share of the run.
    """

    sizes: tuple[int, ...] = (32, 64, 128)
    probabilities: tuple[float, ...] = (0.1, 0.88, 0.02)
    voxels: int = 2 * 64**3
    shape: str = "cube"
    schedule: str = "stochastic"

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.probabilities) or abs(sum(self.probabilities) - 1) > 1e-6:
            raise InputError.of(
                "train config",
                "patch",
                found=(self.sizes, self.probabilities),
                expected="one probability per size, sum 1",
            )
        if self.shape not in ("cube", "slab"):
            raise InputError.of("train config", "patch shape", found=self.shape, expected="cube or slab")
        if self.schedule not in ("stochastic", "progressive"):
            expected = "stochastic or progressive"
            raise InputError.of("train config", "patch schedule", found=self.schedule, expected=expected)


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser, its schedule, and the averages of the weights.

    Attributes:
        rate: AdamW's learning rate after warm-up (weights are kept at unit norm, so it is a relative step).
        muon: Muon's learning rate for the hidden layers' matrices; 0 leaves them to AdamW.
        muon_momentum: Muon's momentum.
        warmup: steps of linear warm-up.
        flat: steps after which the rate decays as the inverse square root.
        cooldown: share of the run, at its end, over which the rate falls to zero linearly.
        betas: AdamW's betas.
        weight_decay: AdamW's decay; unit-norm weights need none.
        clip: largest gradient norm.
        accumulate: studies per optimiser step, of all ranks together; the number of ranks divides it.
        ema: relative widths of the power-function averages; the first is the one that is exported.
        keep: how often the averages are kept over the run, so that averages of other widths can be made of them
            afterwards (`x2ct export --ema WIDTH`); 0 for never. Each time takes four bytes a weight with two widths.
        bone_weight: extra weight of bone voxels in the loss.
        bone_hu: what counts as bone in the loss.
        denoiser_only: leave encoder and lift as they are and train the denoiser alone, which makes a step cheaper; for
            the end of a run, when samples are what lags behind.
        sketch_weight: weight of the whole volume as the condition alone tells it (see `Denoiser.sketch`).
    """

    rate: float = 0.005
    muon: float = 0.0
    muon_momentum: float = 0.95
    warmup: int = 100
    flat: int = 2000
    cooldown: float = 0.3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0
    accumulate: int = 1
    ema: tuple[float, ...] = (0.05, 0.1)
    keep: int = 0
    bone_weight: float = 2.0
    bone_hu: float = 150.0
    denoiser_only: bool = False
    sketch_weight: float = 1.0

    def share(self, step: int, progress: float) -> float:
        """Return the share of the learning rates at a step and at a progress of the run from 0 to 1.

        Linear warm-up, flat, inverse square root (Karras et al. 2024, equation 67), and linear to zero at the end.
        """
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        cool = min(1.0, (1.0 - progress) / self.cooldown) if self.cooldown > 0 else 1.0
        return warm * cool / math.sqrt(max(step / self.flat, 1.0))


@dataclass(frozen=True)
class TrainConfig:
    """All that a run depends on, but for the shards.

    Attributes:
        name: the model's name.
        steps: optimiser steps of the whole run; 0 for no limit other than `minutes`.
        minutes: minutes of training of the whole run, over all of its parts; 0 for no limit other than `steps`. The
            learning rate, its cooldown and the patch sizes follow whichever limit is nearer (`progress`).
        seed: of everything random in the run.
        grid: the voxels that the model fills; a new run takes its shards'.
        display_p99: per view, the median over the training patients of their X-ray's 99th percentile (a line integral),
            to which the sampler scales display images; measured by `train`.
        model: the network.
        intensity: the map between HU and x.
        diffusion: noise levels and sampler defaults.
        patch: patch sizes.
        optim: optimiser, schedule and averages.
        augment: how studies vary.
        detector_spacing_mm: pixel pitch of the encoder's input images (rows, columns).
        regions: which patients of the shards are used, by region; empty for all.
        turns: how often a round of all training patients takes each patient of each of `regions`; () for once.
        pool: studies kept at hand, of which each step draws one.
        refresh: draws from a pool after which its oldest study is replaced.
        pools: the studies of a step are drawn from so many pools in turn; a rank makes those of its own turns alone.
        workers: threads that make studies ahead; more do not change what is drawn.
        autocast: bf16 autocast.
        checkpoint_every: steps between checkpoints.
        checkpoint_minutes: a checkpoint is also written so many minutes after the last; 0 for none by the clock.
        validate_every: steps between validations.
        parent: the bundle that the weights came from, as `x2ct.export.starting_point` describes it; {} for none.
    """

    name: str = "model"
    steps: int = 5000
    minutes: float = 0.0
    seed: int = 0
    grid: Grid = field(default_factory=Grid)
    display_p99: tuple[float, ...] = ()
    model: ModelConfig = field(default_factory=ModelConfig)
    intensity: Intensity = field(default_factory=Intensity)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    detector_spacing_mm: tuple[float, float] = (1.25, 1.25)
    regions: tuple[str, ...] = ("chest",)
    turns: tuple[int, ...] = ()
    pool: int = 8
    refresh: int = 4
    pools: int = 1
    workers: int = 1
    autocast: bool = True
    checkpoint_every: int = 250
    checkpoint_minutes: float = 0.0
    validate_every: int = 500
    parent: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.steps <= 0 and self.minutes <= 0:
            found = f"{self.steps} and {self.minutes:g}"
            raise InputError.of("train config", "steps and minutes", found=found, expected="at least one above 0")
        if self.turns and (len(self.turns) != len(self.regions) or min(self.turns) < 1):
            found = f"{self.turns} for {self.regions}"
            raise InputError.of("train config", "turns", found=found, expected="one number from 1 on for each region")
        if self.optim.accumulate < 1 or self.pools < 1:
            found = f"{self.optim.accumulate} and {self.pools}"
            raise InputError.of("train config", "optim.accumulate and pools", found=found, expected="both from 1 on")
        if self.model.sigma_max != self.diffusion.sigma_max:
            found = f"{self.model.sigma_max:g} and {self.diffusion.sigma_max:g}"
            raise InputError.of("train config", "sigma_max of model and diffusion", found=found, expected="one value")
        if any(size % self.model.stride for size in self.patch.sizes):
            raise InputError.of(
                "train config", "patch sizes", found=self.patch.sizes, expected=f"multiples of {self.model.stride}"
            )

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the run that is done after `step` steps and `seconds` of training, 0 to 1."""
        by_steps = step / self.steps if self.steps > 0 else 0.0
        by_clock = seconds / (60 * self.minutes) if self.minutes > 0 else 0.0
        return min(1.0, max(by_steps, by_clock))

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any], source: str = "train config") -> TrainConfig:
        """Return the configuration that JSON values describe; fields that are not given keep their defaults.

        Raises:
            InputError: a field is unknown, has the wrong type, or does not fit the others; it is named.
        """
        _check_known(values, cls().to_json(), source)
        return decode_json(source, msgspec.json.encode(values), cls)

    def save(self, folder: Path) -> None:
        """Write config.json into the run's folder."""
        write_atomically(folder / CONFIG_FILE, (json.dumps(self.to_json(), indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a configuration from a file, or from a run's folder.

        Raises:
            InputError: it is missing, not JSON, or has unknown fields.
        """
        file = path / CONFIG_FILE if path.is_dir() else path
        try:
            data = file.read_bytes()
        except OSError as error:
            raise InputError.of(file, "file", found=error, expected="a JSON training configuration") from error
        return cls.from_json(decode_json(file, data, dict[str, Any]), str(file))


def _check_known(values: Mapping[str, Any], known: Mapping[str, Any], source: str, where: str = "config") -> None:
    """Raise InputError for a field that the configuration does not have, at any depth."""
    for name, value in values.items():
        if name not in known:
            raise InputError.unknown(source, where, found=name, known=known, expected=", ".join(known))
        if isinstance(value, Mapping) and isinstance(known[name], Mapping) and known[name]:  # an empty one is free
            _check_known(value, known[name], source, name)
