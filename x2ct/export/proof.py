"""The proof: each runtime that is here on each file that was made, beside PyTorch.

PyTorch evaluates the bundle's graphs node by node in float32. Compared are the denoiser at five noise levels on two
patches, and the final volume of a whole run with the same noise; each runtime has a process of its own
(`x2ct.engine.isolated_run`). On a GPU the volume alone is compared: TensorRT's plans hold for the grid that they were
built for, and the graph that they are built from is proven at five noise levels (`rounding.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from x2ct.bundle import Bundle
from x2ct.engine.isolated_run import Trial, attempt
from x2ct.errors import X2CTError
from x2ct.export import parity
from x2ct.export.parity import Array
from x2ct.files.text import Json
from x2ct.runtimes.cache import engines
from x2ct.runtimes.cache.engines import SUFFIXES, TENSORRT, TORCH
from x2ct.runtimes.discovery import Choice, backend_status, find_runtime

SIGMAS = 5
NETWORK_BOUND = {"f32": 1e-3, "f16": 0.01, "bf16": 0.05}
"""RMS of the difference over the RMS of PyTorch's: sums in another order give 1e-7 to 4e-5, bfloat16's 8 bits a few
times 1e-3, float16's 11 bits an eighth of it; a wrong weight, axis or padding gives more."""

VOLUME_BOUND_HU = {"f32": 0.5, "tf32": 5.0, "f16": 5.0, "bf16": 5.0}  # mean absolute difference of a whole sample


@dataclass(frozen=True)
class Proof:
    """One line of the table: a bundle's files in a runtime."""

    artefact: str  # the files: "onnx", "torchscript", "aoti" or "tensorrt"
    runtime: str  # with its version
    precision: str  # as read back from the compiled model
    network_error: float | None  # of the denoiser, the largest of `errors`; None where none was tried
    errors: tuple[tuple[str, float, float], ...]  # by patch and sigma
    mae_hu: float  # mean absolute difference of the final volume
    psnr_db: float | None  # its PSNR, the window's width the peak; None for the very same volume
    bytes: int
    load_s: float  # from files to a denoiser that is ready, encoder and lift included
    ms_per_evaluation: float  # of the whole grid, the least of three runs
    network_bound: float | None
    volume_bound_hu: float

    @property
    def passed(self) -> bool:
        """Return whether both errors are within their bounds; NaN is not."""
        error, bound = self.network_error, self.network_bound
        return (error is None or bound is None or error <= bound) and self.mae_hu <= self.volume_bound_hu

    def to_json(self) -> dict[str, Json]:
        """Return the row as plain data."""
        errors: list[Json] = [{"patch": p, "sigma": s, "error": e} for p, s, e in self.errors]
        return {**vars(self), "errors": errors, "passed": self.passed}

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        return (
            self.artefact,
            self.runtime,
            self.precision,
            "" if self.network_error is None else f"{self.network_error:.1e}",
            f"{self.mae_hu:.4f}",
            "the same" if self.psnr_db is None else f"{self.psnr_db:.1f}",
            f"{self.bytes / 1e6:.1f}",
            f"{self.load_s:.2f}",
            f"{self.ms_per_evaluation:.1f}",
            "passed" if self.passed else "refused",
        )

    def __str__(self) -> str:
        error = self.network_error
        denoiser = "" if error is None else f"denoiser {error:.2g} (at most {self.network_bound:g}), "
        return (
            f"{self.artefact} in {self.runtime} {self.precision}: {denoiser}"
            f"volume {self.mae_hu:.2g} HU (at most {self.volume_bound_hu:g})"
        )


@dataclass(frozen=True)
class Reference:
    """What PyTorch makes of `attempt`'s inputs, in the network's unit: patches [sigma, X, Y, Z] and a whole sample."""

    inputs: Mapping[str, Array]
    denoised: Mapping[str, Array]
    volume: Array


def trials(
    formats: Sequence[str], *, plan: tuple[str, str] = ("f32", "cuda"), torch: tuple[str, str] = ("f32", "cpu")
) -> list[tuple[str, Trial]]:
    """Return each file with each runtime that is here for it; bfloat16 where the processor has it.

    `plan` and `torch` are the denoiser's precision and the device, of TensorRT's plans and of torch's engines.
    """
    pairs = []
    for backend in ("openvino", "onnxruntime") if "onnx" in formats else ():
        status = backend_status(backend)
        if status["available"] and find_runtime(backend).folder:
            pairs += [("onnx", Trial(backend, name)) for name in ("f32", "bf16") if name in status["precisions"]["cpu"]]
    pairs += [(kind, Trial(TORCH, torch[0], kind, torch[1])) for kind in formats if kind in SUFFIXES]
    pairs += [(TENSORRT, Trial(TENSORRT, plan[0], device=plan[1]))] if TENSORRT in formats else []
    return pairs


def prove(
    bundle: Bundle,
    reference: Reference,
    tried: Sequence[tuple[str, Trial]],
    folder: Path,
    cache: Path,
    say: Callable[[str], None],
) -> tuple[Proof, ...]:
    """Try every file in every runtime that is here for it.

    `tried` is from `trials`; processes exchange arrays in `folder`; the engines are in `cache`. Raises X2CTError: a
    runtime failed, or (MissingRuntimeError) a file's backend is not here.
    """
    rows = []
    for number, (artefact, trial) in enumerate(tried):
        say(f"proving {artefact} in {trial}")
        denoised = reference.denoised if trial.device == "cpu" else {}
        inputs = {name: value for name, value in reference.inputs.items() if denoised or "/" not in name}
        result = attempt(trial, bundle.path, inputs, folder / str(number), cache)
        facts = result["facts"]
        errors = tuple(
            (patch, float(sigma), parity.relative_error(array, expected))
            for patch, arrays in denoised.items()
            for sigma, array, expected in zip(inputs[f"{patch}/sigmas"], result["denoised"][patch], arrays, strict=True)
        )
        choice = Choice(trial.device, trial.backend, trial.precision, "", trial.provider)
        _, files = engines.find(bundle, bundle.grid, choice, cache)
        mae_hu, decibel = parity.volume_difference(bundle, result["volume"], reference.volume)
        proof = Proof(
            artefact=artefact,
            runtime=f"{trial.backend} {facts['runtime']}",
            precision=facts["precision"],
            network_error=float(np.max([error for _, _, error in errors])) if errors else None,
            errors=errors,
            mae_hu=mae_hu,
            psnr_db=None if math.isinf(decibel) else decibel,
            bytes=sum(Path(file).stat().st_size for file in files.values()) or bundle.size_bytes,
            load_s=facts["load_s"],
            ms_per_evaluation=facts["ms_per_evaluation"],
            network_bound=NETWORK_BOUND[trial.precision] if errors else None,
            volume_bound_hu=VOLUME_BOUND_HU[trial.precision],
        )
        rows.append(proof)
    return tuple(rows)


def require(rows: Iterable[Proof]) -> None:
    """Raise X2CTError, which names the first that failed, where a file computes something else.

    ONNX is judged in float32, the others in their own precision, which they can't leave. Of ONNX in a lower precision
    the table tells, and nobody has to use it.
    """
    for row in rows:
        if not row.passed and (row.precision == "f32" or row.artefact != "onnx"):
            raise X2CTError(f"proof failed, not written: {row}")


def reference_of(bundle: Bundle) -> Reference:
    """Return inputs like those of a study, drawn with a fixed seed, and what PyTorch makes of them."""
    import onnx

    from x2ct.export.torchgraph import OnnxModule

    encode, lift, denoise = (
        OnnxModule(onnx.load(bundle.file_of(network))).eval().evaluate for _, network in bundle.networks.items()
    )
    rng = np.random.default_rng(20_260_102)
    views = parity.xrays(bundle, rng)
    conditions = parity.conditioner(bundle, views, encode, lift)
    sigmas = np.geomspace(bundle.diffusion.sigma_min, bundle.diffusion.sigma_max, SIGMAS).astype(np.float32)
    inputs, denoised = {"views": views}, {}
    for shape, coords in parity.patches(bundle):
        name, condition = " x ".join(map(str, shape)), conditions(coords)
        clean = parity.smooth_volume(shape, rng)
        noise = rng.standard_normal(clean.shape, np.float32)
        patch = {"x": clean, "noise": noise, "sigmas": sigmas, **condition}
        inputs |= {f"{name}/{key}": value for key, value in patch.items()}
        noisy = ({"x": clean + sigma * noise, "sigma": np.array([sigma]), **condition} for sigma in sigmas)
        denoised[name] = np.concatenate([denoise(one)["denoised"] for one in noisy])
    whole = conditions(bundle.grid.coordinates()[None])
    volume, _ = parity.sampled(bundle, denoise, whole, bundle.grid.shape)
    return Reference(inputs, denoised, volume)
