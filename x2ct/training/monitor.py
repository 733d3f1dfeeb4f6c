"""What a run leaves to look at: TensorBoard scalars, preview pictures, and one JSON line per validation."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter

from x2ct import output, panels, preview
from x2ct.training.checkpoint import State
from x2ct.training.validate import Validation

log = logging.getLogger(__name__)

HISTORY_FILE = "validation.jsonl"


class Monitor:
    """Writes a run's scalars and pictures; a context manager that closes its files."""

    def __init__(self, run_dir: Path, step: int) -> None:
        self._folder = run_dir
        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)
        self._recent: list[float] = []

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def step(self, state: State, loss: float) -> None:
        """After each optimiser step; a scalar every 20, since single losses are noise."""
        self._recent.append(loss)
        if state.step % 20 == 0:
            self._scalar("train/loss", float(np.mean(self._recent)), state.step)
            self._recent.clear()

    def validation(self, state: State, result: Validation, truth: npt.NDArray[np.float32]) -> None:
        """After each validation: scalars, a picture of truth and posterior mean, a line in validation.jsonl."""
        row = {
            "step": state.step,
            "seconds": round(state.seconds, 1),
            "loss": result.loss,
            "losses": result.losses,
            "mean_psnr": result.mean_psnr,
            "mean_bone_dice": result.mean_bone_dice,
            "low_bone_dice": result.low_bone_dice,
        }
        with (self._folder / HISTORY_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name in ("loss", "mean_psnr", "mean_bone_dice", "low_bone_dice"):
            self._scalar(f"validation/{name}", float(row[name]), state.step)  # type: ignore[arg-type]
        picture = preview.training_progress(
            truth,
            result.mean_hu,
            state.config.grid.spacing_mm,
            names=("truth", "posterior mean"),
            further={"denoised": result.low_hu},
        )
        output.write_atomically(self._folder / f"preview_{state.step:06d}.png", panels.png(picture))
        self._writer.add_image("preview", np.asarray(picture.convert("RGB")), state.step, dataformats="HWC")
        log.info("step %d: mean %.2f dB, bone Dice %.3f", state.step, result.mean_psnr, result.mean_bone_dice)

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)
