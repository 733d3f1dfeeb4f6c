"""All of `x2ct evaluate`: test CTs and whoever is judged in, a folder with tables and a page out.

Case by case: X-rays are projected from the CT, predictions are had from a bundle or read from files, everything is
scored, and the report is written anew, each file whole, so that a run that is cut short leaves the cases it had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from x2ct.data import ShardSet
from x2ct.data.prepare import PrepareOptions, find_cts
from x2ct.engine.sampler import Sampler
from x2ct.errors import InputError
from x2ct.evaluation import anatomy, card, conditions, metrics, page, predictions, probe, protocol, table
from x2ct.evaluation.baselines import Baselines
from x2ct.evaluation.case import Case, make_case
from x2ct.evaluation.job import FILES, PAGE, EvaluateJob, check
from x2ct.evaluation.metrics import FloatArray
from x2ct.evaluation.model import Model
from x2ct.files import atomic
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid
from x2ct.io import report as reports
from x2ct.render import drr
from x2ct.render.drr import calibrated

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]

PROBE_SEEDS = 2


@dataclass(frozen=True)
class Evaluation:
    """What came of it."""

    table: dict[str, Any]  # the whole report, JSON data
    failures: tuple[tuple[str, str], ...]  # (what, one line) of each CT or prediction that could not be used
    files: tuple[Path, ...]  # what was written
    warnings: tuple[str, ...] = ()  # what makes the figures less trustworthy, one line each

    def plain(self) -> dict[str, Any]:
        """The table for JSON, in which what is undefined or infinite is null."""
        return _plain(self.table)


def evaluate_files(job: EvaluateJob, *, stage: Say | None = None, progress: Progress | None = None) -> Evaluation:
    """Evaluate, and write the report.

    Args:
        job: what to do.
        stage: told what is being done now.
        progress: called with (cases done, of how many, what is being worked on).

    Raises:
        InputError: an input can't be used, or none of the cases can. A CT or prediction that can't be used while others
            can is one of `failures`.
        MissingRuntimeError: a page is to be written, and the extra `report` is not installed.
    """
    say, step = stage or (lambda _: None), progress or (lambda *_: None)
    check(job)
    sources = _sources(job)
    options = PrepareOptions(job.centre, keep_couch=job.keep_couch)
    say("loading")
    judge = _Judge(job, sources, step)
    results: list[dict[str, Any]] = []
    shown: list[page.Shown] = []
    failures: list[tuple[str, str]] = []
    say("evaluating")
    for index, (name, path) in enumerate(sources.items()):

        def now(what: str, index: int = index, name: str = name) -> None:
            step(index, len(sources), f"{name}: {what}")

        now("reading")
        try:
            case = make_case(path, judge.grid, judge.geometry, options=options, threads=job.threads)
            result, seen = judge.case(case, path, now)
        except InputError as error:
            if isinstance(error, _NotATestPatient):
                raise
            failures.append((name, " ".join(str(error).split())))
            continue
        results.append(result)
        if seen is not None:
            shown.append(seen)
        _write(job, _table(job, judge, results, failures), shown)
    if not results:
        raise InputError.of(job.data, "cases", found=f"none usable, first: {failures[0][1]}", expected="at least one")
    found = _table(job, judge, results, failures)
    files = _write(job, found, shown)
    step(len(sources), len(sources), "")
    return Evaluation(found, tuple(failures), files, tuple(found["warnings"]))


class _NotATestPatient(InputError):
    """The one mistake that must stop everything: figures on training patients."""


class _Judge:
    """Who is judged, on what grid and with which X-rays."""

    def __init__(self, job: EvaluateJob, sources: Mapping[str, Path], step: Progress) -> None:
        self.job, model = job, None
        if job.bundle is not None:
            sampler = Sampler(
                job.bundle, device=job.device, backend=job.backend, precision=job.precision, threads=job.threads
            )
            model = Model(sampler, job.steps)
        shards = ShardSet.open(job.baselines) if job.baselines is not None else None
        default = shards.grid if shards else Grid()
        self.model = model
        self.grid = model.grid if model else Grid(job.shape or default.shape, job.voxel_mm or default.spacing_mm)
        self.geometry = _geometry(job.geometry, model)
        self.window = model.window if model else metrics.WINDOW_HU
        self.baselines: Baselines | None = None
        if shards is not None:
            training = {patient.id for patient in shards.patients}
            for path in (path for name, path in sources.items() if name in training):
                _refuse_training_patient(path)
            patients = [p for p in shards.select("train") if job.region in ("any", p.region)]
            self.baselines = Baselines.fit(
                patients, self.grid, self.geometry, self.window, threads=job.threads, progress=step
            )
        self.predictions = predictions.find(job.predictions) if job.predictions is not None else None

    def case(self, case: Case, path: Path, now: Say) -> tuple[dict[str, Any], page.Shown | None]:
        """One case's part of the table, and what the page shows of it, where there is to be one."""
        threads = self.job.threads
        if self.baselines is not None and self.baselines.includes(case.xrays):
            _refuse_training_patient(path)
        if self.job.xrays is not None:
            images = {view.name: image for view, image in zip(case.geometry.views, case.xrays, strict=True)}
            drr.save(self.job.xrays / case.id, images, case.placed)
        methods, samples = dict[str, FloatArray](), list[FloatArray]()
        if self.predictions is not None:
            now("reading predictions")
            alone, samples = predictions.of_case(self.predictions, case, self.job.frame)
            methods = {} if alone is None else {"prediction": alone}
        if self.model is not None:
            now("sampling")
            self.model.set_xrays(calibrated(case.geometry, case.xrays, case.id), case.geometry)
            methods["mean estimate"] = self.model.mean()
            samples = [self.model.sample(seed) for seed in range(self.job.samples)]
        if self.baselines is not None:
            methods |= self.baselines.predict(case.xrays)
        now("scoring")
        stride = self.model.stride if self.model else anatomy.STRIDE
        scale = self.model.deviation_scale if self.model else 1.0
        result = protocol.evaluate(case, methods, samples, self.window, threads, stride, scale)
        if self.predictions is not None:
            judged = methods | ({"mean of its samples": protocol.mean_of(samples)} if samples else {})
            lines = (predictions.misplaced(case, name, volume) for name, volume in judged.items())
            result["warnings"] = [line for line in lines if line]
        if self.baselines is not None:
            result["nearest"] = self.baselines.nearest_id(case.xrays)
        seen = page.show(case, methods, samples, self.window) if self.job.page else None
        if self.model is not None and self.job.conditions:
            wanted = conditions.named(self.job.conditions)
            result["conditions"] = conditions.try_all(self.model, case, wanted, self.window, threads, now)
        if self.model is not None and self.job.probe:
            result["probe"] = probe.probe(case, self.model, seeds=PROBE_SEEDS, threads=threads, say=now)
        return result, seen


def _table(
    job: EvaluateJob, judge: _Judge, results: list[dict[str, Any]], failures: list[tuple[str, str]]
) -> dict[str, Any]:
    """The report as JSON data."""
    model, base = judge.model, judge.baselines
    facts: dict[str, Any] = {
        "model": {"name": model.name, "sha256": model.checksum, **model.choice} if model else None,
        "predictions": job.predictions.name if job.predictions else None,
        "samples": job.samples if model else None,
        "window_hu": list(judge.window),
        "grid": {"shape": list(judge.grid.shape), "spacing_mm": list(judge.grid.spacing_mm)},
        "geometry": judge.geometry.to_json(),
        "baselines": {"people": list(base.ids), "penalty": base.penalty} if base else None,
        "versions": reports.versions(),
        "warnings": [line for result in results for line in result.get("warnings", [])],
        "failures": [{"case": name, "reason": reason} for name, reason in failures],
    }
    tried = {"conditions": conditions.summarise(results), "probe": probe.summarise(results)}
    return table.summarise(results, facts) | tried


def _write(job: EvaluateJob, found: Mapping[str, Any], shown: list[page.Shown]) -> tuple[Path, ...]:
    """The report's files, each whole; NaN and infinity become null in JSON."""
    plain = json.dumps(_plain(found), indent=1, allow_nan=False) + "\n"
    content = (plain, table.to_csv(found), card.card(found), card.report(found))
    texts = dict(zip(FILES, content, strict=True)) | ({PAGE: page.html(found, shown)} if job.page else {})
    return tuple(atomic.write_atomically(job.output / name, text.encode()) for name, text in texts.items())


def _sources(job: EvaluateJob) -> dict[str, Path]:
    sources = find_cts(job.data)
    unknown = [name for name in job.cases if name not in sources]
    if unknown:
        raise InputError.of(job.data, "case", found=unknown[0], expected=f"one of {', '.join(sources)}")
    return {name: path for name, path in sources.items() if not job.cases or name in job.cases}


def _geometry(choice: str, model: Model | None) -> Geometry:
    own = model.geometry if model else Geometry.parallel()
    if choice == "cone":
        return Geometry.cone([view.name for view in own.views], shape=own.views[0].shape)
    return own if choice == "bundle" else drr.geometry_of(choice)


def _refuse_training_patient(path: Path) -> NoReturn:
    line = InputError.of(path, "test patient", found="one of the training patients", expected="another patient")
    raise _NotATestPatient(str(line))


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    """The report as JSON has it: msgspec writes what is undefined or infinite as null."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found, enc_hook=float))
    return plain
