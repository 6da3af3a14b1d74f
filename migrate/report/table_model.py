"""Heads, rows and cells: what tables for a terminal, a pipe and the HTML report are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from migrate.statistics.censored import BELOW_FLOOR

NOT_MEASURED = "not measured"
IN_FLOOR = BELOW_FLOOR
NOT_THERE = "-"
NOT_COUNTED = "none counts"
"""In a row without any attempt that ended as it should."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: ``text`` is the figure, ``spread`` stands below it; ``bad`` is highlighted."""

    text: str
    spread: str = ""
    bad: bool = False

    def line(self) -> str:
        """The figure and its spread on one line."""
        return f"{self.text} {self.spread}".rstrip()


GridRow = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table's headings, and rows of as many cells."""

    heads: tuple[str, ...]
    rows: tuple[GridRow, ...]


@dataclass(frozen=True, slots=True)
class GridSection:
    """A grid with its title, and lines below it."""

    title: str
    grid: Grid | None = None
    lines: tuple[str, ...] = ()


def not_measured(what: str, reasons: Iterable[str]) -> str:
    """A line that says what was not measured, with every reason on record."""
    return f"{NOT_MEASURED}: {'; '.join((what, *reasons))}"
