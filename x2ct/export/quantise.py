"""`x2ct quantize`: between what values lies what the denoiser's convolutions are given, for computing them in 8 bits.

Only the 3^3 convolutions, where the work is, compute in 8 bits; everything around them, the noise level's arithmetic
above all, stays as it is. Weights are rounded when the network is loaded. What has to be known beforehand is a range
for each convolution's input: it is found on the states that runs on training patients pass through, as the one with the
least mean squared error of rounding, and stored in the bundle (`networks.denoiser.int8`), a few numbers in all. Then
the validation patients' volumes are sampled in f32 and in 8 bits from the same noise; ranges with which they differ too
much are not stored.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.bundle.folder import check_target
from x2ct.data.shards import Patient, ShardSet
from x2ct.engine.conditioning import conditions
from x2ct.engine.sampler import Result, SampleOptions, Sampler
from x2ct.errors import InputError, MissingRuntimeError, X2CTError
from x2ct.files.atomic import check_writable
from x2ct.io import report as reports
from x2ct.render.drr import calibrated_views
from x2ct.runtimes.discovery import backend_status, find_runtime

Array = npt.NDArray[np.float32]
Range = tuple[float, float]
Say = Callable[[str], None]

BACKEND = "openvino"
BOUND_HU = 5.0
"""Mean absolute difference of a whole sample from that in f32, at most: that of every lower precision."""

LEVELS = 256
_FRACTIONS = np.linspace(0.3, 1.0, 71)  # of the largest value, at which a range may end
_KEPT = 4096  # values a state, of each convolution's input: enough for an error's mean


@dataclass(frozen=True)
class Quantised:
    """What was found.

    Attributes:
        ranges: by convolution, the least value and the largest of what it is given.
        states: how many of the network's inputs they were found on.
        calibrated_on, judged_on: the training and the validation patients.
        rows: by precision, f32 first: of the validation patients' volumes the mean absolute and RMS difference from f32
            in HU, and the seconds of an evaluation.
    """

    ranges: Mapping[str, Range]
    states: int
    calibrated_on: tuple[str, ...]
    judged_on: tuple[str, ...]
    rows: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Plain data for a report."""
        ranges = {name: list(ends) for name, ends in self.ranges.items()}
        return {**vars(self), "ranges": ranges, "versions": reports.versions()}


def best_range(values: Array) -> Range:
    """The range for 8 bits with the least mean squared error: what is rare and far away is cut.

    Args:
        values: float32, of what is to be rounded.
    """
    least, most = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    ends = [(least, part * most) if most >= -least else (part * least, most) for part in map(float, _FRACTIONS)]
    return min(ends, key=lambda ends: float(np.mean(np.square(rounded(values, ends) - values), dtype=np.float64)))


def rounded(values: Array, ends: Range) -> Array:
    """Values in 8 bits, as the backend rounds them: a range in 255 steps, moved so that 0 is one of its values."""
    step = max(ends[1] - ends[0], 1e-30) / (LEVELS - 1)
    zero = round(-ends[0] / step)
    whole = np.clip(np.round(values / step) + zero, 0, LEVELS - 1)
    return np.asarray((whole - zero) * step, np.float32)


def convolutions(model: onnx.ModelProto) -> dict[str, str]:
    """The graph's 3^3 convolutions by name, and the tensor that each is given."""
    sizes = {one.name: list(one.dims) for one in model.graph.initializer}
    # Weights that are kept in float16 go through a Cast.
    sizes |= {
        node.output[0]: sizes[node.input[0]]
        for node in model.graph.node
        if node.op_type == "Cast" and node.input[0] in sizes
    }
    return {
        node.name: node.input[0]
        for node in model.graph.node
        if node.op_type == "Conv" and sizes.get(node.input[1], [])[2:] == [3, 3, 3]
    }


class Watch:
    """The bundle's networks in f32, and the values that go into the denoiser's convolutions when they run.

    Args:
        bundle: the model.
        side: of the patches to run it on, in voxels.
        threads: of the runtime.
        folder: where the denoiser's graph is put, with the convolutions' inputs among its outputs.
    """

    def __init__(self, bundle: Bundle, side: int, threads: int, folder: Path) -> None:
        self.bundle, self.side, self.threads = bundle, side, threads
        networks = bundle.networks
        model = onnx.load(bundle.file_of(networks.denoiser))
        self.inputs = convolutions(model)
        if not self.inputs:
            raise InputError.of(bundle.path, "denoiser", found="no 3^3 convolution", expected="one or more")
        for name in sorted(set(self.inputs.values())):
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        watched = folder / "watched.onnx"
        onnx.save(model, watched)
        self._encoder, self._lift, self._denoiser = (
            _core.Network(
                str(path), precision="f32", threads=threads, runtime_dir=str(find_runtime(BACKEND).folder or "")
            )
            for path in (bundle.file_of(networks.encoder), bundle.file_of(networks.lift), watched)
        )
        self.states = 0
        self._studies: dict[str, dict[str, Array]] = {}
        self._seen: dict[str, list[Array]] = {name: [] for name in self.inputs}

    def run(self, patient: Patient, rng: np.random.Generator, seed: int) -> None:
        """Sample one patch of a patient's grid, and keep some of what the convolutions were given on the way."""
        bundle, study = self.bundle, self._study(patient)
        stride, shape = bundle.patch.stride, tuple(min(self.side, whole) for whole in bundle.grid.shape)
        i, j, k = (
            int(rng.integers(0, (whole - own) // stride + 1)) * stride
            for whole, own in zip(bundle.grid.shape, shape, strict=True)
        )
        x, y, z = shape
        coords = np.ascontiguousarray(bundle.grid.coordinates()[None, :, i : i + x, j : j + y, k : k + z], np.float32)
        condition = self._lift({**study, "coords": coords})

        def denoiser(now: Array, sigma: float) -> Array:
            outputs = self._denoiser({"x": now[None, None].copy(), "sigma": np.array([sigma], np.float32), **condition})
            for name, tensor in self.inputs.items():
                values = outputs[tensor].ravel()
                self._seen[name].append(values[:: max(1, values.size // _KEPT)].copy())
            self.states += 1
            return np.asarray(outputs["denoised"][0, 0])

        plan = _core.sampling_plan(self.bundle.diffusion, SampleOptions())
        _core.run(denoiser, plan.table, shape, seed=seed)

    def _study(self, patient: Patient) -> dict[str, Array]:
        """What the lift is given of a patient, whatever the patch; made once."""
        if patient.id not in self._studies:
            geometry = self.bundle.geometry
            xrays = calibrated_views(patient.hu(), patient.index_to_mm, geometry, patient.id, self.threads)
            ready = conditions(self.bundle, xrays)
            features = self._encoder({"views": ready.views, "valid": ready.valid})["features"]
            self._studies[patient.id] = {"features": features, "P": ready.matrices, "valid": ready.valid}
        return self._studies[patient.id]

    def ranges(self) -> dict[str, Range]:
        """The best of what was seen, by convolution."""
        return {name: best_range(np.concatenate(values)) for name, values in self._seen.items()}


def quantise(
    bundle: Bundle,
    shards: ShardSet,
    folder: Path,
    *,
    patches: int = 24,
    side: int = 48,
    threads: int = 0,
    say: Say | None = None,
) -> tuple[Bundle, Quantised]:
    """Find the ranges, and what they cost.

    Args:
        bundle: the model.
        shards: whose training patients they are found on, and whose validation patients they are judged on.
        folder: an empty one, in which the bundle with the ranges is put, for them to be judged.
        patches: how many runs they are found on.
        side: of each, in voxels.
        threads: of the runtime.
        say: called with one line before each stage.

    Returns:
        The bundle in `folder`, and what was found.

    Raises:
        InputError: shards without training or validation patients, or a network without such convolutions.
        MissingRuntimeError: OpenVINO isn't here, or the processor has no instructions for 8 bits.
        X2CTError: the validation patients' volumes differ by more than `BOUND_HU`.
    """
    tell = say or (lambda _: None)
    _check_processor()
    training, validation = shards.select("train"), shards.select("validation")
    for patients, split in ((training, "training"), (validation, "validation")):
        if not patients:
            raise InputError.of(shards.path, "people", found=f"none for {split}", expected="one or more")
    # Values range otherwise in an abdomen than in a chest: the training patients of the regions that are judged.
    judged = {patient.region for patient in validation}
    training = tuple(patient for patient in training if patient.region in judged) or training
    watch, rng = Watch(bundle, side, threads, folder), np.random.default_rng(0)
    for number in range(patches):
        tell(f"patch {number + 1} of {patches}")
        watch.run(training[number % len(training)], rng, number)
    ranges = watch.ranges()
    denoiser = replace(bundle.networks.denoiser, int8=ranges)
    manifest = replace(bundle, networks=replace(bundle.networks, denoiser=denoiser))
    quantised = Bundle.write(folder / f"{bundle.name}.x2ct", manifest, bundle.contents())
    rows = _judged(quantised, validation, threads, tell)
    result = Quantised(
        ranges,
        watch.states,
        tuple(dict.fromkeys(training[number % len(training)].id for number in range(patches))),
        tuple(patient.id for patient in validation),
        rows,
    )
    if not rows["int8"]["mae_hu"] <= BOUND_HU:  # NaN is not
        raise X2CTError(
            f"model {bundle.name} in 8 bits: volumes differ from f32 by {rows['int8']['mae_hu']:.3g} HU on average, "
            f"expected at most {BOUND_HU:g}; nothing was stored"
        )
    return quantised, result


def quantise_files(
    bundle: str | os.PathLike[str],
    shards: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    report: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Quantised:
    """Open, `quantise`, and write the bundle with what was found, whole or not at all; and a report, if asked for.

    Raises:
        X2CTError: (any of the family) as `quantise`; an input can't be opened, or an output can't be written.
    """
    check_target(Path(output))
    if report is not None:
        check_writable(report, (".json",))
    opened = Bundle.load(bundle)
    with tempfile.TemporaryDirectory(prefix="x2ct-quantize-") as folder:
        quantised, result = quantise(opened, ShardSet.open(shards), Path(folder), **options)
        Bundle.write(output, quantised, quantised.contents())
    if report is not None:
        reports.write_json(result.to_json(), report)
    return result


def markdown(result: Quantised) -> str:
    """What 8 bits cost and gain."""
    lines = [
        f"Ranges of {len(result.ranges)} convolutions from {result.states} states of "
        f"{', '.join(result.calibrated_on)}; judged on {', '.join(result.judged_on)}.",
        "",
    ]
    rows = [
        (name, f"{row['mae_hu']:.2f}", f"{row['rms_hu']:.2f}", f"{1e3 * row['per_evaluation_s']:.0f}")
        for name, row in result.rows.items()
    ]
    columns = "denoiser", "mean HU from f32", "RMS", "ms an evaluation"
    return "\n".join(lines + reports.markdown_table(columns, rows, text=1))


def _check_processor() -> None:
    status = backend_status(BACKEND, str(find_runtime(BACKEND).folder or ""))
    if not status["available"]:
        raise MissingRuntimeError(f"backend {BACKEND}: {status['reason']}")
    if "int8" not in status["precisions"]["cpu"]:
        raise MissingRuntimeError(
            "precision int8: this processor has no instructions that multiply 8-bit numbers into 32 (VNNI), without "
            "which it can't be tried"
        )


def _judged(bundle: Bundle, patients: Sequence[Patient], threads: int, tell: Say) -> dict[str, dict[str, float]]:
    """By precision, the means over patients; f32, what "auto" is, and 8 bits."""
    samplers = {name: Sampler(bundle, precision=name, threads=threads) for name in ("f32", "auto", "int8")}
    rows_by_name: dict[str, list[tuple[float, float, float]]] = {}
    for patient in patients:
        xrays = calibrated_views(patient.hu(), patient.index_to_mm, bundle.geometry, patient.id, threads)
        arguments: dict[str, Any] = {**xrays, "seed": 0}
        reference: Result | None = None
        for sampler in samplers.values():
            result = sampler.run(**arguments)
            reference = reference or result
            name = result.report["precision"]["denoiser"]
            tell(f"{patient.id} in {name}")
            away = np.abs(result.volume.hu - reference.volume.hu)
            rms = float(np.sqrt(np.mean(np.square(away), dtype=np.float64)))
            seconds = result.report["timings"]["per_evaluation_s"]
            rows_by_name.setdefault(name, []).append((float(np.mean(away, dtype=np.float64)), rms, seconds))
    columns = ("mae_hu", "rms_hu", "per_evaluation_s")
    return {
        name: dict(zip(columns, map(float, np.mean(rows, axis=0)), strict=True)) for name, rows in rows_by_name.items()
    }
