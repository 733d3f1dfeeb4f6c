"""Training on several processes, one for each GPU, as torchrun starts them: what the ranks exchange.

Each rank takes its share of a step's studies, and all of them take one step with the summed gradients. The sum is an
explicit all-reduce of one buffer a step, not `DistributedDataParallel`: that works through a module's own forward,
while a step calls `condition` once and `denoise` on patches. The sums are equal. Sharded weights and bf16 gradients are
left out: weights, moments and averages of these networks fit a GPU many times over, and one sum a step is short.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from x2ct.errors import InputError, ReportedElsewhere, X2CTError

T = TypeVar("T")

LONGEST_WAIT = timedelta(hours=1)
"""How long a rank waits for the others; rank 0 validates and writes files meanwhile."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, seen from one of them; by default there is this one alone, and nothing is exchanged.

    All ranks call the same methods in the same order. Each method raises X2CTError if another rank is gone.
    """

    index: int = 0  # this process's rank; rank 0 writes files
    count: int = 1
    device: str = "auto"  # where this rank computes: "auto", "cpu" or "cuda[:N]"

    @property
    def first(self) -> bool:
        """Return whether this is rank 0."""
        return self.index == 0

    def each(self, make: Callable[[], T]) -> T:
        """Run `make` on every rank and return its own result; an X2CTError on any rank ends all of them.

        Rank 0 raises it, with the rank that failed; the others raise `ReportedElsewhere`.
        """
        if self.count == 1:
            return make()
        result, error = _attempt(make)
        errors: list[X2CTError | None] = [None] * self.count
        with self._together():
            dist.all_gather_object(errors, error)
        for rank, failure in enumerate(errors):
            self._raise(failure, f"rank {rank}: " if rank else "")
        return cast(T, result)

    def same(self, make: Callable[[], T]) -> T:
        """Run `make` on rank 0 alone, while the others wait, and return its result on all; errors are as in `each`."""
        if self.count == 1:
            return make()
        outcome = list(_attempt(make)) if self.first else [None, None]
        with self._together():
            dist.broadcast_object_list(outcome)
        result, error = outcome
        self._raise(cast(X2CTError | None, error))
        return cast(T, result)

    def require_equal(self, source: str, values: Callable[[], Mapping[str, object]], hint: str) -> None:
        """Raise InputError, as `each` does, where a rank has another value of a field than rank 0."""
        if self.count == 1:
            return
        own = values()
        expected = self.same(lambda: own)

        def compare() -> None:
            for name in sorted(own.keys() | expected.keys()):
                value, first = own.get(name), expected.get(name)
                if value != first:
                    raise InputError.of(source, name, found=value, expected=f"{first} as on rank 0", hint=hint)

        self.each(compare)

    def sum_gradients(self, parameters: Iterable[Tensor], loss: float) -> float:
        """Replace the gradients by their sums over the ranks, float32; return the sum of the losses."""
        if self.count == 1:
            return loss
        gradients = [value.grad for value in parameters if value.grad is not None]
        buffer = torch.cat([*(value.flatten() for value in gradients), gradients[0].new_tensor([loss])])
        with self._together():
            dist.all_reduce(buffer)
        totals = torch.split(buffer[:-1], [gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, totals, strict=True):
            gradient.copy_(total.view_as(gradient))
        return float(buffer[-1])

    def agreed(self, seconds: float, caught: list[str]) -> tuple[float, list[str]]:
        """Return rank 0's seconds, and the name of the signal that any rank has caught, if one has.

        Of one rank, the list itself is returned, so that a later signal counts as well.
        """
        if self.count == 1:
            return seconds, caught
        number = signal.Signals[caught[0]] if caught else 0
        values = torch.tensor([seconds if self.first else 0.0, number], dtype=torch.float64)
        with self._together():
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return float(values[0]), [signal.Signals(int(values[1])).name] if values[1] else []

    def _raise(self, error: X2CTError | None, prefix: str = "") -> None:
        if error is None:
            return
        if not self.first:
            raise ReportedElsewhere(error)
        raise type(error)(f"{prefix}{error}") if prefix else error

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Turn what PyTorch raises where a rank is gone into an error with the remedy."""
        try:
            yield
        except RuntimeError as error:
            reason = (str(error).splitlines() or [""])[0]
            raise X2CTError(f"rank {self.index}: lost the other ranks ({reason}); go on with --resume") from error


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the ranks that torchrun started, for the length of a block; without torchrun there is one rank.

    Each rank takes the GPU of its number on the machine. Gradients are summed by NCCL on GPUs and by Gloo on CPUs. The
    device is "auto", "cpu" or "cuda"; with one rank also "cuda:N".

    Raises:
        InputError: the environment is incomplete, or there are more ranks than GPUs on a machine.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Ranks(device=device)
        return
    count = _number("WORLD_SIZE")
    index, local, neighbours = _number("RANK", count), _number("LOCAL_RANK", count), _number("LOCAL_WORLD_SIZE")
    cuda = device != "cpu" and torch.cuda.is_available()
    # Its functions keep the group of their first import as a default. Imported later (by Muon or FlopCounterMode), they
    # would keep this one and Gloo's threads beyond `destroy_process_group`, and a process may then abort at its exit.
    importlib.import_module("torch.distributed.nn")
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=LONGEST_WAIT, rank=index, world_size=count
        )
    except (RuntimeError, ValueError) as error:
        raise X2CTError(f"rank {index}: can't join the other ranks: {error}") from error
    try:
        everyone = Ranks(index, count)
        yield Ranks(index, count, everyone.each(lambda: _device(device, local, neighbours)))
    finally:
        dist.destroy_process_group()


def _device(device: str, local: int, neighbours: int) -> str:
    """Return the device of a rank, by its number on the machine."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if ":" in device:
        expected = "auto, cpu or cuda with several ranks, each of which takes a GPU of its own"
        raise InputError.of("--device", "device", found=device, expected=expected)
    if neighbours > torch.cuda.device_count():
        expected = f"at most {torch.cuda.device_count()}, the number of GPUs"
        hint = "set torchrun's --nproc-per-node, or use --device cpu"
        raise InputError.of("torchrun", "ranks on this machine", found=neighbours, expected=expected, hint=hint)
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def _number(name: str, below: int | None = None) -> int:
    """Return a number that torchrun sets in the environment."""
    value = os.environ.get(name)
    if value is None or not value.isdecimal() or (below is not None and int(value) >= below):
        bound = "" if below is None else f" below WORLD_SIZE {below}"
        hint = "start the training with torchrun, or unset WORLD_SIZE"
        shown = "nothing" if value is None else repr(value)
        raise InputError.of("environment", name, found=shown, expected=f"a number{bound}", hint=hint)
    return int(value)


def _attempt(make: Callable[[], T]) -> tuple[T | None, X2CTError | None]:
    """Return a result, or the error instead of it."""
    try:
        return make(), None
    except X2CTError as error:
        return None, error
