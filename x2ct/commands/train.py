"""`x2ct prepare` and `x2ct train`: CTs to training shards, and shards to a trained run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, Quiet
from x2ct.jobs.options import SHAPE, VOXEL, Centre, Device, KeepCouch, Threads, setting


def prepare(
    cts: Path = typer.Argument(
        ..., help="Folder of CT files and DICOM folders, one for each patient; or an nnU-Net or BIDS dataset."
    ),
    output: Path = setting(..., "Shard folder to write. An interrupted run is continued.", "--output", "-o"),
    shape: Any = setting("128,128,128", "Voxels of the grid.", **SHAPE),
    voxel: Any = setting("2.5", "Voxel size of the grid: MM, or X,Y,Z in mm.", **VOXEL),
    validation: list[str] | None = setting(
        None, "Patient (file name) to keep for validation. May be repeated. Default: one in ten."
    ),
    patients: Path | None = setting(
        None,
        "CSV file with columns id, split (train, validation, leave-out), region, reason; or BIDS' participants.tsv.",
    ),
    centre: Centre = "lungs",
    keep_couch: KeepCouch = False,
    preview: bool = setting(False, "Write a contact sheet of each patient, ID.png, and overviews."),
    shapes: bool = setting(
        False, "Register the training patients to one another, so that training can mix their shapes."
    ),
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make training shards from CTs. A CT that can't be used is reported and skipped; the exit code is then 1."""
    with terminal.extra("train"), terminal.progress("patients", quiet) as display:
        from x2ct.data.prepare import PrepareOptions
        from x2ct.data.prepare import prepare as run
        from x2ct.geometry.grid import Grid

        display.stage("preparing")
        result = run(
            cts,
            output,
            grid=Grid(shape, voxel),
            options=PrepareOptions(centre, keep_couch=keep_couch),
            validation=validation,
            patients=patients,
            preview=preview,
            shapes=shapes,
            progress=display.step,
        )
    for source, reason in result.failures:
        terminal.note("warning", f"{source} left out: {reason}", quiet)
    for name, reason in result.left_out:
        terminal.note("note", f"{name} left out: {reason}", quiet)
    text = f"{output}: {len(result.patients)} patients ({len(result.kept)} from before)"
    text += f", for validation: {', '.join(result.validation) or 'none'}"
    terminal.result(vars(result), text, json, quiet)
    if result.failures:
        raise typer.Exit(1)


def train(
    shards: Path = typer.Argument(..., help="Shard folder of `x2ct prepare`."),
    output: Path = setting(..., "Run folder: configuration, checkpoint, logs, pictures.", "--output", "-o"),
    resume: bool = setting(False, "Continue from the run's checkpoint."),
    config: Path | None = setting(
        None, "Configuration of a new run: a JSON file or another run. Default: that of --init, if given."
    ),
    init: str | None = setting(
        None, "Weights to start a new run from: a run, a bundle, or the name of a model that comes with x2ct."
    ),
    name: str | None = setting(None, "Name of the model."),
    steps: int | None = setting(None, "Number of optimiser steps of the whole run.", min=1),
    seed: int | None = setting(None, "Random seed of a new run.", min=0),
    minutes: float | None = setting(
        None,
        "Minutes of training of the whole run. The learning rate reaches 0 after these or after --steps, "
        "whichever comes first.",
        min=0,
    ),
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a model on shards.

    Ctrl-C and SIGTERM finish the step and write a checkpoint from which --resume goes on.

    On N GPUs: torchrun --nproc-per-node N -m x2ct train ...
    """
    changes: dict[str, Any] = {key: value for key, value in (("name", name), ("seed", seed)) if value is not None}
    if resume and (changes or config or init):
        raise typer.BadParameter(
            "a resumed run keeps its own configuration: leave out --config, --init, --name and --seed."
        )
    with terminal.extra("train"), ExitStack() as stack:
        try:
            from x2ct.training import TrainConfig
            from x2ct.training import train as run
            from x2ct.training.ranks import joined
        except ModuleNotFoundError:  # what is wrong with the call is told before what is missing
            _check_paths(shards, config, init)
            raise

        ranks = stack.enter_context(joined(device))
        quiet = quiet or not ranks.first
        display = stack.enter_context(terminal.progress("steps", quiet))
        stack.enter_context(terminal.log_lines("x2ct", quiet))
        start = None
        if init is not None:
            from x2ct.export import starting_point

            display.stage("reading the weights to start from")
            start = ranks.each(lambda: starting_point(init))
        # Weights mean what they do under the configuration that they were trained with: unless told, it is kept.
        settings = start.config if start else TrainConfig()
        if config is not None:
            settings = ranks.each(lambda: TrainConfig.load(config))
        if start is not None:
            # Its sampling settings were tuned for its noise levels.
            alike = settings.diffusion == start.config.diffusion
            changes["parent"] = {key: v for key, v in start.config.parent.items() if alike or key != "diffusion"}
        display.stage("training")
        result = run(
            shards,
            output,
            None if resume else replace(settings, **changes),
            resume=resume,
            steps=steps,
            minutes=minutes,
            init=start.weights if start else None,
            device=ranks.device,
            threads=threads,
            ranks=ranks,
            progress=display.step,
        )
    state = "finished" if result.finished else f"saved; go on with: x2ct train {shards} -o {output} --resume"
    text = f"{output}: {result.steps} steps in {result.seconds:.0f} s, {state}"
    terminal.result(vars(result), text, json and ranks.first, quiet)
    if result.signal is not None:
        raise typer.Exit(terminal.EXIT_CODES_OF_SIGNALS[result.signal])


def _check_paths(shards: Path, config: Path | None, init: str | None) -> None:
    """Raise InputError for a folder or a file that is not there."""
    from x2ct.bundle import bundled
    from x2ct.data.shards import ShardSet
    from x2ct.errors import InputError

    ShardSet.open(shards)
    for name, path in (("--config", config), ("--init", None if init in bundled() else init)):
        if path is not None and not Path(path).exists():
            raise InputError.of(name, "path", found=f"nothing at {path}", expected="a file or a folder")
