"""The body of a request: X-ray files and options as multipart/form-data, read within limits of size and time.

The options are fields of `x2ct.jobs.sample.SampleJob`, by their names there and with their types and defaults. How an
X-ray is read is one field, `reading`: a JSON object with an object for each view, whose names are those of the command
line's options (`x2ct.io.xray.readoptions.ReadOptions`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from x2ct.errors import InputError
from x2ct.io.xray.readoptions import VIEWS, ReadOptions
from x2ct.jobs.options import Limits, SampleJob, XRayJob
from x2ct.serve.jobs import PREVIEW, REPORT, UNEXPLAINED, VOLUME, Job
from x2ct.serve.problem import Problem

CLOSE = {"Connection": "close"}  # what was not read of a body is not the next request

_SAMPLE = (
    "seed",
    "steps",
    "solver",
    "schedule",
    "mean",
    "consistency",
    "gamma",
    "samples",
    "preview_every",
    "strict",
    "force",
)
_READING = tuple(field.name for field in fields(ReadOptions))
_OPTIONS = TypeAdapter(ReadOptions)
_FIELD_BYTES = 64 * 1024
_MOST_PARTS = 32


class _Reading(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reading: str = Field("{}", description=f"JSON: how to read an X-ray, by view: {', '.join(_READING)}.")


class XRayForm(_Reading):
    """The fields beside the file in a request to read an X-ray."""

    view: Literal["ap", "pa", "lateral"] | None = None


class _Making(_Reading):
    format: Literal["nifti", "dicom"] = Field("nifti", description="dicom: also a series, as volume.zip.")
    surface: bool = Field(False, description="Also a mesh of the bones, as bone.stl.")


def _sample_form() -> type[_Making]:
    named = {one.name: one for one in fields(SampleJob)}
    declared: dict[str, Any] = {name: (named[name].type, named[name].default) for name in _SAMPLE}
    return create_model("SampleForm", __base__=_Making, **declared)


SampleForm = _sample_form()  # what can be said beside the files in a request for a CT


def schema(form: type[BaseModel], files: tuple[str, ...]) -> dict[str, Any]:
    """Return the request body of `form` and files for OpenAPI."""
    described = form.model_json_schema()
    binary = {name: {"type": "string", "format": "binary"} for name in files}
    described["properties"] = binary | described["properties"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": described}}}}


@dataclass(frozen=True)
class Posted:
    """A request's files, written into a folder, and its options."""

    files: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, ReadOptions] = field(default_factory=dict)


async def receive(
    request: Request, folder: Path, limits: Limits, form: type[BaseModel], files: tuple[str, ...]
) -> Posted:
    """Read a body, and write its files into a folder that is private to the job, each under the name of its field.

    `form` and `files` are the fields and files that there may be. Raises Problem: 400, not a form; 408, too slow; 413,
    too large; 422, a field is wrong, or in the address. Raises ClientDisconnect where the client is gone.
    """
    if misplaced := next((name for name in request.query_params if name != "wait"), None):
        expected = f"a part of the form, as curl's -F {misplaced}=..."
        raise Problem.of(422, misplaced, "place", found="it in the address", expected=expected, headers=CLOSE)
    try:
        async with asyncio.timeout(limits.body_s):
            data = await _parsed(request, limits)
    except TimeoutError:
        expected = f"all of it within {limits.body_s:g} s"
        raise Problem.of(408, "body", "time", found="more", expected=expected, headers=CLOSE) from None
    try:
        return await _sorted(data, folder, form, files)
    finally:
        await data.close()


async def _parsed(request: Request, limits: Limits) -> FormData:
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        found, expected = repr(kind[:80]), "multipart/form-data"
        raise Problem.of(415, "body", "Content-Type", found=found, expected=expected, headers=CLOSE)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise _too_large(f"{int(length)} bytes", limits)
    most = {"max_files": _MOST_PARTS, "max_fields": _MOST_PARTS, "max_part_size": _FIELD_BYTES}
    parser = MultiPartParser(request.headers, _counted(request, limits), **most)
    try:
        return await parser.parse()
    except MultiPartException as error:
        expected = "multipart/form-data, at most 32 files and 32 fields of 64 KiB"
        raise Problem.of(400, "body", "form", found=error.message, expected=expected, headers=CLOSE) from None


async def _counted(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.body_bytes:
            raise _too_large("more", limits)
        yield chunk


def _too_large(found: str, limits: Limits) -> Problem:
    expected = f"at most {limits.body_bytes} bytes"
    return Problem.of(413, "body", "size", found=found, expected=expected, headers=CLOSE)


async def _sorted(data: FormData, folder: Path, form: type[BaseModel], files: tuple[str, ...]) -> Posted:
    """Write a form's files and check its fields."""
    written: dict[str, Path] = {}
    texts: dict[str, str] = {}
    for name, value in data.multi_items():
        if name in written or name in texts:
            raise Problem.of(422, name, "form", found="it twice", expected="it once")
        if isinstance(value, str):
            if name in files:
                hint = f"curl sends one with -F {name}=@FILE"
                raise Problem.of(422, name, "part", found="text", expected="a file", hint=hint)
            texts[name] = value
            continue
        if name not in files:
            raise Problem(InputError.unknown(name, "file", found=name, known=files))
        written[name] = folder / name
        with written[name].open("xb") as target:
            while chunk := await value.read(2**20):
                target.write(chunk)
    try:  # an empty field is one that a page leaves open
        options = dict(form.model_validate({name: text for name, text in texts.items() if text}))
    except ValidationError as error:
        raise _problem(error, form.model_fields) from None
    return Posted(written, options, _reading(options.pop("reading")))


def _reading(text: str) -> dict[str, ReadOptions]:
    """Return how to read each view's X-ray, from the field `reading`."""
    expected = "an object with an object by view"
    try:
        data = json.loads(text)
    except ValueError as error:
        raise Problem.of(422, "reading", "JSON", found=error, expected=expected) from None
    if not isinstance(data, dict) or not all(isinstance(settings, dict) for settings in data.values()):
        raise Problem.of(422, "reading", "JSON", found=repr(data)[:80], expected=expected)
    options = {}
    for view, settings in data.items():
        if view not in VIEWS:
            raise Problem(InputError.unknown("reading", "view", found=view, known=VIEWS))
        if unknown := next((name for name in settings if name not in _READING), None):
            raise Problem(InputError.unknown(f"reading {view} {unknown}", "name", found=unknown, known=_READING))
        try:
            options[view] = _OPTIONS.validate_python(settings)
        except ValidationError as error:
            raise _problem(error, _READING, f"reading {view} ") from None
        except InputError as error:
            raise Problem(error) from None
    return options


def _problem(error: ValidationError, known: Iterable[str], before: str = "") -> Problem:
    """Return the first complaint of pydantic's as one of ours; `known` are the names that there are."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return Problem(InputError.unknown(f"{before}{name}", "name", found=name, known=known))
    expected = first["msg"].removeprefix("Input should be ").partition(", unable")[0]
    return Problem.of(422, f"{before}{name}", "value", found=repr(first["input"])[:80], expected=expected)


def sample_job(job: Job, posted: Posted, template: SampleJob, limits: Limits) -> None:
    """Put what was posted into a job, with the server's own settings; raises Problem at more samples than it takes."""
    options = dict(posted.options)
    job.dicom, job.surface = options.pop("format") == "dicom", options.pop("surface")
    if options["samples"] > limits.samples:
        raise Problem.of(422, "samples", "value", found=options["samples"], expected=f"at most {limits.samples}")
    if not posted.files.keys() & set(VIEWS):
        raise Problem.of(
            422, "X-rays", "files", found="none", expected="ap or pa, lateral, or a frontal one and lateral"
        )
    files: dict[str, Any] = {name: posted.files.get(name) for name in (*VIEWS, "geometry")}
    job.sample = replace(
        template,
        output=job.folder / VOLUME,
        report=job.folder / REPORT,
        preview=job.folder / PREVIEW,
        unexplained=job.folder / UNEXPLAINED,
        reading=posted.reading,
        **files,
        **options,
    )


def xray_job(folder: Path, posted: Posted, template: SampleJob) -> XRayJob:
    """Return the job that reads a posted X-ray, every stage drawn; raises Problem where there is no X-ray."""
    if "xray" not in posted.files:
        raise Problem.of(422, "xray", "file", found="none", expected="an X-ray")
    view, reading = posted.options["view"], posted.reading
    if view is None and len(reading) == 1:  # what is said of the only X-ray holds whatever its view is
        reading = dict.fromkeys(VIEWS, next(iter(reading.values())))
    geometry, stages, output = posted.files.get("geometry"), folder / "stages.png", folder / "detector.npy"
    return XRayJob(posted.files["xray"], view, geometry, reading, template.model, stages, output)
