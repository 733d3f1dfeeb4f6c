"""A benchmark's table, and what its cells look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from x2ct.report import markdown_table

_MIB = 1 << 20


@dataclass(frozen=True)
class Table:
    """A titled table, with lines that say what its figures are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=tuple)

    def markdown(self) -> str:
        """As Markdown, under a heading of the second level."""
        lines = [f"## {self.title}", "", *_paragraphs(self.notes)]
        return "\n".join(lines + markdown_table(self.columns, self.rows)) + "\n"


def _paragraphs(notes: Sequence[str]) -> list[str]:
    return [line for note in notes for line in (note, "")]


def ms(value: float | None) -> str:
    """Seconds as milliseconds."""
    return "-" if value is None else f"{1e3 * value:.1f}" if value < 10 else f"{1e3 * value:.0f}"


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{100 * value:.1f}%"


def mib(value: float | None) -> str:
    """Bytes as MiB."""
    return "-" if value is None else f"{value / _MIB:.0f}"
