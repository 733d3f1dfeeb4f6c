"""`x2ct sample --manifest`: many studies, told as they end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from x2ct.commands import terminal

if TYPE_CHECKING:
    from x2ct.jobs.sample import SampleJob


def run(manifest: Path, base: SampleJob, quiet: bool, json: bool, **options: Any) -> None:
    """Sample a manifest's studies with `options` of `sample_cohort`; exits with 1 if any failed."""
    from x2ct.io import report as reports
    from x2ct.jobs.cohort import SUMMARY_FILE, sample_cohort

    if base.inputs or base.geometry or base.preview or base.report:
        raise typer.BadParameter(
            "with --manifest, the X-rays and geometries stand in it, each study has a report, and there is no preview."
        )
    with terminal.progress("studies", quiet) as display:
        display.stage("sampling")
        done = sample_cohort(manifest, base, progress=display.step, **options)
    for outcome in done.outcomes:
        if outcome.retries:
            terminal.note("note", f"{outcome.id} was begun {outcome.retries + 1} times: its worker was lost", quiet)
    for outcome in done.failed:
        terminal.note("warning", f"{outcome.id} failed with code {outcome.code}: {outcome.error}", quiet)
    if json:
        terminal.show(reports.to_json(done.to_json()).rstrip())
    else:
        states = [outcome.state for outcome in done.outcomes]
        counts = ", ".join(f"{states.count(state)} {state}" for state in ("done", "kept", "failed"))
        terminal.show(f"{done.folder / SUMMARY_FILE}: {len(states)} studies: {counts}", quiet)
    if done.failed:
        raise typer.Exit(1)
