"""From a bundle to what one machine runs: the denoiser's typed graph, and TensorRT plans of all three networks.

The typed graph is proven first (`rounding.py`), and kept in the cache: what proves it takes longer than what makes it.
The builder runs in a thread of its own, so that Ctrl-C ends it at its next step.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.files.text import Json
from x2ct.runtimes.cache.cache import Build, Cache, Engine, Recipe, Say, unchanged
from x2ct.runtimes.cache.engines import TENSORRT, Machine, Volumes, plan_recipe, typed_recipe

Step = Callable[[int, int, str], None]

PROOF = "x2ct.rounding"  # the entry of a typed graph's metadata that holds what was measured on it, as JSON


@dataclass(frozen=True)
class PlanOptions:
    """The denoiser's precision ("bf16", "f16", "tf32" or "f32"), the volumes (None: the bundle's grid), the builder.

    `workspace` is the bytes that a kernel may use beside its tensors, 0 for all there is; `effort` is 0 to 5, how long
    kernels are compared.
    """

    precision: str = "bf16"
    volumes: Volumes | None = None
    workspace: int = 0
    effort: int = 3
    device: str = "cuda"


@dataclass(frozen=True)
class Built:
    """Each compiled engine, by its file name, and what was measured on the typed graph."""

    engines: Mapping[str, Engine]
    rounding: Mapping[str, Json]

    def to_json(self) -> dict[str, Json]:
        """Return the engines and the measurements as plain data."""
        return {"engines": {name: one.to_json() for name, one in self.engines.items()}, "rounding": dict(self.rounding)}


def typed_graph(bundle: Bundle, precision: str, cache: Cache, say: Say = lambda _: None) -> Built:
    """Return the denoiser's graph in a precision, from the cache or made and proven; see `rounding.typed_denoiser`."""
    import onnx

    def build(target: Path) -> None:
        from x2ct.export.rounding import typed_denoiser

        rounding = typed_denoiser(bundle, precision, say)
        entry = rounding.typed.model.metadata_props.add()
        entry.key, entry.value = PROOF, json.dumps(rounding.to_json())
        target.write_bytes(rounding.typed.model.SerializeToString(deterministic=True))

    engine = cache.obtain(typed_recipe(bundle, precision), unchanged(build, _checksums(bundle)), say)
    metadata = {entry.key: entry.value for entry in onnx.load(engine.path).metadata_props}
    proof: dict[str, Json] = json.loads(metadata.get(PROOF, "{}"))
    return Built({engine.path.name: engine}, proof)


def build_plans(
    bundle: Bundle, options: PlanOptions, cache: Cache, *, say: Say = lambda _: None, step: Step = lambda *_: None
) -> Built:
    """Return TensorRT plans of a bundle's networks, from the cache or built here.

    `say` is called with one line before each stage, `step` with (steps done, of how many, the builder's phase). Raises
    InputError: volumes that the model can't take; MissingRuntimeError: TensorRT, a GPU or a package is missing;
    X2CTError: the builder failed (MemoryLimitError: on memory), or the typed graph is past its bounds.
    """
    typed, plans = builds(bundle, options, cache, say=say, step=step)
    engines = dict(typed.engines)
    for plan, build in plans:
        say(f"building {plan.file} in {plan.precision}")
        engines[plan.file] = cache.obtain(plan, build, say)
    return Built(engines, typed.rounding)


def builds(
    bundle: Bundle, options: PlanOptions, cache: Cache, *, say: Say = lambda _: None, step: Step = lambda *_: None
) -> tuple[Built, list[tuple[Recipe, Build]]]:
    """Return the typed graph, and for each plan of `build_plans` its recipe and what builds it.

    The typed graph and the kernels' timings lie in `cache`, wherever the plans go.
    """
    shape = bundle.grid.shape
    volumes = options.volumes or Volumes(shape, shape, shape)
    volumes.check(bundle.patch.stride)
    machine = Machine.here(options.device)
    typed = typed_graph(bundle, options.precision, cache, say)
    [denoiser] = (one.path for one in typed.engines.values())
    plans = []
    flags = {"workspace": str(options.workspace), "effort": str(options.effort)}
    for name, network in bundle.networks.items():
        precision, source = "f32", bundle.file_of(network)
        if name == "denoiser":
            precision, source = options.precision, denoiser
        plan = plan_recipe(bundle, network, precision, volumes, machine, flags)
        build = _builder(source, plan, options, machine, cache, step)
        plans.append((plan, unchanged(build, _checksums(bundle))))
    return typed, plans


def _checksums(bundle: Bundle) -> dict[Path, str]:
    return {bundle.path / name: file.sha256 for name, file in bundle.files.items()}


def _builder(
    source: Path, plan: Recipe, options: PlanOptions, machine: Machine, cache: Cache, step: Step
) -> Callable[[Path], None]:
    ended = threading.Event()
    # One file of kernels' timings for a release of TensorRT and a kind of GPU.
    timings = hashlib.sha256(f"{machine.runtime}, {machine.device}".encode()).hexdigest()[:16]

    def report(phase: str, done: int, total: int) -> bool:
        step(done, total, phase)
        return not ended.is_set()

    def build(target: Path) -> None:
        with ThreadPoolExecutor(1) as thread:
            work = thread.submit(
                _core.build_plan,
                str(source),
                str(target),
                {name: (shapes[0], shapes[1], shapes[2]) for name, shapes in plan.profile.items()},
                backend=TENSORRT,
                device=options.device,
                precision=plan.precision,
                workspace_bytes=options.workspace,
                effort=options.effort,
                timing_cache=str(cache.folder / TENSORRT / f"timings-{timings}.bin"),
                progress=report,
                runtime_dir=machine.runtime_dir,
            )
            try:
                work.result()
            except BaseException:
                ended.set()
                raise

    return build
