"""How bad input is refused, whatever reads it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from x2ct.errors import InputError


def refused(action: Callable[[], object], *words: str) -> str:
    """The action is an InputError of one line that says the words; gives the line."""
    with pytest.raises(InputError) as caught:
        action()
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line
    return line
