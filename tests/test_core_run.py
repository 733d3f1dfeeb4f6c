"""How a run behaves: same bytes, progress, cancellation, Ctrl-C, errors in callbacks, other threads of Python."""

from __future__ import annotations

import gc
import signal
import weakref

import numpy as np
import numpy.typing as npt
import pytest

from x2ct import _core
from x2ct.errors import Cancelled, InputError

SHAPE = (40, 41, 42)
TABLE = _core.Table.make("heun", _core.schedule("edm", 5, 0.03, 20.0), churn=3.0)


def denoiser(x: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    return x / np.float32(1 + sigma**2)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp-2m", "dpmpp-2m-sde", "unipc-3", "ipndm-4"])
def test_same_bytes_in_repeated_runs_and_for_any_threads(solver: str, threads: int) -> None:
    table = _core.Table.make(solver, _core.schedule("edm", 5, 0.03, 20.0))
    first = _core.run(denoiser, table, SHAPE, seed=5, threads=1)
    assert _core.run(denoiser, table, SHAPE, seed=5, threads=threads).tobytes() == first.tobytes()
    assert not np.array_equal(_core.run(denoiser, table, SHAPE, seed=6), first)
    assert not np.array_equal(_core.run(denoiser, table, SHAPE, seed=5, sample=1), first)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp-2m", "unipc-3", "ipndm-4"])
def test_a_preview_is_what_the_network_said_and_stays(solver: str) -> None:
    """In the network's unit, and in HU where there are knots; also where the step makes a derivative in D's place."""
    table = _core.Table.make(solver, _core.schedule("edm", 5, 0.03, 20.0))
    said: list[npt.NDArray[np.float32]] = []
    plain: list[npt.NDArray[np.float32]] = []

    def network(x: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
        said.append(denoiser(x, sigma))
        return said[-1]

    _core.run(network, table, SHAPE, seed=1, preview=lambda done, total, sigma, x: plain.append(x))
    assert all(np.array_equal(shown, one) for shown, one in zip(plain, said, strict=True))


def test_progress_counts_evaluations() -> None:
    seen: list[tuple[int, int, float]] = []
    _core.run(denoiser, TABLE, SHAPE, seed=0, progress=lambda *now: seen.append(now))
    total = TABLE.evaluations
    assert [(step, of) for step, of, _ in seen] == [(i + 1, total) for i in range(total)]
    assert [sigma for _, _, sigma in seen] == TABLE.rows[:, 0].tolist()


def test_cancel_ends_between_evaluations() -> None:
    token = _core.CancelToken()
    seen: list[int] = []

    def progress(step: int, total: int, sigma: float) -> None:
        seen.append(step)
        if step == 3:
            token.cancel()

    with pytest.raises(Cancelled):
        _core.run(denoiser, TABLE, SHAPE, seed=0, progress=progress, cancel=token)
    assert seen == [1, 2, 3]
    assert token.cancelled


def test_exceptions_come_through_as_they_are() -> None:
    class Mine(Exception):
        pass

    def raising(*_: object) -> npt.NDArray[np.float32]:
        raise Mine("here")

    with pytest.raises(Mine, match="here"):
        _core.run(denoiser, TABLE, SHAPE, seed=0, progress=raising)
    with pytest.raises(Mine, match="here"):
        _core.run(raising, TABLE, SHAPE, seed=0)


def test_a_denoiser_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="denoiser: shape"):
        _core.run(lambda x, sigma: x[1:], TABLE, SHAPE, seed=0)


def test_ctrl_c_ends_a_run() -> None:
    def progress(step: int, total: int, sigma: float) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _core.run(denoiser, TABLE, SHAPE, seed=0, progress=progress)


def test_nothing_is_kept_of_a_run() -> None:
    def local(x: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
        return x

    gone = weakref.ref(local)
    volume = _core.run(local, TABLE, SHAPE, seed=0)
    del local
    gc.collect()
    assert gone() is None
    assert volume.flags.owndata
