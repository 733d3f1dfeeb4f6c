"""A benchmark's document as tables, and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from x2ct.benchmark.stats import CV_LIMIT, Summary
from x2ct.io.report import markdown_table


@dataclass(frozen=True)
class Table:
    """A titled table, with lines on what its figures are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=tuple)

    def markdown(self) -> str:
        """Return it as Markdown, under a heading of the second level."""
        lines = [f"## {self.title}", "", *(line for note in self.notes for line in (note, ""))]
        return "\n".join(lines + markdown_table(self.columns, self.rows)) + "\n"


def ms(value: float | None) -> str:
    """Return seconds as milliseconds."""
    return "-" if value is None else f"{1e3 * value:.1f}" if value < 10 else f"{1e3 * value:.0f}"


def percent(value: float | None) -> str:
    """Return a share in percent."""
    return "-" if value is None else f"{100 * value:.1f}%"


def mib(value: float | None) -> str:
    """Return bytes as MiB."""
    return "-" if value is None else f"{value / (1 << 20):.0f}"


def page(title: str, document: dict[str, Any], tables: Sequence[Table]) -> str:
    """Return a page of Markdown: the machine, the warnings, the tables."""
    lines = [f"# {document['bundle']['name']}: {title}", "", machine(document), ""]
    if document.get("warnings"):
        lines += ["Before the figures:", "", *(f"- {warning}" for warning in document["warnings"]), ""]
    return "\n".join(lines) + "\n" + "\n".join(table.markdown() for table in tables)


def tables_of(document: dict[str, Any]) -> list[Table]:
    """Return all tables of a document of `x2ct bench`."""
    tables = [latency(document), computed(document), cold(document)] if document["rows"] else []
    return [*tables, *([headline(document["headline"])] if document["headline"] else [])]


def machine(document: dict[str, Any]) -> str:
    """Return a few sentences on the machine, and on the GPUs and how they ran."""
    facts, clocks = document["environment"], document.get("clocks") or {}
    parts = [
        f"{facts['processor']}, {facts['processors']} processors",
        ", ".join(facts["instructions"]) or "no vector instructions",
        f"threads: {facts['threads'] or 'the runtime decides'}",
        f"governor: {facts['governor']}",
        f"load average before: {facts['load_average'][0]:.2f}",
        f"others took {100 * facts['others_share']:.1f}% of the processors",
        *clocks.get("notes", ()),
    ]
    gpu = clocks.get("gpu")
    if isinstance(gpu, dict) and facts.get("gpu"):
        units = {"clocks.sm": "MHz", "clocks.mem": "MHz memory", "power.draw": "W", "temperature.gpu": "degrees"}
        spans = [f"{gpu[name]['min']:g} to {gpu[name]['max']:g} {unit}" for name, unit in units.items() if gpu[name]]
        unknown = ["throttling not readable here"] if gpu["throttled_by"] is None else []
        parts.append(f"{'; '.join(facts['gpu'])}: {', '.join([*spans, *unknown])}")
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version != "missing")
    return f"Taken {document['created']}. {'; '.join(parts)}. {versions}."


def latency(document: dict[str, Any]) -> Table:
    """Return how long the runs and their evaluations took, two lines a row."""
    lines = []
    for row in _measured(document):
        on_gpu = row["facts"]["device"] != "cpu"
        times_of_row = [
            ("end_to_end_s", "latency, end to end" if on_gpu else "end to end", "volumes_per_s"),
            *([("compute_s", "GPU compute time", None)] if on_gpu else []),
            ("evaluation_s", "evaluation", "evaluations_per_s"),
        ]
        for name, what, rate in times_of_row:
            one = Summary(**row["summary"][name])
            times = (ms(value) for value in (one.min, one.median, one.p90, one.p95, one.p99))
            spread = percent(one.cv) + (" !" if one.unsteady else "")
            label = row["label"] if name == "end_to_end_s" else ""
            lines.append([label, what, str(one.n), *times, spread, f"{row['summary'][rate]:.3g}/s" if rate else ""])
    grids = {tuple(row["facts"]["grid"]) for row in _measured(document)}
    effort = document["effort"]
    notes = [
        f"Grid {', '.join(' x '.join(map(str, grid)) for grid in sorted(grids))}. End to end is from X-rays in memory "
        "to a CT in memory: encoder, lift and loop. An evaluation is from one's end to the next's, the element-wise "
        "step included; the rate beside it is evaluations over the loop's time.",
        f"{'Rows take turns' if effort['together'] else 'One row after another'}, {effort['warmup']} run(s) of warm-up "
        "after the first. A percentile is given where at least one sample may lie beyond it: from 10, 20 and 100 on. A "
        f"CV above {100 * CV_LIMIT:g}% has a '!'.",
    ]
    if any(row["facts"]["device"] != "cpu" for row in _measured(document)):
        notes.append(
            "Latency and GPU compute time are as in trtexec's report: with copies between host and device, and the "
            "loop's networks and kernels by the GPU's own clock, without copies and waits. First runs stand under Cold "
            "start."
        )
    columns = ["row", "time of", "n", "min ms", "median", "p90", "p95", "p99", "CV", "rate"]
    return Table("Latency", columns, lines, notes)


def computed(document: dict[str, Any]) -> Table:
    """Return what was computed, how near to the reference, and in how much memory."""
    measured, lines, missing = _measured(document), [], []
    for row in measured:
        facts, memory, cut, parity = row["facts"], row["memory"], row["facts"]["tiles"], row["parity"] or {"none": None}
        if parity.get("none"):
            missing.append(f"{row['label']}: no parity: {parity['none']}.")
        tiles = f"{' x '.join(map(str, cut['count']))}, halo {cut['halo']}" if cut else "whole"
        distances = [("mean_abs_hu", ".4f"), ("rms_hu", ".4f"), ("max_abs_hu", ".2f")]
        lines.append(
            [
                row["label"],
                f"{facts['backend']} {facts['runtime']} {facts['precision']}",
                f"{facts['solver']} {facts['schedule']}, {facts['evaluations']}",
                tiles,
                *(f"{parity[name]:{form}}" if name in parity else "-" for name, form in distances),
                *(mib(memory[name]) for name in ("base_bytes", "steady_bytes", "peak_bytes", "device_bytes")),
            ]
        )
    transfers = "; ".join(sorted({str(row["facts"]["transfers"]) for row in measured}))
    notes = [
        "MAE, RMS and most are of the CT of seed 0 against OpenVINO f32, whole, with the same solver, schedule and "
        "seed. Memory is the process's own, resident: before it loads anything, between runs, at its peak; and the "
        "device's.",
        f"Copies between host and device: {transfers}.",
    ]
    columns = ["row", "computed by", "solver, evaluations", "tiles", "MAE HU", "RMS", "most"]
    return Table("Parity and memory", [*columns, "base MiB", "steady", "peak", "device"], lines, [*notes, *missing])


def cold(document: dict[str, Any]) -> Table:
    """Return how long a fresh process takes to its first CT."""
    rows = []
    for row in _measured(document):
        starts = row["cold_start"]
        names = ("start_s", "load_s", "build_s", "first_run_s")
        rows.append([row["label"], str(len(starts)), *(ms(median(start[name] for start in starts)) for name in names)])
    notes = [
        "A fresh process: Python and imports; reading and checking the bundle; compiling the networks; the first run. "
        "Medians of n processes; the files were in the system's cache. The PyTorch "
        "loop's load brings the bundle's weights back into PyTorch."
    ]
    return Table("Cold start", ["row", "n", "start ms", "load", "build", "first run"], rows, notes)


def headline(rows_by_name: dict[str, Any]) -> Table:
    """Return how many times faster than the PyTorch loop the fastest row is, and one as near as EDM's defaults."""
    rows = []
    for name, what in (("fastest", "fastest row"), ("as_near_as_edm", "as near as EDM's defaults, or nearer")):
        ours = rows_by_name.get(name)
        if ours is None:
            rows += [[what, "none", "-", "-", "-"]] if name in rows_by_name else []
            continue
        label = ours.get("label") or f"{ours['solver']} {ours['schedule']} {ours['precision']}, {ours['evaluations']}"
        for other, times in ours["times_faster_than"].items():
            rows.append([what, label, other, f"{times['end_to_end']:.1f}", f"{times['loop']:.1f}"])
    notes = [
        "How many times faster than the PyTorch loop with EDM's defaults (Heun, 18 steps, 35 evaluations); medians."
    ]
    return Table("Against the PyTorch loop", ["ours", "which", "theirs", "end to end", "loop"], rows, notes)


def comparison(result: dict[str, Any]) -> Table:
    """Return the ratios that `document.compare` computed."""

    def cell(one: dict[str, Any]) -> str:
        return f"{one['ratio']:.3f} ({one['low']:.3f} to {one['high']:.3f}){' slower' if one['slower'] else ''}"

    rows = [[row["label"], cell(row["end_to_end_s"]), cell(row["evaluation_s"])] for row in result["rows"]]
    threshold = f"{1 + result['threshold']:g}"
    notes = [f"New over old, medians, 95% bootstrap intervals; slower: past {threshold}, interval above 1."]
    return Table("Comparison", ["row", "end to end", "evaluation"], rows, [*notes, *result["notes"], *result["alone"]])


def _measured(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in document["rows"] if row["status"] == "measured"]
