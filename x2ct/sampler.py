"""The Python face of the C++ sampler: X-rays in, a CT volume and a report out.

`Sampler` compiles a bundle's three networks once, at the first run. A run brings the X-rays onto the encoder's grid
(`x2ct.conditioning`), runs encoder and lift once, compiles schedule and solver to the core's coefficient table, and
hands both to the core's loop, which evaluates the denoiser once per row. What comes back is in the network's unit; the
bundle's intensity map turns it to HU.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from x2ct import _core, report
from x2ct._core import CancelToken
from x2ct.bundle import Bundle
from x2ct.conditioning import Conditions, conditions
from x2ct.consistency import Pull, correction
from x2ct.consistency import facts as consistency_facts
from x2ct.errors import InputError, MemoryLimitError
from x2ct.geometry import Geometry
from x2ct.grid import Grid
from x2ct.networks import Budget, Networks
from x2ct.radiograph import XRay
from x2ct.runtimes import choose
from x2ct.schedules import plan
from x2ct.volume import Volume

Progress = Callable[[int, int, float], None]
Preview = Callable[[int, int, float, Volume], None]
Each = Callable[[int, Volume], None]
MAX_SAMPLES = 1000


@dataclass(frozen=True)
class Result:
    """What a run gives.

    Attributes:
        volume: the synthesised CT, in HU, RAS+, its origin at the grid's centre; of several samples their mean.
        spread: the voxel-wise standard deviation of several samples, in HU; None of one.
        report: the written record (see `x2ct.report`), ready for JSON.
    """

    volume: Volume
    report: dict[str, Any]
    spread: Volume | None = None


@dataclass(frozen=True)
class _Study:
    """The X-rays of the last run and what encoder and lift made of them, to be used again for other seeds."""

    given: tuple[tuple[str, object], ...]
    conditions: Conditions
    seconds: float
    reused: bool = False

    def is_of(self, given: tuple[tuple[str, object], ...]) -> bool:
        """Whether these are the very same objects under the same names."""
        mine, theirs = ([(name, id(item)) for name, item in items] for items in (self.given, given))
        return mine == theirs


class Sampler:
    """Turns X-rays into CT volumes with one model on one device. Thread-safe: runs of one sampler wait for each other.

    Args:
        bundle: a model folder, the name of a bundled model, or a loaded `Bundle`.
        device: "auto" (which is "cpu"), "cpu", "cuda" or "cuda:N".
        backend: "auto", "openvino", "onnxruntime", "tensorrt" or "torch"; "auto" is OpenVINO, and ONNX Runtime on CUDA.
        precision: "auto", "f32", "tf32", "bf16" or "f16": of the denoiser. Encoder and lift, which run once and place
            pixels, always compute in f32.
        threads: of the runtime; 0 leaves it to the runtime.
        grid: what to fill, if not the model's own grid; its shape in multiples of the model's stride.
        memory: bytes that the process may take, by default what the machine has free. Where the whole volume does not
            fit, it is denoised in tiles.
        halo: how far tiles reach over their part, in voxels; by default the network's receptive radius, with which they
            give what the whole volume gives, to rounding. Less is faster and differs at the seams.
        provider: ONNX Runtime's execution provider, "cpu", "cuda" or "tensorrt"; "" is the device's own. Of torch what
            it runs, "torchscript" or "aoti"; "" is a package where `x2ct export` made one, and else TorchScript.
        provider_options: handed to ONNX Runtime's provider as they are.
        artefacts: a folder with what torch runs; by default this machine's cache.
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
        self._study: _Study | None = None
        self._threads = threads
        self._asked: dict[str, Any] = {"device": device, "backend": backend, "precision": precision, "threads": threads}
        self.choice = choose(device, backend, precision, provider, provider_options, str(artefacts), trust)
        started = time.perf_counter()
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self._load_s = time.perf_counter() - started
        self.grid = grid or self.bundle.grid
        self._budget = Budget(memory, halo)
        self._asked |= {"memory": memory, "halo": halo}
        if self.choice.provider or self.choice.provider_options:
            self._asked |= {"provider": provider, "provider_options": dict(self.choice.provider_options)}
        if self.choice.artefacts:
            self._asked |= {"artefacts": self.choice.artefacts, "trust": trust}
        self._compiled: tuple[int, Networks] | None = None

    def sample(
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
    ) -> Volume:
        """One CT volume; see `run`, which also returns the report."""
        return self.run(
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
            each=each,
            progress=progress,
            preview=preview,
            preview_every=preview_every,
            cancel=cancel,
            consistency=consistency,
            gamma=gamma,
        ).volume

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

        Raises:
            InputError: an argument is wrong or contradicts another.
            MemoryLimitError: out of memory.
            Cancelled: cancelled between two evaluations.
        """
        started = time.perf_counter()
        _check_seed(seed)
        pull = Pull.of(consistency, gamma)
        if not 1 <= samples <= MAX_SAMPLES:
            raise InputError.of("--samples", "value", found=samples, expected=f"1 to {MAX_SAMPLES}")
        planned = plan(self.bundle.diffusion, steps=steps, solver=solver, schedule=schedule, mean=mean, churn=churn)
        table = planned.table
        pull.after(table.evaluations)
        xrays = given_xrays({"ap": ap, "pa": pa, "lateral": lateral})
        with self._lock, _memory_limit("sampling"):
            networks = self._networks(_volumes(table, samples, preview, pull))
            study = self._study_of(networks, xrays, geometry)
            applied = correction(
                pull, xrays, geometry, study.conditions, self.bundle, self.grid, table.evaluations, self._threads
            )
            ensemble, loop_s, network_s, consistency_s = _core.Ensemble(self._threads), 0.0, 0.0, 0.0
            for sample in range(samples):
                looping = time.perf_counter()
                x = networks.sampler.run(
                    table,
                    seed=seed,
                    sample=sample,
                    progress=_of_all(progress, sample, samples),
                    cancel=cancel,
                    preview=self._in_hu(preview),
                    preview_every=preview_every,
                    correction=applied,
                )
                loop_s += time.perf_counter() - looping
                spent = networks.sampler.timings
                network_s += float(spent["network_s"])
                consistency_s += float(spent["correction_s"])
                hu = self.bundle.intensity.to_hu(x)
                del x
                if each is not None:
                    each(sample, self._volume(hu))
                if samples > 1:
                    ensemble.add(hu)
                    del hu
        if samples > 1:
            volume, spread = map(self._volume, ensemble.finish())
        else:
            volume, spread = self._volume(hu), None
        timings = {
            "load_s": self._load_s,
            "compile_s": networks.seconds,
            "condition_s": 0.0 if study.reused else study.seconds,
            "loop_s": loop_s,
            "consistency_s": consistency_s,
            "per_evaluation_s": network_s / (samples * table.evaluations),
            "outside_network_share": max(0.0, 1.0 - network_s / loop_s),
            "total_s": time.perf_counter() - started,
        }
        if self.choice.device != "cpu":  # by the device's clock, of the last sample
            timings |= {"kernel_s": spent["kernel_s"], "longest_gap_s": spent["gap_s"], "waits": spent["waits"]}
        pulled = consistency_facts(pull, applied, xrays, table.evaluations)
        told = {"seed": seed, "samples": samples, **planned.facts(), "consistency": pulled}
        return Result(volume, self._report(networks, xrays, study, told, timings), spread)

    def rehearse(self, *, samples: int = 1, **arguments: Any) -> dict[str, Any]:
        """What `run` with the same arguments would do and take, found out by its first two evaluations.

        Args:
            samples: as for `run`.
            arguments: `run`'s others, but for the callbacks.

        Returns:
            The report as far as it is known before a run, and in `estimate` the seconds of what is left (`seconds`),
            of one evaluation (`per_evaluation_s`) and `evaluations`, how many there will be.

        Raises:
            X2CTError: as `run` would.
        """
        moments: list[float] = []
        count = 0

        def stop(done: int, total: int, sigma: float) -> None:
            nonlocal count
            count = total
            moments.append(time.perf_counter())
            if len(moments) > 1:
                raise _Rehearsed

        began = time.perf_counter()
        with suppress(_Rehearsed):
            self.run(**arguments, samples=samples, progress=stop)
        with self._lock:
            assert self._compiled is not None and self._study is not None  # there has been an evaluation
            networks, study = self._compiled[1], self._study
        each = moments[1] - moments[0] if len(moments) > 1 else moments[0] - began
        left = {"evaluations": count, "per_evaluation_s": round(each, 6), "seconds": round(each * count, 6)}
        given = {key: arguments[key] for key in ("steps", "solver", "schedule", "mean") if key in arguments}
        told = {"seed": arguments.get("seed", 0), "samples": samples, **plan(self.bundle.diffusion, **given).facts()}
        timings = {"load_s": self._load_s, "compile_s": networks.seconds, "condition_s": study.seconds}
        return {**self._report(networks, given_xrays(arguments), study, told, timings), "estimate": left}

    def _volume(self, hu: npt.NDArray[np.float32]) -> Volume:
        return Volume(hu, self.grid.index_to_mm, source=f"x2ct {self.bundle.name}", synthetic=True)

    def _in_hu(self, preview: Preview | None) -> _core.Preview | None:
        """A preview that wants HU, as one that takes what the core gives."""
        if preview is None:
            return None
        return lambda done, total, sigma, x: preview(done, total, sigma, self._volume(self.bundle.intensity.to_hu(x)))

    def compile(self) -> None:
        """Compile the networks now; otherwise the first run does.

        Raises:
            MissingRuntimeError: the runtime can't be opened, or refuses the precision.
            MemoryLimitError: the networks don't fit.
        """
        with self._lock, _memory_limit("compiling the networks"):
            self._networks(_volumes(plan(self.bundle.diffusion).table, 1, None, Pull()))

    def _networks(self, volumes: int) -> Networks:
        """The compiled networks; compiled anew where a run keeps another number of volumes, and the plan may change."""
        if self._compiled is None or (self._compiled[1].planned and self._compiled[0] != volumes):
            self._compiled = self._study = None
            made = Networks(self.bundle, self.grid, self.choice, self._threads, self._budget, volumes)
            self._compiled = volumes, made
        return self._compiled[1]

    def _study_of(self, networks: Networks, xrays: Mapping[str, XRay], geometry: Geometry | None) -> _Study:
        """Encoder and lift on these X-rays, unless they were the last ones already."""
        given = (*xrays.items(), ("geometry", geometry))
        if self._study is not None and self._study.is_of(given):
            return replace(self._study, reused=True)
        started = time.perf_counter()
        self._study = None  # what follows may fail half-way
        ready = conditions(self.bundle, xrays, geometry)
        networks.condition_on(ready)
        self._study = _Study(given, ready, time.perf_counter() - started)
        return self._study

    def _doubts(self) -> list[str]:
        mine, models = (" x ".join(f"{step:g}" for step in grid.spacing_mm) for grid in (self.grid, self.bundle.grid))
        return [] if mine == models else [f"voxels of {mine} mm: the model was trained on {models} mm"]

    def _report(
        self,
        networks: Networks,
        xrays: Mapping[str, XRay],
        study: _Study,
        facts: Mapping[str, Any],
        timings: Mapping[str, float],
    ) -> dict[str, Any]:
        grid = self.grid
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
            "inputs": [{"view": name, "file": Path(xray.source).name, **xray.facts()} for name, xray in xrays.items()],
            **facts,
            "grid": {"shape": list(grid.shape), "spacing_mm": list(grid.spacing_mm)},
            "tiles": networks.tiles(),
            "condition_reused": study.reused,
            "timings": {key: round(value, 6) for key, value in timings.items()},
            "peak_memory_bytes": report.peak_memory_bytes(),
            "assumptions": list(study.conditions.assumptions),
            "warnings": [*study.conditions.warnings, *self._doubts(), report.NOTICE],
            "outputs": [],
        }


class _Rehearsed(Exception):
    """Ends a rehearsal."""


def given_xrays(arguments: Mapping[str, Any]) -> dict[str, XRay]:
    """The X-rays among the arguments of a run, by view."""
    return {name: arguments[name] for name in ("ap", "pa", "lateral") if arguments.get(name) is not None}


def _volumes(table: _core.Table, samples: int, preview: object, pull: Pull) -> int:
    """How many float32 volumes a run holds at once."""
    return _core.volumes_kept(table, many=samples > 1, preview=preview is not None, consistency=pull.active)


def _of_all(progress: Progress | None, sample: int, samples: int) -> Progress | None:
    """Progress of one sample, as progress of all."""
    if progress is None or samples == 1:
        return progress
    return lambda done, total, sigma: progress(sample * total + done, samples * total, sigma)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**64:
        raise InputError.of("--seed", "value", found=seed, expected="0 to 2^64 - 1")


@contextmanager
def _memory_limit(doing: str) -> Iterator[None]:
    """A failed allocation, in Python or in the core, as the error that has its own exit code."""
    try:
        yield
    except MemoryError as error:
        raise MemoryLimitError(f"out of memory while {doing}: close other programs or use a smaller grid") from error
