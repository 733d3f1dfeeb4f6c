"""One command for the table of figures: the model and three baselines on test CTs.

    python benchmarks/quality.py chest --train shards/ --test cts/test/ -o report/
    python benchmarks/quality.py --train shards/ --test cts/test/ -o report/       # the baselines alone

X-rays are projected from the whole CT at its own resolution. A test person who is among those of the shards is refused.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

from x2ct.data import ShardSet
from x2ct.data.prepare import find_cts
from x2ct.errors import InputError, X2CTError
from x2ct.evaluation import metrics, pictures, protocol
from x2ct.evaluation.baselines import Baselines
from x2ct.geometry import Geometry

FloatArray = npt.NDArray[np.float32]


class Model:
    """The bundle under test: its posterior mean and its samples, through the public face."""

    def __init__(self, bundle: str, precision: str, threads: int) -> None:
        import x2ct

        self.sampler = x2ct.Sampler(bundle, precision=precision, threads=threads)
        self.bundle = self.sampler.bundle
        self.grid = self.bundle.grid
        self.geometry: Geometry = self.bundle.geometry
        self.window: metrics.Window = self.bundle.intensity.window_hu

    def run(self, case: protocol.Case, geometry: Geometry, samples: int) -> tuple[FloatArray, list[FloatArray]]:
        """The mean estimate and the samples, HU on the case's grid."""
        from x2ct.radiograph import XRay

        def given(image: FloatArray, name: str, spacing: tuple[float, float]) -> XRay:
            return XRay(image=image, calibrated=True, spacing_mm=spacing, source=case.id, view=name)

        # The same objects in every call, so that encoder and lift run once a case.
        xrays = {
            view.name: given(image, view.name, view.spacing_mm)
            for view, image in zip(case.geometry.views, case.xrays, strict=True)
        }
        ap, pa, lateral = (xrays.get(name) for name in ("ap", "pa", "lateral"))

        def volume(seed: int, mean: bool = False) -> FloatArray:
            sampler = self.sampler
            return sampler.sample(ap=ap, pa=pa, lateral=lateral, geometry=geometry, seed=seed, mean=mean).hu

        return volume(0, mean=True), [volume(seed) for seed in range(samples)]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        table = run(options)
    except X2CTError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(protocol.markdown(table))
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    model = Model(options.bundle, options.precision, options.threads) if options.bundle else None
    shards = ShardSet.open(options.train)
    grid = model.grid if model else shards.grid
    window = model.window if model else metrics.WINDOW_HU
    geometry = _geometry(options.geometry, model)
    ids = {person.id for person in shards.people}
    people = [p for p in shards.select("train") if options.region in ("any", p.region)]
    sources = find_cts(options.test)
    baselines = Baselines.fit(people, grid, geometry, window, threads=options.threads, progress=_say)
    _say(0, 0, f"the regression's penalty, chosen on training people: {baselines.penalty:g}")
    results: list[dict[str, Any]] = []
    notes: dict[str, str] = {}
    facts = {
        "bundle": options.bundle,
        "window_hu": list(window),
        "grid": {"shape": list(grid.shape), "spacing_mm": list(grid.spacing_mm)},
        "geometry": geometry.to_json(),
        "training_people": list(baselines.ids),
        "penalty": baselines.penalty,
        "nearest": notes,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = protocol.summarise([], facts)
    for index, (name, path) in enumerate(sources.items()):
        if options.case and name not in options.case:
            continue
        _say(index, len(sources), name)
        case = protocol.make_case(path, grid, geometry, threads=options.threads)
        if name in ids or baselines.includes(case.xrays):
            raise InputError.of(path, "test person", found="one of the training people", expected="another person")
        predictions = {
            "mean volume": baselines.mean(),
            "nearest patient": baselines.nearest(case.xrays),
            "linear regression": baselines.linear(case.xrays),
        }
        notes[name] = baselines.nearest_id(case.xrays)
        samples: list[FloatArray] = []
        if model:
            estimate, samples = model.run(case, geometry, options.samples)
            predictions = {"mean estimate": estimate, **predictions}
        results.append(protocol.evaluate(case, predictions, samples, window, options.threads))
        shown = {**predictions, **({"sample, seed 0": samples[0]} if samples else {})}
        pictures.save(case, shown, options.output / f"{name}.png")
        # After each case, so that a run that is cut short leaves what it had.
        table = protocol.summarise(results, facts)
        protocol.write(table, options.output)
    return table


def _geometry(choice: str, model: Model | None) -> Geometry:
    own = model.geometry if model else Geometry.parallel()
    if choice == "bundle":
        return own
    if choice == "cone":
        first = own.views[0]
        return Geometry.cone([view.name for view in own.views], shape=first.shape)
    return Geometry.load(choice)


def _say(done: int, total: int, what: str) -> None:
    count = f"{done}/{total} " if total else ""
    print(f"{time.strftime('%H:%M:%S')} {count}{what}", file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", help="a bundle's folder or name; without one, the baselines alone")
    parser.add_argument("--train", type=Path, required=True, help="the shards that the baselines are fitted on")
    parser.add_argument("--test", type=Path, required=True, help="a folder of test CTs")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="quality.json, quality.md and pictures go here"
    )
    parser.add_argument("--samples", type=int, default=8, help="samples a case, seeds 0 to N - 1")
    parser.add_argument("--geometry", default="bundle", help="bundle, cone, or a geometry file: of the test X-rays")
    parser.add_argument("--region", default="chest", help="training people for the baselines: chest, other or any")
    parser.add_argument("--case", action="append", help="only this test person; may be repeated")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
