"""x2ct without Python: the installed library, used from outside as somebody's product would, does what Python does.

The C interface is also called in this process, through ctypes. All faces share one reader, whose refusals
tests/test_bundle.py tries.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import x2ct
from tests import tiny_body, tiny_bundle
from tests.bundle_faults import edit, put
from tests.commandline import run
from tests.processes import run_outside
from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.engine.residual import Rays
from x2ct.errors import InputError, MemoryLimitError
from x2ct.geometry import Geometry, View, attenuation
from x2ct.geometry.grid import Grid
from x2ct.runtimes.discovery import find_runtime

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "dev"
TOOLS = Path(sys.executable).parent
ABI = 2
DEMO = ROOT / "x2ct" / "models" / "demo"


def runtime_dir() -> str:
    folder = find_runtime().folder
    assert folder is not None
    return str(folder)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `cmake --install` gives, moved once: it must not remember where it was installed."""
    assert (BUILD / "CMakeCache.txt").exists(), "make build comes first"
    folder = tmp_path_factory.mktemp("installed")
    run_outside(TOOLS / "cmake", "--install", BUILD, "--prefix", folder / "first", cwd=folder)
    return (folder / "first").rename(folder / "prefix")


@pytest.fixture(scope="module")
def examples(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, copied out of the checkout and built against the installed tree with every warning an error."""
    folder = tmp_path_factory.mktemp("consumer")
    shutil.copytree(ROOT / "csrc" / "examples", folder / "source")
    run_outside(
        *(TOOLS / "cmake", "-S", folder / "source", "-B", folder / "build", "-G", "Ninja"),
        *(f"-DCMAKE_MAKE_PROGRAM={TOOLS / 'ninja'}", f"-DCMAKE_PREFIX_PATH={tree}"),
        *("-DCMAKE_C_FLAGS=-std=c99 -pedantic -Wall -Wextra -Werror", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"),
        cwd=folder,
    )
    run_outside(TOOLS / "cmake", "--build", folder / "build", cwd=folder)
    return folder / "build"


@pytest.fixture
def folder(tiny_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_path, tmp_path / "tiny.x2ct"))


@pytest.fixture(scope="module")
def library(tree: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(tree / "lib" / "libx2ct.so"))
    loaded.x2ct_last_error.restype = loaded.x2ct_version.restype = ctypes.c_char_p
    return loaded


def random_xray(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 6, shape).astype(np.float32)


# ---------------------------------------------------------------------------------------------- an outside consumer


def test_the_tree_offers_what_it_should(tree: Path) -> None:
    names = {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()}
    public = {f"include/x2ct/{path.name}" for path in (ROOT / "csrc" / "include" / "x2ct").glob("*.h")}
    others = {"lib/libx2ct.so", "lib/libx2ct_core.a", "lib/x2ct/libx2ct_openvino.so", "lib/cmake/x2ct/x2ctConfig.cmake"}
    assert public | others <= names
    exported = run_outside("nm", "-D", "--defined-only", tree / "lib" / "libx2ct.so", cwd=tree).stdout.split("\n")[:-1]
    symbols = {line.split()[-1].split("@")[0] for line in exported}
    assert symbols, "the C interface is exported"
    assert all(symbol.startswith("x2ct_") for symbol in symbols)
    for path in (tree / "lib").rglob("*.so"):
        dynamic = run_outside("readelf", "-d", path, cwd=tree).stdout
        assert "RPATH" not in dynamic
        assert "RUNPATH" not in dynamic


def test_c_gives_what_python_gives(examples: Path, tiny_path: Path, tmp_path: Path) -> None:
    """The same bits, from a model's own views; with one view missing too. The log says what was chosen."""
    for count in (2, 1):
        images = [random_xray(tiny_bundle.DETECTOR, seed) for seed in range(count)]
        files = ["-", "-"]
        for slot, image in enumerate(images):
            image.tofile(tmp_path / f"{slot}.f32")
            files[slot] = str(tmp_path / f"{slot}.f32")
        log = run_outside(
            examples / "sample_c", tiny_path, runtime_dir(), *files, "7", tmp_path / "out.f32", cwd=tmp_path
        ).stderr
        assert "info: device cpu (auto), backend openvino (auto)\n" in log
        assert ("info: X-rays: found 1 of the model's 2 views\n" in log) == (count == 1)
        assert "warning: " not in log
        found = np.fromfile(tmp_path / "out.f32", np.float32).reshape(tiny_bundle.GRID)
        xrays = dict(zip(("ap", "lateral"), map(x2ct.XRay.of, images), strict=False))
        wanted = x2ct.Sampler(tiny_path, precision="f32").sample(**xrays, seed=7)
        np.testing.assert_array_equal(found, wanted.hu)


def test_cpp_gives_what_python_gives_from_any_detector(examples: Path, tiny_path: Path, tmp_path: Path) -> None:
    """The same bits, from pictures of another size and pitch than the model's, through matrices."""
    shape, pitch = (41, 50), 9.5
    images = [random_xray(shape, seed) for seed in (3, 4)]
    for name, image in zip(("ap", "lateral"), images, strict=True):
        image.tofile(tmp_path / name)
    run_outside(
        *(examples / "sample_cpp", tiny_path, runtime_dir(), str(shape[0]), str(shape[1]), str(pitch)),
        *(tmp_path / "ap", tmp_path / "lateral", "11", tmp_path / "out.f32"),
        cwd=tmp_path,
    )
    found = np.fromfile(tmp_path / "out.f32", np.float32).reshape(tiny_bundle.GRID)
    geometry = Geometry.parallel(("ap", "lateral"), shape=shape, spacing_mm=(pitch, pitch))
    ap, lateral = map(x2ct.XRay.of, images)
    wanted = x2ct.Sampler(tiny_path, precision="f32").sample(ap=ap, lateral=lateral, geometry=geometry, seed=11)
    np.testing.assert_array_equal(found, wanted.hu)


def test_c_gives_pythons_many_samples_pulled_towards_the_xrays(examples: Path, tiny_path: Path, tmp_path: Path) -> None:
    """The same bits: mean and spread of three samples, consistency at chosen evaluations."""
    images = [np.zeros(tiny_bundle.DETECTOR, np.float32) for _ in range(2)]
    for seed, image in enumerate(images):  # air around the body, so that it is known to lie in the grid
        image[16:48, 18:46] = random_xray((32, 28), seed)
        image.tofile(tmp_path / f"{seed}.f32")
    files = (tmp_path / "0.f32", tmp_path / "1.f32")
    told = run_outside(
        *(examples / "sample_c", tiny_path, runtime_dir(), *files, "7", tmp_path / "out.f32", "3", "2,5"), cwd=tmp_path
    ).stderr
    assert "sample 2:" in told and "18/18" in told and "view 1: off by" in told
    ap, lateral = map(x2ct.XRay.of, images)
    wanted = x2ct.Sampler(tiny_path, precision="f32").run(
        ap=ap, lateral=lateral, seed=7, samples=3, consistency=[2, 5], force=True
    )
    assert wanted.spread is not None
    for name, volume in (("out.f32", wanted.volume), ("out.f32.std", wanted.spread)):
        found = np.fromfile(tmp_path / name, np.float32).reshape(tiny_bundle.GRID)
        np.testing.assert_array_equal(found, volume.hu)
    refused = run_outside(
        *(examples / "sample_c", tiny_path, runtime_dir(), *files, "7", tmp_path / "no.f32", "1", "2,7"),
        cwd=tmp_path,
        expect=2,
    ).stderr
    assert "expected 1 to 6" in refused and not (tmp_path / "no.f32").exists()


def test_cpp_fills_a_grid_in_tiles_as_python_does(examples: Path, tiny_path: Path, tmp_path: Path) -> None:
    grid = Grid((64, 48, 96), tiny_bundle.SPACING_MM)
    with pytest.raises(MemoryLimitError) as least:
        x2ct.Sampler(tiny_path, precision="f32", grid=grid, memory=1 << 20).compile()
    budget = re.search(r"at least (\d+) MiB", str(least.value))
    assert budget is not None
    shape, pitch = tiny_bundle.DETECTOR, tiny_bundle.DETECTOR_MM[0]
    images = [random_xray(shape, seed) for seed in (3, 4)]
    for name, image in zip(("ap", "lateral"), images, strict=True):
        image.tofile(tmp_path / name)
    told = run_outside(
        *(examples / "sample_cpp", tiny_path, runtime_dir(), str(shape[0]), str(shape[1]), str(pitch)),
        *(tmp_path / "ap", tmp_path / "lateral", "11", tmp_path / "out.f32", *map(str, grid.shape), budget[1]),
        cwd=tmp_path,
    ).stderr
    ap, lateral = map(x2ct.XRay.of, images)
    sampler = x2ct.Sampler(tiny_path, precision="f32", grid=grid, memory=int(budget[1]) << 20)
    wanted = sampler.run(ap=ap, lateral=lateral, seed=11)
    count = wanted.report["tiles"]["count"]
    assert count != [1, 1, 1] and "tiles: {} x {} x {}".format(*count) in told
    np.testing.assert_array_equal(np.fromfile(tmp_path / "out.f32", np.float32).reshape(grid.shape), wanted.volume.hu)


def test_the_bundled_model_is_sampled_from_outside(examples: Path, tmp_path: Path) -> None:
    """That a program outside gives what Python gives is tested with the tiny model; here it is the demo patient."""
    bundle = Bundle.load("chest")
    images = {name: np.load(DEMO / f"{name}.npy").astype(np.float32) for name in ("ap", "lateral")}
    for name, image in images.items():
        image.tofile(tmp_path / name)
    rows, columns = images["ap"].shape
    [pitch] = {step for view in Geometry.load(DEMO / "geometry.json").views for step in view.spacing_mm}
    run_outside(
        *(examples / "sample_cpp", bundle.path, runtime_dir(), str(rows), str(columns), str(pitch)),
        *(tmp_path / "ap", tmp_path / "lateral", "0", tmp_path / "out.f32"),
        cwd=tmp_path,
    )
    found = np.fromfile(tmp_path / "out.f32", np.float32).reshape(bundle.grid.shape)
    assert np.corrcoef(found.ravel(), x2ct.Volume.load(DEMO / "truth.nii.gz").hu.ravel())[0, 1] > 0.5


def test_an_error_reaches_the_outside_with_its_code(examples: Path, folder: Path, tmp_path: Path) -> None:
    random_xray(tiny_bundle.DETECTOR, 0).tofile(tmp_path / "ap")
    rest = (tmp_path / "ap", "-", "0", tmp_path / "out.f32")
    absent = run_outside(examples / "sample_c", folder, tmp_path, *rest, cwd=tmp_path, expect=3).stderr
    assert "pip install openvino" in absent
    (folder / "lift.onnx").write_bytes(b"damaged")
    damaged = run_outside(examples / "sample_c", folder, runtime_dir(), *rest, cwd=tmp_path, expect=2).stderr
    assert "lift.onnx: size" in damaged
    assert len(damaged.splitlines()) == 1
    assert not (tmp_path / "out.f32").exists()


@pytest.mark.parametrize("kept", [100, 5000, 0.5, 0.99])
def test_a_truncated_runtime_is_refused_and_not_mapped(library: ctypes.CDLL, tmp_path: Path, kept: float) -> None:
    """The loader would map it and die on the first touch of what is missing."""
    [runtime] = (Path(runtime_dir()) / "libs").glob("libopenvino.so.*")
    data = runtime.read_bytes()
    (tmp_path / runtime.name).write_bytes(data[: int(kept * len(data)) if kept < 1 else int(kept)])
    code = (
        "import ctypes, sys; lib = ctypes.CDLL(sys.argv[1]); lib.x2ct_last_error.restype = ctypes.c_char_p;"
        "status = lib.x2ct_check_backend(b'auto', None, sys.argv[2].encode());"
        "sys.stdout.write(str(status) + lib.x2ct_last_error().decode())"
    )
    told = run_outside(sys.executable, "-c", code, library._name, tmp_path, cwd=tmp_path).stdout
    assert told.startswith("3")
    assert "truncated" in told
    assert "pip install openvino" in told


def test_header_and_library_must_fit(library: ctypes.CDLL) -> None:
    options = (ctypes.c_char * 512)()
    assert library.x2ct_abi() == ABI
    assert library.x2ct_version().decode() == x2ct.__version__
    size = next(n for n in range(8, 512, 8) if library.x2ct_run_options_init(options, ctypes.c_size_t(n), ABI) == 0)
    assert library.x2ct_run_options_init(options, ctypes.c_size_t(size), ABI + 1) == 2
    assert b"x2ct.h" in library.x2ct_last_error()
    largest = max(n for n in range(8, 512, 8) if library.x2ct_run_options_init(options, ctypes.c_size_t(n), ABI) == 0)
    assert largest > size, "a program that was built before there were the last fields runs on"
    assert library.x2ct_run_options_init(options, ctypes.c_size_t(largest + 8), ABI) == 2
    assert library.x2ct_run_options_init(None, ctypes.c_size_t(size), ABI) == 2


# ---------------------------------------------------------------------------------------------- one reader, four faces

SHAPE = {"shape": list(tiny_bundle.DETECTOR), "spacing_mm": list(tiny_bundle.DETECTOR_MM)}
BEAMS = (
    {"name": "ap", **SHAPE, "beam": "cone", "angle_deg": 3, "tilt_deg": 5, "sod_mm": 1500, "sdd_mm": 1500}
    | {"isocentre_mm": [0, 1, 2]},
    {"name": "lateral", **SHAPE, "beam": "parallel", "angle_deg": 88, "tilt_deg": -4, "isocentre_mm": [1, 0, 0]},
    View.cone("ap", 10, tilt_deg=7, sod_mm=1500, sdd_mm=1500, **SHAPE).to_json(),  # type: ignore[arg-type]
)
"""Together they have every field that a view may have."""
OPTIONAL = {
    "diffusion/schedules": {"3": [20.0, 0.7, 0.03]},
    "diffusion/deviation_scale": {"4": 1.25},
    "diffusion/mirror": True,
    "networks/denoiser/int8": {"/net/Conv": [-1.0, 2.0]},
    "xray_statistics": {"mean": [1.0, 2.0]},
    "parity": {"tolerance": 1e-4},
}
"""Every field of model.json that may be left out, or is free."""
# ---------------------------------------------------------------------------------------------- the same bits


class SamplerOptions(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        *((name, ctypes.c_char_p) for name in ("bundle", "backend", "device", "precision")),
        ("threads", ctypes.c_int32),
        *((name, ctypes.c_char_p) for name in ("library_dir", "runtime_dir")),
        ("shape", ctypes.c_int64 * 3),
        ("voxel_mm", ctypes.c_double * 3),
        *((name, ctypes.c_int64) for name in ("memory", "halo")),
        *((name, ctypes.c_char_p) for name in ("provider", "engines")),
        ("trust", ctypes.c_int32),
    )


class Pull(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_double) for name in ("rays", "scale", "offset", "rms_before", "rms_after"))


class CXRay(ctypes.Structure):
    _fields_ = (
        ("slot", ctypes.c_int32),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("line_integrals", ctypes.c_void_p),
        ("matrix", ctypes.c_void_p),
        ("uncalibrated", ctypes.c_int32),
        ("measured", ctypes.c_void_p),
    )


class RunOptions(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("seed", ctypes.c_uint64),
        ("sample", ctypes.c_uint32),
        ("steps", ctypes.c_int32),
        ("solver", ctypes.c_char_p),
        ("schedule", ctypes.c_char_p),
        ("mean", ctypes.c_int32),
        ("progress", ctypes.c_void_p),
        ("preview", ctypes.c_void_p),
        ("preview_every", ctypes.c_int32),
        ("user_data", ctypes.c_void_p),
        ("cancel", ctypes.c_void_p),
        ("consistency", ctypes.c_char_p),
        ("gamma", ctypes.c_double),
        ("samples", ctypes.c_int32),
        ("each", ctypes.c_void_p),
        ("deviation", ctypes.c_void_p),
        ("churn", ctypes.c_double),
        ("sigmas", ctypes.POINTER(ctypes.c_double)),
        ("sigma_count", ctypes.c_size_t),
        ("raw", ctypes.c_int32),
    )


class InC:
    """A sampler behind the C interface, on the tiny bundle."""

    def __init__(self, library: ctypes.CDLL, bundle: Path, **options: Any) -> None:
        self.library = library
        fields = SamplerOptions()
        self.check(library.x2ct_sampler_options_init(ctypes.byref(fields), ctypes.c_size_t(ctypes.sizeof(fields)), ABI))
        fields.bundle, fields.runtime_dir, fields.precision = str(bundle).encode(), runtime_dir().encode(), b"f32"
        fields.threads = 1
        if "grid" in options:
            fields.shape, fields.voxel_mm = (
                (ctypes.c_int64 * 3)(*options["grid"].shape),
                (ctypes.c_double * 3)(*options["grid"].spacing_mm),
            )
        fields.memory, fields.halo = options.get("memory", 0), options.get("halo", -1)
        fields.trust = options.get("trust", 0)
        for name in ("backend", "runtime_dir", "engines"):
            if name in options:
                setattr(fields, name, str(options[name]).encode())
        self.shape = options["grid"].shape if "grid" in options else tiny_bundle.GRID
        self.handle = ctypes.c_void_p()
        self.check(library.x2ct_sampler_open(ctypes.byref(fields), ctypes.byref(self.handle)))

    def check(self, status: int, expect: int = 0) -> None:
        assert status == expect, self.library.x2ct_last_error()

    def run(
        self, images: list[np.ndarray], uncalibrated: bool = False, expect: int = 0, **options: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run, and return the volume and the deviation; `expect` is the status that the run must have."""
        xrays = (CXRay * len(images))(
            *(
                CXRay(slot, *image.shape, image.ctypes.data, None, uncalibrated, None)
                for slot, image in enumerate(images)
            )
        )
        self.check(self.library.x2ct_sampler_set_xrays(self.handle, xrays, ctypes.c_size_t(len(images))))
        fields = RunOptions()
        size = ctypes.c_size_t(ctypes.sizeof(fields))
        self.check(self.library.x2ct_run_options_init(ctypes.byref(fields), size, ABI))
        schedule = options.pop("schedule", None)
        if isinstance(schedule, list):
            fields.sigmas, fields.sigma_count = (ctypes.c_double * len(schedule))(*schedule), len(schedule)
        elif schedule:
            fields.schedule = schedule.encode()
        for name, value in options.items():
            setattr(fields, name, value.encode() if isinstance(value, str) else value)
        volume, deviation = np.empty(self.shape, np.float32), np.empty(self.shape, np.float32)
        fields.deviation = deviation.ctypes.data
        count = ctypes.c_size_t(volume.size)
        out = ctypes.c_void_p(volume.ctypes.data)
        self.check(self.library.x2ct_sampler_run(self.handle, ctypes.byref(fields), out, count), expect)
        return volume, deviation

    def close(self) -> None:
        self.library.x2ct_sampler_close(self.handle)


CELLS: dict[str, dict[str, Any]] = {
    "the bundle's own": {},
    "mean": {"mean": True},
    "own levels": {"schedule": [15.0, 3.0, 0.4]},
    "own levels in steps": {"schedule": [15.0, 3.0, 0.4], "solver": "unipc-3", "steps": 3},
    "euler vp": {"solver": "euler", "schedule": "vp", "steps": 4},
    "heun ve": {"solver": "heun", "schedule": "ve", "steps": 4},
    "heun log-snr, churn": {"solver": "heun", "schedule": "log-snr", "steps": 4, "churn": 3.0},
    "heun edm, churn, many": {"solver": "heun", "schedule": "edm", "steps": 3, "churn": 1.0, "samples": 3},
    "dpmpp-3m iddpm": {"solver": "dpmpp-3m", "schedule": "iddpm", "steps": 5},
    "dpmpp-2m-sde": {"solver": "dpmpp-2m-sde", "steps": 4, "samples": 2},
    "ipndm-4 log-snr": {"solver": "ipndm-4", "schedule": "log-snr", "steps": 5},
    "consistency, last": {"consistency": "last", "steps": 3},
    "consistency, every, many": {"consistency": "every", "gamma": 3.0, "samples": 2, "steps": 3},
    "consistency, chosen": {"consistency": "1,3", "gamma": 100.0, "steps": 4, "solver": "heun"},
    "network's unit": {"raw": True, "samples": 2},
}


@pytest.fixture(scope="module")
def framed() -> list[np.ndarray]:
    """X-rays with air around the body, so that it is known to lie in the grid."""
    images = [np.zeros(tiny_bundle.DETECTOR, np.float32) for _ in range(2)]
    for seed, image in enumerate(images):
        image[16:48, 18:46] = random_xray((32, 28), seed)
    return images


@pytest.mark.parametrize("tiled", [False, True], ids=["whole", "tiles"])
def test_both_faces_give_the_same_bits(
    library: ctypes.CDLL, tiny_path: Path, framed: list[np.ndarray], tiled: bool
) -> None:
    options: dict[str, Any] = {}
    if tiled:
        grid = Grid((64, 48, 96), (4.0, 4.0, 3.0))
        with pytest.raises(MemoryLimitError) as least:
            x2ct.Sampler(tiny_path, precision="f32", grid=grid, memory=1 << 20, halo=8).compile()
        budget = re.search(r"at least (\d+) MiB", str(least.value))
        assert budget is not None
        options = {"grid": grid, "memory": (int(budget[1]) + 16) << 20, "halo": 8}
    sampler = x2ct.Sampler(tiny_path, precision="f32", threads=1, **options)
    other = InC(library, tiny_path, **options)
    for name, cell in CELLS.items():
        for count in (2,) if "consistency" in cell or tiled else (2, 1):
            xrays = dict(zip(("ap", "lateral"), map(x2ct.XRay.of, framed[:count]), strict=False))
            wanted = sampler.run(**xrays, seed=2**63 + 7, force=True, **cell)
            volume, deviation = other.run(framed[:count], seed=2**63 + 7, **cell)
            assert not tiled or wanted.report["tiles"]["count"] != [1, 1, 1]
            np.testing.assert_array_equal(volume, wanted.volume.hu, err_msg=name)
            spread = np.zeros_like(volume) if wanted.spread is None else wanted.spread.hu
            np.testing.assert_array_equal(deviation, spread, err_msg=name)


# ---------------------------------------------------------------------------------------------- what x2ct.h promises

NAMED = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
PROGRESS = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_double)


def test_the_lists_give_the_reason_that_opening_gives(library: ctypes.CDLL, tree: Path, tmp_path: Path) -> None:
    named = list[tuple[str, str]]()
    keep = NAMED(lambda user, name, reason: named.append((name.decode(), reason.decode())))
    for libraries in (tree / "lib" / "x2ct", tmp_path):
        place = os.fsencode(libraries)
        named.clear()
        assert library.x2ct_list_backends(place, keep, None) == 0
        assert {name for name, _ in named} == {"openvino", "onnxruntime", "tensorrt", "torch"}
        for name, reason in named:
            status = library.x2ct_check_backend(name.encode(), place, None)
            assert (status, library.x2ct_last_error().decode()) == (3 if reason else 0, reason), name
        assert dict(named)["tensorrt"], "which is not here, and that nothing before has opened"
        named.clear()
        assert library.x2ct_list_devices(place, keep, None) == 0
        assert named[0] == ("cpu", "")
        assert all(reason or name.startswith("cuda:") for name, reason in named[1:])


def test_it_prints_nothing_whatever_happens(
    library: ctypes.CDLL, folder: Path, framed: list[np.ndarray], capfd: pytest.CaptureFixture[str]
) -> None:
    sampler = InC(library, folder)
    sampler.run(framed, steps=2, samples=2, consistency="last")
    sampler.run(framed, expect=2, solver="magic")
    sampler.run(framed, expect=130, progress=ctypes.cast(PROGRESS(lambda *now: 1), ctypes.c_void_p))
    sampler.close()
    assert library.x2ct_list_backends(None, NAMED(lambda *one: None), None) == 0
    assert library.x2ct_check_backend(b"tensorrt", os.fsencode(folder), None) == 3
    (folder / "lift.onnx").write_bytes(b"damaged")
    assert library.x2ct_check_bundle(os.fsencode(folder)) == 2
    assert b"lift.onnx" in library.x2ct_last_error()
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr() == ("", "")


def test_samplers_in_threads_give_what_each_gives_alone_and_one_token_ends_them_all(
    library: ctypes.CDLL, tiny_path: Path, framed: list[np.ndarray]
) -> None:
    samplers = [InC(library, tiny_path) for _ in range(2)]
    alone = [samplers[0].run(framed, seed=seed, steps=4)[0] for seed in (1, 2)]
    library.x2ct_cancel_create.restype = ctypes.c_void_p
    token = ctypes.c_void_p(library.x2ct_cancel_create())
    begun = [threading.Event() for _ in samplers]

    def use(number: int) -> tuple[np.ndarray, bytes]:
        volume, _ = samplers[number].run(framed, seed=number + 1, steps=4)
        tell = PROGRESS(lambda *now: begun[number].set() or 0)
        options = {"progress": ctypes.cast(tell, ctypes.c_void_p), "cancel": token, "steps": 1000}
        samplers[number].run(framed, expect=130, **options)
        return volume, library.x2ct_last_error()

    assert library.x2ct_check_bundle(b"nowhere") == 2
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(use, number) for number in range(2)]
        assert all(event.wait(300) for event in begun)
        library.x2ct_cancel_now(token)
        for done, wanted in zip(running, alone, strict=True):
            volume, error = done.result()
            np.testing.assert_array_equal(volume, wanted)
            assert error == b"cancelled"
    assert b"nowhere" in library.x2ct_last_error(), "each thread has its own"
    samplers[0].run(framed, expect=130, cancel=token)  # a later run ends at once
    library.x2ct_cancel_free(token)
    for sampler in samplers:
        sampler.close()


def test_the_pull_of_a_picture_tells_its_scale_and_offset(library: ctypes.CDLL, tiny_path: Path) -> None:
    """Those of the least squares fit of the X-ray to the projection of what was pulled, over the rays that count."""
    pictures = [0.6 * image for image in tiny_body.images().values()]
    sampler, bundle = InC(library, tiny_path), Bundle.load(tiny_path)
    denoised, _ = sampler.run(pictures, uncalibrated=True, mean=1)
    sampler.run(pictures, uncalibrated=True, mean=1, consistency="last")
    whole = [np.ones(tiny_bundle.DETECTOR, np.float32)] * 2
    views = [
        (view.name, view.matrix, *images, False)
        for view, *images in zip(bundle.geometry.views, pictures, whole, strict=True)
    ]
    rays = Rays(views, bundle, bundle.grid, 1)
    within = _core.rays_within(bundle.grid.shape, bundle.grid.index_to_mm, views, 1)
    lengths, projections = rays.project(np.ones(bundle.grid.shape)), rays.project(attenuation(denoised))
    for slot, picture in enumerate(pictures):
        counts = np.asarray(within[slot], bool) & (lengths[slot] > 0)
        expected = np.polyfit(projections[slot][counts], picture[counts], 1)
        pull = Pull()
        sampler.check(library.x2ct_sampler_pull(sampler.handle, slot, ctypes.byref(pull)))
        assert (pull.scale, pull.offset) == pytest.approx(expected, rel=0.05)  # along the voxels' columns, not pixels
        assert 0 < pull.rms_after < pull.rms_before and 0.5 < pull.rays <= 1
    sampler.close()


def test_compiled_engines_give_what_the_bundle_gives(
    library: ctypes.CDLL, tiny: Bundle, framed: list[np.ndarray], tmp_path: Path
) -> None:
    torchfiles = pytest.importorskip(
        "x2ct.export.torchfiles", reason="needs the extra train: pip install 'x2ct[train]'"
    )
    if not next(one for one in _core.backends() if one["name"] == "torch")["built"]:
        pytest.skip("built without PyTorch")
    for network in (tiny.networks.encoder, tiny.networks.lift, tiny.networks.denoiser):
        torchfiles.build(tiny, network, "torchscript", tmp_path / f"{Path(network.file).stem}.pt")
    assert tiny.path is not None
    place = find_runtime("torch").folder
    sampler = InC(library, tiny.path, backend="torch", runtime_dir=place, engines=tmp_path, trust=1)
    volume, _ = sampler.run(framed, seed=3, steps=3)
    sampler.close()
    xrays = dict(zip(("ap", "lateral"), map(x2ct.XRay.of, framed), strict=True))
    wanted = x2ct.Sampler(tiny, precision="f32", threads=1).sample(**xrays, seed=3, steps=3, force=True)
    assert np.abs(volume - wanted.hu).max() < 0.1  # HU, of OpenVINO's


# ---------------------------------------------------------------------------------------------- the same refusals


def refusal(library: ctypes.CDLL, folder: Path) -> str:
    """Return what the C interface says against a bundle; "" if it takes it."""
    status = library.x2ct_check_bundle(os.fsencode(folder))
    message: str = library.x2ct_last_error().decode()
    assert status == (2 if message else 0)
    return message


def test_the_views_have_every_documented_field() -> None:
    schema = json.loads((ROOT / "x2ct" / "schemas" / "geometry.schema.json").read_text())
    documented = {name for kind in schema["$defs"].values() for name in kind.get("properties", ())}
    assert documented == {name for view in BEAMS for name in view}
    page = (ROOT / "docs" / "geometry.md").read_text()
    assert all(f'"{name}"' in page or f"`{name}`" in page for name in documented)
    page = (ROOT / "docs" / "bundle.md").read_text()
    assert all(f"`{path.rpartition('/')[2]}`" in page for path in OPTIONAL)


@pytest.mark.parametrize("views", [BEAMS[:2], (BEAMS[2], BEAMS[1])], ids=["described", "by its matrix"])
def test_a_bundle_with_every_documented_field_is_sampled_through_all_faces(
    library: ctypes.CDLL, examples: Path, folder: Path, tmp_path: Path, views: tuple[dict[str, Any], ...]
) -> None:
    """The same bits from Python, C and C++, and the same rounded HU from the command line."""
    edit(folder, put("geometry/views", list(views)))
    for path, value in OPTIONAL.items():
        edit(folder, put(path, value))
    assert refusal(library, folder) == ""
    images = [random_xray(tiny_bundle.DETECTOR, seed) for seed in (3, 4)]
    for name, image in zip(("ap", "lateral"), images, strict=True):
        image.tofile(tmp_path / name)
        np.save(tmp_path / f"{name}.npy", image)
    ap, lateral = map(x2ct.XRay.of, images)
    wanted = x2ct.Sampler(folder, precision="f32").sample(ap=ap, lateral=lateral, seed=7).hu

    inputs = (tmp_path / "ap", tmp_path / "lateral")
    run_outside(examples / "sample_c", folder, runtime_dir(), *inputs, "7", tmp_path / "c.f32", cwd=tmp_path)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "c.f32", np.float32).reshape(tiny_bundle.GRID), wanted)

    files = ("--ap", tmp_path / "ap.npy", "--lateral", tmp_path / "lateral.npy", "-o", tmp_path / "ct.nii.gz")
    done = run("sample", *files, "-m", folder, "--precision", "f32", "--seed", "7", "--quiet")
    assert done.exit_code == 0, done.output
    assert np.abs(x2ct.Volume.load(tmp_path / "ct.nii.gz").hu - wanted).max() <= 0.5

    Geometry.from_json({"schema": 1, "views": list(views)}).save(tmp_path / "geometry.json")
    done = run(
        "sample", *files, "-m", folder, "--geometry", tmp_path / "geometry.json", "--precision", "f32", "--quiet"
    )
    assert done.exit_code == 0, done.output

    shape, [pitch] = tiny_bundle.DETECTOR, set(tiny_bundle.DETECTOR_MM)
    run_outside(
        *(examples / "sample_cpp", folder, runtime_dir(), *map(str, (*shape, pitch))),
        *(*inputs, "7", tmp_path / "cpp.f32"),
        cwd=tmp_path,
    )  # its views are parallel, whatever the bundle's
    plain = Geometry.parallel(shape=shape, spacing_mm=tiny_bundle.DETECTOR_MM)
    wanted = x2ct.Sampler(folder, precision="f32").sample(ap=ap, lateral=lateral, seed=7, geometry=plain).hu
    np.testing.assert_array_equal(np.fromfile(tmp_path / "cpp.f32", np.float32).reshape(tiny_bundle.GRID), wanted)


def test_all_faces_refuse_with_the_same_line(library: ctypes.CDLL, examples: Path, folder: Path) -> None:
    edit(folder, put("geometry/views/0", {**BEAMS[0], "tilt_deg": 81}))
    with pytest.raises(InputError) as caught:
        Bundle.load(folder)
    assert "geometry.views[0].tilt_deg: found 81, expected a number from -80 to 80" in str(caught.value)
    assert refusal(library, folder) == str(caught.value)
    absent = ("64", "64", "7", folder, folder, "0", folder)
    cpp = run_outside(examples / "sample_cpp", folder, runtime_dir(), *absent, cwd=folder.parent, expect=2).stderr
    assert str(caught.value) in cpp
    done = run("info", folder)
    assert done.exit_code == 2
    assert str(caught.value) in done.output
