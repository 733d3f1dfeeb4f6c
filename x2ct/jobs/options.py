"""The jobs of `x2ct sample`, `xray`, `evaluate` and `serve`; each option is declared once: a field, and its help.

A field or a command's parameter whose default is a `setting`, or which is `Annotated` with an option of Typer, is an
option of the command, see `x2ct.commands.options.expanded`. Nothing heavy is imported: `x2ct --help` answers at once.
"""
# Without `from __future__ import annotations`: Typer needs the types of the fields.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from x2ct.engine.sampler import SampleOptions
    from x2ct.io.xray.readoptions import ReadOptions

MODEL = "Model: a bundle folder, or the name of a model that comes with x2ct."
"""Help of the argument or option that names a model."""


def option(text: str, *names: str, words: str = "", panel: str | None = None, **settings: Any) -> Any:
    """Return an option of this help text, which the help lists under `panel`; `settings` are those of typer.Option."""
    if words:
        settings["autocompletion"] = completer(words)
    return typer.Option(..., *names, help=text, rich_help_panel=panel, **settings)


def setting(default: Any, text: str, *names: str, **settings: Any) -> Any:
    """Return the default of a job's field, or of a command's parameter, that makes it an `option`.

    It must be given where `default` is an ellipsis. Without `names` it is named after the field; a False is a flag.
    """
    default = MISSING if default is ... else default
    return field(default=default, metadata={"option": option(text, *names, **settings), "names": names})


_input, _output, _sampling, _runtime, _limit = (
    partial(setting, panel=panel) for panel in ("Input", "Output", "Sampling", "Runtime", "Limits")
)
_runtime_option = partial(option, panel="Runtime")


def completer(option: str) -> Callable[[str], list[str]]:
    """Return what completes the values of an option that takes one of a few words."""

    def complete(incomplete: str) -> list[str]:
        from x2ct import _core, bundle
        from x2ct.io.ct import volume
        from x2ct.jobs.cohort import ENGINES
        from x2ct.runtimes import discovery

        words: dict[str, Sequence[str]] = {
            "model": list(bundle.bundled()),
            "solver": [solver["name"] for solver in _core.solvers()],
            "schedule": ["tuned", *_core.schedules()],
            "device": discovery.DEVICES,
            "backend": discovery.BACKENDS,
            "precision": discovery.PRECISIONS,
            "format": ["auto", *volume.FORMATS],
            "engine": ENGINES,
            "consistency": ["off", "last", "every"],
            "centre": ["lungs", "body", "file"],
        }
        return [word for word in words[option] if word.startswith(incomplete)]

    return complete


def parse_option(text: str) -> tuple[str, str]:
    """Return a provider's option and its value."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"found {text!r}, expected KEY=VALUE")
    return key, value


def parse_shape(text: str) -> tuple[int, int, int]:
    """Return the number of voxels along x, y and z."""
    try:
        x, y, z = (int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected X,Y,Z in voxels") from None
    if min(x, y, z) < 1:
        raise typer.BadParameter(f"found {text!r}, expected sizes of at least 1")
    return x, y, z


def parse_voxel(text: str) -> tuple[float, float, float]:
    """Return a voxel size along x, y and z, of one number in mm or three."""
    try:
        x, *others = (float(part) for part in text.split(","))
        y, z = others or [x, x]
    except ValueError:
        raise typer.BadParameter(f"found {text!r}, expected MM or X,Y,Z in mm") from None
    if not all(0.01 <= side <= 50 for side in (x, y, z)):
        raise typer.BadParameter(f"found {text!r}, expected 0.01 to 50 mm")
    return x, y, z


def parse_names(text: str) -> tuple[str, ...]:
    """Return the names that commas separate."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_bytes(text: str) -> int:
    """Return a size in bytes."""
    from x2ct.errors import InputError
    from x2ct.runtimes import discovery

    try:
        return discovery.parse_bytes(str(text))  # of a default it is bytes already
    except InputError as error:  # names --memory, whichever option this is
        raise typer.BadParameter(f"found {text!r}, expected {error.parts['expected']}") from None


SHAPE: dict[str, Any] = {"parser": parse_shape, "metavar": "X,Y,Z"}
VOXEL: dict[str, Any] = {"parser": parse_voxel, "metavar": "MM"}
BYTES: dict[str, Any] = {"parser": parse_bytes, "metavar": "SIZE"}
"""Settings of an option that is a number of voxels along x, y and z, a voxel size in mm, or a size in bytes."""

Model = Annotated[str, option(MODEL, "--model", "-m", words="model", panel="Sampling")]
Device = Annotated[str, _runtime_option("Device: auto, cpu or cuda[:N].", words="device")]
Backend = Annotated[
    str,
    _runtime_option("Runtime: auto (openvino on the CPU), openvino, onnxruntime, tensorrt or torch.", words="backend"),
]
_PRECISION = "Precision of the denoiser: auto, f32, tf32, bf16, f16 or int8. An unsupported one is an error."
Precision = Annotated[str, _runtime_option(_PRECISION, words="precision")]
Threads = Annotated[int, _runtime_option("Number of CPU threads. 0: chosen by the runtime.", "--threads", min=0)]
_CENTRE = "Origin of patient mm: centre of the lungs (of the body without lungs), body, or file."
Centre = Annotated[str, option(_CENTRE, words="centre")]
KeepCouch = Annotated[bool, option("Keep couch, clothes and tubes. Default: removed.", "--keep-couch")]
_STRICT = "Treat warnings as errors: exit with code 2 and write nothing."


@dataclass(frozen=True)
class SampleJob:
    """The options of `x2ct sample`. The command's help describes each; the attributes below add what it leaves open.

    Attributes:
        output: the CT; a folder where `x2ct.jobs.cohort` samples many studies.
        reading: how to read an X-ray, by view, where its file doesn't say it or says it wrong.
        shape, voxel_mm: of the CT.
        seed, steps, solver, schedule, mean, consistency, gamma, strict, align, force: see `x2ct.Sampler.run`.
        memory, halo, device, backend, precision, provider, provider_options, compiled, trust, threads: see
            `x2ct.Sampler`.
    """

    output: Path = _output(..., "CT file to write, int16 HU: .nii.gz, .nii, .nrrd or .mha.", "--output", "-o")
    format: str = _output(
        "auto",
        "File format: nifti, nrrd, mha or dicom (-o names a new folder). Default: by the file name.",
        words="format",
    )
    ap: Path | None = _input(
        None, "Frontal X-ray, source in front of the patient: DICOM, PNG, JPEG, TIFF, .npy or NIfTI."
    )
    pa: Path | None = _input(None, "Frontal X-ray, source behind the patient. Use --ap or --pa, not both.")
    lateral: Path | None = _input(None, "Lateral X-ray. One view alone is enough.")
    geometry: Path | None = _input(None, "Geometry file (JSON): position of source and detector for each X-ray.")
    reading: "Mapping[str, ReadOptions]" = field(default_factory=dict)
    model: Model = "chest"
    preview: Path | None = _output(None, "Write a picture of the CT to this .png file.")
    preview_every: int | None = _output(
        None, "Rewrite --preview after every N network evaluations.", min=1, metavar="N"
    )
    unexplained: Path | None = _output(
        None, "Write what each X-ray shows beyond the CT, as a map with places marked, to this .png file."
    )
    report: Path | None = _output(None, "Write inputs, settings, timings and checksums to this .json file.")
    seed: int = _sampling(0, "Random seed. The same inputs and seed produce the same file.", min=0)
    steps: int | None = _sampling(None, "Number of sampling steps. Default: the model's.", min=1)
    solver: str | None = _sampling(None, "Solver, a name listed by `x2ct info`. Default: the model's.", words="solver")
    schedule: str | None = _sampling(
        None, "Noise schedule: `tuned`, or a name listed by `x2ct info`. Default: the model's.", words="schedule"
    )
    mean: bool = _sampling(
        False, "Return the mean estimate (posterior mean, one or two evaluations) instead of a sample."
    )
    consistency: str = _sampling(
        "off",
        "Data consistency: correct the CT towards the X-rays after no evaluation (off), the last one (last), "
        "each one (every), or listed ones (3,5,6).",
        words="consistency",
    )
    gamma: float | None = _sampling(None, "Strength of data consistency.")
    samples: int = _sampling(
        1,
        "Number of samples. With more than one, -o holds their mean; NAME_std and NAME_000, NAME_001 ... "
        "are written beside it.",
        min=1,
    )
    shape: tuple[int, int, int] | None = _sampling(None, "Number of voxels of the CT. Default: the model's.", **SHAPE)
    voxel_mm: tuple[float, float, float] | None = _sampling(
        None, "Voxel size in mm, one number or X,Y,Z. Default: the model's.", "--voxel", **VOXEL
    )
    memory: int | None = _runtime(
        None, "Memory budget, for example 2GB. A volume that does not fit is computed in tiles.", **BYTES
    )
    halo: int | None = _runtime(
        None,
        "Overlap of tiles in voxels. Default: the network's receptive field, so that tiles change nothing.",
        min=0,
        metavar="VOXELS",
    )
    device: Device = "auto"
    backend: Backend = "auto"
    precision: Precision = "auto"
    provider: str = _runtime(
        "", "ONNX Runtime execution provider (cpu, cuda, tensorrt), or kind of torch engine (torchscript, aoti)."
    )
    provider_options: Sequence[tuple[str, str]] = _runtime(
        (),
        "Option passed to the provider. May be repeated.",
        "--provider-option",
        parser=parse_option,
        metavar="KEY=VALUE",
    )
    compiled: str = _runtime(
        "", "Folder of compiled engines for torch or tensorrt. Default: this user's cache.", metavar="FOLDER"
    )
    trust: bool = _runtime(False, "Run compiled engines, which contain code, even if they were made elsewhere.")
    threads: Threads = 0
    align: bool = _sampling(
        False,
        "Find how much higher and larger the patient is in the lateral X-ray than in the frontal one, and each turn.",
    )
    strict: bool = setting(False, _STRICT)
    force: bool = setting(False, "Sample X-rays that do not look like those of training, with a warning.")

    @property
    def inputs(self) -> dict[str, Path]:
        """The X-ray files by view."""
        return {name: path for name in ("ap", "pa", "lateral") if (path := getattr(self, name)) is not None}

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files to write, the CT first."""
        more = (*self.each, self.spread) if self.samples > 1 else ()
        return (self.output, *more, *self.pictures, *((self.report,) if self.report else ()))

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The .png files to write."""
        return tuple(path for path in (self.preview, self.unexplained) if path is not None)

    @property
    def options(self) -> "SampleOptions":
        """The sampler's options."""
        from x2ct.engine.sampler import SampleOptions

        names = {one.name for one in fields(SampleOptions)}
        return SampleOptions(**{name: value for name, value in vars(self).items() if name in names})

    @property
    def spread(self) -> Path:
        """The voxel-wise standard deviation of several samples, in HU."""
        return self._beside("std")

    @property
    def each(self) -> tuple[Path, ...]:
        """The samples themselves, where there are several."""
        return tuple(self._beside(f"{sample:03d}") for sample in range(self.samples))

    def _beside(self, what: str) -> Path:
        from x2ct.io.ct.volume import stem_and_ending

        stem, ending = stem_and_ending(self.output.name)
        return self.output.with_name(f"{stem}_{what}{ending}")


@dataclass(frozen=True)
class XRayJob:
    """The options of `x2ct xray`, and `reading`, how to read the file, by view."""

    file: Annotated[Path, typer.Argument(help="X-ray to read: DICOM, PNG, JPEG, TIFF, .npy or NIfTI.")]
    view: str | None = _input(None, "View: ap, pa or lateral. Default: the file's, else ap.")
    geometry: Path | None = _input(None, "Geometry file (JSON): position of source and detector.")
    reading: "Mapping[str, ReadOptions]" = field(default_factory=dict)
    model: str = setting(
        "chest",
        "Model whose detector and scale are used: a bundle folder, or a model that comes with x2ct.",
        "--model",
        "-m",
    )
    stages: Path | None = _output(None, "Draw each processing stage to this .png file.")
    output: Path | None = _output(
        None, "Write the line integrals, float32, to this .npy or .tif file.", "--output", "-o"
    )
    strict: bool = setting(False, _STRICT)


@dataclass(frozen=True)
class EvaluateJob:
    """The options of `x2ct evaluate`. The command's help describes each; the attributes below add what it leaves open.

    Attributes:
        output: the folder for the report, see `x2ct.jobs.evaluate.FILES`.
        predictions, frame: see `x2ct.evaluation.predictions`.
        centre, keep_couch: see `x2ct.data.prepare.PrepareOptions`.
        samples: of seeds 0 to N - 1.
        conditions, probe: see the modules of `x2ct.evaluation`.
        shape, voxel_mm: without a bundle; by default the shards', or 128^3 at 2.5 mm.
        device, backend, precision, threads: see `x2ct.Sampler`.
        page: also write the page, which needs the extra `report`.
    """

    data: Path = setting(..., "Folder of test CTs: CT files and DICOM folders, one for each patient.", "--data")
    output: Path = setting(
        ..., "Folder for the report: JSON, CSV, Markdown and, with the extra report, a page.", "--output", "-o"
    )
    bundle: Annotated[str | None, typer.Argument(help=MODEL, autocompletion=completer("model"))] = None
    predictions: Path | None = setting(
        None, "Evaluate these volumes instead of a bundle: CASE.nii.gz or CASE_000.nii.gz ..."
    )
    frame: str = setting(
        "auto",
        "Coordinates of the predictions' affines: patient (patient mm), world (the CT's world mm), or auto "
        "(the one that fills more of the grid).",
    )
    centre: Centre = "lungs"
    keep_couch: KeepCouch = False
    baselines: Path | None = setting(
        None, "Shard folder to fit baselines on: mean volume, nearest patient, linear regression.", metavar="SHARDS"
    )
    region: str = setting("chest", "Region of the patients that the baselines use: chest, other or any.")
    samples: int = setting(8, "Number of samples for each patient. 0: mean estimate only.", min=0)
    steps: int | None = setting(None, "Number of sampling steps. Default: the model's.", min=1)
    geometry: str = setting(
        "bundle", "Geometry of the test X-rays: bundle (the model's own), parallel, cone, or a geometry file."
    )
    conditions: tuple[str, ...] = setting(
        (),
        "Evaluation conditions, X-rays unlike those of training: every, or names separated by commas.",
        parser=parse_names,
        metavar="LIST",
    )
    probe: bool = setting(False, "Insert synthetic lesions and gaps in bones, and measure how much of them is found.")
    cases: Sequence[str] = setting((), "Evaluate only this patient. May be repeated.", "--case")
    xrays: Path | None = setting(None, "Write the test X-rays to this folder, for other systems to predict from.")
    shape: tuple[int, int, int] | None = setting(
        None, "Number of voxels of the evaluated grid. Only without a bundle.", **SHAPE
    )
    voxel_mm: tuple[float, float, float] | None = setting(
        None, "Voxel size in mm of the evaluated grid. Only without a bundle.", "--voxel", **VOXEL
    )
    device: Device = "auto"
    backend: Backend = "auto"
    precision: Precision = "auto"
    threads: Threads = 0
    page: bool = True


@dataclass(frozen=True)
class Limits:
    """How much `x2ct serve` takes on; InputError where a limit is not positive."""

    queue: int = _limit(8, "Jobs that may wait.", "--queue", min=1)
    body_bytes: int = _limit(256 * 2**20, "Largest request, such as 64MB.", "--body", show_default="256MiB", **BYTES)
    body_s: float = _limit(60.0, "Seconds for a request's body to arrive.", "--body-timeout", metavar="S")
    job_s: float = _limit(600.0, "Seconds that a job may run.", "--job-timeout", metavar="S")
    keep_s: float = _limit(600.0, "Seconds until what was not fetched is removed.", "--keep", metavar="S")
    grace_s: float = _limit(
        30.0, "Seconds to finish a job that a client waits for, after SIGTERM.", "--grace", metavar="S"
    )
    samples: int = _limit(16, "Samples of one job.", "--max-samples", min=1)

    def __post_init__(self) -> None:
        from x2ct.errors import InputError

        for one in fields(self):
            if not (value := getattr(self, one.name)) > 0:
                raise InputError.of(one.metadata["names"][0], "value", found=value, expected="more than 0")
