"""What measurements of a model on a folder of CTs share: arguments, one pass over the CTs, and the files written."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import x2ct
from x2ct.data.prepare import find_cts
from x2ct.data.shards import ShardSet
from x2ct.errors import X2CTError
from x2ct.evaluation.case import Case, case_of, make_case

Row = dict[str, Any]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that each of these measurements has."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", help="a bundle's folder or name")
    arguments.add_argument("cts", type=Path, help="a folder of CTs; or shards, whose validation patients are taken")
    arguments.add_argument("-o", "--output", type=Path, required=True, help="path without suffix, of .json and .md")
    arguments.add_argument("--precision", default="auto")
    arguments.add_argument("--threads", type=int, default=0)
    return arguments


def cases(folder: Path, sampler: x2ct.Sampler, threads: int) -> Iterator[Case]:
    """Yield the CTs of a folder, or the validation patients of shards, on a sampler's grid and views."""
    on = sampler.grid, sampler.bundle.geometry
    if (folder / "index.json").is_file():
        for patient in ShardSet.open(folder).select("validation"):
            yield case_of(patient.id, patient.hu(), patient.index_to_mm, *on, region=patient.region, threads=threads)
        return
    for path in find_cts(folder).values():
        yield make_case(path, *on, threads=threads)


def measure(
    options: argparse.Namespace,
    study: Callable[[x2ct.Sampler, Case], Iterable[Row]],
    markdown: Callable[[Sequence[Row]], str],
) -> int:
    """Measure each CT, write OUTPUT.json and OUTPUT.md after each row, and print the table at the end.

    Args:
        options: the arguments of `parser`.
        study: returns the rows of one CT.
        markdown: returns the table of all rows.

    Returns:
        The exit code: 0, or that of an error, after one line on stderr.
    """
    rows: list[Row] = []
    try:
        sampler = x2ct.Sampler(options.bundle, precision=options.precision, threads=options.threads)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        for case in cases(options.cts, sampler, options.threads):
            for row in study(sampler, case):
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
                options.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
                options.output.with_suffix(".md").write_text(markdown(rows))
    except X2CTError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(markdown(rows))
    return 0


def means_by_view(values: Iterable[Sequence[float | None]]) -> list[str]:
    """Return the mean of each view over rows in which it could be judged, with one decimal; "-" where in none."""
    views = ([value for value in view if value is not None] for view in zip(*values, strict=True))
    return [f"{sum(judged) / len(judged):.1f}" if judged else "-" for judged in views]
