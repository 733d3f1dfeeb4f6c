"""Parity: what a graph computes in ONNX Runtime and in OpenVINO, beside PyTorch in float32 on the same inputs.

The error is the root mean square of the difference over the root mean square of PyTorch's output. At a low sigma the
denoised volume is nearly x and hides what the network does; at a high one it is all network: so three sigmas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.engine.sampler import SampleOptions
from x2ct.errors import MissingRuntimeError, X2CTError
from x2ct.evaluation.metrics import psnr
from x2ct.files.text import Json

if TYPE_CHECKING:
    from x2ct.bundle import Bundle, Description
    from x2ct.model import X2CTModel

Array = npt.NDArray[np.float32]
Evaluate = Callable[[Mapping[str, Array]], dict[str, Array]]  # a network: its outputs by name, for its inputs by name
Shape = tuple[int, int, int]
Runtime = tuple[str, Callable[[bytes], Evaluate]]  # a runtime's name with its version, and what loads a graph into it

F32_TOLERANCE = 1e-4
"""For float32 weights. The runtimes differ from PyTorch by the order of their sums and by Winograd's transforms, which
gives 3e-8 to 5e-6; a wrong weight, axis or padding gives more than 1e-3."""

F16_WEIGHTS_TOLERANCE = 2e-3
"""For float16 weights, against the unrounded network: rounding changes a weight by some 2e-4 (RMS, relative), and the
layers' errors add up as a random walk, to 5e-4 where the network is all of the output."""

LARGEST_PATCH = 64
"""Parity does not depend on the patch's size beyond its divisions, and PyTorch in float32 is slow: sides stop here."""


@dataclass(frozen=True)
class Case:
    """One evaluation: a graph's inputs and the expected outputs, by name; sigma and patch where the graph has them."""

    graph: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    sigma: float | None = None
    patch: Shape | None = None


@dataclass(frozen=True)
class Row:
    """One line of the parity table: a case of a graph, whose weights are stored as "f32" or "f16", in a runtime.

    The error is the largest over the graph's outputs. Sigma is the denoiser's; the patch is lift's and denoiser's.
    """

    graph: str
    runtime: str
    weights: str
    sigma: float | None
    patch: Shape | None
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Return whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance

    def to_json(self) -> dict[str, Json]:
        """Return the row as model.json has it."""
        return {**vars(self), "patch": self.patch and list(self.patch)}

    def __str__(self) -> str:
        where = "" if self.sigma is None else f" at sigma {self.sigma:g}"
        where += "" if self.patch is None else f" on {' x '.join(str(side) for side in self.patch)}"
        return f"{self.graph} ({self.weights} weights) in {self.runtime}{where}: {self.error:.2g}"


def cases(model: X2CTModel, spec: Description) -> Iterator[Case]:
    """Yield inputs like those of a study, drawn with a fixed seed, with PyTorch's outputs.

    Encoder and lift with both views and with the frontal one alone; lift and denoiser on the two of `patches`; the
    denoiser at the lowest, the geometric middle and the highest sigma, and once with two samples of different sigma.
    """
    import torch

    rng = np.random.default_rng(20_260_101)
    study, slots = xrays(spec, rng), len(spec.geometry.views)
    low, high = spec.diffusion.sigma_min, spec.diffusion.sigma_max
    sigmas = (low, float(np.sqrt(low * high)), high)
    both, frontal = np.ones((1, slots), np.float32), np.eye(1, slots, dtype=np.float32)

    def case(graph: str, inputs: Mapping[str, Array], names: tuple[str, ...], **facts: Any) -> Case:
        with torch.no_grad():
            outputs = model.get_submodule(graph)(*(torch.from_numpy(value) for value in inputs.values()))
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        arrays = {name: value.numpy() for name, value in zip(names, outputs, strict=True)}
        return Case(graph, inputs, arrays, **facts)

    for (patch, coords), valid in zip(patches(spec), (both, frontal), strict=True):
        encoded = case("encoder", {"views": study * valid[:, :, None, None, None], "valid": valid}, ("features",))
        where = {"P": projections(spec), "coords": coords, "valid": valid}
        lifted = case("lift", {**encoded.outputs, **where}, ("c0", "c1"), patch=patch)
        yield from (encoded, lifted)
        clean = smooth_volume(patch, rng)
        for sigma in sigmas:
            noisy = clean + np.float32(sigma) * rng.standard_normal(clean.shape, np.float32)
            inputs = {"x": noisy, "sigma": np.array([sigma], np.float32), **lifted.outputs}
            yield case("denoiser", inputs, ("denoised",), sigma=sigma, patch=patch)
    two = {name: np.concatenate([value, value]) for name, value in inputs.items()}
    two["sigma"] = np.array(sigmas[:2], np.float32)
    yield case("denoiser", two, ("denoised",), sigma=sigmas[1], patch=patch)


def patches(spec: Description) -> Iterator[tuple[Shape, Array]]:
    """Yield sizes and coordinates [1, 3, X, Y, Z] of two patches: most trained on (bounded), and of uneven sides."""
    stride, grid, whole = spec.patch.stride, spec.grid.shape, spec.grid.coordinates()[None]
    largest = max(stride, LARGEST_PATCH // stride * stride)
    often = spec.patch.sizes[int(np.argmax(spec.patch.probabilities))]
    x, y, z = (min(side, largest) for side in often)
    u, v, w = (min(times * stride, side) for times, side in zip((4, 3, 2), grid, strict=True))
    i, j, k = ((side - own) // 2 // stride * stride for side, own in zip(grid, (x, y, z), strict=True))
    yield (x, y, z), np.ascontiguousarray(whole[..., i : i + x, j : j + y, k : k + z])
    yield (u, v, w), np.ascontiguousarray(whole[..., :u, :v, :w])


def measure(
    graphs: Mapping[str, bytes],
    references: Iterable[Case],
    weights: str,
    tolerance: float,
    runtimes: Iterable[Runtime] | None = None,
) -> tuple[Row, ...]:
    """Run every case in each runtime, by default `open_onnxruntime()` and `open_openvino()`.

    `graphs` are the ONNX files' content; `weights` is how they store their weights, or their precision, for the table.
    """
    rows = []
    for runtime, load in (open_onnxruntime(), open_openvino()) if runtimes is None else runtimes:
        networks = {name: load(data) for name, data in graphs.items()}
        for case in references:
            outputs = networks[case.graph](case.inputs)
            # Not Python's max, which passes over NaN.
            error = float(np.max([relative_error(outputs[name], array) for name, array in case.outputs.items()]))
            rows.append(Row(case.graph, runtime, weights, case.sigma, case.patch, error, tolerance))
    return tuple(rows)


def require(rows: Iterable[Row]) -> None:
    """Raise X2CTError, which names the worst row that failed, where a graph computes something else."""
    failed = sorted((row for row in rows if not row.passed), key=lambda row: -np.nan_to_num(row.error, nan=np.inf))
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        allowed = f"at most {failed[0].tolerance:g} is allowed"
        raise X2CTError(f"parity failed, nothing written: {failed[0]}, {allowed}{more}")


def relative_error(array: Array, expected: Array) -> float:
    """Return the RMS of the difference over the RMS of what is expected, in float64; infinity if the shapes differ."""
    if array.shape != expected.shape:
        return float("inf")
    reference = expected.astype(np.float64)
    power = float(np.mean(reference**2)) or np.finfo(np.float64).tiny
    return float(np.sqrt(np.mean((array - reference) ** 2) / power))


def sampled(
    bundle: Bundle, denoise: Evaluate, conditions: Mapping[str, Array], shape: Shape, seed: int = 0
) -> tuple[Array, int]:
    """Return a volume [X, Y, Z] in the network's unit by the bundle's own noise levels, and the evaluations it took."""
    plan = _core.sampling_plan(bundle.diffusion, SampleOptions())

    def step(x: Array, sigma: float) -> Array:
        inputs = {"x": x[None, None], "sigma": np.array([sigma], np.float32), **conditions}
        denoised: Array = denoise(inputs)["denoised"][0, 0]
        return denoised

    return _core.run(step, plan.table, shape, seed=seed), plan.evaluations


def volume_difference(bundle: Bundle, x: Array, expected: Array) -> tuple[float, float]:
    """Return the mean absolute difference in HU, and the PSNR in dB, of two volumes in the network's unit."""
    a, b = (bundle.intensity.to_hu(volume).astype(np.float64) for volume in (x, expected))
    return float(np.mean(np.abs(a - b))), psnr(b, a, bundle.intensity.window_hu)


def open_onnxruntime() -> Runtime:
    """Return ONNX Runtime on the CPU, in float32. Raises MissingRuntimeError where it is not installed."""
    require_packages("onnxruntime")
    import onnxruntime

    def load(data: bytes) -> Evaluate:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return f"onnxruntime {onnxruntime.__version__}", load


def open_openvino() -> Runtime:
    """Return OpenVINO on the CPU, in float32. Raises MissingRuntimeError where it is not installed."""
    require_packages("openvino")
    import openvino  # type: ignore[import-untyped]

    core = openvino.Core()
    f32 = {"INFERENCE_PRECISION_HINT": "f32"}  # by itself it computes in bfloat16 where the processor can

    def load(data: bytes) -> Evaluate:
        compiled = core.compile_model(core.read_model(data, b""), "CPU", f32)
        return lambda inputs: {port.get_any_name(): np.array(one) for port, one in compiled(dict(inputs)).items()}

    return f"openvino {openvino.__version__.partition('-')[0]}", load


def require_packages(*packages: str) -> None:
    """Raise MissingRuntimeError where one of the packages is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingRuntimeError(f"export needs {package}, which is not installed: pip install 'x2ct[train]'")


def conditioner(
    spec: Description, views: Array, encode: Evaluate, lift: Evaluate
) -> Callable[[Array], Mapping[str, Array]]:
    """Return what evaluates encoder and lift on X-rays [1, V, 1, H, W]: from coordinates [1, 3, X, Y, Z] to conditions.

    The encoder is evaluated once, here.
    """
    valid = np.ones(views.shape[:2], np.float32)
    inputs = {**encode({"views": views, "valid": valid}), "P": projections(spec), "valid": valid}
    return lambda coords: lift({**inputs, "coords": coords})


def projections(spec: Description) -> Array:
    """Return each view's matrix from patient mm to pixels, [1, V, 3, 4]."""
    return np.stack([view.matrix for view in spec.geometry.views])[None].astype(np.float32)


def xrays(spec: Description, rng: np.random.Generator) -> Array:
    """Return line integrals of something body-like, [1, V, 1, H, W]: a smooth hump, texture and a border of air."""
    rows, columns = (np.linspace(-1.2, 1.2, n, dtype=np.float32) for n in spec.xray.shape)
    hump = np.clip(1 - rows[:, None] ** 2 - columns[None, :] ** 2, 0, 1)
    slots = len(spec.geometry.views)
    texture = 1 + 0.1 * rng.standard_normal((1, slots, 1, *spec.xray.shape), np.float32)
    tops = np.asarray(spec.xray.reference_p99, np.float32).reshape(1, slots, 1, 1, 1)
    return np.ascontiguousarray(tops * hump * texture, np.float32)


def smooth_volume(shape: Shape, rng: np.random.Generator) -> Array:
    """Return a volume in [-1, 1], [1, 1, X, Y, Z]: waves along each axis."""
    x, y, z = (np.sin(np.linspace(0, 6, side) + rng.uniform(0, 6)) for side in shape)
    return np.ascontiguousarray((x[:, None, None] * y[:, None] * z)[None, None], np.float32)
