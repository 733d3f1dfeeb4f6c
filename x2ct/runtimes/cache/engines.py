"""Which compiled engines a backend opens in place of a bundle's ONNX graphs.

TensorRT runs plans, torch TorchScript files or AOTInductor packages, and ONNX Runtime in a lower precision a graph that
is typed in it. All are made by commands (`x2ct build`, `x2ct export`) and kept in this machine's cache.
"""

from __future__ import annotations

from x2ct.bundle import Bundle
from x2ct.geometry.grid import Grid
from x2ct.runtimes.cache import plans, torchengines
from x2ct.runtimes.discovery import Choice


def find(bundle: Bundle, grid: Grid, choice: Choice) -> tuple[str, dict[str, str]]:
    """Return the kind of the compiled engines, and each one's path by the file name of the graph that it replaces.

    Args:
        bundle: the model.
        grid: that is filled; plans hold for the grids that they were built for.
        choice: backend, device, precision, and the folder to look in, if not the cache.

    Returns:
        "" and nothing for backends that open ONNX; else "tensorrt", "torchscript", "aoti" or "typed", with all three
        graphs' engines, or of "typed" the denoiser's alone.

    Raises:
        InputError: an engine in the folder is of another model, damaged, or foreign and not trusted.
        MissingRuntimeError: there is none; the text says what makes it.
    """
    if choice.backend == torchengines.BACKEND:
        kind, files = torchengines.find(
            bundle, choice.provider, choice.compiled, choice.trust, device=choice.device, precision=choice.precision
        )
    elif choice.backend == plans.BACKEND:
        kind = plans.BACKEND
        machine = plans.Machine.here(choice.device)
        _, files = plans.find(bundle, choice.precision, grid.shape, machine, folder=choice.compiled, trust=choice.trust)
    elif is_typed(choice):
        kind = "typed"
        files = {bundle.networks.denoiser.file: plans.find_typed(bundle, choice.precision, folder=choice.compiled)}
    else:
        return "", {}
    return kind, {file: str(path) for file, path in files.items()}


def is_typed(choice: Choice) -> bool:
    """Return whether the denoiser's graph must itself be in the precision that is asked for."""
    takes = plans.TYPED[choice.device.partition(":")[0]]
    return choice.backend == "onnxruntime" and choice.provider != "tensorrt" and choice.precision in takes


def provider_of(choice: Choice) -> str:
    """Return the execution provider; which of its engines torch runs has been decided by `find`."""
    return "" if choice.backend == torchengines.BACKEND else choice.provider
