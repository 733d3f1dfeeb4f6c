"""Training: losses, the patch schedule, the loop and its checkpoints."""

from x2ct.training.checkpoint import load_run
from x2ct.training.config import TrainConfig
from x2ct.training.loop import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "load_run", "train"]
