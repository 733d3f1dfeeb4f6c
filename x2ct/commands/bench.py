"""`x2ct bench`: latency, the roofline, agreement and scaling of a model on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct import terminal
from x2ct.commands.options import Json, Quiet, Threads, parse_bytes


def bench(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or a bundled model's name.")] = "chest",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="NAME", help="Write NAME.json, NAME.md and pictures, NAME-*.svg, beside it."
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2",
            help="Rows for all combinations of backend, precision, device, provider, grid, steps, solver, schedule, "
            "batch, threads, tiles and halo; may be repeated. By default each backend and precision that is here.",
        ),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="latency, roofline, agreement or scaling; may be repeated. By default all but scaling, which is long."
        ),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", "-n", min=1, help="Of each row, after the warm-up.")] = 10,
    warmup: Annotated[int, typer.Option(min=0, help="Runs of each row after its first that don't count.")] = 1,
    cold: Annotated[int, typer.Option(min=1, help="Fresh processes of each row whose start is timed.")] = 3,
    plain_runs: Annotated[int, typer.Option(min=1, help="Runs of the PyTorch loop's rows.")] = 2,
    pytorch: Annotated[bool, typer.Option(help="Whether the PyTorch loop is a row.")] = True,
    apart: Annotated[
        bool, typer.Option("--apart", help="One row after another, not in turn: for rows too large to wait in memory.")
    ] = False,
    side: Annotated[
        list[int] | None, typer.Option(min=1, help="Of the scaling's cubes; may be repeated. By default 32 to 512.")
    ] = None,
    memory: Annotated[
        Any, typer.Option(parser=parse_bytes, metavar="SIZE", help="A process of the scaling may take so much.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="OLD.json", help="Compare with an older one; exit code 1 if anything is slower."),
    ] = None,
    threshold: Annotated[str, typer.Option(help="How much slower is too much: 5% or 0.05.")] = "5%",
    reuse: Annotated[
        Path | None, typer.Option(metavar="NEW.json", help="Take the figures from here in place of measuring.")
    ] = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure how fast a model runs here, and how near that is to what the machine can do."""
    from x2ct import report as reports
    from x2ct.benchmark import compare as comparing
    from x2ct.benchmark import document, scaling, tables
    from x2ct.benchmark.fleet import Effort
    from x2ct.output import check_writable

    effort = Effort(runs=runs, warmup=warmup, cold=cold, plain_runs=plain_runs, together=not apart)
    plan = document.Plan(
        sweeps=tuple(sweep or ()),
        parts=tuple(part or document.DEFAULT_PARTS),
        effort=effort,
        threads=threads,
        plain=pytorch,
        sides=tuple(side or scaling.SIDES),
        memory=memory,
    )
    share = comparing.parse_threshold(threshold)
    old = document.read(compare) if compare else None
    if output:
        check_writable(output.with_name(f"{output.name}.json"))
    if reuse:
        made = document.read(reuse)
    else:
        with terminal.progress("rows", quiet) as display:
            made = document.benchmark(bundle, plan, display.stage)
    if output:
        document.write(made, output)
    found = comparing.compare(made, old, share) if old else None
    if json:
        terminal.show(reports.to_json(made | {"comparison": found} if found else made).rstrip())
    elif not quiet:
        for table in [*tables.tables(made), *([tables.comparison(found)] if found else [])]:
            terminal.grid(table.title, table.columns, table.rows, table.notes)
        for line in made["warnings"]:
            terminal.note("warning", line, quiet)
    if found and found["regressions"]:
        for line in found["regressions"]:
            terminal.note("slower", line)
        raise typer.Exit(1)
