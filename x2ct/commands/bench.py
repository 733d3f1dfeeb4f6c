"""`x2ct bench` and `x2ct evaluate`: what a model costs on this machine, and what its CTs are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, Quiet
from x2ct.errors import InputError
from x2ct.jobs.options import MODEL, EvaluateJob, Threads, setting


def bench(
    bundle: str = typer.Argument("chest", help=MODEL),
    output: Path | None = setting(
        None, "Write the figures to NAME.json and the tables to NAME.md.", "--output", "-o", metavar="NAME"
    ),
    sweep: list[str] | None = setting(
        None,
        "Measure all combinations of values for backend, precision, device, provider, grid, steps, solver, "
        "schedule, batch, threads, tiles or halo. May be repeated. Default: each available backend and precision.",
        metavar="KEY=V1,V2",
    ),
    device: str = setting("", "Device of all rows: cpu or cuda[:N]. Short for --sweep device=."),
    runs: int = setting(10, "Number of timed runs of each row.", "--runs", "-n", min=1),
    warmup: int = setting(1, "Number of untimed runs of each row after the first.", min=0),
    cold: int = setting(3, "Number of new processes of each row whose start is timed.", min=1),
    plain_runs: int = setting(2, "Number of timed runs of the plain PyTorch loop.", min=1),
    pytorch: bool = setting(True, "Also measure a plain PyTorch loop."),
    apart: bool = setting(
        False, "Measure rows one after another instead of in turns. For rows that do not fit in memory together."
    ),
    compare: Path | None = setting(
        None, "Compare with an older result. Exit code 1 if a row is slower.", metavar="OLD.json"
    ),
    threshold: str = setting("5%", "Slowdown that counts as slower, for example 5% or 0.05."),
    reuse: Path | None = setting(None, "Read the figures from this file instead of measuring.", metavar="NEW.json"),
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure speed, memory and parity of a model in each runtime and precision on this machine."""
    from x2ct.benchmark import document
    from x2ct.benchmark.cases import cases_of
    from x2ct.benchmark.fleet import Effort
    from x2ct.files.atomic import check_writable

    effort = Effort(runs=runs, warmup=warmup, cold=cold, plain_runs=plain_runs, together=not apart)
    cases = cases_of([*(sweep or ()), *([f"device={device}"] if device else [])], threads, pytorch)
    share = parse_threshold(threshold)
    old = document.read(compare) if compare else None
    if output:
        check_writable(output.with_name(f"{output.name}.json"))
    if reuse:
        figures = document.read(reuse)
    else:
        with terminal.progress("rows", quiet) as display:
            figures = document.benchmark(bundle, cases, effort, threads, display.stage)
    if output:
        document.write(figures, document.page("benchmark", figures, document.tables_of(figures)), output)
    comparison = document.compare(figures, old, share) if old else None
    if json:
        terminal.show_json(figures | {"comparison": comparison} if comparison else figures)
    elif not quiet:
        for table in [*document.tables_of(figures), *([document.comparison(comparison)] if comparison else [])]:
            terminal.grid(table.title, table.columns, table.rows, table.notes)
        for line in figures["warnings"]:
            terminal.note("warning", line, quiet)
    if comparison and comparison["regressions"]:
        for line in comparison["regressions"]:
            terminal.note("slower", line)
        raise typer.Exit(1)


def parse_threshold(text: str) -> float:
    """Return a share, given as "5%" or "0.05". Raises InputError where it is something else, or outside [0, 10]."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise InputError.of("--threshold", "value", found=repr(text), expected="a share such as 5% or 0.05")
    return value


def evaluate(
    job: EvaluateJob,
    card: bool = setting(False, "Print the results as Markdown for a model card."),
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure a model on CTs. A CT that can't be used is reported and skipped; the exit code is then 1."""
    from x2ct.evaluation import card as cards
    from x2ct.evaluation import page
    from x2ct.jobs.evaluate import PAGE, evaluate_files

    reason = page.unavailable()
    if reason:
        terminal.note("warning", f"{PAGE} is not written: {reason}", quiet)
    with terminal.progress("patients", quiet) as display:
        result = evaluate_files(replace(job, page=not reason), stage=display.stage, progress=display.step)
    failures = result.table["failures"]
    for line in [*(f"{one['case']} left out: {one['reason']}" for one in failures), *result.table["warnings"]]:
        terminal.note("warning", line, quiet)
    text = cards.card(result.table).rstrip() if card else cards.brief(result.table, result.files[-1])
    terminal.result(result.plain, text, json, quiet)
    if failures:
        raise typer.Exit(1)
