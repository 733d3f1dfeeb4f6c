"""`x2ct evaluate`: honest figures of a model, or of predictions made elsewhere, on a folder of CTs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Centre, Json, KeepCouch, Quiet
from x2ct.jobs.options import MODEL, SHAPE, VOXEL, Backend, Device, Precision, Threads, completer, setting


@dataclass(frozen=True)
class Options:
    """The options of `x2ct evaluate`, named as in `x2ct.evaluation.job.EvaluateJob`."""

    data: Path = setting(..., None, "Folder of test CTs: CT files and DICOM folders, one for each patient.", "--data")
    output: Path = setting(
        ..., None, "Folder for the report: JSON, CSV, Markdown and, with the extra report, a page.", "--output", "-o"
    )
    bundle: Annotated[str | None, typer.Argument(help=MODEL, autocompletion=completer("model"))] = None
    predictions: Path | None = setting(
        None, None, "Evaluate these volumes instead of a bundle: CASE.nii.gz or CASE_000.nii.gz ..."
    )
    frame: str = setting(
        "auto",
        None,
        "Coordinates of the predictions' affines: patient (patient mm), world (the CT's world mm), or auto "
        "(the one that fills more of the grid).",
    )
    centre: Centre = "lungs"
    keep_couch: KeepCouch = False
    baselines: Path | None = setting(
        None,
        None,
        "Shard folder to fit baselines on: mean volume, nearest patient, linear regression.",
        metavar="SHARDS",
    )
    region: str = setting("chest", None, "Region of the patients that the baselines use: chest, other or any.")
    samples: int = setting(8, None, "Number of samples for each patient. 0: mean estimate only.", min=0)
    steps: int | None = setting(None, None, "Number of sampling steps. Default: the model's.", min=1)
    geometry: str = setting(
        "bundle", None, "Geometry of the test X-rays: bundle (the model's own), parallel, cone, or a geometry file."
    )
    conditions: str = setting(
        "",
        None,
        "Evaluation conditions, X-rays unlike those of training: every, or names separated by commas.",
        metavar="LIST",
    )
    probe: bool = setting(
        False, None, "Insert synthetic lesions and gaps in bones, and measure how much of them is found.", "--probe"
    )
    cases: Sequence[str] = setting((), None, "Evaluate only this patient. May be repeated.", "--case")
    xrays: Path | None = setting(None, None, "Write the test X-rays to this folder, for other systems to predict from.")
    shape: tuple[int, int, int] | None = setting(
        None, None, "Number of voxels of the evaluated grid. Only without a bundle.", **SHAPE
    )
    voxel_mm: tuple[float, float, float] | None = setting(
        None, None, "Voxel size in mm of the evaluated grid. Only without a bundle.", "--voxel", **VOXEL
    )
    device: Device = "auto"
    backend: Backend = "auto"
    precision: Precision = "auto"
    threads: Threads = 0


def evaluate(
    options: Options,
    card: bool = typer.Option(False, "--card", help="Print the results as Markdown for a model card."),
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure a model on CTs. A CT that can't be used is reported and skipped; the exit code is then 1."""
    from x2ct.evaluation import card as cards
    from x2ct.evaluation import page
    from x2ct.evaluation.job import PAGE, EvaluateJob
    from x2ct.evaluation.run import evaluate_files

    reason = page.unavailable()
    conditions = tuple(name.strip() for name in options.conditions.split(",") if name.strip())
    chosen: dict[str, Any] = vars(options) | {"conditions": conditions, "cases": tuple(options.cases)}
    if reason:
        terminal.note("warning", f"{PAGE} is not written: {reason}", quiet)
    with terminal.progress("patients", quiet) as display:
        result = evaluate_files(EvaluateJob(**chosen, page=not reason), stage=display.stage, progress=display.step)
    for name, reason in result.failures:
        terminal.note("warning", f"{name} left out: {reason}", quiet)
    for line in result.warnings:
        terminal.note("warning", line, quiet)
    text = cards.card(result.table).rstrip() if card else cards.brief(result.table, result.files[-1])
    terminal.result(result.plain(), text, json, quiet)
    if result.failures:
        raise typer.Exit(1)
