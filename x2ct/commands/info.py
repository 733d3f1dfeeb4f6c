"""`x2ct info`: what is here, and what a bundle holds."""

from __future__ import annotations

from typing import Annotated

import typer

from x2ct import terminal
from x2ct.commands.options import Json


def info(
    bundle: Annotated[str | None, typer.Argument(help="A bundle's folder, or a bundled model's name.")] = None,
    table: Annotated[
        str | None, typer.Option(metavar="SOLVER", help="Show this solver's coefficients, by evaluation, instead.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the table; by default the model's.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the table; by default the model's.")] = None,
    json: Json = False,
) -> None:
    """Show versions, backends, devices, solvers and schedules; what a bundle holds; or a table of coefficients."""
    from x2ct import report as reports
    from x2ct.about import about, sections, solver_table

    if table is not None:
        told = solver_table(table, bundle, steps, schedule)
        terminal.show(reports.to_json(told).rstrip() if json else told["text"])
        return
    if steps is not None or schedule is not None:
        raise typer.BadParameter("--steps and --schedule say which table: name its solver with --table.")
    facts = about(bundle)
    if json:
        terminal.show(reports.to_json(facts).rstrip())
        return
    for title, rows in sections(facts):
        terminal.table(title, rows)
