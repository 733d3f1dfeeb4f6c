"""`x2ct export`: a trained run to a bundle, and a bundle to what a runtime makes of it, each proven."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from x2ct import terminal
from x2ct.commands.options import Json, Quiet


def export(
    source: Annotated[str, typer.Argument(help="A folder that `x2ct train` wrote, or a bundle.", metavar="RUN|BUNDLE")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The bundle to write: NAME.x2ct; of a run.")
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="onnx (the bundle); torchscript, aoti, tensorrt, which go to this machine's cache; may be repeated.",
        ),
    ] = None,
    artefacts: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also put what goes to the cache there.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of the denoiser in what goes to the cache: bf16, f16, tf32 or f32; torch's is f32 by default."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="What torchscript and aoti are made for: cpu or cuda[:N].")] = "cpu",
    name: Annotated[str | None, typer.Option(help="The model's name; by default the run's.")] = None,
    weights: Annotated[str, typer.Option(help="How large weights are stored: f16 or f32.")] = "f16",
    ema: Annotated[
        float | None, typer.Option(help="Relative width of the weights' average; by default the first.")
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Export the average with the lowest validation loss, not the last one.")
    ] = False,
    provenance: Annotated[
        Path | None, typer.Option(help="JSON to put into the bundle: data, compute, date, figures.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the whole proof: .json.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Turn a trained run into a bundle, or a bundle into what torch or TensorRT runs, if it computes the same."""
    from x2ct import report as reports

    if report is not None:
        from x2ct.output import check_writable

        check_writable(report, (".json",))
    with terminal.training_packages(), terminal.progress("stages", quiet) as display:
        from x2ct.export import formats as making

        said = reports.read_json(provenance) if provenance else None
        done = making.export(
            source,
            output,
            formats or ("onnx",),
            run=making.RunOptions(name, weights, ema, said, best),
            folder=artefacts,
            precision=precision,
            device=device,
            progress=display.stage,
        )
    if report is not None:
        reports.write_json(done.to_json(), report)
    if json:
        terminal.show(reports.to_json(done.to_json()).rstrip())
        return
    terminal.show(f"{done.bundle.path}: {done.bundle.size_bytes / 1e6:.1f} MB", quiet)
    if done.parity is not None:
        worst = max(done.parity.rows, key=lambda row: row.error / row.tolerance)
        terminal.show(f"closest to its tolerance of {worst.tolerance:g}: {worst}", quiet)
    if not quiet:
        terminal.grid("Proof", PROOF, [row.cells() for row in done.proofs])


PROOF = ("file", "runtime", "precision", "denoiser", "volume HU", "PSNR dB", "MB", "load s", "ms/evaluation", "")
