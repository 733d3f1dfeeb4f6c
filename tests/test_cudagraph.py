"""The recorded step, with a stand-in for CUDA's recording: a replay runs the step again on the tensors it was given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from x2ct.model.ema import PowerEMA
from x2ct.training.cudagraph import captured, cut, scaled_by


class Tape:
    """A graph whose replay is the recorded function; recording itself computes nothing that lasts."""

    replays = 0

    def __init__(self) -> None:
        self.again: Callable[[], Any] = lambda: None

    def replay(self) -> None:
        type(self).replays += 1
        self.again()


class Trainer:
    """Forward, backward, optimiser, normalisation and average of one layer, all in place."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.optimizer = torch.optim.AdamW(self.layer.parameters(), lr=0.1)
        self.average = PowerEMA(self.layer, 0.1)
        self.loss = torch.zeros(())

    def step(self, x: Tensor, share: Tensor) -> Tensor:
        loss = (self.layer(x) - x.flip(-1)).square().mean()
        loss.backward()
        with scaled_by(share, list(self.layer.parameters())):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.layer.weight.div_(self.layer.weight.norm())
        for name, value in self.layer.named_parameters():
            self.average.shadow[name].lerp_(value.detach(), 0.1)
        return self.loss.copy_(loss.detach())


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.cuda.graph` without CUDA: what runs inside is undone, and run again at each replay."""
    Tape.replays = 0

    @contextmanager
    def graph(tape: Tape, **options: Any) -> Iterator[None]:
        assert options == {"capture_error_mode": "thread_local"}
        yield

    monkeypatch.setattr(torch.cuda, "graph", graph)


def recorded(monkeypatch: pytest.MonkeyPatch, trainer: Trainer, tapes: list[Tape]) -> Callable[..., Tensor]:
    """The trainer's step, recorded: the stand-in knows the call, and does not count what recording computes."""
    recording = False

    def make() -> Tape:
        nonlocal recording
        recording = True
        tapes.append(Tape())
        return tapes[-1]

    def step(*inputs: Tensor) -> Tensor:
        nonlocal recording
        if recording:
            recording = False
            tapes[-1].again = lambda: trainer.step(*inputs)
            return trainer.loss
        return trainer.step(*inputs)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    return captured(step)


@pytest.mark.usefixtures("stand_in")
def test_each_call_is_one_step_whether_recorded_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shapes in turn, one graph each, a learning rate that changes: the weights are those of plain steps."""
    plain, other, tapes = Trainer(), Trainer(), list[Tape]()
    run = recorded(monkeypatch, other, tapes)
    for turn in range(14):
        x = torch.randn(2 + 3 * (turn % 2), 4, generator=torch.Generator().manual_seed(turn))
        share = torch.tensor(1 - turn / 20)
        assert torch.equal(plain.step(x, share), run(x, share))
    assert len(tapes) == 2 and Tape.replays == 14 - 2 * 3
    for a, b in zip(plain.layer.parameters(), other.layer.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(value, other.average.shadow[name]) for name, value in plain.average.shadow.items())


def test_a_step_that_can_not_be_recorded_runs_as_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning of one line, and no step is lost or taken twice."""

    def refuse() -> Any:
        raise RuntimeError("capture refused\nat length")

    plain, other = Trainer(), Trainer()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", refuse)
    run = captured(other.step)
    with caplog.at_level(logging.WARNING):
        for turn in range(8):
            x, share = torch.full((2, 4), float(turn)), torch.ones(())
            assert torch.equal(plain.step(x, share), run(x, share))
    assert len(caplog.records) == 1 and "\n" not in caplog.records[0].getMessage()
    assert torch.equal(plain.layer.weight, other.layer.weight)


def test_a_share_of_a_step_is_a_step_at_that_share_of_the_rate() -> None:
    """For Adam with decay and for Muon, whose moments do not depend on the rate."""
    for kind in (torch.optim.AdamW, torch.optim.Muon):
        weights = []
        for rate, share in ((0.1, 0.3), (0.03, 1.0)):
            weight = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
            optimizer = kind([weight], lr=rate, weight_decay=0.1)
            for turn in range(3):
                weight.grad = torch.cos(torch.arange(12.0) + turn).reshape(3, 4)
                with scaled_by(torch.tensor(share), [weight]):
                    optimizer.step()
            weights.append(weight.detach())
        assert torch.allclose(*weights, atol=1e-6), kind


def test_cut_is_slicing_and_so_is_its_gradient() -> None:
    volume = torch.randn(1, 2, 6, 7, 8, requires_grad=True)
    origins = torch.tensor([[0, 1, 2], [2, 3, 4]])
    boxes = cut(volume, origins, (3, 4, 2))
    expected = torch.cat([volume[:, :, x : x + 3, y : y + 4, z : z + 2] for x, y, z in origins.tolist()])
    assert torch.equal(boxes, expected)
    weight = torch.randn(boxes.shape)
    (one,) = torch.autograd.grad((boxes * weight).sum(), volume)
    (two,) = torch.autograd.grad((expected * weight).sum(), volume)
    assert torch.allclose(one, two)
