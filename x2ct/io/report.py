"""The written record of a run: what computed it, from what, how long it took, and what was assumed.

A report holds file names, checksums and figures, never pixels and never a DICOM field that names a patient.
"""

from __future__ import annotations

import hashlib
import json
import platform
import resource
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from x2ct.errors import InputError
from x2ct.files.atomic import write_atomically
from x2ct.files.text import decode_json

SCHEMA = 1
NOTICE = "Research tool, not a medical device: a synthesised CT is an estimate, not for diagnosis or treatment."


def versions(*further: str) -> dict[str, str]:
    """Return the versions that decide a result: x2ct, Python, platform, packages of inference, and `further` ones."""
    from x2ct import __version__

    installed = {"x2ct": __version__, "python": platform.python_version(), "platform": platform.platform(terse=True)}
    for package in ("numpy", "openvino", "nibabel", "pydicom", "pillow", *further):
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = "missing"
    return installed


def peak_memory_bytes() -> int:
    """Return the largest resident size that this process has had, in bytes."""
    with suppress(OSError, ValueError, StopIteration):
        # getrusage's figure starts from the process that started this one, however large; this one does not.
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def sha256(path: str | PathLike[str]) -> str:
    """Return a file's SHA-256 in hexadecimal. Raises InputError where it can't be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError.of(path, "file", found=error, expected="a readable file") from None


def file_record(path: str | PathLike[str]) -> dict[str, Any]:
    """Return a file's base name, size in bytes and SHA-256; of a folder (a DICOM series), its files' joint ones."""
    path = Path(path)
    if not path.is_dir():
        return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
    digest, size = hashlib.sha256(), 0
    for member in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(bytes.fromhex(sha256(member)))
        size += member.stat().st_size
    return {"file": path.name, "bytes": size, "sha256": digest.hexdigest()}


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]], text: int | None = None) -> list[str]:
    """Return the lines of a Markdown table; a "|" in a cell is escaped.

    The first `text` columns (by default all) hold text; the figures in the columns after them are aligned right.
    """
    text = len(columns) if text is None else text
    heading = "".join(f" {column} |" if column else " |" for column in columns)
    lines = [f"|{heading}", "|" + "---|" * text + "---:|" * (len(columns) - text)]
    return lines + ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]


class Table(NamedTuple):
    """A titled table, with lines on what its figures are; the first `text` columns hold text (see `markdown_table`)."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()
    text: int | None = None

    def markdown(self) -> list[str]:
        """Return its lines as Markdown, under a heading of the second level where it has a title."""
        heading = [f"## {self.title}", ""] if self.title else []
        notes = [line for note in self.notes for line in (note, "")]
        return [*heading, *notes, *markdown_table(self.columns, self.rows, self.text)]


def to_json(report: Mapping[str, Any]) -> str:
    """Return a report as indented JSON. Raises ValueError for non-finite numbers, which JSON lacks."""
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(report: Mapping[str, Any], path: str | PathLike[str]) -> Path:
    """Write a report, whole or not at all. Raises X2CTError."""
    return write_atomically(path, to_json(report).encode())


def read_json(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the JSON object in a file. Raises InputError where it can't be read, or is something else."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError.of(path, "file", found=error, expected="a JSON object") from error
    return decode_json(path, data, dict[str, Any])


def summary(report: Mapping[str, Any]) -> str:
    """Return a sampling run in one line."""
    output = report["outputs"][0]["file"] if report["outputs"] else "no file"
    shape = " x ".join(map(str, report["grid"]["shape"]))
    spacing = " x ".join(f"{step:g}" for step in report["grid"]["spacing_mm"])
    solver = f"{report['solver']} ({report['schedule']}), {report['evaluations']} evaluations"
    kind = "posterior mean" if report["mean"] else f"{solver}, seed {report['seed']}"
    where = f"{report['device']}, {report['backend']} {report['precision']['denoiser']}"
    seconds = report["timings"]["total_s"]
    return f"{output}: {shape} voxels of {spacing} mm; {kind}; {seconds:.1f} s on {where}"


def intention(facts: Mapping[str, Any]) -> str:
    """Return the facts of `x2ct.jobs.sample.rehearse_files`, one a line."""
    left, tiles = facts["estimate"], facts["tiles"]
    ready = sum(facts["timings"].values())
    lines = {
        "model": f"{facts['model']['name']} {facts['model']['sha256'][:12]}",
        "runs on": f"{facts['device']}, {facts['backend']} {facts['runtime']}, {facts['precision']['denoiser']}",
        "X-rays": ", ".join(f"{entry['view']} {entry['file']}" for entry in facts["inputs"]),
        "CT": " x ".join(map(str, facts["grid"]["shape"])) + " voxels",
        "sampling": f"{facts['solver']} ({facts['schedule']}), {left['evaluations']} evaluations in all",
        "tiles": f"{tiles['count']} of {tiles['shape']}, halo {tiles['halo']}" if tiles else "none, it fits whole",
        "memory": f"{facts['peak_memory_bytes'] / 2**30:.2f} GiB so far",
        "time": f"about {ready + left['seconds'] + left['writing_s']:.1f} s on this machine now: {ready:.1f} s until "
        f"the first evaluation, {left['per_evaluation_s']:.3f} s for each, {left['writing_s']:.1f} s to write",
        "would write": ", ".join(entry["file"] for entry in facts["outputs"]),
    }
    remarks = [f"warning: {line}" for line in facts["warnings"]] + [f"note: {line}" for line in facts["assumptions"]]
    return "\n".join([*(f"{name}: {text}" for name, text in lines.items()), *remarks])
