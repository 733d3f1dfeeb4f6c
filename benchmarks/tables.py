"""All tables of benchmarks/README.md, of the README and of the model card, from benchmarks/results. Measures nothing.

    python benchmarks/tables.py             # or: make benchmarks
    python benchmarks/tables.py --check     # exit code 1 if a table is not what its JSON says

Each results file belongs to a section, by its name; its page is written beside it by the `markdown` of the command that
measured it. A JSON that no section knows is taken with the page that its own command wrote.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

from benchmarks import agreement, model_card, refresh, roofline, scaling
from x2ct.benchmark import document
from x2ct.io.report import markdown_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Section:
    """Results of one kind: their names under results/, and what draws a page of one."""

    title: str
    pattern: str
    render: Callable[[Any, Path], str]


def _bench(made: dict[str, Any], path: Path) -> str:
    """Return the page of `x2ct bench`; a document from before its parts became scripts has those parts' tables too."""
    tables = document.tables_of(made)
    for name, script in (("agreement", agreement), ("roofline", roofline), ("scaling", scaling)):
        tables += script.tables(made[name]) if made.get(name) else []
    return document.page("benchmark", made, tables)


def _by_script(name: str) -> Callable[[Any, Path], str]:
    """Return the `markdown` of a command in benchmarks/."""
    return lambda found, path: str(importlib.import_module(f"benchmarks.{name}").markdown(found))


def _evaluation(found: dict[str, Any], path: Path) -> str:
    from x2ct.evaluation import card

    return card.report(found)


def _tune(found: dict[str, Any], path: Path) -> str:
    lines = [
        f"{found['solver']}, {' x '.join(map(str, found['shape']))} voxels, {', '.join(found['patients'])}; RMS "
        f"difference from {found['reference_steps']} steps in % of the HU window.",
        "",
    ]
    rows = [
        (row["steps"], f"{row['untuned']:.3f}", f"{row['tuned']:.3f}", "yes" if row["stored"] else "no")
        for row in found["rows"]
    ]
    lines += markdown_table(("steps", "untuned", "tuned", "stored"), rows)
    return "\n".join(lines) + "\n"


def _int8(found: dict[str, Any], path: Path) -> str:
    from x2ct.export.quantise import Quantised, markdown

    return markdown(Quantised(**{field.name: found[field.name] for field in fields(Quantised)}))


def _deviation(found: dict[str, Any], path: Path) -> str:
    from x2ct.tuning.deviation import Calibrated, Scale, markdown

    rows = tuple(Scale(**row) for row in found["rows"])
    return markdown(Calibrated(tuple(found["patients"]), found["samples"], rows))


def _soak(found: dict[str, Any], path: Path) -> str:
    memory, grids = found["rss_mib"], found.get("grids") or [found["grid"]]
    text = (
        f"{found['runs']} runs of {', '.join(' x '.join(map(str, grid)) for grid in grids)} voxels in "
        f"{found['seconds']:.0f} s: resident memory {memory[0]} MiB after the first tenth, "
        f"{max(memory[1:])} MiB at most later, {100 * found['growth']:.3f}% more (limit {100 * found['limit']:g}%)."
    )
    if "kinds" in found:
        freed = found["rss_with_freed_mib"]
        kinds = ", ".join(f"{count} {kind}" for kind, count in found["kinds"].items())
        text += (
            f" {kinds}; the same runs gave the same bytes at each reading. With what had been freed and malloc still "
            f"kept, it was {min(freed)} to {max(freed)} MiB."
        )
    return text + "\n"


SECTIONS = (
    Section("Latency, roofline, agreement", "bench*.json", _bench),
    Section(
        "Scaling", "scaling*.json", lambda made, path: _bench(made, path) if "kind" in made else scaling.markdown(made)
    ),
    Section("Agreement", "agreement*.json", _by_script("agreement")),
    Section("Roofline", "roofline*.json", _by_script("roofline")),
    Section("Tiles", "tiles*.json", _bench),
    Section("The ancestor", "ancestor*.json", _by_script("ancestor")),
    Section("Runtimes", "runtimes*.json", _by_script("runtimes")),
    Section("Batches", "batch*.json", _by_script("batch")),
    Section("Quality", "evaluat*/evaluation.json", _evaluation),
    Section("Baselines trained for equal time", "baselines*.json", _by_script("baselines_table")),
    Section("Solvers", "solvers*.json", _by_script("solvers")),
    Section("Noise levels for few steps", "tune*.json", _tune),
    Section("Consistency", "consistency*/consistency.json", _by_script("consistency")),
    Section("Designs", "designs*.json", _by_script("designs")),
    Section("8 bits", "int8*.json", _int8),
    Section("The standard deviation", "deviation*.json", _deviation),
    Section("Soak", "soak*.json", _soak),
)
OTHERS = "As their own commands printed them"


def pages() -> dict[Path, tuple[str, str]]:
    """Return each results file's section and page.

    Raises:
        ValueError: a JSON that no section knows and no page belongs to.
    """
    found: dict[Path, tuple[str, str]] = {}
    for path in sorted(RESULTS.rglob("*.json")):
        name = path.relative_to(RESULTS).as_posix()
        section = next((one for one in SECTIONS if fnmatch(name, one.pattern)), None)
        page = path.with_suffix(".md")
        if section is not None:
            page_text = section.render(json.loads(path.read_text()), path)
            found[path] = section.title, page_text.rstrip() + "\n"
        elif page.is_file():
            found[path] = OTHERS, page.read_text()
        else:
            raise ValueError(f"{name}: found neither a section nor a page, expected one; see benchmarks/tables.py")
    return found


def readme(made: dict[Path, tuple[str, str]]) -> str:
    """Return the README's tables by section; headings move below the sections', pictures' links to where they lie."""
    lines = []
    for title in (*(section.title for section in SECTIONS), OTHERS):
        mine = {path: page for path, (section, page) in made.items() if section == title}
        if mine:
            lines += [f"## {title}", ""]
        for path, page in mine.items():
            name = path.relative_to(RESULTS.parent).as_posix()
            folder = path.parent.relative_to(RESULTS.parent).as_posix()
            lowered = re.sub(r"^(#+) ", r"##\1 ", page, flags=re.MULTILINE)
            moved = re.sub(r"\]\((?!https?:|/)([^)]+\.(?:svg|png))\)", rf"]({folder}/\1)", lowered)
            lines += [f"From [{name}]({name}):", "", moved.strip(), ""]
    return "\n".join(lines)


def speed(bench: Path) -> str:
    """Return the few figures that the project's README has."""
    if not bench.is_file():
        return (
            "Not taken yet for this version: `x2ct bench chest -o benchmarks/results/bench`, then `make benchmarks`.\n"
        )
    made = json.loads(bench.read_text())
    rows = []
    for row in made["rows"]:
        if row["status"] != "measured":
            continue
        parity, summary = row["parity"], row["summary"]
        off = "-" if "none" in parity else f"{parity['mean_abs_hu']:.4f}"
        times = (f"{1e3 * summary[name]['median']:.0f}" for name in ("end_to_end_s", "evaluation_s"))
        rows.append((row["label"], row["facts"]["evaluations"], *times, off))
    lines = markdown_table(("", "evaluations", "end to end ms", "an evaluation ms", "mean difference HU"), rows)
    lines += ["", *(f"Note: {warning}." for warning in made["warnings"] if "varies" not in warning)]
    best = dict(made["headline"] or {})
    if (near := bench.with_name("agreement.json")).is_file():
        best["as_near_as_edm"] = json.loads(near.read_text())["as_near_as_edm"]
    for name, what in (("fastest", "The fastest row"), ("as_near_as_edm", "Ours that ends as near as EDM's defaults")):
        ours = best.get(name)
        for theirs, times in (ours["times_faster_than"] if ours else {}).items():
            lines.append(f"{what} is {times['end_to_end']:.1f} times as fast end to end as {theirs}.")
    return "\n".join(lines) + "\n"


def outputs() -> Iterator[tuple[Path, str]]:
    """Every file that this command writes, and its content."""
    made = pages()
    for path, (section, page) in made.items():
        if section != OTHERS:
            yield path.with_suffix(".md"), page
    parts = {
        **model_card.parts(RESULTS),
        "commands": refresh.markdown(),
        "results": readme(made),
        "speed": speed(RESULTS / "bench.json"),
    }
    for page in (ROOT / "benchmarks" / "README.md", ROOT / "README.md", ROOT / "x2ct" / "models" / "chest.md"):
        yield page, model_card.filled(page.read_text(), parts, page.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say what would change")
    asked = parser.parse_args()
    try:
        changed = [(path, text) for path, text in outputs() if not path.is_file() or path.read_text() != text]
    except ValueError as error:
        print(f"tables.py: {error}", file=sys.stderr)
        return 2
    for path, text in changed:
        print(f"{path.relative_to(ROOT)}: {'differs' if asked.check else 'written'}")
        if not asked.check:
            path.write_text(text)
    return 1 if asked.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
