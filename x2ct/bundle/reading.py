"""model.json read field by field; every complaint names the file and the field."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

from x2ct.bundle.contract import check_contract
from x2ct.bundle.manifest import (
    MANIFEST,
    SCHEMA,
    Diffusion,
    File,
    Manifest,
    Network,
    Networks,
    Patch,
    XRaySpec,
)
from x2ct.errors import InputError
from x2ct.fields import Fields, parse, shown
from x2ct.geometry import Geometry
from x2ct.grid import Grid
from x2ct.intensity import Intensity
from x2ct.onnxfile import Tensor

MAX_FILE_BYTES = (2 << 30) - 1
"""The largest graph: protobuf's own limit of one message."""

_VOXELS = 1 << 30
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_FILE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_NODE = r"/?[A-Za-z0-9][A-Za-z0-9/._-]{0,126}"
_WORD = r"[a-z0-9][a-z0-9+-]{0,31}"  # a schedule or solver; the core knows which exist
_DTYPES = "float32|float16|bfloat16|int64"


def read_manifest(path: Path, data: bytes) -> tuple[Manifest, dict[str, File]]:
    """The manifest that a model.json holds, and size and SHA-256 of each file that it lists.

    Args:
        path: the file, as messages name it.
        data: its bytes.

    Raises:
        InputError: not JSON; a field is missing, of the wrong type or value, or contradicts another.
    """
    fields = parse(path, data)
    schema = fields.raw("schema", str(SCHEMA))
    if isinstance(schema, bool) or schema != SCHEMA:
        fields.fail(
            "schema", expected=SCHEMA, hint="written by another version of x2ct; update x2ct or export the model again"
        )
    manifest, files = _read_manifest(fields), _read_files(fields)
    fields.close()
    for name, network in manifest.networks.items():
        if network.file not in files:
            fields.fail(
                f"networks.{name}.file", found=network.file, expected=f"a file listed in files ({', '.join(files)})"
            )
    return manifest, files


def listed_files(path: Path, data: bytes) -> set[str]:
    """The names under `files` in a model.json that need not be right otherwise.

    Raises:
        InputError: it is none.
    """
    return set(parse(path, data).section("files").keys())


def _read_manifest(fields: Fields) -> Manifest:
    xray = _read_xray(fields.section("xray"))
    geometry = _read_geometry(fields, xray)
    patch = _read_patch(fields.section("patch"))
    grid = _read_grid(fields.section("grid"), patch.stride)
    for i, size in enumerate(patch.sizes):
        if any(extent > whole for extent, whole in zip(size, grid.shape, strict=True)):
            fields.fail(f"patch.sizes[{i}]", found=list(size), expected=f"at most the grid's {list(grid.shape)}")
    networks = _read_networks(fields.section("networks"))
    check_contract(fields, networks, len(geometry.views), xray.shape)
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
        xray_statistics=_read_statistics(fields.section("xray_statistics")) if "xray_statistics" in fields else {},
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
            _read_ranges(section.section("int8")) if name == "denoiser" and "int8" in section else {},
        )
        section.close()
    fields.close()
    return Networks(found["encoder"], found["lift"], found["denoiser"])


def _read_ranges(fields: Fields) -> dict[str, tuple[float, float]]:
    found = {}
    for name in fields.keys():  # noqa: SIM118
        if not re.fullmatch(_NODE, name):
            fields.fail(name, found=shown(name), expected="names of the graph's convolutions as keys")
        low, high = fields.numbers(name, 2, 2, -1e6, 1e6)
        if low > 0 or high < 0 or low == high:
            fields.fail(name, found=[low, high], expected="the least value and the largest, with 0 between them")
        found[name] = low, high
    if not found:
        fields.fail("keys", found="none", expected="names of the graph's convolutions")
    return found


def _read_statistics(fields: Fields) -> dict[str, tuple[float, ...]]:
    return {name: fields.numbers(name, 1, 65_536, -1e12, 1e12) for name in fields.keys()}  # noqa: SIM118


def _file_name(fields: Fields, key: str) -> str:
    return fields.text(key, "a plain file name inside the bundle, without '/' or '..'", _FILE)


def _read_tensors(fields: Fields, key: str) -> tuple[Tensor, ...]:
    tensors = []
    for section in fields.sections(key, 1, 32):
        name = section.text("name", "a tensor's name", r"[A-Za-z_][A-Za-z0-9_]{0,63}")
        tensors.append(Tensor(name, section.text("dtype", _DTYPES, _DTYPES), section.extents("shape", 1, 8)))
        section.close()
    return tuple(tensors)


def _read_files(fields: Fields) -> dict[str, File]:
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
