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

Content = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors by name and metadata, as a safetensors file has them."""


@dataclass
class State:
    """The state of a run between two steps; the random numbers depend on the step alone."""

    config: TrainConfig
    model: X2CTModel
    optimizer: Optimizer
    averages: list[PowerEMA]
    coords: Tensor  # the grid's, [3, X, Y, Z], on the device of all that is trained
    step: int = 0  # steps done
    seconds: float = 0.0  # training time so far
    progress: float = 0.0  # share of the run that is done, which sets the learning rate; drawn once a step
    best_loss: float = math.inf  # lowest validation loss so far; `BEST_FILE` has the average that reached it


def new_state(config: TrainConfig, device: torch.device) -> State:
    """Return a freshly initialised run; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(config.seed)  # type: ignore[attr-defined]
        model = X2CTModel(config.model)
    model.normalize()
    model.to(device)
    averages = [PowerEMA(model, width) for width in config.optim.ema]
    coords = torch.from_numpy(config.grid.coordinates()).to(device)
    return State(config, model, Optimizer(model, config.optim), averages, coords)


def save(state: State, folder: Path) -> None:
    """Write the whole state; a kill at any moment leaves the old checkpoint or the new one.

    Raises:
        X2CTError: the write failed, such as on a full disk; the checkpoint that was there is still there, whole.
    """
    _write(folder / CHECKPOINT_FILE, content_of(state))


def content_of(state: State) -> Content:
    """Return all that a checkpoint has, on the CPU."""
    tensors: dict[str, Tensor] = {f"model.{name}": value.detach() for name, value in state.model.named_parameters()}
    tensors |= {f"optimizer.{name}": moment for name, moment in state.optimizer.state().items()}
    return _content(state, tensors | _averages(state))


def weights_checksum(state: State) -> str:
    """Return a checksum of the weights, the same only where all of them are equal to the bit."""
    digest = hashlib.sha256()
    for value in state.model.parameters():
        digest.update(value.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_best(state: State, folder: Path) -> None:
    """Write the first average alone, the best so far by its validation loss, beside the checkpoint; as `save` does."""
    _write(folder / BEST_FILE, _content(state, _averages(state, 1)))


def keep_averages(state: State, folder: Path) -> None:
    """Write all averages as f16, of which `load_run` makes averages of other widths; as `save` does."""
    halves = {name: value.half() for name, value in _averages(state).items()}
    _write(folder / AVERAGES_FOLDER / f"{state.step:08d}.safetensors", _content(state, halves))


def _averages(state: State, count: int | None = None) -> dict[str, Tensor]:
    shadows = {_prefix(average.relative_width): average.shadow for average in state.averages[:count]}
    return {f"{prefix}{name}": value for prefix, shadow in shadows.items() for name, value in shadow.items()}


def _prefix(width: float) -> str:
    """Return the prefix of the names of an average's weights."""
    return f"ema{width:g}."


def _content(state: State, tensors: dict[str, Tensor]) -> Content:
    metadata = {
        "step": str(state.step),
        "seconds": repr(state.seconds),
        "best_loss": repr(state.best_loss),
        "config": json.dumps(state.config.to_json()),
    }
    return {name: value.contiguous().cpu() for name, value in tensors.items()}, metadata


def _write(path: Path, content: Content) -> None:
    def write(part: Path) -> None:
        try:
            save_file(content[0], part, content[1])
        except SafetensorError as error:  # what the system says of a write is in its text alone
            raise OSError(str(error).rpartition("I/O error: ")[2]) from error

    write_beside(path, write)


def restore(state: State, folder: Path) -> None:
    """Load the whole state. Raises InputError: the checkpoint is missing, damaged, or of another network."""
    take(state, _read(folder / CHECKPOINT_FILE), folder)
    for path in (folder / AVERAGES_FOLDER).glob("*.safetensors"):
        if int(path.stem) > state.step:  # of steps that are about to be taken again
            path.unlink()


def take(state: State, content: Content, folder: Path) -> None:
    """Load what `content_of` returned; as `restore` does, whose errors name the folder."""
    tensors, metadata = content
    _copy(tensors, "model.", dict(state.model.named_parameters()), folder)
    for average in state.averages:
        _copy(tensors, _prefix(average.relative_width), average.shadow, folder)
    state.optimizer.load(_under("optimizer.", tensors))
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
    if not raw and not best and width not in config.optim.ema:
        tensors = _posthoc_average(folder, config.optim.ema, int(metadata["step"]), width)
    model = X2CTModel(config.model)
    _copy(tensors, "model." if raw else _prefix(width), dict(model.named_parameters()), folder)
    return config, model.eval()


def starting_weights(run: Path) -> dict[str, Tensor]:
    """Return a run's averaged weights by name, for `runs.initialise`. Raises InputError: no readable run is there."""
    width = TrainConfig.load(run).optim.ema[0]
    return _under(_prefix(width), _read(run / CHECKPOINT_FILE)[0])


def read_progress(folder: str | Path) -> tuple[int, float]:
    """Return the steps done and the seconds spent. Raises InputError: no readable checkpoint is in the folder."""
    _, metadata = _read(Path(folder) / CHECKPOINT_FILE)
    return int(metadata["step"]), float(metadata["seconds"])


def _posthoc_average(folder: Path, widths: Sequence[float], step: int, width: float) -> dict[str, Tensor]:
    paths = sorted((folder / AVERAGES_FOLDER).glob("*.safetensors"))
    if not paths or not 0 < width < MAX_WIDTH:
        expected = ", ".join(f"{w:g}" for w in widths)
        if paths:
            expected += f", or a width above 0 and below {MAX_WIDTH:g}"
        hint = "" if paths else "other widths need optim.keep in the run's configuration"
        raise InputError.of(folder, "ema", found=width, expected=expected, hint=hint)
    shares = posthoc_shares([(int(path.stem), w) for path in paths for w in widths], step, width)
    total: dict[str, Tensor] = {}
    for path, row in zip(paths, shares.reshape(len(paths), -1), strict=True):
        tensors, _ = _read(path)
        for w, share in zip(widths, row, strict=True):
            for name, value in _under(_prefix(w), tensors).items():
                key = f"{_prefix(width)}{name}"
                total[key] = total.get(key, torch.zeros(())) + float(share) * value.float()
    return total


def _read(path: Path) -> Content:
    if not path.is_file():
        raise InputError.of(path, "file", found="nothing", expected="a checkpoint of x2ct train")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError.of(path, "file", found=error, expected="a whole safetensors file") from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def _copy(tensors: dict[str, Tensor], prefix: str, targets: dict[str, Tensor], folder: Path) -> None:
    for name, target in targets.items():
        source = tensors.get(prefix + name)
        if source is None or source.shape != target.shape:
            shape, expected = "nothing" if source is None else tuple(source.shape), tuple(target.shape)
            where, field = folder / CHECKPOINT_FILE, prefix + name
            raise InputError.of(where, field, found=shape, expected=expected, hint="another network?")
        target.copy_(source)
