"""Checks of a denoiser in a narrow type: its values have to fit, and its rounding errors are measured and bounded.

The values are scanned in float32, with every tensor inside as an output, on inputs over the range of sigma. The
rounding is that of a strongly typed runtime at its worst: sums of products in float32, as matrix units have them, and
every node's output rounded to the type (runtimes that fuse nodes round less). No runtime on a CPU does that: ONNX
Runtime computes float16 in float32 and has no Conv in bfloat16, OpenVINO fuses. So it is done here, by PyTorch node by
node (`torchgraph.py`); the runtimes prove that they take the graph, and their errors stand beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from torch import Tensor

from x2ct.bundle import Bundle
from x2ct.errors import X2CTError
from x2ct.export import parity
from x2ct.export.onnxgraph import showing
from x2ct.export.parity import Case, Evaluate, Row, Runtime, open_onnxruntime, open_openvino
from x2ct.export.precision import Typed, typed
from x2ct.export.torchgraph import OPERATORS, OnnxModule, Operator
from x2ct.files.text import Json

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
class Rounding:
    """A typed denoiser and what was measured on it.

    `peaks` are the largest magnitudes of the tensors inside, by name, the largest first; `rows` are of one evaluation,
    by how it was run, sigma and patch. `volume` is a run's beside float32's, from the same noise: its voxels, steps,
    mean absolute difference and bound in HU, and PSNR, whose peak is the width of the HU window. There is none for f32
    and tf32, whose rounding is not in the graph.
    """

    typed: Typed
    peaks: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    volume: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Json]:
        """Return what the typed graph's metadata stores."""
        largest = next(iter(self.peaks.items()), ("", 0.0))
        return {
            "precision": self.typed.precision,
            "measure": "RMS of the difference to float32 over the RMS of float32's output; of the volume in HU",
            "largest": {"tensor": largest[0], "magnitude": largest[1], "allowed": F16_SHARE * F16_LARGEST},
            "rows": [row.to_json() for row in self.rows],
            "volume": self.volume,
        }


def typed_denoiser(bundle: Bundle, precision: str, say: Callable[[str], None] = lambda _: None) -> Rounding:
    """Return a bundle's denoiser in a precision of `PRECISIONS`, if its values fit and its rounding is within bounds.

    Raises InputError: an unknown precision; MissingRuntimeError: a package of the extra `train` is not installed;
    X2CTError: a value would overflow float16, or an error is above its bound; the text says which.
    """
    canonical = onnx.load(bundle.file_of(bundle.networks.denoiser))
    graph = typed(canonical, precision)
    if not graph.inside:
        return Rounding(graph)
    plain = typed(canonical, "f32").model
    say("evaluating float32 over the range of sigma")
    references = tuple(_cases(bundle, plain))
    peaks = scan(plain, graph.inside, references)
    name, largest = next(iter(peaks.items()))
    if precision == "f16" and not largest <= F16_SHARE * F16_LARGEST:
        raise X2CTError(
            f"f16: {name} reaches {largest:.4g}, at most {F16_SHARE * F16_LARGEST:g} is allowed, {F16_SHARE:g} of what "
            "float16 holds; use bf16"
        )
    say(f"measuring parity of {precision}")
    runtimes: list[Runtime] = [("each node rounded", lambda data: rounded(onnx.load_from_string(data)))]
    if precision != "bf16":  # in which ONNX Runtime has no Conv
        runtimes.append(open_onnxruntime())
    runtimes.append(open_openvino())
    data = {"denoiser": graph.model.SerializeToString()}
    rows = parity.measure(data, references, precision, TOLERANCES[precision], runtimes)
    parity.require(rows)
    say(f"sampling a volume in {precision}")
    volume = _volume(bundle, plain, graph, references[0])
    if not volume["mae_hu"] <= volume["tolerance_hu"]:
        raise X2CTError(
            f"parity failed, nothing written: the volume in {precision} is {volume['mae_hu']:.3g} HU from float32's on "
            f"average, at most {volume['tolerance_hu']:g} is allowed"
        )
    return Rounding(graph, peaks, rows, volume)


def scan(model: onnx.ModelProto, names: Iterable[str], cases: Iterable[Case]) -> dict[str, float]:
    """Return the largest magnitude of each named tensor of a float32 graph over the cases, the largest first."""
    run = open_onnxruntime()[1](showing(model, names).SerializeToString())
    peaks: dict[str, float] = {}
    for case in cases:
        tensors = {**case.inputs, **run(case.inputs)}
        for name in names:
            peaks[name] = max(peaks.get(name, 0.0), float(np.abs(tensors[name]).max()))
    return dict(sorted(peaks.items(), key=lambda item: -item[1]))


def rounded(model: onnx.ModelProto) -> Evaluate:
    """Return a typed graph as a function that rounds every node's output; see above."""

    def in_f32(operator: Operator) -> Operator:
        def convolve(x: Tensor, *weights: Tensor | None, **how: Any) -> Any:
            return operator(x.float(), *(None if one is None else one.float() for one in weights), **how).to(x.dtype)

        return convolve

    return OnnxModule(model, {name: in_f32(OPERATORS[name]) for name in ("Conv", "ConvTranspose")}).evaluate


def _cases(bundle: Bundle, denoiser: onnx.ModelProto) -> Iterable[Case]:
    """Yield float32 evaluations on two patches, at `SIGMAS` noise levels about the network's own mean estimate."""
    load = open_onnxruntime()[1]
    encode, lift = (load(bundle.file_of(one).read_bytes()) for one in (bundle.networks.encoder, bundle.networks.lift))
    run = load(denoiser.SerializeToString())
    rng = np.random.default_rng(20_260_201)
    conditions = parity.conditioner(bundle, parity.xrays(bundle, rng), encode, lift)
    low, high = bundle.diffusion.sigma_min, bundle.diffusion.sigma_max
    for patch, coords in parity.patches(bundle):
        noise = rng.standard_normal((1, 1, *patch), np.float32)
        first = {"x": np.float32(high) * noise, "sigma": np.array([high], np.float32), **conditions(coords)}
        mean = run(first)["denoised"]
        for sigma in np.geomspace(low, high, SIGMAS):
            noise = rng.standard_normal(mean.shape, np.float32)
            inputs = {**first, "x": mean + np.float32(sigma) * noise, "sigma": np.array([sigma], np.float32)}
            yield Case("denoiser", inputs, run(inputs), sigma=float(sigma), patch=patch)


def _volume(bundle: Bundle, plain: onnx.ModelProto, graph: Typed, case: Case) -> dict[str, Any]:
    """Compare two runs of the model's own sampling on a case's patch, from one noise."""
    assert case.patch is not None
    conditions = {name: value for name, value in case.inputs.items() if name not in ("x", "sigma")}
    exact, narrow = open_onnxruntime()[1](plain.SerializeToString()), rounded(graph.model)
    (expected, steps), (x, _) = (parity.sampled(bundle, run, conditions, case.patch) for run in (exact, narrow))
    mae_hu, psnr_db = parity.volume_difference(bundle, x, expected)
    facts = {"shape": list(case.patch), "steps": steps, "mae_hu": mae_hu, "psnr_db": psnr_db}
    return {**facts, "tolerance_hu": VOLUME_TOLERANCE_HU[graph.precision]}
