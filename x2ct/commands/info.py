"""`x2ct info`: what is here, and what a bundle holds."""

from __future__ import annotations

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json
from x2ct.jobs.options import MODEL, setting


def info(
    bundle: str | None = typer.Argument(None, help=MODEL),
    table: str | None = setting(
        None, "Print the coefficients of this solver, one line for each evaluation.", metavar="SOLVER"
    ),
    steps: int | None = setting(None, "Number of steps of --table. Default: the model's.", min=1),
    schedule: str | None = setting(None, "Noise schedule of --table. Default: the model's."),
    check: bool = setting(False, "Run one step on each available backend, device and precision."),
    device: str = setting("", "Of --check: this device alone, with each of its kernels: cpu or cuda[:N]."),
    json: Json = False,
) -> None:
    """Print versions, backends, devices, solvers and schedules, the contents of a bundle, or a solver's table."""
    from x2ct.commands.info_facts import about, sections, solver_table

    if table is not None:
        facts = solver_table(table, bundle, steps, schedule)
        terminal.result(facts, facts["text"], json)
    elif steps is not None or schedule is not None:
        raise typer.BadParameter("--steps and --schedule say which table: name its solver with --table.")
    elif device and not check:
        raise typer.BadParameter("--device says what --check tries: add --check.")
    elif check:
        _check(bundle, device, json)
    elif json:
        terminal.show_json(about(bundle))
    else:
        for title, rows in sections(about(bundle)):
            terminal.table(title, rows)


def _check(bundle: str | None, device: str, json: bool) -> None:
    """Try what claims to be usable, a line each; something that then fails is missing after all."""
    from itertools import chain

    from x2ct.bundle import DEFAULT
    from x2ct.commands.info_facts import about
    from x2ct.engine import smoke_test
    from x2ct.errors import MissingRuntimeError
    from x2ct.runtimes.discovery import choose_device

    chosen, facts, checks = choose_device(device) if device else "", about(), []
    others = [one["name"] for one in facts["devices"] if one["available"] and one["name"] != "cpu"]
    kernels = (smoke_test.kernels(name) for name in ([chosen] if chosen else others))
    for one in chain(*kernels, smoke_test.check(facts["abilities"], bundle or DEFAULT, chosen)):
        checks.append(one)
        if not json:
            name = f"{one.backend} {one.device} {one.precision}"
            typer.echo(f"{name:<{36 if others or chosen else 24}} {one.result:<9} {one.seconds:6.2f} s  {one.text}")
    if json:
        terminal.show_json({"checks": [one.to_json() for one in checks]})
    failed = [one for one in checks if one.result == smoke_test.FAILED]
    if failed or not checks:
        what = ", ".join(f"{one.backend} {one.device} {one.precision}" for one in failed) or "every backend"
        raise MissingRuntimeError(f"info --check: {what}: claims to be usable and is not; the lines above say why")
