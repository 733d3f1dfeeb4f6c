"""`x2ct evaluate`: honest figures of a model, or of predictions made elsewhere, on a folder of CTs."""

from dataclasses import replace

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, Quiet
from x2ct.jobs.options import EvaluateJob


def evaluate(
    job: EvaluateJob,
    card: bool = typer.Option(False, "--card", help="Print the results as Markdown for a model card."),
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
