"""`x2ct quantize`: the ranges of the inputs of the denoiser's convolutions, for computing them in 8 bits.

Only the 3^3 convolutions, where the work is, compute in 8 bits. Weights are rounded when the network is loaded. What
has to be known beforehand is a range for each convolution's input: it is found on the states that runs on training
patients pass through, as the one with the least mean squared error of rounding, and stored in the bundle
(`networks.denoiser.int8`). Then the validation patients' volumes are sampled in f32 and in 8 bits from the same noise;
ranges with which they differ too much are not stored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.data.shards import Patient, ShardSet
from x2ct.engine.conditioning import study_of
from x2ct.engine.sampler import Sampler
from x2ct.errors import InputError, MissingRuntimeError, X2CTError
from x2ct.export.onnxgraph import folded, showing
from x2ct.export.parity import Array, sampled
from x2ct.io import report as reports
from x2ct.runtimes.cache.cache import Say
from x2ct.runtimes.discovery import backend_status, find_runtime

Range = tuple[float, float]

BACKEND = "openvino"
BOUND_HU = 5.0  # mean absolute difference of a whole sample from that in f32, at most: that of every lower precision

LEVELS = 256
_FRACTIONS = np.linspace(0.3, 1.0, 71)  # of the largest value, at which a range may end
_KEPT = 4096  # values a state, of each convolution's input: enough for an error's mean


@dataclass(frozen=True)
class Quantised:
    """The result of a calibration on training patients, judged on validation patients.

    `ranges` are, by convolution, the least value and the largest of what it is given, found on so many `states` of the
    network's inputs. `rows` are by precision, f32 first: of the validation patients' volumes the mean absolute and RMS
    difference from f32 in HU, and the seconds of an evaluation.
    """

    ranges: Mapping[str, Range]
    states: int
    calibrated_on: tuple[str, ...]
    judged_on: tuple[str, ...]
    rows: Mapping[str, Mapping[str, float]]

    def changes(self, bundle: Bundle) -> dict[str, Any]:
        """Return what the bundle stores."""
        return {"networks": replace(bundle.networks, denoiser=replace(bundle.networks.denoiser, int8=self.ranges))}

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a report."""
        return {**vars(self), "versions": reports.versions()}


def best_range(values: Array) -> Range:
    """Return the range of float32 `values` with the least mean squared error in 8 bits: what is rare and far is cut."""
    least, most = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    ends = [(least, part * most) if most >= -least else (part * least, most) for part in map(float, _FRACTIONS)]
    return min(ends, key=lambda ends: float(np.mean(np.square(rounded(values, ends) - values), dtype=np.float64)))


def rounded(values: Array, ends: Range) -> Array:
    """Return values rounded as in the backend: a range in 255 steps, moved so that 0 is one of its values."""
    step = max(ends[1] - ends[0], 1e-30) / (LEVELS - 1)
    zero = round(-ends[0] / step)
    whole = np.clip(np.round(values / step) + zero, 0, LEVELS - 1)
    return np.asarray((whole - zero) * step, np.float32)


def convolutions(model: onnx.ModelProto) -> dict[str, str]:
    """Return the graph's 3^3 convolutions by name, and the tensor that each is given."""
    graph = folded(model).graph  # weights that are kept in float16 go through a Cast
    kernels = {one.name for one in graph.initializer if list(one.dims)[2:] == [3, 3, 3]}
    return {node.name: node.input[0] for node in graph.node if node.op_type == "Conv" and node.input[1] in kernels}


def quantise(
    bundle: Bundle,
    shards: ShardSet,
    *,
    patches: int = 24,
    side: int = 48,
    threads: int = 0,
    say: Say = lambda line: None,
) -> Quantised:
    """Find ranges on training patients, and judge them on validation patients.

    The ranges are found in so many runs on `patches` of `side` voxels along each axis; `say` is called with one line
    before each stage. Raises InputError: shards without training or validation patients, or a network without such
    convolutions; MissingRuntimeError: OpenVINO isn't here, or the processor has no instructions for 8 bits; X2CTError:
    the validation patients' volumes differ by more than `BOUND_HU`.
    """
    _check_processor()
    training, validation = shards.select("train"), shards.select("validation")
    for patients, split in ((training, "training"), (validation, "validation")):
        if not patients:
            raise InputError.of(shards.path, "patients", found=f"none for {split}", expected="one or more")
    # Values range otherwise in an abdomen than in a chest: the training patients of the regions that are judged.
    judged = {patient.region for patient in validation}
    training = tuple(patient for patient in training if patient.region in judged) or training
    calibrated_on, judged_on = (tuple(one.id for one in patients) for patients in (training[:patches], validation))
    with tempfile.TemporaryDirectory(prefix="x2ct-quantize-") as name:
        values = _observed(bundle, training, patches, side, threads, Path(name) / "watched.onnx", say)
        ranges = {name: best_range(np.concatenate(parts)) for name, parts in values.items()}
        states = max(map(len, values.values()))
        result = Quantised(ranges, states, calibrated_on, judged_on, {})
        quantised = bundle.save_as(Path(name) / f"{bundle.name}.x2ct", **result.changes(bundle))
        rows = _judged(quantised, validation, threads, say)
    if not rows["int8"]["mae_hu"] <= BOUND_HU:  # NaN is not
        raise X2CTError(
            f"model {bundle.name} in 8 bits: volumes differ from f32 by {rows['int8']['mae_hu']:.3g} HU on average, "
            f"expected at most {BOUND_HU:g}; nothing was stored"
        )
    return replace(result, rows=rows)


def _check_processor() -> None:
    status = backend_status(BACKEND)
    if not status["available"]:
        raise MissingRuntimeError(f"backend {BACKEND}: {status['reason']}")
    if "int8" not in status["precisions"]["cpu"]:
        raise MissingRuntimeError(
            "precision int8: this processor has no instructions that multiply 8-bit numbers into 32 (VNNI), without "
            "which it can't be tried"
        )


def _observed(
    bundle: Bundle, training: Sequence[Patient], patches: int, side: int, threads: int, file: Path, say: Say
) -> dict[str, list[Array]]:
    """Return some values of what each convolution is given in runs in f32 on patches, one array for each state.

    `file` becomes the denoiser's graph with the convolutions' inputs among its outputs.
    """
    networks, stride, grid = bundle.networks, bundle.patch.stride, bundle.grid
    model = onnx.load(bundle.file_of(networks.denoiser))
    inputs = convolutions(model)
    if not inputs:
        raise InputError.of(bundle.path, "denoiser", found="no 3^3 convolution", expected="one or more")
    onnx.save(showing(model, sorted(set(inputs.values()))), file)
    runtime = str(find_runtime(BACKEND).folder or "")
    encoder, lift, denoiser = (
        _core.Network(str(path), precision="f32", threads=threads, runtime_dir=runtime)
        for path in (bundle.file_of(networks.encoder), bundle.file_of(networks.lift), file)
    )
    seen: dict[str, list[Array]] = {name: [] for name in inputs}

    def watched(state: Mapping[str, Array]) -> dict[str, Array]:
        outputs = denoiser({**state, "x": state["x"].copy()})
        for name, tensor in inputs.items():
            values = outputs[tensor].ravel()
            seen[name].append(values[:: max(1, values.size // _KEPT)].copy())
        return outputs

    @cache
    def lifted(number: int) -> dict[str, Array]:
        """Return what the lift is given of a patient, whatever the patch."""
        ready = study_of(bundle, training[number].xrays(bundle.geometry, threads))
        features = encoder({"views": ready.views, "valid": ready.valid})
        return {**features, "P": ready.matrices, "valid": ready.valid}

    x, y, z = (min(side, whole) for whole in grid.shape)
    rng = np.random.default_rng(0)
    for number in range(patches):
        say(f"patch {number + 1} of {patches}")
        i, j, k = (
            int(rng.integers(0, (whole - own) // stride + 1)) * stride
            for whole, own in zip(grid.shape, (x, y, z), strict=True)
        )
        coords = np.ascontiguousarray(grid.coordinates()[None, :, i : i + x, j : j + y, k : k + z])
        condition = lift({**lifted(number % len(training)), "coords": coords})
        sampled(bundle, watched, condition, (x, y, z), number)
    return seen


def _judged(bundle: Bundle, patients: Sequence[Patient], threads: int, say: Say) -> dict[str, dict[str, float]]:
    """Return, by precision, the means over patients; f32, what "auto" is, and 8 bits."""
    samplers = [Sampler(bundle, precision=name, threads=threads) for name in ("f32", "auto", "int8")]
    rows_by_name: dict[str, list[tuple[float, ...]]] = {}
    for patient in patients:
        xrays = patient.xrays(bundle.geometry, threads)
        reference: Array | None = None
        for sampler in samplers:
            result = sampler.run(**xrays, seed=0, force=True)
            reference = result.volume.hu if reference is None else reference
            name = result.report["precision"]["denoiser"]
            say(f"{patient.id} in {name}")
            away = np.abs(result.volume.hu - reference)
            rms = float(np.sqrt(np.mean(np.square(away), dtype=np.float64)))
            seconds = result.report["timings"]["per_evaluation_s"]
            rows_by_name.setdefault(name, []).append((float(np.mean(away, dtype=np.float64)), rms, seconds))
    columns = ("mae_hu", "rms_hu", "per_evaluation_s")
    return {
        name: dict(zip(columns, map(float, np.mean(rows, axis=0)), strict=True)) for name, rows in rows_by_name.items()
    }


def markdown(result: Quantised) -> str:
    """Return the error and the time of an evaluation in 8 bits, beside the others, as a table."""
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
