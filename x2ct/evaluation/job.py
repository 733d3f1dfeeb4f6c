"""What `x2ct evaluate` is asked to do, and what can be known to be wrong about it beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from x2ct.errors import InputError, MissingRuntimeError
from x2ct.evaluation import conditions, page, predictions
from x2ct.files import atomic

FILES = ("evaluation.json", "evaluation.csv", "card.md", "evaluation.md")
PAGE = "index.html"  # beside them, with the extra `report`


@dataclass(frozen=True)
class EvaluateJob:
    """What `x2ct evaluate` is asked to do."""

    data: Path  # a folder of CTs (NIfTI, NRRD, MetaImage files or DICOM folders), or one; each is one test patient
    output: Path  # the folder for the report; see `FILES`
    page: bool = True  # also write the page, which needs the extra `report`
    bundle: str | None = None  # the model under test: a folder, or a bundled model's name
    predictions: Path | None = None  # a folder of volumes made elsewhere, see `x2ct.evaluation.predictions`
    frame: str = "auto"  # of their affines, one of `predictions.FRAMES`
    centre: str = "lungs"  # this and keep_couch: see `x2ct.data.PrepareOptions`
    keep_couch: bool = False
    baselines: Path | None = None  # shards to fit the baselines on
    region: str = "chest"  # of the patients to fit them on: "chest", "other" or "any"
    samples: int = 8  # of the bundle a case, of seeds 0 to N - 1; 0 for its mean estimate alone
    steps: int | None = None  # of a sample; by default the bundle's
    geometry: str = "bundle"  # of the test X-rays: "bundle" (the model's own), "parallel", "cone", or a geometry file
    conditions: tuple[str, ...] = ()  # names of `x2ct.evaluation.conditions`, or "every"
    probe: bool = False  # whether synthetic lesions are inserted, see `x2ct.evaluation.probe`
    cases: tuple[str, ...] = ()  # only these patients
    xrays: Path | None = None  # write each case's X-rays and geometry to a folder of its name in here
    shape: tuple[int, int, int] | None = None  # of the grid that is judged, where no bundle says so; by default the
    voxel_mm: tuple[float, float, float] | None = None  # shards', or 128^3 at 2.5
    device: str = "auto"  # this and the rest: see `x2ct.Sampler`
    backend: str = "auto"
    precision: str = "auto"
    threads: int = 0


def check(job: EvaluateJob) -> None:
    """Says what can be known to be wrong before anything long, and makes the folders.

    Raises:
        InputError: options that contradict each other, or a place that can't be written.
        MissingRuntimeError: a package that the page needs is not installed.
    """
    judged = [job.bundle, job.predictions, job.baselines]
    if not any(item is not None for item in judged):
        expected = "a bundle, --predictions or --baselines"
        raise InputError.of("evaluate", "what to judge", found="nothing", expected=expected)
    if job.bundle is not None and job.predictions is not None:
        hint = "two runs, two tables"
        raise InputError.of("evaluate", "what to judge", found="a bundle and --predictions", expected="one", hint=hint)
    if job.bundle is None:
        for option, chosen in (("--conditions", bool(job.conditions)), ("--probe", job.probe)):
            if chosen:
                hint = "predictions made elsewhere saw other X-rays already"
                raise InputError.of(option, "options", found="no bundle", expected="a bundle to run again", hint=hint)
    elif job.shape or job.voxel_mm:
        raise InputError.of("--shape, --voxel", "options", found="a bundle", expected="its own grid")
    if job.frame not in predictions.FRAMES:
        raise InputError.of("--frame", "value", found=job.frame, expected=" or ".join(predictions.FRAMES))
    if job.samples < 0:
        raise InputError.of("--samples", "value", found=job.samples, expected="0 or more")
    conditions.named(job.conditions)
    if job.page and (reason := page.unavailable()):
        raise MissingRuntimeError(f"{PAGE}: {reason}")
    if job.output.exists() and not job.output.is_dir():
        raise InputError.of(job.output, "output", found="a file", expected="a folder")
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        if job.xrays is not None:
            job.xrays.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError.of(job.output, "output", found=error.strerror, expected="a folder that can be made") from None
    atomic.check_writable(job.output / FILES[0])
