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
from x2ct.model.config import choice, require_all

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class DiffusionConfig:
    """EDM's training distribution and the sampler's defaults (Karras et al. 2022, section 5)."""

    sigma_min: float = 0.03  # lowest noise level of the sampler, in the network's unit
    sigma_max: float = 20.0  # the highest; at it, the denoised volume is the posterior mean
    mean_share: float = 0.2  # share of patches trained at sigma_max itself
    log_mean: float = -0.2  # mean of ln sigma for the others
    log_std: float = 1.6
    schedule: str = "log-snr"  # the sampler's: with the solver, the best untuned of benchmarks/solvers.py
    solver: str = "unipc-2"
    steps: int = 6  # evaluations of the sampler


@dataclass(frozen=True)
class PatchConfig:
    """Patch Diffusion's size schedule (Wang et al. 2023, section 3.2), in three dimensions."""

    sizes: tuple[int, ...] = (32, 64, 128)  # voxels, multiples of the network's stride; beyond the grid: all of it
    probabilities: tuple[float, ...] = (0.1, 0.88, 0.02)  # how often each size is drawn
    voxels: int = 2 * 64**3  # of a draw, filled up with patches of its size (at least one patch)
    # "cube", of which a size is the side, or "slab", of which it is the extent along z, the axis that frontal and
    # lateral views share; along x and y a slab has all of the grid.
    shape: str = "cube"
    # "stochastic" draws sizes all the time; "progressive" goes through the sizes as they are listed, each for its
    # probability's share of the run.
    schedule: str = "stochastic"

    def __post_init__(self) -> None:
        fits = len(self.sizes) == len(self.probabilities) and abs(sum(self.probabilities) - 1) <= 1e-6
        require_all(
            "train config",
            (fits, "patch", (self.sizes, self.probabilities), "one probability per size, sum 1"),
            choice("patch shape", self.shape, "cube", "slab"),
            choice("patch schedule", self.schedule, "stochastic", "progressive"),
        )


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser, its schedule, and the averages of the weights."""

    rate: float = 0.005  # AdamW's, after warm-up (weights are kept at unit norm, so it is a relative step)
    muon: float = 0.0  # Muon's learning rate for the hidden layers' matrices; 0 leaves them to AdamW
    muon_momentum: float = 0.95
    warmup: int = 100  # steps of linear warm-up
    flat: int = 2000  # steps after which the rate decays as the inverse square root
    cooldown: float = 0.3  # share of the run, at its end, over which the rate falls to zero linearly
    betas: tuple[float, float] = (0.9, 0.99)  # AdamW's
    weight_decay: float = 0.0  # AdamW's; unit-norm weights need none
    clip: float = 1.0  # largest gradient norm
    accumulate: int = 1  # studies per optimiser step, of all ranks together; the number of ranks divides it
    ema: tuple[float, ...] = (0.05, 0.1)  # relative widths of the power-function averages; the first is exported
    # How often the averages are kept over the run, so that averages of other widths can be made of them afterwards
    # (`x2ct export --ema WIDTH`); 0 for never. Each time takes four bytes a weight with two widths.
    keep: int = 0
    bone_weight: float = 2.0  # extra weight in the loss of voxels that the network itself takes for bone
    bone_hu: float = 150.0  # what counts as half bone there; see `loss.bone_share`
    detail_weight: float = 0.0  # weight of what changes within 10 mm, such as ribs and discs; see `loss.detail_error`
    # Leave encoder and lift as they are and train the denoiser alone, which makes a step cheaper; for the end of a run,
    # when samples are what lags behind.
    denoiser_only: bool = False
    sketch_weight: float = 1.0  # weight of the coarse prediction's loss, over the whole volume

    def share(self, step: int, progress: float) -> float:
        """Return the share of the learning rates at a step and at a progress of the run from 0 to 1.

        Linear warm-up, flat, inverse square root (Karras et al. 2024, equation 67), and linear to zero at the end.
        """
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        cool = min(1.0, (1.0 - progress) / self.cooldown) if self.cooldown > 0 else 1.0
        return warm * cool / math.sqrt(max(step / self.flat, 1.0))


@dataclass(frozen=True)
class TrainConfig:
    """All that a run depends on, but for the shards."""

    name: str = "model"
    steps: int = 5000  # optimiser steps of the whole run; 0 for no limit other than `minutes`
    # Minutes of training of the whole run, over all of its parts; 0 for no limit other than `steps`. The learning rate,
    # its cooldown and the patch sizes follow whichever limit is nearer (`progress`).
    minutes: float = 0.0
    seed: int = 0  # of everything random in the run
    grid: Grid = field(default_factory=Grid)  # the voxels that the model fills; a new run takes its shards'
    # Per view, the median over the training patients of their X-ray's 99th percentile (a line integral), to which the
    # sampler scales display images; measured by `train`.
    display_p99: tuple[float, ...] = ()
    model: ModelConfig = field(default_factory=ModelConfig)
    intensity: Intensity = field(default_factory=Intensity)  # the map between HU and x
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    detector_spacing_mm: tuple[float, float] = (1.25, 1.25)  # pitch of the encoder's input images (rows, columns)
    regions: tuple[str, ...] = ("chest",)  # which patients of the shards are used; empty for all
    turns: tuple[int, ...] = ()  # how often a round of all training patients takes each of a region's; () for once
    pool: int = 8  # studies kept at hand, of which each step draws one
    refresh: int = 4  # draws from a pool after which its oldest study is replaced
    pools: int = 1  # the studies of a step are drawn from so many in turn; a rank makes those of its own turns alone
    workers: int = 1  # threads that make studies ahead; more do not change what is drawn
    autocast: bool = True  # bf16
    checkpoint_every: int = 250  # steps
    checkpoint_minutes: float = 0.0  # a checkpoint is also written so many minutes after the last; 0 for none
    validate_every: int = 500  # steps
    parent: dict[str, Any] = field(default_factory=dict, hash=False)  # see `x2ct.export.starting_point`; {} for none

    def __post_init__(self) -> None:
        both = self.optim.accumulate, self.pools
        sigmas = self.model.sigma_max, self.diffusion.sigma_max
        stride, sizes, turns = self.model.stride, self.patch.sizes, (self.turns, self.regions)
        fit = not self.turns or (len(self.turns) == len(self.regions) and min(self.turns) > 0)
        views, drop = self.model.views, self.augment.drop
        if drop == AugmentConfig.drop:  # the default is of two views
            drop = drop[:views]
            object.__setattr__(self, "augment", dataclasses.replace(self.augment, drop=drop))
        require_all(
            "train config",
            (
                max(self.steps, self.minutes) > 0,
                "steps and minutes",
                (self.steps, self.minutes),
                "at least one above 0",
            ),
            (fit, "turns and regions", turns, "one number from 1 on for each region"),
            (min(both) > 0, "optim.accumulate and pools", both, "both from 1 on"),
            (sigmas[0] == sigmas[1], "sigma_max of model and diffusion", sigmas, "one value"),
            (not any(size % stride for size in sizes), "patch sizes", sizes, f"multiples of {stride}"),
            (len(drop) == views, "augment.drop", drop, f"a probability for each of {views} views"),
        )

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the run that is done after `step` steps and `seconds` of training, 0 to 1."""
        by_steps = step / self.steps if self.steps > 0 else 0.0
        by_clock = seconds / (60 * self.minutes) if self.minutes > 0 else 0.0
        return min(1.0, max(by_steps, by_clock))

    def require_exact_gradients(self, device: str) -> None:
        """Raise InputError where PyTorch computes wrong gradients of this configuration on a kind of device.

        In bf16 on a CPU (PyTorch 2.13), the weight gradient of a 3^3 convolution over two cells along the first axis
        is made of memory that nothing was written to. Three cells at the coarsest level leave no level with two.
        """
        if not self.autocast or device != "cpu":
            return
        model, grid = self.model, self.grid.shape[0]
        patch = grid if self.patch.shape == "slab" else min(grid, *self.patch.sizes)
        parts = [("patch.sizes", patch, model.channels)]
        parts += [("grid", grid, model.lift_channels)] if model.kind == "cells" else []
        for name, side, widths in parts:
            least = 3 * model.stem * 2 ** (len(widths) - 1)
            if side < least:
                expected = f"at least {least}, three cells of the coarsest level, for right bf16 gradients on a CPU"
                hint = 'set "autocast" to false, or train on a GPU'
                raise InputError.of("train config", name, found=f"{side} voxels along x", expected=expected, hint=hint)

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values."""
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
