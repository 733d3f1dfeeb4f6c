"""An error as the answer to a request: a status and one JSON object, whatever went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from x2ct.errors import Cancelled, InputError, MemoryLimitError, MissingRuntimeError, X2CTError

STATUS: Mapping[type[X2CTError], int] = {
    InputError: 422,
    Cancelled: 503,
    MissingRuntimeError: 503,
    MemoryLimitError: 507,
    X2CTError: 500,
}
"""The HTTP status of each class of the library's errors; the last one is the base of the others."""


class Problem(Exception):
    """An error as a client gets it: the parts of its line as JSON, and a status, by default that of its class."""

    def __init__(self, error: X2CTError, status: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(str(error))
        self.status = status or next(code for kind, code in STATUS.items() if isinstance(error, kind))
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {"status": self.status, **error.parts}

    @classmethod
    def of(
        cls, status: int, source: str, field: str, *, headers: Mapping[str, str] | None = None, **parts: Any
    ) -> Problem:
        """Return a problem of the server's own; `parts` are found, expected and hint, as `InputError.of` has them."""
        return cls(InputError.of(source, field, **parts), status, headers)

    @classmethod
    def of_failure(cls, error: Exception, folder: Path) -> Problem:
        """Return the problem that ended a job, without the folder of its files.

        Of an error that is not the library's only the class is named, for its text could hold anything.
        """
        if isinstance(error, Problem):
            return error
        if isinstance(error, X2CTError):
            return cls(type(error)(str(error).replace(f"{folder}/", "")))
        if isinstance(error, MemoryError):
            return cls(MemoryLimitError("out of memory: use a smaller picture or a server with more"))
        return cls(X2CTError(f"unexpected {type(error).__name__}: this is a bug of x2ct"))
