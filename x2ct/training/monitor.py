"""The record of a run: lines in the log, TensorBoard scalars, preview pictures, a JSON line for each validation.

Its speed is recorded too: the operations of a step, counted once, against the device's own matrix rate.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from x2ct.files import atomic
from x2ct.render import panels, preview
from x2ct.training.checkpoint import State
from x2ct.training.validate import Validation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

HISTORY_FILE = "validation.jsonl"
LINE_S = 60.0
"""Seconds between two lines about the training loss."""

SIDE, ROUNDS = 2048, 5
"""Side of the matrices whose product measures the device's matrix rate, and how often it is measured."""


class WorkMeter:
    """Counts the floating-point operations of training passes, which are of matrices of one data type on a device.

    Counting is done on a forward pass of its own, because it changes which kernels PyTorch takes, and once for each
    number of voxels; a backward pass costs twice the forward one.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._flop: dict[int, int] = {}
        self._rate: float | None = None
        self.total_flop = 0

    def add(self, voxels: int, forward: Callable[[], object]) -> None:
        """Add a forward and a backward pass over `voxels` voxels to `total_flop`; `forward` computes the first."""
        if voxels not in self._flop:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                forward()
            self._flop[voxels] = 3 * counter.get_total_flops()
        self.total_flop += self._flop[voxels]

    def matrix_rate(self) -> float:
        """Return the device's rate for a product of two square matrices, FLOP/s; the best of a few, measured once."""
        if self._rate is None:
            a = torch.ones(SIDE, SIDE, dtype=self._dtype, device=self._device)
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                product = a @ a
                float(product[0, 0])  # waits for the device
                times.append(time.perf_counter() - start)
            self._rate = 2 * SIDE**3 / min(times)
        return self._rate


class Monitor:
    """Writes a run's lines, scalars and pictures; a context manager that closes its files.

    Records of steps after `step` are from a part of the run that was lost, and are removed.
    """

    def __init__(self, run_dir: Path, step: int, meter: WorkMeter) -> None:
        self._folder, self._meter = run_dir, meter
        self._writer = _tensorboard(run_dir / "tensorboard", step + 1)
        self._losses: list[float] = []
        self._begun, self._flop = time.monotonic(), 0
        history = run_dir / HISTORY_FILE
        if history.exists():
            rows = history.read_text(encoding="utf-8").splitlines(keepends=True)
            earlier = [row for row in rows if json.loads(row)["step"] <= step]
            atomic.write_atomically(history, "".join(earlier).encode())

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

    def validation(self, state: State, result: Validation, watched: Validation) -> None:
        """Write a validation: a line, scalars, a picture of truth and posterior mean, a row in validation.jsonl.

        `watched` is the result of training patients, without augmentation.
        """
        figures, step = result.figures, state.step
        row = {"step": step, "seconds": round(state.seconds, 1), **figures, "train": watched.figures}
        with (self._folder / HISTORY_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name in ("loss", "mean_psnr", "mean_bone_dice", "low_bone_dice"):
            self._scalar(f"validation/{name}", figures[name], step)
        names, further = ("truth", "posterior mean"), {"denoised": result.low_hu}
        spacing = state.config.grid.spacing_mm
        picture = preview.training_progress(result.truth_hu, result.mean_hu, spacing, names=names, further=further)
        atomic.write_atomically(self._folder / f"preview_{step:06d}.png", panels.png(picture))
        if self._writer is not None:
            self._writer.add_image("preview", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        both = (each.figures[name] for name in ("loss", "mean_psnr") for each in (result, watched))
        log.info(
            "validation at step %d: loss %.4f (training patients %.4f), mean estimate %.2f dB (%.2f), bone Dice %.3f",
            *(step, *both, figures["mean_bone_dice"]),
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
