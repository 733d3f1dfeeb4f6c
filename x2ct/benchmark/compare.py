"""A benchmark against an older one: ratios with intervals, and whether anything became slower."""

from __future__ import annotations

from typing import Any

from x2ct.benchmark.document import samples_of
from x2ct.benchmark.stats import ratio
from x2ct.errors import InputError

TIMES = ("end_to_end_s", "evaluation_s")

_SAME = ("processor", "processors", "affinity", "instructions")


def parse_threshold(text: str) -> float:
    """A share, as "5%" or "0.05".

    Raises:
        InputError: something else, or outside [0, 10].
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise InputError.of("--threshold", "value", found=repr(text), expected="a share such as 5% or 0.05")
    return value


def compare(new: dict[str, Any], old: dict[str, Any], threshold: float = 0.05) -> dict[str, Any]:
    """Rows of the same case, new over old.

    A regression is a ratio past 1 + threshold whose 95% interval lies above 1: slower, and not by chance.

    Args:
        new: a document.
        old: another.
        threshold: see above.

    Returns:
        `rows` with a ratio for each time, `regressions` as lines, `notes` on what makes the two unlike, and in `alone`
        rows that only one has.

    Raises:
        InputError: they have no row in common.
    """
    before = {_key(row): row for row in old["rows"] if row["status"] == "measured"}
    rows: list[dict[str, Any]] = []
    regressions, alone = [], []
    for row in new["rows"]:
        if row["status"] != "measured":
            continue
        past = before.pop(_key(row), None)
        if past is None:
            alone.append(f"{row['label']}: new")
            continue
        found: dict[str, Any] = {"label": row["label"]}
        for name in TIMES:
            got = ratio(samples_of(row, name), samples_of(past, name))
            found[name] = {"ratio": got.value, "low": got.low, "high": got.high, "slower": got.slower_than(threshold)}
            if got.slower_than(threshold):
                regressions.append(
                    f"{row['label']}: {name.removesuffix('_s').replace('_', ' ')} takes {got.value:.3f} times as long "
                    f"(95% interval {got.low:.3f} to {got.high:.3f})"
                )
        rows.append(found)
    if not rows:
        raise InputError.of("--compare", "rows", found="no row in common", expected="at least one of the same case")
    alone += [f"{row['label']}: gone" for row in before.values()]
    return {
        "threshold": threshold,
        "rows": rows,
        "regressions": regressions,
        "notes": _unlike(new, old),
        "alone": alone,
    }


def _key(row: dict[str, Any]) -> str:
    return repr(sorted(row["case"].items()))


def _unlike(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    mine, theirs = new["environment"], old["environment"]
    found = [f"{name}: {theirs[name]} before, {mine[name]} now" for name in _SAME if mine[name] != theirs[name]]
    if new["bundle"]["sha256"] != old["bundle"]["sha256"]:
        found.append("the bundle is another")
    for package, version in mine["versions"].items():
        before = theirs["versions"].get(package)
        if before != version:
            found.append(f"{package}: {before} before, {version} now")
    return found
