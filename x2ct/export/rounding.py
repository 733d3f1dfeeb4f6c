"""What a narrow type does to a denoiser: whether its values fit, and what its rounding costs, measured and bounded.

The values are scanned in float32, with every tensor inside as an output, on inputs over the range of sigma. The
rounding is that of a strongly typed runtime at its worst: sums of products in float32, as matrix units have them, and
every node's output rounded to the type (runtimes that fuse nodes round less). No runtime on a CPU does that: ONNX
Runtime computes float16 in float32 and has no Conv in bfloat16, OpenVINO fuses. So it is done here, by ONNX's reference
evaluator with PyTorch's convolutions; the runtimes prove that they take the graph, and their errors stand beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch.nn import functional

from x2ct import _core
from x2ct.bundle import Bundle
from x2ct.engine.sampler import SampleOptions
from x2ct.errors import X2CTError
from x2ct.export.parity import (
    Case,
    Evaluate,
    Row,
    Runtime,
    measure,
    open_onnxruntime,
    open_openvino,
    patches,
    projections,
    require,
    volume_difference,
    xrays,
)
from x2ct.export.precision import Typed, typed
from x2ct.files.text import Json

Array = npt.NDArray[np.float32]

F16_LARGEST = 65504.0
F16_SHARE = 0.25
"""Of float16's largest value, what the scan may find at most: a factor of four is left to inputs it hasn't seen."""

SIGMAS = 5
TOLERANCES = {"bf16": 1e-2, "f16": 1e-3}
"""Of one evaluation, RMS of the difference over RMS of float32's output. A number is rounded by up to 2^-9 and 2^-12 of
itself, and the layers' errors add up; the bundled model stays below a quarter of this."""

VOLUME_TOLERANCE_HU = {"bf16": 2.5, "f16": 0.5}
"""Of the final volume, the mean absolute difference; a scanner's own noise is ten times as much."""


@dataclass(frozen=True)
class VolumeRow:
    """The final volume of a run beside float32's, from the same noise.

    Attributes:
        shape: (X, Y, Z) voxels.
        steps: evaluations.
        mae_hu, psnr_db: the difference; PSNR's peak is the width of the HU window.
        tolerance_hu: what `mae_hu` may be at most.
    """

    shape: tuple[int, int, int]
    steps: int
    mae_hu: float
    psnr_db: float
    tolerance_hu: float

    def to_json(self) -> dict[str, Json]:
        """As plain data."""
        return {**vars(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class Rounding:
    """A typed denoiser and what was measured on it.

    Attributes:
        typed: the graph.
        peaks: the largest magnitude of each tensor inside, by name, the largest first.
        rows: one evaluation, by how it was run, sigma and patch.
        volume: the final volume; None for tf32, whose rounding is not in the graph.
    """

    typed: Typed
    peaks: Mapping[str, float]
    rows: tuple[Row, ...]
    volume: VolumeRow | None

    def to_json(self) -> dict[str, Json]:
        """What is told and kept of it."""
        largest = next(iter(self.peaks.items()), ("", 0.0))
        return {
            "precision": self.typed.precision,
            "measure": "RMS of the difference to float32 over the RMS of float32's output; of the volume in HU",
            "largest": {"tensor": largest[0], "magnitude": largest[1], "allowed": F16_SHARE * F16_LARGEST},
            "rows": [row.to_json() for row in self.rows],
            "volume": None if self.volume is None else self.volume.to_json(),
        }


def typed_denoiser(bundle: Bundle, precision: str, say: Callable[[str], None] | None = None) -> Rounding:
    """A bundle's denoiser in a precision, if its values fit and its rounding is within bounds.

    Args:
        bundle: the model.
        precision: "f32", "tf32", "bf16" or "f16".
        say: called with one line before each stage.

    Raises:
        InputError: an unknown precision.
        MissingRuntimeError: a package of the extra `train` is not installed.
        X2CTError: a value would overflow float16, or an error is above its bound; the text says which.
    """
    tell = say or (lambda _: None)
    canonical = onnx.load(bundle.file_of(bundle.networks.denoiser))
    graph = typed(canonical, precision)
    if not graph.inside:
        return Rounding(graph, {}, (), None)
    plain = typed(canonical, "f32").model
    tell("evaluating float32 over the range of sigma")
    references = tuple(_cases(bundle, plain))
    peaks = scan(plain, graph.inside, references)
    if precision == "f16":
        require_range(peaks)
    tell(f"measuring parity of {precision}")
    data, tolerance = graph.model.SerializeToString(), TOLERANCES[precision]
    rows = measure({"denoiser": data}, references, precision, tolerance, _runtimes(precision))
    require(rows)
    tell(f"sampling a volume in {precision}")
    volume = _volume(bundle, plain, graph, references)
    if not volume.mae_hu <= volume.tolerance_hu:
        raise X2CTError(
            f"parity failed, nothing written: the volume in {precision} is {volume.mae_hu:.3g} HU from float32's on "
            f"average, at most {volume.tolerance_hu:g} is allowed"
        )
    return Rounding(graph, peaks, rows, volume)


def scan(model: onnx.ModelProto, names: Iterable[str], cases: Iterable[Case]) -> dict[str, float]:
    """The largest magnitude of each named tensor of a float32 graph over the cases, the largest first."""
    inputs = {info.name for info in model.graph.input}
    shown = [name for name in names if name not in inputs]
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    outputs = {info.name for info in wide.graph.output}
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in shown if name not in outputs)
    run = open_onnxruntime()[1](wide.SerializeToString())
    peaks: dict[str, float] = {}
    for case in cases:
        tensors = {**case.inputs, **run(case.inputs)}
        for name in names:
            peaks[name] = max(peaks.get(name, 0.0), float(np.abs(tensors[name]).max()))
    return dict(sorted(peaks.items(), key=lambda item: -item[1]))


def require_range(peaks: Mapping[str, float]) -> None:
    """Refuse float16 where a value comes near its end.

    Raises:
        X2CTError: naming the largest.
    """
    name, largest = next(iter(peaks.items()))
    if not largest <= F16_SHARE * F16_LARGEST:
        raise X2CTError(
            f"f16: {name} reaches {largest:.4g}, at most {F16_SHARE * F16_LARGEST:g} is allowed, {F16_SHARE:g} of what "
            "float16 holds; use bf16"
        )


def rounded(model: onnx.ModelProto) -> Evaluate:
    """A typed graph as a function that rounds every node's output; see above."""
    evaluator = ReferenceEvaluator(model, new_ops=[Conv, ConvTranspose])
    names = [info.name for info in model.graph.output]

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        with np.errstate(over="ignore", invalid="ignore"):
            return dict(zip(names, evaluator.run(names, dict(inputs)), strict=True))

    return run


class Conv(OpRun):
    """Convolution for the reference evaluator, whose own is slow: float32 sums of the type's products."""

    def _run(self, x: Any, w: Any, b: Any = None, **how: Any) -> tuple[Any]:
        return (_convolved(x, w, b, how, transposed=False),)


class ConvTranspose(OpRun):
    """Transposed convolution in the way of `Conv`. Raises X2CTError where there is padding."""

    def _run(self, x: Any, w: Any, b: Any = None, **how: Any) -> tuple[Any]:
        if any(how.get("pads") or []) or any(how.get("output_padding") or []):
            raise X2CTError("ConvTranspose: found padding, expected none: it can't be evaluated in a narrow type")
        return (_convolved(x, w, b, how, transposed=True),)


def _convolved(x: Any, w: Any, b: Any, how: Mapping[str, Any], transposed: bool) -> Any:
    wide, weight, bias = (None if one is None else torch.from_numpy(np.asarray(one, np.float32)) for one in (x, w, b))
    rank = x.ndim - 2
    pads = list(how.get("pads") or [0] * (2 * rank))
    around = [side for pair in reversed(list(zip(pads[:rank], pads[rank:], strict=True))) for side in pair]
    strides, dilations = (list(how.get(name) or [1] * rank) for name in ("strides", "dilations"))
    none, group = [0] * rank, how.get("group") or 1
    assert wide is not None and weight is not None
    padded = functional.pad(wide, around)
    result = torch.convolution(padded, weight, bias, strides, none, dilations, transposed, none, group)
    return result.numpy().astype(x.dtype)


def _cases(bundle: Bundle, denoiser: onnx.ModelProto) -> Iterable[Case]:
    """Float32 on two patches at five levels of noise about what the network itself makes of something body-like."""
    load = open_onnxruntime()[1]
    encode, lift = (load(bundle.file_of(one).read_bytes()) for one in (bundle.networks.encoder, bundle.networks.lift))
    run = load(denoiser.SerializeToString())
    rng = np.random.default_rng(20_260_201)
    views, slots = xrays(bundle, rng), len(bundle.geometry.views)
    valid = np.ones((1, slots), np.float32)
    features = encode({"views": views, "valid": valid})
    whole = bundle.grid.coordinates()[None]
    low, high = bundle.diffusion.sigma_min, bundle.diffusion.sigma_max
    for patch, origin in patches(bundle):
        i, j, k = (slice(start, start + side) for start, side in zip(origin, patch, strict=True))
        coords = np.ascontiguousarray(whole[..., i, j, k])
        conditions = lift({**features, "P": projections(bundle), "coords": coords, "valid": valid})
        noise = rng.standard_normal((1, 1, *patch), np.float32)
        first = {"x": np.float32(high) * noise, "sigma": np.array([high], np.float32), **conditions}
        mean = run(first)["denoised"]
        for sigma in np.geomspace(low, high, SIGMAS):
            noise = rng.standard_normal(mean.shape, np.float32)
            inputs = {**first, "x": mean + np.float32(sigma) * noise, "sigma": np.array([sigma], np.float32)}
            yield Case("denoiser", inputs, run(inputs), sigma=float(sigma), patch=patch)


def _runtimes(precision: str) -> list[Runtime]:
    """Return the ways to run a typed graph; ONNX Runtime has no Conv in bfloat16."""
    ways: list[Runtime] = [("each node rounded", lambda data: rounded(onnx.load_from_string(data)))]
    return [*ways, *([] if precision == "bf16" else [open_onnxruntime()]), open_openvino()]


def _volume(bundle: Bundle, plain: onnx.ModelProto, graph: Typed, references: tuple[Case, ...]) -> VolumeRow:
    """Compare two runs of the model's own sampling on the larger patch, from one noise."""
    table = _core.sampling_plan(bundle.diffusion, SampleOptions()).table
    case = references[0]
    assert case.patch is not None
    shape = case.patch
    conditions = {name: value for name, value in case.inputs.items() if name not in ("x", "sigma")}

    def sampled(run: Evaluate) -> Array:
        def denoise(x: Array, sigma: float) -> Array:
            inputs = {"x": x.reshape(1, 1, *shape), "sigma": np.array([sigma], np.float32), **conditions}
            return run(inputs)["denoised"].reshape(shape)

        return _core.run(denoise, table, shape, seed=0)

    expected = sampled(open_onnxruntime()[1](plain.SerializeToString()))
    mae, decibel = volume_difference(bundle, sampled(rounded(graph.model)), expected)
    return VolumeRow(shape, table.evaluations, mae, decibel, VOLUME_TOLERANCE_HU[graph.precision])
