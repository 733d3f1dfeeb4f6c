"""A cohort's folder: which files each study's job writes, and which an earlier run has finished."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.io import report
from x2ct.io.xray.readoptions import ReadOptions
from x2ct.jobs.cohort.studies import FILES, SUMMARY, Study
from x2ct.jobs.sample import SampleJob

SUMMARY_FILE = f"{SUMMARY}.csv"

_ENDINGS = {"nrrd": ".nrrd", "mha": ".mha", "dicom": ""}  # of other formats .nii.gz
_NOT_SETTINGS = ("output", "report", "preview", "model", *FILES)


def job_of(base: SampleJob, study: Study) -> SampleJob:
    """Return a study's job: the settings of all, and its own inputs, seed and files."""
    files: dict[str, Any] = {name: study.inputs.get(name) for name in FILES}
    reading = {view: replace(base.reading.get(view, ReadOptions()), **own) for view, own in study.reading.items()}
    return replace(
        base,
        output=base.output / f"{study.id}{_ENDINGS.get(base.format, '.nii.gz')}",
        report=base.output / f"{study.id}.json",
        seed=base.seed if study.seed is None else study.seed,
        reading={**base.reading, **reading},
        **files,
    )


def check_folder(folder: Path, planned: Mapping[str, SampleJob], resume: bool) -> None:
    """Make the folder, if need be, and see that the jobs may write into it.

    Raises:
        InputError: it can't be written, or has some of the files and nobody said to go on.
    """
    if not folder.exists():
        atomic.check_writable(folder)
        folder.mkdir()
    if not folder.is_dir():
        raise InputError.of(folder, "output", found="a file", expected="a folder")
    atomic.check_writable(folder / SUMMARY_FILE)
    there = [path for job in planned.values() for path in job.outputs if path.exists()]
    if there and not resume:
        found = f"{there[0].name} there already"
        raise InputError.of(folder, "output", found=found, expected="none of the studies", hint="go on with --continue")


def clear(job: SampleJob) -> None:
    """Takes away a DICOM series that an interrupted or other run left under a study's name; files are replaced."""
    for path in job.outputs:
        if path.is_dir() and all(file.suffix == ".dcm" for file in path.iterdir()):
            shutil.rmtree(path)


def fingerprint(model: str, job: SampleJob) -> str:
    """What a study's files depend on: settings, inputs, x2ct's version and the model."""
    from x2ct import __version__

    settings = {name: value for name, value in vars(job).items() if name not in _NOT_SETTINGS}
    told = [__version__, model, repr(sorted(settings.items()))]
    for name, path in sorted({**job.inputs, **({"geometry": job.geometry} if job.geometry else {})}.items()):
        told.append(f"{name} {report.sha256(path)}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def is_done(job: SampleJob, mark: str) -> bool:
    """Whether an earlier run finished this job: its report, which is written last, says so, and its files are whole."""
    assert job.report is not None
    if not job.report.exists():
        return False
    told = report.read_json(job.report)
    if told.get("study", {}).get("fingerprint") != mark:
        return False
    there = [path for path in job.outputs if path != job.report]
    return all(path.exists() for path in there) and [report.file_record(path) for path in there] == told.get("outputs")
