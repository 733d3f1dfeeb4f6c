"""Checkpoints: safetensors with the complete state, written beside and renamed. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from x2ct.errors import InputError
from x2ct.files.atomic import write_beside
from x2ct.model import X2CTModel
from x2ct.model.ema import MAX_WIDTH, PowerEMA, posthoc_shares
from x2ct.training.config import TrainConfig
from x2ct.training.optimizer import Optimizer

CHECKPOINT_FILE = "checkpoint.safetensors"
BEST_FILE = "best.safetensors"
AVERAGES_FOLDER = "averages"


@dataclass
class State:
    """What a run is between two steps; the random numbers depend on the step alone.

    Attributes:
        config: the run's configuration.
        model: the weights.
        optimizer: their moments.
        averages: of the weights.
        step: steps done.
        seconds: training time so far.
        progress: share of the run that is done, which sets the learning rate; drawn once a step.
        best_loss: lowest validation loss so far; `BEST_FILE` has the average that reached it.
    """

    config: TrainConfig
    model: X2CTModel
    optimizer: Optimizer
    averages: list[PowerEMA]
    step: int = 0
    seconds: float = 0.0
    progress: float = 0.0
    best_loss: float = math.inf


def save(state: State, folder: Path) -> None:
    """Write the whole state; a kill at any moment leaves the old checkpoint or the new one.

    Raises:
        X2CTError: the write failed, such as on a full disk; the checkpoint that was there is still there, whole.
    """
    _write(folder / CHECKPOINT_FILE, *content_of(state))


def content_of(state: State) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all that a checkpoint has: tensors on the CPU by name, and the metadata."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
    tensors |= {f"optimizer.{name}": moment for name, moment in state.optimizer.state().items()}
    for average in state.averages:
        for name, value in average.state().items():
            tensors[f"ema{average.relative_width:g}.{name}"] = value
    return {name: value.contiguous().cpu() for name, value in tensors.items()}, _metadata(state)


def weights_checksum(state: State) -> str:
    """Return a checksum of the weights, the same only where all of them are equal to the bit."""
    digest = hashlib.sha256()
    for value in state.model.parameters():
        digest.update(value.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_best(state: State, folder: Path) -> None:
    """Write the first average alone, beside the checkpoint: the best so far by its validation loss.

    Raises:
        X2CTError: see `save`.
    """
    average = state.averages[0]
    prefix = f"ema{average.relative_width:g}."
    tensors = {f"{prefix}{name}": value.contiguous().cpu() for name, value in average.state().items()}
    _write(folder / BEST_FILE, tensors, _metadata(state))


def keep_averages(state: State, folder: Path) -> None:
    """Write all averages as f16 under `AVERAGES_FOLDER`: what `load_run` makes averages of other widths of.

    Raises:
        X2CTError: see `save`.
    """
    (folder / AVERAGES_FOLDER).mkdir(exist_ok=True)
    tensors = {
        f"ema{average.relative_width:g}.{name}": value.half().contiguous().cpu()
        for average in state.averages
        for name, value in average.state().items()
    }
    _write(folder / AVERAGES_FOLDER / f"{state.step:08d}.safetensors", tensors, _metadata(state))


def _metadata(state: State) -> dict[str, str]:
    return {
        "step": str(state.step),
        "seconds": repr(state.seconds),
        "best_loss": repr(state.best_loss),
        "config": json.dumps(state.config.to_json()),
    }


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    def write(part: Path) -> None:
        try:
            save_file(tensors, part, metadata)
        except SafetensorError as error:  # what the system says of a write is in its text alone
            raise OSError(str(error).rpartition("I/O error: ")[2]) from error

    write_beside(path, write)


def restore(state: State, folder: Path) -> None:
    """Load the whole state into freshly built objects of the same configuration.

    Raises:
        InputError: the checkpoint is missing, damaged, or of another network.
    """
    take(state, *_read(folder / CHECKPOINT_FILE), folder)
    for path in _kept_averages(folder):
        if int(path.stem) > state.step:  # of steps that are about to be taken again
            path.unlink()


def take(state: State, tensors: dict[str, Tensor], metadata: dict[str, str], folder: Path) -> None:
    """Load what `content_of` returned; `folder` is named in errors.

    Raises:
        InputError: it is of another network.
    """
    _copy(tensors, "model.", dict(state.model.named_parameters()), folder)
    for average in state.averages:
        _copy(tensors, f"ema{average.relative_width:g}.", average.state(), folder)
    prefix = "optimizer."
    state.optimizer.load({n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)})
    state.step = int(metadata["step"])
    state.seconds = float(metadata["seconds"])
    state.progress = state.config.progress(state.step, state.seconds)
    state.best_loss = float(metadata.get("best_loss", "inf"))


def load_run(
    folder: str | Path, *, ema: float | None = None, raw: bool = False, best: bool = False
) -> tuple[TrainConfig, X2CTModel]:
    """Return a run's configuration and its model, with averaged weights.

    Args:
        folder: the run's folder.
        ema: relative width of the average; the configuration's first by default. A width that the run did not average
            is made of the averages that it kept (`OptimConfig.keep`).
        raw: the last weights themselves instead of an average.
        best: the first average when its validation loss was lowest, instead of the last one.

    Raises:
        InputError: there is no run in the folder, it is damaged, or it has no such average.
    """
    folder = Path(folder)
    config = TrainConfig.load(folder)
    tensors, metadata = _read(folder / (BEST_FILE if best else CHECKPOINT_FILE))
    width = config.optim.ema[0] if ema is None else ema
    prefix = "model." if raw else f"ema{width:g}."
    if not raw and not best and width not in config.optim.ema:
        tensors = _posthoc_average(folder, config.optim.ema, int(metadata["step"]), width)
    model = X2CTModel(config.model)
    _copy(tensors, prefix, dict(model.named_parameters()), folder)
    return config, model.eval()


def _kept_averages(folder: Path) -> list[Path]:
    return sorted((folder / AVERAGES_FOLDER).glob("*.safetensors"))


def _posthoc_average(folder: Path, widths: Sequence[float], step: int, width: float) -> dict[str, Tensor]:
    paths = _kept_averages(folder)
    if not paths or not 0 < width < MAX_WIDTH:
        expected = ", ".join(f"{w:g}" for w in widths)
        if paths:
            expected += f", or a width above 0 and below {MAX_WIDTH:g}"
        hint = "" if paths else "other widths need optim.keep in the run's configuration"
        raise InputError.of(folder, "ema", found=width, expected=expected, hint=hint)
    shares = posthoc_shares([(int(path.stem), w) for path in paths for w in widths], step, width)
    total: dict[str, Tensor] = {}
    for number, path in enumerate(paths):
        tensors, _ = _read(path)
        for place, w in enumerate(widths):
            share, prefix = float(shares[number * len(widths) + place]), f"ema{w:g}."
            for name, value in tensors.items():
                if name.startswith(prefix):
                    key = f"ema{width:g}.{name.removeprefix(prefix)}"
                    total[key] = total.get(key, torch.zeros(())) + share * value.float()
    return total


def averaged_weights(folder: Path, width: float) -> dict[str, Tensor]:
    """The averaged weights by name, of whatever network the run has.

    Raises:
        InputError: there is no readable checkpoint in the folder.
    """
    tensors, _ = _read(folder / CHECKPOINT_FILE)
    prefix = f"ema{width:g}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def read_progress(folder: str | Path) -> tuple[int, float]:
    """Steps done and seconds spent, as the run's checkpoint says.

    Raises:
        InputError: there is no readable checkpoint in the folder.
    """
    _, metadata = _read(Path(folder) / CHECKPOINT_FILE)
    return int(metadata["step"]), float(metadata["seconds"])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise InputError.of(path, "file", found="nothing", expected="a checkpoint of x2ct train")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError.of(path, "file", found=error, expected="a whole safetensors file") from error


@torch.no_grad()
def _copy(tensors: dict[str, Tensor], prefix: str, targets: dict[str, Tensor], folder: Path) -> None:
    for name, target in targets.items():
        source = tensors.get(prefix + name)
        if source is None or source.shape != target.shape:
            found = "nothing" if source is None else tuple(source.shape)
            raise InputError.of(
                folder / CHECKPOINT_FILE,
                prefix + name,
                found=found,
                expected=tuple(target.shape),
                hint="another network?",
            )
        target.copy_(source)
