"""A runtime on trial: what it computes of a bundle's networks and volume on given inputs, and how fast.

It runs in a process of its own, so that nothing that made the files helps to read them. `export/proof.py` judges.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.engine.sampler import Sampler
from x2ct.errors import MissingRuntimeError, X2CTError
from x2ct.geometry.grid import Grid
from x2ct.io.xray.radiograph import XRay
from x2ct.runtimes.cache import engines
from x2ct.runtimes.discovery import Choice

Arrays = dict[str, npt.NDArray[np.float32]]

INPUTS, OUTPUTS, FACTS = "inputs.npz", "outputs.npz", "facts.json"


@dataclass(frozen=True)
class Trial:
    """The runtime to try, see `x2ct.Sampler`; of `repeats` timed runs of the whole grid the fastest counts."""

    backend: str
    precision: str = "f32"
    provider: str = ""
    device: str = "cpu"
    repeats: int = 3

    def __str__(self) -> str:
        return " ".join(part for part in (self.backend, self.provider, self.precision) if part)


def attempt(trial: Trial, bundle: Path, inputs: Arrays, folder: Path, cache: Path | None = None) -> dict[str, Any]:
    """Run a trial in a fresh process, on the model in the folder `bundle`; arrays are exchanged in `folder`.

    `inputs` has `views` [1, V, 1, H, W], line integrals on the detectors of the bundle's own views; and for each patch
    K, if any, the denoiser's inputs, named "K/x", "K/c0" ..., with "K/sigmas". Compiled engines are in `cache`, by
    default the user's. Returns the `facts` of the process; `volume`, the sample of seed 0 in the network's unit; and
    `denoised`, by patch, [sigma, X, Y, Z]. Raises X2CTError, which says how the runtime failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / INPUTS, **inputs)  # type: ignore[arg-type]
    job = json.dumps({"trial": asdict(trial), "bundle": str(bundle.absolute()), "folder": str(folder.absolute())})
    package = str(Path(__file__).absolute().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": path} | ({} if cache is None else {"X2CT_CACHE": str(cache)})
    code = "import sys; from x2ct.engine.isolated_run import work; work(sys.argv[1])"
    process = subprocess.run(
        [sys.executable, "-c", code, job], env=environment, capture_output=True, text=True, check=False
    )
    facts_file = folder / FACTS
    if process.returncode != 0 or not facts_file.exists():
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        raise X2CTError(f"{trial}: {lines[-1] if lines else f'ended with code {process.returncode}'}")
    facts = json.loads(facts_file.read_text())
    if "missing" in facts:
        raise MissingRuntimeError(facts["missing"])
    with np.load(folder / OUTPUTS) as arrays:
        denoised = {name.partition("/")[0]: arrays[name] for name in arrays.files if name.endswith("/denoised")}
        return {"facts": facts, "volume": arrays["volume"], "denoised": denoised}


def work(job: str) -> None:
    """Read the inputs, run, and write the results; the part of the other process."""
    task = json.loads(job)
    folder, trial = Path(task["folder"]), Trial(**task["trial"])
    with np.load(folder / INPUTS) as arrays:
        inputs = {name: arrays[name] for name in arrays.files}
    try:
        outputs, facts = _run(trial, Bundle.load(task["bundle"]), inputs)
    except MissingRuntimeError as error:
        (folder / FACTS).write_text(json.dumps({"missing": str(error)}))
        return
    np.savez(folder / OUTPUTS, **outputs)  # type: ignore[arg-type]
    (folder / FACTS).write_text(json.dumps(facts))


def _run(trial: Trial, bundle: Bundle, inputs: Arrays) -> tuple[Arrays, dict[str, Any]]:
    names = [view.name for view in bundle.geometry.views]
    xrays: dict[str, Any] = {name: XRay(view[0], True) for name, view in zip(names, inputs["views"][0], strict=True)}
    sampler = Sampler(bundle, **{key: value for key, value in vars(trial).items() if key != "repeats"})
    started = time.perf_counter()
    sampler.set_xrays(**xrays, geometry=bundle.geometry, force=True)
    load_s = time.perf_counter() - started
    runs = [sampler.run(seed=seed, raw=True) for seed in range(trial.repeats)]
    outputs: Arrays = {"volume": runs[0].volume.hu}
    report = runs[0].report
    facts = {
        "runtime": report["runtime"],
        "precision": report["precision"]["denoiser"],
        "load_s": round(load_s, 4),
        "ms_per_evaluation": round(1e3 * min(run.report["timings"]["per_evaluation_s"] for run in runs), 3),
    }
    choice = sampler.choice
    del sampler, runs
    for patch in sorted({name.partition("/")[0] for name in inputs if "/" in name}):
        tensors = {name.partition("/")[2]: value for name, value in inputs.items() if name.startswith(f"{patch}/")}
        outputs[f"{patch}/denoised"] = _denoised(bundle, choice, tensors)
    return outputs, facts


def _denoised(bundle: Bundle, choice: Choice, tensors: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Return a patch denoised at each sigma; `tensors` have the clean volume and unit noise apart, for all sigmas."""
    x, y, z = tensors["x"].shape[-3:]
    graph = bundle.networks.denoiser
    _, files = engines.find(bundle, Grid((x, y, z), bundle.grid.spacing_mm), choice)
    conditions = {name: tensors[name] for name in tensors if name not in ("x", "noise", "sigmas")}
    denoiser = _core.Network(
        files.get(graph.file, str(bundle.file_of(graph))),
        backend=choice.backend,
        precision=choice.precision,
        shapes={"x": tensors["x"].shape, "sigma": [1], **{name: value.shape for name, value in conditions.items()}},
        runtime_dir=choice.runtime_dir,
        provider=engines.provider_of(choice),
    )
    results = [
        denoiser({"x": tensors["x"] + sigma * tensors["noise"], "sigma": np.array([sigma], np.float32), **conditions})
        for sigma in tensors["sigmas"]
    ]
    return np.concatenate([one["denoised"] for one in results])
