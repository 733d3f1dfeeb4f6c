"""How near a sampler ends to the solution that all samplers converge to, beside the time that it takes.

    python benchmarks/agreement.py chest --threads 2 -o benchmarks/results/agreement

The solution is UniPC-3's with 64 evaluations in f32, for one noise and the bundled X-rays; how far DPM-Solver++ 2M with
as many ends from it says how far it can be trusted. EDM's defaults are the yardstick: the fastest of ours that ends as
near as they do, or nearer, is compared with the plain PyTorch loop, which takes turns with the other rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np

from x2ct.benchmark import document
from x2ct.benchmark.cases import EDM, PLAIN, Case
from x2ct.benchmark.document import against, ms, page
from x2ct.benchmark.fleet import Effort, Row, Say, difference, measure, volume_of
from x2ct.bundle import Bundle
from x2ct.io.report import Table

SOLVER, SCHEDULE = "unipc-2", "log-snr"
"""Ours beside the model's own: the best of benchmarks/solvers.py on the validation patient."""

STEPS = (6, 8, 12, 16)
FINE = 64

_CONVERGED: dict[str, Any] = {"solver": "unipc-3", "schedule": "log-snr"}
_CHECK: dict[str, Any] = {"solver": "dpmpp-2m", "schedule": "log-snr"}


def main() -> None:
    """Print the tables and write them as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="chest")
    parser.add_argument("-o", "--output", type=Path, help="NAME: writes NAME.json and NAME.md")
    parser.add_argument("--grid", type=int, nargs=3, help="voxels; by default the model's")
    parser.add_argument("-n", "--runs", type=int, default=2, help="of each row")
    parser.add_argument("--threads", type=int, default=0, help="of the runtimes; 0 leaves it to them")
    parser.add_argument("--no-pytorch", action="store_true", help="leave the PyTorch loop out")
    options = parser.parse_args()
    session = document.Session(Bundle.load(options.bundle), options.threads)
    result = agreement(
        options.bundle,
        Case(backend="openvino", grid=tuple(options.grid) if options.grid else None, threads=options.threads),
        Effort(runs=options.runs, warmup=0, cold=1, plain_runs=options.runs),
        print,
        plain=() if options.no_pytorch else PLAIN,
    )
    figures = session.facts() | result
    if options.output:
        document.write(figures, markdown(figures), options.output)
    print(markdown(figures))


def agreement(
    source: str,
    base: Case,
    effort: Effort,
    say: Say,
    *,
    plain: Sequence[str] = PLAIN,
    steps: Sequence[int] = STEPS,
    fine: int = FINE,
) -> dict[str, Any]:
    """Measure errors in % of the HU window and times, for EDM's defaults and for ours.

    Args:
        source: the bundle's folder or name.
        base: backend, grid and threads of all rows.
        effort: how often the rows are timed.
        say: is called with a line on what is being done.
        plain: which PyTorch loops are rows.
        steps: evaluations of ours to try, beside the model's own.
        fine: evaluations of the converged solution.

    Raises:
        X2CTError: no row can be measured.
    """
    bundle = Bundle.load(source)
    low, high = bundle.intensity.window_hu
    exact = replace(base, precision="f32")
    own: dict[str, Any] = {"solver": bundle.diffusion.solver, "schedule": None, "steps": bundle.diffusion.steps}
    ours: list[dict[str, Any]] = [own, *({"solver": SOLVER, "schedule": SCHEDULE, "steps": count} for count in steps)]
    # EDM's and the model's own in f32 too: what the solver costs in error, and what the precision does.
    cases = [replace(exact, **EDM), replace(exact, **own), *(replace(base, **one) for one in ours)]
    cases = list(dict.fromkeys([*cases, *(replace(exact, backend=backend, **EDM) for backend in plain)]))

    def error_percent(rms_hu: float) -> float:
        return 100 * rms_hu / (high - low)

    with TemporaryDirectory(prefix="x2ct-agree-") as name:
        say("the converged solution")
        converged = volume_of(source, replace(exact, steps=fine, **_CONVERGED), Path(name) / "converged.npy")
        check = volume_of(source, replace(exact, steps=fine, **_CHECK), Path(name) / "check.npy")
        rows, _ = measure(source, cases, effort, say, against=converged)
        apart = error_percent(difference(np.load(check), np.load(converged))["rms_hu"])
    measured = [row for row in rows if not row.error and not row.case.plain]
    loops = [row for row in rows if not row.error and row.case.plain]
    figures = [_row(row, error_percent) for row in measured]
    near = [i for i, row in enumerate(figures) if i and row["error_percent"] <= figures[0]["error_percent"]]
    best = min(near, key=lambda i: float(figures[i]["end_to_end_s"]), default=None)
    return {
        "converged": {**_CONVERGED, "evaluations": fine},
        "check": {**_CHECK, "evaluations": fine, "apart_percent": apart},
        "rows": figures,
        "plain": [{"label": row.label, **_row(row, error_percent)} for row in loops],
        "missing": [f"{row.label}: {row.error}" for row in rows if row.error],
        "as_near_as_edm": None if best is None else document.faster(measured[best], loops) | figures[best],
    }


def _row(row: Row, error_percent: Callable[[float], float]) -> dict[str, Any]:
    assert row.parity is not None
    return {
        **{name: row.facts[name] for name in ("solver", "schedule", "precision", "evaluations")},
        "error_percent": error_percent(row.parity["rms_hu"]),
        "end_to_end_s": row.median("end_to_end_s"),
        "loop_s": row.median("loop_s"),
    }


def markdown(figures: dict[str, Any]) -> str:
    """Return the figures as a page of Markdown."""
    faster = [against({"as_near_as_edm": figures["as_near_as_edm"]})] if figures["plain"] else []
    return page("solver error", figures, [*faster, *tables(figures)])


def tables(result: dict[str, Any]) -> list[Table]:
    """Return how far each solver ends from the converged solution, and how long it takes."""
    rows = [
        [
            f"{row['solver']}, {row['schedule']}" + (f", {row['label']}" if "label" in row else ""),
            row["precision"],
            str(row["evaluations"]),
            f"{row['error_percent']:.3f}",
            ms(row["end_to_end_s"]),
            ms(row["loop_s"]),
        ]
        for row in [*result["rows"], *result.get("plain", [])]
    ]
    check, fine = result["check"], result["converged"]
    notes = [
        f"RMS difference from the converged solution ({fine['solver']}, {fine['evaluations']} evaluations, f32) in % "
        f"of the HU window; {check['solver']} with as many ends {check['apart_percent']:.3f}% from it. One noise, the "
        "bundled X-rays; the first row is EDM's default, in the core."
    ]
    notes += [f"Not measured: {reason}." for reason in result.get("missing", [])]
    columns = ["solver", "precision", "evaluations", "error %", "end to end ms", "loop ms"]
    return [Table("Agreement with the converged solution", columns, rows, notes)]


if __name__ == "__main__":
    main()
