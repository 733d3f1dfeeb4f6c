"""Options that several commands share, and how Typer sees a dataclass as options.

Those of jobs, and the parsers of their values, are in `x2ct.jobs.options`.
"""

import inspect
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import partial, wraps
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from x2ct.jobs.options import option, setting

if TYPE_CHECKING:
    from x2ct.io.xray.readoptions import ReadOptions, ViewValue

Quiet = Annotated[bool, option("Print only errors.", "--quiet", "-q")]
Json = Annotated[bool, option("Print the result as one JSON object on stdout.", "--json")]
CT = Annotated[Path, typer.Argument(help="CT to read: NIfTI, NRRD, MetaImage, or a folder with a DICOM series.")]


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command of which Typer sees each `setting` as an option, and a dataclass of them as all its options.

    Of `Annotated[CLASS, "a", "b"]` it sees only these fields. What the command line does not give is left to the
    defaults of the class, or to the instance that is the parameter's default.
    """
    shown: list[Parameter] = []
    groups: dict[str, tuple[Callable[..., Any], list[str]]] = {}
    for one in inspect.signature(command, eval_str=True).parameters.values():
        group, *names = get_args(one.annotation) or (one.annotation,)
        if isinstance(one.default, Field):
            one.default.name, one.default.type = one.name, one.annotation
            shown.append(_parameter(one.default))
        elif isinstance(group, type) and is_dataclass(group):
            options = [_parameter(each) for each in fields(group) if _info(each) and (each.name in names or not names)]
            make = group if one.default is Parameter.empty else partial(replace, one.default)
            groups[one.name] = make, [option.name for option in options]
            shown += options
        else:
            shown.append(one.replace(kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**values: Any) -> None:
        for name, (make, options) in groups.items():
            settings = {option: values.pop(option) for option in options}
            values[name] = make(**{option: value for option, value in settings.items() if value is not None})
        command(**values)

    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return run


def _info(field: "Field[Any]") -> Any:
    """Return the option or argument that a field is; None for one that is none."""
    return get_args(field.type)[1] if get_origin(field.type) is Annotated else field.metadata.get("option")


def _parameter(field: "Field[Any]") -> Parameter:
    """Return a dataclass's field as Typer takes it."""
    info, kind = copy(_info(field)), field.type
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    default = Parameter.empty if field.default is MISSING else field.default
    if isinstance(info.show_default, str):
        default, info.show_default = info.show_default, True
    if get_origin(kind) is Sequence:  # an option that may be repeated
        kind, default = list[Any if info.parser else get_args(kind)[0]], None  # type: ignore[misc]
    elif info.parser is not None:
        # Typer would take a tuple for several words; a default in words is parsed, and shown.
        kind, default = Any, default if isinstance(default, str) else None
    elif field.default is False and not info.param_decls:  # a flag, without the --no-... that Typer gives it
        info.param_decls = (f"--{field.name.replace('_', '-')}",)
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def _reading(name: str, metavar: str, text: str) -> Any:
    def parsed(value: str) -> "ViewValue":
        from x2ct.io.xray.readoptions import parse_value

        try:
            return parse_value(name, value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return setting((), text, panel="Input", parser=parsed, metavar=f"[VIEW=]{metavar}")


_Values = Sequence[tuple[str | None, Any]]


@dataclass(frozen=True)
class Reading:
    """Options that say how to read X-rays: for each of `ReadOptions` values for one view, or for every view."""

    spacing: _Values = _reading("spacing", "MM", "Pixel pitch in mm, one number or ROW,COLUMN.")
    rotate: _Values = _reading("rotate", "DEGREES", "Rotate the X-ray clockwise by 90, 180 or 270 degrees.")
    flip: _Values = _reading("flip", "WAY", "Mirror the X-ray, after the rotation: horizontal or vertical.")
    frame: _Values = _reading("frame", "N", "Frame of a multi-frame file, counted from 1.")
    sdd: _Values = _reading("sdd", "MM", "Distance from source to detector in mm. Requires --sod.")
    sod: _Values = _reading("sod", "MM", "Distance from source to the centre of the patient in mm.")
    angle: _Values = _reading(
        "angle", "DEGREES", "Angle of the source around the patient in degrees: 0 in front, 90 at the patient's right."
    )
    invert: _Values = _reading(
        "invert", "yes|no", "yes if dense tissue is dark in the X-ray. Default: read from the file and its picture."
    )
    values: _Values = _reading(
        "values",
        "WORD",
        "Meaning of the pixel values of a PNG, JPEG, TIFF, .npy or NIfTI file: display or (line) integrals.",
    )

    def by_view(self, views: Sequence[str]) -> "dict[str, ReadOptions]":
        """Return how to read each view's X-ray. Raises InputError: a value that can't be, or for none of the views."""
        from x2ct.io.xray.readoptions import ReadOptions, by_view

        return {view: ReadOptions(**options) for view, options in by_view(views, vars(self)).items()}
