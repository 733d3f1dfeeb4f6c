"""The sampler's Python face: condition once, denoise often, and say what was done.

The tiny bundle's denoiser is the exact posterior mean of a Gaussian, so what a run must give is known in closed form.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import x2ct
from benchmarks import soak
from tests import tiny_bundle
from x2ct import _core
from x2ct.engine import sampler as samplers
from x2ct.errors import InputError, MissingRuntimeError
from x2ct.geometry.grid import centred_affine

LINE_INTEGRAL = 4.0
MEAN_X = float(tiny_bundle.mean_of(np.float32(LINE_INTEGRAL)))
HU_PER_X = 1250.0
MEAN_HU = (MEAN_X + 1) * HU_PER_X - 1000


def flat_xray(value: float = LINE_INTEGRAL) -> x2ct.XRay:
    """The same line integral wherever the grid is seen; only a corner that no voxel projects to differs."""
    image = np.full(tiny_bundle.DETECTOR, value, np.float32)
    image[0, 0] = 0.0
    return x2ct.XRay.of(image)


@pytest.fixture(scope="module")
def sampler(tiny_path: Path) -> x2ct.Sampler:
    return x2ct.Sampler(tiny_path, precision="f32", threads=1)


def test_mean_is_the_denoisers_answer_at_the_highest_noise(sampler: x2ct.Sampler) -> None:
    result = sampler.run(ap=flat_xray(), lateral=flat_xray(), mean=True)
    np.testing.assert_allclose(result.volume.hu, MEAN_HU, atol=4.0)  # a trace of the noise stays: 0.6 HU
    assert result.report["evaluations"] == 1
    assert result.report["sigmas"] == [20.0]


@pytest.mark.parametrize(("solver", "steps"), [("euler", 200), ("heun", 40), ("dpmpp-2m", 40)])
def test_samples_follow_the_data_that_the_denoiser_knows(sampler: x2ct.Sampler, solver: str, steps: int) -> None:
    volume = sampler.sample(ap=flat_xray(), lateral=flat_xray(), solver=solver, steps=steps, seed=5)
    count = volume.hu.size
    spread = tiny_bundle.SIGMA_DATA * HU_PER_X
    assert volume.hu.mean() == pytest.approx(MEAN_HU, abs=5 * spread / count**0.5 + 1)
    assert volume.hu.std() == pytest.approx(spread, rel=0.05)


def test_volume_lies_about_the_origin_in_ras(sampler: x2ct.Sampler) -> None:
    volume = sampler.sample(lateral=flat_xray(), mean=True)
    np.testing.assert_array_equal(volume.affine, centred_affine(tiny_bundle.GRID, tiny_bundle.SPACING_MM))
    assert volume.hu.dtype == np.float32
    assert volume.shape == tiny_bundle.GRID


def test_what_a_view_shows_on_the_patients_right_is_on_the_right(sampler: x2ct.Sampler) -> None:
    """Column 0 of a frontal picture is the patient's right, which is where x grows; row 0 is the head."""
    image = np.full(tiny_bundle.DETECTOR, 2.0, np.float32)
    image[:32, :32] = 6.0
    hu = sampler.sample(ap=x2ct.XRay.of(image), mean=True).hu
    assert hu[20:, :, 20:].min() > hu[:12].max() + 500
    assert hu[20:, :, 20:].min() > hu[:, :, :12].max() + 500


def test_xrays_that_are_set_are_encoded_once_for_many_seeds(sampler: x2ct.Sampler, tiny_path: Path) -> None:
    ap, lateral = flat_xray(), flat_xray(2.0)
    sampler.set_xrays(ap=ap, lateral=lateral)
    first, second = (sampler.run(seed=seed) for seed in (0, 1))
    assert (first.report["condition_reused"], second.report["condition_reused"]) == (False, True)
    assert first.report["timings"]["condition_s"] > second.report["timings"]["condition_s"] == 0
    assert not np.array_equal(first.volume.hu, second.volume.hu)
    alone = x2ct.Sampler(tiny_path, precision="f32", threads=1).sample(ap=ap, lateral=lateral, seed=1)
    np.testing.assert_array_equal(second.volume.hu, alone.hu)


class Counted:
    """Something of the core's, whose calls are noted by name."""

    def __init__(self, thing: object, calls: list[str]) -> None:
        self._thing, self._calls = thing, calls

    def __getattr__(self, name: str) -> object:
        value = getattr(self._thing, name)
        if not callable(value):
            return value

        def call(*positional: object, **named: object) -> object:
            self._calls.append(name)
            result = value(*positional, **named)
            return Counted(result, self._calls) if name == "Pipeline" else result

        return call


def test_a_ct_takes_three_calls_into_the_core(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile, set X-rays, run: the face plans nothing and checks no option itself."""
    calls: list[str] = []
    monkeypatch.setattr(samplers, "_core", Counted(_core, calls))
    sampler = x2ct.Sampler(tiny_path, precision="f32", threads=1)
    report = sampler.run(ap=flat_xray(), seed=3, solver="heun", steps=2).report
    assert calls == ["Pipeline", "set_xrays", "run"]
    assert (report["seed"], report["solver"], report["steps"]) == (3, "heun", 2)


def test_options_are_an_object_or_its_fields(sampler: x2ct.Sampler) -> None:
    options = samplers.SampleOptions(seed=4, steps=2)
    whole = sampler.run(options, ap=flat_xray())
    parts = sampler.run(ap=flat_xray(), seed=4, steps=2)
    changed = sampler.run(options, ap=flat_xray(), seed=5)
    assert np.array_equal(whole.volume.hu, parts.volume.hu) and not np.array_equal(whole.volume.hu, changed.volume.hu)
    with pytest.raises(TypeError, match="stepz"):
        sampler.run(ap=flat_xray(), stepz=3)
    with pytest.raises(TypeError, match=r"SampleOptions\.steps: found 'many'"):
        sampler.run(ap=flat_xray(), steps="many")


def test_xrays_of_a_run_go_before_those_that_were_set(sampler: x2ct.Sampler) -> None:
    ap, lateral = flat_xray(), flat_xray(2.0)
    for others in ({"ap": lateral, "lateral": ap}, {"ap": ap}, {"pa": ap, "lateral": lateral}):
        both = sampler.run(ap=ap, lateral=lateral, mean=True)
        assert not sampler.run(**others, mean=True).report["condition_reused"]
    assert abs(sampler.sample(ap=ap, mean=True).hu - both.volume.hu).max() > 50


def test_without_xrays_nothing_is_made(tiny_path: Path) -> None:
    fresh = x2ct.Sampler(tiny_path, precision="f32", threads=1)
    with pytest.raises(InputError, match="expected at least one of ap, pa, lateral"):
        fresh.run()
    fresh.set_xrays(ap=flat_xray())
    with pytest.raises(InputError, match="expected at least one of ap, pa, lateral"):
        fresh.set_xrays()
    assert fresh.run(mean=True).report["inputs"][0]["view"] == "ap"  # what is refused changes nothing


@pytest.mark.parametrize("options", [{}, {"mean": True}, {"samples": 2}])
def test_hu_are_the_networks_unit_mapped(sampler: x2ct.Sampler, options: dict[str, object]) -> None:
    """To the bit where nothing follows the map; a mean of several is taken after it."""
    ap, seen = flat_xray(), list[np.ndarray]()
    raw = sampler.run(ap=ap, raw=True, preview=lambda *now: seen.append(now[3].hu), **options)  # type: ignore[arg-type]
    hu = sampler.run(ap=ap, **options).volume.hu  # type: ignore[arg-type]
    assert raw.residuals == ()
    assert max(np.abs(one).max() for one in (raw.volume.hu, *seen)) < 2
    tolerance = 0.01 if "samples" in options else 0.0
    np.testing.assert_allclose(sampler.bundle.intensity.to_hu(raw.volume.hu), hu, rtol=0, atol=tolerance)


def test_threads_take_turns(sampler: x2ct.Sampler) -> None:
    studies = {value: {"ap": flat_xray(value), "lateral": flat_xray(value)} for value in (1.0, 2.0, 4.0, 5.0)}
    wanted = {value: sampler.sample(**study, seed=int(value)).hu for value, study in studies.items()}
    found: dict[float, np.ndarray] = {}

    def work(value: float) -> None:
        found[value] = sampler.sample(**studies[value], seed=int(value)).hu

    workers = [threading.Thread(target=work, args=(value,)) for value in studies]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for value, hu in wanted.items():
        np.testing.assert_array_equal(found[value], hu)


def test_progress_tells_every_evaluation_and_may_end_the_run(sampler: x2ct.Sampler) -> None:
    told: list[tuple[int, int]] = []
    ap = flat_xray()
    whole = sampler.sample(ap=ap, progress=lambda done, total, sigma: told.append((done, total)))
    assert told[-6:] == [(done, 6) for done in range(1, 7)]

    class EnoughError(Exception):
        pass

    def stop(done: int, total: int, sigma: float) -> None:
        if done == 3:
            raise EnoughError

    with pytest.raises(EnoughError):
        sampler.sample(ap=ap, progress=stop)
    np.testing.assert_array_equal(sampler.sample(ap=ap).hu, whole.hu)  # still usable, and still the same


def test_previews_show_the_denoised_volume_and_may_end_the_run(sampler: x2ct.Sampler) -> None:
    ap, seen = flat_xray(), list[tuple[int, x2ct.Volume]]()
    whole = sampler.sample(
        ap=ap, preview=lambda done, total, sigma, ct: seen.append((done, ct)), preview_every=2, solver="euler"
    )
    assert [done for done, _ in seen] == [2, 4, 6]
    np.testing.assert_array_equal(seen[-1][1].hu, whole.hu)  # Euler's last step lands on what the network says
    np.testing.assert_array_equal(seen[0][1].affine, whole.affine)
    assert not np.array_equal(seen[0][1].hu, whole.hu)

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sampler.sample(ap=ap, preview=fails)
    with pytest.raises(InputError, match="preview_every: found 0"):
        sampler.sample(ap=ap, preview=fails, preview_every=0)
    np.testing.assert_array_equal(sampler.sample(ap=ap, solver="euler").hu, whole.hu)


def test_a_token_ends_a_run_within_one_evaluation(sampler: x2ct.Sampler) -> None:
    token, told, ap = x2ct.CancelToken(), list[int](), flat_xray()

    def cancel(done: int, total: int, sigma: float) -> None:
        told.append(done)
        if done == 2:
            token.cancel()

    with pytest.raises(x2ct.Cancelled):
        sampler.sample(ap=ap, progress=cancel, cancel=token)
    assert told == [1, 2]
    with pytest.raises(x2ct.Cancelled):
        sampler.sample(ap=ap, cancel=token)
    sampler.sample(ap=ap, cancel=x2ct.CancelToken())


def test_two_samplers_in_two_threads_do_not_disturb_each_other(sampler: x2ct.Sampler, tiny_path: Path) -> None:
    other, ap = x2ct.Sampler(tiny_path, precision="f32", threads=1), flat_xray()
    wanted = {seed: sampler.sample(ap=ap, seed=seed).hu for seed in range(4)}
    found: dict[int, np.ndarray] = {}

    def work(own: x2ct.Sampler, seeds: tuple[int, ...]) -> None:
        for seed in seeds:
            found[seed] = own.sample(ap=ap, seed=seed, preview=lambda *_: None).hu

    workers = [threading.Thread(target=work, args=each) for each in ((sampler, (0, 1)), (other, (2, 3)))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seed, hu in wanted.items():
        np.testing.assert_array_equal(found[seed], hu)


def test_memory_stays_flat_over_many_runs(sampler: x2ct.Sampler) -> None:
    """The first 200 runs of `make soak`, which does 1000: cancelled ones, failed ones and previews among them."""
    soak.soak(sampler, 50)
    assert soak.growth(soak.soak(sampler, 200)) < soak.LIMIT


def test_report_tells_time_apart(sampler: x2ct.Sampler) -> None:
    timings = sampler.run(ap=flat_xray(), steps=20).report["timings"]
    assert set(timings) == {
        "load_s",
        "compile_s",
        "condition_s",
        "loop_s",
        "consistency_s",
        "residual_s",
        "per_evaluation_s",
        "outside_network_share",
        "total_s",
    }
    assert all(value >= 0 for value in timings.values())
    assert 20 * timings["per_evaluation_s"] <= timings["loop_s"] <= timings["total_s"]
    assert timings["outside_network_share"] < 1


def test_report_names_no_path_and_says_what_was_assumed(sampler: x2ct.Sampler, tmp_path: Path) -> None:
    np.save(tmp_path / "ap.npy", flat_xray().image)
    report = sampler.run(ap=x2ct.XRay.load(tmp_path / "ap.npy")).report
    assert report["inputs"][0]["file"] == "ap.npy"
    assert str(tmp_path) not in x2ct.io.report.to_json(report)
    assert any("spacing" in line for line in report["assumptions"])
    assert any("one view only" in line for line in report["warnings"])


def test_precision_is_read_back(tiny_path: Path) -> None:
    had = {precision for precision in ("f32", "bf16") if compiles(tiny_path, precision)}
    assert "f32" in had
    for asked in ("auto", *had):
        sampler = x2ct.Sampler(tiny_path, precision=asked, threads=1)
        got = sampler.run(ap=flat_xray(), mean=True).report["precision"]
        assert (got["encoder"], got["lift"]) == ("f32", "f32")
        assert got["denoiser"] in had
        assert asked in ("auto", got["denoiser"])


def test_precision_that_would_become_another_is_refused(tiny_path: Path, sampler: x2ct.Sampler) -> None:
    [backend, *_] = x2ct._core.backends({"openvino": sampler.choice.runtime_dir})
    lacking = {"f16", "bf16"} - set(backend["precisions"]["cpu"])
    for precision in lacking:
        with pytest.raises(MissingRuntimeError, match=precision):
            x2ct.Sampler(tiny_path, precision=precision, threads=1).compile()
    if not lacking:
        pytest.skip("this CPU computes natively in all of them")


def compiles(path: Path, precision: str) -> bool:
    try:
        x2ct.Sampler(path, precision=precision, threads=1).compile()
    except MissingRuntimeError:
        return False
    return True


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"device": "cuda"}, MissingRuntimeError, "cuda"),
        ({"device": "cuda:1"}, MissingRuntimeError, "cuda"),
        ({"device": "cpu:1"}, InputError, "cpu:1"),
        ({"device": "tpu"}, InputError, "tpu"),
        ({"backend": "paper"}, InputError, "paper"),
        ({"precision": "int4"}, InputError, "int4"),
        ({"threads": -1}, InputError, "--threads"),
    ],
)
def test_what_cannot_be_had_is_refused_at_once(
    tiny_path: Path, options: dict[str, object], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        x2ct.Sampler(tiny_path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"steps": 0}, "steps"),
        ({"steps": 10**6}, "steps"),
        ({"solver": "guess"}, "guess"),
        ({"mean": True, "steps": 2}, "mean"),
        ({"mean": True, "solver": "euler"}, "mean"),
        ({"mean": True, "schedule": "edm"}, "mean"),
        ({"schedule": "cosine"}, "cosine"),
        ({"schedule": "tuned"}, "tuned"),
        ({"schedule": [1.0, 2.0]}, "sigmas"),
        ({"schedule": [2.0, 1.0], "steps": 3}, "steps"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(sampler: x2ct.Sampler, options: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        sampler.run(ap=flat_xray(), **options)  # type: ignore[arg-type]
