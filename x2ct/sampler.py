"""The Python face of the C++ sampler: X-rays in, a CT volume and a report out.

`Sampler` compiles a bundle's three networks once, at the first run. A run brings the X-rays onto the encoder's grid
(`x2ct.conditioning`), runs encoder and lift once, compiles schedule and solver to the core's coefficient table, and
hands both to the core's loop, which evaluates the denoiser once per row. What comes back is in the network's unit; the
bundle's intensity map turns it to HU.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import numpy as np
import numpy.typing as npt

from x2ct import _core, report
from x2ct._core import CancelToken
from x2ct.bundle import Bundle
from x2ct.conditioning import refuse_warnings
from x2ct.consistency import facts as consistency_facts
from x2ct.errors import InputError, MemoryLimitError
from x2ct.geometry import Geometry, attenuation
from x2ct.grid import Grid
from x2ct.networks import Budget
from x2ct.preparation import Preparation, Ready
from x2ct.radiograph import XRay
from x2ct.request import Request
from x2ct.residual import Reprojection, Residual
from x2ct.residual import facts as residual_facts
from x2ct.runtimes import choose
from x2ct.volume import Volume

Progress = Callable[[int, int, float], None]
Preview = Callable[[int, int, float, Volume], None]
Each = Callable[[int, Volume], None]
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Result:
    """What a run gives.

    Attributes:
        volume: the synthesised CT, in HU, RAS+, its origin at the grid's centre; of several samples their mean.
        spread: the voxel-wise standard deviation of several samples, in HU; None of one.
        report: the written record (see `x2ct.report`), ready for JSON.
        residuals: each X-ray less the projection of the CT as it was before any data-consistency step.
    """

    volume: Volume
    report: dict[str, Any]
    spread: Volume | None = None
    residuals: tuple[Residual, ...] = ()


@dataclass
class _Spent:
    """Seconds in the loop, over all samples so far."""

    loop_s: float = 0.0
    network_s: float = 0.0
    consistency_s: float = 0.0

    def add(self, loop_s: float, timings: _core.TimingInfo) -> None:
        """One more sample."""
        self.loop_s += loop_s
        self.network_s += timings["network_s"]
        self.consistency_s += timings["correction_s"]

    def facts(self, evaluations: int) -> dict[str, float]:
        """The report's fields."""
        return {
            "loop_s": self.loop_s,
            "consistency_s": self.consistency_s,
            "per_evaluation_s": self.network_s / evaluations,
            "outside_network_share": max(0.0, 1.0 - self.network_s / self.loop_s),
        }


def _volume_of(
    run: Callable[Concatenate[Sampler, Arguments], Result],
) -> Callable[Concatenate[Sampler, Arguments], Volume]:
    """`run` without its report: the same arguments, written down once."""

    @wraps(run)
    def sample(sampler: Sampler, /, *args: Arguments.args, **given: Arguments.kwargs) -> Volume:
        return run(sampler, *args, **given).volume

    sample.__name__, sample.__qualname__ = "sample", "Sampler.sample"
    sample.__signature__ = inspect.signature(run).replace(return_annotation="Volume")  # type: ignore[attr-defined]
    sample.__doc__ = "One CT volume; takes what `run` takes, which also returns the report."
    return sample


class Sampler:
    """Turns X-rays into CT volumes with one model on one device. Thread-safe: runs of one sampler wait for each other.

    Args:
        bundle: a model folder, the name of a bundled model, or a loaded `Bundle`.
        device: "auto" (which is "cpu"), "cpu", "cuda" or "cuda:N".
        backend: "auto", "openvino", "onnxruntime", "tensorrt" or "torch"; "auto" is OpenVINO, and ONNX Runtime on CUDA.
        precision: "auto", "f32", "tf32", "bf16", "f16", or "int8", for which the bundle needs ranges: of the denoiser.
            Encoder and lift, which run once and place pixels, always compute in f32.
        threads: of the runtime; 0 leaves it to the runtime.
        grid: what to fill, if not the model's own grid; its shape in multiples of the model's stride.
        memory: bytes that the process may take, by default what the machine has free. Where the whole volume does not
            fit, it is denoised in tiles.
        halo: how far tiles reach over their part, in voxels; by default the network's receptive radius, with which they
            give what the whole volume gives, to rounding. Less is faster and differs at the seams.
        provider: ONNX Runtime's execution provider, "cpu", "cuda" or "tensorrt"; "" is the device's own. Of torch what
            it runs, "torchscript" or "aoti"; "" is a package where `x2ct export` made one, and else TorchScript.
        provider_options: handed to ONNX Runtime's provider as they are.
        artefacts: a folder with what torch or TensorRT runs; by default this machine's cache.
        trust: run what is in that folder also where another machine made it: it is code, and does what its maker wants.

    Raises:
        InputError: the bundle or an argument is wrong.
        MissingRuntimeError: what was asked for can't be had here; nothing falls back silently.
        MemoryLimitError: the networks don't fit.
    """

    def __init__(
        self,
        bundle: str | PathLike[str] | Bundle = "chest",
        *,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        grid: Grid | None = None,
        memory: int | None = None,
        halo: int | None = None,
        provider: str = "",
        provider_options: Mapping[str, str] | None = None,
        artefacts: str | PathLike[str] = "",
        trust: bool = False,
    ) -> None:
        if halo is not None and halo < 0:
            raise InputError.of("--halo", "value", found=halo, expected="0 or more voxels")
        if threads < 0:
            raise InputError.of("--threads", "value", found=threads, expected="0 (the runtime decides) or more")
        self._lock = threading.Lock()
        self._threads = threads
        self._asked: dict[str, Any] = {"device": device, "backend": backend, "precision": precision, "threads": threads}
        self.choice = choose(device, backend, precision, provider, provider_options, str(artefacts), trust)
        started = time.perf_counter()
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self._load_s = time.perf_counter() - started
        self.grid = grid or self.bundle.grid
        self._preparation = Preparation(self.bundle, self.grid, self.choice, threads, Budget(memory, halo))
        self._asked |= {"memory": memory, "halo": halo}
        if self.choice.provider or self.choice.provider_options:
            self._asked |= {"provider": provider, "provider_options": dict(self.choice.provider_options)}
        if self.choice.artefacts:
            self._asked |= {"artefacts": self.choice.artefacts, "trust": trust}

    def run(
        self,
        *,
        ap: XRay | None = None,
        pa: XRay | None = None,
        lateral: XRay | None = None,
        geometry: Geometry | None = None,
        seed: int = 0,
        steps: int | None = None,
        solver: str | None = None,
        schedule: str | Sequence[float] | None = None,
        mean: bool = False,
        churn: float = 0.0,
        samples: int = 1,
        each: Each | None = None,
        progress: Progress | None = None,
        preview: Preview | None = None,
        preview_every: int = 1,
        cancel: CancelToken | None = None,
        consistency: str | Sequence[int] = "off",
        gamma: float | None = None,
        strict: bool = False,
    ) -> Result:
        """One CT volume and its report. The same inputs and seed give the same bytes.

        Args:
            ap: the frontal X-ray, taken with the source in front of the patient.
            pa: the frontal X-ray, taken with the source behind the patient, in place of `ap`.
            lateral: the lateral X-ray. Any one view is enough.
            geometry: where the X-rays were taken from; by default the model's own views.
            seed: of the noise, 0 to 2**64 - 1. Runs with the same X-ray objects reuse what encoder and lift made of
                them.
            steps: along the noise schedule; by default the bundle's. Heun evaluates twice a step.
            solver: one of the core's solvers; by default the bundle's.
            schedule: "tuned", one of the core's schedules, or falling noise levels; by default the list that
                `x2ct tune` found for this number of steps, or the bundle's schedule where there is none.
            mean: the posterior mean, one evaluation at the highest noise level, in place of a sample.
            churn: noise that Heun adds again on the way (S_churn of Karras et al. 2022); 0 for none.
            samples: how many, of the same seed; more than one give their mean and their spread. The first is what one
                alone would be.
            each: called with each sample's number, from 0, and the sample, which is not kept otherwise.
            progress: called with (evaluations done, of how many, sigma) after each; an exception from it ends the run.
            preview: called with the same and what the network makes of the volume by then (in HU), before `progress`,
                after every `preview_every` evaluations; an exception from it ends the run.
            preview_every: 1 or more.
            cancel: its `cancel()`, from any thread, ends the run before the next evaluation.
            consistency: pull the volume towards the X-rays (see `x2ct.consistency`): "off", "last" (after the last
                evaluation), "every" (after each), or after chosen evaluations, counted from 1: "3,5,6" or [3, 5, 6].
            gamma: how strongly; by default `x2ct.consistency.GAMMA`.
            strict: whether anything that the report would warn of is an error before the first evaluation.

        Raises:
            InputError: an argument is wrong or contradicts another; a warning, if `strict`.
            MemoryLimitError: out of memory.
            Cancelled: cancelled between two evaluations.
        """
        started = time.perf_counter()
        request = Request(
            self.bundle.diffusion,
            ap=ap,
            pa=pa,
            lateral=lateral,
            geometry=geometry,
            seed=seed,
            steps=steps,
            solver=solver,
            schedule=schedule,
            mean=mean,
            churn=churn,
            samples=samples,
            consistency=consistency,
            gamma=gamma,
            strict=strict,
        )
        spent, ensemble = _Spent(), _core.Ensemble(self._threads)
        with self._lock, _memory_limit("sampling"):
            ready = self._checked(request, self._preparation.ready(request, preview=preview is not None))
            loop = ready.networks.sampler
            reprojection = Reprojection(
                request.xrays, request.geometry, ready.study.conditions, self.bundle, self.grid, self._threads
            )
            knots = (self.bundle.intensity.hu, self.bundle.intensity.x)
            for sample in range(samples):
                looping = time.perf_counter()
                hu = loop.run(
                    request.table,
                    seed=seed,
                    sample=sample,
                    progress=_of_all(progress, sample, samples),
                    cancel=cancel,
                    preview=self._shown(preview),
                    preview_every=preview_every,
                    preview_in=knots,
                    correction=ready.correction,
                    result_in=knots,
                )
                spent.add(time.perf_counter() - looping, loop.timings)
                if ready.correction is not None:
                    reprojection.add(ready.correction.uncorrected)
                if each is not None:
                    each(sample, self._volume(hu))
                if samples > 1:
                    ensemble.add(hu)
                    del hu
            last = loop.timings
        if samples > 1:
            volume, spread = map(self._volume, ensemble.finish())
        else:
            volume, spread = self._volume(hu), None
        before, after = reprojection.finish(attenuation(volume.hu))
        timings = {**spent.facts(request.evaluations), "residual_s": reprojection.seconds}
        timings["total_s"] = time.perf_counter() - started
        if self.choice.device != "cpu":  # by the device's clock, of the last sample
            timings |= {"kernel_s": last["kernel_s"], "longest_gap_s": last["gap_s"], "waits": last["waits"]}
        pulled = consistency_facts(request.pull, ready.correction, request.xrays, request.table.evaluations)
        told = {"consistency": pulled, "residual": residual_facts(before, after)}
        return Result(volume, {**self._report(request, ready, timings), **told}, spread, before)

    sample = _volume_of(run)

    def rehearse(self, **arguments: Any) -> dict[str, Any]:
        """What `run` with the same arguments would do and take, found out by its first two evaluations.

        Args:
            arguments: `run`'s, but for the callbacks.

        Returns:
            The report as far as it is known before a run, and in `estimate` the seconds of what is left (`seconds`),
            of one evaluation (`per_evaluation_s`) and `evaluations`, how many there will be.

        Raises:
            X2CTError: as `run` would.
        """
        request = Request(self.bundle.diffusion, **arguments)
        moments: list[float] = []

        def stop(done: int, total: int, sigma: float) -> None:
            moments.append(time.perf_counter())
            if done == 2:
                raise _Rehearsed

        with self._lock, _memory_limit("sampling"):
            ready = self._checked(request, self._preparation.ready(request, preview=False))
            moments.append(time.perf_counter())
            with suppress(_Rehearsed):
                ready.networks.sampler.run(request.table, seed=request.seed, progress=stop, correction=ready.correction)
        each, count = moments[-1] - moments[-2], request.evaluations
        left = {"evaluations": count, "per_evaluation_s": round(each, 6), "seconds": round(each * count, 6)}
        return {**self._report(request, ready, {}), "estimate": left}

    def _volume(self, hu: npt.NDArray[np.float32]) -> Volume:
        return Volume(hu, self.grid.index_to_mm, source=f"x2ct {self.bundle.name}", synthetic=True)

    def _shown(self, preview: Preview | None) -> _core.Preview | None:
        """A preview that wants a volume, as one that takes an array of HU."""
        if preview is None:
            return None
        return lambda done, total, sigma, hu: preview(done, total, sigma, self._volume(hu))

    def compile(self) -> None:
        """Compile the networks now; otherwise the first run does.

        Raises:
            MissingRuntimeError: the runtime can't be opened, or refuses the precision.
            MemoryLimitError: the networks don't fit.
        """
        with self._lock, _memory_limit("compiling the networks"):
            self._preparation.networks(Request(self.bundle.diffusion).volumes(preview=False))

    def _warnings(self, ready: Ready) -> list[str]:
        """What makes the result less trustworthy, by consequence."""
        mine, models = (" x ".join(f"{step:g}" for step in grid.spacing_mm) for grid in (self.grid, self.bundle.grid))
        grids = [] if mine == models else [f"voxels of {mine} mm: the model was trained on {models} mm"]
        return [*grids, *ready.study.conditions.warnings]

    def _checked(self, request: Request, ready: Ready) -> Ready:
        """Raise InputError where the request is strict and there is something to warn of."""
        if request.strict:
            refuse_warnings(self._warnings(ready))
        return ready

    def _report(self, request: Request, ready: Ready, timings: Mapping[str, float]) -> dict[str, Any]:
        grid, networks, study = self.grid, ready.networks, ready.study
        before = {
            "load_s": self._load_s,
            "compile_s": networks.seconds,
            "condition_s": 0.0 if study.reused else study.seconds,
        }
        return {
            "schema": report.SCHEMA,
            "notice": report.NOTICE,
            "versions": report.versions(),
            "device": self.choice.device,
            "backend": self.choice.backend,
            "runtime": networks.compiled.runtime_version,
            "artefacts": networks.artefacts,
            "precision": networks.precisions(),
            "asked": self._asked,
            "model": {"name": self.bundle.name, "sha256": self.bundle.checksum},
            "inputs": [
                {"view": name, "file": Path(xray.source).name, **xray.facts()} for name, xray in request.xrays.items()
            ],
            **request.facts(),
            "grid": {"shape": list(grid.shape), "spacing_mm": list(grid.spacing_mm)},
            "tiles": networks.tiles(),
            "condition_reused": study.reused,
            "timings": {key: round(value, 6) for key, value in (before | dict(timings)).items()},
            "peak_memory_bytes": report.peak_memory_bytes(),
            "assumptions": list(study.conditions.assumptions),
            "warnings": self._warnings(ready),
            "outputs": [],
        }


class _Rehearsed(Exception):
    """Ends a rehearsal."""


def _of_all(progress: Progress | None, sample: int, samples: int) -> Progress | None:
    """Progress of one sample, as progress of all."""
    if progress is None or samples == 1:
        return progress
    return lambda done, total, sigma: progress(sample * total + done, samples * total, sigma)


@contextmanager
def _memory_limit(doing: str) -> Iterator[None]:
    """A failed allocation, in Python or in the core, as the error that has its own exit code."""
    try:
        yield
    except MemoryError as error:
        raise MemoryLimitError(f"out of memory while {doing}: close other programs or use a smaller grid") from error
