"""The cases that are measured, one a row, and the sweeps that make them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import msgspec

from x2ct import _core
from x2ct.errors import InputError
from x2ct.runtimes.discovery import BACKENDS, DEVICES, PRECISIONS, find_runtime, parse_bytes

PLAIN = ("pytorch-eager", "pytorch-compiled")
"""The plain PyTorch loop: no backend of the core, and a row like any other."""

EDM: dict[str, Any] = {"solver": "heun", "schedule": "edm", "steps": 18}
"""EDM's defaults (Karras et al. 2022): 18 steps of deterministic Heun, 35 evaluations."""


@dataclass(frozen=True)
class Case:
    """One row. None and "auto" leave a choice to the model or to the runtime.

    Attributes:
        backend: one of the core's, or one of `PLAIN`.
        precision: of the denoiser.
        device: where it runs.
        provider: of the backends that have several ways to run a network; "" is the backend's own choice.
        grid: (X, Y, Z) voxels; the voxels' size is the model's.
        steps, solver, schedule: of sampling.
        batch: samples of one run. The core takes them one after another.
        threads: of the runtime; 0 leaves it to the runtime.
        tiles: bytes that the process may take, by which the core chooses tiles; None is the whole volume where the free
            memory allows it.
        halo: of the tiles, in voxels.
    """

    backend: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    provider: str = ""
    grid: tuple[int, int, int] | None = None
    steps: int | None = None
    solver: str | None = None
    schedule: str | None = None
    batch: int = 1
    threads: int = 0
    tiles: int | None = None
    halo: int | None = None

    @property
    def plain(self) -> bool:
        """True for the PyTorch loop."""
        return self.backend in PLAIN

    @property
    def task(self) -> Case:
        """The reference case, OpenVINO f32 on the CPU and whole, of all rows that should give this row's volume."""
        reference = replace(self, backend="openvino", precision="f32", device="cpu", provider="")
        return replace(reference, threads=0, tiles=None, halo=None)

    @property
    def is_reference(self) -> bool:
        """True where this is its own task's reference."""
        device = "cpu" if self.device == "auto" else self.device
        backend = "openvino" if self.backend == "auto" else self.backend
        return replace(self, device=device, backend=backend, threads=0) == self.task

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Case:
        """Return the case that `to_json` wrote."""
        return msgspec.convert(data, cls)


KEYS = tuple(field.name for field in fields(Case))
_NAMES = {"backend": (*BACKENDS, *PLAIN), "precision": PRECISIONS, "device": DEVICES}
_LEAST = {"steps": 1, "batch": 1, "threads": 0, "halo": 0}


def labels(cases: Sequence[Case]) -> list[str]:
    """Return each case's name: backend, precision, and what differs between the cases or is not left to a default."""
    shown = []
    for field in fields(Case)[2:]:
        values = {getattr(case, field.name) for case in cases if not case.plain}
        if len(values) > 1 or (field.name != "threads" and values - {field.default}):
            shown.append(field.name)

    def label(case: Case) -> str:
        names = [name for name in shown if not case.plain or name in ("grid", "threads")]
        return " ".join([case.backend, case.precision, *(f"{name}={_shown(case, name)}" for name in names)])

    return [label(case) for case in cases]


def _shown(case: Case, name: str) -> str:
    value = getattr(case, name)
    if value is None:
        return "whole" if name == "tiles" else "model"
    if name == "grid":
        return "x".join(map(str, value))
    return f"{value / 2**30:.3g}GiB" if name == "tiles" else str(value)


def _parsed(key: str, text: str) -> Any:
    """Return a swept value. Raises ValueError that says what is expected."""
    if key in _NAMES and text.partition(":")[0] not in _NAMES[key]:
        raise ValueError(", ".join(_NAMES[key]))
    if key in _LEAST:
        if not text.isdigit() or int(text) < _LEAST[key]:
            raise ValueError(f"a whole number from {_LEAST[key]}")
        return int(text)
    if key == "grid":
        parts = text.split("x")
        if len(parts) not in (1, 3) or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise ValueError("voxels of a cube's side, or XxYxZ")
        return tuple(int(part) for part in (parts * 3 if len(parts) == 1 else parts))
    if key != "tiles":
        return text
    try:
        return None if text == "whole" else parse_bytes(text)
    except InputError:
        raise ValueError("whole, or a size such as 2GiB") from None


def cases_of(sweeps: Sequence[str], threads: int = 0, plain: bool = True) -> list[Case]:
    """Return all combinations of what is swept.

    Without a sweep of backends or precisions these are all that are here. The PyTorch loop, eager and compiled, is a
    row for each grid and number of threads; it runs on CPUs alone, and is left out where the first device is another.

    Args:
        sweeps: texts KEY=VALUE,VALUE..., each key once.
        threads: of the runtimes, where they are not swept.
        plain: whether to add PyTorch's rows.

    Raises:
        InputError: an unknown key, a key or a value twice, or a value that the key can't have.
    """
    swept: dict[str, list[Any]] = {}
    for text in sweeps:
        key, equals, values = text.partition("=")
        if not equals or key not in KEYS:
            expected = f"KEY=VALUE,... with KEY {' or '.join(KEYS)}"
            raise InputError.of("--sweep", "key", found=repr(text), expected=expected)
        if key in swept:
            raise InputError.of("--sweep", key, found="it twice", expected="all its values in one")
        swept[key] = []
        for value in values.split(","):
            try:
                swept[key].append(_parsed(key, value.strip()))
            except ValueError as error:
                raise InputError.of("--sweep", key, found=repr(value), expected=error) from None
        if len(set(swept[key])) < len(swept[key]):
            raise InputError.of("--sweep", key, found=values, expected="each value once")
    swept.setdefault("threads", [threads])
    kind = swept.get("device", ["cpu"])[0].partition(":")[0]
    if "backend" not in swept and "precision" not in swept:
        pairs = _here("cuda" if kind == "cuda" else "cpu")
    else:
        pairs = list(itertools.product(swept.pop("backend", ["auto"]), swept.pop("precision", ["auto"])))
    others = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    rows = [_case(backend, precision, other) for other in others for backend, precision in pairs]
    if plain and kind != "cuda":
        rows += [_case(backend, "f32", other) for other in others for backend in PLAIN]
    return list(dict.fromkeys(rows))


def _case(backend: str, precision: str, other: dict[str, Any]) -> Case:
    if backend in PLAIN:
        other = {"grid": other.get("grid"), "threads": other["threads"], **EDM}
    return Case(backend=backend, precision=precision, **other)


def _here(kind: str) -> list[tuple[str, str]]:
    """Return each backend that is here, with each precision that the device has; OpenVINO's f32 comes first."""
    folders = {name: str(find_runtime(name).folder or "") for name in BACKENDS if name != "auto"}
    pairs = [
        (backend["name"], precision)
        for backend in _core.backends(folders)
        if backend["available"] and folders.get(backend["name"])
        for precision in backend["precisions"].get(kind, [])
    ]
    return sorted(pairs, key=lambda pair: pair != ("openvino", "f32")) or [("auto", "auto")]
