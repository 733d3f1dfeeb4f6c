"""The routes: X-rays and jobs under /v1, health, metrics, and the page."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import prometheus_client as prometheus
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from x2ct import __version__
from x2ct.engine.sampler import Sampler
from x2ct.errors import X2CTError
from x2ct.io import report
from x2ct.io.xray.readoptions import VIEWS
from x2ct.jobs.options import Limits
from x2ct.jobs.sample import SampleJob, check_job
from x2ct.render.viewer import WINDOWS
from x2ct.serve import form, jobs
from x2ct.serve.jobs import DONE, PREVIEW, RUNNING, SERIES, VOLUME, Job, Jobs
from x2ct.serve.problem import Problem

PAGE = Path(__file__).with_name("page")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
XRAY_PX = 512
_BEARER = HTTPBearer(auto_error=False, description="Where the server was started with a token.")
NO_STORE = {"Cache-Control": "no-store"}
_Wait = Annotated[bool, Query(description="Answer with the CT; with `Accept: application/zip`, with all files.")]
_READERS = 2  # X-rays that are read at a time for /v1/xray
_POLL_S = 0.1
_TYPES = {".gz": "application/gzip", ".json": "application/json", ".png": "image/png", ".zip": "application/zip"}
_ERRORS = {
    401: "no token, or a wrong one",
    408: "the body came too slowly",
    413: "the body is too large",
    422: "an X-ray or an option can't be used",
    429: "the queue is full",
    503: "shutting down, or a runtime is missing",
}


class Metrics:
    """The figures of /metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        text, buckets = "Seconds that jobs ran, by how they ended.", (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)
        self.seconds = prometheus.Histogram("x2ct_job_seconds", text, ["state"], buckets=buckets, registry=registry)
        text = "Requests answered with an error, by HTTP status."
        self.problems = prometheus.Counter("x2ct_problems", text, ["status"], registry=registry)

    def watch(self, queue: Jobs) -> None:
        """Tell the queue's figures as they are when asked."""
        for name, text, value in (
            ("x2ct_jobs_waiting", "Jobs that wait.", lambda: float(queue.waiting)),
            ("x2ct_jobs_running", "Jobs that run: 0 or 1.", lambda: float(queue.running)),
            ("x2ct_ready", "1 once the model is compiled, until shutdown.", lambda: float(queue.accepting)),
        ):
            prometheus.Gauge(name, text, registry=self.registry).set_function(value)


def create_app(
    sampler: Sampler,
    template: SampleJob,
    limits: Limits | None = None,
    *,
    token: str = "",
    hosts: tuple[str, ...] = ("*",),
    failed: Callable[[], object] = lambda: None,
) -> FastAPI:
    """Return the application; `app.state.jobs` is its queue.

    The worker compiles the sampler, which `template` has opened and whose settings all jobs have; `failed` is called,
    in another thread, where it can't. Clients must send `token`, if any, as a bearer token under /v1 and for /metrics;
    `hosts` are the values of the Host header that are answered, "*" any.
    """
    limits, metrics = limits or Limits(), Metrics()

    def finished(state: str, seconds: float) -> None:
        metrics.seconds.labels(state).observe(seconds)

    queue = Jobs(sampler, template, limits, finished=finished, failed=failed)
    metrics.watch(queue)

    async def expire() -> None:
        while True:
            await asyncio.sleep(min(1.0, limits.keep_s))
            queue.expire()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        queue.start()
        reaper = asyncio.create_task(expire())
        try:
            yield
        finally:
            reaper.cancel()
            await run_in_threadpool(queue.close)

    # FastAPI's own pages load their scripts from elsewhere.
    pages: dict[str, Any] = {"docs_url": None, "redoc_url": None}
    app = FastAPI(title="x2ct", version=__version__, description=report.NOTICE, lifespan=lifespan, **pages)
    app.state.jobs = queue
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    _answer_problems(app, metrics, queue.folder)
    guard = [Depends(_guard(token))]
    described: dict[int | str, dict[str, Any]] = {code: {"description": text} for code, text in _ERRORS.items()}
    app.include_router(_v1(queue), prefix="/v1", dependencies=guard, responses=described)
    _add_health(app, queue)
    _add_page(app)

    @app.get("/metrics", dependencies=guard, response_class=PlainTextResponse, summary="Figures for Prometheus")
    def figures() -> Response:
        return Response(prometheus.generate_latest(metrics.registry), media_type=prometheus.CONTENT_TYPE_LATEST)

    return app


def _answer_problems(app: FastAPI, metrics: Metrics, folder: Path) -> None:
    """Answer every error with the JSON of a `Problem`."""

    async def answer(request: Request, error: Exception) -> Response:
        problem = _problem(request, error, folder)
        metrics.problems.labels(str(problem.status)).inc()
        return JSONResponse(problem.body, problem.status, headers=problem.headers | NO_STORE)

    for kind in (Problem, X2CTError, HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, answer)


def _problem(request: Request, error: Exception, folder: Path) -> Problem:
    match error:
        case Problem():
            return error
        case X2CTError():
            return Problem(error)
        case HTTPException():
            method, expected = f"{request.method} ({error.detail})", "one that /openapi.json lists"
            return Problem.of(error.status_code, "request", "path", found=method, expected=expected)
        case RequestValidationError():
            first = error.errors()[0]
            name, value = ".".join(map(str, first["loc"])), repr(first.get("input"))[:80]
            return Problem.of(422, name, "value", found=value, expected=first["msg"])
        case ClientDisconnect():
            return Problem.of(400, "body", "end", found="none", expected="the whole body")
    jobs.log_unexpected(error)
    return Problem.of_failure(error, folder)


def _guard(token: str) -> Callable[..., Awaitable[None]]:
    """Return the dependency that lets a request through, or raises."""

    async def guard(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None
    ) -> None:
        if request.method != "GET" and request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Problem.of(403, "request", "origin", found="another site's page", expected="this server's own")
        sent = credentials.credentials if credentials else ""
        if token and not hmac.compare_digest(sent.encode(), token.encode()):
            found = "another" if sent else "none"
            headers = {"WWW-Authenticate": "Bearer"} | form.CLOSE
            raise Problem.of(401, "Authorization", "token", found=found, expected="Bearer TOKEN", headers=headers)

    return guard


def _v1(queue: Jobs) -> APIRouter:
    v1 = APIRouter(tags=["x2ct"])
    readers = asyncio.Semaphore(_READERS)

    @v1.get("/info", summary="The model and the limits")
    def info() -> dict[str, Any]:
        bundle, limits = queue.sampler.bundle, queue.limits
        return {
            "version": __version__,
            "notice": report.NOTICE,
            "model": {"name": bundle.name, "sha256": bundle.checksum},
            "views": [view.name for view in bundle.geometry.views],
            "grid": {"shape": list(queue.sampler.grid.shape), "spacing_mm": list(queue.sampler.grid.spacing_mm)},
            "device": queue.sampler.choice.device,
            "windows_hu": WINDOWS,
            "limits": vars(limits),
        }

    @v1.post("/xray", openapi_extra=form.schema(form.XRayForm, ("xray", "geometry")), summary="How an X-ray is read")
    async def xray(request: Request) -> Response:
        with TemporaryDirectory(prefix="xray-", dir=queue.folder, ignore_cleanup_errors=True) as name:
            folder = Path(name)
            with _nameless(folder):
                posted = await form.receive(request, folder, queue.limits, form.XRayForm, ("xray", "geometry"))
                async with readers:
                    record = await run_in_threadpool(_read, folder, posted, queue.template)
        return JSONResponse(record, headers=NO_STORE)

    files = (*VIEWS, "geometry")
    described = form.schema(form.SampleForm, files)

    @v1.post("/ct", status_code=202, openapi_extra=described, summary="A CT from one X-ray or two")
    async def ct(request: Request, wait: _Wait = False) -> Response:
        job = queue.reserve()
        try:
            posted = await form.receive(request, job.folder, queue.limits, form.SampleForm, files)
            form.sample_job(job, posted, queue.template, queue.limits)
            with _nameless(job.folder):
                await run_in_threadpool(_check, job)
            job.awaited = wait
            queue.submit(job)
        except BaseException:
            queue.remove(job)
            raise
        if wait:
            return await _awaited(queue, job, request)
        place = {"Location": f"{request.url.path}/{job.id}"}
        return JSONResponse(queue.facts(job), 202, headers=place | NO_STORE)

    @v1.get("/ct/{name}", summary="What has become of a job")
    def state(name: str) -> JSONResponse:
        return JSONResponse(queue.facts(queue.get(name)), headers=NO_STORE)

    @v1.delete("/ct/{name}", status_code=204, summary="Cancel a job, and remove its files")
    def delete(name: str) -> Response:
        queue.remove(queue.get(name))
        return Response(status_code=204)

    @v1.get("/ct/{name}/{file}", summary="A file of a job: volume.nii.gz, report.json, preview.png ...")
    def fetch(name: str, file: str) -> Response:
        job = queue.get(name)
        if file == PREVIEW and job.state == RUNNING:
            return _live(job)
        if job.problem is not None:
            raise job.problem
        if not job.over:
            raise Problem.of(409, file, "state", found=job.state, expected=DONE, headers={"Retry-After": "1"})
        return _delivered(queue, job, file)

    return v1


@contextmanager
def _nameless(folder: Path) -> Iterator[None]:
    """Leave a request's private folder out of what fails within; raises Problem."""
    try:
        yield
    except X2CTError as error:
        raise Problem.of_failure(error, folder) from error


def _read(folder: Path, posted: form.Posted, template: SampleJob) -> dict[str, Any]:
    """Return the report of `x2ct xray`, with pictures of the result and of every stage."""
    from PIL import Image

    from x2ct.jobs.xray_stages import xray_file
    from x2ct.render.panels import data_uri, png, window

    job = form.xray_job(folder, posted, template)
    record = xray_file(job)
    assert job.output is not None and job.stages is not None
    detector = np.load(job.output, allow_pickle=False)
    picture = Image.fromarray(window(detector))
    picture.thumbnail((XRAY_PX, XRAY_PX))
    pictures = {"picture": data_uri(png(picture)), "stages_picture": data_uri(job.stages.read_bytes())}
    return record | pictures | {"outputs": []}


def _check(job: Job) -> None:
    """Raise X2CTError for a job whose options or files can't be used, before it is queued."""
    assert job.sample is not None
    check_job(job.sample)
    if job.dicom:
        from x2ct.io.ct.dicomexport import read_headers

        read_headers(tuple(job.sample.inputs.values()))


async def _awaited(queue: Jobs, job: Job, request: Request) -> Response:
    """The CT once it is done, or all files; a client that leaves cancels the job."""
    while not job.over:
        if await request.is_disconnected():
            queue.remove(job)
            return Response(status_code=499)
        await asyncio.sleep(_POLL_S)
    if job.problem is not None:
        queue.remove(job)
        raise job.problem
    path = job.files[SERIES if job.dicom else VOLUME]
    if "application/zip" in request.headers.get("accept", ""):
        path = job.folder / "all.zip"
        await run_in_threadpool(jobs.zipped, path, job.files)

    return _file(path, lambda: None, lambda: queue.remove(job))


def _live(job: Job) -> Response:
    """The preview as it is by now."""
    with suppress(OSError):
        return Response((job.folder / PREVIEW).read_bytes(), media_type="image/png", headers=NO_STORE)
    hint = "with the field preview_every it is drawn while the job runs"
    raise Problem.of(409, PREVIEW, "state", found=job.stage, expected=DONE, hint=hint)


def _delivered(queue: Jobs, job: Job, name: str) -> Response:
    """A file that goes when it was delivered whole."""
    path = job.files.get(name)
    if path is None or not path.exists():
        names = " or ".join(job.files)
        raise Problem.of(410, name, "file", found="none of this name", expected=names, hint="each can be fetched once")

    return _file(path, lambda: queue.fetched(job, name), lambda: None)


def _file(path: Path, delivered: Callable[[], None], ended: Callable[[], None]) -> Response:
    """Send a file; `delivered` is called once it is sent whole, `ended` also where the client left before."""

    async def content() -> AsyncIterator[bytes]:
        try:
            with path.open("rb") as file:
                while chunk := await run_in_threadpool(file.read, 2**18):
                    yield chunk
            await run_in_threadpool(delivered)
        finally:
            ended()

    size = str(path.stat().st_size)
    headers = {"Content-Disposition": f'attachment; filename="{path.name}"', "Content-Length": size} | NO_STORE
    return StreamingResponse(content(), media_type=_TYPES.get(path.suffix, "application/octet-stream"), headers=headers)


def _add_health(app: FastAPI, queue: Jobs) -> None:
    @app.get("/healthz", tags=["health"], summary="Whether the process answers")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        tags=["health"],
        summary="Whether a job would be taken",
        responses={503: {"description": "not ready"}},
    )
    def readyz() -> JSONResponse:
        if not queue.accepting:
            return JSONResponse({"status": "shutting down" if queue.draining else "compiling the model"}, 503)
        return JSONResponse({"status": "ready"})


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(PAGE / "index.html", headers=SAFE)

    app.mount("/page", _Assets(directory=PAGE))


class _Assets(StaticFiles):
    """The files of the page, which a browser has again only where they changed."""

    def file_response(self, *arguments: Any, **settings: Any) -> Response:
        answer = super().file_response(*arguments, **settings)
        answer.headers.update(SAFE)
        return answer
