"""Decide whether high values of a picture are dense tissue: from what its file says, and from the picture itself.

docs/xrays.md has what goes before what, and the three contrasts that the picture's own answer is the sum of. They are
taken of ranks, so that no tone curve, window, log or gain changes them; each is 0 for a picture without structure and
of the opposite sign for its negative. A collimated border is bright in a radiograph as air is in its negative, so that
the whole picture and the part between straight shutters are both looked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from x2ct.errors import InputError
from x2ct.io.xray.exposure import BoolImage, FloatImage, bounds, exposed_field

if TYPE_CHECKING:
    from x2ct.io.xray.radiograph import XRay

STATED, TAGGED, ASSUMED, DISPUTED, UNTOLD = "stated", "tagged", "assumed", "disputed", "untold"
"""How far it is known which values are dense: stated by the caller or the user, tagged by the file, assumed of
fluoroscopy by its sign or its custom, disputed where tags contradict each other, untold where there is no tag."""

DECIDES = 0.4
"""The least contrast that settles a polarity. Of 120 radiographs, nearly all of chests, and 90 projections of CTs, the
right way round, the least was 0.53."""

SHOWN = "The file does not say which values are dense: dense tissue was taken to be bright, as the picture suggests."

_GRID = 40  # cells along each side, in which a picture is ranked


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
    shown = contrast(xray.image, xray.exposed)
    sees = None if abs(shown) < DECIDES else shown > 0
    told = xray.polarity in (TAGGED, ASSUMED)
    if sees is None and not told:
        found = "tags that contradict each other" if xray.polarity == DISPUTED else "no tag that tells it"
        raise _refusal(xray.source, f"{found}, and a picture that does not settle it")
    if sees in (None, xray.dense_is_high):
        notes = (SHOWN,) if xray.polarity == UNTOLD else ()
        return replace(xray, notes=(*notes, *xray.notes))
    if xray.polarity == TAGGED:
        raise _refusal(xray.source, "a picture that looks like a negative by what its tags say")
    word = "no" if (sees == xray.white_is_high) == told else "yes"  # of --invert, for the other side to be dense
    if told:  # Fields of fluoroscopy are often round, with black around them, of which the contrast knows nothing.
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
    """The sum of the three contrasts of a picture (rows, columns)."""
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
    """The means of _GRID x _GRID parts of a picture."""
    edges = [np.linspace(0, size, _GRID + 1).astype(int) for size in values.shape]
    sums = np.add.reduceat(values.astype(np.float64), edges[0][:-1], axis=0)
    sums = np.add.reduceat(sums, edges[1][:-1], axis=1)
    return np.asarray(sums / np.outer(np.diff(edges[0]), np.diff(edges[1])))
