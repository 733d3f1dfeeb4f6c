"""One command for the table of solvers: how far each ends from the converged solution, by evaluations.

    python benchmarks/solvers.py chest --shards SHARDS -o benchmarks/results/solvers
    python benchmarks/solvers.py chest --shards SHARDS --test CTS --shape 64 64 64 -o benchmarks/results/solvers

The difference is RMS over the volume in % of the HU window, of one noise, in f32, on the patients set aside for
validation: they decide. Test patients, if there are any, are only reported, with the solver and schedule that came
    first. The converged solution is UniPC-3 with 64 evaluations; how far DPM-Solver++ 2M with as many ends from it is
    printed beside it. A stochastic solver has no solution to converge to, and is left out. Heun evaluates an odd number
    of times, at most that of its column. VE's levels are those of log-SNR, so that only Euler and Heun, which step in
    its time, tell the two apart.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

from x2ct import Sampler, _core
from x2ct.bundle import Bundle
from x2ct.data import ShardSet
from x2ct.data.prepare import find_cts, read_body
from x2ct.errors import InputError, X2CTError
from x2ct.files import atomic
from x2ct.geometry import attenuation
from x2ct.geometry.grid import Grid
from x2ct.io import report
from x2ct.render.drr import calibrated

FloatArray = npt.NDArray[np.float32]
XRays = dict[str, Any]

EVALUATIONS = (1, 2, 3, 4, 5, 6, 8, 10, 16, 32)
DECIDING = (4, 5, 6, 8)  # the best solver has the least mean error over these, in logarithms
REFERENCE, CHECK = "unipc-3", "dpmpp-2m"
Errors = dict[tuple[str, str], dict[int, float]]  # by solver and schedule, by evaluations


class Benchmark:
    """A bundle, perhaps only the middle of its grid, and errors of its samples against the converged ones."""

    def __init__(self, bundle: Bundle, shape: tuple[int, int, int] | None, fine: int, threads: int) -> None:
        self.bundle = replace(bundle, grid=Grid(shape or bundle.grid.shape, bundle.grid.spacing_mm))
        self.sampler = Sampler(self.bundle, precision="f32", threads=threads)
        self.fine, self.threads = fine, threads

    def xrays(self, name: str, hu: npt.NDArray[Any], index_to_mm: npt.ArrayLike) -> XRays:
        """Return the bundle's own views, projected from the whole CT."""
        geometry = self.bundle.geometry
        return calibrated(geometry, geometry.project(attenuation(hu), index_to_mm, self.threads), name)

    def sample(self, xrays: XRays, solver: str, schedule: str, steps: int) -> FloatArray:
        """Return one sample in HU; seed 0."""
        return self.sampler.sample(**xrays, force=True, solver=solver, schedule=schedule, steps=steps).hu

    def errors(
        self, patients: dict[str, XRays], pairs: Sequence[tuple[str, str]], evaluations: Sequence[int]
    ) -> tuple[Errors, float]:
        """Return each solver's errors with each schedule over all patients, and the check's from the reference."""
        squares: dict[tuple[str, str, int], list[float]] = {}
        checks = []
        for name, xrays in patients.items():
            _say(f"{name}: the converged solution")
            truth = self.sample(xrays, REFERENCE, "log-snr", self.fine)
            checks.append(_mean_square(self.sample(xrays, CHECK, "log-snr", self.fine) - truth))
            for solver, schedule in pairs:
                _say(f"{name}: {solver}, {schedule}")
                for count in evaluations:
                    steps = self._steps(solver, schedule, count)
                    if steps is not None:
                        off = _mean_square(self.sample(xrays, solver, schedule, steps) - truth)
                        squares.setdefault((solver, schedule, count), []).append(off)
        found: Errors = {pair: {} for pair in pairs}
        for (solver, schedule, count), values in squares.items():
            found[solver, schedule][count] = self._percent(values)
        return found, self._percent(checks)

    def _steps(self, solver: str, schedule: str, evaluations: int) -> int | None:
        """Return how many steps take so many evaluations, or for Heun one less; None where there are none."""
        steps = (evaluations + 1) // 2 if solver == "heun" else evaluations
        return steps if schedule != "tuned" or steps in self.bundle.diffusion.schedules else None

    def _percent(self, squares: Sequence[float]) -> float:
        low, high = self.bundle.intensity.window_hu
        return float(100 * np.sqrt(np.mean(squares)) / (high - low))


def _mean_square(off: FloatArray) -> float:
    return float(np.mean(np.square(off), dtype=np.float64))


def best(errors: Errors) -> tuple[str, str]:
    """Return the solver and schedule with the least error over the deciding numbers of evaluations."""

    def mean(pair: tuple[str, str]) -> float:
        counts = [count for count in DECIDING if count in errors[pair]]
        return float(np.mean([np.log(errors[pair][count]) for count in counts])) if counts else np.inf

    return min((pair for pair in errors if pair[1] != "tuned"), key=mean)


def run(options: argparse.Namespace) -> dict[str, Any]:
    bundle = Bundle.load(options.bundle)
    benchmark = Benchmark(bundle, tuple(options.shape) if options.shape else None, options.reference, options.threads)
    patients = ShardSet.open(options.shards).select("validation")
    if not patients:
        raise InputError.of(options.shards, "patients", found="none for validation", expected="at least one")
    validation = {patient.id: benchmark.xrays(patient.id, patient.hu(), patient.index_to_mm) for patient in patients}
    solvers = {info["name"]: info for info in _core.solvers() if not info["stochastic"]}
    schedules = options.schedule or [*_core.schedules(), *(["tuned"] if bundle.diffusion.schedules else [])]
    pairs = [
        (solver, schedule)
        for solver in options.solver or solvers
        for schedule in schedules
        if schedule != "ve" or solvers[solver]["timed"]
    ]
    started = time.perf_counter()
    errors, check = benchmark.errors(validation, pairs, options.evaluations)
    found: dict[str, Any] = {
        "bundle": {"name": bundle.name, "sha256": bundle.checksum},
        "versions": report.versions(),
        "shape": list(benchmark.bundle.grid.shape),
        "evaluations": options.evaluations,
        "reference": {"solver": REFERENCE, "check": CHECK, "evaluations": options.reference},
        "validation": {"patients": list(validation), "check": check, "errors": _plain(errors)},
    }
    solver, schedule = best(errors)
    found["best"] = {"solver": solver, "schedule": schedule}
    if options.test:
        compared = list(dict.fromkeys([(solver, s) for s in (schedule, "tuned", "log-snr") if s in schedules]))
        test = dict(_test_patients(benchmark, options.test, options.case))
        errors, check = benchmark.errors(test, compared, options.evaluations)
        found["test"] = {"patients": list(test), "check": check, "errors": _plain(errors)}
    found["seconds"] = time.perf_counter() - started
    return found


def _test_patients(benchmark: Benchmark, folder: Path, names: Sequence[str] | None) -> Iterator[tuple[str, XRays]]:
    for name, path in find_cts(folder).items():
        if not names or name in names:
            body = read_body(path)
            yield name, benchmark.xrays(name, body.hu, body.index_to_mm)


def _plain(errors: Errors) -> list[dict[str, Any]]:
    return [
        {"solver": solver, "schedule": schedule, "percent": {str(count): value for count, value in row.items()}}
        for (solver, schedule), row in errors.items()
    ]


def markdown(found: dict[str, Any]) -> str:
    shape = " x ".join(map(str, found["shape"]))
    fine = found["reference"]["evaluations"]
    lines = [f"{found['bundle']['name']}, {shape} voxels, f32; RMS difference from the converged solution in % of HU"]
    for split in ("validation", "test"):
        if split not in found:
            continue
        part = found[split]
        lines += [
            "",
            f"{split}: {', '.join(part['patients'])}; {CHECK} with {fine} evaluations: {part['check']:.3f}%",
            "",
        ]
        rows = []
        for row in part["errors"]:
            cells = (row["percent"].get(str(count)) for count in found["evaluations"])
            rows.append([row["solver"], row["schedule"], *("" if cell is None else f"{cell:.2f}" for cell in cells)])
        lines += report.markdown_table(["solver", "schedule", *map(str, found["evaluations"])], rows)
    counts = ", ".join(map(str, DECIDING))
    lines += [
        "",
        f"Best untuned on validation patients, by the geometric mean over {counts} evaluations: "
        f"{found['best']['solver']} with {found['best']['schedule']}.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        found = run(options)
        if options.output:
            report.write_json(found, options.output.with_suffix(".json"))
            atomic.write_atomically(options.output.with_suffix(".md"), f"{markdown(found)}\n".encode())
    except X2CTError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(markdown(found))
    return 0


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a bundle's folder or name")
    parser.add_argument("--shards", type=Path, required=True, help="its validation patients decide")
    parser.add_argument("--test", type=Path, help="a folder of test CTs, to report the chosen solver on")
    parser.add_argument("--case", action="append", help="only this test patient; may be repeated")
    parser.add_argument("--solver", action="append", help="only this one; may be repeated")
    parser.add_argument("--schedule", action="append", help="only this one; may be repeated")
    parser.add_argument("--evaluations", type=int, nargs="+", default=list(EVALUATIONS))
    parser.add_argument("--reference", type=int, default=64, help="evaluations of the converged solution")
    parser.add_argument("--shape", type=int, nargs=3, help="only so many voxels at the grid's centre: faster")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="NAME: writes NAME.json and NAME.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
