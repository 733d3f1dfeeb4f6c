"""A benchmark's tables: made once, drawn as Markdown or on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from x2ct.benchmark.document import summary_of
from x2ct.benchmark.roofline import TARGET
from x2ct.benchmark.stats import CV_LIMIT

_LAYERS = 12
_MIB = 1 << 20


@dataclass(frozen=True)
class Table:
    """A titled table, with lines that say what its figures are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=tuple)

    def markdown(self) -> str:
        """As Markdown, under a heading of the second level."""
        lines = [f"## {self.title}", "", *_paragraphs(self.notes)]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def _paragraphs(notes: Sequence[str]) -> list[str]:
    return [line for note in notes for line in (note, "")]


def tables(made: dict[str, Any]) -> list[Table]:
    """All of a document's."""
    found = [_latency(made), _computed(made), _cold(made)] if made["rows"] else []
    if made["headline"]:
        found.append(_headline(made["headline"]))
    if made["agreement"]:
        found.append(_agreement(made["agreement"]))
    if made["roofline"]:
        found += _roofline(made["roofline"])
    if made["scaling"]:
        found += [_scaling(axis, points) for axis, points in made["scaling"]["axes"].items()]
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


# ------------------------------------------------------------------------------------------------ latency


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{1e3 * value:.1f}" if value < 10 else f"{1e3 * value:.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value / _MIB:.0f}"


def _parity(parity: dict[str, Any] | None) -> list[str]:
    if parity is None or "none" in parity:
        return ["-", "-", "-"]
    return [f"{parity['mean_abs_hu']:.4f}", f"{parity['rms_hu']:.4f}", f"{parity['max_abs_hu']:.2f}"]


def _measured(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in made["rows"] if row["status"] == "measured"]


def _latency(made: dict[str, Any]) -> Table:
    rows = []
    for row in _measured(made):
        for name, what in (("end_to_end_s", "end to end"), ("evaluation_s", "evaluation")):
            one, first = summary_of(row, name), name == "end_to_end_s"
            rate = row["summary"]["volumes_per_s" if first else "evaluations_per_s"]
            rows.append(
                [
                    row["label"] if first else "",
                    what,
                    str(one.n),
                    *(_ms(value) for value in (one.min, one.median, one.p90, one.p95, one.p99)),
                    _percent(one.cv) + (" !" if one.unsteady else ""),
                    f"{rate:.3g}/s",
                ]
            )
    columns = ["row", "time of", "n", "min ms", "median", "p90", "p95", "p99", "CV", "rate"]
    grids = {tuple(row["facts"]["grid"]) for row in _measured(made)}
    effort = made["effort"]
    notes = [
        f"Grid {', '.join(' x '.join(map(str, grid)) for grid in sorted(grids))}. End to end is from X-rays in memory "
        "to a CT in memory: encoder, lift and loop. An evaluation is from one's end to the next's, the element-wise "
        "step included; the rate beside it is evaluations over the loop's time.",
        f"{'Rows take turns' if effort['together'] else 'One row after another'}, {effort['warmup']} run(s) of warm-up "
        "after the first. A percentile is given where at least one sample may lie beyond it: from 10, 20 and 100 on. A "
        f"CV above {100 * CV_LIMIT:g}% has a '!'.",
    ]
    return Table("Latency", columns, rows, notes)


def _computed(made: dict[str, Any]) -> Table:
    """What was computed, how near to the reference, and in how much memory."""
    rows = []
    for row in _measured(made):
        facts, memory = row["facts"], row["memory"]
        cut = facts["tiles"]
        tiles = "whole" if cut is None else f"{' x '.join(map(str, cut['count']))}, halo {cut['halo']}"
        held = (memory[name] for name in ("base_bytes", "steady_bytes", "peak_bytes", "device_bytes"))
        rows.append(
            [
                row["label"],
                f"{facts['backend']} {facts['runtime']} {facts['precision']}",
                f"{facts['solver']} {facts['schedule']}, {facts['evaluations']}",
                tiles,
                *_parity(row["parity"]),
                *(_mib(value) for value in held),
            ]
        )
    notes = [
        "MAE, RMS and most are of the CT of seed 0 against OpenVINO f32, whole, with the same solver, schedule and "
        "seed. Memory is the process's own, resident: before it loads anything, between runs, at its peak; and the "
        "device's.",
        "Copies between host and device: "
        + "; ".join(sorted({str(row["facts"]["transfers"]) for row in _measured(made)}))
        + ".",
    ]
    notes += [
        f"{row['label']}: no parity: {row['parity']['none']}."
        for row in _measured(made)
        if "none" in (row["parity"] or {})
    ]
    columns = ["row", "computed by", "solver, evaluations", "tiles", "MAE HU", "RMS", "most"]
    columns += ["base MiB", "steady", "peak", "device"]
    return Table("Parity and memory", columns, rows, notes)


def _cold(made: dict[str, Any]) -> Table:
    rows = []
    for row in _measured(made):
        starts = row["cold_start"]

        def middle(name: str, starts: list[dict[str, float]] = starts) -> str:
            values = sorted(start[name] for start in starts)
            return _ms((values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2)

        names = ("start_s", "load_s", "build_s", "first_run_s")
        rows.append([row["label"], str(len(starts)), *(middle(name) for name in names)])
    notes = [
        "A fresh process: Python and imports; reading and checking the bundle; compiling the networks; the first run. "
        "Medians of n processes; the files were in the system's cache. The PyTorch "
        "loop's load brings the bundle's weights back into PyTorch."
    ]
    return Table("Cold start", ["row", "n", "start ms", "load", "build", "first run"], rows, notes)


def _headline(found: dict[str, Any]) -> Table:
    rows = []
    for name, what in (("fastest", "fastest row"), ("as_near_as_edm", "as near as EDM's defaults, or nearer")):
        ours = found[name]
        if ours is None:
            rows.append([what, "none", "-", "-", "-"])
            continue
        label = ours.get("label") or f"{ours['solver']} {ours['schedule']} {ours['precision']}, {ours['evaluations']}"
        for theirs, times in ours["times_faster_than"].items():
            rows.append([what, label, theirs, f"{times['end_to_end']:.1f}", f"{times['loop']:.1f}"])
    notes = [
        "How many times faster than the PyTorch loop with EDM's defaults (Heun, 18 steps, 35 evaluations); medians."
    ]
    return Table("Against the PyTorch loop", ["ours", "which", "theirs", "end to end", "loop"], rows, notes)


def _agreement(found: dict[str, Any]) -> Table:
    rows = [
        [
            f"{row['solver']}, {row['schedule']}",
            row["precision"],
            str(row["evaluations"]),
            f"{row['error_percent']:.3f}",
            _ms(row["end_to_end_s"]),
            _ms(row["loop_s"]),
        ]
        for row in found["rows"]
    ]
    check, fine = found["check"], found["converged"]
    notes = [
        f"RMS difference from the converged solution ({fine['solver']}, {fine['evaluations']} evaluations, f32) in % "
        f"of the HU window; {check['solver']} with as many ends {check['apart_percent']:.3f}% from it. One noise, the "
        "bundled X-rays; the first row is EDM's default, in the core."
    ]
    columns = ["solver", "precision", "evaluations", "error %", "end to end ms", "loop ms"]
    return Table("Agreement with the converged solution", columns, rows, notes)


# ------------------------------------------------------------------------------------------------ roofline


def _roofline(found: dict[str, Any]) -> list[Table]:
    rows = [
        [
            f"{row['graph']}, {row['backend']} {row['precision']}",
            f"{row['matrix_flop'] / 1e9:.2f}",
            f"{row['other_flop'] / 1e9:.3f}",
            f"{row['bytes'] / 1e6:.0f} / {row['unfused_bytes'] / 1e6:.0f}",
            _ms(row["evaluation_s"]),
            f"{row['flop_per_s'] / 1e9:.0f} of {row['matrix_rate']['flop_per_s'] / 1e9:.0f}",
            f"{row['bytes_per_s'] / 1e9:.1f} of {found['copy_rate']['bytes_per_s'] / 1e9:.1f}",
            row["bound"],
            _percent(row["achieved_share"]),
        ]
        for row in found["graphs"]
    ]
    notes = [
        f"Grid {' x '.join(map(str, found['grid']))}. Matrix GFLOP are two for each multiply-add; MB are the least "
        "that must move / what moves if nothing is fused. The rates are achieved, of those that the machine showed in "
        "the same run: the better of a chain of matrix products and one of 3^3 convolutions through the same runtime "
        f"and precision, and a copy of {found['copy_rate']['bytes'] >> 20} MiB by {found['copy_rate']['threads']} "
        "threads, read and written counted. The share is of whichever bounds.",
        *(f"Not measured: {reason}." for reason in found["missing"]),
    ]
    columns = ["graph", "GFLOP", "other", "MB least / unfused", "ms", "GFLOP/s", "GB/s", "bound by", "share"]
    return [Table("Roofline", columns, rows, notes), *(_layers(row) for row in found["graphs"] if "layers" in row)]


def _layers(row: dict[str, Any]) -> Table:
    title = f"Layers of {row['graph']}, {row['backend']} {row['precision']}"
    if not row["layers"]:
        return Table(title, ["layer"], [], [str(row.get("no_layers", "none told"))])
    total = sum(layer["ms"] for layer in row["layers"])
    rows = [
        [
            layer["name"],
            layer["type"],
            layer["kernel"],
            f"{layer['ms']:.2f}",
            _percent(layer["ms"] / total),
            f"{layer['matrix_flop'] / 1e9:.2f}" if layer["matrix_flop"] else "-",
            _percent(layer["matrix_share"]),
            f"{layer['lost_ms']:.2f}",
        ]
        for layer in row["layers"][:_LAYERS]
    ]
    matrix = sum(layer["ms"] for layer in row["layers"] if layer["matrix_flop"])
    verdict = "at or above" if row["matrix_share"] >= TARGET else "below"
    notes = [
        f"In all {_percent(row['matrix_share'])} of the measured matrix rate, {verdict} the {100 * TARGET:.0f}% aimed "
        f"at. One profiled evaluation of {total:.1f} ms (profiling costs time itself): {_percent(matrix / total)} in "
        "layers that multiply matrices. Above its bound: what a layer takes beyond its FLOP at the matrix rate; all of "
        f"it for a layer that has none. The longest {len(rows)} of {len(row['layers'])}."
    ]
    columns = ["layer", "type", "kernel", "ms", "of all", "GFLOP", "of the matrix rate", "ms above its bound"]
    return Table(title, columns, rows, notes)


# ------------------------------------------------------------------------------------------------ scaling

_UNITS: dict[str, Callable[[float], str]] = {
    "voxels": lambda x: f"{round(x ** (1 / 3))}^3" if round(x ** (1 / 3)) ** 3 == x else f"{x:g}",
}


def _scaling(axis: str, found: dict[str, Any]) -> Table:
    rows = []
    for point in found["points"]:
        x = _UNITS.get(axis, str)(point["x"])
        if point["status"] != "measured":
            rows.append([x, point["status"], point["reason"], *["-"] * 5])
            continue
        cut = point["tiles"]
        tiles = " x ".join(map(str, cut["count"])) + " of " + " x ".join(map(str, cut["shape"])) if cut else "whole"
        times = (point["loop_s"], point["loop_s"] / point["evaluations"], point["condition_s"], point["end_to_end_s"])
        rows.append([x, str(point["n"]), tiles, *(_ms(value) for value in times), _mib(point["peak_bytes"])])
    exponents = {name: value for name, value in found["exponents"].items() if value is not None}
    shown = {"loop_s": "loop", "condition_s": "encoder and lift", "peak_bytes": "peak memory"}
    shown["working_bytes"] = "peak less what the process begins with"
    fits = "; ".join(f"{shown[name]} ~ {axis}^{round(value, 2) + 0.0:.2f}" for name, value in exponents.items())
    notes = [
        "Each point in a process of its own; medians. "
        + (f"Fitted over {len(found['fitted'])} points without tiles: {fits}." if fits else "Too few points to fit.")
    ]
    columns = [axis, "n", "tiles", "loop ms", "per evaluation", "encoder and lift", "end to end", "peak MiB"]
    return Table(f"Scaling with {axis}", columns, rows, notes)
