"""x2ct: a CT volume from one or two X-rays, by a patch-wise trained diffusion model.

The main path: `x2ct.cli` reads the command line, `x2ct.engine.sampler` turns X-rays into the networks' inputs, and the
C++ core (`x2ct._core`, csrc/) runs the networks and the sampling loop. Importing this package loads nothing heavy: each
public name is imported when it is first used.

    >>> import x2ct
    >>> ct = x2ct.Sampler("chest").sample(ap=x2ct.XRay.load("ap.png"), lateral=x2ct.XRay.load("lateral.png"), seed=0)
    >>> ct.save("ct.nii.gz")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from x2ct import _core as _core  # or __getattr__ below would be taken for it
    from x2ct._core import CancelToken
    from x2ct.bundle import Bundle
    from x2ct.engine.sampler import Result, Sampler
    from x2ct.errors import Cancelled, InputError, MemoryLimitError, MissingRuntimeError, X2CTError
    from x2ct.geometry import Geometry, View
    from x2ct.io.ct.volume import Volume
    from x2ct.io.xray.radiograph import XRay
    from x2ct.io.xray.readoptions import ReadOptions

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "CancelToken",
    "Cancelled",
    "Geometry",
    "InputError",
    "MemoryLimitError",
    "MissingRuntimeError",
    "ReadOptions",
    "Result",
    "Sampler",
    "View",
    "Volume",
    "X2CTError",
    "XRay",
    "__version__",
]

_HOMES = {
    "Bundle": "x2ct.bundle",
    "CancelToken": "x2ct._core",
    "Cancelled": "x2ct.errors",
    "Geometry": "x2ct.geometry",
    "InputError": "x2ct.errors",
    "MemoryLimitError": "x2ct.errors",
    "MissingRuntimeError": "x2ct.errors",
    "ReadOptions": "x2ct.io.xray.readoptions",
    "Result": "x2ct.engine.sampler",
    "Sampler": "x2ct.engine.sampler",
    "View": "x2ct.geometry",
    "Volume": "x2ct.io.ct.volume",
    "X2CTError": "x2ct.errors",
    "XRay": "x2ct.io.xray.radiograph",
}


def __getattr__(name: str) -> object:
    """Import a public name's module on first use (PEP 562), so that `import x2ct` costs nothing."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'x2ct' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
