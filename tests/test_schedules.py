"""Which noise levels a run visits: the tuned ones where nobody asks for others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from x2ct import _core
from x2ct.bundle import Diffusion
from x2ct.engine.sampler import SampleOptions
from x2ct.errors import InputError

TUNED = (20.0, 3.0, 0.9, 0.2)
UNTUNED = Diffusion(0.4, 0.2, 20.0, "log-snr", "dpmpp-2m", 6)
BUNDLE = replace(UNTUNED, schedules={4: TUNED})


def plan(diffusion: Diffusion, **asked: Any) -> _core.SamplingPlan:
    return _core.sampling_plan(diffusion, SampleOptions(**asked))


def test_tuned_levels_are_the_default_for_their_number() -> None:
    for solver in ("dpmpp-2m", "unipc-3"):
        planned = plan(BUNDLE, steps=4, solver=solver)
        assert (planned.schedule, planned.sigmas, planned.table.solver) == ("tuned", list(TUNED), solver)
        assert planned.table.sigmas == [*TUNED, 0.0]
    assert plan(BUNDLE, steps=4, schedule="tuned").sigmas == list(TUNED)


def test_other_numbers_and_bundles_have_the_named_schedule() -> None:
    for planned, steps in ((plan(BUNDLE), 6), (plan(BUNDLE, steps=5), 5), (plan(UNTUNED, steps=4), 4)):
        assert planned.schedule == "log-snr"
        assert planned.sigmas == _core.schedule("log-snr", steps, 0.2, 20.0)


def test_what_is_asked_for_goes_first() -> None:
    assert plan(BUNDLE, steps=4, schedule="edm").sigmas == _core.schedule("edm", 4, 0.2, 20.0)
    planned = plan(BUNDLE, schedule=[10, 1.0])
    assert (planned.schedule, planned.sigmas) == ("explicit", [10.0, 1.0])


@pytest.mark.parametrize("time", ["vp", "ve"])
def test_euler_and_heun_step_in_the_time_of_the_schedule(time: str) -> None:
    for solver in ("euler", "heun"):
        planned = plan(BUNDLE, solver=solver, schedule=time)
        expected = _core.Table.make(solver, planned.sigmas, time=time)
        assert planned.table.rows.tolist() == expected.rows.tolist()
    assert plan(BUNDLE, schedule=time).table.solver == "dpmpp-2m"


def test_churn_is_heuns_and_costs_no_evaluation() -> None:
    calm, stirred = (plan(BUNDLE, solver="heun", schedule="edm", steps=8, churn=churn).table for churn in (0.0, 4.0))
    assert calm.evaluations == stirred.evaluations == 15
    assert calm.rows.tolist() != stirred.rows.tolist()


def test_the_posterior_mean_is_one_evaluation_at_the_highest_level() -> None:
    planned = plan(BUNDLE, mean=True, samples=3)
    assert (planned.schedule, planned.sigmas, planned.evaluations) == ("posterior mean", [20.0], 3)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"schedule": "tuned"}, "tuned for: 4"),
        ({"schedule": "cosine"}, 'schedule: found "cosine", expected one of'),
        ({"schedule": []}, "schedule: found no noise levels"),
        ({"steps": 5, "schedule": [2.0, 1.0]}, "steps: found 5, expected 2, as many as noise levels"),
        ({"mean": True, "schedule": "edm"}, "mean: found"),
        ({"mean": True, "churn": 1.0}, "mean: found"),
        ({"steps": 0}, "steps: found 0, expected 1 to 1000"),
        ({"steps": 1001}, "steps: found 1001"),
        ({"solver": "rk4"}, 'solver: found "rk4"'),
        ({"solver": "euler", "churn": 1.0}, "churn: found"),
        ({"samples": 0}, "samples: found 0, expected 1 to 1000"),
        ({"seed": -1}, "seed: found -1"),
        ({"seed": 2**64}, "seed: found 18446744073709551616"),
        ({"consistency": "always"}, "consistency: found"),
        ({"consistency": ""}, "consistency: found"),
        ({"consistency": "3,,5"}, "consistency: found"),
        ({"consistency": "3, 5"}, "consistency: found"),
        ({"consistency": "0"}, "evaluation: found 0"),
        ({"consistency": [3, -1]}, "evaluation: found -1"),
        ({"consistency": "9" * 30}, "evaluation: found 9"),
        ({"consistency": "every", "gamma": -1.0}, "gamma: found -1"),
        ({"consistency": "last", "gamma": float("nan")}, "gamma: found nan"),
        ({"gamma": 1.0}, "gamma: found a strength without data consistency"),
    ],
)
def test_what_cannot_be_had_is_refused(asked: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(BUNDLE, **asked)
