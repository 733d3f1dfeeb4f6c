"""One benchmark as one JSON document, and the comparison of two; docs/benchmark.md has the schema."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

from x2ct.benchmark.cases import Case
from x2ct.benchmark.fleet import Effort, Row, Say, measure, times_of
from x2ct.benchmark.machine import BUSY_SHARE, Neighbours, environment
from x2ct.benchmark.stats import CV_LIMIT, ratio
from x2ct.bundle import Bundle
from x2ct.errors import InputError
from x2ct.files.atomic import write_atomically
from x2ct.io import report

SCHEMA = 1
_TIMES = {"end_to_end_s": "end to end", "evaluation_s": "an evaluation"}
_MACHINE = ("processor", "processors", "affinity", "instructions")


class Session:
    """The facts that every benchmark's document begins with; the others' share is measured from here to `facts`."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle, self._environment, self._neighbours = bundle, environment(threads), Neighbours()

    def facts(self) -> dict[str, Any]:
        """Return time, bundle and environment, with the share of the processors that others took meanwhile."""
        bundle = self._bundle
        return {
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "bundle": {"name": bundle.name, "sha256": bundle.checksum, "grid": list(bundle.grid.shape)},
            "environment": self._environment | {"others_share": self._neighbours.share()},
        }


def benchmark(source: str, cases: Sequence[Case], effort: Effort, threads: int, say: Say) -> dict[str, Any]:
    """Measure all cases and return the document.

    Args:
        source: the bundle's folder or name.
        cases: the rows, from `cases.cases_of`.
        effort: how often.
        threads: as asked for, for the record.
        say: is called with a line on what is being done.

    Raises:
        InputError: the bundle, or a row that it can't be asked for.
        X2CTError: nothing could be measured.
    """
    session = Session(Bundle.load(source), threads)
    rows, clocks = measure(source, cases, effort, say)
    document = {
        "schema": SCHEMA,
        "kind": "x2ct bench",
        **session.facts(),
        "effort": vars(effort),
        "plain_loop": any(case.plain for case in cases),
        "rows": [row.to_json() for row in rows],
        "clocks": clocks,
        "headline": headline(rows),
    }
    return document | {"warnings": warnings(document)}


def headline(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return the fastest row, in times faster than the PyTorch loop on the same grid; None where either is missing."""
    plain = [row for row in rows if row.case.plain and row.measured]
    own = [row for row in rows if not row.case.plain and row.measured]
    own = [row for row in own if plain and row.facts["grid"] == plain[0].facts["grid"]]
    return {"fastest": faster(min(own, key=lambda row: row.median("end_to_end_s")), plain)} if own else None


def faster(row: Row, plain: Sequence[Row]) -> dict[str, Any]:
    """Return a row's medians in seconds, and by how much they are below those of each row of the PyTorch loop."""
    end_to_end, loop = row.median("end_to_end_s"), row.median("loop_s")
    times = {
        other.label: {"end_to_end": other.median("end_to_end_s") / end_to_end, "loop": other.median("loop_s") / loop}
        for other in plain
    }
    return {"label": row.label, "end_to_end_s": end_to_end, "loop_s": loop, "times_faster_than": times}


def warnings(document: dict[str, Any]) -> list[str]:
    """Return what a reader of the figures has to know first."""
    lines, facts = [], document["environment"]
    load, processors, share = facts["load_average"][0], facts["processors"] or 1, facts["others_share"]
    if load > 0.5 * processors:
        lines.append(f"the machine was busy: load average {load:.2f} on {processors} processors before it began")
    if share > BUSY_SHARE:
        lines.append(f"others took {100 * share:.0f}% of the processors meanwhile: these times are theirs too")
    if throttled := document["clocks"]["throttled"]:
        lines.append(f"the processor was throttled {throttled} times meanwhile")
    if reasons := (document["clocks"].get("gpu") or {}).get("throttled_by"):
        lines.append(f"the GPU was throttled meanwhile, by {' and '.join(reasons)}")
    for row in document["rows"]:
        if row["status"] != "measured":
            lines.append(f"{row['label']}: {row['status']}: {row['reason']}")
            continue
        for name, what in _TIMES.items():
            if (cv := row["summary"][name]["cv"] or 0.0) > CV_LIMIT:
                lines.append(f"{row['label']}: {what} varies by {100 * cv:.1f}%, more than {100 * CV_LIMIT:g}%")
    if not document["plain_loop"]:
        lines.append("the PyTorch loop was left out, as asked; it runs on CPUs alone")
    return lines


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a document. Raises InputError where the file is none, or of another schema."""
    document = report.read_json(path)
    if document.get("kind") != "x2ct bench" or document.get("schema") != SCHEMA:
        kind = f"{document.get('kind')!r}, schema {document.get('schema')!r}"
        raise InputError.of(path, "kind", found=kind, expected=f"'x2ct bench', schema {SCHEMA}")
    return document


def write(document: dict[str, Any], text: str, name: str | PathLike[str]) -> list[Path]:
    """Write NAME.json and its page NAME.md, each whole or not at all. Raises X2CTError."""
    figures = report.write_json(document, f"{name}.json")
    return [figures, write_atomically(f"{name}.md", text.encode())]


def parse_threshold(text: str) -> float:
    """Return a share, given as "5%" or "0.05". Raises InputError where it is something else, or outside [0, 10]."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise InputError.of("--threshold", "value", found=repr(text), expected="a share such as 5% or 0.05")
    return value


def compare(new: dict[str, Any], old: dict[str, Any], threshold: float = 0.05) -> dict[str, Any]:
    """Compare rows of the same case, new over old.

    A regression is a ratio past 1 + threshold whose 95% interval lies above 1: slower, and not by chance.

    Returns:
        `rows` with a ratio for each time, `regressions` as lines, `notes` on what makes the two unlike, and in `alone`
        rows that only one has.

    Raises:
        InputError: the documents have no row in common.
    """
    new_rows, before = (
        {repr(sorted(row["case"].items())): row for row in d["rows"] if row["status"] == "measured"} for d in (new, old)
    )
    rows, regressions = list[dict[str, Any]](), list[str]()
    alone = [f"{row['label']}: new" for key, row in new_rows.items() if key not in before]
    alone += [f"{row['label']}: gone" for key, row in before.items() if key not in new_rows]
    for key, row in new_rows.items():
        if key not in before:
            continue
        ratios: dict[str, Any] = {}
        for name, what in _TIMES.items():
            one = ratio(times_of(row["samples"], name), times_of(before[key]["samples"], name))
            slower = one.slower_than(threshold)
            ratios[name] = {"ratio": one.value, "low": one.low, "high": one.high, "slower": slower}
            if slower:
                times = f"{one.value:.3f} times as long (95% interval {one.low:.3f} to {one.high:.3f})"
                regressions.append(f"{row['label']}: {what} takes {times}")
        rows.append({"label": row["label"], **ratios})
    if not rows:
        raise InputError.of("--compare", "rows", found="no row in common", expected="at least one of the same case")
    notes = _unlike(new, old)
    return {"threshold": threshold, "rows": rows, "regressions": regressions, "notes": notes, "alone": alone}


def _unlike(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """Return what differs between two benchmarks' machines, models and packages, a line each."""
    now, before = new["environment"], old["environment"]
    pairs = [(name, before[name], now[name]) for name in _MACHINE]
    pairs += [(name, before["versions"].get(name), version) for name, version in now["versions"].items()]
    lines = [f"{name}: {old_value} before, {value} now" for name, old_value, value in pairs if old_value != value]
    return lines + (["the bundle is another"] if new["bundle"]["sha256"] != old["bundle"]["sha256"] else [])
