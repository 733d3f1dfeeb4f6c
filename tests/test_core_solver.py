"""The loop through Python against float64 NumPy transcriptions of the papers' algorithms, with the same noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from x2ct import _core
from x2ct.errors import InputError

Array = npt.NDArray[np.float64]
Denoiser = Callable[[Array, float], Array]

SHAPE = (17, 18, 19)
SEED = 7
MEAN, DEVIATION = 0.3, 0.5


Noise = Callable[[int], Array]


def noise(draw: int) -> Array:
    return _core.normal(SHAPE, SEED, draw).astype(np.float64)


def euler(t: list[float], denoise: Denoiser, noise: Noise = noise) -> Array:
    """Karras et al. 2022, Algorithm 1 without its correction."""
    x = t[0] * noise(0)
    for now, following in zip(t, t[1:], strict=False):
        x = x + (following - now) * (x - denoise(x, now)) / now
    return x


def heun(t: list[float], denoise: Denoiser, noise: Noise = noise, churn: float = 0.0, s_noise: float = 1.0) -> Array:
    """Karras et al. 2022, Algorithm 2, with S_min = 0 and S_max infinite; step i's noise is draw i + 1."""
    n = len(t) - 1
    x = t[0] * noise(0)
    for i, (now, following) in enumerate(zip(t, t[1:], strict=False)):
        hat = now + min(churn / n, np.sqrt(2) - 1) * now
        x = x + np.sqrt(hat**2 - now**2) * s_noise * noise(i + 1)
        slope = (x - denoise(x, hat)) / hat
        ahead = x + (following - hat) * slope
        if following > 0:
            ahead = x + (following - hat) * (slope + (ahead - denoise(ahead, following)) / following) / 2
        x = ahead
    return x


def dpmpp_2m(t: list[float], denoise: Denoiser, noise: Noise = noise) -> Array:
    """Lu et al. 2022, Algorithm 2, in lambda = -ln sigma; first order at the first step and at the last, to 0."""
    x = t[0] * noise(0)
    before: Array | None = None
    for i, (now, following) in enumerate(zip(t, t[1:], strict=False)):
        data = prediction = denoise(x, now)
        if before is not None and following > 0:
            r = np.log(t[i - 1] / now) / np.log(now / following)
            prediction = (1 + 1 / (2 * r)) * data - before / (2 * r)
        x = following / now * x + (1 - following / now) * prediction
        before = data
    return x


REFERENCES: dict[str, Callable[..., Array]] = {"euler": euler, "heun": heun, "dpmpp-2m": dpmpp_2m}
SOLVERS = sorted(REFERENCES)


def gaussian(x: npt.NDArray[np.floating], sigma: float) -> Array:
    """The denoiser of data from N(MEAN, DEVIATION^2)."""
    return MEAN + DEVIATION**2 / (DEVIATION**2 + sigma**2) * (np.asarray(x, np.float64) - MEAN)


def mixture(x: npt.NDArray[np.floating], sigma: float) -> Array:
    """The denoiser of data that is -1 or 1, with neighbours tied along z: not linear, not voxel by voxel."""
    x = np.asarray(x, np.float64)
    smooth = (np.roll(x, 1, -1) + x + np.roll(x, -1, -1)) / 3
    return np.tanh(smooth / (sigma**2 + 0.2))


def flow(x: Array, start: float, end: float) -> Array:
    """The Gaussian's exact solution of the probability flow ODE."""
    return MEAN + np.sqrt((DEVIATION**2 + end**2) / (DEVIATION**2 + start**2)) * (x - MEAN)


def relative(found: npt.NDArray[np.floating], wanted: npt.NDArray[np.floating]) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def test_every_solver_has_a_reference() -> None:
    assert sorted(info["name"] for info in _core.solvers()) == SOLVERS


# The mixture decides between -1 and 1, and so enlarges what float32 rounds.
@pytest.mark.parametrize(("denoiser", "tolerance"), [(gaussian, 2e-6), (mixture, 1e-4)])
@pytest.mark.parametrize("schedule", ["edm", "log-snr"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_matches_the_reference(solver: str, schedule: str, denoiser: Denoiser, tolerance: float) -> None:
    sigmas = _core.schedule(schedule, 9, 0.03, 20.0)
    found = _core.run(denoiser, _core.Table.make(solver, sigmas), SHAPE, SEED)
    assert relative(found, REFERENCES[solver]([*sigmas, 0.0], denoiser)) < tolerance


@pytest.mark.parametrize("churn", [2.0, 40.0])
def test_churn_matches_algorithm_2(churn: float) -> None:
    sigmas = _core.schedule("edm", 9, 0.03, 20.0)
    table = _core.Table.make("heun", sigmas, churn=churn, s_noise=1.003)
    found = _core.run(mixture, table, SHAPE, SEED)
    wanted = heun([*sigmas, 0.0], mixture, churn=churn, s_noise=1.003)
    assert relative(found, wanted) < 1e-4
    assert relative(found, heun([*sigmas, 0.0], mixture)) > 0.01


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpmpp-2m", 2)])
def test_gaussian_converges_to_the_exact_solution(solver: str, order: int) -> None:
    """The error falls with the solver's order, and ends at what float32 can tell."""
    start, end = 20.0, 0.05
    wanted = flow(start * noise(0), start, end)

    def error(steps: int) -> float:
        sigmas = _core.schedule("log-snr", steps + 1, end, start)
        return relative(_core.run(gaussian, _core.Table.make(solver, sigmas, to_zero=False), SHAPE, SEED), wanted)

    coarse, fine = error(32), error(128)
    assert np.log(coarse / fine) / np.log(4) == pytest.approx(order, abs=0.2)
    assert fine < {1: 2e-2, 2: 2e-3}[order]


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("solver", SOLVERS)
def test_constant_denoiser_is_exact(solver: str, steps: int) -> None:
    """Data in one point: the last step to sigma 0 is D itself, bit for bit."""
    point = np.linspace(-1, 1, np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    table = _core.Table.make(solver, _core.schedule("edm", steps, 0.03, 20.0))
    assert np.array_equal(_core.run(lambda x, sigma: point, table, SHAPE, SEED), point)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_sigma_is_the_posterior_mean(solver: str) -> None:
    table = _core.Table.make(solver, [20.0])
    assert table.evaluations == 1
    found = _core.run(mixture, table, SHAPE, SEED)
    assert relative(found, mixture(np.float32(20) * _core.normal(SHAPE, SEED), 20.0)) < 1e-6


def test_table_shows_its_coefficients() -> None:
    sigmas = [4.0, 1.0]
    table = _core.Table.make("euler", sigmas)
    rows = table.rows
    assert rows.shape == (2, len(table.columns))
    column = {name: rows[:, i] for i, name in enumerate(table.columns)}
    assert column["sigma"].tolist() == sigmas
    assert column["y.y"].tolist() == [0.25, 0.0]
    assert column["y.H0"].tolist() == [0.75, 1.0]
    assert table.sigmas == [4.0, 1.0, 0.0]
    assert table.describe().splitlines()[-1] == "1: sigma 1: H0 = D; x' = H0"


@pytest.mark.parametrize(
    ("solver", "sigmas", "options", "words"),
    [
        ("rk4", [1.0], {}, "solver: found"),
        ("euler", [], {}, "sigmas"),
        ("euler", [1.0, 2.0], {}, "sigmas: found 2"),
        ("euler", [float("nan")], {}, "sigmas: found nan"),
        ("dpmpp-2m", [2.0, 1.0], {"churn": 1.0}, "only heun churns"),
    ],
)
def test_bad_tables_are_refused(solver: str, sigmas: list[float], options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        _core.Table.make(solver, sigmas, **options)
