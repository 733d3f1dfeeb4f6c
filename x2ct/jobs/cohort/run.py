"""A manifest's studies sampled, several at a time."""

from __future__ import annotations

import csv
import io
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from x2ct.errors import Cancelled, InputError, X2CTError
from x2ct.files import atomic
from x2ct.io import report
from x2ct.jobs.cohort.studies import SUMMARY_FILE, check_folder, clear, fingerprint, is_done, job_of, read_manifest
from x2ct.jobs.sample import SampleJob, open_sampler, sample_files

if TYPE_CHECKING:
    from x2ct.engine.sampler import Sampler
    from x2ct.jobs.cohort.ray_engine import RayEngine

ENGINES = ("local", "ray")  # where a cohort may be sampled


@dataclass(frozen=True)
class Outcome:
    """The outcome of one study: a line of the summary."""

    id: str
    state: str  # "done", "kept" (from before) or "failed"
    code: int  # the exit code that it alone would have had
    seconds: float
    output: str  # the CT's file name
    error: str = ""  # one line, where it failed
    retries: int = 0  # how often its worker was lost and another one began it again


@dataclass(frozen=True)
class Cohort:
    """The outcomes of a run over a manifest."""

    folder: Path
    outcomes: tuple[Outcome, ...]  # in the manifest's order

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The studies that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == "failed")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"folder": self.folder.name, "studies": [asdict(outcome) for outcome in self.outcomes]}


def sample_cohort(
    manifest: str | PathLike[str],
    base: SampleJob,
    *,
    resume: bool = False,
    jobs: int | None = None,
    engine: str = "local",
    ray_address: str = "",
    progress: Callable[[int, int, str], object] = lambda *_: None,
) -> Cohort:
    """Sample every study of a manifest (see `read_manifest`) with the settings of `base`, which has no X-rays.

    The folder `base.output` gets ID.nii.gz (or as `format` says) and ID.json, the report, of each study, and
    summary.csv. `resume`, `jobs`, `engine` and `ray_address` are what the help of `x2ct sample` says; each of several
    workers compiles the model for itself. `progress` is called with (studies finished, of how many, the latest id).

    A study that can't be used is one of the outcomes. Raises InputError: the manifest, the settings, the folder or the
    cluster can't be used; MissingRuntimeError: the extra `ray` is not installed; X2CTError: the model can't be loaded,
    or the summary can't be written; Cancelled: what is finished stays, and `resume` goes on from there.
    """
    studies = read_manifest(manifest)
    if jobs is not None and jobs < 1:
        raise InputError.of("--jobs", "value", found=jobs, expected="1 or more")
    if engine not in ENGINES:
        raise InputError.unknown("--engine", "name", found=engine, known=ENGINES)
    if ray_address and engine != "ray":
        raise InputError.of("--ray-address", "options", found=f"--engine {engine}", expected="--engine ray")
    planned = {study.id: job_of(base, study) for study in studies}
    atomic.check_outputs([path for job in planned.values() for path in job.outputs], ())
    outcomes: dict[str, Outcome | None] = dict.fromkeys(planned)  # in the manifest's order
    stopped, lock = threading.Event(), threading.Lock()

    def work(name: str) -> None:
        """Sample a study, unless it is done or the run was stopped."""
        if stopped.is_set():
            return
        job = planned[name]
        try:
            mark = fingerprint(workers.model, job)
            if resume and is_done(job, mark):
                outcome = Outcome(name, "kept", 0, 0.0, job.output.name)
            else:
                outcome = workers.sample(name, job, mark)
        except Cancelled:
            raise
        except X2CTError as error:
            if error is workers.broken:
                raise
            outcome = Outcome(name, "failed", error.exit_code, 0.0, job.output.name, str(error))
        with lock:
            outcomes[name] = outcome
            # After each study: a run that is killed leaves what it knew.
            finished = _write_summary(base.output, outcomes.values())
            progress(len(finished), len(planned), name)

    with (
        _started(engine, ray_address, base, planned, jobs, resume) as workers,
        ThreadPoolExecutor(workers.count) as pool,
    ):
        running = [pool.submit(work, name) for name in planned]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
            for one in running:
                if one.done():
                    one.result()
        finally:
            stopped.set()
            workers.stop()
            for one in running:
                one.cancel()
    return Cohort(base.output, tuple(filter(None, outcomes.values())))


@contextmanager
def _started(
    name: str, address: str, base: SampleJob, planned: dict[str, SampleJob], jobs: int | None, resume: bool
) -> Iterator[_Samplers | RayEngine]:
    """Check the folder and start an engine, the cluster first: both are a matter of the whole run."""
    if name == "local":
        check_folder(base.output, planned, resume)
        yield _Samplers(base, min(jobs or 1, len(planned)))
        return
    from x2ct.jobs.cohort.ray_engine import RayEngine, connected

    with connected(address):
        check_folder(base.output, planned, resume)
        # There before any study is done: by it a worker on another machine sees that the folder is shared.
        _write_summary(base.output, ())
        with closing(RayEngine(base, jobs, len(planned))) as workers:
            workers.open()
            yield workers


class _Samplers:
    """Samplers for `count` threads of this process, each made when it is first needed and used by one at a time."""

    broken = None  # nothing keeps a thread from sampling a further study

    def __init__(self, base: SampleJob, count: int) -> None:
        from x2ct.bundle import Bundle

        self.count = count
        self._stopped = threading.Event()
        self._bundle = Bundle.load(base.model)
        self.model = self._bundle.checksum
        threads = base.threads or (max(1, (os.cpu_count() or 1) // count) if count > 1 else 0)
        self._base = replace(base, threads=threads)
        self._free: queue.SimpleQueue[Sampler | None] = queue.SimpleQueue()
        first = open_sampler(self._base, self._bundle)
        first.compile()  # what is wrong with the model or its runtime is wrong for all studies
        for sampler in [first] + [None] * (count - 1):
            self._free.put(sampler)

    def sample(self, name: str, job: SampleJob, mark: str) -> Outcome:
        """Sample a study with a sampler that no other thread uses."""
        sampler = self._free.get()
        try:
            sampler = sampler or open_sampler(self._base, self._bundle)
            return sample_study(name, job, mark, sampler, self._stopped)
        finally:
            self._free.put(sampler)

    def stop(self) -> None:
        """Cancel what is being sampled at its next evaluation."""
        self._stopped.set()


def sample_study(name: str, job: SampleJob, mark: str, sampler: Sampler, stopped: threading.Event) -> Outcome:
    """Sample one study and write its files, last its report with `mark`, see `is_done`; without it where this fails.

    Once `stopped` is set, the study is cancelled at its next evaluation.
    """

    def go_on(done: int, total: int, sigma: float) -> None:
        if stopped.is_set():
            raise Cancelled("cancelled")

    assert job.report is not None  # job_of names one
    clear(job)
    facts = sample_files(replace(job, report=None), sampler=sampler, progress=go_on)
    report.write_json(facts | {"study": {"id": name, "fingerprint": mark}}, job.report)
    return Outcome(name, "done", 0, float(facts["timings"]["total_s"]), job.output.name)


def _write_summary(folder: Path, outcomes: Iterable[Outcome | None]) -> list[Outcome]:
    """Write the studies that are finished, and return them."""
    finished, text = list(filter(None, outcomes)), io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Outcome)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(outcome) | {"seconds": f"{outcome.seconds:.3f}"} for outcome in finished)
    atomic.write_atomically(folder / SUMMARY_FILE, text.getvalue().encode())
    return finished
