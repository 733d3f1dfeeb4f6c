"""A training step as one CUDA graph: some thousand kernel launches become one (`loop.RecordedStep`).

Not run on a GPU so far. What a CPU can show is tested: which calls run as they are and which are recorded, that replays
read the latest inputs, and that a failed recording costs nothing but speed.

What is recorded may read host values (Python numbers, `.item()`, `torch.tensor(...)`) at no time after its first calls:
they would stay as they were. Learning rate, averages' weights, noise and patch positions therefore come as tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Step = Callable[..., Tensor]
"""Takes tensors, changes weights, moments and averages in place, and returns a tensor such as the loss."""

WARM_UP = 3
"""Calls of each shape that run as they are, so that moments exist and libraries have chosen their algorithms."""


@dataclass
class _Recording:
    """One graph: the tensors that it reads, the tensor that it writes, and how to run it."""

    inputs: tuple[Tensor, ...]
    output: Tensor
    replay: Callable[[], Any]


def captured(step: Step, *, warm_up: int = WARM_UP, graph: Callable[[], Any] | None = None) -> Step:
    """Return a function that does what `step` does, from a CUDA graph once its inputs' shapes are known.

    Each set of shapes (a patch size) has a graph of its own. Its first `warm_up` calls run `step` itself; the next one
    records it and replays the recording, as all later ones do. So each call is exactly one step. The result is valid
    until the next call. Where recording fails, one warning is logged and `step` itself runs from then on.

    Args:
        step: the step. Gradients are to be None before and after it, so that they live in the graph's own memory.
        warm_up: calls of each shape before it is recorded.
        graph: makes a CUDA graph; `torch.cuda.CUDAGraph` unless a test gives another.
    """
    recorder = _Recorder(step, warm_up, graph or torch.cuda.CUDAGraph)
    return recorder.run


class _Recorder:
    def __init__(self, step: Step, warm_up: int, graph: Callable[[], Any]) -> None:
        self._step, self._warm_up, self._graph = step, warm_up, graph
        self._calls: dict[tuple[Any, ...], int] = {}
        self._recordings: dict[tuple[Any, ...], _Recording] = {}
        self._failed = False

    def run(self, *inputs: Tensor) -> Tensor:
        key = tuple((tuple(value.shape), value.dtype) for value in inputs)
        recording = self._recordings.get(key)
        if recording is None:
            count = self._calls[key] = self._calls.get(key, 0) + 1
            if self._failed or count <= self._warm_up:
                return self._apart(inputs)
            try:
                recording = self._recordings[key] = self._record(inputs)
            except Exception as error:  # whatever it is, the training goes on
                self._failed = True
                log.warning("the step can't be recorded as a CUDA graph (%s) and runs as it is", _line(error))
                return self._apart(inputs)
        for kept, value in zip(recording.inputs, inputs, strict=True):
            kept.copy_(value, non_blocking=True)
        recording.replay()
        return recording.output

    def _apart(self, inputs: Sequence[Tensor]) -> Tensor:
        """Run the step on a stream of its own, as PyTorch asks for before a recording."""
        if not inputs[0].is_cuda:
            return self._step(*inputs)
        side = torch.cuda.Stream(inputs[0].device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            result = self._step(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        return result

    def _record(self, inputs: Sequence[Tensor]) -> _Recording:
        kept = tuple(value.clone() for value in inputs)
        graph = self._graph()
        # Other threads may allocate meanwhile: what they do is no part of the recording.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self._step(*kept)
        return _Recording(kept, output, graph.replay)


@contextmanager
def scaled_by(share: Tensor, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Take only a share of what the body does to parameters: a learning rate that a recorded optimiser can follow.

    An optimiser's step is proportional to its learning rate, moments do not depend on it, and PyTorch's Muon takes
    it as a number only. So the optimiser steps at its full rate, and this goes part of the way.

    Args:
        share: of the full rate, from 0 to 1; without axes, on the parameters' device.
        parameters: what the body changes.
    """
    values = [parameter.detach() for parameter in parameters]
    before = [value.clone() for value in values]
    yield
    torch._foreach_sub_(values, before)
    torch._foreach_mul_(values, share)
    torch._foreach_add_(values, before)


def cut(volume: Tensor, origins: Tensor, size: Sequence[int]) -> Tensor:
    """Cut boxes out of a volume where a tensor says, differentiably and without reading it on the host.

    Args:
        volume: [1, C, X, Y, Z].
        origins: first voxel of each box along x, y, z; int64 [N, 3].
        size: voxels along x, y, z.

    Returns:
        [N, C, *size].
    """
    boxes = []
    for number in range(len(origins)):
        box = volume
        for axis, count in enumerate(size):
            index = origins[number, axis] + torch.arange(count, device=volume.device)
            box = box.index_select(axis + 2, index)
        boxes.append(box)
    return torch.cat(boxes)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
