"""The cases that are measured, one a row, and the sweeps that make them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from x2ct import _core
from x2ct.errors import InputError
from x2ct.runtimes.discovery import BACKENDS, DEVICES, PRECISIONS, find_runtime, parse_bytes

PLAIN = ("pytorch-eager", "pytorch-compiled")
"""The plain PyTorch loop: no backend of the core, and a row like any other."""

EDM: dict[str, Any] = {"solver": "heun", "schedule": "edm", "steps": 18}
"""EDM's defaults (Karras et al. 2022): 18 steps of deterministic Heun, 35 evaluations."""


@dataclass(frozen=True)
class Case:
    """One row. None and "auto" leave a choice to the model or to the runtime."""

    backend: str = "auto"  # one of the core's, or one of `PLAIN`
    precision: str = "auto"  # of the denoiser
    device: str = "auto"
    provider: str = ""  # of the backends that have several ways to run a network; "" is the backend's own choice
    grid: tuple[int, int, int] | None = None  # voxels along x, y, z, whose size is the model's
    steps: int | None = None
    solver: str | None = None
    schedule: str | None = None
    batch: int = 1  # samples of one run, which the core takes one after another
    threads: int = 0  # 0 leaves it to the runtime
    tiles: int | None = None  # bytes that the process may take; None is the whole volume where the memory allows it
    halo: int | None = None  # of the tiles, in voxels

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

    def text(case: Case, name: str) -> str:
        value = getattr(case, name)
        if name == "tiles":
            return f"{value / 2**30:.3g}GiB" if value else "whole"
        return "model" if value is None else "x".join(map(str, value)) if name == "grid" else str(value)

    def label(case: Case) -> str:
        names = [name for name in shown if not case.plain or name in ("grid", "threads")]
        return " ".join([case.backend, case.precision, *(f"{name}={text(case, name)}" for name in names)])

    return [label(case) for case in cases]


def _parsed(key: str, text: str) -> Any:
    """Return a swept value. Raises ValueError that says what is expected."""
    if key in _NAMES and text.partition(":")[0] not in _NAMES[key]:
        raise ValueError(", ".join(_NAMES[key]))
    if key in _LEAST:
        if not text.isdigit() or int(text) < _LEAST[key]:
            raise ValueError(f"a whole number from {_LEAST[key]}")
        return int(text)
    if key == "grid":
        sides = text.split("x")
        if len(sides) not in (1, 3) or not all(side.isdigit() and int(side) for side in sides):
            raise ValueError("voxels of a cube's side, or XxYxZ")
        return tuple(map(int, sides * 3 if len(sides) == 1 else sides))
    if key != "tiles":
        return text
    try:
        return None if text == "whole" else parse_bytes(text)
    except InputError:
        raise ValueError("whole, or a size such as 2GiB") from None


def cases_of(sweeps: Sequence[str], threads: int = 0, plain: bool = True) -> list[Case]:
    """Return all combinations of what is swept; without backends or precisions, of all that are here.

    Sweeps are texts KEY=VALUE,VALUE..., each key once; `threads` are the runtimes' where they are not swept. `plain`
    adds the PyTorch loop, eager and compiled, for each grid and number of threads; it runs on CPUs alone, and is left
    out where the first device is another. Raises InputError: an unknown key, a key or a value twice, or a value that
    the key can't have.
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
    kind = "cuda" if swept.get("device", ["cpu"])[0].startswith("cuda") else "cpu"
    if "backend" in swept or "precision" in swept:
        pairs = list(itertools.product(swept.pop("backend", ["auto"]), swept.pop("precision", ["auto"])))
    else:
        pairs = _here(kind)
    others = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]

    def row(backend: str, precision: str, other: dict[str, Any]) -> Case:
        own = {"grid": other.get("grid"), "threads": other["threads"], **EDM} if backend in PLAIN else other
        return Case(backend=backend, precision=precision, **own)

    rows = [row(*pair, other) for other in others for pair in pairs]
    rows += [row(backend, "f32", other) for other in others for backend in PLAIN if plain and kind == "cpu"]
    return list(dict.fromkeys(rows))


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
