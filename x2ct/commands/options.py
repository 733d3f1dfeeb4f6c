"""Options that several commands share, and parsers of their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from x2ct.io.xray.readoptions import ReadOptions, ViewValue

MODEL = "Model: a bundle folder, or the name of a model that comes with x2ct."
"""Help of the argument or option that names a model."""


def option(panel: str | None, text: str, *names: str, **settings: Any) -> Any:
    """Return an option of this help text, which the help lists under `panel`; `settings` are those of typer.Option."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **settings)


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Strict = Annotated[bool, typer.Option("--strict", help="Treat warnings as errors: exit with code 2 and write nothing.")]
Force = Annotated[
    bool, typer.Option("--force", help="Sample X-rays that do not look like those of training, with a warning.")
]
Threads = Annotated[int, option("Runtime", "Number of CPU threads. 0: chosen by the runtime.", "--threads", min=0)]


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


def completer(option: str) -> Callable[[str], list[str]]:
    """Return what completes the values of an option that takes one of a few words."""
    return lambda incomplete: [word for word in _words(option) if word.startswith(incomplete)]


def parse_option(text: str) -> tuple[str, str]:
    """Return a provider's option and its value."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"found {text!r}, expected KEY=VALUE")
    return key, value


def parse_view(text: str) -> str | float:
    """Return a view's name, or an angle in degrees."""
    try:
        return float(text)
    except ValueError:
        return text


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


def shape_option(text: str, panel: str | None = None) -> Any:
    """Return an option that is a number of voxels along x, y and z."""
    return option(panel, text, parser=parse_shape, metavar="X,Y,Z")


def voxel_option(text: str, panel: str | None = None) -> Any:
    """Return an option that is a voxel size."""
    return option(panel, text, parser=parse_voxel, metavar="MM")


def bytes_option(text: str, panel: str | None = None) -> Any:
    """Return an option that is a size in bytes."""
    return option(panel, text, parser=parse_bytes, metavar="SIZE")


def own_bundle(bundle: str, output: Path | None) -> Path:
    """Return where a command writes a bundle that it changes: `output`, or the bundle itself if it is one's own.

    Raises:
        InputError: no such bundle; or a bundled model, and no output.
    """
    from x2ct.bundle.folder import find
    from x2ct.errors import InputError

    folder = find(bundle)
    if output is None and folder != Path(bundle):
        hint = "write another: -o NAME.x2ct"
        raise InputError.of(bundle, "output", found="a bundled model", expected="a bundle of one's own", hint=hint)
    return output or folder


Model = Annotated[str, option("Sampling", MODEL, "--model", "-m", autocompletion=completer("model"))]
Solver = Annotated[
    str | None,
    option(
        "Sampling", "Solver, a name listed by `x2ct info`. Default: the model's.", autocompletion=completer("solver")
    ),
]
Schedule = Annotated[
    str | None,
    option(
        "Sampling",
        "Noise schedule: `tuned`, or a name listed by `x2ct info`. Default: the model's.",
        autocompletion=completer("schedule"),
    ),
]
Device = Annotated[str, option("Runtime", "Device: auto, cpu or cuda[:N].", autocompletion=completer("device"))]
Backend = Annotated[
    str,
    option(
        "Runtime",
        "Runtime: auto (openvino on the CPU), openvino, onnxruntime, tensorrt or torch.",
        autocompletion=completer("backend"),
    ),
]
Precision = Annotated[
    str,
    option(
        "Runtime",
        "Precision of the denoiser: auto, f32, tf32, bf16, f16 or int8. An unsupported one is an error.",
        autocompletion=completer("precision"),
    ),
]
Centre = Annotated[
    str,
    typer.Option(
        autocompletion=completer("centre"),
        help="Origin of patient mm: centre of the lungs (of the body without lungs), body, or file.",
    ),
]
KeepCouch = Annotated[bool, typer.Option("--keep-couch", help="Keep couch, clothes and tubes. Default: removed.")]

Shape = Annotated[Any, shape_option("Number of voxels of the CT. Default: the model's.", "Sampling")]
Voxel = Annotated[Any, voxel_option("Voxel size in mm, one number or X,Y,Z. Default: the model's.", "Sampling")]
Memory = Annotated[
    Any, bytes_option("Memory budget, for example 2GB. A volume that does not fit is computed in tiles.", "Runtime")
]

CT = Annotated[Path, typer.Argument(help="CT to read: NIfTI, NRRD, MetaImage, or a folder with a DICOM series.")]
OtherBundle = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write a new bundle here instead of changing this one.")
]
FoundReport = Annotated[Path | None, typer.Option("--report", help="Write the results to this .json file.")]


def _reading(name: str, metavar: str, text: str) -> Any:
    def parsed(value: str) -> ViewValue:
        from x2ct.io.xray.readoptions import parse_value

        try:
            return parse_value(name, value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return option("Input", text, parser=parsed, metavar=f"[VIEW=]{metavar}")


SpacingOf = Annotated[list[Any] | None, _reading("spacing", "MM", "Pixel pitch in mm, one number or ROW,COLUMN.")]
RotateOf = Annotated[
    list[Any] | None, _reading("rotate", "DEGREES", "Rotate the X-ray clockwise by 90, 180 or 270 degrees.")
]
FlipOf = Annotated[
    list[Any] | None, _reading("flip", "WAY", "Mirror the X-ray, after the rotation: horizontal or vertical.")
]
FrameOf = Annotated[list[Any] | None, _reading("frame", "N", "Frame of a multi-frame file, counted from 1.")]
SddOf = Annotated[list[Any] | None, _reading("sdd", "MM", "Distance from source to detector in mm. Requires --sod.")]
SodOf = Annotated[list[Any] | None, _reading("sod", "MM", "Distance from source to the centre of the patient in mm.")]
AngleOf = Annotated[
    list[Any] | None,
    _reading(
        "angle", "DEGREES", "Angle of the source around the patient in degrees: 0 in front, 90 at the patient's right."
    ),
]
InvertOf = Annotated[
    list[Any] | None,
    _reading(
        "invert", "yes|no", "yes if dense tissue is dark in the X-ray. Default: read from the file and its picture."
    ),
]
ValuesOf = Annotated[
    list[Any] | None,
    _reading(
        "values",
        "WORD",
        "Meaning of the pixel values of a PNG, JPEG, TIFF, .npy or NIfTI file: display or (line) integrals.",
    ),
]


def reading(views: Sequence[str], **values: Sequence[ViewValue] | None) -> dict[str, ReadOptions]:
    """Return how to read each view's X-ray, by the values of the options above.

    Raises:
        InputError: a value for an X-ray that isn't there, or one that can't be.
    """
    from x2ct.io.xray.readoptions import ReadOptions, by_view

    options = by_view(views, {key: pairs or () for key, pairs in values.items()})
    return {view: ReadOptions(**fields) for view, fields in options.items()}
