"""`x2ct export`: a trained run to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct import terminal
from x2ct.commands.options import Json, Quiet


def export(
    run: Annotated[Path, typer.Argument(help="A folder that `x2ct train` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write: NAME.x2ct.")],
    name: Annotated[str | None, typer.Option(help="The model's name; by default the run's.")] = None,
    weights: Annotated[str, typer.Option(help="How large weights are stored: f16 or f32.")] = "f16",
    ema: Annotated[
        float | None, typer.Option(help="Relative width of the weights' average; by default the first.")
    ] = None,
    provenance: Annotated[
        Path | None, typer.Option(help="JSON to put into the bundle: data, compute, date, figures.")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Turn a trained run into a bundle, if it computes the same."""
    from x2ct import report as reports

    with terminal.training_packages(), terminal.progress("stages", quiet) as display:
        from x2ct.export import export_run

        said = reports.read_json(provenance) if provenance else None
        done = export_run(run, output, name=name, dtype=weights, ema=ema, provenance=said, progress=display.stage)
    if json:
        terminal.show(reports.to_json(done.to_json()).rstrip())
        return
    worst = max(done.rows, key=lambda row: row.error / row.tolerance)
    told = f"{output}: {done.bundle.size_bytes / 1e6:.1f} MB; closest to its tolerance of {worst.tolerance:g}: {worst}"
    terminal.show(told, quiet)
