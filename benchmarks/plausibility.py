"""Measure `x2ct.engine.plausibility`: false alarms on chests, and what it finds among X-rays that are not right.

    python benchmarks/plausibility.py chest shards/ testshards/ --others othershards/ -o results/plausibility-test
        --radiographs FOLDER --not-chests ankle.dcm

The validation patients of the first shards (limits were chosen on them) and all patients of the second (reported only)
are projected from the model's own views under every condition of `x2ct evaluate --conditions`. These are few and much
alike, so each is also drawn in `DRAWS` poses, beams and exposures, as `x2ct statistics` draws the training patients.
What is wrong is made of the same X-rays, as line integrals and as 8-bit pictures. Patients of `--others` show other
parts of the body; so does a CT that ends within the lungs. `--parts` measures some of this again and keeps the rest of
OUTPUT.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works in a checkout, installed or not

from x2ct.bundle import Bundle
from x2ct.data.shards import Patient, ShardSet
from x2ct.engine.plausibility import REFUSES, WARNS, Judgement, judge, judge_seen
from x2ct.errors import X2CTError
from x2ct.evaluation.case import Case
from x2ct.evaluation.conditions import CONDITIONS
from x2ct.geometry import Geometry, Image, attenuation, project
from x2ct.io.report import markdown_table
from x2ct.io.xray.degradation import window_8bit
from x2ct.io.xray.radiograph import XRay
from x2ct.tuning.xraystatistics import pairs

Row = dict[str, Any]
PARTS = ("chests", "draws", "others", "noise", "files")
Picture = npt.NDArray[Any]
SOME = ("training", "cone-near", "photons-1e5", "gamma", "png")
"""Conditions under which other parts of the body are shown."""
ABDOMEN_MM = (200.0, 250.0, 300.0)
"""How much higher than its lungs a patient is shown, where the CT reaches as far."""
SHOWN_MM = 100.0
"""How far above and below the middle of the lungs a CT reaches that shows a whole chest."""
NOISES = 10
DRAWS, DRAWN = 60, "drawn: pose, beam, exposure"
MOST_ALARMS, LEAST_FOUND = 0.02, 0.95
GOOD = ("validation", "test")
"""Groups in which a study under one of the evaluation's conditions should not be warned of."""


@dataclass(frozen=True)
class Projected:
    """As much of a Case as a condition takes."""

    id: str
    mu: Image
    index_to_mm: npt.NDArray[np.float64]
    geometry: Geometry
    xrays: tuple[Image, ...]

    @classmethod
    def of(cls, source: Patient, geometry: Geometry, higher_mm: float = 0.0) -> Projected:
        """Project a patient, moved towards the head, from a model's own views."""
        affine = source.index_to_mm.copy()
        affine[2, 3] += higher_mm
        mu = attenuation(source.hu())
        return cls(source.id, mu, affine, geometry, tuple(project(mu, affine, view) for view in geometry.views))

    def project(self, geometry: Geometry, threads: int = 0) -> tuple[Image, ...]:
        """Return X-rays of the whole CT from other views."""
        return tuple(project(self.mu, self.index_to_mm, view, threads) for view in geometry.views)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        rows = list(run(options))
    except X2CTError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(markdown(rows, options.bundle))
    return 0


def run(options: argparse.Namespace) -> Iterator[Row]:
    """Yield a row a study; what is done so far is written now and then."""
    bundle, rows = Bundle.load(options.bundle), list[Row]()
    parts = {
        "chests": _chests(bundle, options),
        "draws": _draws(bundle, options),
        "others": _others(bundle, options),
        "noise": _noise(bundle),
        "files": chain(
            _files(bundle, "chest radiographs", options.radiographs),
            _files(bundle, "radiographs of other parts", options.not_chests),
        ),
    }
    if len(options.parts) < len(parts):
        kept = json.loads(options.output.with_suffix(".json").read_text())
        rows += [row for row in kept if row["part"] not in options.parts]
        yield from rows
    for part in options.parts:
        for row in parts[part]:
            rows.append({"part": part, **row})
            yield rows[-1]
            if len(rows) % 50 == 0:
                _write(rows, options)
        _write(rows, options)


def _write(rows: Sequence[Row], options: argparse.Namespace) -> None:
    options.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(markdown(rows, options.bundle))


def _chests(bundle: Bundle, options: argparse.Namespace) -> Iterator[Row]:
    kept: list[tuple[str, Projected]] = []
    for group, source in _patients(options):
        patient = Projected.of(source, bundle.geometry)
        kept.append((group, patient))
        for condition in CONDITIONS:
            xrays, told = condition.take(cast(Case, patient))
            yield _row(bundle, group, condition.name, patient.id, xrays, None if told is bundle.geometry else told)
        for kind, pair in wrong(patient.xrays).items():
            yield from _both(bundle, group, kind, patient.id, pair)
        for kind, pitch in pitches(bundle.geometry.views[0].spacing_mm[0]).items():
            yield from _both(bundle, group, kind, patient.id, patient.xrays, pitch)
        for higher in ABDOMEN_MM:
            if source.body_mm is not None and source.body_mm[0][2] < -higher - 150:
                shown = Projected.of(source, bundle.geometry, higher)
                yield from _both(bundle, group, f"abdomen, the patient {higher:.0f} mm higher", source.id, shown.xrays)
        print(time.strftime("%H:%M:%S"), group, source.id, file=sys.stderr, flush=True)
    for group, one in kept:
        for other_group, other in kept:
            if one is not other and group == other_group:
                pair = (one.xrays[0], other.xrays[1])
                yield from _both(bundle, group, "lateral of another patient", f"{one.id} and {other.id}", pair)


def _draws(bundle: Bundle, options: argparse.Namespace) -> Iterator[Row]:
    """Random studies on the coarser detector of the statistics, of seeds that these don't have."""
    for group in GOOD:
        sources = [source for own, source in _patients(options) if own == group]
        drawn = [list(pairs(bundle, one, DRAWS, np.random.default_rng([1, k]))) for k, one in enumerate(sources)]
        for (k, one), (j, other), number in product(enumerate(sources), enumerate(sources), range(DRAWS)):
            study = (drawn[k][number][0], drawn[j][number][1])
            kind = DRAWN if k == j else f"{DRAWN}, lateral of another patient"
            case = one.id if k == j else f"{one.id} and {other.id}"
            yield _judged(judge_seen(bundle, study), group, kind, case)
        print(time.strftime("%H:%M:%S"), group, "drawn", file=sys.stderr, flush=True)


def _patients(options: argparse.Namespace) -> list[tuple[str, Patient]]:
    patients = [("validation", source) for source in ShardSet.open(options.validation).select("validation")]
    if options.test:
        patients += [(_group_of(source), source) for source in ShardSet.open(options.test).patients]
    return patients


def _group_of(source: Patient) -> str:
    low, high = source.body_mm if source.body_mm is not None else ((0, 0, 0), (0, 0, 0))
    return "test" if high[2] >= SHOWN_MM and low[2] <= -SHOWN_MM else "test, a CT that ends within the lungs"


def wrong(images: Sequence[Image]) -> dict[str, tuple[Image, Image]]:
    """Frontal and lateral images that are not what they should be, by kind."""
    ap, lateral = images
    return {
        "swapped": (lateral, ap),
        "frontal mirrored": (ap[:, ::-1], lateral),
        "lateral mirrored": (ap, lateral[:, ::-1]),
        "both mirrored": (ap[:, ::-1], lateral[:, ::-1]),
        "both upside down": (ap[::-1], lateral[::-1]),
        "both turned by 180 degrees": (ap[::-1, ::-1], lateral[::-1, ::-1]),
        "lateral 30 mm lower": (ap, np.roll(lateral, 24, axis=0)),
    }


def pitches(pitch_mm: float) -> dict[str, tuple[float, float]]:
    """Pixel pitches of frontal and lateral image that are wrong, by kind."""
    return {
        "pitch of both wrong by 0.7": (0.7 * pitch_mm, 0.7 * pitch_mm),
        "pitch of both wrong by 1.4": (1.4 * pitch_mm, 1.4 * pitch_mm),
        "pitch of the lateral wrong by 0.7": (pitch_mm, 0.7 * pitch_mm),
        "pitch of the lateral wrong by 1.4": (pitch_mm, 1.4 * pitch_mm),
    }


def _others(bundle: Bundle, options: argparse.Namespace) -> Iterator[Row]:
    for folder in options.others:
        for source in ShardSet.open(folder).patients:
            if source.region == "chest":
                continue
            patient = Projected.of(source, bundle.geometry)
            for condition in CONDITIONS:
                if condition.name in SOME:
                    xrays, told = condition.take(cast(Case, patient))
                    geometry = None if told is bundle.geometry else told
                    yield _row(bundle, "other parts", source.id, condition.name, xrays, geometry)
            print(time.strftime("%H:%M:%S"), source.id, file=sys.stderr, flush=True)


def _noise(bundle: Bundle) -> Iterator[Row]:
    for seed in range(NOISES):
        rng = np.random.default_rng(seed)
        images = [rng.uniform(0, 6, bundle.xray.shape).astype(np.float32) for _ in range(2)]
        yield from _both(bundle, "noise", "white noise", str(seed), (images[0], images[1]))


def _files(bundle: Bundle, group: str, places: Sequence[Path]) -> Iterator[Row]:
    for path in (file for place in places for file in (sorted(place.iterdir()) if place.is_dir() else [place])):
        try:
            yield _row(bundle, group, path.parent.name, path.name, {"pa": XRay.load(path)})
        except X2CTError as error:
            print(f"left out: {path.name}: {error}", file=sys.stderr)


def _both(
    bundle: Bundle, group: str, kind: str, case: str, images: Sequence[Image], pitch: tuple[float, float] | None = None
) -> Iterator[Row]:
    """Yield a pair as line integrals, and as 8-bit pictures."""
    ways: tuple[tuple[str, Callable[[Image], Picture]], ...] = (("", np.ascontiguousarray), (", 8 bits", window_8bit))
    for name, way in ways:
        xrays = {}
        for index, (view, image) in enumerate(zip(bundle.geometry.views, images, strict=True)):
            xrays[view.name] = XRay.of(way(image), view.spacing_mm if pitch is None else pitch[index])
        yield _row(bundle, group, kind + name, case, xrays)


def _row(
    bundle: Bundle, group: str, kind: str, case: str, xrays: dict[str, XRay], geometry: Geometry | None = None
) -> Row:
    return _judged(judge(bundle, xrays, geometry), group, kind, case)


def _judged(judgement: Judgement, group: str, kind: str, case: str) -> Row:
    scores = {f"{score.name} {score.view}": round(score.value, 3) for score in judgement.scores}
    return {"group": group, "kind": kind, "case": case, "scores": scores, "not_judged": len(judgement.not_judged)}


def markdown(rows: Sequence[Row], bundle: str) -> str:
    """Return a table for each group as Markdown."""
    lines = [
        f"# Plausibility of X-rays for the model {Path(bundle).stem}",
        "",
        "Printed by `python benchmarks/plausibility.py`. A study is warned of where one of its scores is above",
        f"{WARNS:g}, and refused above {REFUSES:g}; docs/xrays.md has what they mean.",
    ]
    lines += ["", *summary(rows)]
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
        table = []
        for kind in dict.fromkeys(row["kind"] for row in mine):
            some = [row["scores"] for row in mine if row["kind"] == kind]
            worst = [max(scores.values(), default=0.0) for scores in some]
            most = max((max(s, key=lambda name: s[name]) for s in some if s), key=[
                max(s, key=lambda name: s[name]) for s in some if s].count, default="")  # fmt: skip
            span = f"{min(worst):.2f} to {max(worst):.2f}"
            counts = (sum(value > limit for value in worst) for limit in (WARNS, REFUSES))
            table.append([kind, len(some), *counts, span, most])
        lines += ["", f"## {group}", ""]
        titles = ("", "studies", "warned or refused", "refused", "highest score", "which, mostly")
        lines += markdown_table(titles, table, text=1)
    return "\n".join(lines) + "\n"


def summary(rows: Sequence[Row]) -> list[str]:
    """Return false alarms, and what is found less often than `LEAST_FOUND`."""
    conditions, lines = {condition.name for condition in CONDITIONS}, list[str]()
    fine = {*conditions, DRAWN}
    for group in GOOD:
        mine = [row for row in rows if row["group"] == group]
        for what, some in (("right X-rays", conditions), ("right X-rays, drawn", {DRAWN})):
            if right := [row for row in mine if row["kind"] in some]:
                lines.append(f"- {group} patients, {what}: {_alarms(right)}")
        if not any(row["kind"] in fine for row in mine):
            continue
        kinds = {kind: [row for row in mine if row["kind"] == kind] for kind in dict.fromkeys(r["kind"] for r in mine)}
        found = {k: [_highest(row) > WARNS for row in some] for k, some in kinds.items() if k not in fine}
        less = [f"{k} ({sum(hits)} of {len(hits)})" for k, hits in found.items() if sum(hits) < LEAST_FOUND * len(hits)]
        hits = [hit for some in found.values() for hit in some]
        if hits:
            lines += [
                f"- {group} patients, wrong X-rays: {sum(hits)} of {len(hits)} found. Found in less than "
                f"{LEAST_FOUND:.0%}: {'; '.join(less) or 'none'}."
            ]
    rest = [row for row in rows if row["group"] not in (*GOOD, "chest radiographs")]
    if rest:
        missed = ", ".join(f"{row['case']} ({row['kind']})" for row in rest if _highest(row) <= WARNS)
        count = sum(_highest(row) > WARNS for row in rest)
        lines += [f"- What is no whole chest: {count} of {len(rest)} found{': not ' if missed else ''}{missed}."]
    return lines


def _alarms(right: Sequence[Row]) -> str:
    """Return how many right studies are warned of, and which."""
    alarms = [row for row in right if _highest(row) > WARNS]
    low, high = binomtest(len(alarms), len(right)).proportion_ci(method="exact")
    named = Counter(f"{row['case']} ({row['kind']}, {max(row['scores'], key=row['scores'].get)})" for row in alarms)
    which = ", ".join(name if count == 1 else f"{name} {count} times" for name, count in named.items())
    return (
        f"{len(alarms)} of {len(right)} studies warned of ({len(alarms) / len(right):.1%}, at most {MOST_ALARMS:.0%} "
        f"wanted; {low:.1%} to {high:.1%} with 95% confidence, were the studies independent)"
        f"{': ' if which else ''}{which}."
    )


def _highest(row: Row) -> float:
    return max(row["scores"].values(), default=0.0)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a bundle's folder or name")
    parser.add_argument("validation", type=Path, help="shards: their validation patients are taken")
    parser.add_argument("test", type=Path, nargs="?", help="shards of test patients")
    parser.add_argument("--others", type=Path, nargs="+", default=[], help="shards of other parts of the body")
    parser.add_argument("--radiographs", type=Path, nargs="+", default=[], help="chest radiographs, files or folders")
    parser.add_argument("--not-chests", type=Path, nargs="+", default=[], help="other radiographs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of which rows are measured")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path without suffix, of .json and .md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
