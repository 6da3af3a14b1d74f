"""Heads, rows and cells: what tables for a terminal, a pipe and the HTML report are made of."""

from __future__ import annotations

from dataclasses import dataclass

NOT_MEASURED = "not measured"
IN_FLOOR = "in the floor"


@dataclass(frozen=True, slots=True)
class Cell:
    """``text`` is the figure, ``spread`` what belongs below it; ``bad`` draws the eye."""

    text: str
    spread: str = ""
    bad: bool = False

    def line(self) -> str:
        """Both on one line."""
        return f"{self.text} {self.spread}".rstrip()


Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Heads, and rows of as many cells."""

    heads: tuple[str, ...]
    rows: tuple[Row, ...]
