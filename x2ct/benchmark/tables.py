"""A benchmark's document as tables, and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from x2ct.benchmark.parttables import agreement, roofline, scaling
from x2ct.benchmark.rowtables import cold, computed, headline, latency
from x2ct.benchmark.table import Table


def tables(made: dict[str, Any]) -> list[Table]:
    """All of a document's."""
    found = [latency(made), computed(made), cold(made)] if made["rows"] else []
    if made["headline"]:
        found.append(headline(made["headline"]))
    if made["agreement"]:
        found.append(agreement(made["agreement"]))
    if made["roofline"]:
        found += roofline(made["roofline"])
    if made["scaling"]:
        found += [scaling(axis, points) for axis, points in made["scaling"]["axes"].items()]
    return found


def markdown(made: dict[str, Any], pictures: Mapping[str, str] | None = None) -> str:
    """The whole document as a page; `pictures` are file names by part."""
    lines = [f"# {made['bundle']['name']}: benchmark", "", f"{machine(made)}", ""]
    if made["warnings"]:
        lines += ["Before the figures:", "", *(f"- {warning}" for warning in made["warnings"]), ""]
    text = "\n".join(lines) + "\n" + "\n".join(table.markdown() for table in tables(made))
    for part, name in (pictures or {}).items():
        text += f"\n![{part}]({name})\n"
    return text


def machine(made: dict[str, Any]) -> str:
    """The machine in a few sentences."""
    facts = made["environment"]
    load, others = facts["load_average"], facts["others_share"]
    parts = [
        f"{facts['processor']}, {facts['processors']} processors",
        ", ".join(facts["instructions"]) or "no vector instructions",
        f"threads: {facts['threads'] or 'the runtime decides'}",
        f"governor: {facts['governor']}",
        f"load average before: {load[0]:.2f}" if load else "load average: not readable here",
        f"others took {100 * others:.1f}% of the processors"
        if others is not None
        else "others' share: not readable here",
        *(made["clocks"]["notes"] if made["clocks"] else ()),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version != "missing")
    return f"Taken {made['created']}. {'; '.join(parts)}. {versions}."


def comparison(found: dict[str, Any]) -> Table:
    """What `compare` found."""

    def cell(row: dict[str, Any], name: str) -> str:
        one = row[name]
        mark = " slower" if one["slower"] else ""
        return f"{one['ratio']:.3f} ({one['low']:.3f} to {one['high']:.3f}){mark}"

    rows = [[row["label"], cell(row, "end_to_end_s"), cell(row, "evaluation_s")] for row in found["rows"]]
    notes = [
        f"New over old, medians, 95% bootstrap intervals; slower: past {1 + found['threshold']:g}, interval above 1."
    ]
    return Table("Comparison", ["row", "end to end", "evaluation"], rows, [*notes, *found["notes"], *found["alone"]])
