"""The queue, the one worker, and the files of each job, which go when they are fetched or when their time is over."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
import traceback
import zipfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from x2ct.engine.sampler import Sampler
from x2ct.errors import Cancelled, InputError, X2CTError
from x2ct.jobs.options import Limits
from x2ct.jobs.sample import SampleJob, sample_files
from x2ct.serve.problem import Problem

log = logging.getLogger(__name__)

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
VOLUME, REPORT, PREVIEW, UNEXPLAINED = "volume.nii.gz", "report.json", "preview.png", "unexplained.png"
SURFACE, SERIES = "bone.stl", "volume.zip"
PREFIX = "x2ct-serve-"


@dataclass(eq=False)
class Job:
    """One request for a CT and what has become of it. Times are those of `time.monotonic`, in seconds."""

    id: str  # random; whoever has it can fetch the files
    folder: Path  # of its files, private to the server's user
    sample: SampleJob | None = None
    dicom: bool = False  # whether to make a DICOM series of the CT too
    surface: bool = False  # whether to make a mesh of the bones too
    state: str = QUEUED
    stage: str = "receiving"  # what is being done, in a few words
    evaluations: tuple[int, int] = (0, 0)  # how many are done, of how many
    files: dict[str, Path] = field(default_factory=dict)  # what can be fetched, by name
    warnings: list[str] = field(default_factory=list)  # of the report
    problem: Problem | None = None  # what ended it, if it failed or was cancelled
    awaited: bool = False  # whether a client waits for it
    started: float | None = None
    ended: float | None = None
    deadline: float = float("inf")  # when it is ended

    @property
    def over(self) -> bool:
        """True once the job is done, failed or cancelled."""
        return self.state in (DONE, FAILED, CANCELLED)


class Jobs:
    """A queue of jobs in front of one worker thread with one open sampler. Thread-safe.

    The worker compiles the sampler before the first job; each job has the settings of `template`, which opened it.
    `finished` is called with the state and the seconds of each job that ran; `failed`, in the worker's thread, if the
    sampler can't be compiled, and then `failure` has the error.
    """

    def __init__(
        self,
        sampler: Sampler,
        template: SampleJob,
        limits: Limits,
        *,
        finished: Callable[[str, float], object] = lambda state, seconds: None,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self.sampler, self.template, self.limits = sampler, template, limits
        self.ready, self.draining, self.cut = False, False, 0
        self.failure: X2CTError | None = None
        self._finished, self._failed = finished, failed
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._receiving: set[Job] = set()
        self._running: Job | None = None
        self._latest_s = 5.0
        self._changed = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="x2ct-serve", daemon=True)
        self.folder, self._lock = _private_folder()

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def reserve(self) -> Job:
        """Return a new job that has a place in the queue, before its files are there.

        Raises Problem: 429, the queue is full; 503, the server is shutting down.
        """
        with self._changed:
            self._refuse_when_draining()
            ahead = len(self._waiting) + len(self._receiving)
            if ahead >= self.limits.queue:
                seconds = max(1, round(self._latest_s))
                waiting, expected = f"{ahead} that wait", f"fewer than {self.limits.queue}"
                hint, headers = f"try again in {seconds} s", {"Retry-After": str(seconds)}
                raise Problem.of(429, "queue", "jobs", found=waiting, expected=expected, hint=hint, headers=headers)
            job = Job(secrets.token_urlsafe(16), Path(tempfile.mkdtemp(prefix="job-", dir=self.folder)))
            self._receiving.add(job)
        return job

    def submit(self, job: Job) -> None:
        """Queue a job that has its files. Raises Problem (503) where the server is shutting down."""
        with self._changed:
            self._refuse_when_draining()
            self._receiving.discard(job)
            job.stage = "waiting"
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._changed.notify()

    def get(self, name: str) -> Job:
        """Return a job. Raises Problem (404) where there is none of that name, or none any more."""
        job = self._jobs.get(name)
        if job is None:
            hint = "answers go once they are fetched, and after a while"
            raise Problem.of(404, "job", "id", found="none of this name", expected="one that is still here", hint=hint)
        return job

    def remove(self, job: Job) -> None:
        """Forget a job with all its files; one that waits or runs is cancelled first."""
        with self._changed:
            self._receiving.discard(job)
            self._jobs.pop(job.id, None)
            if job is self._running:
                job.deadline = float("-inf")  # the worker removes its files
                return
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, CANCELLED)
        shutil.rmtree(job.folder, ignore_errors=True)

    def fetched(self, job: Job, name: str) -> None:
        """Remove a file that was delivered whole, and with the last one the job."""
        with self._changed:
            path = job.files.pop(name, None)
        if path is not None:
            path.unlink(missing_ok=True)
        if job.over and not job.files:
            self.remove(job)

    def expire(self) -> None:
        """Remove the jobs whose time is over."""
        now = time.monotonic()
        for job in list(self._jobs.values()):
            if job.ended is not None and now - job.ended > self.limits.keep_s:
                self.remove(job)

    def facts(self, job: Job) -> dict[str, Any]:
        """Return a job's state as plain data."""
        remaining_s = None if job.ended is None else max(0.0, self.limits.keep_s - (time.monotonic() - job.ended))
        with self._changed:
            ahead = self._waiting.index(job) + (self._running is not None) if job in self._waiting else 0
        return {
            "id": job.id,
            "state": job.state,
            "stage": job.stage,
            "ahead": ahead,
            "evaluations": {"done": job.evaluations[0], "total": job.evaluations[1]},
            "files": list(job.files),
            "warnings": job.warnings,
            "error": job.problem.body if job.problem else None,
            "kept_s": None if remaining_s is None else round(remaining_s, 1),
        }

    @property
    def accepting(self) -> bool:
        """True while a new job would be run."""
        return self.ready and not self.draining

    @property
    def waiting(self) -> int:
        """The number of jobs that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """The number of jobs that run: 0 or 1."""
        return int(self._running is not None)

    def drain(self) -> None:
        """Take no more jobs, cancel those that wait, and leave the one that runs its grace if a client waits for it."""
        with self._changed:
            self.draining = True
            while self._waiting:
                self._end(self._waiting.popleft(), CANCELLED, _shutdown())
                self.cut += 1
            if self._running is not None:
                grace = self.limits.grace_s if self._running.awaited else float("-inf")
                self._running.deadline = min(self._running.deadline, time.monotonic() + grace)
            self._changed.notify()

    def hurry(self) -> None:
        """End the running job at its next evaluation. Takes no lock: a signal handler may call it."""
        if (job := self._running) is not None:
            job.deadline = float("-inf")

    def close(self) -> None:
        """Wait for the worker, and remove all files."""
        self.drain()
        if self._worker.is_alive():
            self._worker.join()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def _work(self) -> None:
        try:
            self.sampler.compile()
        except X2CTError as error:
            self.failure = error
            self._failed()
            return
        self.ready = True
        log.info("ready: %s on %s", self.sampler.bundle.name, self.sampler.choice.device)
        while (job := self._next()) is not None:
            self._run(job)

    def _next(self) -> Job | None:
        with self._changed:
            while not self._waiting:
                if self.draining:
                    return None
                self._changed.wait()
            self._running = job = self._waiting.popleft()
            job.started = time.monotonic()
            job.deadline = job.started + self.limits.job_s
            job.state = RUNNING
            return job

    def _run(self, job: Job) -> None:
        state, problem = DONE, None
        try:
            self._make(job)
        except Exception as error:
            cancelled = isinstance(error, Cancelled)
            state, problem = CANCELLED if cancelled else FAILED, Problem.of_failure(error, job.folder)
            self.cut += self.draining and cancelled
            if not isinstance(error, X2CTError | Problem | MemoryError):
                log_unexpected(error)
        for path in job.folder.iterdir():
            if path not in job.files.values() or state != DONE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with self._changed:
            self._running = None
            if state != DONE:
                job.files = {}
            self._end(job, state, problem)
            forgotten = job.id not in self._jobs
        if forgotten:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _make(self, job: Job) -> None:
        """Sample, and make what else the job asks for."""
        assert job.sample is not None

        def stage(text: str) -> None:
            job.stage = text
            self._refuse_when_over(job)

        def progress(count: int, total: int, sigma: float) -> None:
            job.evaluations = (count, total)
            self._refuse_when_over(job)

        report = sample_files(job.sample, sampler=self.sampler, stage=stage, progress=progress)
        job.warnings = report["warnings"]
        files = {path.name: path for path in job.sample.outputs}
        if job.dicom:
            stage("writing DICOM")
            files[SERIES] = _series(job.sample, f"{self.sampler.bundle.name} {self.sampler.bundle.checksum}")
        if job.surface:
            from x2ct.render import mesh

            stage("finding the surface of the bones")
            with suppress(InputError):  # of a CT without bone there is none
                mesh.mesh_files(job.sample.output, job.folder / SURFACE, coordinates="ras")
                files[SURFACE] = job.folder / SURFACE
        job.files = files

    def _refuse_when_over(self, job: Job) -> None:
        if time.monotonic() <= job.deadline:
            return
        if self.draining or job.id not in self._jobs:
            raise Cancelled("the server is shutting down" if self.draining else "cancelled")
        limit = f"at most {self.limits.job_s:g} s"
        raise Problem.of(504, "job", "time", found="more", expected=limit, hint="take fewer samples or steps")

    def _end(self, job: Job, state: str, problem: Problem | None = None) -> None:
        job.ended = time.monotonic()
        seconds = job.ended - (job.started or job.ended)
        job.problem, job.stage, job.state = problem, "", state
        if state == DONE:
            self._latest_s = seconds
        self._finished(state, seconds)
        log.info("job %s: %s after %.1f s%s", job.id[:6], state, seconds, f" ({problem.status})" if problem else "")

    def _refuse_when_draining(self) -> None:
        if self.draining:
            raise _shutdown()


def log_unexpected(error: Exception) -> None:
    """Log the class and the place of an error that is a bug; its text could hold anything."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    log.error("unexpected %s in %s:%s", type(error).__name__, Path(where.filename).name, where.lineno)


def _shutdown() -> Problem:
    return Problem(Cancelled("the server is shutting down"), headers={"Retry-After": "30"})


def _series(job: SampleJob, model: str) -> Path:
    """Write the CT as a DICOM series in a ZIP file."""
    from x2ct.io.ct.volume import Origin, Volume

    folder, target = job.output.with_name("series"), job.output.with_name(SERIES)
    origin = Origin(tuple(job.inputs.values()), model)
    Volume.load(job.output).save(folder, synthetic=True, kind="dicom", origin=origin)
    zipped(target, {path.name: path for path in sorted(folder.iterdir())})
    return target


def zipped(target: Path, files: dict[str, Path]) -> None:
    """Write files, by their names, into a ZIP file, not compressed again."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            archive.write(path, name)


def _private_folder() -> tuple[Path, int]:
    """Return a new folder that only this user can read, and the descriptor that locks it while this process lives.

    Folders of servers that were killed are not locked any more, and are removed.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for other in folder.parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if other == folder or other.is_symlink() or other.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(other, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other, ignore_errors=True)
            finally:
                os.close(descriptor)
    return folder, lock
