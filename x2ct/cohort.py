"""Many studies with one model: a manifest of X-ray files in, a CT and a report for each out.

A study that fails is told and the others go on. `--continue` leaves out what an earlier run finished from the same
files with the same settings. What a study gives does not depend on the others, on their order, or on `jobs`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import queue
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from x2ct import output, report
from x2ct.errors import Cancelled, InputError, X2CTError
from x2ct.tasks import SampleJob, open_sampler, sample_files

if TYPE_CHECKING:
    from x2ct.sampler import Sampler

COLUMNS = ("id", "ap", "pa", "lateral", "geometry", "seed")
"""What a manifest may have; `id` and at least one view it must have."""
MAX_STUDIES = 100_000
SUMMARY_FILE = "summary.csv"

_FILES = ("ap", "pa", "lateral", "geometry")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENDINGS = {"auto": ".nii.gz", "nifti": ".nii.gz", "nrrd": ".nrrd", "mha": ".mha", "dicom": ""}
_RESERVED = Path(SUMMARY_FILE).stem
_NOT_SETTINGS = ("output", "report", "preview", "model", *_FILES)

Progress = Callable[[int, int, str], object]


@dataclass(frozen=True)
class Study:
    """One line of a manifest: a name for its files, and its job's inputs and seed."""

    id: str
    inputs: dict[str, Path]
    seed: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes:
        id: its name.
        state: "done", "kept" (from before) or "failed".
        code: the exit code that it alone would have had.
        seconds: what it took.
        output: the CT's file name.
        error: one line, where it failed.
    """

    id: str
    state: str
    code: int
    seconds: float
    output: str
    error: str = ""


@dataclass(frozen=True)
class Cohort:
    """What a run over a manifest did."""

    folder: Path
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The studies that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == "failed")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"folder": self.folder.name, "studies": [asdict(outcome) for outcome in self.outcomes]}


def read_manifest(path: str | PathLike[str]) -> tuple[Study, ...]:
    """Reads a CSV whose first line names its columns; file names are relative to the manifest.

    Raises:
        InputError: no such file, no table, an unknown column, an id that is doubled or no file name, a line without a
            view, or a seed that is no number.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.of(source, "file", found=error, expected="a CSV in UTF-8") from error
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        table, columns = list(reader), tuple(reader.fieldnames or ())
    except csv.Error as error:
        raise InputError.of(source, "content", found=error, expected="a CSV") from error
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise InputError.of(source, "columns", found=", ".join(unknown), expected=f"some of {', '.join(COLUMNS)}")
    if not 0 < len(table) <= MAX_STUDIES or "id" not in columns:
        found = f"{len(table)} studies with columns {', '.join(columns) or 'none'}"
        raise InputError.of(source, "content", found=found, expected=f"an id column and 1 to {MAX_STUDIES} studies")
    studies = tuple(_study(source, number, row) for number, row in enumerate(table, 2))
    names = [study.id.lower() for study in studies]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError.of(source, "id", found=f"{twice} twice", expected="a name of its own for each study")
    return studies


def _study(source: Path, number: int, row: dict[str, str | None]) -> Study:
    where = f"{source}: line {number}"
    if None in row.values() or None in row:
        raise InputError.of(where, "columns", found="another number than the first line's", expected="one for each")
    told = {name: (text or "").strip() for name, text in row.items()}
    name = told["id"]
    if not _ID.fullmatch(name) or name.lower() == _RESERVED:
        expected = f"letters, digits, '.', '_' and '-', and not {_RESERVED}: it names files"
        raise InputError.of(where, "id", found=repr(name[:120]), expected=expected)
    inputs = {key: source.parent / told[key] for key in _FILES if told.get(key)}
    if not inputs.keys() & {"ap", "pa", "lateral"}:
        raise InputError.of(where, "X-rays", found="none", expected="ap or pa, lateral, or a frontal view and lateral")
    seed = told.get("seed", "")
    if seed and not (seed.isdecimal() and int(seed) < 2**64):
        raise InputError.of(where, "seed", found=repr(seed[:40]), expected="0 to 2^64 - 1")
    return Study(name, inputs, int(seed) if seed else None)


def sample_cohort(
    manifest: str | PathLike[str],
    base: SampleJob,
    *,
    resume: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Cohort:
    """Samples every study of a manifest, one model load for each of `jobs` workers.

    Args:
        manifest: see `read_manifest`.
        base: the settings of all studies; its `output` is the folder to write ID.nii.gz (or as `format` says) and
            ID.json, the report, of each study, and summary.csv. It has no X-rays of its own.
        resume: leave out what is there already, from the same inputs with the same settings.
        jobs: studies at a time; with more than one, each worker compiles the model for itself.
        progress: called with (studies finished, of how many, the latest one's id).

    Raises:
        InputError: the manifest, the settings or the folder can't be used. What a study alone makes fail is told in its
            `Outcome`.
        X2CTError: the model can't be loaded, or the summary can't be written.
        Cancelled: cancelled; what is finished stays, and `resume` goes on from there.
    """
    studies = read_manifest(manifest)
    if jobs < 1:
        raise InputError.of("--jobs", "value", found=jobs, expected="1 or more")
    folder = base.output
    planned = {study.id: _job(base, study) for study in studies}
    output.check_outputs([path for job in planned.values() for path in job.outputs], ())
    _check_folder(folder, planned, resume)
    outcomes: dict[str, Outcome] = {}
    lock = threading.Lock()
    samplers = _Samplers(base, min(jobs, len(studies)))

    def finish(outcome: Outcome) -> None:
        with lock:
            outcomes[outcome.id] = outcome
            # In the manifest's order, and after each study: a run that is killed leaves what it knew.
            _write_summary(folder, [outcomes[study.id] for study in studies if study.id in outcomes])
            if progress is not None:
                progress(len(outcomes), len(studies), outcome.id)

    def work(study: Study) -> None:
        if samplers.stopped.is_set():
            return
        job = planned[study.id]
        try:
            mark = _fingerprint(samplers.model, job)
            if resume and _is_done(job, mark):
                outcome = Outcome(study.id, "kept", 0, 0.0, job.output.name)
            else:
                _clear(job)
                outcome = _run(study.id, job, mark, samplers)
        except Cancelled:
            raise
        except X2CTError as error:
            outcome = Outcome(study.id, "failed", error.exit_code, 0.0, job.output.name, str(error))
        finish(outcome)

    with ThreadPoolExecutor(samplers.count) as pool:
        running = [pool.submit(work, study) for study in studies]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
            for one in running:
                if one.done():
                    one.result()
        finally:
            samplers.stopped.set()
            for one in running:
                one.cancel()
    return Cohort(folder, tuple(outcomes[study.id] for study in studies))


class _Samplers:
    """Samplers for a number of workers, each made when it is first needed and used by one study at a time."""

    def __init__(self, base: SampleJob, count: int) -> None:
        from x2ct.bundle import Bundle

        self.count = count
        self.stopped = threading.Event()
        self._bundle = Bundle.load(base.model)
        self.model = self._bundle.checksum
        threads = base.threads or (max(1, (os.cpu_count() or 1) // count) if count > 1 else 0)
        self._base = replace(base, threads=threads)
        self._made: queue.SimpleQueue[Sampler | None] = queue.SimpleQueue()
        first = open_sampler(self._base, self._bundle)
        first.compile()  # what is wrong with the model or its runtime is wrong for all studies
        for sampler in [first] + [None] * (count - 1):
            self._made.put(sampler)

    @contextmanager
    def one(self) -> Iterator[Sampler]:
        """A sampler that nobody else uses."""
        sampler = self._made.get()
        try:
            sampler = sampler or open_sampler(self._base, self._bundle)
            yield sampler
        finally:
            self._made.put(sampler)


def _run(name: str, job: SampleJob, mark: str, samplers: _Samplers) -> Outcome:
    def go_on(done: int, total: int, sigma: float) -> None:
        if samplers.stopped.is_set():
            raise Cancelled("cancelled")

    with samplers.one() as sampler:
        told = sample_files(replace(job, report=None), sampler=sampler, progress=go_on)
    assert job.report is not None  # _job names one
    report.write_json(told | {"study": {"id": name, "fingerprint": mark}}, job.report)
    return Outcome(name, "done", 0, float(told["timings"]["total_s"]), job.output.name)


def _job(base: SampleJob, study: Study) -> SampleJob:
    ct = base.output / f"{study.id}{_ENDINGS.get(base.format, '.nii.gz')}"
    seed = base.seed if study.seed is None else study.seed
    given = study.inputs.get
    return replace(
        base,
        output=ct,
        report=base.output / f"{study.id}.json",
        seed=seed,
        ap=given("ap"),
        pa=given("pa"),
        lateral=given("lateral"),
        geometry=given("geometry"),
    )


def _check_folder(folder: Path, planned: dict[str, SampleJob], resume: bool) -> None:
    if not folder.exists():
        output.check_writable(folder)
        folder.mkdir()
    if not folder.is_dir():
        raise InputError.of(folder, "output", found="a file", expected="a folder")
    output.check_writable(folder / SUMMARY_FILE)
    there = [path for job in planned.values() for path in job.outputs if path.exists()]
    if there and not resume:
        found = f"{there[0].name} there already"
        raise InputError.of(folder, "output", found=found, expected="none of the studies", hint="go on with --continue")


def _clear(job: SampleJob) -> None:
    """Takes away a DICOM series that an interrupted or other run left under a study's name; files are replaced."""
    for path in job.outputs:
        if path.is_dir() and all(file.suffix == ".dcm" for file in path.iterdir()):
            shutil.rmtree(path)


def _fingerprint(model: str, job: SampleJob) -> str:
    """What a study's files depend on: settings, inputs, x2ct's version and the model."""
    from x2ct import __version__

    settings = {field.name: getattr(job, field.name) for field in fields(job) if field.name not in _NOT_SETTINGS}
    told = [__version__, model, repr(sorted(settings.items()))]
    for name, path in sorted({**job.inputs, **({"geometry": job.geometry} if job.geometry else {})}.items()):
        try:
            told.append(f"{name} {report.sha256(path)}")
        except OSError as error:
            raise InputError.of(path, "file", found=error.strerror, expected="a file that can be read") from error
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _is_done(job: SampleJob, mark: str) -> bool:
    """Whether an earlier run finished this job: its report, which is written last, says so, and its files are whole."""
    assert job.report is not None
    if not job.report.exists():
        return False
    told = report.read_json(job.report)
    if told.get("study", {}).get("fingerprint") != mark:
        return False
    there = [path for path in job.outputs if path != job.report]
    return all(path.exists() for path in there) and [report.file_record(path) for path in there] == told.get("outputs")


def _write_summary(folder: Path, outcomes: Sequence[Outcome]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Outcome)], lineterminator="\n")
    writer.writeheader()
    for outcome in outcomes:
        writer.writerow(asdict(outcome) | {"seconds": f"{outcome.seconds:.3f}"})
    output.write_atomically(folder / SUMMARY_FILE, text.getvalue().encode())
