"""Makes the X-ray pair that comes with the package: two projections of a CT, and that CT on the model's grid.

    python benchmarks/demo_pair.py CT -o x2ct/models/demo/
    python benchmarks/demo_pair.py --picture docs/demo.jpg     # what the bundled model makes of it

X-rays are projected from the whole CT at its own resolution, and stored as float16 line integrals (relative error below
0.05%). What CT it was and under which licence stands in the folder's README.md.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

from x2ct.evaluation import make_case
from x2ct.files import atomic
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume
from x2ct.jobs.demo import demo


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path, nargs="?", help="a CT file or a DICOM folder")
    parser.add_argument("-o", "--output", type=Path, help="the folder to write to")
    parser.add_argument("--picture", type=Path, help="draw `x2ct demo` to this .jpg file instead")
    options = parser.parse_args(arguments)
    if options.picture is not None:
        with tempfile.TemporaryDirectory() as folder:
            files = demo(Path(folder) / "demo").files
            drawn = next(path for path in files if path.name == "comparison.png")
            with Image.open(drawn) as image:
                image.convert("RGB").save(options.picture, quality=85)
        return 0
    if options.ct is None or options.output is None:
        parser.error("a CT and -o, or --picture")
    grid = Grid((128, 128, 128), (2.5, 2.5, 2.5))
    case = make_case(options.ct, grid, Geometry.parallel())
    options.output.mkdir(parents=True, exist_ok=True)
    for view, image in zip(case.geometry.views, case.xrays, strict=True):
        content = io.BytesIO()
        np.save(content, image.astype(np.float16))
        atomic.write_atomically(options.output / f"{view.name}.npy", content.getvalue())
    case.geometry.save(options.output / "geometry.json")
    Volume(case.truth, grid.index_to_mm).save(options.output / "truth.nii.gz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
