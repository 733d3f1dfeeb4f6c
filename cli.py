"""The `x2ct` command line: options, one call into the library, printing. No logic.

Follow `sample` to see how X-rays become a CT: `x2ct.tasks.sample_files` reads and writes the files, `x2ct.sampler`
runs the networks, and the core's loop (csrc/core) takes the steps. Heavy modules are imported in the commands that use
them, so that `x2ct --help` answers at once and sampling needs no PyTorch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from x2ct import __version__, terminal


class Commands(TyperGroup):
    """The commands, with one way out for whatever ends one: a line on stderr and a documented exit code."""

    def main(self, args: Sequence[str] | None = None, *positional: Any, **named: Any) -> NoReturn:
        """Run the command line and exit."""
        given = list(sys.argv[1:] if args is None else args) or ["--help"]
        named["standalone_mode"] = False  # usage errors come here too, and look like all the others
        run = super().main
        raise SystemExit(terminal.exit_code_of(lambda: run(given, *positional, **named), debug=given[0] == "--debug"))


app = typer.Typer(
    cls=Commands,
    name="x2ct",
    help="A CT volume from one or two X-rays.",
    epilog=terminal.EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Threads = Annotated[
    int, typer.Option("--threads", min=0, help="CPU threads; 0 leaves it to the runtime.", rich_help_panel="Runtime")
]


def _version(wanted: bool) -> None:
    if wanted:
        terminal.show(f"x2ct {__version__}")
        raise typer.Exit


def _pitch(text: str) -> tuple[float, float]:
    """One pixel pitch in mm for both directions, or ROW,COLUMN."""
    try:
        row, *column = (float(part) for part in text.split(","))
        (across,) = column or [row]
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected MM or ROW,COLUMN in mm") from None
    if not (0 < row < 100 and 0 < across < 100):
        raise typer.BadParameter(f"found {text!r}, expected a pitch above 0 and below 100 mm")
    return row, across


def _option(text: str) -> tuple[str, str]:
    """A provider's option and its value."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"found {text!r}, expected KEY=VALUE")
    return key, value


def _view(text: str) -> str | float:
    """A view's name, or an angle in degrees."""
    try:
        return float(text)
    except ValueError:
        return text


def _shape(text: str) -> tuple[int, int, int]:
    """Voxels along x, y and z."""
    try:
        x, y, z = (int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected X,Y,Z in voxels") from None
    if min(x, y, z) < 1:
        raise typer.BadParameter(f"found {text!r}, expected sizes of at least 1")
    return x, y, z


def _voxel(text: str) -> tuple[float, float, float]:
    """One voxel size in mm for all directions, or X,Y,Z."""
    try:
        x, *others = (float(part) for part in text.split(","))
        y, z = others or [x, x]
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected MM or X,Y,Z in mm") from None
    if not all(0.01 <= side <= 50 for side in (x, y, z)):
        raise typer.BadParameter(f"found {text!r}, expected 0.01 to 50 mm")
    return x, y, z


def _bytes(text: str) -> int:
    """A size in bytes."""
    from x2ct.memory import parse_bytes

    return parse_bytes(text)


@app.callback()
def x2ct(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. Comes first.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A CT volume from one or two X-rays."""


@app.command()
def sample(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The CT to write: .nii.gz or .nii, int16 HU.", rich_help_panel="Output"),
    ],
    ap: Annotated[
        Path | None,
        typer.Option(help="Frontal X-ray, source in front: PNG, TIFF, DICOM or .npy.", rich_help_panel="Input"),
    ] = None,
    pa: Annotated[
        Path | None, typer.Option(help="Frontal X-ray, source behind, in place of --ap.", rich_help_panel="Input")
    ] = None,
    lateral: Annotated[
        Path | None, typer.Option(help="Lateral X-ray. One view alone is enough.", rich_help_panel="Input")
    ] = None,
    geometry: Annotated[
        Path | None, typer.Option(help="JSON that says where the X-rays were taken from.", rich_help_panel="Input")
    ] = None,
    spacing: Annotated[
        Any,
        typer.Option(
            parser=_pitch, metavar="MM", help="The X-rays' pixel pitch: MM, or ROW,COLUMN.", rich_help_panel="Input"
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="A bundle's folder, or a bundled model's name.", rich_help_panel="Sampling"),
    ] = "chest",
    preview: Annotated[
        Path | None, typer.Option(help="Also write a picture of the result: .png.", rich_help_panel="Output")
    ] = None,
    preview_every: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Draw --preview after every N evaluations too.", rich_help_panel="Output"
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Also write what was done, from what, and how fast: .json.", rich_help_panel="Output"),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the noise: the same seed gives the same bytes.", rich_help_panel="Sampling")
    ] = 0,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps along the noise schedule; by default the model's.", rich_help_panel="Sampling"),
    ] = None,
    solver: Annotated[
        str | None, typer.Option(help="One of those that `x2ct info` lists.", rich_help_panel="Sampling")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Of noise levels: tuned, or one that `x2ct info` lists; by default the model's.",
            rich_help_panel="Sampling",
        ),
    ] = None,
    mean: Annotated[
        bool,
        typer.Option(
            "--mean", help="The posterior mean, one evaluation, in place of a sample.", rich_help_panel="Sampling"
        ),
    ] = False,
    consistency: Annotated[
        str,
        typer.Option(
            help="Pull the CT towards the X-rays: off, last (at the last step) or every (at each).",
            rich_help_panel="Sampling",
        ),
    ] = "off",
    gamma: Annotated[
        float | None, typer.Option(help="How strongly --consistency pulls.", rich_help_panel="Sampling")
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=1,
            help="How many: more than one give -o their mean, beside it NAME_std and NAME_000, NAME_001 ...",
            rich_help_panel="Sampling",
        ),
    ] = 1,
    shape: Annotated[
        Any,
        typer.Option(
            parser=_shape, metavar="X,Y,Z", help="The CT's voxels; by default the model's.", rich_help_panel="Sampling"
        ),
    ] = None,
    voxel: Annotated[
        Any,
        typer.Option(
            parser=_voxel, metavar="MM", help="Their size: MM, or X,Y,Z; likewise.", rich_help_panel="Sampling"
        ),
    ] = None,
    memory: Annotated[
        Any,
        typer.Option(
            parser=_bytes,
            metavar="SIZE",
            help="Stay within this, such as 2GB: tile by tile where the whole does not fit.",
            rich_help_panel="Runtime",
        ),
    ] = None,
    halo: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="VOXELS",
            help="How far tiles reach; by default as far as the network looks, so that nothing changes.",
            rich_help_panel="Runtime",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda[:N].", rich_help_panel="Runtime")] = "auto",
    backend: Annotated[
        str, typer.Option(help="auto (which is openvino), openvino or onnxruntime.", rich_help_panel="Runtime")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, f32, tf32, bf16 or f16; what can't be had is refused.", rich_help_panel="Runtime")
    ] = "auto",
    provider: Annotated[
        str, typer.Option(help="Of onnxruntime: cpu, cuda or tensorrt.", rich_help_panel="Runtime")
    ] = "",
    provider_option: Annotated[
        list[Any] | None,
        typer.Option(
            parser=_option, metavar="KEY=VALUE", help="Handed to it; may be repeated.", rich_help_panel="Runtime"
        ),
    ] = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Synthesise a CT from an X-ray or two."""
    from x2ct import report as reports
    from x2ct.tasks import SampleJob, sample_files

    job = SampleJob(
        output=output,
        ap=ap,
        pa=pa,
        lateral=lateral,
        geometry=geometry,
        spacing_mm=spacing,
        model=model,
        preview=preview,
        preview_every=preview_every,
        report=report,
        seed=seed,
        steps=steps,
        solver=solver,
        schedule=schedule,
        mean=mean,
        consistency=consistency,
        gamma=gamma,
        samples=samples,
        shape=shape,
        voxel_mm=voxel,
        memory=memory,
        halo=halo,
        device=device,
        backend=backend,
        precision=precision,
        provider=provider,
        provider_options=tuple(provider_option or ()),
        threads=threads,
    )
    with terminal.progress("evaluations", quiet) as display:
        done = sample_files(job, stage=display.stage, progress=display.step)
    if json:
        terminal.show(reports.to_json(done).rstrip())
        return
    terminal.show(reports.summary(done), quiet)
    for line in done["assumptions"]:
        terminal.note("note", line, quiet)
    for line in done["warnings"]:
        terminal.note("warning", line, quiet)


@app.command()
def drr(
    ct: Annotated[Path, typer.Argument(help="A CT: NIfTI, NRRD, MetaImage, or a folder with a DICOM series.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write PNG, .npy and geometry.json to.")],
    geometry: Annotated[str, typer.Option(help="parallel, cone, or a geometry file.")] = "parallel",
    view: Annotated[
        list[Any] | None,
        typer.Option(parser=_view, metavar="VIEW", help="ap, pa, lateral or degrees; may be repeated."),
    ] = None,
    mu_water: Annotated[float, typer.Option(help="Attenuation of water per mm; 0.02 is that of 70 keV.")] = 0.02,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Project a CT to X-rays."""
    from x2ct import report as reports
    from x2ct.drr import drr as run

    with terminal.progress("views", quiet) as display:
        display.stage("projecting")
        written = run(ct, output, geometry, view, mu_water=mu_water, threads=threads, progress=display.step)
    if json:
        terminal.show(reports.to_json({"outputs": [reports.file_record(path) for path in written]}).rstrip())
        return
    terminal.show("\n".join(map(str, written)), quiet)


@app.command()
def prepare(
    cts: Annotated[Path, typer.Argument(help="A folder of CT files and DICOM folders; each is one person.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The shard folder; an interrupted run goes on.")],
    shape: Annotated[tuple[int, int, int], typer.Option(help="The grid's voxels along x, y and z.")] = (128, 128, 128),
    spacing: Annotated[tuple[float, float, float], typer.Option(help="The grid's voxel size in mm.")] = (2.5, 2.5, 2.5),
    validation: Annotated[
        list[str] | None,
        typer.Option(help="A person (by file name) to set aside; may be repeated. By default one in ten."),
    ] = None,
    centre: Annotated[str, typer.Option(help="What the grid is centred on: lungs or body.")] = "lungs",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make training shards from CTs. A CT that can't be used is named, the others go on, and the exit code is 1."""
    from x2ct import report as reports

    with terminal.training_packages(), terminal.progress("people", quiet) as display:
        from x2ct.data.prepare import PrepareOptions
        from x2ct.data.prepare import prepare as run
        from x2ct.grid import Grid

        display.stage("preparing")
        done = run(
            cts,
            output,
            grid=Grid(shape, spacing),
            options=PrepareOptions(centre),
            validation=validation,
            progress=display.step,
        )
    for source, reason in done.failures:
        terminal.note("warning", f"{source} left out: {reason}", quiet)
    told = f"{output}: {len(done.people)} people ({len(done.kept)} from before), {len(done.validation)} for validation"
    terminal.show(reports.to_json(vars(done)).rstrip() if json else told, quiet and not json)
    if done.failures:
        raise typer.Exit(1)


@app.command()
def train(
    shards: Annotated[Path, typer.Argument(help="A folder that `x2ct prepare` wrote.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The run's folder: config, checkpoint, logs, pictures.")
    ],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
    config: Annotated[Path | None, typer.Option(help="The configuration of a new run: JSON, or another run.")] = None,
    init: Annotated[Path | None, typer.Option(help="A run whose weights a new run starts from.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of a new run.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random in a new run.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop by then, with a checkpoint to go on from.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, or cuda[:N].")] = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a model on shards."""
    from x2ct import report as reports

    changes: dict[str, Any] = {
        key: value for key, value in (("name", name), ("steps", steps), ("seed", seed)) if value is not None
    }
    if resume and (changes or config or init):
        raise typer.BadParameter(
            "a resumed run keeps its own configuration: leave out --config, --init, --name, --steps and --seed."
        )
    with terminal.training_packages(), terminal.progress("steps", quiet) as display:
        from x2ct.training import TrainConfig
        from x2ct.training import train as run

        settings = None if resume else TrainConfig.load(config) if config else TrainConfig()
        display.stage("training")
        done = run(
            shards,
            output,
            settings and replace(settings, **changes),
            resume=resume,
            minutes=minutes,
            init=init,
            device=device,
            threads=threads,
            progress=display.step,
        )
    if json:
        terminal.show(reports.to_json(vars(done)).rstrip())
        return
    state = "finished" if done.finished else "to be resumed"
    terminal.show(f"{output}: {done.steps} steps in {done.seconds:.0f} s, {state}", quiet)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A folder that `x2ct train` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write: NAME.x2ct.")],
    name: Annotated[str | None, typer.Option(help="The model's name; by default the run's.")] = None,
    weights: Annotated[str, typer.Option(help="How large weights are stored: f16 or f32.")] = "f16",
    ema: Annotated[
        float | None, typer.Option(help="Relative width of the weights' average; by default the first.")
    ] = None,
    provenance: Annotated[
        Path | None, typer.Option(help="JSON to put into the bundle: data, compute, date, figures.")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Turn a trained run into a bundle, if it computes the same."""
    from x2ct import report as reports

    with terminal.training_packages(), terminal.progress("stages", quiet) as display:
        from x2ct.export import export_run

        said = reports.read_json(provenance) if provenance else None
        done = export_run(run, output, name=name, dtype=weights, ema=ema, provenance=said, progress=display.stage)
    if json:
        terminal.show(reports.to_json(done.to_json()).rstrip())
        return
    worst = max(done.rows, key=lambda row: row.error / row.tolerance)
    told = f"{output}: {done.bundle.size_bytes / 1e6:.1f} MB; closest to its tolerance of {worst.tolerance:g}: {worst}"
    terminal.show(told, quiet)


@app.command()
def tune(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder; it gets the noise levels that are found.")],
    shards: Annotated[Path, typer.Argument(help="A folder that `x2ct prepare` wrote; its validation people are used.")],
    steps: Annotated[
        list[int] | None,
        typer.Option(min=1, help="How many noise levels; may be repeated. By default 1 to 6, 8, 10 and 16."),
    ] = None,
    solver: Annotated[
        str | None, typer.Option(help="Find them for this solver, and make it the model's; by default the model's own.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Noise seeds a person.")] = 1,
    shape: Annotated[
        tuple[int, int, int] | None, typer.Option(help="Only so many voxels, at the grid's centre; by default all.")
    ] = None,
    fine: Annotated[int, typer.Option(help="Steps of the reference trajectory.")] = 64,
    refine: Annotated[
        int, typer.Option(min=0, help="Runs a list to move its levels by what is measured; 0 leaves them as found.")
    ] = 24,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write another bundle, and leave this one as it is.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write what was found: .json.")] = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find a model's noise levels for few steps, and store them in it as the default for that number of steps."""
    from x2ct import report as reports
    from x2ct.tuning import markdown
    from x2ct.tuning import tune_files as run

    with terminal.progress("evaluations", quiet) as display:
        display.stage("tuning")
        done = run(
            bundle,
            shards,
            output or bundle,
            report=report,
            counts=steps,
            solver=solver,
            samples=samples,
            fine=fine,
            refine=refine,
            shape=shape,
            threads=threads,
            progress=display.step,
        )
    terminal.show(reports.to_json(done.to_json()).rstrip() if json else markdown(done), quiet and not json)


@app.command()
def info(
    bundle: Annotated[str | None, typer.Argument(help="A bundle's folder, or a bundled model's name.")] = None,
    table: Annotated[
        str | None, typer.Option(metavar="SOLVER", help="Show this solver's coefficients, by evaluation, instead.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the table; by default the model's.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the table; by default the model's.")] = None,
    json: Json = False,
) -> None:
    """Show versions, backends, devices, solvers and schedules; what a bundle holds; or a table of coefficients."""
    from x2ct import report as reports
    from x2ct.about import about, sections, solver_table

    if table is not None:
        told = solver_table(table, bundle, steps, schedule)
        terminal.show(reports.to_json(told).rstrip() if json else told["text"])
        return
    if steps is not None or schedule is not None:
        raise typer.BadParameter("--steps and --schedule say which table: name its solver with --table.")
    facts = about(bundle)
    if json:
        terminal.show(reports.to_json(facts).rstrip())
        return
    for title, rows in sections(facts):
        terminal.table(title, rows)


def main() -> None:
    """The entry point of the `x2ct` command."""
    app()


if __name__ == "__main__":
    main()
