"""Files in, files out: one function per command, each usable from Python as from the command line.

Every output is checked before the long run and moved into place after it: a run that fails or is cancelled leaves no
new file, and never half of one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from x2ct.errors import InputError, X2CTError
from x2ct.output import check_writable

if TYPE_CHECKING:
    from x2ct.radiograph import XRay
    from x2ct.sampler import Preview, Result
    from x2ct.volume import Volume

AnyPath = str | PathLike[str]
StepProgress = Callable[[int, int, float], None]
StageProgress = Callable[[str], None]


@dataclass(frozen=True)
class SampleJob:
    """What `x2ct sample` is asked to do.

    Attributes:
        output: the CT, .nii or .nii.gz.
        ap, pa, lateral: X-ray files; at least one, and not both ap and pa.
        geometry: a geometry file (JSON) that says where the X-rays were taken from.
        spacing_mm: the X-rays' pixel pitch (row, column), where their files don't say it or say it wrong.
        model: a bundle's folder, or the name of a bundled model.
        preview: a PNG of the CT and the X-rays.
        preview_every: draw it also while sampling, after every so many evaluations, with the CT as it is by then.
        report: the report as JSON.
        samples: how many; with more than one, `output` is their mean, and beside it go NAME_std, their voxel-wise
            standard deviation in HU, and NAME_000, NAME_001, ..., each of them.
        shape, voxel_mm: of the CT, by default the model's own.
        memory, halo: see `x2ct.Sampler`.
        seed, steps, solver, schedule, mean, consistency, gamma: see `x2ct.Sampler.run`.
        device, backend, precision, provider, provider_options, threads: see `x2ct.Sampler`.
    """

    output: Path
    ap: Path | None = None
    pa: Path | None = None
    lateral: Path | None = None
    geometry: Path | None = None
    spacing_mm: tuple[float, float] | None = None
    model: str = "chest"
    preview: Path | None = None
    preview_every: int | None = None
    report: Path | None = None
    seed: int = 0
    steps: int | None = None
    solver: str | None = None
    schedule: str | None = None
    mean: bool = False
    consistency: str = "off"
    gamma: float | None = None
    samples: int = 1
    shape: tuple[int, int, int] | None = None
    voxel_mm: tuple[float, float, float] | None = None
    memory: int | None = None
    halo: int | None = None
    device: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    provider: str = ""
    provider_options: tuple[tuple[str, str], ...] = ()
    threads: int = 0

    @property
    def inputs(self) -> dict[str, Path]:
        """The X-ray files by view."""
        views = {"ap": self.ap, "pa": self.pa, "lateral": self.lateral}
        return {name: path for name, path in views.items() if path is not None}

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files to write, the CT first."""
        more = (*self.each, self.spread) if self.samples > 1 else ()
        return (self.output, *more, *(path for path in (self.preview, self.report) if path is not None))

    @property
    def spread(self) -> Path:
        """The standard deviation of several samples."""
        return self._beside("std")

    @property
    def each(self) -> tuple[Path, ...]:
        """The samples themselves, where there are several."""
        return tuple(self._beside(f"{sample:03d}") for sample in range(self.samples))

    def _beside(self, what: str) -> Path:
        stem, dot, ending = self.output.name.partition(".nii")
        return self.output.with_name(f"{stem}_{what}{dot}{ending}")


def sample_files(
    job: SampleJob, *, stage: StageProgress | None = None, progress: StepProgress | None = None
) -> dict[str, Any]:
    """X-ray files to a CT file; returns the report.

    Args:
        job: what to do.
        stage: told what is being done now, in a few words.
        progress: called with (evaluations done, of how many, sigma).

    Raises:
        X2CTError: any of the family; nothing has been written.
    """
    say = stage or _silent
    _check_job(job)
    say("reading the X-rays")
    from x2ct.geometry import Geometry
    from x2ct.radiograph import XRay

    geometry = Geometry.load(job.geometry) if job.geometry else None
    xrays = {name: XRay.load(path, spacing=job.spacing_mm) for name, path in job.inputs.items()}
    say("loading the model")
    from x2ct.bundle import Bundle
    from x2ct.grid import Grid
    from x2ct.sampler import Sampler

    def first_steps(done: int, total: int, sigma: float) -> None:
        say("sampling")
        if progress is not None:
            progress(done, total, sigma)

    bundle = Bundle.load(job.model)
    sampler = Sampler(
        bundle,
        device=job.device,
        backend=job.backend,
        precision=job.precision,
        threads=job.threads,
        grid=Grid(job.shape or bundle.grid.shape, job.voxel_mm or bundle.grid.spacing_mm),
        memory=job.memory,
        halo=job.halo,
        provider=job.provider,
        provider_options=dict(job.provider_options),
    )
    say("compiling the networks")
    with staged(job.outputs) as place, _live_picture(job, xrays) as draw:

        def keep(sample: int, ct: Volume) -> None:
            say("writing")
            ct.save(place(job.each[sample]), synthetic=True)

        result = sampler.run(
            ap=xrays.get("ap"),
            pa=xrays.get("pa"),
            lateral=xrays.get("lateral"),
            geometry=geometry,
            seed=job.seed,
            steps=job.steps,
            solver=job.solver,
            schedule=job.schedule,
            mean=job.mean,
            consistency=job.consistency,
            gamma=job.gamma,
            samples=job.samples,
            each=keep if job.samples > 1 else None,
            progress=first_steps,
            preview=draw,
            preview_every=job.preview_every or 1,
        )
        say("writing")
        return _write(job, result, xrays, place)


def _write(job: SampleJob, result: Result, xrays: Mapping[str, XRay], place: Callable[[Path], Path]) -> dict[str, Any]:
    """What the job asks for beside the samples, to where `place` says; returns the report with the files in it."""
    from x2ct import report as reports

    report = result.report
    report["inputs"] = [entry | reports.file_record(job.inputs[entry["view"]]) for entry in report["inputs"]]
    if job.geometry:
        report["geometry"] = reports.file_record(job.geometry)
    result.volume.save(place(job.output), synthetic=True)
    if result.spread is not None:
        result.spread.save(place(job.spread), synthetic=True)
    if job.preview:
        from x2ct import preview

        preview.save(place(job.preview), result.volume, xrays)
    report["outputs"] = [reports.file_record(place(path)) for path in job.outputs if path != job.report]
    report["peak_memory_bytes"] = reports.peak_memory_bytes()
    if job.report:
        reports.write_json(report, place(job.report))
    return report


@contextmanager
def _live_picture(job: SampleJob, xrays: Mapping[str, XRay]) -> Iterator[Preview | None]:
    """What draws the CT as it is by then to the preview's name, whole each time; a run that fails takes it along."""
    if job.preview is None or job.preview_every is None:
        yield None
        return
    from x2ct import preview

    target, drawn = job.preview, False

    def draw(done: int, total: int, sigma: float, ct: Volume) -> None:
        nonlocal drawn
        preview.save(target, ct, xrays)
        drawn = True

    try:
        yield draw
    except BaseException:
        if drawn:
            target.unlink(missing_ok=True)
        raise


def _check_job(job: SampleJob) -> None:
    """What can be known to be wrong before anything heavy is loaded."""
    from x2ct import volume

    if not job.inputs:
        raise InputError("X-rays: found none, expected --ap or --pa, --lateral, or a frontal view and --lateral")
    if job.preview_every is not None and job.preview is None:
        raise InputError.of("--preview-every", "options", found="no --preview", expected="a picture to draw")
    if job.ap and job.pa:
        raise InputError("X-rays: found both --ap and --pa, expected one frontal view")
    for path in (*job.inputs.values(), *((job.geometry,) if job.geometry else ())):
        if not path.exists():
            raise InputError.of(path, "file", found="nothing there", expected="a file that can be read")
    check_outputs(job.outputs, (*job.inputs.values(), *((job.geometry,) if job.geometry else ())))
    volume.check_writable(job.output)
    if job.preview:
        check_writable(job.preview, (".png",))
    if job.report:
        check_writable(job.report, (".json",))


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """No output may be an input, or another output. Raises InputError."""
    read = {path.resolve() for path in inputs}
    written: set[Path] = set()
    for path in outputs:
        place = path.resolve()
        if place in read or place in written:
            found = "an input of the same run" if place in read else "the name of another output"
            raise InputError.of(path, "output", found=found, expected="a name of its own")
        written.add(place)


@contextmanager
def staged(outputs: Sequence[Path]) -> Iterator[Callable[[Path], Path]]:
    """Write several files so that all of them appear, or none.

    Yields a function from each output to the path to write it to, in a hidden folder beside it. When the block ends
    well they are moved into place; when it raises, for whatever reason, the hidden folders go with what is in them.

    Raises:
        X2CTError: a hidden folder can't be made, or a file can't be moved.
    """
    folders: dict[Path, Path] = {}

    def place(output: Path) -> Path:
        return folders[output.parent] / output.name

    try:
        for parent in {output.parent for output in outputs}:
            folders[parent] = Path(tempfile.mkdtemp(prefix=".x2ct-", dir=parent))
        yield place
        for output in outputs:
            os.replace(place(output), output)
    except OSError as error:
        raise X2CTError(f"{error.filename or 'output'}: not written: {error.strerror or error}") from error
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)


def _silent(_: str) -> None:
    """Tell nobody."""
