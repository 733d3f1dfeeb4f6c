"""What is installed here and what it can do, for `x2ct info`; a missing runtime is a line that says what to install."""

from __future__ import annotations

from importlib import metadata, util
from typing import Any

from x2ct import report

_TRAINING = ("torch", "onnx", "onnxruntime", "safetensors")


def about(bundle: str | None = None) -> dict[str, Any]:
    """Versions, backends, devices, solvers and bundled models; and one bundle, when it is named.

    Nothing heavy is imported, and whatever is missing is a line of the answer, never an exception.

    Args:
        bundle: a bundle's folder, or a bundled model's name.

    Raises:
        InputError: the bundle can't be opened.
    """
    from x2ct.bundle import Bundle, bundled

    facts: dict[str, Any] = {
        "versions": report.versions(),
        "core": "",
        "backends": [],
        "solvers": [],
        "training": {name: _version(name) for name in _TRAINING},
        "models": list(bundled()),
        "notice": report.NOTICE,
    }
    try:
        from x2ct import _core
    except ImportError as error:
        facts["core"] = f"can't be loaded: {error}; build it with 'pip install .' or 'make build'"
    else:
        facts["core"] = "ready"
        facts["backends"] = _backends()
        facts["solvers"] = [dict(solver) for solver in _core.solvers()]
    if bundle is not None:
        facts["bundle"] = Bundle.load(bundle).summary()
    return facts


def _version(package: str) -> str:
    """An installed package's version; "" where it is missing."""
    try:
        return metadata.version(package) if util.find_spec(package) else ""
    except (metadata.PackageNotFoundError, ImportError, ValueError):
        return ""
