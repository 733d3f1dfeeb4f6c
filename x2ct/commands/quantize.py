"""`x2ct quantize`: what a model's denoiser needs to know to compute in 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct import terminal
from x2ct.commands.options import FoundReport, Json, OtherBundle, Quiet, Threads, own_bundle


def quantize(
    bundle: Annotated[
        str,
        typer.Argument(help="A bundle's folder, which gets the ranges that are found; or a bundled model, with -o."),
    ],
    shards: Annotated[
        Path,
        typer.Argument(help="A folder that `x2ct prepare` wrote: found on its training people, judged on the others."),
    ],
    patches: Annotated[int, typer.Option(min=1, help="Runs on patches, to find the ranges on.")] = 24,
    side: Annotated[int, typer.Option(min=8, help="Voxels of a patch's side, a multiple of the model's stride.")] = 48,
    output: OtherBundle = None,
    report: FoundReport = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find the ranges with which a model's denoiser computes in 8 bits, and store them in it."""
    from x2ct import report as reports

    with terminal.training_packages(), terminal.progress("steps", quiet) as display:
        from x2ct.export.quantise import markdown, quantise_files

        done = quantise_files(
            bundle,
            shards,
            own_bundle(bundle, output),
            report=report,
            patches=patches,
            side=side,
            threads=threads,
            say=display.stage,
        )
    terminal.show(reports.to_json(done.to_json()).rstrip() if json else markdown(done), quiet and not json)
