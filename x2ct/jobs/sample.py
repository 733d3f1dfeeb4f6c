"""Files in, files out: one study, its dry run, and a CT's X-rays.

Every output is checked before the long run and moved into place after it: a run that fails or is cancelled leaves no
new file, and never half of one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from x2ct.errors import InputError
from x2ct.files.atomic import check_outputs, check_writable, staged
from x2ct.geometry import MU_WATER_PER_MM
from x2ct.io.xray.readoptions import refuse_beams_beside
from x2ct.jobs.options import SampleJob as SampleJob

if TYPE_CHECKING:
    from x2ct.bundle import Bundle
    from x2ct.engine.sampler import Preview, Sampler
    from x2ct.geometry import Geometry
    from x2ct.io.ct.volume import Volume
    from x2ct.io.xray.radiograph import XRay
    from x2ct.render.drr import Drr

AnyPath = str | PathLike[str]
StageProgress = Callable[[str], None]


def open_sampler(job: SampleJob, bundle: Bundle | None = None) -> Sampler:
    """Return the model that a job names, or one that is loaded already, on its grid and device. Raises X2CTError."""
    from x2ct.bundle import Bundle
    from x2ct.engine.sampler import Sampler
    from x2ct.geometry.grid import Grid

    bundle = bundle or Bundle.load(job.model)
    grid = Grid(job.shape or bundle.grid.shape, job.voxel_mm or bundle.grid.spacing_mm)
    same = ("device", "backend", "precision", "threads", "memory", "halo", "provider", "compiled", "trust")
    options: dict[str, Any] = {name: getattr(job, name) for name in same}
    return Sampler(bundle, grid=grid, provider_options=dict(job.provider_options), **options)


def sample_files(
    job: SampleJob,
    *,
    sampler: Sampler | None = None,
    stage: StageProgress = lambda _: None,
    progress: Callable[[int, int, float], None] = lambda *_: None,
) -> dict[str, Any]:
    """Sample X-ray files to a CT file and return the report. Raises X2CTError; nothing has been written then.

    `sampler` is what `open_sampler` returned for this job, or for another of the same model and device. `stage` is
    called with what is being done now, in a few words, `progress` with (evaluations done, of how many, sigma).
    """
    from x2ct.io import report as reports

    xrays, geometry = _inputs(job, stage)
    stage("loading the model")
    sampler = sampler or open_sampler(job)
    model = f"{sampler.bundle.name} {sampler.bundle.checksum}"

    def first_steps(done: int, total: int, sigma: float) -> None:
        stage("sampling")
        progress(done, total, sigma)

    stage("compiling the networks")
    with staged(job.outputs) as place, _live_picture(job, xrays) as draw:

        def keep(sample: int, ct: Volume) -> None:
            stage("writing")
            _save_ct(job, ct, place(job.each[sample]), model, geometry)

        result = sampler.run(
            job.options,
            **xrays,
            geometry=geometry,
            strict=job.strict,
            align=job.align,
            force=job.force,
            each=keep if job.samples > 1 else None,
            progress=first_steps,
            preview=draw,
            preview_every=job.preview_every or 1,
        )
        stage("writing")
        _save_ct(job, result.volume, place(job.output), model, geometry)
        if result.spread is not None:
            _save_ct(job, result.spread, place(job.spread), model, geometry)
        if job.pictures:
            from x2ct.render import preview

            if job.preview:
                preview.save(place(job.preview), result.volume, xrays, residuals=result.residuals, spread=result.spread)
            if job.unexplained:
                preview.save_unexplained(place(job.unexplained), result.residuals, xrays)
        report = result.report
        report["inputs"] = [entry | reports.file_record(job.inputs[entry["view"]]) for entry in report["inputs"]]
        if job.geometry:
            report["geometry"] = reports.file_record(job.geometry)
        if geometry is not None and geometry.origin_world_mm is not None:
            report["grid"]["origin_world_mm"] = list(geometry.origin_world_mm)
        report["outputs"] = [reports.file_record(place(path)) for path in job.outputs if path != job.report]
        report["peak_memory_bytes"] = reports.peak_memory_bytes()
        if job.report:
            reports.write_json(report, place(job.report))
        return report


def rehearse_files(job: SampleJob, *, stage: StageProgress = lambda _: None) -> dict[str, Any]:
    """Return what `sample_files` would do and take, after two evaluations; nothing is left on the disk.

    It is `x2ct.Sampler.dry_run`'s report, with the names of the files that would be written in `outputs`, and in
    `estimate` also `writing_s`, the seconds to write the CTs. Raises X2CTError.
    """
    import numpy as np

    from x2ct.io.ct.volume import Volume

    xrays, geometry = _inputs(job, stage)
    stage("loading the model")
    sampler = open_sampler(job)
    stage("trying two evaluations")
    report = sampler.dry_run(
        job.options, **xrays, geometry=geometry, strict=job.strict, align=job.align, force=job.force
    )
    noise = np.random.default_rng(0).standard_normal(sampler.grid.shape, np.float32) * np.float32(30)
    started = time.perf_counter()  # how long one CT of noise takes to write
    with tempfile.TemporaryDirectory(prefix="x2ct-") as folder:
        _save_ct(job, Volume(noise, sampler.grid.index_to_mm, synthetic=True), Path(folder) / job.output.name)
    seconds = (time.perf_counter() - started) * (job.samples + 2 if job.samples > 1 else 1)
    report["estimate"]["writing_s"] = round(seconds, 6)
    return {**report, "outputs": [{"file": path.name} for path in job.outputs]}


def drr_files(
    ct: AnyPath,
    folder: AnyPath,
    geometry: AnyPath = "parallel",
    views: Sequence[str | float] | None = None,
    *,
    centre: str = "lungs",
    keep_couch: bool = False,
    mu_water: float = MU_WATER_PER_MM,
    threads: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Drr:
    """Project a CT file to X-ray files, placed as `x2ct prepare` and `x2ct evaluate` place it.

    The folder is made if it is not there; files of the same names are replaced. For `geometry` ("parallel", "cone" or a
    geometry file) and `views` see `x2ct.render.drr.geometry_of`, for `centre` and `keep_couch`
    `PrepareOptions`; `mu_water` is the attenuation of water per mm; 0 threads are every processor.
    `progress` is called with the views done and the views in all. Raises InputError: a CT, a geometry or a folder that
    can't be used, or a view that misses the CT; X2CTError: the write failed; each file is whole or not there.
    """
    from x2ct.data.prepare import PrepareOptions, read_body
    from x2ct.render import drr

    layout = drr.geometry_of(geometry, views)
    target = drr.check_folder(folder, layout)
    # As fine as `prepare` and `evaluate` keep a CT, or as the pixels need it.
    pixel_mm = min(round(min(view.spacing_mm) / view.magnification, 6) for view in layout.views)
    body = read_body(ct, PrepareOptions(centre, min(PrepareOptions.finest_mm, pixel_mm), keep_couch))
    x, y, z = (float(mm) for mm in body.origin[:3, 3])
    placed = replace(layout, origin_world_mm=(x, y, z))
    images = drr.radiographs(body.hu, body.index_to_mm, placed, mu_water=mu_water, threads=threads, progress=progress)
    return drr.Drr(drr.save(target, images, placed), placed, drr.cut_off(placed, images))


def _inputs(job: SampleJob, stage: StageProgress) -> tuple[dict[str, Any], Geometry | None]:
    """Return a job's X-rays by the argument of `x2ct.Sampler.run` that takes each, and where they were taken from."""
    check_job(job)
    stage("reading the X-rays")
    from x2ct.geometry import Geometry
    from x2ct.io.xray.radiograph import XRay

    xrays = {name: XRay.load(path, options=job.reading.get(name)) for name, path in job.inputs.items()}
    return xrays, Geometry.load(job.geometry) if job.geometry else None


def _save_ct(job: SampleJob, ct: Volume, path: Path, model: str = "", geometry: Geometry | None = None) -> None:
    """Write a CT; with a geometry, over the CT that the X-rays were projected from."""
    from x2ct.io.ct.volume import Origin

    if geometry is not None:
        ct = replace(ct, affine=geometry.to_world @ ct.affine)
    ct.save(path, synthetic=True, kind=job.format, origin=Origin(tuple(job.inputs.values()), model))


@contextmanager
def _live_picture(job: SampleJob, xrays: Mapping[str, XRay]) -> Iterator[Preview | None]:
    """Yield what draws the CT so far to the preview's name, whole each time; a run that fails takes it along."""
    if job.preview is None or job.preview_every is None:
        yield None
        return
    from x2ct.render import preview

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


def check_job(job: SampleJob) -> None:
    """Raise InputError for wrong options and files before anything heavy is loaded."""
    from x2ct.io.ct import volume

    if not job.inputs:
        raise InputError("X-rays: found none, expected --ap or --pa, --lateral, or a frontal view and --lateral")
    if job.preview_every is not None and job.preview is None:
        raise InputError.of("--preview-every", "options", found="no --preview", expected="a picture to draw")
    refuse_beams_beside(job.geometry, job.reading)
    if job.ap and job.pa:
        raise InputError("X-rays: found both --ap and --pa, expected one frontal view")
    files = [*job.inputs.values(), *([job.geometry] if job.geometry else [])]
    for path in files:
        if not path.exists():
            raise InputError.of(path, "file", found="nothing there", expected="a file that can be read")
    check_outputs(job.outputs, files)
    if volume.check_writable(job.output, job.format) == "dicom":
        from x2ct.io.ct.dicomexport import read_headers

        read_headers(tuple(job.inputs.values()))
    for picture in job.pictures:
        check_writable(picture, (".png",))
    if job.report:
        check_writable(job.report, (".json",))
