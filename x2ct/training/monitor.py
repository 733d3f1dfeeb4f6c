"""What a run leaves to look at: lines in the log, TensorBoard scalars, preview pictures, a JSON line a validation."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from x2ct.files import atomic
from x2ct.render import panels, preview
from x2ct.training.checkpoint import State
from x2ct.training.speed import WorkMeter
from x2ct.training.validate import Validation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

HISTORY_FILE = "validation.jsonl"
LINE_S = 60.0
"""Seconds between two lines about the training loss."""


class Monitor:
    """Writes a run's lines, scalars and pictures; a context manager that closes its files.

    Args:
        run_dir: the run's folder.
        step: steps of the run so far; what the folder says of later ones is from a part that was lost, and goes.
        meter: where the step's operations are counted.
    """

    def __init__(self, run_dir: Path, step: int, meter: WorkMeter) -> None:
        self._folder, self._meter = run_dir, meter
        self._writer = _tensorboard(run_dir / "tensorboard", step + 1)
        self._losses: list[float] = []
        self._begun, self._flop = time.monotonic(), 0
        history = run_dir / HISTORY_FILE
        if history.exists():
            rows = history.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [row for row in rows if json.loads(row)["step"] <= step]
            atomic.write_atomically(history, "".join(kept).encode())

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def step(self, state: State, loss: float) -> None:
        """Take in an optimiser step; a line about once a minute, since single losses are noise."""
        self._losses.append(loss)
        seconds = time.monotonic() - self._begun
        if seconds < LINE_S and state.progress < 1:
            return
        mean, count = float(np.mean(self._losses)), len(self._losses)
        rate = state.config.optim.rate * state.config.optim.share(state.step, state.progress)
        flop_s = (self._meter.total_flop - self._flop) / seconds
        log.info(
            "step %d, %.1f min, %.0f%%: loss %.4f, rate %.2g, %.2f s/step, %.0f GFLOP/s, %.0f%% of the matrix rate",
            *(state.step, state.seconds / 60, 100 * state.progress, mean, rate),
            *(seconds / count, flop_s / 1e9, 100 * flop_s / self._meter.matrix_rate()),
        )
        self._scalar("train/loss", mean, state.step)
        self._scalar("train/rate", rate, state.step)
        self._losses.clear()
        self._begun, self._flop = time.monotonic(), self._meter.total_flop

    def validation(self, state: State, result: Validation, watched: Validation, truth: npt.NDArray[np.float32]) -> None:
        """Write a validation: a line, scalars, a picture of truth and posterior mean, a row in validation.jsonl.

        Args:
            state: the run.
            result: figures on the validation patients.
            watched: figures on training patients, without augmentation.
            truth: float32 HU [X, Y, Z] of the first validation patient.
        """
        row = {
            "step": state.step,
            "seconds": round(state.seconds, 1),
            **{name: getattr(result, name) for name in Validation.FIGURES},
            "train": {name: getattr(watched, name) for name in Validation.FIGURES},
        }
        with (self._folder / HISTORY_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name in ("loss", "mean_psnr", "mean_bone_dice", "low_bone_dice"):
            self._scalar(f"validation/{name}", getattr(result, name), state.step)
        picture = preview.training_progress(
            truth,
            result.mean_hu,
            state.config.grid.spacing_mm,
            names=("truth", "posterior mean"),
            further={"denoised": result.low_hu},
        )
        atomic.write_atomically(self._folder / f"preview_{state.step:06d}.png", panels.png(picture))
        if self._writer is not None:
            self._writer.add_image("preview", np.asarray(picture.convert("RGB")), state.step, dataformats="HWC")
        log.info(
            "validation at step %d: loss %.4f (training patients %.4f), mean estimate %.2f dB (%.2f), bone Dice %.3f",
            *(state.step, result.loss, watched.loss, result.mean_psnr, watched.mean_psnr, result.mean_bone_dice),
        )

    def _scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)


def _tensorboard(folder: Path, purge_step: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("TensorBoard is not installed: the run's figures go to the log and to %s alone", HISTORY_FILE)
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)
