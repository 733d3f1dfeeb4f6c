"""`x2ct sample --manifest`: many studies, told as they end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from x2ct.commands import terminal

if TYPE_CHECKING:
    from x2ct.jobs.sample import SampleJob


def run(manifest: Path, base: SampleJob, resume: bool, jobs: int, quiet: bool, json: bool) -> None:
    """Sample a manifest's studies; exits with 1 if any failed."""
    from x2ct.io import report as reports
    from x2ct.jobs.cohort import SUMMARY_FILE, sample_cohort

    if base.inputs or base.geometry or base.preview or base.report:
        raise typer.BadParameter(
            "with --manifest, the X-rays and geometries stand in it, each study has a report, and there is no preview."
        )
    with terminal.progress("studies", quiet) as display:
        display.stage("sampling")
        done = sample_cohort(manifest, base, resume=resume, jobs=jobs, progress=display.step)
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
