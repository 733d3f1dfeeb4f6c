"""Is 8-bit worth it on this processor? The denoiser quantised by NNCF, its volume and its time beside f32 and bf16.

    pip install nncf==3.4.0
    python benchmarks/int8.py chest --shards SHARDS -o benchmarks/results/int8-cpu

Static quantisation after training (symmetric weights, asymmetric activations), calibrated on the states that runs
on training people pass through: noisy patches of their grid, at every noise level from sigma_max down, as the sampler
gives them to the network. "all" quantises all convolutions, "3^3" the 3^3 ones alone, where the work is. Encoder and
lift stay as they are. Judged on the validation person, from the same seed: how far the volume is from that in f32, what
either is worth beside the true CT, and how long an evaluation takes. Rows take turns round by round, and the least time
of each counts, so that a busy machine disturbs the ratios little.

NNCF is no dependency of x2ct; without it this says what to install.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np
import numpy.typing as npt

from x2ct import _core, output, report
from x2ct.bundle import Bundle
from x2ct.conditioning import conditions
from x2ct.data import ShardSet
from x2ct.data.shards import Person, resample
from x2ct.drr import calibrated_views
from x2ct.evaluation.metrics import psnr
from x2ct.schedules import plan

Array = npt.NDArray[np.float32]
Tensors = dict[str, Array]
Network = Callable[[Tensors], Tensors]
NNCF = "3.4.0"
VARIANTS = (("all", True, "f32"), ("3^3", True, "f32"), ("3^3", False, "f32"), ("3^3", False, "bf16"))
"""Which convolutions; whether NNCF corrects biases, by means over all noise levels; what the rest computes in."""


class Study:
    """One person's X-rays through encoder and lift, in f32: what the denoiser is conditioned on."""

    def __init__(self, runtime: Runtime, person: Person) -> None:
        bundle = runtime.bundle
        xrays = calibrated_views(person.hu(), person.index_to_mm, bundle.geometry, person.id, runtime.threads)
        self.person, self.runtime = person, runtime
        self.ready = conditions(bundle, xrays)
        self.features = runtime.encoder({"views": self.ready.views, "valid": self.ready.valid})["features"]

    def conditions_of(self, origin: Sequence[int], shape: Sequence[int]) -> Tensors:
        """Of a patch of the model's grid."""
        (i, j, k), (x, y, z) = origin, shape
        coords = self.runtime.bundle.grid.coordinates()[None][..., i : i + x, j : j + y, k : k + z]
        given = {"features": self.features, "P": self.ready.matrices, "valid": self.ready.valid}
        return self.runtime.lift({**given, "coords": np.ascontiguousarray(coords, np.float32)})


class Runtime:
    """OpenVINO by its Python module: quantised models live in memory."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import openvino

        self.bundle, self.threads = bundle, threads
        self.core = openvino.Core()
        networks = bundle.networks
        self.encoder, self.lift = (
            self.compiled(self.read(one.file), "f32") for one in (networks.encoder, networks.lift)
        )

    def read(self, file: str) -> Any:
        """One of the bundle's graphs, as OpenVINO has it."""
        return self.core.read_model(str(self.bundle.path / file))

    def compiled(self, model: Any, precision: str) -> Network:
        """A graph as a function of arrays."""
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
        if self.threads:
            options["INFERENCE_NUM_THREADS"] = self.threads
        compiled = self.core.compile_model(model, "CPU", options)

        def run(inputs: Tensors) -> Tensors:
            found = compiled(inputs)
            return {port.get_any_name(): np.array(found[port]) for port in compiled.outputs}

        return run


def sample(
    network: Network, bundle: Bundle, given: Tensors, shape: Sequence[int], seed: int, keep: list[Tensors] | None = None
) -> Array:
    """A run of the bundle's solver from the noise of `seed`, in HU; what the network was given goes to `keep`."""

    def step(x: Array, sigma: float) -> Array:
        inputs = {"x": x[None, None].copy(), "sigma": np.array([sigma], np.float32), **given}
        if keep is not None:
            keep.append(inputs)
        return network(inputs)["denoised"][0, 0]

    return bundle.intensity.to_hu(_core.run(step, plan(bundle.diffusion).table, tuple(shape), seed=seed))


def calibration(runtime: Runtime, studies: list[Study], network: Network, side: int, patches: int) -> list[Tensors]:
    """States of runs on patches drawn from the studies' grids, by a fixed seed."""
    rng = np.random.default_rng(0)
    bundle, stride = runtime.bundle, runtime.bundle.patch.stride
    states: list[Tensors] = []
    for number in range(patches):
        study = studies[number % len(studies)]
        origin = [int(rng.integers(0, (whole - side) // stride + 1)) * stride for whole in bundle.grid.shape]
        shape = [side] * 3
        sample(network, bundle, study.conditions_of(origin, shape), shape, seed=number, keep=states)
        say(f"calibration: patch {number + 1} of {patches}, {study.person.id}")
    return states


def quantised(model: Any, states: list[Tensors], which: str, corrected: bool) -> Any:
    import nncf

    heavy = [node for node in model.get_ordered_ops() if node.get_type_name() in ("Convolution", "MatMul")]
    # The noise level's matrix products are next to no work, and NNCF takes what is added to them for a bias.
    spared = {"all": [[]], "3^3": [[], [1, 1, 1], [2, 2, 2]]}[which]
    ignored = nncf.IgnoredScope(names=[node.get_friendly_name() for node in heavy if kernel(node) in spared])
    return nncf.quantize(
        model,
        nncf.Dataset(states),
        subset_size=len(states),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        ignored_scope=ignored,
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=not corrected),
    )


def kernel(node: Any) -> list[int]:
    """A convolution's sides; of a matrix product none."""
    return list(node.input(1).get_partial_shape().to_shape())[2:]


def run(options: argparse.Namespace) -> dict[str, Any]:
    import openvino

    bundle = Bundle.load(options.bundle)
    runtime = Runtime(bundle, options.threads)
    file = bundle.networks.denoiser.file
    shards = ShardSet.open(options.shards)
    training, [validation, *_] = shards.select("train"), shards.select("validation")
    precise = runtime.compiled(runtime.read(file), "f32")
    studies = [Study(runtime, person) for person in training[: options.people]]
    states = calibration(runtime, studies, precise, options.side, options.patches)
    rows: dict[str, Network] = {"f32": precise, "bf16": runtime.compiled(runtime.read(file), "bf16")}
    for which, corrected, rest in VARIANTS:
        name = f"int8 {which}, {'biases corrected' if corrected else 'as it is'}, rest {rest}"
        rows[name] = runtime.compiled(quantised(runtime.read(file), states, which, corrected), rest)
    shape = options.shape or bundle.grid.shape
    stride = bundle.patch.stride
    sides = zip(bundle.grid.shape, shape, strict=True)
    origin = [(whole - side) // 2 // stride * stride for whole, side in sides]
    study = Study(runtime, validation)
    given = study.conditions_of(origin, shape)
    part = tuple(slice(begin, begin + side) for begin, side in zip(origin, shape, strict=True))
    truth = resample(validation, bundle.grid)[part]
    volumes = {}
    for name, network in rows.items():
        volumes[name] = sample(network, bundle, given, shape, seed=0)
        say(f"sampled with {name}")
    seconds = times(rows, given, shape, options.rounds)
    reference = volumes["f32"]
    return {
        "bundle": {"name": bundle.name, "sha256": bundle.checksum},
        "openvino": openvino.__version__,
        "nncf": options.nncf,
        "processor": processor(),
        "shape": list(shape),
        "threads": options.threads,
        "validation": validation.id,
        "calibrated_on": {"people": [s.person.id for s in studies], "states": len(states), "side": options.side},
        "rounds": options.rounds,
        "rows": [
            {
                "precision": name,
                "min_s": round(min(seconds[name]), 4),
                "median_s": round(float(np.median(seconds[name])), 4),
                "times_f32": round(min(seconds[name]) / min(seconds["f32"]), 3),
                "times_bf16": round(min(seconds[name]) / min(seconds["bf16"]), 3),
                "mae_hu": round(float(np.mean(np.abs(volumes[name] - reference))), 3),
                "psnr_to_f32_db": None if name == "f32" else round(psnr(reference, volumes[name]), 2),
                "psnr_to_truth_db": round(psnr(truth, volumes[name]), 3),
            }
            for name in rows
        ],
    }


def times(rows: dict[str, Network], given: Tensors, shape: Sequence[int], rounds: int) -> dict[str, list[float]]:
    """Seconds of an evaluation, rows in turn; one round before warms up and is not counted."""
    noise = np.random.default_rng(0).standard_normal((1, 1, *shape), np.float32)
    inputs = {"x": noise, "sigma": np.ones(1, np.float32), **given}
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, network in rows.items():
            started = time.perf_counter()
            network(inputs)
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def processor() -> str:
    from x2ct.built.torchartefacts import processor as abilities

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{model} ({abilities()})"


def markdown(found: dict[str, Any]) -> str:
    people = ", ".join(found["calibrated_on"]["people"])
    shape = " x ".join(map(str, found["shape"]))
    lines = [
        f"{found['bundle']['name']}, {shape}, {found['processor']}, {found['threads']} threads; "
        f"OpenVINO {found['openvino']}, NNCF {found['nncf']}.",
        f"Calibrated on {found['calibrated_on']['states']} states of {people}; judged on {found['validation']}; "
        f"least of {found['rounds']} rounds.",
        "",
        "| denoiser | s per evaluation | times f32 | times bf16 | mean HU from f32 | PSNR to f32 | PSNR to the CT |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        decibel = "" if row["psnr_to_f32_db"] is None else f"{row['psnr_to_f32_db']:.1f}"
        lines.append(
            f"| {row['precision']} | {row['min_s']:.3f} | {row['times_f32']:.2f} | {row['times_bf16']:.2f} "
            f"| {row['mae_hu']:.2f} | {decibel} | {row['psnr_to_truth_db']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a bundle's folder or name")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix")
    parser.add_argument("--people", type=int, default=4, help="training people to calibrate on")
    parser.add_argument("--patches", type=int, default=24)
    parser.add_argument("--side", type=int, default=48, help="of a patch to calibrate on, in voxels")
    parser.add_argument("--shape", type=int, nargs=3, help="judge on the middle of the grid only")
    parser.add_argument("-n", "--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    try:
        import nncf
    except ImportError:
        sys.exit(f"int8.py: nncf is not installed: pip install nncf=={NNCF}")
    options.nncf = nncf.__version__
    found = run(options)
    report.write_json(found, options.output.with_suffix(".json"))
    output.write_atomically(options.output.with_suffix(".md"), markdown(found).encode())
    print(markdown(found))


if __name__ == "__main__":
    main()
