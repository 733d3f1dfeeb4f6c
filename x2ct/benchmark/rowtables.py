"""Tables of a benchmark's rows: their times, what they computed and in how much memory, their cold starts."""

from __future__ import annotations

from typing import Any

from x2ct.benchmark.document import summary_of
from x2ct.benchmark.stats import CV_LIMIT
from x2ct.benchmark.table import Table, mib, ms, percent


def latency(made: dict[str, Any]) -> Table:
    """How long the runs and their evaluations took."""
    rows = [cells for row in _measured(made) for cells in _times(row)]
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


def _times(row: dict[str, Any]) -> list[list[str]]:
    """A row's two lines: of whole runs, and of evaluations."""
    lines: list[list[str]] = []
    for name, what, rate in (
        ("end_to_end_s", "end to end", "volumes_per_s"),
        ("evaluation_s", "evaluation", "evaluations_per_s"),
    ):
        one = summary_of(row, name)
        lines.append(
            [
                "" if lines else row["label"],
                what,
                str(one.n),
                *(ms(value) for value in (one.min, one.median, one.p90, one.p95, one.p99)),
                percent(one.cv) + (" !" if one.unsteady else ""),
                f"{row['summary'][rate]:.3g}/s",
            ]
        )
    return lines


def computed(made: dict[str, Any]) -> Table:
    """What was computed, how near to the reference, and in how much memory."""
    measured = _measured(made)
    transfers = "; ".join(sorted({str(row["facts"]["transfers"]) for row in measured}))
    notes = [
        "MAE, RMS and most are of the CT of seed 0 against OpenVINO f32, whole, with the same solver, schedule and "
        "seed. Memory is the process's own, resident: before it loads anything, between runs, at its peak; and the "
        "device's.",
        f"Copies between host and device: {transfers}.",
    ]
    notes += [
        f"{row['label']}: no parity: {row['parity']['none']}." for row in measured if "none" in (row["parity"] or {})
    ]
    columns = ["row", "computed by", "solver, evaluations", "tiles", "MAE HU", "RMS", "most"]
    columns += ["base MiB", "steady", "peak", "device"]
    return Table("Parity and memory", columns, [_outcome(row) for row in measured], notes)


def _outcome(row: dict[str, Any]) -> list[str]:
    facts, memory = row["facts"], row["memory"]
    cut = facts["tiles"]
    tiles = "whole" if cut is None else f"{' x '.join(map(str, cut['count']))}, halo {cut['halo']}"
    held = (memory[name] for name in ("base_bytes", "steady_bytes", "peak_bytes", "device_bytes"))
    return [
        row["label"],
        f"{facts['backend']} {facts['runtime']} {facts['precision']}",
        f"{facts['solver']} {facts['schedule']}, {facts['evaluations']}",
        tiles,
        *_parity(row["parity"]),
        *(mib(value) for value in held),
    ]


def cold(made: dict[str, Any]) -> Table:
    """How long a fresh process takes to its first CT."""
    rows = []
    for row in _measured(made):
        starts = row["cold_start"]

        def middle(name: str, starts: list[dict[str, float]] = starts) -> str:
            values = sorted(start[name] for start in starts)
            return ms((values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2)

        names = ("start_s", "load_s", "build_s", "first_run_s")
        rows.append([row["label"], str(len(starts)), *(middle(name) for name in names)])
    notes = [
        "A fresh process: Python and imports; reading and checking the bundle; compiling the networks; the first run. "
        "Medians of n processes; the files were in the system's cache. The PyTorch "
        "loop's load brings the bundle's weights back into PyTorch."
    ]
    return Table("Cold start", ["row", "n", "start ms", "load", "build", "first run"], rows, notes)


def headline(found: dict[str, Any]) -> Table:
    """How many times faster than the PyTorch loop."""
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


def _parity(parity: dict[str, Any] | None) -> list[str]:
    if parity is None or "none" in parity:
        return ["-", "-", "-"]
    return [f"{parity['mean_abs_hu']:.4f}", f"{parity['rms_hu']:.4f}", f"{parity['max_abs_hu']:.2f}"]


def _measured(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in made["rows"] if row["status"] == "measured"]
