"""One benchmark as a JSON document (docs/benchmark.md has the schema), the comparison of two, and their tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from os import PathLike
from statistics import median
from typing import Any

from x2ct.benchmark.cases import Case
from x2ct.benchmark.fleet import COLD, Effort, Row, Say, measure, times_of
from x2ct.benchmark.stats import CV_LIMIT, Summary, ratio
from x2ct.bundle import Bundle
from x2ct.errors import InputError
from x2ct.files.atomic import write_atomically
from x2ct.io import report
from x2ct.io.report import Table
from x2ct.runtimes.machine import Neighbours, describe, doubts, environment

SCHEMA = 1
_TIMES = {"end_to_end_s": "end to end", "evaluation_s": "an evaluation"}
_OURS = {"fastest": "fastest row", "as_near_as_edm": "as near as EDM's defaults, or nearer"}
_MACHINE = ("processor", "processors", "affinity", "instructions")

Document = dict[str, Any]


class Session:
    """The facts that every benchmark's document begins with; the others' share is measured from here to `facts`."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle, self._environment, self._neighbours = bundle, environment(threads), Neighbours()

    def facts(self) -> Document:
        """Return time, bundle and environment, with the share of the processors that others took meanwhile."""
        bundle = self._bundle
        return {
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "bundle": {"name": bundle.name, "sha256": bundle.checksum, "grid": list(bundle.grid.shape)},
            "environment": self._environment | {"others_share": self._neighbours.share()},
        }


def benchmark(source: str, cases: Sequence[Case], effort: Effort, threads: int, say: Say) -> Document:
    """Measure all cases of the bundle `source`, a folder or a name, and return the document; raises as `measure`."""
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


def headline(rows: Sequence[Row]) -> Document | None:
    """Return the fastest row, in times faster than the PyTorch loop on the same grid; None where either is missing."""
    plain = [row for row in rows if row.case.plain and not row.error]
    own = [row for row in rows if not row.case.plain and not row.error]
    own = [row for row in own if plain and row.facts["grid"] == plain[0].facts["grid"]]
    return {"fastest": faster(min(own, key=lambda row: row.median("end_to_end_s")), plain)} if own else None


def faster(row: Row, plain: Sequence[Row]) -> Document:
    """Return a row's medians in seconds, and by how much they are below those of each row of the PyTorch loop."""
    end_to_end, loop = row.median("end_to_end_s"), row.median("loop_s")
    times = {
        other.label: {"end_to_end": other.median("end_to_end_s") / end_to_end, "loop": other.median("loop_s") / loop}
        for other in plain
    }
    return {"label": row.label, "end_to_end_s": end_to_end, "loop_s": loop, "times_faster_than": times}


def warnings(document: Document) -> list[str]:
    """Return what a reader of the figures has to know first."""
    lines = doubts(document["environment"], document["clocks"])
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


def read(path: str | PathLike[str]) -> Document:
    """Read a document. Raises InputError where the file is none, or of another schema."""
    document = report.read_json(path)
    if document.get("kind") != "x2ct bench" or document.get("schema") != SCHEMA:
        kind = f"{document.get('kind')!r}, schema {document.get('schema')!r}"
        raise InputError.of(path, "kind", found=kind, expected=f"'x2ct bench', schema {SCHEMA}")
    return document


def write(document: Document, text: str, name: str | PathLike[str]) -> None:
    """Write NAME.json and its page NAME.md, each whole or not at all. Raises X2CTError."""
    report.write_json(document, f"{name}.json")
    write_atomically(f"{name}.md", text.encode())


def compare(new: Document, old: Document, threshold: float = 0.05) -> Document:
    """Compare rows of the same case, new over old. Raises InputError where there is none.

    The result has `rows` with a ratio for each time; `regressions`, lines on those that are slower
    (`Ratio.slower_than`); `notes` on what makes the two unlike; and in `alone` rows that only one has.
    """
    after, before = ({json.dumps(row["case"], sort_keys=True): row for row in measured(one)} for one in (new, old))
    rows, regressions = list[Document](), list[str]()
    for key in (key for key in after if key in before):
        label, row = after[key]["label"], dict[str, Any]()
        for name, what in _TIMES.items():
            one = ratio(*(times_of(of[key]["samples"], name) for of in (after, before)))
            slower = one.slower_than(threshold)
            row[name] = {"ratio": one.value, "low": one.low, "high": one.high, "slower": slower}
            if slower:
                times = f"{one.value:.3f} times as long (95% interval {one.low:.3f} to {one.high:.3f})"
                regressions.append(f"{label}: {what} takes {times}")
        rows.append({"label": label, **row})
    if not rows:
        raise InputError.of("--compare", "rows", found="no row in common", expected="at least one of the same case")
    alone = [f"{row['label']}: new" for key, row in after.items() if key not in before]
    alone += [f"{row['label']}: gone" for key, row in before.items() if key not in after]
    now, past = (
        {name: one["environment"][name] for name in _MACHINE} | one["environment"]["versions"] for one in (new, old)
    )
    notes = [f"{name}: {past.get(name)} before, {value} now" for name, value in now.items() if past.get(name) != value]
    notes += ["the bundle is another"] if new["bundle"]["sha256"] != old["bundle"]["sha256"] else []
    return {"threshold": threshold, "rows": rows, "regressions": regressions, "notes": notes, "alone": alone}


def ms(value: float | None) -> str:
    """Return seconds as milliseconds."""
    return "-" if value is None else f"{1e3 * value:.1f}" if value < 10 else f"{1e3 * value:.0f}"


def mib(value: float | None) -> str:
    """Return bytes as MiB."""
    return "-" if value is None else f"{value / (1 << 20):.0f}"


def page(title: str, document: Document, tables: Sequence[Table]) -> str:
    """Return a page of Markdown: the machine, the warnings, the tables."""
    machine = describe(document["environment"], document.get("clocks") or {})
    lines = [f"# {document['bundle']['name']}: {title}", "", f"Taken {document['created']}. {machine}", ""]
    if document.get("warnings"):
        lines += ["Before the figures:", "", *(f"- {warning}" for warning in document["warnings"]), ""]
    return "\n".join([*lines, *(line for table in tables for line in [*table.markdown(), ""])])


def tables_of(document: Document) -> list[Table]:
    """Return all tables of a document of `x2ct bench`."""
    rows, best = measured(document), document["headline"]
    tables = [latency(rows, document["effort"]), computed(rows), cold(rows)] if document["rows"] else []
    return [*tables, *([against(best)] if best else [])]


def measured(document: Document) -> list[Document]:
    """Return the rows that have figures."""
    return [row for row in document["rows"] if row["status"] == "measured"]


def latency(rows: Sequence[Document], effort: Document) -> Table:
    """Return how long the runs and their evaluations took, two lines a row."""
    lines, on_gpu = [], any(row["facts"]["device"] != "cpu" for row in rows)
    for row in rows:
        gpu = row["facts"]["device"] != "cpu"
        parts = [
            ("end_to_end_s", "latency, end to end" if gpu else "end to end", "volumes_per_s"),
            *([("compute_s", "GPU compute time", None)] if gpu else []),
            ("evaluation_s", "evaluation", "evaluations_per_s"),
        ]
        for name, what, rate in parts:
            one = Summary(**row["summary"][name])
            times = (ms(value) for value in (one.min, one.median, one.p90, one.p95, one.p99))
            spread = ("-" if one.cv is None else f"{100 * one.cv:.1f}%") + (" !" if one.unsteady else "")
            label = row["label"] if name == "end_to_end_s" else ""
            lines.append([label, what, str(one.n), *times, spread, f"{row['summary'][rate]:.3g}/s" if rate else ""])
    grids = sorted({tuple(row["facts"]["grid"]) for row in rows})
    notes = [
        f"Grid {', '.join(' x '.join(map(str, grid)) for grid in grids)}. End to end is from X-rays in memory "
        "to a CT in memory: encoder, lift and loop. An evaluation is from one's end to the next's, the element-wise "
        "step included; the rate beside it is evaluations over the loop's time.",
        f"{'Rows take turns' if effort['together'] else 'One row after another'}, {effort['warmup']} run(s) of warm-up "
        "after the first. A percentile is given where at least one sample may lie beyond it: from 10, 20 and 100 on. A "
        f"CV above {100 * CV_LIMIT:g}% has a '!'.",
        "Latency and GPU compute time are as in trtexec's report: with copies between host and device, and the loop's "
        "networks and kernels by the GPU's own clock, without copies and waits. First runs stand under Cold start.",
    ]
    columns = ["row", "time of", "n", "min ms", "median", "p90", "p95", "p99", "CV", "rate"]
    return Table("Latency", columns, lines, notes if on_gpu else notes[:2])


def computed(rows: Sequence[Document]) -> Table:
    """Return what was computed, how near to the reference, and in how much memory."""
    tiles = "{count[0]} x {count[1]} x {count[2]}, halo {halo}"

    def figure(part: str, name: str, text: Callable[[Any], str]) -> Callable[[Document], str]:
        return lambda row: text(row[part][name]) if name in (row[part] or ()) else "-"

    columns: dict[str, Callable[[Document], str]] = {
        "row": lambda row: str(row["label"]),
        "computed by": lambda row: "{backend} {runtime} {precision}".format(**row["facts"]),
        "solver, evaluations": lambda row: "{solver} {schedule}, {evaluations}".format(**row["facts"]),
        "tiles": lambda row: tiles.format(**row["facts"]["tiles"]) if row["facts"]["tiles"] else "whole",
        "MAE HU": figure("parity", "mean_abs_hu", "{:.4f}".format),
        "RMS": figure("parity", "rms_hu", "{:.4f}".format),
        "most": figure("parity", "max_abs_hu", "{:.2f}".format),
        "base MiB": figure("memory", "base_bytes", mib),
        "steady": figure("memory", "steady_bytes", mib),
        "peak": figure("memory", "peak_bytes", mib),
        "device": figure("memory", "device_bytes", mib),
    }
    notes = [
        "MAE, RMS and most are of the CT of seed 0 against OpenVINO f32, whole, with the same solver, schedule and "
        "seed. Memory is the process's own, resident: before it loads anything, between runs, at its peak; and the "
        "device's.",
        f"Copies between host and device: {'; '.join(sorted({str(row['facts']['transfers']) for row in rows}))}.",
    ]
    reasons = {row["label"]: (row["parity"] or {}).get("none") for row in rows}
    notes += [f"{label}: no parity: {reason}." for label, reason in reasons.items() if reason]
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    return Table("Parity and memory", list(columns), cells, notes)


def cold(rows: Sequence[Document]) -> Table:
    """Return how long a fresh process takes to its first CT."""
    lines = []
    for row in rows:
        starts = row["cold_start"]
        lines.append([row["label"], str(len(starts)), *(ms(median(start[name] for start in starts)) for name in COLD)])
    notes = [
        "A fresh process: Python and imports; reading and checking the bundle; compiling the networks; the first run. "
        "Medians of n processes; the files were in the system's cache. The PyTorch loop's load brings the bundle's "
        "weights back into PyTorch."
    ]
    return Table("Cold start", ["row", "n", "start ms", "load", "build", "first run"], lines, notes)


def against(ours_by_name: dict[str, Document | None]) -> Table:
    """Return how many times faster than the PyTorch loop rows of ours are, those of `_OURS` (see `faster`)."""
    rows = []
    for name, ours in ours_by_name.items():
        if ours is None:
            rows.append([_OURS[name], "none", "-", "-", "-"])
            continue
        label = ours.get("label") or f"{ours['solver']} {ours['schedule']} {ours['precision']}, {ours['evaluations']}"
        for other, times in ours["times_faster_than"].items():
            rows.append([_OURS[name], label, other, f"{times['end_to_end']:.1f}", f"{times['loop']:.1f}"])
    note = "How many times faster than the PyTorch loop with EDM's defaults (Heun, 18 steps, 35 evaluations); medians."
    return Table("Against the PyTorch loop", ["ours", "which", "theirs", "end to end", "loop"], rows, [note])


def comparison(result: Document) -> Table:
    """Return the ratios that `compare` computed."""

    def cell(one: Document) -> str:
        return f"{one['ratio']:.3f} ({one['low']:.3f} to {one['high']:.3f}){' slower' if one['slower'] else ''}"

    rows = [[row["label"], *(cell(row[name]) for name in _TIMES)] for row in result["rows"]]
    limit = 1 + result["threshold"]
    notes = [f"New over old, medians, 95% bootstrap intervals; slower: past {limit:g}, interval above 1."]
    return Table("Comparison", ["row", "end to end", "evaluation"], rows, [*notes, *result["notes"], *result["alone"]])
