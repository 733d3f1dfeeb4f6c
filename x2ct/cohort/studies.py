"""A manifest: a CSV that names each study's X-ray files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from x2ct.errors import InputError
from x2ct.textfiles import read_table
from x2ct.xrays.readoptions import VALUES

COLUMNS = ("id", "ap", "pa", "lateral", "geometry", "seed", "invert", "values")
"""What a manifest may have; `id` and at least one view it must have."""
FILES = ("ap", "pa", "lateral", "geometry")
"""Those of them that name files."""
MAX_STUDIES = 100_000
SUMMARY = "summary"
"""The name that no study may have: a run's own table has it."""

_VIEWS = ("ap", "pa", "lateral")
_READING: dict[str, dict[str, Any]] = {"invert": {"yes": True, "no": False}, "values": {word: word for word in VALUES}}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Study:
    """One line of a manifest: a name for its files, and its job's inputs and seed.

    Attributes:
        id: the name.
        inputs: files by column.
        seed: None for that of all.
        reading: by view, what the line says of how to read it, as `ReadOptions` have it (`invert`, `values`).
    """

    id: str
    inputs: dict[str, Path]
    seed: int | None
    reading: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_manifest(path: str | PathLike[str]) -> tuple[Study, ...]:
    """Reads a CSV whose first line names its columns; file names are relative to the manifest.

    Raises:
        InputError: no such file, no table, an unknown column, an id that is doubled or no file name, a line without a
            view, a seed that is no number, or an unknown word on how to read an X-ray.
    """
    source = Path(path)
    columns, table = read_table(source, COLUMNS)
    if not 0 < len(table) <= MAX_STUDIES or "id" not in columns:
        found = f"{len(table)} studies with columns {', '.join(columns) or 'none'}"
        raise InputError.of(source, "content", found=found, expected=f"an id column and 1 to {MAX_STUDIES} studies")
    studies = tuple(_study(source, number, row) for number, row in enumerate(table, 2))
    names = [study.id.lower() for study in studies]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError.of(source, "id", found=f"{twice} twice", expected="a name of its own for each study")
    return studies


def _study(source: Path, number: int, told: dict[str, str]) -> Study:
    where = f"{source}: line {number}"
    name = told["id"]
    if not _ID.fullmatch(name) or name.lower() == SUMMARY:
        expected = f"letters, digits, '.', '_' and '-', and not {SUMMARY}: it names files"
        raise InputError.of(where, "id", found=repr(name[:120]), expected=expected)
    inputs = {key: source.parent / told[key] for key in FILES if told.get(key)}
    if not inputs.keys() & set(_VIEWS):
        raise InputError.of(where, "X-rays", found="none", expected="ap or pa, lateral, or a frontal view and lateral")
    seed = told.get("seed", "")
    if seed and not (seed.isdecimal() and int(seed) < 2**64):
        raise InputError.of(where, "seed", found=repr(seed[:40]), expected="0 to 2^64 - 1")
    reading: dict[str, dict[str, Any]] = {view: {} for view in _VIEWS if view in inputs}
    for column, words in _READING.items():
        for part in told.get(column, "").split():
            view, equals, word = part.rpartition("=")
            if word not in words or (equals and view not in reading):
                expected = f"{' or '.join(words)}, or VIEW= before it of a view of the line"
                raise InputError.of(where, column, found=repr(part[:40]), expected=expected)
            for each in (view,) if equals else reading:
                reading[each][column] = words[word]
    return Study(name, inputs, int(seed) if seed else None, {view: said for view, said in reading.items() if said})
