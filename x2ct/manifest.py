"""The schema of a bundle's model.json: typed, and checked field by field on reading.

Schema 1. A field that is not named here is refused; lengths are in mm, x is the network's unit.

| field               | meaning                                                                                      |
|---------------------|----------------------------------------------------------------------------------------------|
| schema              | 1                                                                                            |
| name, x2ct, created | the bundle's name; the version of x2ct that wrote it; when, ISO 8601 in UTC                  |
| grid                | shape [X, Y, Z] in voxels and spacing_mm [x, y, z] of the volumes it makes                   |
| intensity           | hu and x: the knots of the piecewise linear map between HU and x                             |
| xray                | shape [H, W] and spacing_mm [row, column] of the encoder's images; reference_p99: the        |
|                     | training images' median 99th percentile (line integrals)                                     |
| geometry            | the default views, one per slot (0 frontal, 1 lateral), as `Geometry.to_json` writes them    |
| diffusion           | sigma_data, sigma_min, sigma_max (in x); schedule, solver and steps: what to sample with;    |
|                     | schedules, where `x2ct tune` was run: number of steps -> its noise levels, first to last     |
| patch               | sizes [[X, Y, Z], ...] trained on and their probabilities; stride: what origins and          |
|                     | extents of a patch are multiples of, in voxels                                               |
| networks            | encoder, lift, denoiser: file; inputs and outputs as name, dtype and shape (an extent, or    |
|                     | the name of a free one: N the batch, X Y Z the patch); receptive_radius in voxels, of the   |
|                     | denoiser and, where it is known, the lift                                                    |
| parity              | what `x2ct.export` measured: the weights' type, tolerances, and a row per graph, runtime,    |
|                     | sigma and shape                                                                              |
| provenance          | free: data, compute, date, figures, training configuration                                   |
| files               | sha256 and bytes of each file                                                                |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from x2ct.errors import InputError
from x2ct.fields import Fields, Json, shown
from x2ct.geometry import Geometry
from x2ct.grid import Grid
from x2ct.intensity import Intensity
from x2ct.onnxfile import Tensor

SCHEMA = 1
MANIFEST = "model.json"
MAX_FILE_BYTES = (2 << 30) - 1
"""The largest graph: protobuf's own limit of one message."""

_VOXELS = 1 << 30
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_FILE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_WORD = r"[a-z0-9][a-z0-9+-]{0,31}"  # a schedule or solver; the core knows which exist
_DTYPES = "float32|float16|bfloat16|int64"


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
    before `schedule` where the number of steps is theirs.
    """

    sigma_data: float
    sigma_min: float
    sigma_max: float
    schedule: str
    solver: str
    steps: int
    schedules: Mapping[int, tuple[float, ...]] = field(default_factory=dict)


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
    """

    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    receptive_radius: int | None = None


@dataclass(frozen=True)
class Networks:
    """The three graphs."""

    encoder: Network
    lift: Network
    denoiser: Network

    def items(self) -> tuple[tuple[str, Network], ...]:
        """Names and graphs, in the order in which they run."""
        return ("encoder", self.encoder), ("lift", self.lift), ("denoiser", self.denoiser)


@dataclass(frozen=True)
class File:
    """A file's SHA-256 in hexadecimal and its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What model.json says, but for the checksums: see the module's table."""

    name: str
    version: str
    created: str
    grid: Grid
    intensity: Intensity
    xray: XRaySpec
    geometry: Geometry
    diffusion: Diffusion
    patch: Patch
    networks: Networks
    parity: Mapping[str, Json]
    provenance: Mapping[str, Json]

    def to_json(self) -> dict[str, Json]:
        """The content of model.json without `files`."""

        def network(spec: Network) -> dict[str, Json]:
            radius = {} if spec.receptive_radius is None else {"receptive_radius": spec.receptive_radius}
            return {
                "file": spec.file,
                "inputs": [_tensor_json(tensor) for tensor in spec.inputs],
                "outputs": [_tensor_json(tensor) for tensor in spec.outputs],
                **radius,
            }

        diffusion = self.diffusion
        return {
            "schema": SCHEMA,
            "name": self.name,
            "x2ct": self.version,
            "created": self.created,
            "grid": {"shape": list(self.grid.shape), "spacing_mm": list(self.grid.spacing_mm)},
            "intensity": {"hu": list(self.intensity.hu), "x": list(self.intensity.x)},
            "xray": {
                "shape": list(self.xray.shape),
                "spacing_mm": list(self.xray.spacing_mm),
                "reference_p99": list(self.xray.reference_p99),
            },
            "geometry": self.geometry.to_json(),
            "diffusion": {
                "sigma_data": diffusion.sigma_data,
                "sigma_min": diffusion.sigma_min,
                "sigma_max": diffusion.sigma_max,
                "schedule": diffusion.schedule,
                "solver": diffusion.solver,
                "steps": diffusion.steps,
                **_schedules_json(diffusion),
            },
            "patch": {
                "sizes": [list(size) for size in self.patch.sizes],
                "probabilities": list(self.patch.probabilities),
                "stride": self.patch.stride,
            },
            "networks": {
                "encoder": network(self.networks.encoder),
                "lift": network(self.networks.lift),
                "denoiser": network(self.networks.denoiser),
            },
            "parity": dict(self.parity),
            "provenance": dict(self.provenance),
        }


def read_manifest(fields: Fields) -> Manifest:
    """The manifest that model.json holds, all but `files`.

    Raises:
        InputError: a field is missing, of the wrong type or value, or contradicts another.
    """
    xray = _read_xray(fields.section("xray"))
    geometry = _read_geometry(fields, xray)
    patch = _read_patch(fields.section("patch"))
    grid = _read_grid(fields.section("grid"), patch.stride)
    for i, size in enumerate(patch.sizes):
        if any(extent > whole for extent, whole in zip(size, grid.shape, strict=True)):
            fields.fail(f"patch.sizes[{i}]", found=list(size), expected=f"at most the grid's {list(grid.shape)}")
    networks = _read_networks(fields.section("networks"))
    _check_contract(fields, networks, len(geometry.views), xray.shape)
    return Manifest(
        name=fields.text("name", "letters, digits, '.', '_' and '-', at most 64", _NAME),
        version=fields.text("x2ct", "a version"),
        created=fields.text("created", "a date and time"),
        grid=grid,
        intensity=_read_intensity(fields),
        xray=xray,
        geometry=geometry,
        diffusion=_read_diffusion(fields.section("diffusion")),
        patch=patch,
        networks=networks,
        parity=fields.mapping("parity"),
        provenance=fields.mapping("provenance"),
    )


def _read_grid(fields: Fields, stride: int) -> Grid:
    x, y, z = fields.integers("shape", 3, 8, 4096)
    if x * y * z > _VOXELS:
        fields.fail("shape", expected=f"at most {_VOXELS} voxels")
    if x % stride or y % stride or z % stride:
        fields.fail("shape", expected=f"multiples of the stride {stride}")
    sx, sy, sz = fields.numbers("spacing_mm", 3, 3, 0.01, 100)
    fields.close()
    return Grid((x, y, z), (sx, sy, sz))


def _read_intensity(fields: Fields) -> Intensity:
    section = fields.section("intensity")
    hu, x = section.numbers("hu", 2, 64, -10_000, 100_000), section.numbers("x", 2, 64, -1, 1)
    section.close()
    try:
        return Intensity(hu, x)
    except InputError as error:
        raise InputError(f"{fields.source}: {error}") from None


def _read_xray(fields: Fields) -> XRaySpec:
    rows, columns = fields.integers("shape", 2, 8, 8192)
    down, across = fields.numbers("spacing_mm", 2, 2, 0.01, 100)
    reference = fields.numbers("reference_p99", 1, 16, 0.01, 1000)
    fields.close()
    return XRaySpec((rows, columns), (down, across), reference)


def _read_geometry(fields: Fields, xray: XRaySpec) -> Geometry:
    geometry = Geometry.from_json(fields.section("geometry"))
    if len(xray.reference_p99) != len(geometry.views):
        fields.fail(
            "xray.reference_p99",
            found=list(xray.reference_p99),
            expected=f"one for each of {len(geometry.views)} views",
        )
    for i, view in enumerate(geometry.views):
        if tuple(view.shape) != xray.shape:
            fields.fail(f"geometry.views[{i}].shape", found=list(view.shape), expected=f"xray.shape {list(xray.shape)}")
    return geometry


def _read_diffusion(fields: Fields) -> Diffusion:
    low = fields.number("sigma_min", 1e-6, 1e6)
    found = Diffusion(
        sigma_data=fields.number("sigma_data", 1e-3, 1e3),
        sigma_min=low,
        sigma_max=fields.number("sigma_max", 1e-6, 1e6),
        schedule=fields.text("schedule", "a schedule's name", _WORD),
        solver=fields.text("solver", "a solver's name", _WORD),
        steps=fields.integer("steps", 1, 10_000),
    )
    if found.sigma_max <= low:
        fields.fail("sigma_max", expected=f"more than sigma_min, {low:g}")
    if "schedules" in fields.keys():  # noqa: SIM118
        found = replace(found, schedules=_read_schedules(fields.section("schedules"), found))
    fields.close()
    return found


def _read_schedules(fields: Fields, diffusion: Diffusion) -> dict[int, tuple[float, ...]]:
    low, high = diffusion.sigma_min, diffusion.sigma_max
    found = {}
    for key in fields.keys():  # noqa: SIM118
        if not re.fullmatch("[1-9][0-9]{0,2}", key):
            fields.fail(key, found=shown(key), expected="numbers of steps, 1 to 999, as keys")
        count = int(key)
        sigmas = fields.numbers(key, count, count, low, high)
        falls = all(after < before for before, after in zip(sigmas, sigmas[1:], strict=False))
        if not falls or sigmas[0] != high or (count > 1 and sigmas[-1] != low):
            fields.fail(key, expected=f"falling numbers from sigma_max, {high:g}, to sigma_min, {low:g}")
        found[count] = sigmas
    return found


def _schedules_json(diffusion: Diffusion) -> dict[str, Json]:
    """The tuned schedules as a field; none where there are none, as in bundles from before there were any."""
    lists: dict[str, Json] = {str(count): list(sigmas) for count, sigmas in sorted(diffusion.schedules.items())}
    return {"schedules": lists} if lists else {}


def _read_patch(fields: Fields) -> Patch:
    stride = fields.integer("stride", 1, 64)
    sizes = fields.rows("sizes", 1, 32, 3, 8, 4096)
    for size in sizes:
        if any(extent % stride for extent in size):
            fields.fail("sizes", found=list(size), expected=f"multiples of the stride {stride}")
    probabilities = fields.numbers("probabilities", len(sizes), len(sizes), 0, 1)
    if not math.isclose(sum(probabilities), 1, abs_tol=1e-3):
        fields.fail("probabilities", expected="a sum of 1")
    fields.close()
    return Patch(tuple((x, y, z) for x, y, z in sizes), probabilities, stride)


def _read_networks(fields: Fields) -> Networks:
    found = dict[str, Network]()
    for name in ("encoder", "lift", "denoiser"):
        section = fields.section(name)
        # An encoder sees the whole image; a lift that came before its radius was told is unknown.
        told = name == "denoiser" or (name == "lift" and "receptive_radius" in section)
        found[name] = Network(
            _file_name(section, "file"),
            _read_tensors(section, "inputs"),
            _read_tensors(section, "outputs"),
            section.integer("receptive_radius", 0, 4096) if told else None,
        )
        section.close()
    fields.close()
    return Networks(found["encoder"], found["lift"], found["denoiser"])


def _file_name(fields: Fields, key: str) -> str:
    return fields.text(key, "a plain file name inside the bundle, without '/' or '..'", _FILE)


def _read_tensors(fields: Fields, key: str) -> tuple[Tensor, ...]:
    tensors = []
    for section in fields.sections(key, 1, 32):
        name = section.text("name", "a tensor's name", r"[A-Za-z_][A-Za-z0-9_]{0,63}")
        tensors.append(Tensor(name, section.text("dtype", _DTYPES, _DTYPES), section.extents("shape", 1, 8)))
        section.close()
    return tuple(tensors)


def _tensor_json(tensor: Tensor) -> dict[str, Json]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _check_contract(fields: Fields, networks: Networks, views: int, detector: tuple[int, int]) -> None:
    """The three graphs fit together as DESIGN fixes it: condition once, denoise many times."""
    conditions = tuple(tensor.name for tensor in networks.lift.outputs)
    expected = {
        "encoder.inputs": (networks.encoder.inputs, ("views", "valid")),
        "encoder.outputs": (networks.encoder.outputs, ("features",)),
        "lift.inputs": (networks.lift.inputs, ("features", "P", "coords", "valid")),
        "lift.outputs": (networks.lift.outputs, tuple(f"c{i}" for i in range(len(conditions)))),
        "denoiser.inputs": (networks.denoiser.inputs, ("x", "sigma", *conditions)),
        "denoiser.outputs": (networks.denoiser.outputs, ("denoised",)),
    }
    for where, (tensors, names) in expected.items():
        if (found := tuple(tensor.name for tensor in tensors)) != names:
            fields.fail(f"networks.{where}", found=", ".join(found), expected=", ".join(names))
        for tensor in tensors:
            if tensor.dtype != "float32":
                fields.fail(f"networks.{where}.{tensor.name}.dtype", found=tensor.dtype, expected="float32")
    for before, after, first in ((networks.encoder, networks.lift, 0), (networks.lift, networks.denoiser, 2)):
        for given, taken in zip(before.outputs, after.inputs[first:], strict=False):
            # The first axis is the batch, which only the denoiser may leave free.
            if given.shape[1:] != taken.shape[1:]:
                where = f"networks.{'lift' if after is networks.lift else 'denoiser'}.inputs.{taken.name}.shape"
                fields.fail(where, found=list(taken.shape), expected=f"what comes before gives, {list(given.shape)}")
    shape = networks.encoder.inputs[0].shape
    if shape != (1, views, 1, *detector):
        wanted = f"{[1, views, 1, *detector]}, from geometry and xray"
        fields.fail("networks.encoder.inputs.views.shape", found=list(shape), expected=wanted)


def read_files(fields: Fields) -> dict[str, File]:
    """Size and SHA-256 of each file that model.json lists.

    Raises:
        InputError: as `read_manifest`.
    """
    section = fields.section("files")
    found = {}
    for name in section.keys():  # noqa: SIM118
        entry = section.section(name)
        if not name or name == MANIFEST or Path(name).name != name or name.startswith("."):
            fields.fail("files", found=shown(name), expected="plain file names inside the bundle, without '/' or '..'")
        found[name] = File(
            entry.text("sha256", "64 hexadecimal digits", "[0-9a-f]{64}"), entry.integer("bytes", 1, MAX_FILE_BYTES)
        )
        entry.close()
    return found
