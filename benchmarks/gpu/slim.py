"""Cut a run down to what export needs, small enough to bring back: config.json and one average of the weights.

python benchmarks/gpu/slim.py RUN -o SLIM
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # works in a checkout, installed or not

from safetensors import safe_open
from safetensors.torch import save_file

from x2ct.training import TrainConfig
from x2ct.training.checkpoint import CHECKPOINT_FILE
from x2ct.training.config import CONFIG_FILE


def main() -> None:
    """Copy the configuration, the history, and the first average's tensors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    prefix = f"ema{TrainConfig.load(args.run).optim.ema[0]:g}."
    args.output.mkdir(parents=True, exist_ok=True)
    with safe_open(args.run / CHECKPOINT_FILE, framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
        save_file(kept, args.output / CHECKPOINT_FILE, file.metadata())
    for name in (CONFIG_FILE, "validation.jsonl"):
        if (args.run / name).exists():
            shutil.copy(args.run / name, args.output / name)
    print(f"{args.output}: {(args.output / CHECKPOINT_FILE).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
