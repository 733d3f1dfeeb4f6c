"""Memory: what a budget says in words."""

from __future__ import annotations

import re

from x2ct.errors import InputError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_bytes(text: str) -> int:
    """A size such as "2GB", "1.5 GiB" or "800M", in bytes.

    Raises:
        InputError: it is something else, or not positive.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
        raise InputError.of("--memory", "value", found=repr(text), expected="a size, such as 2GB or 800MiB")
    return int(float(found[1]) * _UNITS[found[2]])
