"""Real radiographs, each with right and wrong tags: which side is dense comes out right, or is refused.

    python benchmarks/polarity.py FILES OR FOLDERS --negative NAME -o benchmarks/results/polarity

Without arguments: the radiographs of pydicom-data (`pip install pydicom-data`), where it is installed, and the one of
tests/data. Every file is read once as it is and again with inverted pixels, other tags and in other formats. The
truth is what a viewer shows, which somebody has to have looked at: `--negative` names files that viewers show with
dense tissue dark. The command ends with 1 if anything comes out the wrong way round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

import numpy as np
import numpy.typing as npt
from PIL import Image

from x2ct.errors import InputError
from x2ct.files import atomic
from x2ct.io import report
from x2ct.io.xray.exposure import DECIDES, contrast
from x2ct.io.xray.radiograph import ReadOptions, XRay

if __package__:
    from benchmarks import input_files as files
else:
    import input_files as files

RIGHT, INVERTED, REFUSED, WRONG = "right", "right, inverted with a warning", "refused", "WRONG"
LONGEST = 320  # pixels along a side of what is written here: polarity is not in the detail
ONE, TWO = "MONOCHROME1", "MONOCHROME2"

Grey = npt.NDArray[np.uint16]


def variants(shown: Grey) -> dict[str, tuple[Grey, dict[str, Any] | str]]:
    """Return pictures by name: values, dense high or low, and DICOM tags or the format that they are written with.

    Args:
        shown: a picture with dense tissue high.
    """
    negative = np.asarray(shown.max() - shown, np.uint16)
    sign = "PixelIntensityRelationshipSign"
    show = {"PresentationIntentType": "FOR PRESENTATION"}
    raw = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LOG"}
    return {
        "MONOCHROME2": (shown, {"PhotometricInterpretation": TWO}),
        "MONOCHROME1": (negative, {"PhotometricInterpretation": ONE}),
        "MONOCHROME2, right sign": (shown, {"PhotometricInterpretation": TWO, sign: -1, **show}),
        "MONOCHROME2, wrong sign": (shown, {"PhotometricInterpretation": TWO, sign: 1, **show}),
        "MONOCHROME1, wrong sign": (negative, {"PhotometricInterpretation": ONE, sign: -1, **show}),
        "wrong MONOCHROME1": (shown, {"PhotometricInterpretation": ONE}),
        "wrong MONOCHROME2": (negative, {"PhotometricInterpretation": TWO}),
        "wrong MONOCHROME2, right sign": (negative, {"PhotometricInterpretation": TWO, sign: 1, **show}),
        "wrong MONOCHROME2, wrong sign": (negative, {"PhotometricInterpretation": TWO, sign: -1, **show}),
        "for processing, right sign": (negative, {"PhotometricInterpretation": TWO, sign: 1, **raw}),
        "for processing, wrong sign": (negative, {"PhotometricInterpretation": TWO, sign: -1, **raw}),
        "PNG": (shown, "png"),
        "PNG, negative": (negative, "png"),
        "JPEG": (shown, "jpg"),
        "JPEG, negative": (negative, "jpg"),
        "NumPy": (shown, "npy"),
        "NumPy, negative": (negative, "npy"),
    }


def written(folder: Path, values: Grey, how: dict[str, Any] | str) -> Path:
    """Write a file of these values; return its path."""
    path = folder / f"a.{how if isinstance(how, str) else 'dcm'}"
    if isinstance(how, dict):
        return files.dicom(path, values, **how)
    if how == "npy":
        np.save(path, values)
    else:
        Image.fromarray((values // 16).astype(np.uint8)).save(path)
    return path


def judged(path: Path, dense: npt.NDArray[np.float32]) -> str:
    """Return how the file came out, beside the same picture with dense tissue high."""
    try:
        xray = XRay.load(path)
    except InputError as error:
        if "polarity" not in str(error):
            raise
        return REFUSED
    if np.corrcoef(xray.image.ravel(), dense.ravel())[0, 1] < 0:
        return WRONG
    return INVERTED if any("inverted" in line for line in xray.warnings) else RIGHT


def rows_of(path: Path, negative: bool) -> Iterator[tuple[str, str]]:
    """Yield each variant of a file, and how it came out."""
    xray = XRay.load(path, options=ReadOptions(invert=negative))
    yield "as it is", judged(path, xray.image)
    step = -(-max(xray.image.shape) // LONGEST)
    image = xray.image[::step, ::step]
    shown = np.rint((image - image.min()) / (image.max() - image.min()) * 4095).astype(np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        for name, (values, how) in variants(shown).items():
            yield name, judged(written(Path(folder), values, how), shown.astype(np.float32))


def found(places: Sequence[Path]) -> list[Path]:
    """Return the files that were named, and those of the folders."""
    if not places:
        store = importlib.util.find_spec("data_store")
        folders = store.submodule_search_locations if store and store.submodule_search_locations else []
        places = [*(Path(one) / "data" / f"RG{n}_UNCR.dcm" for one in folders for n in (1, 3))]
        places = [*places, files.DEMO.parents[2] / "tests" / "data" / "chest_pa_cr.dcm"]
    return [file for place in places for file in (sorted(place.iterdir()) if place.is_dir() else [place])]


def table(results: dict[str, dict[str, list[str]]]) -> list[str]:
    """Return a table for each group of files as Markdown."""
    lines = []
    for group, by_variant in results.items():
        count = len(next(iter(by_variant.values())))
        rows = []
        for variant, outcomes in by_variant.items():
            counts = Counter(outcomes)
            rows.append([variant, *(counts[outcome] or "" for outcome in (RIGHT, INVERTED, REFUSED, WRONG))])
        lines += ["", f"## {group}: {count} files", ""]
        lines += report.markdown_table(("file", RIGHT, INVERTED, REFUSED, WRONG), rows, text=1)
    return lines


def main() -> int:
    """Print the table; with -o, write it as Markdown and the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", type=Path, metavar="FILE|FOLDER")
    parser.add_argument("--negative", nargs="+", default=[], metavar="NAME", help="shown with dense tissue dark")
    parser.add_argument("-o", "--output", type=Path, help="path without suffix")
    options = parser.parse_args()
    results: dict[str, dict[str, list[str]]] = {}
    rows = []
    for path in found(options.places):
        try:
            outcomes = dict(rows_of(path, path.name in options.negative))
        except InputError as error:
            print(f"left out: {path.name}: {error}", file=sys.stderr)
            continue
        seen = contrast(XRay.load(path, options=ReadOptions(invert=path.name in options.negative)).image)
        rows.append({"group": path.parent.name, "file": path.name, "contrast": round(seen, 3), "outcomes": outcomes})
        for variant, outcome in outcomes.items():
            results.setdefault(path.parent.name, {}).setdefault(variant, []).append(outcome)
    least = min(row["contrast"] for row in rows)
    text = [
        "# Polarity of radiographs",
        "",
        "Printed by `python benchmarks/polarity.py`: each file as it is, and its picture written again with right and",
        "wrong tags. *Wrong* tags say that dense tissue is where it is not.",
        'docs/xrays.md has the rule, under "Polarity".',
        f"The least contrast of a picture the right way round was {least:.2f}; {DECIDES:g} settles it.",
        *table(results),
    ]
    told = "\n".join(text) + "\n"
    print(told)
    if options.output:
        atomic.write_atomically(options.output.with_suffix(".md"), told.encode())
        atomic.write_atomically(options.output.with_suffix(".json"), (json.dumps(rows, indent=1) + "\n").encode())
    return 1 if any(outcome == WRONG for row in rows for outcome in row["outcomes"].values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
