"""The schema of a bundle's model.json as types; the core (csrc/core/manifest.cpp) reads and checks it.

Schema 1, field by field, is in docs/bundle.md. Lengths are in mm, x is the network's unit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from x2ct._core import BUNDLE_SCHEMA
from x2ct.bundle.intensity import Intensity
from x2ct.files.text import Json
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid

MANIFEST = "model.json"


@dataclass(frozen=True)
class Tensor:
    """A network's input or output."""

    name: str
    dtype: str  # "float32", "float16", ...
    shape: tuple[int | str, ...]  # for each axis an extent, or the name of a free one ("N", "X", "X/2")

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(str(extent) for extent in self.shape)}]"


@dataclass(frozen=True)
class XRaySpec:
    """The encoder's images: shape (rows, columns), spacing_mm (row, column), and each view's median 99th percentile."""

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    reference_p99: tuple[float, ...]


@dataclass(frozen=True)
class Diffusion:
    """The noise level's range and the data's standard deviation, in x; what to sample with by default.

    `schedules` are the noise levels that `x2ct tune` found, by their number: sigma_max first, sigma_min last. They go
    before `schedule` where the number of steps is theirs; bundles from before there were any have no such field.
    `deviation_scale` is what `x2ct calibrate` found for the model's own solver and noise levels: by the number of
    steps, the factor that brings the samples' standard deviation up to the error of validation patients. `mirror`:
    training showed patients' mirror images too, and the posterior mean is that of the patient's and the mirror image's.
    """

    sigma_data: float
    sigma_min: float
    sigma_max: float
    schedule: str
    solver: str
    steps: int
    schedules: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    deviation_scale: Mapping[int, float] = field(default_factory=dict)
    mirror: bool = False


@dataclass(frozen=True)
class Patch:
    """The patch sizes (X, Y, Z) trained on, how often each, and the stride of origins and extents; in voxels."""

    sizes: tuple[tuple[int, int, int], ...]
    probabilities: tuple[float, ...]
    stride: int


@dataclass(frozen=True)
class Network:
    """One graph: its file, its inputs and outputs in order, and how far in voxels its output looks at its input.

    The lift's and the denoiser's radius is what a tile needs as its halo. None is unknown: only the whole will do.
    `int8` is what `x2ct quantize` found for the denoiser: by the name of a convolution that may compute in 8 bits, the
    least value and the largest of what it is given.
    """

    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    receptive_radius: int | None = None
    int8: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Networks:
    """The three graphs."""

    encoder: Network
    lift: Network
    denoiser: Network

    def items(self) -> tuple[tuple[str, Network], ...]:
        """Names and graphs, in the order in which they run."""
        return tuple(vars(self).items())


@dataclass(frozen=True)
class File:
    """A file's SHA-256 in hexadecimal and its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Description:
    """The description of a model, whatever its graphs are."""

    name: str
    grid: Grid
    intensity: Intensity
    xray: XRaySpec
    geometry: Geometry
    diffusion: Diffusion
    patch: Patch
    provenance: Mapping[str, Any]
    xray_statistics: Mapping[str, Any] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class Manifest(Description):
    """The content of model.json without the checksums: see docs/bundle.md."""

    version: str
    created: str
    networks: Networks
    parity: Mapping[str, Any]

    def to_json(self) -> dict[str, Json]:
        """The content of model.json without `files`."""
        return {
            "schema": BUNDLE_SCHEMA,
            "name": self.name,
            "x2ct": self.version,
            "created": self.created,
            **{name: _plain(getattr(self, name)) for name in ("grid", "intensity", "xray")},
            "geometry": self.geometry.to_json(),
            **{name: _plain(getattr(self, name)) for name in ("diffusion", "patch")},
            "networks": {name: _plain(network) for name, network in self.networks.items()},
            "parity": dict(self.parity),
            "provenance": dict(self.provenance),
            **({"xray_statistics": dict(self.xray_statistics)} if self.xray_statistics else {}),
        }


def _plain(part: Any) -> dict[str, Json]:
    """Return a dataclass as JSON has it: maps in the order of their keys, without the fields that are empty."""
    content = dataclasses.asdict(part)
    maps = {name: dict(sorted(value.items())) for name, value in content.items() if isinstance(value, dict)}
    plain: dict[str, Json] = json.loads(json.dumps(content | maps))
    return {name: value for name, value in plain.items() if value not in (None, {})}
