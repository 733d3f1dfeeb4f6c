"""`x2ct demo`: the main job on X-rays that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, Model, Quiet, Threads


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("demo"),
    model: Model = "chest",
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Generate a CT from a pair of X-rays that comes with x2ct, and compare it with the true CT."""
    from x2ct.io import report as reports
    from x2ct.jobs.demo import demo as run

    with terminal.progress("evaluations", quiet) as display:
        done = run(output, model, threads=threads, stage=display.stage, progress=display.step)
    if json:
        told = {"outputs": [reports.file_record(path) for path in done.files], "figures": done.figures}
        terminal.show(reports.to_json(told).rstrip())
        return
    columns = list(next(iter(done.figures.values())))
    lines = ["against the true CT, over the whole volume:", f"{'':14}" + "".join(f"{name:>11}" for name in columns)]
    for name, row in done.figures.items():
        lines.append(f"{name:14}" + "".join(f"{value:11.3f}" for value in row.values()))
    lines += [
        f"{output / 'comparison.png'}: truth, synthesis, their difference, and the X-rays",
        f"{output / 'ct.html'}: synthesis and truth, for any browser",
        f"try it yourself: x2ct sample --ap {output / 'ap.png'} --lateral {output / 'lateral.png'} -o ct.nii.gz",
    ]
    terminal.show("\n".join(lines), quiet)
    terminal.note("notice", reports.NOTICE, quiet)
