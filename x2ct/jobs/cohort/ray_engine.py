"""A cohort on a Ray cluster: actors that hold a model each, on a GPU or a number of cores, one study at a time each.

This process reads the manifest, leaves out what is finished and keeps the summary; a study goes to whichever worker is
idle, which writes its files as `--engine local` would, into the folder that all machines share. A worker that is lost
(killed, out of memory, its machine gone) is replaced and its study begun again, up to `RETRIES` times, unless its
report is there.

Neither this process nor a cluster that it starts reports usage, and that cluster listens on this machine alone. Ray has
no access control of its own: whoever reaches a cluster may run code on it.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from x2ct import __version__
from x2ct.errors import Cancelled, InputError, MissingRuntimeError, X2CTError
from x2ct.files import atomic
from x2ct.io import report
from x2ct.jobs.cohort.run import Outcome, sample_study
from x2ct.jobs.cohort.studies import SUMMARY_FILE, is_done
from x2ct.jobs.sample import SampleJob, open_sampler

if TYPE_CHECKING:
    from x2ct.bundle import Bundle
    from x2ct.engine.sampler import Sampler

RETRIES = 3  # how often a study is begun again after its worker was lost


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster for the length of a block: at HOST:PORT, else at `RAY_ADDRESS`, else one started here.

    Where this process has called `ray.init` already, that cluster is used and goes on.

    Raises MissingRuntimeError: Ray is not installed, or there is no such cluster.
    """
    address = address or os.environ.get("RAY_ADDRESS", "") or "local"
    # Before Ray is imported, and for the processes that it starts.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == "local":
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on every system: one machine, 127.0.0.1
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingRuntimeError("ray is not installed: pip install 'x2ct[ray]'") from None
    if ray.is_initialized():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises several kinds, down to Exception itself
        ray.shutdown()
        if address == "local":
            raise MissingRuntimeError(f"ray: no cluster can be started on this machine: {_line(error)}") from error
        hint = "start one with 'ray start --head', or leave the address out to use this machine"
        raise MissingRuntimeError(f"ray: no cluster at {address}: {_line(error)}; {hint}") from error
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray's own would end the process with another code
    ray._private.worker._worker_logs_enabled = False  # "A worker died ..." would go to stdout, whatever log_to_driver
    try:
        yield
    finally:
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True


class Worker:
    """A model on one machine of the cluster, for one study at a time; Ray makes it in a process of its own."""

    def __init__(self, base: SampleJob, expected: str) -> None:
        self._base, self._expected = base, expected
        self._stopped = threading.Event()
        self._sampler: Sampler | None = None

    def open(self) -> None:
        """Load and compile the model, and see that the folder is the one with the summary, and x2ct the version."""
        from x2ct.bundle import Bundle

        base, here = self._base, socket.gethostname()
        if not (base.output / SUMMARY_FILE).exists():
            expected = "the folder in which the run was started; all machines must share its path"
            raise InputError.of(base.output, "output", found=f"another folder, or none, on {here}", expected=expected)
        bundle = Bundle.load(base.model)
        if _version(bundle) != self._expected:
            found, expected = f"{_version(bundle)} on {here}", f"{self._expected}, as where the run began"
            raise InputError.of(base.model, "version", found=found, expected=expected)
        self._sampler = open_sampler(base, bundle)
        self._sampler.compile()

    def sample(self, name: str, job: SampleJob, mark: str) -> Outcome:
        """Sample a study, unless a worker that was lost thereafter has finished it."""
        assert self._sampler is not None and job.report is not None
        if is_done(job, mark):
            seconds = report.read_json(job.report)["timings"]["total_s"]
            return Outcome(name, "done", 0, float(seconds), job.output.name)
        return sample_study(name, job, mark, self._sampler, self._stopped)

    def stop(self) -> None:
        """Cancel the study that is being sampled."""
        self._stopped.set()


class RayEngine:
    """Workers on the cluster that this process is connected to, as many as `placement` says and no more than studies.

    A worker takes `base.threads` cores, and a GPU where `base.device` is "cuda".

    Raises InputError: the cluster is too small, the device is one GPU of several, or the model can't be used.
    """

    broken: BaseException | None = None  # what keeps every worker from sampling any further study

    def __init__(self, base: SampleJob, jobs: int | None, studies: int) -> None:
        import ray

        from x2ct.bundle import Bundle
        from x2ct.bundle.folder import find

        gpu, _, index = base.device.partition(":")
        if index:
            raise InputError.of("--device", "name", found=base.device, expected=gpu, hint="Ray chooses the GPUs")
        bundle = Bundle.load(base.model)
        self.model, self._expected = bundle.checksum, _version(bundle)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        workers, threads = placement(nodes, jobs, base.threads, gpu == "cuda")
        self.count = min(workers, studies)
        own_model = find(base.model) == Path(base.model)
        model, compiled = (str(Path(name).absolute()) if name else "" for name in (base.model, base.compiled))
        self._base = replace(
            _absolute(base), model=model if own_model else base.model, compiled=compiled, threads=threads
        )
        self._ray = ray
        # Two at a time, so that a worker that samples can be stopped.
        self._actor = ray.remote(Worker).options(
            num_cpus=threads, num_gpus=int(gpu == "cuda"), max_concurrency=2, max_restarts=0
        )
        self._workers: list[Any] = []
        self._idle: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._stopped = False

    def open(self) -> None:
        """Start all workers and wait for the first: what is wrong with the model or its runtime is wrong for all."""
        for _ in range(self.count):
            self._start()
        worker, error = self._idle.get()
        if error is not None:
            cause = _cause(error)
            raise cause if isinstance(cause, X2CTError) else X2CTError(f"ray: no worker: {_line(error)}") from error
        self._idle.put((worker, None))

    def sample(self, name: str, job: SampleJob, mark: str) -> Outcome:
        """Have a study sampled by the next worker that is idle, and by another one if that is lost."""
        from ray.exceptions import RayError, RayTaskError

        lost = ""
        for retries in range(RETRIES + 1):
            worker, error = self._idle.get()
            try:
                if error is not None:
                    raise error
                outcome: Outcome = self._ray.get(worker.sample.remote(name, _absolute(job), mark))
            except RayTaskError as failure:
                self._idle.put((worker, error))
                cause = _cause(failure)
                if error is not None:  # not the study's: the worker could not open
                    self.broken = cause
                raise cause from None
            except RayError as failure:
                if self._stopped:
                    raise Cancelled("cancelled") from failure
                lost = _line(failure)
                self._kill(worker)
                atomic.remove_parts(path for path in job.outputs if path.parent.is_dir())
                self._start()
            else:
                self._idle.put((worker, None))
                return replace(outcome, retries=retries)
        raise X2CTError(f"{name}: its worker was lost {RETRIES + 1} times, the last time: {lost}")

    def stop(self) -> None:
        """Cancel what is being sampled at its next evaluation, and what waits for a worker."""
        self._stopped = True
        for worker in tuple(self._workers):
            worker.stop.remote()
        for _ in range(self.count):
            self._idle.put((None, Cancelled("cancelled")))

    def close(self) -> None:
        """End the workers."""
        while self._workers:
            self._kill(self._workers[0])

    def _start(self) -> None:
        """Start a worker, which is idle once it is open; where it waits for a machine, others go on."""
        worker = self._actor.remote(self._base, self._expected)
        self._workers.append(worker)
        opening = worker.open.remote().future()
        opening.add_done_callback(lambda future: self._idle.put((worker, future.exception())))

    def _kill(self, worker: Any) -> None:
        self._workers.remove(worker)
        self._ray.kill(worker)


def placement(nodes: Sequence[Mapping[str, float]], jobs: int | None, threads: int, gpu: bool) -> tuple[int, int]:
    """Return how many workers a cluster gets, and with how many cores each. Raises InputError: it has not so many.

    `nodes` are the resources of each machine by Ray's names, "CPU" and "GPU". Without `jobs` there are as many workers
    as GPUs (where each takes one: `gpu`), or as there are cores for with so many threads each, or machines; 0 threads
    are the most with which there are that many workers, and one beside a GPU.
    """
    cores = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]

    def most(threads: int) -> int:
        return sum(min(c // threads, g) if gpu else c // threads for c, g in zip(cores, gpus, strict=True))

    if not threads and not gpu:
        jobs = jobs or max(1, sum(c > 0 for c in cores))
        threads = next((count for count in range(max(cores, default=0), 1, -1) if most(count) >= jobs), 1)
    threads = threads or 1
    workers = most(threads)
    if workers < (jobs or 1):
        each = f"{threads} core{'s' * (threads > 1)}{' and a GPU' * gpu} each"
        machines = ", ".join(f"{c} cores{f' and {g} GPUs' * gpu}" for c, g in zip(cores, gpus, strict=True))
        found = f"{jobs or 1} of {each}"
        expected = f"at most {workers}: the cluster's machines have {machines or 'no cores'}"
        raise InputError.of("--jobs", "workers", found=found, expected=expected)
    return jobs or workers, threads


def _absolute(job: SampleJob) -> SampleJob:
    """The job with the paths of its files from the root: a worker has another current directory."""
    files: dict[str, Any] = {name: path.absolute() for name, path in vars(job).items() if isinstance(path, Path)}
    return replace(job, **files)


def _version(bundle: Bundle) -> str:
    """Return the versions that all machines must have in common for the same bytes."""
    return f"x2ct {__version__} and model {bundle.checksum[:16]}"


def _cause(error: BaseException) -> BaseException:
    """Return the exception that a worker raised, out of Ray's wrapping."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def _line(error: BaseException) -> str:
    """The last line of an error of Ray's, which says what happened, without the advice at its end."""
    return textwrap.shorten((str(error).strip().splitlines() or [type(error).__name__])[-1], 200, placeholder=" ...")
