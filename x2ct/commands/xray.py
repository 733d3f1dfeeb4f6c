"""`x2ct xray`: an X-ray file to line integrals, each stage of the way to be seen."""

from __future__ import annotations

from dataclasses import replace

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, Quiet, Reading
from x2ct.jobs.options import XRayJob


def xray(job: XRayJob, reading: Reading, quiet: Quiet = False, json: Json = False) -> None:
    """Show how an X-ray file is read, and write the line integrals that `x2ct sample` uses."""
    from x2ct.io.xray.readoptions import VIEWS
    from x2ct.jobs.xray_stages import summary, xray_file

    if job.view is not None and job.view not in VIEWS:
        raise typer.BadParameter(f"--view: found {job.view!r}, expected {' or '.join(VIEWS)}")
    result = xray_file(replace(job, reading=reading.by_view([job.view] if job.view else VIEWS)))
    terminal.result(result, summary(result), json, quiet)
    terminal.remarks(result, quiet or json)
