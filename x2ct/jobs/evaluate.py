"""All of `x2ct evaluate`: test CTs and whoever is judged in, a folder with tables and a page out.

Case by case: X-rays are projected from the CT, predictions are had from a bundle or read from files, everything is
scored, and the report is written anew, each file whole, so that a run that is cut short leaves the cases it had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from x2ct.data import ShardSet
from x2ct.data.prepare import PrepareOptions, find_cts
from x2ct.engine.sampler import Sampler
from x2ct.errors import InputError, MissingRuntimeError
from x2ct.evaluation import anatomy, card, conditions, metrics, page, predictions, probe, protocol, table
from x2ct.evaluation.baselines import Baselines
from x2ct.evaluation.case import make_case
from x2ct.evaluation.metrics import FloatArray
from x2ct.evaluation.model import Model
from x2ct.files import atomic
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid
from x2ct.io import report as reports
from x2ct.jobs.options import EvaluateJob as EvaluateJob
from x2ct.render import drr

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]

FILES = ("evaluation.json", "evaluation.csv", "card.md", "evaluation.md")
PAGE = "index.html"  # beside them, with the extra `report`
PROBE_SEEDS = 2


class Evaluation(NamedTuple):
    """The report, and the files that hold it."""

    table: dict[str, Any]  # what is undefined is NaN
    plain: dict[str, Any]  # as JSON has it: what is undefined or infinite is null
    files: tuple[Path, ...]


def evaluate_files(
    job: EvaluateJob, *, stage: Say = lambda _: None, progress: Progress = lambda *_: None
) -> Evaluation:
    """Evaluate, and write the report.

    `stage` is called with what is being done now, `progress` with (cases done, of how many, what is being worked on).
    A CT or prediction that can't be used while others can is one of the table's `failures`. Raises InputError: an input
    can't be used, or none of the cases can; MissingRuntimeError: the page needs the extra `report`.
    """
    check(job)
    sources = find_cts(job.data)
    for name in job.cases:
        if name not in sources:
            raise InputError.of(job.data, "case", found=name, expected=f"one of {', '.join(sources)}")
    sources = {name: path for name, path in sources.items() if not job.cases or name in job.cases}
    stage("loading")
    run = _Run(job, sources, progress)
    stage("evaluating")
    for index, (name, path) in enumerate(sources.items()):

        def now(what: str, index: int = index, name: str = name) -> None:
            progress(index, len(sources), f"{name}: {what}")

        try:
            run.judge(path, now)
        except _NotATestPatient:
            raise
        except InputError as error:
            run.failures.append({"case": name, "reason": " ".join(str(error).split())})
        if run.results:
            evaluation = run.write()
    if not run.results:
        found = f"none usable, first: {run.failures[0]['reason']}"
        raise InputError.of(job.data, "cases", found=found, expected="at least one")
    progress(len(sources), len(sources), "")
    return evaluation


def check(job: EvaluateJob) -> None:
    """Raise X2CTError for wrong options before anything long begins."""
    if job.bundle is None and job.predictions is None and job.baselines is None:
        expected = "a bundle, --predictions or --baselines"
        raise InputError.of("evaluate", "what to judge", found="nothing", expected=expected)
    if job.bundle is not None and job.predictions is not None:
        hint = "two runs, two tables"
        raise InputError.of("evaluate", "what to judge", found="a bundle and --predictions", expected="one", hint=hint)
    if job.bundle is None and (job.conditions or job.probe):
        option = "--conditions" if job.conditions else "--probe"
        hint = "predictions made elsewhere saw other X-rays already"
        raise InputError.of(option, "options", found="no bundle", expected="a bundle to run again", hint=hint)
    if job.bundle is not None and (job.shape or job.voxel_mm):
        raise InputError.of("--shape, --voxel", "options", found="a bundle", expected="its own grid")
    if job.frame not in predictions.FRAMES:
        raise InputError.of("--frame", "value", found=job.frame, expected=" or ".join(predictions.FRAMES))
    if job.samples < 0:
        raise InputError.of("--samples", "value", found=job.samples, expected="0 or more")
    conditions.named(job.conditions)
    if job.page and (reason := page.unavailable()):
        raise MissingRuntimeError(f"{PAGE}: {reason}")
    for folder in (job.output, job.xrays or job.output):
        atomic.check_folder(folder)


class _NotATestPatient(InputError):
    """The one mistake that must stop everything: figures on training patients."""


class _Run:
    """One evaluation: the methods, their grid and X-rays, and the results so far."""

    def __init__(self, job: EvaluateJob, sources: Mapping[str, Path], step: Progress) -> None:
        self.job, self.options = job, PrepareOptions(job.centre, keep_couch=job.keep_couch)
        self.model: Model | None = None
        if job.bundle is not None:
            choice: dict[str, Any] = {"device": job.device, "backend": job.backend, "precision": job.precision}
            self.model = Model(Sampler(job.bundle, threads=job.threads, **choice), job.steps)
        shards = ShardSet.open(job.baselines) if job.baselines is not None else None
        default = shards.grid if shards else Grid()
        grid = Grid(job.shape or default.shape, job.voxel_mm or default.spacing_mm)
        self.grid = self.model.grid if self.model else grid
        self.geometry = _geometry(job.geometry, self.model)
        self.window = self.model.window if self.model else metrics.WINDOW_HU
        self.baselines: Baselines | None = None
        if shards is not None:
            for patient in shards.patients:
                if patient.id in sources:
                    _refuse_training_patient(sources[patient.id])
            patients = [p for p in shards.select("train") if job.region in ("any", p.region)]
            self.baselines = Baselines.fit(
                patients, self.grid, self.geometry, self.window, threads=job.threads, progress=step
            )
        self.predictions = predictions.find(job.predictions) if job.predictions is not None else None
        self.results: list[dict[str, Any]] = []
        self.shown: list[page.Shown] = []
        self.failures: list[dict[str, str]] = []

    def judge(self, path: Path, now: Say) -> None:
        """Add a case to the results, and to what the page shows, where there is to be one."""
        job, model, base = self.job, self.model, self.baselines
        now("reading")
        case = make_case(path, self.grid, self.geometry, options=self.options, threads=job.threads)
        if base is not None and base.includes(case.xrays):
            _refuse_training_patient(path)
        if job.xrays is not None:
            images = {view.name: image for view, image in zip(case.geometry.views, case.xrays, strict=True)}
            drr.save(job.xrays / case.id, images, case.placed)
        methods, samples = dict[str, FloatArray](), list[FloatArray]()
        if self.predictions is not None:
            now("reading predictions")
            alone, samples = predictions.of_case(self.predictions, case, job.frame)
            methods = {} if alone is None else {"prediction": alone}
        if model is not None:
            now("sampling")
            model.set_xrays(drr.calibrated(case.geometry, case.xrays, case.id), case.geometry)
            methods["mean estimate"] = model.mean()
            samples = [model.sample(seed) for seed in range(job.samples)]
        if base is not None:
            methods |= base.predict(case.xrays)
        now("scoring")
        stride = model.stride if model else anatomy.STRIDE
        scale = model.deviation_scale if model else 1.0
        result = protocol.evaluate(case, methods, samples, self.window, job.threads, stride, scale)
        if self.predictions is not None:
            judged = methods | ({"mean of its samples": protocol.mean_of(samples)} if samples else {})
            lines = (predictions.misplaced(case, name, volume) for name, volume in judged.items())
            result["warnings"] = [line for line in lines if line]
        if base is not None:
            result["nearest"] = base.nearest_id(case.xrays)
        shown = [page.show(case, methods, samples, self.window)] if job.page else []
        if model is not None and job.conditions:
            chosen = conditions.named(job.conditions)
            result["conditions"] = conditions.try_all(model, case, chosen, self.window, job.threads, now)
        if model is not None and job.probe:
            result["probe"] = probe.probe(case, model, seeds=PROBE_SEEDS, threads=job.threads, say=now)
        self.results.append(result)
        self.shown += shown

    def write(self) -> Evaluation:
        """Write the report's files, each whole; NaN and infinity become null in JSON."""
        evaluation = self._table()
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(evaluation, enc_hook=float))
        text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
        content = (text, table.to_csv(evaluation), card.card(evaluation), card.report(evaluation))
        texts = dict(zip(FILES, content, strict=True))
        if self.job.page:
            texts[PAGE] = page.html(evaluation, self.shown)
        files = (atomic.write_atomically(self.job.output / name, text.encode()) for name, text in texts.items())
        return Evaluation(evaluation, plain, tuple(files))

    def _table(self) -> dict[str, Any]:
        """The report as JSON data."""
        job, model, base = self.job, self.model, self.baselines
        facts: dict[str, Any] = {
            "model": {"name": model.name, "sha256": model.checksum, **model.choice} if model else None,
            "predictions": job.predictions.name if job.predictions else None,
            "samples": job.samples if model else None,
            "window_hu": list(self.window),
            "grid": {"shape": list(self.grid.shape), "spacing_mm": list(self.grid.spacing_mm)},
            "geometry": self.geometry.to_json(),
            "baselines": {"patients": list(base.ids), "penalty": base.penalty} if base else None,
            "versions": reports.versions(),
            "warnings": [line for result in self.results for line in result.get("warnings", [])],
            "failures": self.failures,
        }
        extras = {"conditions": conditions.summarise(self.results), "probe": probe.summarise(self.results)}
        return table.summarise(self.results, facts) | extras


def _geometry(choice: str, model: Model | None) -> Geometry:
    own = model.geometry if model else Geometry.parallel()
    if choice == "cone":
        return Geometry.cone([view.name for view in own.views], shape=own.views[0].shape)
    return own if choice == "bundle" else drr.geometry_of(choice)


def _refuse_training_patient(path: Path) -> NoReturn:
    raise _NotATestPatient.of(path, "test patient", found="one of the training patients", expected="another patient")
