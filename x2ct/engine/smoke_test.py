"""A one-step smoke of every backend, device and precision that says it can be used: does it, with a real model?

For `x2ct info --check`. First a device's kernels, each beside the CPU's on the same numbers. Then the posterior mean of
the bundled model on a small grid, which is one evaluation, from a made-up X-ray; compared with the first that ran on
the CPU in f32, for a runtime that computes something else is no use either.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.engine.sampler import Sampler
from x2ct.errors import MissingRuntimeError, X2CTError
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume
from x2ct.io.xray.radiograph import XRay

STRIDES = 4  # the grid's side, in the model's strides

BOUND_HU = {"f32": 0.5, "tf32": 2.0, "bf16": 20.0, "f16": 5.0, "int8": 20.0}
"""Mean absolute difference to f32 of the posterior mean on the small grid."""

PASSED, FAILED, UNTRIED = "passed", "failed", "not tried"


@dataclass(frozen=True)
class Check:
    """The result of one runtime; of a device's own work `backend` is "kernel", and `precision` the kind of work."""

    backend: str
    device: str
    precision: str
    result: str  # PASSED, FAILED or UNTRIED
    text: str  # what came out, or why not
    seconds: float  # of load, compilation and evaluation

    def to_json(self) -> dict[str, Any]:
        """The check as plain data."""
        return {**vars(self), "seconds": round(self.seconds, 3)}


def kernels(device: str) -> Iterator[Check]:
    """Compare the kernels of a device ("cpu", "cuda" or "cuda:N") with the CPU's, one after the other.

    Raises MissingRuntimeError where there is no such device.
    """
    started = time.perf_counter()
    for one in _core.check_device(device):
        text = "the CPU's bits" if one["difference"] == 0 else f"{one['difference']:.2g} from the CPU's"
        text += f", at most {one['bound']:g}" if one["bound"] else ""
        seconds, started = time.perf_counter() - started, time.perf_counter()
        yield Check("kernel", device, one["name"], PASSED if one["passed"] else FAILED, text, seconds)


def check(abilities: Sequence[Mapping[str, Any]], model: str = "chest", device: str = "") -> Iterator[Check]:
    """Try with a model which of `x2ct.commands.info_facts.abilities` that claim to be usable are, one after the other.

    All devices are tried, or only `device`, beside a runtime of the CPU in f32 to compare with. Where no such runtime
    ran, a result that nothing was compared with is "not tried". Raises InputError where the bundle can't be opened.
    """
    bundle = Bundle.load(model)
    reference: Volume | None = None
    usable = [one for one in abilities if one["usable"]]
    # The others are compared with the first, which is f32 on the CPU.
    usable.sort(key=lambda one: (one["precision"] != "f32", one["device"] != "cpu"))
    kind = device.partition(":")[0]
    for one in usable:
        can_refer = (one["device"], one["precision"]) == ("cpu", "f32")
        if kind and one["device"] != kind and not (can_refer and reference is None):
            continue
        if one["device"] == kind:
            one = {**one, "device": device}
        started = time.perf_counter()
        name = one["backend"], one["device"], one["precision"]
        try:
            volume = _mean(bundle, *name)
        except (X2CTError, MemoryError) as error:
            result, text = FAILED, str(error) or type(error).__name__
            # That nobody has made torch's files, a typed graph or int8's ranges is no lie about the runtime.
            made_first = ("make it: x2ct export", "make it: x2ct build", "find them: x2ct quantize")
            if isinstance(error, MissingRuntimeError) and any(command in text for command in made_first):
                result = UNTRIED
        else:
            reference = volume if reference is None and can_refer else reference
            if reference is None:
                result = UNTRIED
                text = "ran, and no runtime of the CPU in f32 to compare it with: pip install openvino or onnxruntime"
            else:
                away = float(np.mean(np.abs(volume.hu - reference.hu), dtype=np.float64))
                result = PASSED if away <= BOUND_HU[one["precision"]] else FAILED  # NaN is not
                text = "the first" if volume is reference else f"{away:.3g} HU from the first"
        yield Check(*name, result, text, time.perf_counter() - started)


def _mean(bundle: Bundle, backend: str, device: str, precision: str) -> Volume:
    side = STRIDES * bundle.patch.stride
    grid = Grid((side, side, side), bundle.grid.spacing_mm)
    rows, columns = (np.linspace(-1, 1, size, dtype=np.float32) for size in bundle.xray.shape)
    hump = bundle.xray.reference_p99[0] * np.clip(1 - rows[:, None] ** 2 - columns**2, 0, 1)
    view = {bundle.geometry.views[0].name: XRay(hump.astype(np.float32), calibrated=True)}
    sampler = Sampler(bundle, device=device, backend=backend, precision=precision, grid=grid)
    return sampler.run(mean=True, force=True, **view).volume  # type: ignore[arg-type]
