"""`x2ct export`: a run to a bundle, and a bundle to compiled engines, each proven; `x2ct build`: TensorRT's engines."""

from __future__ import annotations

from pathlib import Path

import typer

from x2ct.commands import terminal
from x2ct.commands.options import Json, Quiet
from x2ct.jobs.options import BYTES, MODEL, setting

PROOF = ("file", "runtime", "precision", "denoiser", "volume HU", "PSNR dB", "MB", "load s", "ms/evaluation", "")


def export(
    source: str = typer.Argument(..., help="Run folder of `x2ct train`, or a bundle.", metavar="RUN|BUNDLE"),
    output: Path | None = setting(
        None, "Bundle to write from a run, NAME.x2ct, or folder for triton or monai.", "--output", "-o"
    ),
    formats: list[str] | None = setting(
        None,
        "onnx (the bundle), torchscript, aoti or tensorrt (compiled engines, written to the cache); may be "
        "repeated. Or triton, monai: a folder for that framework, written to --output.",
        "--format",
    ),
    compiled: Path | None = setting(None, "Write compiled engines to this folder too.", metavar="FOLDER"),
    precision: str | None = setting(
        None,
        "Precision of the denoiser in compiled engines: bf16, f16, tf32 or f32. Default: bf16 for tensorrt, "
        "f32 for torch.",
    ),
    device: str = setting("cpu", "Device of torchscript and aoti engines: cpu or cuda[:N]."),
    name: str | None = setting(None, "Name of the model. Default: the run's."),
    weights: str = setting("f16", "Data type of the stored weights: f16 or f32."),
    ema: float | None = setting(
        None, "Relative width of the weight average (EMA) to export. Default: the first of the run."
    ),
    best: bool = setting(False, "Export the average with the lowest validation loss instead of the last one."),
    provenance: Path | None = setting(None, "JSON file to store in the bundle: data, compute, date, figures."),
    report: Path | None = setting(None, "Write the parity check in full to this .json file."),
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Export a trained run to a bundle, or a bundle to a compiled engine. Fails if the results differ."""
    from x2ct.files.atomic import check_writable
    from x2ct.io import report as reports

    if report is not None:
        check_writable(report, (".json",))
    with terminal.extra("train"), terminal.progress("stages", quiet) as display:
        from x2ct.export import formats as making

        result = making.export(
            source,
            output,
            formats or ("onnx",),
            run=making.RunOptions(name, weights, ema, reports.read_json(provenance) if provenance else None, best),
            folder=compiled,
            precision=precision,
            device=device,
            progress=display.stage,
        )
    if report is not None:
        reports.write_json(result.to_json(), report)
    lines = [f"{result.folder}: written"] if result.folder else []
    lines.append(f"{result.bundle.path}: {result.bundle.size_bytes / 1e6:.1f} MB")
    if result.parity is not None:
        worst = max(result.parity.rows, key=lambda row: row.error / row.tolerance)
        lines.append(f"closest to its tolerance of {worst.tolerance:g}: {worst}")
    terminal.result(result.to_json(), "\n".join(lines), json, quiet)
    if not (json or quiet):
        terminal.grid("Proof", PROOF, [row.cells() for row in result.proofs])


def build(
    bundle: str = typer.Argument(..., help=MODEL),
    backend: str = setting("tensorrt", "Runtime: tensorrt."),
    graph: bool = setting(False, "Write only the denoiser's typed ONNX graph. Needs no GPU."),
    precision: str = setting("bf16", "Precision of the denoiser: bf16, f16, tf32 or f32."),
    shape: str | None = setting(
        None, "Number of voxels, or MINIMUM:USUAL:MAXIMUM for a range. Default: the model's.", metavar="X,Y,Z"
    ),
    workspace: int | None = setting(None, "Largest workspace of a kernel, beside its tensors.", **BYTES),
    effort: int = setting(
        3, "Builder optimisation level: higher values compare more kernels and take longer.", min=0, max=5
    ),
    device: str = setting("cuda", "Device: cuda[:N]."),
    cache: Path | None = setting(None, "Cache folder of compiled engines. Default: $X2CT_CACHE, or x2ct/ in ~/.cache."),
    output: Path | None = setting(None, "Write copies to this folder too.", "--output", "-o"),
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Build TensorRT engines of a model for this machine's GPU. Engines that exist already are reused."""
    from x2ct.bundle import Bundle
    from x2ct.runtimes.cache.cache import Cache, copy_to
    from x2ct.runtimes.cache.engines import PRECISIONS, TENSORRT, Volumes

    if backend != TENSORRT:
        raise typer.BadParameter(f"found --backend {backend}, expected {TENSORRT}: the others need nothing built")
    if precision not in PRECISIONS:
        raise typer.BadParameter(f"found --precision {precision}, expected {', '.join(PRECISIONS)}")
    with terminal.extra("train"), terminal.progress("steps", quiet) as display:
        from x2ct.export import plans

        store, model = Cache(cache), Bundle.load(bundle)
        volumes = Volumes.parse(shape) if shape else None
        if graph:
            result = plans.typed_graph(model, precision, store, display.stage)
        else:
            options = plans.PlanOptions(precision, volumes, workspace or 0, effort, device)
            result = plans.build_plans(model, options, store, say=display.stage, step=display.step)
        if output is not None:
            for engine in result.engines.values():
                copy_to(engine, output / engine.path.name)
    lines = []
    for engine in result.engines.values():
        state = f"built in {engine.note.seconds:.1f} s" if engine.built else "there already"
        lines.append(f"{engine.path}: {engine.note.bytes / 1e6:.1f} MB, {state}")
    terminal.result(result.to_json(), "\n".join(lines), json, quiet)
