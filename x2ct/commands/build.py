"""`x2ct build`: a bundle to what this machine runs of it, in this machine's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from x2ct.commands import terminal
from x2ct.commands.options import MODEL, Json, Quiet, bytes_option


def build(
    bundle: Annotated[str, typer.Argument(help=MODEL)],
    backend: Annotated[str, typer.Option(help="Runtime: tensorrt.")] = "tensorrt",
    graph: Annotated[
        bool, typer.Option("--graph", help="Write only the denoiser's typed ONNX graph. Needs no GPU.")
    ] = False,
    precision: Annotated[str, typer.Option(help="Precision of the denoiser: bf16, f16, tf32 or f32.")] = "bf16",
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,Z", help="Number of voxels, or MINIMUM:USUAL:MAXIMUM for a range. Default: the model's."
        ),
    ] = None,
    workspace: Annotated[Any, bytes_option("Largest workspace of a kernel, beside its tensors.")] = None,
    effort: Annotated[
        int,
        typer.Option(
            min=0, max=5, help="Builder optimisation level: higher values compare more kernels and take longer."
        ),
    ] = 3,
    device: Annotated[str, typer.Option(help="Device: cuda[:N].")] = "cuda",
    cache: Annotated[
        Path | None, typer.Option(help="Cache folder of compiled engines. Default: $X2CT_CACHE, or x2ct/ in ~/.cache.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write copies to this folder too.")] = None,
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
    with terminal.training_packages(), terminal.progress("steps", quiet) as display:
        from x2ct.export import plans

        kept, model = Cache(cache), Bundle.load(bundle)
        volumes = Volumes.parse(shape) if shape else None
        if graph:
            result = plans.typed_graph(model, precision, kept, display.stage)
        else:
            options = plans.PlanOptions(precision, volumes, workspace or 0, effort, device)
            result = plans.build_plans(model, options, kept, say=display.stage, step=display.step)
        if output is not None:
            for engine in result.engines.values():
                copy_to(engine, output / engine.path.name)
    if json:
        terminal.show_json(result.to_json())
        return
    for engine in result.engines.values():
        state = f"built in {engine.note.seconds:.1f} s" if engine.built else "there already"
        terminal.show(f"{engine.path}: {engine.note.bytes / 1e6:.1f} MB, {state}", quiet)
