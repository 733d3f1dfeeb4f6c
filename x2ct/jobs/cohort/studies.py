"""A cohort's studies: read from a manifest, the files that each job writes, and which an earlier run has finished.

A manifest is a table that names each study's X-ray files, or a dataset in the layout of BIDS or nnU-Net.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from x2ct import __version__
from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.files.text import read_table
from x2ct.io import report
from x2ct.io.xray.readoptions import PARSERS, VIEWS, ReadOptions, ViewValue, by_view, parse_value
from x2ct.jobs.sample import SampleJob

FILES = (*VIEWS, "geometry")
COLUMNS = ("id", *FILES, "seed", *PARSERS)
"""The columns that a manifest may have, files first; `id` and at least one view it must have."""
MAX_STUDIES = 100_000
SUMMARY_FILE = "summary.csv"  # a run's own table, whose name no study may have

_BIDS_VIEWS = {"ap": "ap", "pa": "pa", "lateral": "lateral", "lat": "lateral", "ll": "lateral"}
_ENDINGS = (".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".nii", ".nii.gz")
_CT_ENDINGS = {"nrrd": ".nrrd", "mha": ".mha", "dicom": ""}  # by format; of others .nii.gz
_NOT_SETTINGS = ("output", "report", "preview", "unexplained", "model", *FILES)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Study:
    """One line of a manifest: a name for its files, and its job's inputs and seed."""

    id: str
    inputs: dict[str, Path]  # by column
    seed: int | None  # None for that of all
    reading: dict[str, dict[str, Any]]  # by view and by field of `ReadOptions`


def read_manifest(path: str | PathLike[str]) -> tuple[Study, ...]:
    """Read the studies of a manifest, which is one of three.

    A CSV or TSV file whose first line names its columns; file names are relative to it. BIDS' `participants.tsv`: of
    each participant, the files `sub-ID_*_vp-VIEW_*` below the folder `sub-ID`, VIEW being ap, pa, lateral, lat or ll;
    files whose names differ in the view alone are one study, and its id is the name without view and suffix. nnU-Net's
    `imagesTr` or `imagesTs`: the files `CASE_0000.EXT`, with the views that `channel_names` in the `dataset.json`
    beside the folder says.

    Raises InputError: no such file, no table, an unknown column, an id that is doubled or no file name, a line without
    a view, a seed that is no number, or an option that an X-ray cannot have; of the layouts, a participant without
    X-rays, two files of one view, or a channel that is no view.
    """
    source = Path(path)
    columns: tuple[str, ...] = ("id",)
    if source.is_dir():
        table = _nnunet(source)
    elif source.name == "participants.tsv":
        table = _bids(source)
    else:
        columns, table = read_table(source, COLUMNS)
    if not 0 < len(table) <= MAX_STUDIES or "id" not in columns:
        found = f"{len(table)} studies with columns {', '.join(columns) or 'none'}"
        raise InputError.of(source, "content", found=found, expected=f"an id column and 1 to {MAX_STUDIES} studies")
    folder = source if source.is_dir() else source.parent
    studies = tuple(_study(f"{source}: line {number}", folder, row) for number, row in enumerate(table, 2))
    names = [study.id.lower() for study in studies]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError.of(source, "id", found=f"{twice} twice", expected="a name of its own for each study")
    return studies


def _nnunet(folder: Path) -> list[dict[str, str]]:
    """The cases of a folder of nnU-Net as a manifest's lines."""
    source = folder.parent / "dataset.json"
    if not source.is_file():
        expected = "a CSV, BIDS' participants.tsv, or nnU-Net's imagesTs or imagesTr"
        raise InputError.of(folder, "manifest", found="a folder without dataset.json beside it", expected=expected)
    facts = report.read_json(source)
    channels, ending = facts.get("channel_names"), facts.get("file_ending")
    views = {key: str(name).lower() for key, name in channels.items()} if isinstance(channels, dict) else {}
    if not views or not set(views.values()) <= set(VIEWS) or not all(key.isdecimal() for key in views):
        raise InputError.of(source, "channel_names", found=channels, expected='views by channel, {"0": "ap", ...}')
    if ending not in _ENDINGS:
        raise InputError.of(source, "file_ending", found=ending, expected=" or ".join(_ENDINGS))
    rows: dict[str, dict[str, str]] = {}
    for key, view in views.items():
        end = f"_{int(key):04d}{ending}"
        for file in sorted(folder.glob(f"*{end}")):
            case = file.name.removesuffix(end)
            rows.setdefault(case, {"id": case})[view] = file.name
    return list(rows.values())


def _bids(source: Path) -> list[dict[str, str]]:
    """The X-rays of a BIDS dataset's participants as a manifest's lines."""
    columns, table = read_table(source)
    if "participant_id" not in columns:
        raise InputError.of(source, "columns", found=", ".join(columns) or "none", expected="participant_id")
    rows: dict[str, dict[str, str]] = {}
    for number, participant in enumerate((row["participant_id"] for row in table), 2):
        where, before = f"{source}: line {number}", len(rows)
        if not _ID.fullmatch(participant):
            raise InputError.of(where, "participant_id", found=repr(participant[:120]), expected="sub-ID, a folder")
        for file in sorted((source.parent / participant).rglob(f"{participant}_*vp-*")):
            *entities, _ = file.name.partition(".")[0].split("_")
            words = [entity[3:].lower() for entity in entities if entity.startswith("vp-")]
            view = _BIDS_VIEWS.get("".join(words))
            if view is None or not file.name.lower().endswith(_ENDINGS):
                continue
            name = "_".join(entity for entity in entities if not entity.startswith("vp-"))
            row = rows.setdefault(name, {"id": name})
            if view in row:
                raise InputError.of(where, view, found=f"{row[view]} and {file.name}", expected="one file of each view")
            row[view] = str(file.relative_to(source.parent))
        if len(rows) == before:
            hint = "leave the line out"
            raise InputError.of(where, "X-rays", found="none", expected=f"{participant}_..._vp-VIEW_...", hint=hint)
    return list(rows.values())


def _study(where: str, folder: Path, row: dict[str, str]) -> Study:
    name = row["id"]
    if not _ID.fullmatch(name) or f"{name.lower()}.csv" == SUMMARY_FILE:
        expected = "letters, digits, '.', '_' and '-', and not summary: it names files"
        raise InputError.of(where, "id", found=repr(name[:120]), expected=expected)
    inputs = {key: folder / row[key] for key in FILES if row.get(key)}
    if not inputs.keys() & set(VIEWS):
        raise InputError.of(where, "X-rays", found="none", expected="ap or pa, lateral, or a frontal view and lateral")
    seed = row.get("seed", "")
    if seed and not (seed.isdecimal() and int(seed) < 2**64):
        raise InputError.of(where, "seed", found=repr(seed[:40]), expected="0 to 2^64 - 1")
    values: dict[str, list[ViewValue]] = {}
    for option in PARSERS:
        try:
            values[option] = [parse_value(option, part) for part in row.get(option, "").split()]
        except ValueError as error:
            raise InputError(f"{where}: {option}: {error}") from None
    try:
        reading = by_view([view for view in VIEWS if view in inputs], values)
        for fields in reading.values():
            ReadOptions(**fields)
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix('--')}") from None  # a column, not an option
    return Study(name, inputs, int(seed) if seed else None, reading)


def job_of(base: SampleJob, study: Study) -> SampleJob:
    """Return a study's job: the settings of all, and its own inputs, seed and files."""
    files: dict[str, Any] = {name: study.inputs.get(name) for name in FILES}
    reading = {view: replace(base.reading.get(view, ReadOptions()), **own) for view, own in study.reading.items()}
    return replace(
        base,
        output=base.output / f"{study.id}{_CT_ENDINGS.get(base.format, '.nii.gz')}",
        report=base.output / f"{study.id}.json",
        seed=base.seed if study.seed is None else study.seed,
        reading={**base.reading, **reading},
        **files,
    )


def check_folder(folder: Path, planned: Mapping[str, SampleJob], resume: bool) -> None:
    """Make the folder. Raises InputError: it can't be written, or has files of the jobs and nobody said to go on."""
    atomic.check_folder(folder).mkdir(parents=True, exist_ok=True)
    atomic.check_writable(folder / SUMMARY_FILE)
    existing = [path for job in planned.values() for path in job.outputs if path.exists()]
    if existing and not resume:
        file = f"{existing[0].name} there already"
        raise InputError.of(folder, "output", found=file, expected="none of the studies", hint="go on with --continue")


def clear(job: SampleJob) -> None:
    """Remove a DICOM series that an interrupted or other run left under a study's name; files are replaced."""
    for path in job.outputs:
        if path.is_dir() and all(file.suffix == ".dcm" for file in path.iterdir()):
            shutil.rmtree(path)


def fingerprint(model: str, job: SampleJob) -> str:
    """Return a checksum of what a study's files depend on: settings, inputs, x2ct's version and the model."""
    settings = {name: value for name, value in vars(job).items() if name not in _NOT_SETTINGS}
    inputs = {name: path for name in sorted(FILES) if (path := getattr(job, name))}
    files = [f"{name} {report.sha256(path)}" for name, path in inputs.items()]
    lines = [__version__, model, repr(sorted(settings.items())), *files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def is_done(job: SampleJob, mark: str) -> bool:
    """Return whether the report, which is written last, has the mark of this job, and its files are whole."""
    assert job.report is not None
    facts = report.read_json(job.report) if job.report.exists() else {}
    if facts.get("study", {}).get("fingerprint") != mark:
        return False
    files = [path for path in job.outputs if path != job.report]
    return all(path.exists() for path in files) and [*map(report.file_record, files)] == facts.get("outputs")
