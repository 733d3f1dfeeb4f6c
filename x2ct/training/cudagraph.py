"""A training step as one CUDA graph: some thousand kernel launches become one (`loop.step_of_tensors`).

Not run on a GPU so far. What a CPU can show is tested: which calls run as they are and which are recorded, that replays
read the latest inputs, and that a failed recording costs nothing but speed.

What is recorded may read host values (Python numbers, `.item()`, `torch.tensor(...)`) at no time after its first calls:
they would stay as they were. Learning rate, averages' weights, noise and patch positions therefore come as tensors.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Step = Callable[..., Tensor]
"""Takes tensors, changes weights, moments and averages in place, and returns a tensor such as the loss."""

_Recording = tuple[tuple[Tensor, ...], Tensor, torch.cuda.CUDAGraph]
"""The tensors that a graph reads, the tensor that it writes, and the graph."""

WARM_UP = 3
"""Calls of each shape that run as they are, so that moments exist and libraries have chosen their algorithms."""


def captured(step: Step) -> Step:
    """Return a function that does what `step` does, from a CUDA graph once its inputs' shapes are known.

    Each set of shapes (a patch size) has a graph of its own. Its first `WARM_UP` calls run `step` itself; the next one
    records it and replays the recording, as all later ones do. So each call is exactly one step. The result is valid
    until the next call. Where recording fails, one warning is logged and `step` itself runs from then on.

    Gradients are to be None before and after `step`, so that they live in the graph's own memory.
    """
    calls: Counter[tuple[Any, ...]] = Counter()
    recordings: dict[tuple[Any, ...], _Recording] = {}
    failed = False

    def run(*inputs: Tensor) -> Tensor:
        nonlocal failed
        key = tuple((tuple(value.shape), value.dtype) for value in inputs)
        if key not in recordings:
            calls[key] += 1
            if failed or calls[key] <= WARM_UP:
                return _apart(step, inputs)
            try:
                recordings[key] = _record(step, inputs)
            except Exception as error:  # whatever it is, the training goes on
                failed = True
                line = next(iter(str(error).splitlines()), type(error).__name__)
                log.warning("the step can't be recorded as a CUDA graph (%s) and runs as it is", line)
                return _apart(step, inputs)
        stored, output, graph = recordings[key]
        for target, value in zip(stored, inputs, strict=True):
            target.copy_(value, non_blocking=True)
        graph.replay()
        return output

    return run


def _apart(step: Step, inputs: Sequence[Tensor]) -> Tensor:
    """Run the step on a stream of its own, as PyTorch asks for before a recording."""
    if not inputs[0].is_cuda:
        return step(*inputs)
    side = torch.cuda.Stream(inputs[0].device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        result = step(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    return result


def _record(step: Step, inputs: Sequence[Tensor]) -> _Recording:
    stored = tuple(value.clone() for value in inputs)
    graph = torch.cuda.CUDAGraph()
    # Other threads may allocate meanwhile: what they do is no part of the recording.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = step(*stored)
    return stored, output, graph


@contextmanager
def scaled_by(share: Tensor, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Take only a share of what the body does to parameters: a learning rate that a recorded optimiser can follow.

    An optimiser's step is proportional to its learning rate, moments do not depend on it, and PyTorch's Muon takes
    it as a number only. So the optimiser steps at its full rate, and this goes part of the way. The share, from 0 to 1,
    has no axes and is on the parameters' device.
    """
    values = [parameter.detach() for parameter in parameters]
    before = [value.clone() for value in values]
    yield
    torch._foreach_sub_(values, before)
    torch._foreach_mul_(values, share)
    torch._foreach_add_(values, before)


def cut(volume: Tensor, origins: Tensor, size: Sequence[int]) -> Tensor:
    """Do what `loss.sliced` does, where a tensor says, differentiably and without reading it on the host."""
    boxes = []
    for origin in origins:
        box = volume
        for axis, count in enumerate(size):
            box = box.index_select(axis + 2, origin[axis] + torch.arange(count, device=volume.device))
        boxes.append(box)
    return torch.cat(boxes)
