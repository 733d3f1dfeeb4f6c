"""The Python face of the core's pipeline: X-rays in, a CT volume and a report out.

`Sampler` finds the runtime, brings the X-rays onto the model's detector (`x2ct.engine.conditioning`) and hands them to
`_core.Pipeline` (csrc/core/pipeline.cpp), which does everything else: it plans memory, compiles the three networks,
runs encoder and lift, compiles schedule and solver to a table, samples, applies data consistency, and gives HU.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct._core import CancelToken
from x2ct.bundle import Bundle
from x2ct.engine.conditioning import Study, refuse_warnings, study_of
from x2ct.engine.plausibility import Judgement, judge_seen, seen_by
from x2ct.engine.residual import Rays, Reprojection, Residual
from x2ct.engine.residual import facts as residual_facts
from x2ct.engine.residual import warnings as residual_warnings
from x2ct.errors import InputError, MemoryLimitError, MissingRuntimeError
from x2ct.geometry import Geometry, attenuation
from x2ct.geometry.grid import Grid
from x2ct.io import report
from x2ct.io.ct.volume import Volume
from x2ct.io.xray.radiograph import XRay
from x2ct.runtimes.cache import engines
from x2ct.runtimes.discovery import choose

Progress = Callable[[int, int, float], None]
Preview = Callable[[int, int, float, Volume], None]
Each = Callable[[int, Volume], None]


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The sampling options. The core reads them by name and checks them when it compiles networks and begins a run.

    Attributes:
        seed: random seed of the noise, 0 to 2**64 - 1.
        sample: number of the first sample among those of this seed.
        steps: along the noise schedule; None for the bundle's. Heun evaluates twice a step.
        solver: one of the core's solvers; None for the bundle's.
        schedule: "tuned", one of the core's schedules, or falling noise levels; None for the list that `x2ct tune`
            found for this number of steps, or the bundle's schedule where there is none.
        mean: the posterior mean at the highest noise level, in place of a sample: one evaluation; or, without data
            consistency and for a model that knows mirror images (`Diffusion.mirror`), the mean of two, of the patient
            and of the patient's mirror image. A lateral view of cone beams has none that the model knows.
        churn: noise that Heun adds again on the way (S_churn of Karras et al. 2022); 0 for none.
        samples: how many, of the same seed; more than one give their mean and their spread. The first is what one alone
            would be.
        consistency: when data consistency is applied, which moves the denoised volume so that it projects onto the
            X-rays (csrc/include/x2ct/consistency.h has the equations): "off", "last" (after the last evaluation),
            "every" (after each), or after chosen evaluations, counted from 1: "3,5,6" or [3, 5, 6].
        gamma: its strength, 0 to 1e6; None for 10. At 1, a ray that crosses the whole grid alone keeps half of its
            residual.
        raw: give volumes in the network's unit x in place of HU, without residuals: for tools that measure solvers.
    """

    seed: int = 0
    sample: int = 0
    steps: int | None = None
    solver: str | None = None
    schedule: str | Sequence[float] | None = None
    mean: bool = False
    churn: float = 0.0
    samples: int = 1
    consistency: str | Sequence[int] = "off"
    gamma: float | None = None
    raw: bool = False


@dataclass(frozen=True)
class Result:
    """The result of a run. `spread` is None for one sample; for its scale see `x2ct.tuning.deviation`."""

    volume: Volume  # the synthesised CT, in HU, RAS+, its origin at the grid's centre; of several samples their mean
    report: dict[str, Any]  # the written record (see `x2ct.io.report`), ready for JSON
    spread: Volume | None = None  # the voxel-wise standard deviation in HU, times the report's "deviation_scale"
    residuals: tuple[Residual, ...] = ()  # each X-ray less the projection of the CT before any data-consistency step


class _Patient(NamedTuple):
    """A patient's X-rays and how to take them, see `Sampler.set_xrays`."""

    xrays: Mapping[str, XRay]  # by view name
    geometry: Geometry | None
    align: bool
    force: bool


@dataclass
class _Encoded:
    """The X-rays, by view name, that encoder and lift have run on, and what is known of them."""

    xrays: Mapping[str, XRay]
    study: Study
    judgement: Judgement
    seconds: float  # that preparing them and encoder and lift took
    reported: bool = False  # whether a run has reported these seconds
    rays: Rays | None = None  # that CTs are judged along, once a run has asked for them


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
        compiled: a folder with the compiled engines that torch or TensorRT runs; by default this machine's cache.
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
        compiled: str | PathLike[str] = "",
        trust: bool = False,
    ) -> None:
        if halo is not None and halo < 0:
            raise InputError.of("--halo", "value", found=halo, expected="0 or more voxels")
        if threads < 0:
            raise InputError.of("--threads", "value", found=threads, expected="0 (the runtime decides) or more")
        self._lock = threading.Lock()
        self._threads, self._memory, self._halo = threads, memory, halo
        self._requested: dict[str, Any] = {"device": device, "backend": backend, "precision": precision}
        self._requested |= {"threads": threads, "memory": memory, "halo": halo}
        self.choice = choose(device, backend, precision, provider, provider_options, str(compiled), trust)
        started = time.perf_counter()
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self._load_s = time.perf_counter() - started
        self.grid = grid or self.bundle.grid
        self._pipeline: _core.Pipeline | None = None
        self._engines, self._compile_s = "", 0.0
        self._encoded: _Encoded | None = None
        if self.choice.provider or self.choice.provider_options:
            self._requested |= {"provider": provider, "provider_options": dict(self.choice.provider_options)}
        if self.choice.compiled:
            self._requested |= {"compiled": self.choice.compiled, "trust": trust}

    def compile(self) -> None:
        """Compile the networks now; otherwise the first run does.

        Raises MissingRuntimeError: the runtime can't be opened, or refuses the precision; MemoryLimitError.
        """
        with self._lock, _memory_limit("compiling the networks"):
            self._compiled(SampleOptions())

    def set_xrays(
        self,
        *,
        ap: XRay | None = None,
        pa: XRay | None = None,
        lateral: XRay | None = None,
        geometry: Geometry | None = None,
        align: bool = False,
        force: bool = False,
    ) -> None:
        """Run encoder and lift on a patient's X-rays, for all runs that follow until others are set.

        Args:
            ap: the frontal X-ray, taken with the source in front of the patient.
            pa: the frontal X-ray, taken with the source behind the patient, in place of `ap`.
            lateral: the lateral X-ray. Any one view is enough.
            geometry: where the X-rays were taken from; by default the model's own views.
            align: find from the images how the two views lie to each other, see `x2ct.engine.align`.
            force: take also X-rays that `x2ct.engine.plausibility` refuses.

        Raises:
            InputError: no X-ray, two frontal ones, or one that the geometry contradicts or that is refused.
            X2CTError: as `compile`.
        """
        patient = _Patient(_named(ap, pa, lateral), geometry, align, force)
        with self._lock, _memory_limit("encoding the X-rays"):
            self._encode(patient, SampleOptions())

    def run(
        self,
        options: SampleOptions | None = None,
        *,
        ap: XRay | None = None,
        pa: XRay | None = None,
        lateral: XRay | None = None,
        geometry: Geometry | None = None,
        strict: bool = False,
        align: bool = False,
        each: Each | None = None,
        progress: Progress | None = None,
        preview: Preview | None = None,
        preview_every: int = 1,
        cancel: CancelToken | None = None,
        force: bool = False,
        residual: bool = True,
        **settings: Any,
    ) -> Result:
        """Return one CT volume and its report. The same inputs and options give the same bytes.

        Args:
            options: how to sample.
            ap: a frontal X-ray to set before the run, see `set_xrays`. Without any, those that are set are used.
            pa: a frontal X-ray that was taken from behind, in place of `ap`.
            lateral: a lateral X-ray to set before the run.
            geometry: where these were taken from.
            strict: whether anything that the report would warn of is an error: before the first evaluation, but for
                what the X-rays show and the CT lacks (`x2ct.engine.residual`).
            align: as of `set_xrays`, for the X-rays of this run.
            each: called with each sample's number, from 0, and the sample, which is not kept otherwise.
            progress: called with (evaluations done, of how many, sigma) after each; an exception from it ends the run.
            preview: called with the same and the denoised volume of that evaluation, before `progress`, after every
                `preview_every` evaluations; an exception from it ends the run.
            preview_every: 1 or more.
            cancel: its `cancel()`, from any thread, ends the run before the next evaluation.
            force: as of `set_xrays`, for the X-rays of this run.
            residual: compare the CT with its X-rays (`x2ct.engine.residual`), for the report and its warnings. The host
                projects the CT for it, which takes many times what a GPU is to take for the CT.
            settings: fields of `SampleOptions` by name, in place of those of `options`: `run(ap=xray, seed=3)`.

        Raises:
            InputError: an argument is wrong or contradicts another; a warning, if `strict`.
            MemoryLimitError: out of memory.
            Cancelled: cancelled between two evaluations.
        """
        started = time.perf_counter()
        options = replace(options or SampleOptions(), **settings)
        with self._lock, _memory_limit("sampling"):
            patient = _Patient(_named(ap, pa, lateral), geometry, align, force)
            encoded, pipeline = self._ready(patient, options, strict)
            reprojection = self._reprojection(encoded, pipeline) if residual and not options.raw else None
            hu, deviation, plan = pipeline.run(
                options,
                progress=progress,
                preview=None
                if preview is None
                else lambda done, total, sigma, hu: preview(done, total, sigma, self._volume(hu)),
                preview_every=preview_every,
                each=None if each is None else lambda sample, hu: each(sample, self._volume(hu)),
                uncorrected=None if reprojection is None else reprojection.add,
                cancel=cancel,
            )
            volume = self._volume(hu)
            spread = None if deviation is None else self._volume(deviation)
            times = pipeline.times
            facts = self._report(options, plan, encoded, pipeline)
            facts["consistency"] = _consistency_facts(options, pipeline.consistency, encoded.xrays)
        before, after = ((), None) if reprojection is None else reprojection.finish(attenuation(volume.hu))
        facts["residual"] = residual_facts(before, after)
        if self.bundle.xray_statistics:  # a model that nobody has measured has no limits
            missing = residual_warnings(before)
            if strict:
                refuse_warnings(missing)
            first = len(encoded.judgement.warnings)
            facts["warnings"][first:first] = missing
        facts["timings"] |= _rounded(
            {
                "loop_s": times["loop_s"],
                "consistency_s": times["consistency_s"],
                "per_evaluation_s": times["network_s"] / plan.evaluations,
                "outside_network_share": max(0.0, 1.0 - times["network_s"] / times["loop_s"]),
                "residual_s": 0.0 if reprojection is None else reprojection.seconds,
                "total_s": time.perf_counter() - started,
            }
        )
        if self.choice.device != "cpu":  # by the device's clock, of the last sample
            longest = {"kernel_s": times["kernel_s"], "longest_gap_s": times["gap_s"], "waits": times["waits"]}
            facts["timings"] |= _rounded(longest)
        return Result(volume, facts, spread, before)

    def sample(self, *, strict: bool = False, **arguments: Any) -> Volume:
        """Return one CT volume; takes what `run` takes. Without a report its residual is left out, unless `strict`."""
        return self.run(strict=strict, **{"residual": strict} | arguments).volume

    def dry_run(
        self,
        options: SampleOptions | None = None,
        *,
        ap: XRay | None = None,
        pa: XRay | None = None,
        lateral: XRay | None = None,
        geometry: Geometry | None = None,
        strict: bool = False,
        align: bool = False,
        force: bool = False,
        **settings: Any,
    ) -> dict[str, Any]:
        """Return what `run` with the same arguments would do and take, by its first two evaluations.

        That is the report as far as it is known before a run, and in `estimate` the seconds of what is left
        (`seconds`), of one evaluation (`per_evaluation_s`) and `evaluations`, how many there will be. Raises X2CTError
        as `run` would.
        """
        options = replace(options or SampleOptions(), **settings)
        with self._lock, _memory_limit("sampling"):
            patient = _Patient(_named(ap, pa, lateral), geometry, align, force)
            encoded, pipeline = self._ready(patient, options, strict)
            estimate, plan = pipeline.dry_run(options)
            facts = self._report(options, plan, encoded, pipeline)
        each, count = estimate["per_evaluation_s"], estimate["evaluations"]
        remaining = {"evaluations": count, "per_evaluation_s": round(each, 6), "seconds": round(each * count, 6)}
        return {**facts, "estimate": remaining}

    def _ready(self, patient: _Patient, options: SampleOptions, strict: bool) -> tuple[_Encoded, _core.Pipeline]:
        """Return the X-rays of a run, encoded, and networks; raise InputError where `strict` and there are warnings."""
        if patient.xrays or patient.geometry is not None or self._encoded is None:
            self._encode(patient, options, strict)
        elif strict:
            refuse_warnings(self._warnings(self._encoded.study, self._encoded.judgement))
        assert self._encoded is not None
        return self._encoded, self._compiled(options)

    def _encode(self, patient: _Patient, options: SampleOptions, strict: bool = False) -> None:
        """Judge the X-rays and run encoder and lift on them, with networks for runs like `options`."""
        started = time.perf_counter()
        study = study_of(self.bundle, patient.xrays, patient.geometry, align=patient.align)
        judgement = judge_seen(self.bundle, seen_by(self.bundle, study))
        if not patient.force:
            judgement.check()
        if strict:
            refuse_warnings(self._warnings(study, judgement))
        prepared_s = time.perf_counter() - started
        pipeline = self._compiled(options)
        started = time.perf_counter()
        self._encoded = None  # what follows may fail half-way
        pipeline.set_xrays(study.images)
        self._encoded = _Encoded(patient.xrays, study, judgement, prepared_s + time.perf_counter() - started)

    def _compiled(self, options: SampleOptions) -> _core.Pipeline:
        """Return the pipeline, which the first call makes, its networks compiled for runs like `options`."""
        if self._pipeline is None:
            started, choice = time.perf_counter(), self.choice
            try:
                self._engines, files = engines.find(self.bundle, self.grid, choice)
            except MissingRuntimeError:
                _core.sampling_plan(self.bundle.diffusion, options)  # wrong options come first
                raise
            self._pipeline = _core.Pipeline(
                str(self.bundle.path),
                self.bundle.checksum,
                backend=choice.backend,
                runtime_dir=choice.runtime_dir,
                device=choice.device,
                precision=choice.precision,
                threads=self._threads,
                shape=self.grid.shape,
                voxel_mm=self.grid.spacing_mm,
                memory=self._memory or 0,
                halo=-1 if self._halo is None else self._halo,
                provider=engines.provider_of(choice),
                provider_options=choice.provider_options,
                engines=files,
                first=options,
            )
            self._compile_s = time.perf_counter() - started
        return self._pipeline

    def _reprojection(self, encoded: _Encoded, pipeline: _core.Pipeline) -> Reprojection:
        """Return what compares the X-rays with the CT of one run."""
        started = time.perf_counter()
        encoded.rays = encoded.rays or Rays(pipeline.views, self.bundle, self.grid, self._threads)
        return Reprojection(encoded.rays, time.perf_counter() - started)

    def _volume(self, hu: npt.NDArray[np.float32]) -> Volume:
        return Volume(hu, self.grid.index_to_mm, source=f"x2ct {self.bundle.name}", synthetic=True)

    def _warnings(self, study: Study, judgement: Judgement) -> list[str]:
        """Return the warnings of the report, the worst first."""
        own, models = (" x ".join(f"{step:g}" for step in grid.spacing_mm) for grid in (self.grid, self.bundle.grid))
        grids = [] if own == models else [f"voxels of {own} mm: the model was trained on {models} mm"]
        return [*judgement.warnings, *grids, *study.warnings]

    def _report(
        self, options: SampleOptions, plan: _core.SamplingPlan, encoded: _Encoded, pipeline: _core.Pipeline
    ) -> dict[str, Any]:
        """Return the report of a run, with the first part of its `timings`."""
        times, grid = pipeline.times, self.grid
        self._compile_s = times["compile_s"] or self._compile_s
        reused = encoded.reported and not times["condition_s"]
        condition_s = times["condition_s"] + (0.0 if encoded.reported else encoded.seconds)
        encoded.reported = True
        return {
            "schema": report.SCHEMA,
            "notice": report.NOTICE,
            "versions": report.versions(),
            "device": self.choice.device,
            "backend": self.choice.backend,
            "runtime": pipeline.runtime_version,
            "engines": self._engines,
            "precision": pipeline.precisions,
            "asked": self._requested,
            "model": {"name": self.bundle.name, "sha256": self.bundle.checksum},
            "inputs": [
                {"view": name, "file": Path(xray.source).name, **xray.facts()} for name, xray in encoded.xrays.items()
            ],
            "seed": int(options.seed),
            "samples": options.samples,
            **plan_facts(plan, options),
            "grid": {"shape": list(grid.shape), "spacing_mm": list(grid.spacing_mm)},
            "tiles": self._tiles(pipeline.tiles),
            "condition_reused": reused,
            "timings": _rounded({"load_s": self._load_s, "compile_s": self._compile_s, "condition_s": condition_s}),
            "peak_memory_bytes": report.peak_memory_bytes(),
            "plausibility": encoded.judgement.facts(),
            "assumptions": list(encoded.study.assumptions),
            "warnings": self._warnings(encoded.study, encoded.judgement),
            "outputs": [],
        }

    def _tiles(self, plan: _core.TilePlan) -> dict[str, Any] | None:
        """Return the report's entry on tiles; None where the whole volume is evaluated at once."""
        if plan.whole:
            return None
        return {
            "shape": list(plan.tile),
            "halo": plan.halo,
            "receptive_radius": self.bundle.networks.denoiser.receptive_radius,
            "count": list(plan.count),
            "lift": "once" if plan.keep else "each tile",
            "planned_bytes": plan.bytes,
        }


def plan_facts(plan: _core.SamplingPlan, options: SampleOptions) -> dict[str, Any]:
    """Return the report's entries on noise levels and solver."""
    return {
        "mean": options.mean,
        "solver": plan.table.solver,
        "schedule": plan.schedule,
        "steps": len(plan.sigmas),
        "evaluations": plan.evaluations // options.samples,
        "mirrored": plan.mirrored,
        "sigmas": plan.sigmas,
        "churn": options.churn,
        "deviation_scale": plan.deviation_scale,
    }


def _consistency_facts(
    options: SampleOptions, applied: _core.ConsistencyInfo, xrays: Mapping[str, XRay]
) -> dict[str, Any]:
    """Return the report's entry on data consistency.

    For each view: `rays`, the share that counted of the rays that meet body and grid; `rms_before` and `rms_after` of
    the last application, in line integrals; and `fit`, a and b of y = a A(D) + b, where the X-ray was not calibrated.
    """
    if not applied["views"]:
        return {"when": "off"}
    views = []
    for view in applied["views"]:
        entry: dict[str, Any] = {key: round(view[key], 6) for key in ("rays", "rms_before", "rms_after")}
        if not xrays[view["view"]].calibrated:
            entry["fit"] = {"scale": round(view["scale"], 6), "offset": round(view["offset"], 6)}
        views.append({"view": view["view"], **entry})
    return {
        "when": when if isinstance(when := options.consistency, str) else ",".join(map(str, when)),
        "evaluations": applied["evaluations"],
        "gamma": applied["gamma"],
        "method": "closed form" if applied["closed"] else "conjugate gradients",
        "rounds": applied["rounds"],
        "views": views,
    }


def _named(ap: XRay | None, pa: XRay | None, lateral: XRay | None) -> dict[str, XRay]:
    """The X-rays that there are, by view."""
    views = {"ap": ap, "pa": pa, "lateral": lateral}
    return {name: xray for name, xray in views.items() if xray is not None}


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {key: round(value, 6) for key, value in seconds.items()}


@contextmanager
def _memory_limit(doing: str) -> Iterator[None]:
    """A failed allocation, in Python or in the core, as the error that has its own exit code."""
    try:
        yield
    except MemoryError as error:
        raise MemoryLimitError(f"out of memory while {doing}: close other programs or use a smaller grid") from error
