"""`x2ct train`: shards to a trained run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, Quiet
from x2ct.jobs.options import Device, Threads


def train(
    shards: Path = typer.Argument(..., help="Shard folder of `x2ct prepare`."),
    output: Path = typer.Option(..., "--output", "-o", help="Run folder: configuration, checkpoint, logs, pictures."),
    resume: bool = typer.Option(False, "--resume", help="Continue from the run's checkpoint."),
    config: Path | None = typer.Option(
        None, help="Configuration of a new run: a JSON file or another run. Default: that of --init, if given."
    ),
    init: str | None = typer.Option(
        None, help="Weights to start a new run from: a run, a bundle, or the name of a model that comes with x2ct."
    ),
    name: str | None = typer.Option(None, help="Name of the model."),
    steps: int | None = typer.Option(None, min=1, help="Number of optimiser steps of the whole run."),
    seed: int | None = typer.Option(None, min=0, help="Random seed of a new run."),
    minutes: float | None = typer.Option(
        None,
        min=0,
        help="Minutes of training of the whole run. The learning rate reaches 0 after these or after --steps, "
        "whichever comes first.",
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
    for option, path in (("--config", config), ("--init", None if init in bundled() else init)):
        if path is not None and not Path(path).exists():
            raise InputError.of(option, "path", found=f"nothing at {path}", expected="a file or a folder")
