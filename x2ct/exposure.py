"""From display values to the training domain: the documented chain for X-rays that are not calibrated.

A display value says little about attenuation: detectors, processing and windows differ. The chain brings any
radiograph to a common scale without judging tissue, each stage one function:

1. `dense_bright`: photometric inversion, so that more attenuation is a higher value.
2. `minus_log`: only where values are linear in X-ray intensity; line integrals are the negative log of it.
3. `exposed_field`: shutters (collimator blades) lie along borders and look denser than tissue; the field is the rest.
4. `air_level`: a low percentile of the field is taken as unattenuated and becomes 0.
5. `scaled`: the field's 99th percentile meets the bundle's reference, the same percentile of its training X-rays.

Outside the field is air (0), as everything outside a picture is.

What real pictures showed (pydicom-data's chest RG1 and ankle RG3, MONOCHROME1 without PixelIntensityRelationship):

- The chest has air only in the corners beside the neck, a black shutter over 20 rows at the top and 16 columns at the
  right, and half of its pixels above 85% of its 99th percentile, like trunks projected from CTs that show as much of
  the abdomen. A log would push its lungs down to a quarter of the mediastinum; projections have about 40%. So: no log.
- The ankle has shutters over half of its width, with soft and slightly slanted edges: hence the margin beside an edge.
  As stored it is mirrored, which PatientOrientation says and the reversed letter R confirms.
- Lateral projections reach higher line integrals than frontal ones (99th percentile 5 to 9 against 4 to 7 in adult
  trunks): a reference for each view serves better than one for both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatImage = npt.NDArray[np.float32]

AIR_PERCENTILE = 0.5
REFERENCE_PERCENTILE = 99.0
DARKEST_INTENSITY = 1e-4  # of the brightest, below which a linear detector measures scatter and offset only

_BORDER_GRID = 256  # lines of the reduced picture in which shutters are looked for
_BORDER_SHARE = 0.35  # of the picture, that one shutter may cover
_BORDER_STEP = 0.04  # of the value range, by which a shutter is denser than the field beside it
_BORDER_AGREE = 0.85  # of a line, that must show the step
_BORDER_MARGIN = 0.01  # of the picture, that is given up beside a shutter: its edge is blurred, or not quite straight
_BORDER_DENSE = 0.6  # of the value range, that a shutter's values exceed


def dense_bright(values: FloatImage, dense_is_high: bool) -> FloatImage:
    """Stage 1: values whose higher ones are denser; inverted about the maximum where they are not."""
    return values if dense_is_high else np.float32(values.max()) - values


def minus_log(intensity: FloatImage) -> FloatImage:
    """Stage 2: -ln of intensity over its 99.9th percentile, for values that rise linearly with X-ray intensity."""
    brightest = max(float(np.percentile(intensity, 99.9)), 1e-6)
    relative = np.clip(intensity / np.float32(brightest), DARKEST_INTENSITY, None)
    return np.asarray(-np.log(relative), np.float32)


def exposed_field(density: FloatImage) -> tuple[slice, slice]:
    """Stage 3: the rows and columns between shutters.

    A shutter is a band along a border, denser than the field beside it along nearly the whole of a straight edge. Edges
    that are round, oblique or in the middle are left in.
    """
    factor = -(-max(density.shape) // _BORDER_GRID)
    reduced = _block_means(density, factor)
    low, high = np.percentile(reduced, (1, 99))
    if high <= low:
        return slice(0, density.shape[0]), slice(0, density.shape[1])
    unit = (reduced - low) / (high - low)
    rows = _between(unit, density.shape[0], factor)
    columns = _between(unit[rows.start // factor : -(-rows.stop // factor)].T, density.shape[1], factor)
    return rows, columns


def air_level(field: FloatImage) -> float:
    """Stage 4: the value that stands for no attenuation."""
    return float(np.percentile(field, AIR_PERCENTILE))


def scaled(field: FloatImage, air: float, reference_p99: float) -> FloatImage:
    """Stage 5: air at 0, the 99th percentile at `reference_p99` (line integral), nothing below 0."""
    above = np.maximum(field - np.float32(air), 0)
    top = float(np.percentile(above, REFERENCE_PERCENTILE))
    if top <= 0:  # a few dense pixels on a constant ground
        top = float(above.max()) or 1.0
    return np.asarray(above * np.float32(reference_p99 / top), np.float32)


def line_integrals(density: FloatImage, reference_p99: float) -> tuple[FloatImage, tuple[str, ...]]:
    """Stages 3 to 5.

    Args:
        density: (rows, columns), dense = high, any unit and offset.
        reference_p99: the 99th percentile of the bundle's training X-rays, a line integral.

    Returns:
        (rows, columns) in the domain of line integrals, and one sentence for each thing assumed.
    """
    rows, columns = exposed_field(density)
    field = density[rows, columns]
    image = np.zeros(density.shape, np.float32)
    image[rows, columns] = scaled(field, air_level(field), reference_p99)
    notes = [
        f"Not calibrated: its {AIR_PERCENTILE:g}th percentile was taken as air and its {REFERENCE_PERCENTILE:g}th was "
        f"scaled to a line integral of {reference_p99:g}; HU depend on that."
    ]
    if field.shape != density.shape:
        notes.append(
            f"Shutters were found at the borders: rows {rows.start} to {rows.stop - 1} and columns {columns.start} to "
            f"{columns.stop - 1} are the exposed field, the rest was taken as air."
        )
    return image, tuple(notes)


def _block_means(image: FloatImage, factor: int) -> FloatImage:
    rows, columns = (max(1, size // factor) for size in image.shape)
    trimmed = image[: rows * factor, : columns * factor]
    return np.asarray(trimmed.reshape(rows, factor, columns, factor).mean(axis=(1, 3)), np.float32)


def _between(unit: npt.NDArray[Any], size: int, factor: int) -> slice:
    """What lies between the shutters at the two ends of the first axis, in lines of the full picture."""
    start, stop = _shutter(unit) * factor, _shutter(unit[::-1]) * factor
    return slice(start, size - stop) if size - stop > start else slice(0, size)


def _shutter(unit: npt.NDArray[Any]) -> int:
    """How many lines a shutter covers at the start of the first axis; 0 where there is none."""
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
