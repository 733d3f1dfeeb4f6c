"""The jobs of `x2ct sample` and `x2ct xray`, each option declared once: a field, and how the command line shows it.

A field that is a `setting`, or `Annotated` with an option of Typer, is an option of the command, which
`x2ct.commands.options.expanded` makes of it. Nothing heavy is imported, so that `x2ct --help` answers at once.
"""
# Without `from __future__ import annotations`: Typer needs the types of the fields.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from x2ct.engine.sampler import SampleOptions
    from x2ct.io.xray.readoptions import ReadOptions

MODEL = "Model: a bundle folder, or the name of a model that comes with x2ct."
"""Help of the argument or option that names a model."""


def option(panel: str | None, text: str, *names: str, words: str = "", **settings: Any) -> Any:
    """Return an option of this help text, which the help lists under `panel`; `settings` are those of typer.Option."""
    if words:
        settings["autocompletion"] = completer(words)
    return typer.Option(*names, help=text, rich_help_panel=panel, **settings)


def setting(default: Any, panel: str | None, text: str, *names: str, **settings: Any) -> Any:
    """Return a job's field that is an `option`, and must be given where `default` is an ellipsis."""
    default = MISSING if default is ... else default
    return field(default=default, metadata={"option": option(panel, text, *names, **settings)})


def completer(option: str) -> Callable[[str], list[str]]:
    """Return what completes the values of an option that takes one of a few words."""
    return lambda incomplete: [word for word in _words(option) if word.startswith(incomplete)]


def _words(option: str) -> Sequence[str]:
    from x2ct import _core, bundle
    from x2ct.io.ct import volume
    from x2ct.jobs.cohort import ENGINES
    from x2ct.runtimes import discovery

    words: dict[str, Callable[[], Sequence[str]]] = {
        "model": bundle.bundled,
        "solver": lambda: [solver["name"] for solver in _core.solvers()],
        "schedule": lambda: ["tuned", *_core.schedules()],
        "device": lambda: discovery.DEVICES,
        "backend": lambda: discovery.BACKENDS,
        "precision": lambda: discovery.PRECISIONS,
        "format": lambda: ["auto", *volume.FORMATS],
        "engine": lambda: ENGINES,
        "consistency": lambda: ["off", "last", "every"],
        "centre": lambda: ["lungs", "body", "file"],
    }
    return words[option]()


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


def parse_bytes(text: str) -> int:
    """Return a size in bytes."""
    from x2ct.errors import InputError
    from x2ct.runtimes import discovery

    try:
        return discovery.parse_bytes(text)
    except InputError as error:  # names --memory, whichever option this is
        raise typer.BadParameter(f"found {text!r}, expected {error.parts['expected']}") from None


SHAPE: dict[str, Any] = {"parser": parse_shape, "metavar": "X,Y,Z"}
VOXEL: dict[str, Any] = {"parser": parse_voxel, "metavar": "MM"}
BYTES: dict[str, Any] = {"parser": parse_bytes, "metavar": "SIZE"}
"""Settings of an option that is a number of voxels along x, y and z, a voxel size in mm, or a size in bytes."""

Model = Annotated[str, option("Sampling", MODEL, "--model", "-m", words="model")]
Device = Annotated[str, option("Runtime", "Device: auto, cpu or cuda[:N].", words="device")]
Backend = Annotated[
    str,
    option(
        "Runtime", "Runtime: auto (openvino on the CPU), openvino, onnxruntime, tensorrt or torch.", words="backend"
    ),
]
Precision = Annotated[
    str,
    option(
        "Runtime",
        "Precision of the denoiser: auto, f32, tf32, bf16, f16 or int8. An unsupported one is an error.",
        words="precision",
    ),
]
Threads = Annotated[int, option("Runtime", "Number of CPU threads. 0: chosen by the runtime.", "--threads", min=0)]
_STRICT = "Treat warnings as errors: exit with code 2 and write nothing."


@dataclass(frozen=True)
class SampleJob:
    """What `x2ct sample` is asked to do. The command's help says what each option is; here is what it leaves open.

    Attributes:
        output: the CT; a folder where `x2ct.jobs.cohort` samples many studies.
        reading: how to read an X-ray, by view, where its file doesn't say it or says it wrong.
        shape, voxel_mm: of the CT.
        seed, steps, solver, schedule, mean, consistency, gamma, strict, align, force: see `x2ct.Sampler.run`.
        memory, halo, device, backend, precision, provider, provider_options, compiled, trust, threads: see
            `x2ct.Sampler`.
    """

    output: Path = setting(..., "Output", "CT file to write, int16 HU: .nii.gz, .nii, .nrrd or .mha.", "--output", "-o")
    format: str = setting(
        "auto",
        "Output",
        "File format: nifti, nrrd, mha or dicom (-o names a new folder). Default: by the file name.",
        words="format",
    )
    ap: Path | None = setting(
        None, "Input", "Frontal X-ray, source in front of the patient: DICOM, PNG, JPEG, TIFF, .npy or NIfTI."
    )
    pa: Path | None = setting(None, "Input", "Frontal X-ray, source behind the patient. Use --ap or --pa, not both.")
    lateral: Path | None = setting(None, "Input", "Lateral X-ray. One view alone is enough.")
    geometry: Path | None = setting(
        None, "Input", "Geometry file (JSON): position of source and detector for each X-ray."
    )
    reading: "Mapping[str, ReadOptions]" = field(default_factory=dict)
    model: Model = "chest"
    preview: Path | None = setting(None, "Output", "Write a picture of the CT to this .png file.")
    preview_every: int | None = setting(
        None, "Output", "Rewrite --preview after every N network evaluations.", min=1, metavar="N"
    )
    report: Path | None = setting(None, "Output", "Write inputs, settings, timings and checksums to this .json file.")
    seed: int = setting(0, "Sampling", "Random seed. The same inputs and seed produce the same file.", min=0)
    steps: int | None = setting(None, "Sampling", "Number of sampling steps. Default: the model's.", min=1)
    solver: str | None = setting(
        None, "Sampling", "Solver, a name listed by `x2ct info`. Default: the model's.", words="solver"
    )
    schedule: str | None = setting(
        None,
        "Sampling",
        "Noise schedule: `tuned`, or a name listed by `x2ct info`. Default: the model's.",
        words="schedule",
    )
    mean: bool = setting(
        False, "Sampling", "Return the mean estimate (posterior mean, one evaluation) instead of a sample.", "--mean"
    )
    consistency: str = setting(
        "off",
        "Sampling",
        "Data consistency: correct the CT towards the X-rays after no evaluation (off), the last one (last), "
        "each one (every), or listed ones (3,5,6).",
        words="consistency",
    )
    gamma: float | None = setting(None, "Sampling", "Strength of data consistency.")
    samples: int = setting(
        1,
        "Sampling",
        "Number of samples. With more than one, -o holds their mean; NAME_std and NAME_000, NAME_001 ... "
        "are written beside it.",
        min=1,
    )
    shape: tuple[int, int, int] | None = setting(
        None, "Sampling", "Number of voxels of the CT. Default: the model's.", **SHAPE
    )
    voxel_mm: tuple[float, float, float] | None = setting(
        None, "Sampling", "Voxel size in mm, one number or X,Y,Z. Default: the model's.", "--voxel", **VOXEL
    )
    memory: int | None = setting(
        None, "Runtime", "Memory budget, for example 2GB. A volume that does not fit is computed in tiles.", **BYTES
    )
    halo: int | None = setting(
        None,
        "Runtime",
        "Overlap of tiles in voxels. Default: the network's receptive field, so that tiles change nothing.",
        min=0,
        metavar="VOXELS",
    )
    device: Device = "auto"
    backend: Backend = "auto"
    precision: Precision = "auto"
    provider: str = setting(
        "",
        "Runtime",
        "ONNX Runtime execution provider (cpu, cuda, tensorrt), or kind of torch engine (torchscript, aoti).",
    )
    provider_options: Sequence[tuple[str, str]] = setting(
        (),
        "Runtime",
        "Option passed to the provider. May be repeated.",
        "--provider-option",
        parser=parse_option,
        metavar="KEY=VALUE",
    )
    compiled: str = setting(
        "", "Runtime", "Folder of compiled engines for torch or tensorrt. Default: this user's cache.", metavar="FOLDER"
    )
    trust: bool = setting(
        False, "Runtime", "Run compiled engines, which contain code, even if they were made elsewhere.", "--trust"
    )
    threads: Threads = 0
    align: bool = setting(
        False,
        "Sampling",
        "Find how much higher and larger the patient is in the lateral X-ray than in the frontal one, and each turn.",
        "--align",
    )
    strict: bool = setting(False, None, _STRICT, "--strict")
    force: bool = setting(
        False, None, "Sample X-rays that do not look like those of training, with a warning.", "--force"
    )

    @property
    def inputs(self) -> dict[str, Path]:
        """The X-ray files by view."""
        views = {"ap": self.ap, "pa": self.pa, "lateral": self.lateral}
        return {name: path for name, path in views.items() if path is not None}

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files to write, the CT first."""
        more = (*self.each, self.spread) if self.samples > 1 else ()
        return (self.output, *more, *(path for path in (self.preview, self.report) if path is not None))

    @property
    def options(self) -> "SampleOptions":
        """How to sample."""
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
    """What `x2ct xray` is asked to do: its options, and `reading`, how to read the file, by view."""

    file: Annotated[Path, typer.Argument(help="X-ray to read: DICOM, PNG, JPEG, TIFF, .npy or NIfTI.")]
    view: str | None = setting(None, "Input", "View: ap, pa or lateral. Default: the file's, else ap.")
    geometry: Path | None = setting(None, "Input", "Geometry file (JSON): position of source and detector.")
    reading: "Mapping[str, ReadOptions]" = field(default_factory=dict)
    model: str = setting(
        "chest",
        None,
        "Model whose detector and scale are used: a bundle folder, or a model that comes with x2ct.",
        "--model",
        "-m",
    )
    stages: Path | None = setting(None, "Output", "Draw each processing stage to this .png file.")
    output: Path | None = setting(
        None, "Output", "Write the line integrals, float32, to this .npy or .tif file.", "--output", "-o"
    )
    strict: bool = setting(False, None, _STRICT, "--strict")
