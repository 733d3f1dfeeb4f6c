"""What is measured: one case a row, and the sweeps that make rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from x2ct import _core, memory
from x2ct.errors import InputError
from x2ct.runtimes import BACKENDS, DEVICES, PRECISIONS, find_runtime

PLAIN = ("pytorch-eager", "pytorch-compiled")
"""The plain PyTorch loop: no backend of the core, and a row like any other."""

EDM: dict[str, Any] = {"solver": "heun", "schedule": "edm", "steps": 18}
"""EDM's defaults (Karras et al. 2022): 18 steps of deterministic Heun, 35 evaluations."""

_REFERENCE: dict[str, Any] = {"backend": "openvino", "precision": "f32", "device": "cpu", "provider": ""}
_REFERENCE |= {"tiles": None, "halo": None}


@dataclass(frozen=True)
class Case:
    """One row. What is None or "auto" is the model's or the runtime's own.

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
            memory lets it.
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
        """Whether it is the PyTorch loop."""
        return self.backend in PLAIN

    @property
    def task(self) -> Case:
        """What is computed, whoever computes it: rows of one task are to give one volume."""
        return replace(self, threads=0, **_REFERENCE)

    @property
    def is_reference(self) -> bool:
        """Whether it computes its task the plain way: OpenVINO, f32, on the CPU, whole."""
        device, backend = ("cpu" if self.device == "auto" else self.device), self.backend
        asked = replace(self, device=device, backend="openvino" if backend == "auto" else backend, threads=0)
        return asked == self.task

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Case:
        """Back from `to_json`."""
        grid = data.get("grid")
        return cls(**{**data, "grid": tuple(grid) if grid else None})


def labels(cases: Sequence[Case]) -> list[str]:
    """A name for each: backend and precision, and whatever else is not the same in all or not left to itself."""
    plain = Case()

    def told(field: str) -> bool:
        values = {getattr(case, field) for case in cases if not case.plain}
        return len(values) > 1 or (field != "threads" and values != {getattr(plain, field)} and bool(values))

    shown = [field.name for field in fields(Case) if field.name not in ("backend", "precision") and told(field.name)]

    def label(case: Case) -> str:
        own = ["grid", "threads"] if case.plain else shown
        extra = [f"{name}={_shown(name, getattr(case, name))}" for name in shown if name in own]
        return " ".join([case.backend, case.precision, *extra])

    return [label(case) for case in cases]


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "whole" if name == "tiles" else "model"
    if name == "grid":
        return "x".join(map(str, value))
    return f"{value / 2**30:.3g}GiB" if name == "tiles" else str(value)


# ------------------------------------------------------------------------------------------------ sweeps


def _one_of(known: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.partition(":")[0] not in known:
            raise ValueError(", ".join(known))
        return text

    return parse


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise ValueError(f"a whole number from {least}")
        return int(text)

    return parse


def _grid(text: str) -> tuple[int, int, int]:
    parts = text.split("x")
    if len(parts) not in (1, 3) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError("voxels of a cube's side, or XxYxZ")
    x, y, z = (int(part) for part in (parts * 3 if len(parts) == 1 else parts))
    return x, y, z


def _tiles(text: str) -> int | None:
    return None if text == "whole" else memory.parse_bytes(text)


_KEYS: dict[str, Callable[[str], Any]] = {
    "backend": _one_of((*BACKENDS, *PLAIN)),
    "precision": _one_of(PRECISIONS),
    "device": _one_of(DEVICES),
    "provider": str,
    "grid": _grid,
    "steps": _whole(1),
    "solver": str,
    "schedule": str,
    "batch": _whole(1),
    "threads": _whole(0),
    "tiles": _tiles,
    "halo": _whole(0),
}
KEYS = tuple(_KEYS)


def parse_sweep(text: str) -> tuple[str, tuple[Any, ...]]:
    """KEY=VALUE,VALUE... of `--sweep`.

    Raises:
        InputError: no such key, or a value that it can't have.
    """
    key, equals, values = text.partition("=")
    if not equals or key not in _KEYS:
        raise InputError.of("--sweep", "key", found=repr(text), expected=f"KEY=VALUE,... with KEY {' or '.join(_KEYS)}")
    found = []
    for value in values.split(","):
        try:
            found.append(_KEYS[key](value.strip()))
        except ValueError as error:
            raise InputError.of("--sweep", key, found=repr(value), expected=error) from None
        except InputError:
            raise InputError.of("--sweep", key, found=repr(value), expected="whole, or a size such as 2GiB") from None
    if len(set(found)) < len(found):
        raise InputError.of("--sweep", key, found=values, expected="each value once")
    return key, tuple(found)


def cases_of(sweeps: Sequence[str], threads: int = 0, plain: bool = True) -> list[Case]:
    """The rows: all combinations of what is swept.

    Without a sweep of backends or precisions these are all that are here. The PyTorch loop, eager and compiled, is a
    row for each grid and number of threads.

    Args:
        sweeps: texts for `parse_sweep`.
        threads: where they are not swept.
        plain: whether PyTorch's rows are added.

    Raises:
        InputError: from `parse_sweep`, or a key twice.
    """
    asked: dict[str, tuple[Any, ...]] = {}
    for text in sweeps:
        key, values = parse_sweep(text)
        if key in asked:
            raise InputError.of("--sweep", key, found="it twice", expected="all its values in one")
        asked[key] = values
    asked.setdefault("threads", (threads,))
    if "backend" not in asked and "precision" not in asked:
        pairs = _here()
    else:
        pairs = list(itertools.product(asked.pop("backend", ("auto",)), asked.pop("precision", ("auto",))))
    others = [dict(zip(asked, values, strict=True)) for values in itertools.product(*asked.values())]
    rows = [_case(backend, precision, other) for other in others for backend, precision in pairs]
    if plain:
        rows += [
            Case(backend=backend, precision="f32", grid=other.get("grid"), threads=other["threads"], **EDM)
            for other in others
            for backend in PLAIN
        ]
    return list(dict.fromkeys(rows))


def _case(backend: str, precision: str, other: dict[str, Any]) -> Case:
    if backend in PLAIN:
        return Case(backend=backend, precision=precision, grid=other.get("grid"), threads=other["threads"], **EDM)
    return Case(backend=backend, precision=precision, **other)


def _here() -> list[tuple[str, str]]:
    """Each backend that is here, with each precision that it says the processor has; f32 of the first comes first."""
    folders = {name: str(find_runtime(name).folder or "") for name in BACKENDS if name != "auto"}
    found = [
        (one["name"], precision)
        for one in _core.backends(folders)
        if one["available"] and folders.get(one["name"])
        for precision in one["precisions"].get("cpu", [])
    ]
    return sorted(found, key=lambda pair: pair != ("openvino", "f32")) or [("auto", "auto")]
