"""Tables of a benchmark's other parts: agreement with the converged solution, the roofline, scaling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from x2ct.benchmark.roofline import TARGET
from x2ct.benchmark.table import Table, mib, ms, percent

_LAYERS = 12
_UNITS: dict[str, Callable[[float], str]] = {
    "voxels": lambda x: f"{round(x ** (1 / 3))}^3" if round(x ** (1 / 3)) ** 3 == x else f"{x:g}",
}


def agreement(found: dict[str, Any]) -> Table:
    """How far each solver ends from the converged solution, and how long it takes."""
    rows = [
        [
            f"{row['solver']}, {row['schedule']}",
            row["precision"],
            str(row["evaluations"]),
            f"{row['error_percent']:.3f}",
            ms(row["end_to_end_s"]),
            ms(row["loop_s"]),
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


def roofline(found: dict[str, Any]) -> list[Table]:
    """How near the networks come to what the machine can do, and then their layers."""
    rows = [
        [
            f"{row['graph']}, {row['backend']} {row['precision']}",
            f"{row['matrix_flop'] / 1e9:.2f}",
            f"{row['other_flop'] / 1e9:.3f}",
            f"{row['bytes'] / 1e6:.0f} / {row['unfused_bytes'] / 1e6:.0f}",
            ms(row["evaluation_s"]),
            f"{row['flop_per_s'] / 1e9:.0f} of {row['matrix_rate']['flop_per_s'] / 1e9:.0f}",
            f"{row['bytes_per_s'] / 1e9:.1f} of {found['copy_rate']['bytes_per_s'] / 1e9:.1f}",
            row["bound"],
            percent(row["achieved_share"]),
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
            percent(layer["ms"] / total),
            f"{layer['matrix_flop'] / 1e9:.2f}" if layer["matrix_flop"] else "-",
            percent(layer["matrix_share"]),
            f"{layer['lost_ms']:.2f}",
        ]
        for layer in row["layers"][:_LAYERS]
    ]
    matrix = sum(layer["ms"] for layer in row["layers"] if layer["matrix_flop"])
    verdict = "at or above" if row["matrix_share"] >= TARGET else "below"
    notes = [
        f"In all {percent(row['matrix_share'])} of the measured matrix rate, {verdict} the {100 * TARGET:.0f}% aimed "
        f"at. One profiled evaluation of {total:.1f} ms (profiling costs time itself): {percent(matrix / total)} in "
        "layers that multiply matrices. Above its bound: what a layer takes beyond its FLOP at the matrix rate; all of "
        f"it for a layer that has none. The longest {len(rows)} of {len(row['layers'])}."
    ]
    columns = ["layer", "type", "kernel", "ms", "of all", "GFLOP", "of the matrix rate", "ms above its bound"]
    return Table(title, columns, rows, notes)


def scaling(axis: str, found: dict[str, Any]) -> Table:
    """How time and memory grow along one axis."""
    rows = []
    for point in found["points"]:
        x = _UNITS.get(axis, str)(point["x"])
        if point["status"] != "measured":
            rows.append([x, point["status"], point["reason"], *["-"] * 5])
            continue
        cut = point["tiles"]
        tiles = " x ".join(map(str, cut["count"])) + " of " + " x ".join(map(str, cut["shape"])) if cut else "whole"
        times = (point["loop_s"], point["loop_s"] / point["evaluations"], point["condition_s"], point["end_to_end_s"])
        rows.append([x, str(point["n"]), tiles, *(ms(value) for value in times), mib(point["peak_bytes"])])
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
