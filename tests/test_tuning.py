"""Tuned noise levels: the search finds what brute force finds, and the bundle gets what was measured to be better."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from benchmarks import solvers
from tests import paper_solvers, tiny_bundle
from x2ct import Sampler, _core
from x2ct.bundle import Bundle
from x2ct.cli import app
from x2ct.data.shards import ShardSet
from x2ct.errors import InputError
from x2ct.io.xray.radiograph import XRay
from x2ct.tuning.search import moved, tune
from x2ct.tuning.stepsearch import Trajectory, descend, shortest

Array = npt.NDArray[np.float64]
LEVELS = _core.schedule("edm", 12, 0.1, 20.0)
START = np.random.default_rng(3).standard_normal(40)


def curved(x: Array, sigma: float) -> Array:
    """Data around -1 and 1."""
    return np.tanh(x / (sigma**2 + 0.3))


def carrying(x: Array, sigma: float) -> Array:
    """D(x + e) = D(x) + e, as the search takes it to be."""
    return x + np.sin(np.arange(40.0) + 0.4 * np.log(sigma)) / 4


def walked(denoise: Callable[[Array, float], Array]) -> tuple[Trajectory, Array, Array]:
    """The trajectory through LEVELS, by many small steps between them; its states and D."""
    states = [LEVELS[0] * START]
    for now, following in zip(LEVELS, LEVELS[1:], strict=False):
        fine = np.geomspace(now, following, 200)
        x = states[-1]
        for a, b in zip(fine, fine[1:], strict=False):
            slope = (x - denoise(x, a)) / a
            ahead = x + (b - a) * slope
            x = x + (b - a) / 2 * (slope + (ahead - denoise(ahead, b)) / b)
        states.append(x)
    denoised = [denoise(x, sigma) for x, sigma in zip(states, LEVELS, strict=True)]
    both = np.array([*states, *denoised])
    return Trajectory(LEVELS, both @ both.T / both.shape[1]), np.array(states), np.array(denoised)


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


def test_local_error_is_that_of_a_step_from_the_trajectory() -> None:
    trajectory, states, denoised = walked(curved)
    ratio = LEVELS[7] / LEVELS[4]
    r = np.log(LEVELS[1] / LEVELS[4]) / np.log(LEVELS[4] / LEVELS[7])
    step = ratio * states[4] + (1 - ratio) * ((1 + 1 / (2 * r)) * denoised[4] - denoised[1] / (2 * r))
    assert trajectory.local_error((1, 4, 7)) == pytest.approx(rms(step - states[7]), rel=1e-6)
    first = LEVELS[3] / LEVELS[0] * states[0] + (1 - LEVELS[3] / LEVELS[0]) * denoised[0]
    assert trajectory.local_error((0, 3)) == pytest.approx(rms(first - states[3]), rel=1e-6)


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_shortest_is_the_least_of_all(count: int) -> None:
    trajectory, _, _ = walked(curved)
    last = len(LEVELS) - 1

    def total(way: tuple[int, ...]) -> float:
        triples = zip(way, way[1:], way[2:], strict=False)
        return trajectory.local_error(way[:2]) + sum(trajectory.local_error(triple) for triple in triples)

    ways = [(0, *inner, last) for inner in combinations(range(1, last), count - 2)]
    assert shortest(trajectory, [1, count]) == {1: (0,), count: min(ways, key=total)}


@pytest.mark.parametrize("solver", sorted(set(paper_solvers.BY_NAME) - {"dpmpp-2m-sde", "heun"}))
def test_end_error_is_that_of_a_run_where_errors_are_carried(solver: str) -> None:
    trajectory, _, denoised = walked(carrying)
    way = (0, 3, 4, 8, 11)
    end = paper_solvers.BY_NAME[solver]([*(LEVELS[k] for k in way), 0.0], carrying, lambda draw: START)
    assert trajectory.end_error(way, solver) == pytest.approx(rms(end - denoised[-1]), rel=1e-4)


def test_descent_ends_no_further_than_it_began() -> None:
    trajectory, _, _ = walked(curved)
    for start in ((0, 1, 2, 11), (0, 9, 10, 11), (0, 4, 8, 11)):
        error, way = descend(trajectory, start, "unipc-2")
        assert error == trajectory.end_error(way, "unipc-2") <= trajectory.end_error(start, "unipc-2")
        assert (way[0], way[-1], len(way)) == (0, 11, 4)
    assert trajectory.nearest([20.0, LEVELS[1] * 1.02, 0.1]) == (0, 1, 11)
    assert trajectory.nearest([20.0, 19.9, 0.1]) is None


def test_a_bundle_gets_what_was_better_and_samples_with_it(shards: Path, tmp_path: Path) -> None:
    untouched = tiny_bundle.write(tmp_path / "tiny.x2ct")
    options = [
        "--steps",
        "2",
        "--steps",
        "4",
        "--fine",
        "24",
        "--refine",
        "8",
        "--solver",
        "unipc-2",
        "--threads",
        "1",
        "--json",
    ]
    target = tmp_path / "tuned.x2ct"
    result = CliRunner().invoke(app, ["tune", str(untouched.path), str(shards), "-o", str(target), *options])
    assert result.exit_code == 0, result.stderr
    rows = {row["steps"]: row for row in json.loads(result.stdout)["rows"]}
    assert rows[2]["sigmas"] == [20.0, 0.03]
    assert not rows[2]["stored"]  # the two ends: nothing to choose
    assert rows[4]["stored"]
    assert rows[4]["tuned"] < rows[4]["untuned"]
    tuned = Bundle.load(target)
    assert tuned.diffusion.schedules == {4: tuple(rows[4]["sigmas"])}
    assert tuned.diffusion.solver == "unipc-2"
    assert tuned.files == untouched.files
    xray = XRay.of(np.linspace(1, 5, 64 * 64, dtype=np.float32).reshape(tiny_bundle.DETECTOR))
    report = Sampler(tuned, threads=1).run(ap=xray, steps=4).report
    assert (report["schedule"], report["sigmas"]) == ("tuned", rows[4]["sigmas"])


def test_what_is_asked_again_replaces_and_the_rest_stays(shards: Path, tmp_path: Path) -> None:
    tiny_bundle.write(tmp_path / "tiny.x2ct")
    run = ["tune", str(tmp_path / "tiny.x2ct"), str(shards), "--fine", "16", "--refine", "0", "--threads", "1", "-q"]
    for more, kept in ((["--steps", "4"], {4}), (["--steps", "5"], {4, 5})):
        assert CliRunner().invoke(app, [*run, *more]).exit_code == 0
        assert set(Bundle.load(tmp_path / "tiny.x2ct").diffusion.schedules) == kept
    assert CliRunner().invoke(app, [*run, "--steps", "3", "--solver", "euler"]).exit_code == 0
    assert set(Bundle.load(tmp_path / "tiny.x2ct").diffusion.schedules) <= {3}  # found for another solver


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"counts": [40]}, "--steps"),
        ({"fine": 4}, "--fine"),
        ({"solver": "dpmpp-2m-sde"}, "--solver"),
        ({"shape": (20, 32, 32)}, "--shape"),
        ({"shape": (64, 32, 32)}, "--shape"),
    ],
)
def test_what_cannot_be_tuned_is_refused(shards: Path, tmp_path: Path, options: dict[str, object], words: str) -> None:
    bundle = tiny_bundle.write(tmp_path / "tiny.x2ct")
    with pytest.raises(InputError, match=words):
        tune(bundle, ShardSet.open(shards), **options)  # type: ignore[arg-type]


def test_refining_keeps_the_best_that_was_measured() -> None:
    measured: dict[tuple[float, ...], float] = {}

    def error(sigmas: tuple[float, ...]) -> float:
        measured[sigmas] = sum(
            np.log(sigma / wanted) ** 2 for sigma, wanted in zip(sigmas, (20, 6, 1, 0.2), strict=True)
        )
        return measured[sigmas]

    found, sigmas = moved((20.0, 4.0, 1.2, 0.2), error, 24)
    assert found == measured[sigmas] == min(measured.values()) < 0.01
    assert sigmas[0] == 20.0
    assert sigmas[-1] == 0.2
    assert 8 <= len(measured) <= 28
    assert all(list(tried) == sorted(tried, reverse=True) for tried in measured)
    assert moved((20.0, 4.0, 1.2, 0.2), error, 0) == (error((20.0, 4.0, 1.2, 0.2)), (20.0, 4.0, 1.2, 0.2))


def test_training_patients_are_not_tuned_on(shards: Path, tmp_path: Path) -> None:
    index = json.loads((shards / "index.json").read_text())
    folder = tmp_path / "shards"
    folder.mkdir()
    for patient in index["people"]:
        patient["split"] = "train"
        (folder / patient["file"]).symlink_to(shards / patient["file"])
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="none set aside for validation"):
        tune(tiny_bundle.write(tmp_path / "tiny.x2ct"), ShardSet.open(folder))


def test_the_benchmark_tells_solvers_apart(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bundle.write(tmp_path / "tiny.x2ct")
    asked = ["--solver", "euler", "--solver", "unipc-2", "--schedule", "log-snr", "--evaluations", "1", "6"]
    cheap = ["--reference", "16", "--shape", "16", "16", "16", "--threads", "1", "-o", str(tmp_path / "solvers")]
    assert solvers.main([str(tmp_path / "tiny.x2ct"), "--shards", str(shards), *asked, *cheap]) == 0
    found = json.loads((tmp_path / "solvers.json").read_text())
    euler, unipc = (row["percent"] for row in found["validation"]["errors"])
    assert euler["1"] == unipc["1"]  # the posterior mean
    assert unipc["6"] < euler["6"] < euler["1"]
    assert found["best"] == {"solver": "unipc-2", "schedule": "log-snr"}
    assert (tmp_path / "solvers.md").read_text() == capsys.readouterr().out
