"""Where inference runtimes are installed, found without importing them.

The core opens a runtime's shared libraries itself, so all it needs is the folder of the installed wheel. Looking it up
by `find_spec` runs none of the runtime's Python code and leaves `sys.modules` alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any

from x2ct.errors import InputError, MissingRuntimeError

DEVICES = ("auto", "cpu", "cuda")
BACKENDS = ("auto", "openvino", "onnxruntime", "tensorrt", "torch")
PRECISIONS = ("auto", "f32", "tf32", "bf16", "f16", "int8")
PROVIDERS = {"onnxruntime": ("cpu", "cuda", "tensorrt"), "torch": ("torchscript", "aoti")}
"""Of the backends that have several ways to run a network."""
COMPILED = ("tensorrt", "torch", "onnxruntime")
"""The backends that run what was built of a bundle in place of its ONNX graphs, or of one of them."""

_AUTO = {"cpu": "openvino", "cuda": "onnxruntime"}  # the backend that "auto" is on a device

_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt_cu13_libs", "tensorrt_cu12_libs"),
}
"""The distributions that may have installed a runtime, where that is not its import name alone."""

_PACKAGES = {"tensorrt": "tensorrt_libs"}
"""The package that holds a runtime's libraries, where that is not the one of its name."""


@dataclass(frozen=True)
class Runtime:
    """One inference runtime as pip installed it: its name is the backend's, and what Python imports.

    `distribution` is what was installed, or what to `pip install`; version and folder are "" and None where it is
    missing.
    """

    name: str
    distribution: str
    version: str
    folder: Path | None

    @property
    def reason(self) -> str:
        """The reason why the runtime can't be used, and the remedy; "" where its packages are there."""
        # The system may have TensorRT as well as pip: without a package the loader looks, and says what it misses.
        there = self.folder or self.name == "tensorrt"
        return "" if there else f"{self.name} is not installed: pip install {self.distribution}"


def find_runtime(name: str = "openvino") -> Runtime:
    """Look for an installed runtime by its import name; never raises and never imports it."""
    try:
        spec = util.find_spec(_PACKAGES.get(name, name))
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    distributions = _DISTRIBUTIONS.get(name, (name,))
    folder = Path(folders[0]) if folders else None
    for distribution in distributions:
        try:
            return Runtime(name, distribution, metadata.version(distribution), folder)
        except metadata.PackageNotFoundError:
            continue
    return Runtime(name, distributions[0], "", folder)


@dataclass(frozen=True)
class Choice:
    """The device, backend and precision of a run, after "auto" has been decided."""

    device: str  # "cpu" or "cuda:N"
    backend: str  # one of `BACKENDS`
    precision: str  # one of `PRECISIONS`, for the core to grant or refuse
    runtime_dir: str  # the runtime's folder, for the core to open
    provider: str = ""  # ONNX Runtime's execution provider, or the kind of torch's engines; "" leaves it to the backend
    # Passed to the provider as they are; torch has cuda_graph alone, "0" records nothing.
    provider_options: Mapping[str, str] = field(default_factory=dict)
    compiled: str = ""  # the folder of the bundle's compiled engines; "" is this machine's cache
    trust: bool = False  # the user vouches for whoever made the engines in that folder (`x2ct.runtimes.cache.cache`)


def choose(
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    provider: str = "",
    provider_options: Mapping[str, str] | None = None,
    compiled: str = "",
    trust: bool = False,
) -> Choice:
    """Decide what to run on, or say why what was asked for can't be had; nothing falls back silently.

    The arguments are the fields of `Choice`. The device "auto" is the CPU, "cuda" its first GPU; the backend "auto" is
    OpenVINO, and ONNX Runtime on CUDA. Raises InputError for a name that no version of x2ct knows, MissingRuntimeError
    for a device or runtime that is known and not here.
    """
    for option, name, known in (("--backend", backend, BACKENDS), ("--precision", precision, PRECISIONS)):
        if name not in known:
            raise InputError.unknown(option, "name", found=name, known=known, expected=", ".join(known))
    if (provider or provider_options) and backend not in PROVIDERS:
        raise InputError.of("--provider", "backend", found=backend, expected=" or ".join(PROVIDERS))
    if provider and provider not in PROVIDERS[backend]:
        raise InputError.of("--provider", "name", found=repr(provider), expected=", ".join(PROVIDERS[backend]))
    if (compiled or trust) and backend not in COMPILED:
        raise InputError.of("--compiled", "backend", found=backend, expected=", ".join(COMPILED))
    chosen = choose_device(device)
    runtime = find_runtime(_AUTO[chosen.partition(":")[0]] if backend == "auto" else backend)
    if chosen != "cpu" and runtime.name == "openvino":
        raise MissingRuntimeError(f"device {device}: {runtime.name} runs on CPUs; use another backend, or auto")
    if runtime.reason:
        status = backend_status(runtime.name)  # to install a runtime is no use to a build that could not open it
        raise MissingRuntimeError(f"backend {runtime.name}: {runtime.reason}" if status["built"] else status["reason"])
    options = dict(provider_options or {})
    return Choice(chosen, runtime.name, precision, str(runtime.folder or ""), provider, options, compiled, trust)


def choose_device(device: str) -> str:
    """Return a device's full name, "cpu" or "cuda:N"; "auto" is the CPU. Raises as `choose`."""
    kind, _, index = device.partition(":")
    if kind not in DEVICES or (index and not (kind == "cuda" and index.isdigit())):
        raise InputError.of("--device", "name", found=repr(device), expected="auto, cpu, cuda or cuda:N")
    if kind != "cuda":
        return "cpu"
    names = gpu_names()
    if int(index or 0) >= len(names):
        raise MissingRuntimeError(f"device cuda:{index}: found {len(names)} of them, cuda:0 being the first")
    return f"cuda:{int(index or 0)}"


def gpu_names() -> list[str]:
    """Return the names of the GPUs that are here. Raises MissingRuntimeError, which says why there are none."""
    from x2ct import _core

    [status] = (one for one in _core.devices() if one["name"] == "cuda")
    if not status["available"]:
        raise MissingRuntimeError(status["reason"])
    return list(status["found"])


def backend_status(name: str) -> dict[str, Any]:
    """Return what the core says of a backend with the runtime that is installed, see `_core.backends`."""
    from x2ct import _core

    folder = find_runtime(name).folder
    [status] = (one for one in _core.backends({name: str(folder)} if folder else {}) if one["name"] == name)
    return dict(status)


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_bytes(text: str) -> int:
    """Return a size such as "2GB", "1.5 GiB" or "800M", in bytes. Raises InputError."""
    size = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if size is None or size[2] not in _UNITS or float(size[1]) <= 0:
        raise InputError.of("--memory", "value", found=repr(text), expected="a size, such as 2GB or 800MiB")
    return int(float(size[1]) * _UNITS[size[2]])
