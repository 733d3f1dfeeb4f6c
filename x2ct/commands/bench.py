"""`x2ct bench`: latency, memory and parity of a model on this machine, in each runtime and precision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct import terminal
from x2ct.commands.options import Json, Quiet, Threads


def bench(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or a bundled model's name.")] = "chest",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="NAME", help="Write NAME.json and its tables, NAME.md.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2",
            help="Rows for all combinations of backend, precision, device, provider, grid, steps, solver, schedule, "
            "batch, threads, tiles and halo; may be repeated. By default each backend and precision that is here.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Of all rows: cpu or cuda[:N]; short for --sweep device=.")] = "",
    runs: Annotated[int, typer.Option("--runs", "-n", min=1, help="Runs of each row that count.")] = 10,
    warmup: Annotated[int, typer.Option(min=0, help="Runs of each row after its first that don't count.")] = 1,
    cold: Annotated[int, typer.Option(min=1, help="Fresh processes of each row whose start is timed.")] = 3,
    plain_runs: Annotated[int, typer.Option(min=1, help="Runs of the PyTorch loop's rows that count.")] = 2,
    pytorch: Annotated[bool, typer.Option(help="Measure the plain PyTorch loop too.")] = True,
    apart: Annotated[
        bool, typer.Option("--apart", help="One row after another, not in turn: for rows too large to wait in memory.")
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="OLD.json", help="Compare with an older one; exit code 1 if anything is slower."),
    ] = None,
    threshold: Annotated[str, typer.Option(help="How much slower is too much: 5% or 0.05.")] = "5%",
    reuse: Annotated[
        Path | None, typer.Option(metavar="NEW.json", help="Take the figures from here instead of measuring.")
    ] = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure how fast a model runs here in each runtime and precision, beside a plain PyTorch loop."""
    from x2ct import report as reports
    from x2ct.benchmark import document, tables
    from x2ct.benchmark.cases import cases_of
    from x2ct.benchmark.fleet import Effort
    from x2ct.output import check_writable

    effort = Effort(runs=runs, warmup=warmup, cold=cold, plain_runs=plain_runs, together=not apart)
    cases = cases_of([*(sweep or ()), *([f"device={device}"] if device else [])], threads, pytorch)
    share = document.parse_threshold(threshold)
    old = document.read(compare) if compare else None
    if output:
        check_writable(output.with_name(f"{output.name}.json"))
    if reuse:
        figures = document.read(reuse)
    else:
        with terminal.progress("rows", quiet) as display:
            figures = document.benchmark(bundle, cases, effort, threads, display.stage)
    if output:
        document.write(figures, tables.page("benchmark", figures, tables.tables_of(figures)), output)
    comparison = document.compare(figures, old, share) if old else None
    if json:
        terminal.show(reports.to_json(figures | {"comparison": comparison} if comparison else figures).rstrip())
    elif not quiet:
        for table in [*tables.tables_of(figures), *([tables.comparison(comparison)] if comparison else [])]:
            terminal.grid(table.title, table.columns, table.rows, table.notes)
        for line in figures["warnings"]:
            terminal.note("warning", line, quiet)
    if comparison and comparison["regressions"]:
        for line in comparison["regressions"]:
            terminal.note("slower", line)
        raise typer.Exit(1)
