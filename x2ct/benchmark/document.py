"""One benchmark, as one JSON document: docs/benchmark.md has its schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

from x2ct import report
from x2ct.benchmark.agreement import agreement
from x2ct.benchmark.cases import Case, cases_of
from x2ct.benchmark.fleet import Effort, Row, Say, measure
from x2ct.benchmark.machine import BUSY_SHARE, Neighbours, clock_facts, environment
from x2ct.benchmark.roofline import roofline
from x2ct.benchmark.scaling import SIDES, scaling
from x2ct.benchmark.stats import CV_LIMIT, Summary
from x2ct.bundle import Bundle
from x2ct.errors import InputError

SCHEMA = 1
PARTS = ("latency", "roofline", "agreement", "scaling")
DEFAULT_PARTS = PARTS[:3]


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        sweeps: of the latency's rows, as `cases.parse_sweep` reads them.
        parts: some of `PARTS`.
        effort: how often.
        threads: of the runtimes, where they are not swept.
        plain: whether the PyTorch loop is a row.
        sides: of the scaling's cubes.
        memory: bytes a process of the scaling may take.

    Raises:
        InputError: an unknown part, or a sweep that can't be read.
    """

    sweeps: tuple[str, ...] = ()
    parts: tuple[str, ...] = DEFAULT_PARTS
    effort: Effort = field(default_factory=Effort)
    threads: int = 0
    plain: bool = True
    sides: tuple[int, ...] = SIDES
    memory: int | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise InputError.of("--part", "name", found=repr(part), expected=" or ".join(PARTS))
        self.cases()

    def cases(self) -> list[Case]:
        """The latency's rows."""
        return cases_of(self.sweeps, self.threads, self.plain)


def benchmark(source: str, plan: Plan, say: Say = lambda _: None) -> dict[str, Any]:
    """Measure.

    Args:
        source: the bundle's folder or name.
        plan: what.
        say: told what is being done.

    Returns:
        The document.

    Raises:
        InputError: the bundle, or a row that it can't be asked for.
        X2CTError: nothing could be measured.
    """
    bundle = Bundle.load(source)
    facts = environment(plan.threads)
    neighbours = Neighbours()
    rows, clocks = (
        measure(source, plan.cases(), plan.effort, say) if "latency" in plan.parts else (list[Row](), list[Any]())
    )
    made: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "x2ct bench",
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "bundle": {"name": bundle.name, "sha256": bundle.checksum, "grid": list(bundle.grid.shape)},
        "environment": facts,
        "effort": vars(plan.effort),
        "plain_loop": plan.plain,
        "rows": [row.to_json() for row in rows],
        "clocks": clock_facts(clocks[0], clocks[-1]) if clocks else None,
        "roofline": None,
        "agreement": None,
        "scaling": None,
    }
    grid = next((case.grid for case in plan.cases()), None)
    if "roofline" in plan.parts:
        made["roofline"] = roofline(bundle, _pairs(rows), grid=grid, threads=plan.threads, say=say)
    if "agreement" in plan.parts:
        few = replace(plan.effort, cold=1, warmup=0, runs=min(2, plan.effort.runs))
        made["agreement"] = agreement(bundle, source, grid=grid, threads=plan.threads, effort=few, say=say)
    if "scaling" in plan.parts:
        few = replace(plan.effort, warmup=0, runs=min(2, plan.effort.runs))
        made["scaling"] = scaling(
            source,
            backend="auto",
            precision="auto",
            threads=plan.threads,
            effort=few,
            say=say,
            sides=plan.sides,
            memory=plan.memory,
        )
    made["environment"]["others_share"] = neighbours.share()
    made["headline"] = headline(made)
    made["warnings"] = warnings(made)
    return made


def _pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Backend and precision of the rows on the CPU, as they turned out; OpenVINO's f32 where there are no rows."""
    found = [
        (str(row.facts["backend"]), str(row.facts["precision"]))
        for row in rows
        if row.measured and not row.case.plain and row.facts["device"] == "cpu"
    ]
    return list(dict.fromkeys(found)) or [("openvino", "f32")]


def headline(made: dict[str, Any]) -> dict[str, Any] | None:
    """Ours against the plain loop: the fastest row, and the fewest evaluations that end as near as EDM's defaults."""
    plain = [row for row in made["rows"] if row["case"]["solver"] == "heun" and row["case"]["backend"].startswith("py")]
    plain = [row for row in plain if row["status"] == "measured"]
    if not plain:
        return None

    def times(ours: dict[str, float]) -> dict[str, dict[str, float]]:
        return {
            row["label"]: {
                "end_to_end": row["summary"]["end_to_end_s"]["median"] / ours["end_to_end_s"],
                "loop": row["summary"]["loop_s"]["median"] / ours["loop_s"],
            }
            for row in plain
        }

    own = [
        {"label": row["label"], **{key: row["summary"][key]["median"] for key in ("end_to_end_s", "loop_s")}}
        for row in made["rows"]
        if row["status"] == "measured" and row not in plain and row["facts"]["grid"] == plain[0]["facts"]["grid"]
    ]
    near = (made["agreement"] or {}).get("as_near_as_edm")
    best = min(own, key=lambda row: float(row["end_to_end_s"])) if own else None
    return {
        "fastest": best and {**best, "times_faster_than": times(best)},
        "as_near_as_edm": near and {**near, "times_faster_than": times(near)},
    }


def warnings(made: dict[str, Any]) -> list[str]:
    """What a reader of the figures has to know first."""
    found, environment = [], made["environment"]
    load, processors = environment["load_average"], environment["processors"] or 1
    if load and load[0] > 0.5 * processors:
        found.append(f"the machine was busy: load average {load[0]:.2f} on {processors} processors before it began")
    share = environment["others_share"]
    if share is not None and share > BUSY_SHARE:
        found.append(f"others took {100 * share:.0f}% of the processors meanwhile: these times are theirs too")
    if made["clocks"] and made["clocks"]["throttled"]:
        found.append(f"the processor was throttled {made['clocks']['throttled']} times meanwhile")
    for row in made["rows"]:
        if row["status"] != "measured":
            found.append(f"{row['label']}: {row['status']}: {row['reason']}")
            continue
        for name, what in (("end_to_end_s", "end to end"), ("evaluation_s", "an evaluation")):
            cv = row["summary"][name]["cv"]
            if cv is not None and cv > CV_LIMIT:
                found.append(f"{row['label']}: {what} varies by {100 * cv:.1f}%, more than {100 * CV_LIMIT:g}%")
    if not made["plain_loop"]:
        found.append("the PyTorch loop was left out, as asked")
    return found


def write(made: dict[str, Any], name: str | PathLike[str]) -> list[Path]:
    """NAME.json, NAME.md, and a picture for each part that has one, each whole or not at all.

    Raises:
        X2CTError: one can't be written.
    """
    from x2ct.benchmark.plots import pictures
    from x2ct.benchmark.tables import markdown
    from x2ct.output import write_atomically

    target = Path(name)
    files = [report.write_json(made, target.with_name(f"{target.name}.json"))]
    drawn = pictures(made)
    for part, svg in drawn.items():
        files.append(write_atomically(target.with_name(f"{target.name}-{part}.svg"), svg.encode()))
    text = markdown(made, {part: f"{target.name}-{part}.svg" for part in drawn})
    return [*files, write_atomically(target.with_name(f"{target.name}.md"), text.encode())]


def read(path: str | PathLike[str]) -> dict[str, Any]:
    """A document.

    Raises:
        InputError: the file is none, or of another schema.
    """
    made = report.read_json(path)
    if made.get("kind") != "x2ct bench" or made.get("schema") != SCHEMA:
        found = f"{made.get('kind')!r}, schema {made.get('schema')!r}"
        raise InputError.of(path, "kind", found=found, expected=f"'x2ct bench', schema {SCHEMA}")
    return made


def samples_of(row: dict[str, Any], name: str) -> list[float]:
    """A row's samples of one time; of evaluations, those of all runs."""
    if name != "evaluation_s":
        return [float(value) for value in row["samples"][name]]
    between = [float(value) for run in row["samples"]["evaluation_s"] for value in run]
    return between or samples_of(row, "loop_s")


def summary_of(row: dict[str, Any], name: str) -> Summary:
    """Its summary."""
    return Summary(**row["summary"][name])
