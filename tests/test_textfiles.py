"""JSON files that others wrote: what is wrong is a line with the file, the field, what was found and expected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import refused
from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.files.text import convert, decode_json, read_table


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]


class Content(msgspec.Struct):
    kind: Literal["plan", "graph"]
    sizes: tuple[int, int]
    inner: Inner
    free: dict[str, Any] = {}


GOOD = {"kind": "plan", "sizes": [1, 2], "inner": {"size": 3}, "unknown": None}


def test_what_fits_is_filled_in() -> None:
    assert convert("a.json", GOOD, Content) == Content("plan", (1, 2), Inner(3))
    assert decode_json("a.json", b'{"size": 7}', Inner) == Inner(7)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"sizes": [1, "x"]}, "a.json: sizes[1]: found str, expected int"),
        ({"sizes": [1]}, "a.json: sizes: found 1, expected array of length 2"),
        ({"inner": {"size": 0}}, "a.json: inner.size: found another value, expected int >= 1"),
        ({"inner": {}}, "a.json: inner.size: found nothing, expected a value"),
        ({"inner": {"size": 1, "sise": 1}}, "a.json: inner.sise: found a field, expected none of that name"),
        ({"kind": "film"}, "a.json: kind: found invalid enum value 'film', expected a value that fits"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], line: str) -> None:
    assert refused(lambda: convert("a.json", GOOD | change, Content)) == line


@pytest.mark.parametrize("text", ["", "{", "[]", '{"size": NaN}', '{"size": 1e999}', "\xff", "[" * 100_000])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    refused(lambda: decode_json("a.json", text, Inner), "a.json: ")


@given(st.binary(max_size=60))
def test_nothing_else_comes_out(data: bytes) -> None:
    line = "a.json: "
    try:
        decode_json("a.json", data, Inner)
    except InputError as error:
        line = str(error)
    assert line.startswith("a.json: ") and "\n" not in line


def test_a_file_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    with pytest.raises(InputError) as failure:
        read_table(table)
    assert str(failure.value) == f"{table}: file: found No such file or directory, expected a CSV in UTF-8"


def test_what_a_killed_writer_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    left = [tmp_path / ".x2ct-11609-0dfb5549-s02.nii.gz", tmp_path / ".x2ct-abc" / "s02.nii.gz"]
    others = [
        tmp_path / ".x2ct-7-0dfb5549-a-s02.nii.gz",
        tmp_path / ".x2ct-def" / "s03.nii.gz",
        tmp_path / "s02.nii.gz",
    ]
    for file in (*left, *others):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    atomic.remove_parts([tmp_path / "s02.nii.gz", tmp_path / "s02.json"])
    assert not any(file.exists() for file in left) and all(file.exists() for file in others)
