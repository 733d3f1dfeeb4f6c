"""CT files -> training shards: find the CTs of a folder, take the patient out of each, write `ID.npy` and the index.

A contact sheet `ID.png` shows a patient as the training sees the patient, an overview many of them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from x2ct.data.body import Body, coarsen, extract_body
from x2ct.data.shapes import Progress, write_shapes
from x2ct.data.shards import (
    INDEX,
    LEAVE_OUT,
    Mark,
    Patient,
    ShardSet,
    patient_of,
    read_index,
    read_patients,
    resample,
    write_index,
)
from x2ct.errors import InputError, X2CTError
from x2ct.files import atomic
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import SUFFIXES, Volume
from x2ct.io.report import read_json, sha256
from x2ct.render import panels
from x2ct.render import preview as previews

METHOD = 4  # raised when the same source would give another shard, so that old shards are made again
SHEET_METHOD = 1  # raised when the same shard would give another sheet, so that old sheets are made again
_COLUMNS, _ROWS, _WIDTH_PX = 4, 6, 480  # of an overview
_OVERVIEW = "_overview"  # no patient's id begins with an underscore

CENTRES = ("lungs", "body", "file")


@dataclass(frozen=True)
class PrepareOptions:
    """How a CT becomes a shard; part of the index, so that a change makes the shard again.

    Raises InputError for an unknown centre, or a spacing that is not positive.
    """

    # What the grid is centred on: along the body its "lungs" (where there are some) or the whole "body", and across it
    # the body; or the "file", the middle of its voxels.
    centre: str = "lungs"
    finest_mm: float = 1.25  # axes finer than this are brought there
    keep_couch: bool = False  # leave in what is not the body: couch, clothes, tubes

    def __post_init__(self) -> None:
        if self.centre not in CENTRES:
            raise InputError.of("--centre", "value", found=self.centre, expected=" or ".join(CENTRES))
        if not 0 < self.finest_mm < float("inf"):
            raise InputError.of("prepare", "finest_mm", found=self.finest_mm, expected="a positive length in mm")


@dataclass(frozen=True)
class PrepareResult:
    """What a run did."""

    patients: tuple[str, ...]  # ids in the index, sorted
    kept: tuple[str, ...]  # those of them that an earlier run had already made
    failures: tuple[tuple[str, str], ...]  # (source, one line on what is wrong) of each CT that could not be used
    validation: tuple[str, ...]  # ids of the validation split
    left_out: tuple[tuple[str, str], ...] = ()  # (id, reason) of each patient whom the patient table leaves out


def prepare(
    source: str | os.PathLike[str],
    shards: str | os.PathLike[str],
    *,
    grid: Grid | None = None,
    options: PrepareOptions | None = None,
    validation: Iterable[str] | None = None,
    validation_share: float = 0.1,
    patients: str | os.PathLike[str] | None = None,
    preview: bool = False,
    shapes: bool = False,
    progress: Progress = lambda *_: None,
) -> PrepareResult:
    """Make training shards from a folder of CTs, at any depth, or of one CT; a file or DICOM folder is one patient.

    Continues an interrupted run: patients whose source and options are unchanged are kept, and the index is written
    after each new one. A CT that can't be used is one entry of `failures`; the others go on.

    The index suggests `grid` to trainers, by default 128^3 at 2.5 mm. `validation` are the ids of the patients set
    aside for validation; by default a stable hash of the id chooses `validation_share` of them, and at least one where
    there are two or more. `patients` is a patient table, see `x2ct.data.shards`: who is trained on, set aside or left
    out, and of which region a patient is; where it or `validation` names anybody for validation, nobody else is chosen.
    With `preview`, each patient gets a contact sheet `ID.png`, and all of them `_overview1.png` and so on; sheets of an
    earlier run are kept where they would come out the same. With `shapes`, the training patients' chests are registered
    to one another, for `AugmentConfig.shape`. `progress` is called before each patient and once at the end.

    Raises InputError: nothing to prepare, a validation id that is not there, some of a BIDS patient's sessions for
    validation and others not, a patient table that can't be used, no two chests to register, or an output that can't be
    written.
    """
    root, folder = Path(source), Path(shards)
    grid, options = grid or Grid(), options or PrepareOptions()
    sources = find_cts(root)
    if unknown := sorted(set(validation or ()) - sources.keys()):
        expected = f"ids among {', '.join(sources)}"
        raise InputError.of("prepare", "validation", found=", ".join(unknown), expected=expected)
    marks = dict.fromkeys(sources, Mark())
    if patients is not None:
        marks |= read_patients(patients, sources.keys())
    named = _validation_ids(marks, validation)
    left_out = [(name, mark.reason) for name, mark in marks.items() if mark.split == LEAVE_OUT]
    for name, _ in left_out:
        del sources[name]
    if split := {_patient(n) for n in named or ()} & {_patient(n) for n in sources.keys() - (named or set(sources))}:
        found, expected = f"some CTs of {', '.join(sorted(split))}", "all CTs of a patient, or none"
        raise InputError.of("prepare", "validation", found=found, expected=expected)
    atomic.check_writable(folder / INDEX)
    before = read_index(folder).patients if (folder / INDEX).exists() else []
    entries = {str(entry["id"]): entry for entry in before if entry.get("id", "") not in ("", *dict(left_out))}
    done: dict[str, dict[str, Any]] = {}
    kept: list[str] = []
    failures: list[tuple[str, str]] = []
    open_to_choice = [name for name in sources if not marks[name].split]
    chosen = set(choose_validation(open_to_choice, validation_share)) if named is None else named
    for count, (name, path) in enumerate(sources.items()):
        progress(count, len(sources), name)
        try:
            state, entry = _state(path, options), entries.get(name, {})
            if entry.get("made_from") == state and _is_whole(folder, entry):
                kept.append(name)
            else:
                entry = _write(folder, name, path, options, state)
            entry = {**entry, "region": marks[name].region or entry["found_region"]}
            if preview:
                entry["sheet"] = _write_sheet(folder, entry, grid)
        except X2CTError as error:
            failures.append((str(path), " ".join(str(error).split())))
            continue
        done[name] = {**entry, "split": "validation" if name in chosen else "train"}
        # Entries that this run has not come to yet stay in the index, for the run that continues this one.
        write_index(folder, grid, list((entries | done).values()), left_out)
    if not done:
        first = f", first: {failures[0][1]}" if failures else ""
        raise InputError.of(root, "CTs", found=f"none usable of {len(sources)}{first}", expected="at least one CT")
    chosen &= done.keys()
    if named is None:
        chosen = _settle(chosen, sorted(done.keys() & set(open_to_choice)), sorted(done))
    for name, entry in done.items():
        entry["split"] = "validation" if name in chosen else "train"
    write_index(folder, grid, list(done.values()), left_out)
    if preview:
        _write_overviews(folder, [(f"{name}: {row['region']}", folder / f"{name}.png") for name, row in done.items()])
    if shapes:
        write_shapes(folder, ShardSet.open(folder).select("train"), progress)
    progress(len(sources), len(sources), "")
    return PrepareResult(tuple(sorted(done)), tuple(kept), tuple(failures), tuple(sorted(chosen)), tuple(left_out))


def read_body(path: str | os.PathLike[str], options: PrepareOptions | None = None) -> Body:
    """Read one CT and take the patient out of it, exactly as `prepare` does (`x2ct drr` and the evaluation do too).

    Raises InputError: it can't be read, is not a CT in HU, or holds no body.
    """
    options = options or PrepareOptions()
    volume = Volume.load(path)
    hu, affine = coarsen(volume.hu, volume.affine, options.finest_mm)
    body = extract_body(hu, affine, options.centre, options.keep_couch)
    if body is None:
        found = f"no body (values {float(hu.min()):.0f} to {float(hu.max()):.0f})"
        hint = "take it as it is: --centre file --keep-couch"
        raise InputError.of(path, "HU", found=found, expected="a patient in HU, tissue above -500", hint=hint)
    return body


def find_cts(root: Path) -> dict[str, Path]:
    """Return the CTs at or below a path: id -> file or DICOM folder, sorted. Ids come from the path below `root`.

    Of an nnU-Net dataset (a folder with `imagesTr`; or that folder, or `imagesTs`, itself) they are the images alone,
    in the channel that `dataset.json` names CT, and the id is the case's. Of a BIDS dataset (a folder with
    `participants.tsv`) they are the files `sub-*_ct.*` below `sub-*`, and the id is the name without `_ct`. Raises
    InputError: the path is missing, holds no CT, or two CTs would have the same id; an nnU-Net dataset that has no CT,
    or several.
    """
    if not root.exists():
        raise InputError.of(root, "path", found="nothing there", expected="a folder with CTs, or one CT")
    cts: dict[str, Path] = {}
    folders, pattern = _layout(root)
    for path in [root] if root.is_file() else sorted(path for folder in folders for path in _walk(folder)):
        parts = path.relative_to(root).parts or (path.name or path.resolve().name,)
        if pattern is not None:
            case = pattern.fullmatch(path.name)
            if case is None:
                continue
            parts = ("".join(case.groups()),)
        name = _identifier("_".join(parts), path.is_dir())
        if name in cts:
            owner = f"{name}, as for {cts[name]}"
            raise InputError.of(path, "id", found=owner, expected="one CT a name", hint="rename one")
        cts[name] = path
    if not cts:
        expected = f"files ending in {', '.join(SUFFIXES)}, or DICOM folders"
        raise InputError.of(root, "CTs", found="none", expected=expected)
    return cts


def _layout(root: Path) -> tuple[list[Path], re.Pattern[str] | None]:
    """Return the folders to walk and, for a known layout, the pattern of file names whose groups form the id."""
    if (root / "participants.tsv").is_file():
        return sorted(root.glob("sub-*")), re.compile(r"(sub-[^.]+)_ct(\..+)")
    images = root / "imagesTr" if (root / "imagesTr").is_dir() else root
    if images.name not in ("imagesTr", "imagesTs"):
        return [root], None
    description = images.parent / "dataset.json"
    channels = read_json(description).get("channel_names") if description.is_file() else {"0": "CT"}
    cts = [key for key, name in channels.items() if name == "CT"] if isinstance(channels, dict) else []
    if len(cts) != 1 or not cts[0].isdecimal():
        expected = "a channel's number with the name CT"
        raise InputError.of(description, "channel_names", found=channels, expected=expected)
    return [images], re.compile(rf"(.+)_{int(cts[0]):04d}(\..+)")


def _validation_ids(marks: Mapping[str, Mark], validation: Iterable[str] | None) -> set[str] | None:
    """Return the ids that the table or the caller sets aside; None where neither names any.

    Raises InputError: the caller names a patient whom the table trains on or leaves out.
    """
    for name in validation or ():
        split = marks[name].split
        if split not in ("", "validation"):
            expected = f"a patient whom the patient table does not mark {split}"
            raise InputError.of("prepare", "validation", found=name, expected=expected)
    marked = {name for name, mark in marks.items() if mark.split == "validation"}
    return None if validation is None and not marked else marked | set(validation or ())


def choose_validation(names: Iterable[str], share: float) -> tuple[str, ...]:
    """Return the names whose SHA-256, as a fraction, is below `share`: stable when others come or go.

    Of a BIDS name the patient's part counts, so that all sessions of a patient are chosen or none is.
    """
    return tuple(name for name in names if _fraction(name) < share)


def _settle(chosen: set[str], candidates: list[str], names: list[str]) -> set[str]:
    # Few patients: the hash may choose none or all of them. One is set aside, and one is left to train on.
    fractions = {name: _fraction(name) for name in names}
    if not chosen and candidates and len(set(fractions.values())) > 1:
        least = min(fractions[name] for name in candidates)
        return {name for name in candidates if fractions[name] == least}
    if len(chosen) == len(names):
        return {name for name in chosen if fractions[name] < max(fractions.values())}
    return chosen


def _fraction(name: str) -> float:
    return int.from_bytes(hashlib.sha256(_patient(name).encode()).digest()[:8], "big") / 2.0**64


def _patient(name: str) -> str:
    """Return whose CT it is: `sub-ID` of a BIDS name, whatever the session; else the name itself."""
    patient = re.match(r"sub-[A-Za-z0-9]+(?=_|$)", name)
    return patient[0] if patient else name


def _identifier(text: str, is_folder: bool) -> str:
    if not is_folder:
        suffix = max((s for s in SUFFIXES if text.lower().endswith(s)), key=len, default="")
        text = text[: len(text) - len(suffix)]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-") or "ct"


def _walk(root: Path) -> Iterable[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        dicom = False
        for path in sorted(Path(folder) / name for name in names if not name.startswith(".")):
            if path.name.lower().endswith(SUFFIXES):
                yield path
            elif not dicom and _is_dicom(path):
                dicom = True
                yield path.parent


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() == ".dcm":
        return True
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _state(path: Path, options: PrepareOptions) -> dict[str, Any]:
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        raise InputError.of(path, "file", found=error, expected="a readable CT") from None
    return {
        "files": len(files),
        "bytes": sum(s.st_size for s in stats),
        "modified_ns": max((s.st_mtime_ns for s in stats), default=0),
        "method": METHOD,
        # Left out unless chosen, so that shards from before this option are kept.
        **{name: value for name, value in asdict(options).items() if value is not False},
    }


def _write(folder: Path, name: str, path: Path, options: PrepareOptions, state: dict[str, Any]) -> dict[str, Any]:
    body = read_body(path, options)
    target = folder / f"{name}.npy"
    atomic.write_beside(target, lambda part: np.save(part, body.hu, allow_pickle=False))
    target.with_suffix(".png").unlink(missing_ok=True)  # the sheet of the shard that was there before
    return {
        "id": name,
        "split": "train",
        "source": path.name,
        "file": target.name,
        "shape": list(body.hu.shape),
        "index_to_mm": body.index_to_mm.tolist(),
        "region": body.region,
        "found_region": body.region,
        "lungs_mm": None if body.lungs_mm is None else body.lungs_mm.tolist(),
        "body_mm": body.body_mm.tolist(),
        "bone_share": round(body.bone_share, 4),
        "bytes": target.stat().st_size,
        "sha256": sha256(target),
        "made_from": state,
    }


def _write_sheet(folder: Path, entry: dict[str, Any], grid: Grid) -> str:
    """Make a patient's contact sheet unless the one that is there would come out the same; return its key."""
    patient = patient_of(folder, entry)
    text = f"{SHEET_METHOD} {patient.sha256} {patient.index_to_mm.tolist()} {_heading(patient, grid)}"
    target, key = folder / f"{patient.id}.png", hashlib.sha256(text.encode()).hexdigest()
    if entry.get("sheet") != key or not target.is_file():
        atomic.write_atomically(target, sheet(patient, grid))
    return key


def _is_whole(folder: Path, entry: dict[str, Any]) -> bool:
    file = folder / str(entry.get("file"))
    return file.is_file() and file.stat().st_size == entry.get("bytes") and sha256(file) == entry.get("sha256")


def sheet(patient: Patient, grid: Grid) -> bytes:
    """Return a patient's contact sheet as a PNG: the grid's centre slices and bones, and X-rays of the whole CT."""
    xrays = patient.xrays(Geometry.parallel())
    volume = Volume(resample(patient, grid), grid.index_to_mm)
    return panels.png(previews.preview(volume, xrays, synthetic=False, heading=_heading(patient, grid)))


def _heading(patient: Patient, grid: Grid) -> str:
    """Return the line above a patient's sheet: id, region, lungs found, voxels, body and grid."""
    lungs, body, bone = patient.lungs_mm, patient.body_mm, patient.details.get("bone_share")
    parts = [
        f"{patient.id}: {patient.region}",
        "no lungs" if lungs is None else f"lungs {_size(lungs[1] - lungs[0])} mm",
        f"{_size(patient.shape)} voxels of {_size(patient.spacing_mm)} mm",
        "" if body is None else f"body {_size(body[1] - body[0])} mm",
        "" if bone is None else f"bone {bone:.1%}",
        f"grid {_size(grid.shape)} of {_size(grid.spacing_mm)} mm",
    ]
    return ", ".join(filter(None, parts))


def _size(sides: Sequence[float]) -> str:
    return " x ".join(f"{round(float(side), 2):g}" for side in sides)


def _write_overviews(folder: Path, sheets: Sequence[tuple[str, Path]]) -> None:
    """Write `_overview1.png` and so on, each of up to 24 sheets made small, in place of those of an earlier run.

    `sheets` are the title and the PNG of each patient. Raises X2CTError where a write fails.
    """
    from PIL import Image

    overviews: list[Path] = []
    for first in range(0, len(sheets), _COLUMNS * _ROWS):
        pictures = []
        for title, path in sheets[first : first + _COLUMNS * _ROWS]:
            with Image.open(path) as picture:
                size = (_WIDTH_PX, max(1, round(picture.height * _WIDTH_PX / picture.width)))
                pictures.append(panels.Panel(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), title))
        rows = [pictures[start : start + _COLUMNS] for start in range(0, len(pictures), _COLUMNS)]
        target = folder / f"{_OVERVIEW}{len(overviews) + 1}.png"
        overviews.append(atomic.write_atomically(target, panels.png(panels.page(rows, f"{len(sheets)} patients"))))
    for stale in set(folder.glob(f"{_OVERVIEW}*.png")) - set(overviews):
        stale.unlink(missing_ok=True)
