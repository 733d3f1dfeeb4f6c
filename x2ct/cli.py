"""The `x2ct` command line: options, one call into the library, printing. No logic.

Follow `sample` to see how X-rays become a CT: `x2ct.jobs.sample.sample_files` reads and writes the files,
`x2ct.engine.sampler` runs the networks, and the core's loop (csrc/core) takes the steps. Heavy modules are imported in
the commands that use them, so that `x2ct --help` answers at once and sampling needs no PyTorch.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from x2ct import __version__
from x2ct.commands import bench, export, images, info, serve, terminal, train, tune
from x2ct.commands.options import Json, Quiet, Reading, expanded
from x2ct.jobs.options import Model, SampleJob, Threads, setting


class Commands(TyperGroup):
    """The commands, with one way out for whatever ends one: a line on stderr and a documented exit code."""

    def main(self, args: Sequence[str] | None = None, *positional: Any, **named: Any) -> NoReturn:
        """Run the command line and exit."""
        arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
        named["standalone_mode"] = False  # usage errors come here too, and look like all the others
        run = super().main
        raise SystemExit(
            terminal.exit_code_of(lambda: run(arguments, *positional, **named), debug=arguments[0] == "--debug")
        )


app = typer.Typer(
    cls=Commands,
    name="x2ct",
    help="Turn one or two X-rays into a CT volume.",
    epilog=terminal.EPILOG,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"x2ct {__version__}")
        raise typer.Exit


@app.callback()
def x2ct(
    debug: bool = typer.Option(False, "--debug", help="Print the traceback of an error. Must be the first option."),
    version: bool = typer.Option(False, "--version", "-V", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """Turn one or two X-rays into a CT volume."""


_cohort = partial(setting, panel="Cohort")


@dataclass(frozen=True)
class Many:
    """The options of a run over many studies, by their names in `x2ct.jobs.cohort.sample_cohort`."""

    manifest: Path | None = _cohort(
        None,
        "Studies: a CSV or TSV file with columns id, ap, pa, lateral ..., or a BIDS or nnU-Net dataset. "
        "-o names a folder.",
    )
    resume: bool = _cohort(False, "Skip studies that are already done.", "--continue")
    jobs: int | None = _cohort(
        None, "Number of studies to run at the same time. Default: 1, or with Ray one for each GPU or machine.", min=1
    )
    engine: str = _cohort(
        "local",
        "Where studies run: local (this process) or ray (a Ray cluster that shares the folders).",
        words="engine",
    )
    ray_address: str = _cohort(
        "",
        "Ray cluster to use. Default: RAY_ADDRESS; without it a cluster is started on this machine.",
        metavar="HOST:PORT",
    )


@app.command()
@expanded
def sample(
    *,
    dry_run: bool = setting(False, "Print what would be done and the time it would take. Write nothing."),
    job: SampleJob,
    reading: Reading,
    many: Many,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Generate a CT from one or two X-rays."""
    from x2ct.io import report as reports
    from x2ct.io.xray.readoptions import VIEWS
    from x2ct.jobs.sample import rehearse_files, sample_files

    job = replace(job, reading=reading.by_view(VIEWS if many.manifest else tuple(job.inputs)))
    if many.manifest is not None:
        if dry_run:
            raise typer.BadParameter("--dry-run is for one study: leave out --manifest.")
        _sample_many(many, job, quiet, json)
        return
    if dry_run:
        with terminal.progress("evaluations", quiet) as display:
            facts = rehearse_files(job, stage=display.stage)
        terminal.result(facts, reports.intention(facts), json, quiet)
        return
    if many not in (Many(), Many(jobs=1)):
        options = "--continue, --jobs, --engine and --ray-address"
        raise typer.BadParameter(f"{options} are for many studies: name them with --manifest.")
    with terminal.progress("evaluations", quiet) as display:
        result = sample_files(job, stage=display.stage, progress=display.step)
    terminal.result(result, reports.summary(result), json, quiet)
    see = f"the report {job.report}" if job.report else "--report FILE, or x2ct xray FILE"
    terminal.remarks(result, quiet or json, see)


def _sample_many(many: Many, base: SampleJob, quiet: bool, json: bool) -> None:
    """Sample a manifest's studies; exits with 1 if any failed."""
    from x2ct.jobs.cohort import SUMMARY_FILE, sample_cohort

    if base.inputs or base.geometry or base.pictures or base.report:
        raise typer.BadParameter(
            "with --manifest, the X-rays and geometries stand in it, each study has a report, and no picture is drawn."
        )
    with terminal.progress("studies", quiet) as display:
        display.stage("sampling")
        result = sample_cohort(base=base, progress=display.step, **vars(many))
    for outcome in result.outcomes:
        if outcome.retries:
            terminal.note("note", f"{outcome.id} was begun {outcome.retries + 1} times: its worker was lost", quiet)
    for outcome in result.failed:
        terminal.note("warning", f"{outcome.id} failed with code {outcome.code}: {outcome.error}", quiet)
    states = [outcome.state for outcome in result.outcomes]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("done", "kept", "failed"))
    terminal.result(result.to_json(), f"{result.folder / SUMMARY_FILE}: {len(states)} studies: {counts}", json, quiet)
    if result.failed:
        raise typer.Exit(1)


@app.command()
@expanded
def demo(
    output: Path = setting(Path("demo"), "Folder to write.", "--output", "-o"),
    model: Model = "chest",
    threads: Threads = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Generate a CT from a pair of X-rays that comes with x2ct, and compare it with the true CT."""
    from x2ct.io import report as reports
    from x2ct.jobs.demo import demo as run

    with terminal.progress("evaluations", quiet) as display:
        result = run(output, model, threads=threads, stage=display.stage, progress=display.step)
    lines = ["against the true CT, over the whole volume:"]
    lines.append(f"{'':14}" + "".join(f"{column:>11}" for column in next(iter(result.figures.values()))))
    for name, row in result.figures.items():
        lines.append(f"{name:14}" + "".join(f"{value:11.3f}" for value in row.values()))
    lines += [
        f"{output / 'comparison.png'}: truth, synthesis, their difference, and the X-rays",
        f"{output / 'ct.html'}: synthesis and truth, for any browser",
        f"try it yourself: x2ct sample --ap {output / 'ap.png'} --lateral {output / 'lateral.png'} -o ct.nii.gz",
    ]
    facts = {"outputs": [reports.file_record(path) for path in result.files], "figures": result.figures}
    terminal.result(facts, "\n".join(lines), json, quiet)
    terminal.note("notice", reports.NOTICE, quiet or json)


# The order in which the help lists them.
for _command in (
    serve.serve,
    images.view,
    images.xray,
    images.drr,
    images.mesh,
    train.prepare,
    train.train,
    export.export,
    export.build,
    tune.tune,
    tune.quantize,
    tune.statistics,
    tune.calibrate,
    bench.bench,
    bench.evaluate,
    info.info,
):
    app.command()(expanded(_command))


def main() -> None:
    """The entry point of the `x2ct` command."""
    app()


if __name__ == "__main__":
    main()
