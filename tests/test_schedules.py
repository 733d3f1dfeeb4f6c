"""Which noise levels a run visits: the tuned ones where nobody asks for others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from x2ct import _core
from x2ct.bundle import Diffusion
from x2ct.errors import InputError
from x2ct.schedules import plan

TUNED = (20.0, 3.0, 0.9, 0.2)
UNTUNED = Diffusion(0.4, 0.2, 20.0, "log-snr", "dpmpp-2m", 6)
BUNDLE = replace(UNTUNED, schedules={4: TUNED})


def test_tuned_levels_are_the_default_for_their_number() -> None:
    for solver in ("dpmpp-2m", "unipc-3"):
        planned = plan(BUNDLE, steps=4, solver=solver)
        assert (planned.schedule, planned.sigmas, planned.solver) == ("tuned", TUNED, solver)
        assert planned.table.sigmas == [*TUNED, 0.0]
    assert plan(BUNDLE, steps=4, schedule="tuned").sigmas == TUNED


def test_other_numbers_and_bundles_have_the_named_schedule() -> None:
    for planned, steps in ((plan(BUNDLE), 6), (plan(BUNDLE, steps=5), 5), (plan(UNTUNED, steps=4), 4)):
        assert planned.schedule == "log-snr"
        assert list(planned.sigmas) == _core.schedule("log-snr", steps, 0.2, 20.0)


def test_what_is_asked_for_goes_first() -> None:
    assert plan(BUNDLE, steps=4, schedule="edm").sigmas == tuple(_core.schedule("edm", 4, 0.2, 20.0))
    planned = plan(BUNDLE, schedule=[10, 1.0])
    assert (planned.schedule, planned.sigmas) == ("explicit", (10.0, 1.0))


@pytest.mark.parametrize("time", ["vp", "ve"])
def test_euler_and_heun_step_in_the_time_of_the_schedule(time: str) -> None:
    for solver in ("euler", "heun"):
        planned = plan(BUNDLE, solver=solver, schedule=time)
        expected = _core.Table.make(solver, list(planned.sigmas), time=time)
        assert planned.table.rows.tolist() == expected.rows.tolist()
    assert plan(BUNDLE, schedule=time).table.solver == "dpmpp-2m"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"schedule": "tuned"}, "tuned for: 4"),
        ({"schedule": "cosine"}, "--schedule: name: found 'cosine'"),
        ({"steps": 5, "schedule": [2.0, 1.0]}, "--steps: value: found 5, expected 2"),
        ({"mean": True, "schedule": "edm"}, "--mean"),
        ({"steps": 1001}, "--steps"),
        ({"solver": "rk4"}, "--solver"),
    ],
)
def test_what_cannot_be_had_is_refused(asked: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(BUNDLE, **asked)  # type: ignore[arg-type]
