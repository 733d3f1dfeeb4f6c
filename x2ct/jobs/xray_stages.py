"""One X-ray file to line integrals, every stage of `x2ct.io.xray.exposure` recorded: numbers, a picture, the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from x2ct.bundle import Bundle
from x2ct.engine.conditioning import SLOT_OF, beam_notes, by_consequence, doubts, refuse_warnings, view_of
from x2ct.errors import InputError
from x2ct.files.atomic import check_outputs, check_writable, staged
from x2ct.geometry import Geometry
from x2ct.io import report
from x2ct.io.xray.exposure import Stage
from x2ct.io.xray.radiograph import XRay
from x2ct.io.xray.readoptions import refuse_beams_beside
from x2ct.jobs.options import XRayJob
from x2ct.render.panels import Panel, page, png, window

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".npy", ".tif", ".tiff")
HIDDEN = (0.45, 0.12, 0.12)  # what is outside of the exposed field, as red, green and blue shares

_PANEL_PX = 300
_COLUMNS = 4


def xray_file(job: XRayJob) -> dict[str, Any]:
    """Read an X-ray as `x2ct sample` would, and return what was read, assumed and done.

    Raises X2CTError: any of the family; nothing has been written.
    """
    refuse_beams_beside(job.geometry, job.reading)
    outputs = [path for path in (job.output, job.stages) if path is not None]
    check_outputs(outputs, [path for path in (job.file, job.geometry) if path is not None])
    if job.output:
        check_writable(job.output, SUFFIXES)
    if job.stages:
        check_writable(job.stages, (".png",))
    history: list[tuple[Stage, XRay]] = []

    def watch(stage: Stage, xray: XRay) -> None:
        history.append((stage, xray))

    geometry = Geometry.load(job.geometry) if job.geometry else None
    if job.view is None and len({job.reading.get(view) for view in SLOT_OF}) > 1:
        raise InputError.of("--view", "options", found="none", expected="one, for other options name a view")
    # Where no view is named, what was said holds for each.
    xray = XRay.load(job.file, options=job.reading.get(job.view or "ap"), watch=watch)
    name = job.view or xray.view or "ap"
    bundle = Bundle.load(job.model)
    slot = SLOT_OF[name]
    view = view_of(name, bundle.geometry.views[slot], xray, geometry)
    image, assumptions = xray.to_detector(
        view, bundle.xray.reference_p99[slot], exact=geometry is not None, watch=watch
    )
    warnings = by_consequence(doubts(name, xray, bundle))
    if job.strict:
        refuse_warnings(warnings)
    with staged(outputs) as place:
        if job.output and job.output.suffix.lower() == ".npy":
            np.save(place(job.output), image, allow_pickle=False)
        elif job.output:
            import tifffile

            tifffile.imwrite(place(job.output), image, photometric="minisblack")
        if job.stages:
            place(job.stages).write_bytes(png(draw(history, f"{xray.kind}; {name}; {_description(xray.facts())}")))
        written = [report.file_record(place(path)) for path in outputs]
    images = [image for _, image in history]
    return {
        "schema": report.SCHEMA,
        "input": {**report.file_record(job.file), "view": name, **xray.facts()},
        "model": {"name": bundle.name, "sha256": bundle.checksum},
        "geometry": Geometry((view,)).to_json(),
        "stages": [_facts(before, *one) for before, one in zip((None, *images), history, strict=False)],
        "assumptions": [*assumptions, *beam_notes(xray, geometry)],
        "warnings": list(warnings),
        "outputs": written,
    }


def _facts(before: XRay | None, stage: Stage, xray: XRay) -> dict[str, Any]:
    """A stage in numbers, and the sentences that it added."""
    values, exposed = xray.image, xray.exposed
    # The exposed field before and after; the whole picture is no field.
    old, new = (True if mask is None or mask.all() else mask for mask in ((before or xray).exposed, exposed))
    known = before.notes if before else ()
    least, low, middle, high, most = (round(float(x), 6) for x in np.percentile(values, (0, 0.5, 50, 99.5, 100)))
    return {
        "name": stage.name,
        "does": stage.does,
        "shape": list(values.shape),
        "done": before is None or not (np.array_equal(before.image, values) and np.array_equal(old, new)),
        "min": least,
        "p0.5": low,
        "median": middle,
        "p99.5": high,
        "max": most,
        "exposed": 1.0 if exposed is None else round(float(exposed.mean()), 6),
        "notes": [note for note in xray.notes if note not in known],
    }


def draw(history: Sequence[tuple[Stage, XRay]], footer: str) -> Image:
    """Return a page with a panel for each stage: its range, and in red what lies outside of the exposed field."""
    panels = [_panel(f"{number} {stage.name}", xray) for number, (stage, xray) in enumerate(history)]
    return page([panels[start : start + _COLUMNS] for start in range(0, len(panels), _COLUMNS)], footer)


def _panel(name: str, xray: XRay) -> Panel:
    from PIL import Image as images

    values, exposed = xray.image, xray.exposed
    shown = values if exposed is None else values[exposed]
    low, high = (float(x) for x in np.percentile(shown, (0.5, 99.5)))
    pixels: npt.NDArray[Any] = np.repeat(window(values, (low, high))[..., None], 3, axis=2)
    if exposed is not None:
        pixels[~exposed] = (pixels[~exposed] * np.asarray(HIDDEN) + 60 * np.asarray(HIDDEN)).astype(np.uint8)
    row, column = xray.spacing_mm or (1.0, 1.0)
    sides = (values.shape[0] * row, values.shape[1] * column)
    size = [max(1, round(_PANEL_PX * side / max(sides))) for side in sides]
    picture = images.fromarray(pixels).resize((size[1], size[0]), images.Resampling.BOX)
    return Panel(picture, f"{name}: {low:.4g} to {high:.4g} (0.5% to 99.5%)")


def summary(done: Mapping[str, Any]) -> str:
    """Return a line on the X-ray, and one on each stage."""
    facts = done["input"]
    lines = [f"{facts['file']}: {facts['kind']}; {facts['view']}; {_description(facts)}"]
    for number, stage in enumerate(done["stages"]):
        rows, columns = stage["shape"]
        extent = f"{columns} x {rows}, {stage['min']:.4g} to {stage['max']:.4g}"
        lines.append(f"  {number} {stage['name']:<9}{extent}: {stage['does'] if stage['done'] else 'skipped'}")
    return "\n".join(lines)


def _description(facts: Mapping[str, Any]) -> str:
    spacing = facts["spacing_mm"]
    parts = [
        " x ".join(f"{step:.4g}" for step in spacing) + " mm" if spacing else "no pixel spacing",
        "line integrals" if facts["calibrated"] else "not calibrated",
        *(part for part in (facts["body_part"], facts["beam"]) if part),
    ]
    return "; ".join(parts)
