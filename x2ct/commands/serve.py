"""`x2ct serve`: the sampler over HTTP, with a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Quiet
from x2ct.jobs.options import Limits, Model, SampleJob, setting

_TEMPLATE = SampleJob(output=Path("volume.nii.gz"))


def serve(
    limits: Limits,
    model: Model = "chest",
    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 is every network of this machine."),
    port: int = setting(8000, "Port to listen on; 0 takes a free one.", min=0, max=65535),
    allow_host: list[str] | None = setting(
        None, "A further name of this server, as a proxy passes it on; may be repeated.", metavar="NAME"
    ),
    token_file: Path | None = setting(
        None, "File with the token that clients must send. Default: the variable X2CT_TOKEN, or none."
    ),
    template: Annotated[
        SampleJob, "shape", "voxel_mm", "memory", "device", "backend", "precision", "threads"
    ] = _TEMPLATE,
    quiet: Quiet = False,
) -> None:
    """Serve the sampler over HTTP, and a page to use it with, until Ctrl-C or SIGTERM."""
    with terminal.extra("serve"):
        from x2ct.serve.server import Service, read_token, run

    token, allowed = read_token(token_file), tuple(allow_host or ())
    service = Service(replace(template, model=model), host, port, allowed, token, limits)
    if not (service.local or service.token):
        terminal.note(
            "warning", f"{host} can be reached from other machines, and no token is asked for: see --token-file"
        )
    with terminal.log_lines("x2ct.serve", quiet):
        ended = run(service, lambda address: terminal.note("serving", f"{address} (Ctrl-C ends it)", quiet))
    if ended is not None:
        raise typer.Exit(128 + ended)
