"""`x2ct evaluate`: honest figures of a model, or of predictions made elsewhere, on a folder of CTs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct import terminal
from x2ct.commands.options import Json, Quiet, Threads, parse_shape, parse_voxel


def evaluate(
    data: Annotated[
        Path, typer.Option("--data", help="Test CTs: a folder of CT files and DICOM folders; each is one person.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for the report: JSON, CSV, Markdown and, with the extra report, a page."
        ),
    ],
    bundle: Annotated[str | None, typer.Argument(help="A bundle's folder, or a bundled model's name.")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Instead of a bundle: volumes made elsewhere, CASE.nii.gz or CASE_000.nii.gz ..."),
    ] = None,
    frame: Annotated[
        str, typer.Option(help="What the predictions' affines lead to: patient mm, or the CT's world mm.")
    ] = "patient",
    baselines: Annotated[
        Path | None,
        typer.Option(
            help="Shards to fit baselines on: mean volume, nearest patient, linear regression.", metavar="SHARDS"
        ),
    ] = None,
    region: Annotated[str, typer.Option(help="Of the baselines' people: chest, other or any.")] = "chest",
    samples: Annotated[int, typer.Option(min=0, help="Of the model a person; 0 for the mean estimate alone.")] = 8,
    geometry: Annotated[
        str, typer.Option(help="Of the test X-rays: bundle (the model's own), parallel, cone, or a geometry file.")
    ] = "bundle",
    conditions: Annotated[
        str, typer.Option(help="X-rays that training did not see: every, or names with commas between.", metavar="LIST")
    ] = "",
    probe: Annotated[bool, typer.Option("--probe", help="Plant nodules and gaps in bones, and look for them.")] = False,
    case: Annotated[list[str] | None, typer.Option(help="Only this person; may be repeated.")] = None,
    xrays: Annotated[
        Path | None, typer.Option(help="Also write the test X-rays here, for other systems to predict from.")
    ] = None,
    shape: Annotated[
        Any, typer.Option(parser=parse_shape, metavar="X,Y,Z", help="The judged grid's voxels, without a bundle.")
    ] = None,
    voxel: Annotated[Any, typer.Option(parser=parse_voxel, metavar="MM", help="Their size, likewise.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda[:N].", rich_help_panel="Runtime")] = "auto",
    backend: Annotated[
        str, typer.Option(help="auto, openvino, onnxruntime or tensorrt.", rich_help_panel="Runtime")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, f32, tf32, bf16, f16 or int8.", rich_help_panel="Runtime")
    ] = "auto",
    threads: Threads = 0,
    card: Annotated[bool, typer.Option("--card", help="Print the Markdown for a model card.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure a model on CTs. A CT that can't be used is named, the others go on, and the exit code is 1."""
    from x2ct import report as reports
    from x2ct.evaluation import card as cards
    from x2ct.evaluation import page
    from x2ct.evaluation.job import PAGE, EvaluateJob
    from x2ct.evaluation.run import evaluate_files

    reason = page.unavailable()
    job = EvaluateJob(
        data=data,
        output=output,
        page=not reason,
        bundle=bundle,
        predictions=predictions,
        frame=frame,
        baselines=baselines,
        region=region,
        samples=samples,
        geometry=geometry,
        conditions=tuple(name.strip() for name in conditions.split(",") if name.strip()),
        probe=probe,
        cases=tuple(case or ()),
        xrays=xrays,
        shape=shape,
        voxel_mm=voxel,
        device=device,
        backend=backend,
        precision=precision,
        threads=threads,
    )
    if reason:
        terminal.note("warning", f"{PAGE} is not written: {reason}", quiet)
    with terminal.progress("people", quiet) as display:
        done = evaluate_files(job, stage=display.stage, progress=display.step)
    for name, reason in done.failures:
        terminal.note("warning", f"{name} left out: {reason}", quiet)
    if json:
        terminal.show(reports.to_json(done.plain()).rstrip())
    else:
        terminal.show(cards.card(done.table).rstrip() if card else cards.brief(done.table, done.files[-1]), quiet)
    if done.failures:
        raise typer.Exit(1)
