"""The C++ core (csrc/): schedules, solvers, noise, the sampling loop, networks and the projector.

Arrays are float32, C-contiguous unless said otherwise. Errors are those of `x2ct.errors`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
Progress = Callable[[int, int, float], object]
Preview = Callable[[int, int, float, FloatArray], object]

class SolverInfo(TypedDict):
    """One solver: its order of convergence and the volumes it keeps ("x", "y", "D", "H1"...).

    A `stochastic` one draws fresh noise in every step and converges in distribution only; a `timed` one knows other
    times than sigma.
    """

    name: str
    order: int
    registers: list[str]
    stochastic: bool
    timed: bool

class DeviceCheck(TypedDict):
    """One kind of work. `difference` is the largest over the largest value; a `bound` of 0 asks for the same bits."""

    name: str
    difference: float
    bound: float
    passed: bool

class DeviceInfo(TypedDict):
    """One kind of device: what there is of it, in words and by index, or the reason why it can't be had."""

    name: str
    built: bool
    available: bool
    reason: str
    found: list[str]

class BackendInfo(TypedDict):
    """One backend: what it can do here, or the reason why it can't.

    `built` is whether this build has it, `precisions` is by device, fastest first, and `missing_devices` says of each
    device that it could drive why it can't here.
    """

    name: str
    built: bool
    available: bool
    reason: str
    version: str
    devices: list[str]
    precisions: dict[str, list[str]]
    missing_devices: dict[str, str]

class LayerInfo(TypedDict):
    """One layer of a compiled network: its name in the graph, its kind, the kernel that computed it, and its time."""

    name: str
    type: str
    kernel: str
    ms: float

class TimingInfo(TypedDict):
    """Where the latest run's time went, in seconds: `kernel_s` is all element-wise work, noise included.

    On a device with a clock of its own `network_s` and `kernel_s` are by that clock, and `gap_s` is its longest pause
    between two evaluations. `waits` is how often the host waited for the device.
    """

    evaluations: int
    network_s: float
    tiles_s: float
    correction_s: float
    kernel_s: float
    gap_s: float
    waits: int
    total_s: float

def schedule(name: str, steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> list[float]:
    """Noise levels from sigma_max down to sigma_min, in units of x; the table adds the final 0.

    "edm", "vp", "ve" and "iddpm" are the time steps of Karras et al. 2022, Table 1, brought to this range; "log-snr"
    falls in equal steps of ln sigma.

    Raises:
        InputError: an unknown name, or values that make no schedule.
    """

def schedules() -> list[str]:
    """The names that `schedule` knows."""

def time_of(schedule: str) -> str:
    """The time that a schedule was made in: "vp", "ve", or "sigma" for all others."""

def solvers() -> list[SolverInfo]:
    """The solvers that `Table.make` knows."""

class Table:
    """A schedule and a solver, compiled to rows of coefficients: one row, one network evaluation.

    Row by row: D = net(y, sigma); H0 = a y + b D; x and y become linear combinations of x, y, H0..H3 and a fresh noise;
    the history moves on by one. The start is y = x = start_scale n(draw 0) + start_noise n(draw 1).
    """

    columns: ClassVar[list[str]]
    @staticmethod
    def make(
        solver: str,
        sigmas: Sequence[float],
        *,
        churn: float = 0.0,
        s_min: float = 0.0,
        s_max: float = ...,
        s_noise: float = 1.0,
        to_zero: bool = True,
        time: str = "sigma",
    ) -> Table:
        """The table of a solver, one of `solvers`.

        Args:
            solver: its name.
            sigmas: strictly falling noise levels. One alone makes the posterior mean, D(sigma n, sigma).
            churn: S_churn of Heun; `s_min`, `s_max` and `s_noise` are its S_min, S_max and S_noise.
            to_zero: end at sigma 0; otherwise at the last sigma given.
            time: what Euler and Heun step in, "sigma", "vp" or "ve" (Karras et al. 2022, Table 1).

        Raises:
            InputError: an unknown solver, sigmas that don't fall, or churn or a time for a solver that has none.
        """

    @property
    def solver(self) -> str: ...
    @property
    def sigmas(self) -> list[float]:
        """The noise levels visited, the end included."""

    @property
    def start_scale(self) -> float: ...
    @property
    def start_noise(self) -> float: ...
    @property
    def rows(self) -> DoubleArray:
        """The coefficients, float64 [evaluations, len(columns)]."""

    @property
    def registers(self) -> list[str]:
        """The volumes that a run of it keeps."""

    @property
    def evaluations(self) -> int: ...
    def describe(self) -> str:
        """The table in words, one line a row."""

def normal(shape: Sequence[int], seed: int, draw: int = 0, sample: int = 0, threads: int = 0) -> FloatArray:
    """Standard normals by counter: Philox 4x32-10, key = seed, counter = (voxel, draw, sample).

    The same bits whatever the threads, and on every machine. `seed` is 0 to 2**64 - 1.
    """

class CancelToken:
    """Ends a run between two evaluations, from any thread."""

    def __init__(self) -> None: ...
    def cancel(self) -> None: ...
    @property
    def cancelled(self) -> bool: ...

class Network:
    """One network, read from ONNX and compiled for one device. Calls from several threads wait for each other.

    Args:
        path: the .onnx file.
        backend: "openvino" or "onnxruntime".
        device: "cpu"; with onnxruntime also "cuda" or "cuda:N".
        precision: "f32", "tf32", "bf16", "f16" or "int8"; "auto" is the fastest of the others that the device computes
            natively.
        threads: of the runtime; 0 leaves it to the runtime.
        shapes: sizes of inputs by name, fixed before compiling.
        runtime_dir: the installed runtime's folder, or its library; "" is wherever the system's loader looks.
        provider: ONNX Runtime's execution provider: "cpu", "cuda", "tensorrt"; "" is the device's own.
        provider_options: handed to the provider as they are.
        profile: time each layer; costs time itself.
        int8: for precision "int8", which only openvino has: by the name of a convolution that is to compute in 8 bits,
            the least value and the largest of what it is given, with 0 between them.

    Raises:
        InputError: a file or an argument is wrong.
        MissingRuntimeError: the runtime, device or precision can't be had here.
        MemoryLimitError: out of memory.
    """

    def __init__(
        self,
        path: str,
        backend: str = "openvino",
        device: str = "cpu",
        precision: str = "auto",
        threads: int = 0,
        shapes: Mapping[str, Sequence[int]] = ...,
        runtime_dir: str = "",
        provider: str = "",
        provider_options: Mapping[str, str] = ...,
        profile: bool = False,
        int8: Mapping[str, Sequence[float]] = ...,
    ) -> None: ...
    def __call__(self, inputs: dict[str, FloatArray]) -> dict[str, FloatArray]:
        """Evaluates once: arrays by name in, new arrays by name out.

        Raises:
            InputError: a missing or an unknown name, another dtype, shape or layout.
        """

    def profile(self) -> list[LayerInfo]:
        """The layers that ran in the latest call, of a network made with `profile`.

        Raises:
            InputError: it was made without, or never called.
            MissingRuntimeError: the backend does not tell.
        """

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name; -1 is a free axis."""

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str:
        """What it computes in, read back from the compiled network."""

    @property
    def scratch_bytes(self) -> int:
        """The most that an evaluation holds at once between inputs and outputs; -1 where the runtime doesn't tell."""

    @property
    def runtime_version(self) -> str: ...

def plan_machine(backend: str, device: str, runtime_dir: str = "") -> tuple[str, str]:
    """What a plan depends on: the runtime's version; the device, such as "NVIDIA H200, compute capability 9.0".

    Raises:
        InputError: the backend builds no plans.
        MissingRuntimeError: the runtime or the device can't be had here.
    """

def build_plan(
    path: str,
    output: str,
    profile: Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]],
    *,
    backend: str,
    device: str,
    precision: str,
    workspace_bytes: int = 0,
    effort: int = 3,
    timing_cache: str = "",
    progress: Callable[[str, int, int], bool] | None = None,
    runtime_dir: str = "",
) -> None:
    """Builds a plan of a network, which `Network` takes as a path.

    Args:
        path: the .onnx file; its types are those that the plan computes in.
        output: the plan.
        profile: of every input, the least, the usual and the largest shape.
        backend: "tensorrt".
        device: "cuda" or "cuda:N".
        precision: what the graph is typed in; the plan remembers it.
        workspace_bytes: the most that a kernel may use beside its tensors; 0: all there is.
        effort: 0 to 5, how long kernels are compared.
        timing_cache: a file of kernels' timings, read if it is there and written; or "".
        progress: called with a phase, steps done, and of how many, from any thread; False, or what it raises, ends it.
        runtime_dir: as of `Network`.

    Raises:
        InputError: a file or an argument is wrong, or the backend builds no plans.
        MissingRuntimeError: the runtime or the device can't be had here.
        MemoryLimitError: out of memory.
        Cancelled: by `progress`.
    """

class ViewConsistency(TypedDict):
    """One X-ray in consistency.

    `rays` is the share that counts of the rays that meet body and grid; the rest is of the latest application: `scale`
    and `offset` are a and b of y = a A(D) + b, fitted where the X-ray is not calibrated, and `rms_before` and
    `rms_after` the root mean square of what y and A(D) differ by along the rays that count, a line integral.
    """

    view: str
    rays: float
    scale: float
    offset: float
    rms_before: float
    rms_after: float

MeasuredView = tuple[str, npt.ArrayLike, npt.ArrayLike, npt.ArrayLike, bool]
"""Name, P (3, 4), line integrals (rows, cols), where the detector measured (rows, cols), whether it is calibrated."""

def to_hu(hu: Sequence[float], x: Sequence[float], values: FloatArray, threads: int = 0) -> FloatArray:
    """The network's unit in HU, clipped to the window: a new array. The result does not depend on the threads.

    Args:
        hu, x: knots of the monotone, piecewise linear map between the two, strictly increasing.
        values: float32, C-contiguous, any shape.

    Raises:
        InputError: values of another kind, or knots that don't rise.
    """

def rays_within(
    shape: Sequence[int], index_to_mm: npt.ArrayLike, views: Sequence[MeasuredView], threads: int = 0
) -> list[npt.NDArray[np.bool_]]:
    """For each view, (rows, cols): the rays that can be taken to lie in the grid as far as they meet the body."""

class TilePlan:
    """One tile shape for a grid, from a memory budget."""

    @property
    def grid(self) -> tuple[int, int, int]: ...
    @property
    def tile(self) -> tuple[int, int, int]:
        """What the denoiser is evaluated on, halo included."""

    @property
    def halo(self) -> int: ...
    @property
    def count(self) -> tuple[int, int, int]:
        """Tiles along x, y and z."""

    @property
    def lift_tile(self) -> tuple[int, int, int]: ...
    @property
    def keep(self) -> bool:
        """Whether the lift runs once for all; otherwise it runs on each tile at each evaluation."""

    @property
    def in_turn(self) -> bool:
        """Whether lift and denoiser don't fit side by side, so that each is let go of before the other runs."""

    @property
    def bytes(self) -> int:
        """What it takes, by the needs given."""

    @property
    def whole(self) -> bool:
        """Whether the whole grid is the only tile."""

class Sampler:
    """The sampling loop over one denoiser (inputs x, sigma and conditions; output denoised), one volume at a time.

    Args:
        denoiser: its x is [1, 1, *shape].
        shape: (X, Y, Z).
        threads: of the loop's own element-wise work; 0 takes the network's.

    Raises:
        InputError: the network's names or shapes don't fit.
    """

    def __init__(self, denoiser: Network, shape: Sequence[int], threads: int = 0) -> None: ...
    def set_condition(self, arrays: dict[str, FloatArray]) -> None:
        """Copies what the denoiser is conditioned on, by input name; kept until set again."""

    def run(
        self,
        table: Table,
        seed: int,
        sample: int = 0,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
        preview: Preview | None = None,
        preview_every: int = 1,
    ) -> FloatArray:
        """Runs the table: float32 [X, Y, Z] in the network's unit. The GIL is free meanwhile.

        Args:
            table: what to run.
            seed: of the noise, 0 to 2**64 - 1.
            sample: another number is another noise of the same seed.
            progress: called with (evaluations done, of how many, sigma) after each; what it raises ends the run.
            cancel: looked at before each evaluation.
            preview: called with the same and D, float32 [X, Y, Z] in the network's unit, after every `preview_every`
                evaluations; what it raises ends the run too.
            preview_every: 1 or more.

        Raises:
            Cancelled: by `cancel`. KeyboardInterrupt comes out after the evaluation that was going on.
            X2CTError: the network failed, or the sampler is running already. It can be used again after any error.
        """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def timings(self) -> TimingInfo: ...

ViewFields = tuple[str, DoubleArray, tuple[int, int], tuple[float, float]]
"""A view's name, matrix (3, 4), shape and spacing_mm, as `x2ct.geometry.View` takes them."""

ANGLES_DEG: dict[str, float]
"""The angle of the source about z, by the names of views that have one: ap, pa, lateral."""
SLOT_OF: dict[str, int]
"""The slot of a model that takes a view: 0 frontal, 1 lateral."""
BUNDLE_SCHEMA: int
GEOMETRY_SCHEMA: int
OPSET: int
"""The opset of a bundle's graphs."""
MAX_MANIFEST_BYTES: int
MAX_VIEWS: int
"""The views of one geometry."""
MU_WATER_PER_MM: float
LINE_INTEGRALS: tuple[float, float]
"""The least and the largest that a radiograph can have: noise around air, and more than metal across a whole body."""

def open_bundle(folder: str | bytes) -> tuple[str, str]:
    """Open a bundle and check the whole of it.

    Returns:
        model.json as JSON text, each view by its matrix and with the defaults of fields that were left out, and the
        SHA-256 of model.json as it stands.

    Raises:
        InputError: not a bundle, of an unknown schema version, damaged, or inconsistent; it names file and field.
    """

def load_geometry(path: str | bytes) -> tuple[list[ViewFields], list[float] | None]:
    """Read a geometry file. Raises InputError, which names the file and the field."""

def read_geometry(source: str, text: str) -> tuple[list[ViewFields], list[float] | None]:
    """Read a geometry file's text; `source` is how messages name it. Raises InputError."""

def parallel_view(
    name: str,
    angle_deg: float | None,
    tilt_deg: float,
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    isocentre_mm: tuple[float, float, float],
) -> ViewFields:
    """Return the view of a parallel beam; without an angle by its name. See `x2ct.geometry.View.parallel`."""

def cone_view(
    name: str,
    angle_deg: float | None,
    tilt_deg: float,
    sod_mm: float,
    sdd_mm: float,
    shape: tuple[int, int],
    spacing_mm: tuple[float, float] | None,
    isocentre_mm: tuple[float, float, float],
) -> ViewFields:
    """Return the view of a cone beam; without an angle by its name. See `x2ct.geometry.View.cone`."""

def check_view(name: str, matrix: DoubleArray, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> None:
    """Raise InputError for a matrix from which no rays can be had, or a detector without size."""

GAMMA: float
"""The usual strength of data consistency."""

AIR_INTEGRAL: float
"""A line integral below this is air."""

FEWEST_RAYS: float
"""The least share of the rays that meet body and grid with which an X-ray can be compared with a CT."""

WEAKEST_CORRELATION: float
"""The least correlation of an uncalibrated X-ray with the CT's projection with which it is fitted."""

MAX_GAMMA: float
MAX_STEPS: int
MAX_SAMPLES: int

XRay = tuple[str, int, npt.ArrayLike, npt.ArrayLike, npt.ArrayLike | None, bool]
"""Name, slot, line integrals (rows, columns), P (3, 4), the share of each pixel that was measured, calibrated."""

class SampleOptions(Protocol):
    """What a run is asked for, but for its callbacks: `x2ct.engine.sampler.SampleOptions`, read by name.

    A value of another type raises TypeError; a seed outside of 0 to 2**64 - 1 and an empty list of noise levels raise
    InputError, as what `sampling_plan` checks does.
    """

    @property
    def seed(self) -> int: ...
    @property
    def sample(self) -> int: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def solver(self) -> str | None: ...
    @property
    def schedule(self) -> str | Sequence[float] | None: ...
    @property
    def mean(self) -> bool: ...
    @property
    def churn(self) -> float: ...
    @property
    def samples(self) -> int: ...
    @property
    def consistency(self) -> str | Sequence[int]: ...
    @property
    def gamma(self) -> float | None: ...
    @property
    def raw(self) -> bool: ...

class SamplingPlan:
    """The noise levels that a run visits, and the table that takes it there."""

    @property
    def table(self) -> Table: ...
    @property
    def schedule(self) -> str:
        """ "tuned", the name of one of `schedules`, "explicit", or "posterior mean"."""

    @property
    def deviation_scale(self) -> float:
        """What several samples' standard deviation is multiplied by, see `Diffusion.deviation_scale`; else 1."""

    @property
    def mirrored(self) -> bool:
        """Whether the volume is the mean of the patient's and of the mirror image's, see `Diffusion.mirror`."""

    @property
    def sigmas(self) -> list[float]:
        """The noise levels, falling, in the network's unit; the final 0 is not among them."""

    @property
    def corrected(self) -> list[int]:
        """After which evaluations, from 1, data consistency is applied."""

    @property
    def gamma(self) -> float: ...
    @property
    def evaluations(self) -> int:
        """Of all samples."""

class _Diffusion(Protocol):
    @property
    def sigma_min(self) -> float: ...
    @property
    def sigma_max(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def solver(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def schedules(self) -> Mapping[int, Sequence[float]]: ...
    @property
    def deviation_scale(self) -> Mapping[int, float]: ...
    @property
    def mirror(self) -> bool: ...

def sampling_plan(diffusion: _Diffusion, options: SampleOptions) -> SamplingPlan:
    """Plan what is asked for; what isn't is what the bundle says.

    Raises:
        InputError: an unknown name, a number that can't be had, or options that contradict each other.
    """

def conditions(
    matrices: Sequence[npt.ArrayLike], shape: Sequence[int], spacing_mm: Sequence[float], xrays: Sequence[XRay]
) -> tuple[FloatArray, FloatArray, FloatArray, list[MeasuredView]]:
    """Bring X-rays onto the encoder's picture.

    Args:
        matrices: P (3, 4) of a bundle's views.
        shape: (rows, columns) of the picture.
        spacing_mm: its row and column pitch at the isocentre.
        xrays: one or more.

    Returns:
        [1, V, 1, H, W] line integrals, [1, V] with 1 where there is an X-ray, [1, V, 3, 4] patient mm to pixels, and
        each X-ray on the picture.

    Raises:
        InputError: no X-ray, two in one slot, or one whose values or geometry can't be.
    """

def mirrored_conditions(
    views: npt.ArrayLike, valid: npt.ArrayLike, matrices: npt.ArrayLike
) -> tuple[FloatArray, FloatArray] | None:
    """The same [1, V, 1, H, W] and [1, V, 3, 4] of the patient's mirror image, x to -x.

    Where a view's columns follow x the picture is mirrored, as it would be in an X-ray of that image; else it stays,
    and the matrix alone says so. None where such a view is of cone beams, whose source would be on the other side.
    """

class PrecisionInfo(TypedDict):
    """What each network computes in; of the lift "" before X-rays are set."""

    encoder: str
    lift: str
    denoiser: str

class ConsistencyInfo(TypedDict):
    """What data consistency did in a run; no views where it was off."""

    evaluations: list[int]
    gamma: float
    closed: bool
    rounds: int
    views: list[ViewConsistency]

class RunTimes(TypedDict):
    """Where the latest run's time went, in seconds; `kernel_s`, `gap_s` and `waits` are of its last sample.

    `compile_s` and `condition_s` are 0 unless the run had to compile networks anew.
    """

    compile_s: float
    condition_s: float
    loop_s: float
    network_s: float
    consistency_s: float
    kernel_s: float
    gap_s: float
    waits: int

class DryRun(TypedDict):
    """What a run would take: how many evaluations, and the seconds of one."""

    evaluations: int
    per_evaluation_s: float

class Pipeline:
    """One model, compiled for one device and one grid: X-rays in, a CT out. One call at a time.

    Args:
        folder: a bundle's, which has been checked: only its model.json is read again.
        checksum: of the bundle.
        backend, runtime_dir, device, precision, threads, provider, provider_options: as for `Network`; the precision is
            the denoiser's.
        shape: (X, Y, Z), multiples of the model's stride.
        voxel_mm: (x, y, z).
        memory: bytes that the process may take; 0 is what the machine has free.
        halo: of tiles, in voxels; below 0, the denoiser's receptive radius.
        engines: by a graph's file name in the bundle, the compiled engine that the backend opens in its place.
        first: the networks are compiled for runs like this one.

    Raises:
        InputError: a bundle that changed, or a grid that the model can't take.
        MissingRuntimeError: the runtime refuses.
        MemoryLimitError: no tile fits.
    """

    def __init__(
        self,
        folder: str,
        checksum: str,
        *,
        backend: str,
        runtime_dir: str,
        device: str,
        precision: str,
        threads: int,
        shape: Sequence[int],
        voxel_mm: Sequence[float],
        memory: int = 0,
        halo: int = -1,
        provider: str = "",
        provider_options: Mapping[str, str] = ...,
        engines: Mapping[str, str] = ...,
        first: SampleOptions | None = None,
    ) -> None: ...
    def set_xrays(self, xrays: Sequence[XRay]) -> None:
        """Run encoder and lift. Raises InputError as `conditions` does."""

    def run(
        self,
        options: SampleOptions,
        *,
        progress: Progress | None = None,
        preview: Preview | None = None,
        preview_every: int = 1,
        each: Callable[[int, FloatArray], object] | None = None,
        uncorrected: Callable[[int, FloatArray], object] | None = None,
        cancel: CancelToken | None = None,
    ) -> tuple[FloatArray, FloatArray | None, SamplingPlan]:
        """Sample. The GIL is free meanwhile, and Ctrl-C ends the run between two evaluations.

        Args:
            options: what is asked for.
            progress: called with (evaluations done, of how many, sigma) after each, of all samples together.
            preview: called with the same and the denoised volume [X, Y, Z], before `progress`.
            preview_every: so many evaluations; 1 or more.
            each: called with each sample's place, from 0, and the sample.
            uncorrected: called after each sample with data consistency, with attenuation per mm [X, Y, Z] of the
                denoised volume before its first step.
            cancel: looked at before each evaluation.

        Returns:
            The volume, float32 [X, Y, Z], of several samples their mean, and their standard deviation, None of one, in
            HU, or in the network's unit where `options.raw`; and the plan that the run followed.

        Raises:
            InputError: options that can't be, or no X-rays.
            Cancelled: by `cancel`. What a callback raises ends the run too.
        """

    def dry_run(self, options: SampleOptions) -> tuple[DryRun, SamplingPlan]:
        """Run the first two evaluations. Raises as `run`."""

    @property
    def tiles(self) -> TilePlan: ...
    @property
    def views(self) -> list[MeasuredView]:
        """The X-rays as the networks see them, in the order of `set_xrays`."""

    @property
    def consistency(self) -> ConsistencyInfo: ...
    @property
    def times(self) -> RunTimes: ...
    @property
    def precisions(self) -> PrecisionInfo: ...
    @property
    def runtime_version(self) -> str: ...

def run(
    denoiser: Callable[[FloatArray, float], npt.ArrayLike],
    table: Table,
    shape: Sequence[int],
    seed: int,
    sample: int = 0,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    threads: int = 0,
    preview: Preview | None = None,
    preview_every: int = 1,
) -> FloatArray:
    """The same loop with a Python function as the network: x of `shape` and sigma in, the denoised x out."""

def devices() -> list[DeviceInfo]:
    """Each kind of device and what there is of it here. Never raises."""

def check_device(device: str) -> list[DeviceCheck]:
    """What a device's kernels ("cpu", "cuda", "cuda:N") compute beside the CPU's, kind by kind.

    Raises:
        MissingRuntimeError: there is no such device here.
    """

def backends(runtime_dirs: Mapping[str, str] = ...) -> list[BackendInfo]:
    """Each backend and what it can do with the runtime in its folder, given by backend. Never raises."""

def project(
    volume: npt.ArrayLike, index_to_mm: npt.ArrayLike, P: npt.ArrayLike, rows: int, cols: int, threads: int = 0
) -> FloatArray:
    """Line integrals [rows, cols] of a volume [X, Y, Z] (per mm) seen through the 3x4 matrix P (patient mm to pixels).

    `index_to_mm` is the 4x4 affine from voxel index to patient mm. Joseph's method; outside is air.
    """

def backproject(
    image: npt.ArrayLike,
    shape: Sequence[int],
    index_to_mm: npt.ArrayLike,
    P: npt.ArrayLike,
    threads: int = 0,
) -> FloatArray:
    """The exact adjoint of `project`: [X, Y, Z] of `shape` from an image [rows, cols]."""

def resample(
    image: FloatArray,
    spacing: tuple[float, float],
    shape: tuple[int, int],
    target_spacing: tuple[float, float],
) -> FloatArray:
    """Brings an image [rows, columns] onto another grid with the same centre; outside the image is 0.

    Raises:
        InputError: an empty shape, or a spacing that is not above 0.
    """
