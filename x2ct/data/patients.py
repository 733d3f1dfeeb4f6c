"""The patient table: a CSV that says how each patient of a folder is used, and why one is not.

BIDS' `participants.tsv` is one too: `participant_id` names the patient, whose CTs are `sub-ID` and `sub-ID_*`, "n/a" is
nothing, and columns that are not ours, such as `age`, are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from x2ct.data.shards import REGIONS, SPLITS
from x2ct.errors import InputError
from x2ct.files.text import read_table

LEAVE_OUT = "leave-out"
COLUMNS = ("id", "split", "region", "reason", "source", "licence")
"""`id` is required. `source` and `licence` of the CT are for model cards: `prepare` passes over them."""


@dataclass(frozen=True)
class Mark:
    """How one patient is used."""

    split: str = ""  # "train", "validation" or "leave-out"; empty leaves the choice to `prepare`
    region: str = ""  # "chest" or "other"; empty keeps the region that `prepare` finds
    reason: str = ""  # why the patient is left out, or any other remark


def read_patients(path: str | os.PathLike[str], ids: Collection[str]) -> dict[str, Mark]:
    """Return the marks by id of the patients that a table names; `ids` are those of all that are there.

    The table is a CSV in UTF-8 whose first line names its columns, see `COLUMNS`; or BIDS' participants.tsv. Raises
    InputError: no such file, no table, an unknown column, a split or region that does not exist, an id that is unknown
    or there twice, or a patient left out without a reason.
    """
    source = Path(path)
    bids = source.suffix.lower() == ".tsv"  # as BIDS' participants.tsv is
    key = "participant_id" if bids else "id"
    columns, table = read_table(source, None if bids else COLUMNS)
    if key not in columns:
        raise InputError.of(source, "columns", found=", ".join(columns) or "none", expected=f"{key}, and split")
    marks, names = dict[str, Mark](), set[str]()
    for number, row in enumerate(table, 2):
        where, name = f"{source}: line {number}", row[key]
        if name in names:
            raise InputError.of(where, key, found=f"{name} again", expected="one line for each patient")
        names.add(name)
        texts = (row.get(field, "") for field in ("split", "region", "reason"))
        mark = Mark(*("" if bids and text == "n/a" else text for text in texts))
        cts = [each for each in ids if each == name or (bids and each.startswith(f"{name}_"))]
        if bids and not cts and mark == Mark():
            continue  # a participant without a CT, of whom nothing is asked
        if not cts:
            raise InputError.of(where, key, found=name or "none", expected=f"one of {', '.join(sorted(ids))}")
        for field, value, allowed in (("split", mark.split, (*SPLITS, LEAVE_OUT)), ("region", mark.region, REGIONS)):
            if value and value not in allowed:
                raise InputError.of(where, field, found=value, expected=f"{', '.join(allowed)}, or nothing")
        if mark.split == LEAVE_OUT and not mark.reason:
            raise InputError.of(where, "reason", found="none", expected=f"why {name} is left out")
        marks |= dict.fromkeys(cts, mark)
    return marks


def named_for_validation(marks: Mapping[str, Mark], validation: Iterable[str] | None) -> set[str] | None:
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
