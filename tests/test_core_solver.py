"""The loop through Python against the papers' algorithms in float64 NumPy, with the same noise.

How far float32 may be from float64 is not tuned: `rounding` derives it from the table and the denoiser, by affine
arithmetic (Stolfi & de Figueiredo 1997): a register's error is a sum of sources, one for each rounding, and sources
are carried along with their signs, so that what cancels in (y - D) / sigma cancels in the bound too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import paper_solvers
from tests.paper_solvers import Array
from x2ct import _core
from x2ct.errors import InputError

SHAPE = (17, 18, 19)
SEED = 7
SOLVERS = sorted(paper_solvers.BY_NAME)
UNIT = 2.0**-24  # what rounding to float32 changes a number by, at most, as a share of it


def noise(draw: int) -> Array:
    return _core.normal(SHAPE, SEED, draw).astype(np.float64)


@dataclass(frozen=True)
class Denoiser:
    """A denoiser in float64, voxel by voxel, and what its rounded inputs do to it.

    Attributes:
        value: D(x, sigma).
        slope: dD/dx.
        bend: a bound of |d2D/dx2|, by sigma.
        drift: a bound of |dD/dsigma|, by |x| and sigma.
    """

    value: Callable[[Array, float], Array]
    slope: Callable[[Array, float], Array]
    bend: Callable[[float], float]
    drift: Callable[[Array, float], Array]

    def __call__(self, x: npt.NDArray[Any], sigma: float) -> Array:
        return self.value(np.asarray(x, np.float64), sigma)


# Data from N(MEANS, V), another mean in every voxel: linear.
MEANS = np.linspace(-1, 1, np.prod(SHAPE)).reshape(SHAPE)
V = 0.25
gaussian = Denoiser(
    value=lambda x, sigma: MEANS + V / (V + sigma**2) * (x - MEANS),
    slope=lambda x, sigma: np.full(SHAPE, V / (V + sigma**2)),
    bend=lambda sigma: 0.0,
    drift=lambda x, sigma: 2 * sigma * V / (V + sigma**2) ** 2 * (x + np.abs(MEANS)),
)

# Data from N(-1, W) or N(1, W): D decides between the two. 0.77 and 0.448 are the largest |tanh''| and z / cosh(z)^2.
W = 0.1
mixture = Denoiser(
    value=lambda x, sigma: (W * x + sigma**2 * np.tanh(x / (W + sigma**2))) / (W + sigma**2),
    slope=lambda x, sigma: (W + sigma**2 / (W + sigma**2) / np.cosh(x / (W + sigma**2)) ** 2) / (W + sigma**2),
    bend=lambda sigma: 0.77 * sigma**2 / (W + sigma**2) ** 3,
    drift=lambda x, sigma: (2 * sigma * W * (x + 1) + 2 * sigma**3 * 0.448) / (W + sigma**2) ** 2,
)


class Register:
    """A register in float64, and how far from it a float32 loop's can be: the sum of its sources, each of any sign."""

    def __init__(self, value: Array, sources: list[Array]) -> None:
        self.value, self.sources = value, sources

    @property
    def error(self) -> Array:
        return sum((np.abs(source) for source in self.sources), np.zeros(SHAPE))

    @property
    def largest(self) -> Array:
        return np.abs(self.value) + self.error


class Bound:
    """Runs a table in float64 and carries every rounding's error along."""

    def __init__(self, table: _core.Table, denoise: Denoiser) -> None:
        self.count = 0
        normals = [Register(noise(draw), []) for draw in range(int(table.rows[:, -1].max()) + 2)]
        scale = table.rows[0, table.columns.index("input_scale")]
        y = self.combine([(scale * table.start_scale, normals[0])])
        if table.start_noise:
            y = self.combine([(1.0, y), (scale * table.start_noise, normals[1])])
        x = self.combine([(1 / scale, y)])
        h: list[Register] = []
        for numbers in table.rows:
            row = dict(zip(table.columns, (float(number) for number in numbers), strict=True))
            denoised = self.denoise(denoise, y, row["sigma"])
            h = [self.combine([(row["a"], y), (row["b"], denoised)]), *h[:3]]
            registers = {"x": x, "y": y, **{f"H{k}": past for k, past in enumerate(h)}, "n": normals[int(row["draw"])]}
            x, y = (
                self.combine([(row[f"{to}.{name}"], register) for name, register in registers.items()]) for to in "xy"
            )
        self.value, self.error = x.value, x.error

    def combine(self, terms: list[tuple[float, Register]]) -> Register:
        """A sum of n products: each is rounded as coefficient, as product and in at most n - 1 additions.

        So it changes by no more than gamma = (n + 1) u / (1 - (n + 1) u) (Higham 2002, Accuracy and Stability of
        Numerical Algorithms, lemma 3.1).
        """
        terms = [(weight, register) for weight, register in terms if weight != 0]
        roundings = (len(terms) + 1) * UNIT
        found = Register(np.zeros(SHAPE), [np.zeros(SHAPE) for _ in range(self.count)])
        for weight, register in terms:
            found.value = found.value + weight * register.value
            for i, source in enumerate(register.sources):
                found.sources[i] = found.sources[i] + weight * source
        size = sum((abs(weight) * register.largest for weight, register in terms), np.zeros(SHAPE))
        return self.with_source(found, roundings / (1 - roundings) * size)

    def denoise(self, denoise: Denoiser, y: Register, sigma: float) -> Register:
        """D of a y that is off, at a sigma that is rounded, and rounded itself."""
        value, slope = denoise(y.value, sigma), denoise.slope(y.value, sigma)
        found = Register(value, [slope * source for source in y.sources])
        rest = denoise.bend(sigma) / 2 * y.error**2 + denoise.drift(y.largest, sigma) * sigma * UNIT * (1 + 1e-3)
        return self.with_source(found, rest + UNIT * (found.largest + rest))

    def with_source(self, register: Register, size: Array) -> Register:
        missing = [np.zeros(SHAPE)] * (self.count - len(register.sources))
        self.count += 1
        return Register(register.value, [*register.sources, *missing, size])


def check_agreement(table: _core.Table, denoise: Denoiser, wanted: Array, other: Array | None = None) -> None:
    """The loop is within the bound of `wanted`, and the bound is tight enough to tell `wanted` from `other`."""
    bound = Bound(table, denoise)
    off = np.abs(_core.run(denoise, table, SHAPE, SEED) - wanted)
    assert np.all(off <= bound.error)
    assert bound.error.max() < 2e-4
    assert other is None or np.any(np.abs(other - wanted) > 10 * bound.error)


def relative(found: npt.NDArray[np.floating], wanted: npt.NDArray[np.floating]) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def test_every_solver_has_a_reference() -> None:
    assert sorted(info["name"] for info in _core.solvers()) == SOLVERS


@pytest.mark.parametrize("denoiser", [gaussian, mixture], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("schedule", ["edm", "log-snr"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_loop_is_the_paper_but_for_rounding(solver: str, schedule: str, denoiser: Denoiser) -> None:
    sigmas = _core.schedule(schedule, 9, 0.03, 20.0)
    wanted = paper_solvers.BY_NAME[solver]([*sigmas, 0.0], denoiser, noise)
    check_agreement(_core.Table.make(solver, sigmas), denoiser, wanted)


@pytest.mark.parametrize("churn", [2.0, 40.0])
def test_churn_is_algorithm_2(churn: float) -> None:
    sigmas = _core.schedule("edm", 9, 0.03, 20.0)
    table = _core.Table.make("heun", sigmas, churn=churn, s_noise=1.003)
    wanted = paper_solvers.heun([*sigmas, 0.0], mixture, noise, churn=churn, s_noise=1.003)
    check_agreement(table, mixture, wanted, other=paper_solvers.heun([*sigmas, 0.0], mixture, noise))


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("time", ["vp", "ve"])
def test_other_times_are_algorithm_1(solver: str, time: str) -> None:
    sigmas = _core.schedule(time, 9, 0.03, 20.0)
    table = _core.Table.make(solver, sigmas, time=time)
    wanted = paper_solvers.algorithm_1(time, solver == "heun", [*sigmas, 0.0], mixture, noise)
    check_agreement(table, mixture, wanted, other=paper_solvers.BY_NAME[solver]([*sigmas, 0.0], mixture, noise))


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
        ("unipc-2", [2.0, 1.0], {"time": "vp"}, "only euler and heun"),
    ],
)
def test_bad_tables_are_refused(solver: str, sigmas: list[float], options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        _core.Table.make(solver, sigmas, **options)
