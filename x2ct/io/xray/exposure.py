"""From a file's values to line integrals on a detector: the chain of docs/xrays.md, a function for each stage.

The chain brings any radiograph to a common scale without judging tissue. `loading_stages` (0 to 3) are what file and
user decide, the others what the model decides; 4 to 6 are left out for line integrals. In stage 2, the polarity may be
the picture's own answer: a sum of contrasts, taken of ranks so that no tone curve, window, log or gain changes them.
Each is 0 for a picture without structure, and of the opposite sign for its negative. A collimated border is bright in a
radiograph as air is in its negative, so that the whole picture and the part between straight shutters are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from x2ct import _core
from x2ct.errors import InputError
from x2ct.geometry import View
from x2ct.io.xray.readoptions import TURNS

if TYPE_CHECKING:
    from x2ct.io.xray.radiograph import XRay

FloatImage = npt.NDArray[np.float32]
Pair = tuple[float, float]
BoolImage = npt.NDArray[np.bool_]

AIR_PERCENTILE = 0.5
REFERENCE_PERCENTILE = 99.0
ASSUMED_SIDE_MM = 430.0  # the longer side of the usual cassettes and flat panels, 35 x 43 cm and 43 x 43 cm
DARKEST_INTENSITY = 1e-4  # of the brightest, below which a linear detector measures scatter and offset only

STATED, TAGGED, ASSUMED, DISPUTED, UNTOLD = "stated", "tagged", "assumed", "disputed", "untold"
"""How far it is known which values are dense: stated by the caller or the user, tagged by the file, assumed of
fluoroscopy by its sign or its custom, disputed where tags contradict each other, untold where there is no tag."""

DECIDES = 0.4
"""The least contrast that settles a polarity. Of 120 radiographs, nearly all of chests, and 90 projections of CTs, the
right way round, the least was 0.53."""

SHOWN = "The file does not say which values are dense: dense tissue was taken to be bright, as the picture suggests."

_GRID = 40  # cells along each side, in which a picture is ranked for its polarity
_BORDER_GRID = 256  # lines of the reduced picture in which shutters are looked for
_BORDER_SHARE = 0.35  # of the picture, that one shutter may cover
_BORDER_STEP = 0.04  # of the value range, by which a shutter is denser than the field beside it
_BORDER_AGREE = 0.85  # of a line, that must show the step
_BORDER_MARGIN = 0.01  # of the picture, that is given up beside a shutter: its edge is blurred, or not quite straight
_BORDER_DENSE = 0.6  # of the value range, that a shutter's values exceed


@dataclass(frozen=True)
class Stage:
    """One step of the chain: its name, what it does in a few words, and the function."""

    name: str
    does: str
    run: Callable[[XRay], XRay]


Watch = Callable[[Stage, "XRay"], None]


def run(stages: Sequence[Stage], xray: XRay, watch: Watch | None = None) -> XRay:
    """Take an X-ray through stages, one after the other; `watch` sees it after each."""
    for stage in stages:
        xray = stage.run(xray)
        if watch is not None:
            watch(stage, xray)
    return xray


def upright(xray: XRay) -> XRay:
    """Stage 1: put the head at row 0, and the patient's right, or a lateral's front, at column 0."""
    values, exposed, spacing = xray.image, xray.exposed, xray.spacing_mm
    for turn in xray.turns:
        values = _turned(values, turn)
        exposed = None if exposed is None else _turned(exposed, turn)
        spacing = (spacing[1], spacing[0]) if spacing is not None and turn > 4 else spacing
    return replace(xray, image=values, exposed=exposed, spacing_mm=spacing, turns=())


def _turned(image: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """Return a picture turned as `TURNS` has it."""
    down, across = TURNS[turn]
    return np.ascontiguousarray((image.T if turn > 4 else image)[::down, ::across])


def bright(xray: XRay, invert: bool | None) -> XRay:
    """Stage 2: make values grow with attenuation, or with intensity, where `log` comes next."""
    xray = settled(xray, invert)
    high = not xray.dense_is_high if xray.linear else xray.dense_is_high
    top = np.float32(xray.image.max() if xray.highest is None else xray.highest)
    values = xray.image if high else top - xray.image
    return replace(xray, image=values, dense_is_high=not xray.linear)


def log(xray: XRay) -> XRay:
    """Stage 3: take -ln of intensity over its 99.9th percentile, where values are linear in X-ray intensity."""
    if not xray.linear:
        return xray
    brightest = max(float(np.percentile(xray.image[xray.inside], 99.9)), 1e-6)
    relative = np.clip(xray.image / np.float32(brightest), DARKEST_INTENSITY, None)
    return replace(xray, image=np.asarray(-np.log(relative), np.float32), linear=False, dense_is_high=True)


def loading_stages(invert: bool | None) -> tuple[Stage, ...]:
    """Return stages 0 to 3; see `settled` for `invert`."""
    return (
        Stage("stored", "as the file has it, after its modality LUT", lambda xray: xray),
        Stage("upright", "head up, patient's right (front) at column 0", upright),
        Stage("bright", "dense is bright; or intensity, where a log follows", partial(bright, invert=invert)),
        Stage("log", "-ln, where values are linear in intensity", log),
    )


def field(xray: XRay) -> XRay:
    """Stage 4: find the exposed part of the detector: no shutter, stated or detected, and no padding."""
    rows, columns = exposed_field(xray.image, xray.exposed)
    inside = np.zeros(xray.image.shape, np.bool_)
    inside[rows, columns] = xray.inside[rows, columns]
    if (rows, columns) == bounds(xray.exposed, xray.image.shape):
        return replace(xray, exposed=inside)
    note = (
        f"Shutters were found at the borders: rows {rows.start} to {rows.stop - 1} and columns {columns.start} to "
        f"{columns.stop - 1} are the exposed field, the rest was taken as air."
    )
    return replace(xray, exposed=inside, notes=(*xray.notes, note))


def air(xray: XRay) -> XRay:
    """Stage 5: shift a low percentile of the field to 0; what lies below it or outside of the field becomes 0."""
    level = np.float32(np.percentile(xray.image[xray.inside], AIR_PERCENTILE))
    values = np.where(xray.inside, np.maximum(xray.image - level, np.float32(0)), np.float32(0))
    return replace(xray, image=values)


def scale(xray: XRay, reference_p99: float) -> XRay:
    """Stage 6: scale the field's 99th percentile to `reference_p99` (line integral)."""
    field_values = xray.image[xray.inside]
    # The maximum, where a few dense pixels lie on a constant ground.
    top = float(np.percentile(field_values, REFERENCE_PERCENTILE)) or float(field_values.max()) or 1.0
    note = (
        f"Not calibrated: its {AIR_PERCENTILE:g}th percentile was taken as air and its {REFERENCE_PERCENTILE:g}th was "
        f"scaled to a line integral of {reference_p99:g}; HU depend on that."
    )
    values = np.asarray(xray.image * np.float32(reference_p99 / top), np.float32)
    return replace(xray, image=values, notes=(*xray.notes, note))


def detector(xray: XRay, view: View) -> XRay:
    """Stage 7: resample the picture onto the view's detector, centred, with air around it."""
    spacing, assumed = spacing_on(xray, view)
    notes = [*xray.notes, *assumed]
    for axis, name in ((0, "rows"), (1, "columns")):
        length = xray.image.shape[axis] * spacing[axis]
        extent = view.shape[axis] * view.spacing_mm[axis]
        if length > 1.01 * extent:
            notes.append(f"The {name} span {length:.0f} mm; the outer {length - extent:.0f} mm were cut.")
        elif length < 0.99 * extent:
            notes.append(f"The {name} span {length:.0f} of {extent:.0f} mm; the rest was taken as air.")
    values = resample(xray.image, spacing, view.shape, view.spacing_mm)
    return replace(xray, image=values, exposed=None, spacing_mm=view.spacing_mm, notes=tuple(notes))


def intensity_stages(reference_p99: float) -> tuple[Stage, ...]:
    """Return stages 4 to 6, for pictures that do not hold line integrals."""
    does = f"the field's {REFERENCE_PERCENTILE:g}th percentile is a line integral of {reference_p99:g}"
    return (
        Stage("field", "shutters and padding are outside of the exposed field", field),
        Stage("air", f"the field's {AIR_PERCENTILE:g}th percentile is 0", air),
        Stage("scale", does, partial(scale, reference_p99=reference_p99)),
    )


def spacing_on(xray: XRay, view: View) -> tuple[Pair, tuple[str, ...]]:
    """Return the spacing to resample from, and a note that says where it comes from unless the file gave it."""
    if xray.spacing_mm is not None:
        return xray.spacing_mm, ()
    if not xray.calibrated:
        step = ASSUMED_SIDE_MM / max(xray.image.shape)
        assumed = f"{ASSUMED_SIDE_MM:.0f} mm were assumed along the longer side ({step:.3g} mm a pixel)"
        return (step, step), (f"Without a pixel spacing, {assumed}.",)
    row, column = (view.shape[axis] * view.spacing_mm[axis] / xray.image.shape[axis] for axis in (0, 1))
    why, placement = "Without a pixel spacing", "to be the detector, pixel for pixel"
    if tuple(view.shape) != xray.image.shape:
        side = ""
        if abs(row / column - 1) > 0.01:
            row = column = min(row, column)
            why, side = f"{why}, and with another aspect than the detector's", " along one side"
        placement = f"to fill the detector{side} ({row:.3g} mm a pixel)"
    return (row, column), (f"{why}, the array was taken {placement}.",)


def resample(image: FloatImage, spacing_mm: Pair, shape: tuple[int, int], target_spacing_mm: Pair) -> FloatImage:
    """Return a (rows, columns) image on another grid with the same centre, float32 of `shape`; outside of it is 0.

    Spacings are (row, column). Each axis is a triangle filter as wide as the coarser of the two pixels: linear
    interpolation where the target is finer, antialiasing where it is coarser. Constants and ramps, away from the
    borders, come out as they went in.
    """
    image = np.ascontiguousarray(image, np.float32)
    if (image.shape, *spacing_mm) == (tuple(shape), *target_spacing_mm):
        return image.copy()  # as the filter gives it, sooner
    return _core.resample(image, spacing_mm, shape, target_spacing_mm)


def settled(xray: XRay, invert: bool | None) -> XRay:
    """Return an upright X-ray with a `dense_is_high` that its tags, the picture itself or the user vouch for.

    `invert` is what the user says: whether viewers show dense tissue dark, or None. Raises InputError: tags and picture
    contradict each other, nothing settles it, or line integrals were to be inverted.
    """
    if xray.calibrated:
        if invert is not None:
            hint = "say --values display if these are values for display"
            expected = "values for display"
            raise InputError.of(xray.source, "--invert", found="line integrals", expected=expected, hint=hint)
        return xray
    if invert is not None:
        note = f"On request, dense tissue was taken to be {'dark' if invert else 'bright'} where viewers show it."
        high = xray.white_is_high != invert
        return replace(xray, dense_is_high=high, polarity=STATED, notes=(*xray.notes, note))
    if xray.polarity == STATED:
        return xray
    evidence = contrast(xray.image, xray.exposed)
    verdict = None if abs(evidence) < DECIDES else evidence > 0
    has_tag = xray.polarity in (TAGGED, ASSUMED)
    if verdict is None and not has_tag:
        found = "tags that contradict each other" if xray.polarity == DISPUTED else "no tag that tells it"
        raise _refusal(xray.source, f"{found}, and a picture that does not settle it")
    if verdict in (None, xray.dense_is_high):
        notes = (SHOWN,) if xray.polarity == UNTOLD else ()
        return replace(xray, notes=(*notes, *xray.notes))
    if xray.polarity == TAGGED:
        raise _refusal(xray.source, "a picture that looks like a negative by what its tags say")
    word = "no" if (verdict == xray.white_is_high) == has_tag else "yes"  # of --invert, for the other side to be dense
    if has_tag:  # Fields of fluoroscopy are often round, with black around them, of which the contrast knows nothing.
        doubt = f"The picture may be a negative of what was taken; to turn it round, say --invert {word}."
        return replace(xray, warnings=(doubt, *xray.warnings))
    why = "The picture looks like a negative (lungs bright, bone dark), and"
    if xray.polarity == DISPUTED:
        signs = "PixelIntensityRelationshipSign contradicts PhotometricInterpretation"
        why = f"{signs}, and the picture agrees with the sign: it"
    why += f" was inverted; if that is wrong, say --invert {word}."
    return replace(xray, dense_is_high=not xray.dense_is_high, warnings=(why, *xray.warnings))


def _refusal(source: str, found: str) -> InputError:
    hint = "look at it in a viewer and say --invert no where dense tissue is bright, --invert yes where it is dark"
    expected = "tags and a picture that tell which side is dense"
    return InputError.of(source, "polarity", found=found, expected=expected, hint=hint)


def contrast(values: FloatImage, exposed: BoolImage | None = None) -> float:
    """Return by how much what ought to be dense is higher than what ought not to be.

    Takes upright (rows, columns), `exposed` False where the file says that there is no picture. The result is between
    -3 and 3, positive where high values are dense; the picture's negative has the opposite sign.
    """
    whole = bounds(exposed, values.shape)
    # A shutter is denser than the field beside it in one of the picture and its negative.
    fields = [exposed_field(picture, exposed) for picture in (values, np.float32(values.max()) - values)]
    rows, columns = (
        slice(max(pair[axis].start for pair in fields), min(pair[axis].stop for pair in fields)) for axis in (0, 1)
    )
    enough = rows.stop - rows.start >= _GRID and columns.stop - columns.start >= _GRID
    inside = np.ones(values.shape, np.bool_) if exposed is None else exposed
    parts = (rows, columns) if enough else whole, whole
    between, everywhere = (_contrasts(values[part], inside[part]) for part in parts)
    mean = (between + everywhere) / 2
    # Where shutters take most of a picture, the whole of it shows little else.
    return mean if abs(mean) >= DECIDES else between


def _contrasts(values: FloatImage, exposed: BoolImage) -> float:
    """Return the sum of the three contrasts of a picture (rows, columns)."""
    if min(values.shape) < _GRID:
        return 0.0
    cells = _cells(values)
    inside = _cells(exposed.astype(np.float32)) > 0.5
    _, place, count = np.unique(cells[inside], return_inverse=True, return_counts=True)
    ranks = np.zeros(cells.shape)
    ranks[inside] = ((np.cumsum(count) - count / 2) / inside.sum() - 0.5)[place.ravel()]

    def mean(top: float, bottom: float, left: float, right: float) -> float:
        rows, columns = (slice(int(a * _GRID), int(b * _GRID)) for a, b in ((top, bottom), (left, right)))
        return float(ranks[rows, columns].mean())

    # The middle of the chest, with spine and heart, is denser than the lungs beside it; the abdomen than the air in the
    # upper corners; what lies between the sides than the sides, where the detector was exposed directly.
    middle = mean(0.3, 0.65, 0.44, 0.56) - (mean(0.3, 0.65, 0.22, 0.36) + mean(0.3, 0.65, 0.64, 0.78)) / 2
    below = mean(0.8, 0.97, 0.25, 0.75) - (mean(0.03, 0.15, 0.03, 0.18) + mean(0.03, 0.15, 0.82, 0.97)) / 2
    sides = mean(0.2, 0.9, 0.35, 0.65) - (mean(0.2, 0.9, 0.0, 0.06) + mean(0.2, 0.9, 0.94, 1.0)) / 2
    return middle + below + sides


def _cells(values: FloatImage) -> npt.NDArray[np.float64]:
    """Return the means of _GRID x _GRID parts of a picture."""
    edges = [np.linspace(0, size, _GRID + 1).astype(int) for size in values.shape]
    sums = np.add.reduceat(values.astype(np.float64), edges[0][:-1], axis=0)
    sums = np.add.reduceat(sums, edges[1][:-1], axis=1)
    return np.asarray(sums / np.outer(np.diff(edges[0]), np.diff(edges[1])))


def exposed_field(density: FloatImage, exposed: BoolImage | None = None) -> tuple[slice, slice]:
    """Return the rows and columns between shutters of a (rows, columns) picture, dense = high.

    A shutter is a band along a border, denser than the field beside it along nearly the whole of a straight edge. Edges
    that are round, oblique or in the middle are left in: only the file can say where these are, in `exposed`, within
    whose bounds shutters are looked for.
    """
    rows, columns = bounds(exposed, density.shape)
    within = density[rows, columns]
    if exposed is not None:
        inside = exposed[rows, columns]
        within = np.where(inside, within, within[inside].min())
    factor = -(-max(within.shape) // _BORDER_GRID)
    lines, pixels = (max(1, size // factor) for size in within.shape)
    blocks = within[: lines * factor, : pixels * factor].reshape(lines, factor, pixels, factor)
    reduced = np.asarray(blocks.mean(axis=(1, 3)), np.float32)
    low, high = np.percentile(reduced, (1, 99))
    if high <= low:
        return rows, columns
    unit = (reduced - low) / (high - low)
    top, bottom = _between(unit, within.shape[0], factor)
    left, right = _between(unit[top // factor : -(-bottom // factor)].T, within.shape[1], factor)
    return slice(rows.start + top, rows.start + bottom), slice(columns.start + left, columns.start + right)


def bounds(exposed: BoolImage | None, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest rectangle that holds all that is exposed."""
    if exposed is None:
        return slice(0, shape[0]), slice(0, shape[1])
    rows, columns = (np.flatnonzero(exposed.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _between(unit: npt.NDArray[Any], size: int, factor: int) -> tuple[int, int]:
    """Return where the field between the shutters at the first axis' ends begins and stops, in lines of the picture."""
    start, stop = _shutter(unit) * factor, size - _shutter(unit[::-1]) * factor
    return (start, stop) if stop > start else (0, size)


def _shutter(unit: npt.NDArray[Any]) -> int:
    """Return how many lines a shutter covers at the start of the first axis; 0 where there is none."""
    lines = len(unit)
    reach = max(2, round(0.02 * lines))
    best, best_step, margin = 0, 0.0, max(1, round(_BORDER_MARGIN * lines))
    medians = np.median(unit, axis=1)
    for edge in range(1, int(_BORDER_SHARE * lines)):
        if medians[:edge].min() < _BORDER_DENSE:
            break
        outside = unit[max(0, edge - reach) : edge].mean(axis=0)
        inside = unit[edge + 1 : edge + 1 + reach].mean(axis=0)
        step = outside - inside
        if np.mean(step > _BORDER_STEP) >= _BORDER_AGREE and step.mean() > best_step:
            best, best_step = edge + 1 + margin, float(step.mean())
    return best
