"""The `x2ct` command line: options, one call into the library, printing. No logic.

Follow `sample` to see how X-rays become a CT: `x2ct.tasks.sample_files` reads and writes the files, `x2ct.sampler`
runs the networks, and the core's loop (csrc/core) takes the steps. Heavy modules are imported in the commands that use
them, so that `x2ct --help` answers at once and sampling needs no PyTorch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from x2ct import __version__, terminal
from x2ct.commands import (
    bench,
    build,
    cohort,
    drr,
    evaluate,
    export,
    info,
    mesh,
    prepare,
    quantize,
    serve,
    train,
    tune,
    view,
    xray,
)
from x2ct.commands.options import (
    AngleOf,
    FlipOf,
    FrameOf,
    InvertOf,
    Json,
    Quiet,
    RotateOf,
    SddOf,
    SodOf,
    SpacingOf,
    Strict,
    Threads,
    ValuesOf,
    parse_bytes,
    parse_option,
    parse_shape,
    parse_voxel,
    reading,
)


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
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        terminal.show(f"x2ct {__version__}")
        raise typer.Exit


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
        typer.Option(
            "--output", "-o", help="The CT to write, int16 HU: .nii.gz, .nii, .nrrd or .mha.", rich_help_panel="Output"
        ),
    ],
    ap: Annotated[
        Path | None,
        typer.Option(help="Frontal X-ray, source in front: DICOM, PNG, JPEG, TIFF or .npy.", rich_help_panel="Input"),
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
    spacing: SpacingOf = None,
    rotate: RotateOf = None,
    flip: FlipOf = None,
    frame: FrameOf = None,
    sdd: SddOf = None,
    sod: SodOf = None,
    angle: AngleOf = None,
    invert: InvertOf = None,
    values: ValuesOf = None,
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="A bundle's folder, or a bundled model's name.", rich_help_panel="Sampling"),
    ] = "chest",
    format: Annotated[  # noqa: A002 - the option's name
        str,
        typer.Option(help="nifti, nrrd, mha, or dicom, with which -o is a new folder.", rich_help_panel="Output"),
    ] = "auto",
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
            help="Pull the CT towards the X-rays: off, last, every (at each step), or at chosen ones: 3,5,6.",
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
            parser=parse_shape,
            metavar="X,Y,Z",
            help="Voxels; by default the model's.",
            rich_help_panel="Sampling",
        ),
    ] = None,
    voxel: Annotated[
        Any,
        typer.Option(
            parser=parse_voxel, metavar="MM", help="Their size: MM, or X,Y,Z; likewise.", rich_help_panel="Sampling"
        ),
    ] = None,
    memory: Annotated[
        Any,
        typer.Option(
            parser=parse_bytes,
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
        str,
        typer.Option(
            help="auto (which is openvino), openvino, onnxruntime, tensorrt or torch.", rich_help_panel="Runtime"
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="auto, f32, tf32, bf16, f16 or int8; what can't be had is refused.", rich_help_panel="Runtime"
        ),
    ] = "auto",
    provider: Annotated[
        str,
        typer.Option(
            help="Of onnxruntime: cpu, cuda or tensorrt. Of torch: torchscript or aoti.", rich_help_panel="Runtime"
        ),
    ] = "",
    provider_option: Annotated[
        list[Any] | None,
        typer.Option(
            parser=parse_option, metavar="KEY=VALUE", help="Handed to it; may be repeated.", rich_help_panel="Runtime"
        ),
    ] = None,
    artefacts: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Where the files of torch or tensorrt are; by default this machine's cache.",
            rich_help_panel="Runtime",
        ),
    ] = "",
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Run them, which are code, also if made elsewhere.", rich_help_panel="Runtime"),
    ] = False,
    threads: Threads = 0,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Many studies: a CSV with id, ap, pa, lateral ...; -o is a folder.", rich_help_panel="Cohort"
        ),
    ] = None,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Leave out the studies that are done.", rich_help_panel="Cohort")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Studies at a time.", rich_help_panel="Cohort")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how long it takes; write nothing.")
    ] = False,
    strict: Strict = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Synthesise a CT from an X-ray or two."""
    from x2ct import report as reports
    from x2ct.tasks import SampleJob, rehearse_files, sample_files

    job = SampleJob(
        output=output,
        format=format,
        ap=ap,
        pa=pa,
        lateral=lateral,
        geometry=geometry,
        reading=reading(
            [name for name, path in (("ap", ap), ("pa", pa), ("lateral", lateral)) if path or manifest],
            spacing=spacing,
            rotate=rotate,
            flip=flip,
            frame=frame,
            sdd=sdd,
            sod=sod,
            angle=angle,
            invert=invert,
            values=values,
        ),
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
        artefacts=artefacts,
        trust=trust,
        threads=threads,
        strict=strict,
    )
    if manifest is not None:
        if dry_run:
            raise typer.BadParameter("--dry-run is for one study: leave out --manifest.")
        cohort.run(manifest, job, go_on, jobs, quiet, json)
        return
    if dry_run:
        with terminal.progress("evaluations", quiet) as display:
            told = rehearse_files(job, stage=display.stage)
        terminal.show(reports.to_json(told).rstrip() if json else reports.intention(told), quiet and not json)
        return
    if go_on or jobs != 1:
        raise typer.BadParameter("--continue and --jobs are for many studies: name them with --manifest.")
    with terminal.progress("evaluations", quiet) as display:
        done = sample_files(job, stage=display.stage, progress=display.step)
    if json:
        terminal.show(reports.to_json(done).rstrip())
        return
    terminal.show(reports.summary(done), quiet)
    terminal.remarks(done, quiet, see=f"the report {report}" if report else "--report FILE, or x2ct xray FILE")


# The order in which the help lists them.
for _command in (
    serve.serve,
    view.view,
    xray.xray,
    drr.drr,
    mesh.mesh,
    prepare.prepare,
    train.train,
    export.export,
    build.build,
    tune.tune,
    quantize.quantize,
    bench.bench,
    evaluate.evaluate,
    info.info,
):
    app.command()(_command)


def main() -> None:
    """The entry point of the `x2ct` command."""
    app()


if __name__ == "__main__":
    main()
