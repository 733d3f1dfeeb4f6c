"""`x2ct quantize`: what a model's denoiser needs to know to compute in 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct.commands import terminal
from x2ct.commands.options import FoundReport, Json, OtherBundle, Quiet, Threads, own_bundle


def quantize(
    bundle: Annotated[
        str,
        typer.Argument(help="Bundle folder, in which the ranges are stored; or a model that comes with x2ct, with -o."),
    ],
    shards: Annotated[
        Path,
        typer.Argument(
            help="Shard folder of `x2ct prepare`. Ranges come from its training patients and are checked on the others."
        ),
    ],
    patches: Annotated[int, typer.Option(min=1, help="Number of patches to measure ranges on.")] = 24,
    side: Annotated[int, typer.Option(min=8, help="Side of a patch in voxels, a multiple of the model's stride.")] = 48,
    output: OtherBundle = None,
    report: FoundReport = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Calibrate a model's denoiser for int8, and store the ranges in the bundle."""
    from x2ct.io import report as reports

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
