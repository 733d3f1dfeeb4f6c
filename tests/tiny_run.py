"""A training small enough for tests: phantom patients, a 32^3 grid, a network of a few thousand weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests import phantom
from x2ct.data.shards import write_index
from x2ct.geometry.grid import Grid
from x2ct.io.report import sha256

GRID = Grid((32, 32, 32), (10.0, 10.0, 10.0))

CONFIG = {
    "name": "tiny",
    "steps": 6,
    "model": {
        "detector": [64, 64],
        "encoder_channels": [8, 8],
        "lift_channels": [8, 16],
        "lift_blocks": [1, 1],
        "channels": [8, 16],
        "blocks": [1, 1],
        "embedding": 8,
        "sigma_data": 0.4,
    },
    "patch": {"sizes": [16, 32], "probabilities": [0.5, 0.5], "voxels": 16384},
    "optim": {"rate": 0.02, "warmup": 4},
    "detector_spacing_mm": [6.0, 6.0],
    "pool": 2,
    "refresh": 2,
    "checkpoint_every": 1,
    "validate_every": 4,
    "autocast": False,
}


def write_shards(folder: Path) -> Path:
    """Two phantom chests to train on and one to validate on."""
    folder.mkdir(parents=True)
    patients = []
    for seed in range(3):
        name = f"phantom{seed}"
        np.save(folder / f"{name}.npy", phantom.chest(GRID, seed, marker=False).astype(np.int16))
        patients.append(
            {
                "id": name,
                "split": "validation" if seed == 2 else "train",
                "source": "phantom",
                "file": f"{name}.npy",
                "shape": list(GRID.shape),
                "index_to_mm": GRID.index_to_mm.tolist(),
                "region": "chest",
                "lungs_mm": None,
                "body_mm": [[-100, -100, -100], [100, 100, 100]],
                "sha256": sha256(folder / f"{name}.npy"),
                "bytes": (folder / f"{name}.npy").stat().st_size,
            }
        )
    write_index(folder, GRID, patients)
    return folder
