"""Tables as text: for a terminal in its width, for a pipe in columns that fit a log's line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from migrate.errors import visible
from migrate.model import Attempt
from migrate.report.table import PARTS_TITLE, RunTable
from migrate.report.table_model import Cell, Grid, GridRow, GridSection
from migrate.report.verdict_text import limit_text

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table as RichTable
    from rich.text import Text

WIDTH = 100
"""Letters of a line for a pipe; a word that is longer is not cut."""
SPACE = 2
"""Between two columns."""
FREE = frozenset({"verdict", "evidence"})
"""Columns of words, which stand on the left."""


def clean(text: str) -> str:
    """The text without control characters, which a quoted log may have."""
    return visible(text)


# --- for a pipe -----------------------------------------------------------------------------------


def plain(table: RunTable, width: int = WIDTH) -> str:
    """The table in columns of fixed width for a pipe; nothing is cut off."""
    lines = [*plain_grid(table, width), *_wrapped(table.answers, width)]
    if table.parts.rows:
        lines += ["", PARTS_TITLE, *plain_grid(table.parts, width), ""]
    for section in table.went:
        lines += [*_section_lines(section, width), ""]
    below = (*table.skips, *table.remarks, *table.about, *table.notes)
    return "\n".join((*lines, *map(clean, below))) + "\n"


def plain_sections(sections: Sequence[GridSection]) -> str:
    """Sections as text for a pipe, or a terminal."""
    lines = [line for section in sections for line in (*_section_lines(section, WIDTH), "")]
    return "\n".join(lines) + "\n"


def _section_lines(section: GridSection, width: int) -> list[str]:
    grid = plain_grid(section.grid, width) if section.grid else []
    return [clean(section.title), *grid, *map(clean, section.lines)]


def _wrapped(sentences: Sequence[str], width: int) -> list[str]:
    """Sentences after an empty line; further lines of one are indented."""
    if not sentences:
        return []
    return ["", *(line for s in sentences for line in _wrap(clean(s), width, indent="  "))]


def plain_grid(grid: Grid, most: int = WIDTH) -> list[str]:
    """A line a row if that fits, else what stands beside a figure comes below it; a line a cell
    where that does not fit either."""
    rows = _cleaned(grid)
    lines = [grid.heads, *(tuple(cell.line() for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(grid.heads))]
    if _total(widths) <= most:
        body = [_line(line, widths) for line in lines]
        return [body[0], _rule(widths), *body[1:]]
    widths = _fitted(grid.heads, rows, most)
    if _total(widths) > most:
        return [*_cell_lines(grid.heads, rows)]
    heads = _block([_wrap(head, width) for head, width in zip(grid.heads, widths, strict=True)])
    body = [_line(line, widths) for line in heads]
    body.append(_rule(widths))
    for row in rows:
        cells = [
            [*_wrap(cell.text, width), *_wrap(cell.spread, width)]
            for cell, width in zip(row, widths, strict=True)
        ]
        body += [_line(line, widths) for line in _block(cells)]
    return body


def _fitted(heads: Sequence[str], rows: Sequence[GridRow], most: int) -> list[int]:
    """Widths of columns, the widest made less so that they fit together; no word is broken, so
    they may not fit."""
    texts = [
        [head, *(text for row in rows for text in (row[column].text, row[column].spread))]
        for column, head in enumerate(heads)
    ]
    least = [
        max((len(piece.rstrip()) for text in column for piece in _PIECE.findall(text)), default=1)
        for column in texts
    ]
    widths = [max(map(len, column)) for column in texts]
    for cap in range(most, 0, -1):
        fitted = [max(least[at], min(width, cap)) for at, width in enumerate(widths)]
        if _total(fitted) <= most:
            return fitted
    return least


def _cleaned(grid: Grid) -> list[GridRow]:
    return [
        tuple(Cell(clean(cell.text), clean(cell.spread), cell.bad) for cell in row)
        for row in grid.rows
    ]


def _cell_lines(heads: Sequence[str], rows: Sequence[GridRow]) -> Iterator[str]:
    """A table that is too wide: each row's cells below its name."""
    for name, *cells in rows:
        yield f"{heads[0]} {name.line()}"
        yield from (f"  {head}: {cell.line()}" for head, cell in zip(heads[1:], cells, strict=True))


_PIECE = re.compile(r"\S+?\.\.(?=\S)|\S+\s*")
"""What is not broken: a word, or an end of ``[least..most]``, and the space behind it."""


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    lines = [""]
    for piece in _PIECE.findall(text):
        if lines[-1].strip() and len(lines[-1] + piece.rstrip()) > width:
            lines.append(indent)
        lines[-1] += piece
    return [line.rstrip() for line in lines if line.strip()]


def _block(cells: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Cells of several lines, line by line."""
    return zip_longest(*cells, fillvalue="")


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + SPACE * (len(widths) - 1)


def _rule(widths: Sequence[int]) -> str:
    return (" " * SPACE).join("-" * width for width in widths)


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    padded = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
    return (" " * SPACE).join(padded).rstrip()


# --- for a terminal -------------------------------------------------------------------------------


def rich(table: RunTable, width: int = WIDTH) -> Group:
    """The table for a terminal so wide, spread below the figure; markup in it means nothing."""
    from rich.console import Group  # noqa: PLC0415 - only for a terminal
    from rich.text import Text  # noqa: PLC0415 - only for a terminal

    below: list[RenderableType] = [Text("")] if table.answers else []
    below += [Text(clean(line), "bold") for line in table.answers]
    if table.parts.rows:
        below += [Text(f"\n{PARTS_TITLE}", "bold"), _draw_grid(table.parts, width), Text("")]
    for section in table.went:
        below += [Text(clean(section.title), "bold")]
        below += [_draw_grid(section.grid, width)] if section.grid else []
        below += [*(Text(clean(line), "dim") for line in section.lines), Text("")]
    loud = [Text(clean(line), "yellow") for line in (*table.skips, *table.remarks)]
    about = [Text(clean(line), "bold") for line in table.about]
    return Group(
        _draw_grid(table, width),
        *below,
        *loud,
        *about,
        *(Text(clean(n), "dim") for n in table.notes),
    )


def _draw_grid(grid: Grid, most: int) -> RichTable | Text:
    from rich.table import Table as RichTable  # noqa: PLC0415 - only for a terminal
    from rich.text import Text  # noqa: PLC0415 - only for a terminal

    rows = _cleaned(grid)
    widths = _fitted(grid.heads, rows, most)
    if _total(widths) > most:
        return Text("\n".join(_cell_lines(grid.heads, rows)))
    drawn = RichTable(box=None, header_style="bold", padding=(0, SPACE, 0, 0), pad_edge=False)
    for number, (head, width) in enumerate(zip(grid.heads, widths, strict=True)):
        text = Text("\n".join(_wrap(head, width)))
        drawn.add_column(text, justify=_side(number, grid.heads), overflow="fold", width=width)
    for row in rows:
        texts = []
        for cell, width in zip(row, widths, strict=True):
            figure, spread = ("\n".join(_wrap(text, width)) for text in (cell.text, cell.spread))
            parts = [(figure, "bold red" if cell.bad else "bold")]
            parts += [(f"\n{spread}", "dim")] if spread else []
            texts.append(Text.assemble(*parts))
        drawn.add_row(*texts)
    return drawn


def _side(number: int, heads: Sequence[str]) -> Literal["left", "right"]:
    return "left" if number == 0 or heads[number] in FREE else "right"


# --- an attempt -----------------------------------------------------------------------------------


def attempt_lines(attempt: Attempt) -> Iterator[str]:
    """How an attempt ended, and every verdict with its evidence: a line each."""
    holders = ", ".join(attempt.held_by or ()) or "nobody that is known"
    if attempt.void:
        yield clean(f"{attempt.case.id}/{attempt.number}: VOID: {attempt.void_reason}")
    yield f"{attempt.case.id}/{attempt.number}: {attempt.outcome}, held by {holders}"
    for verdict in attempt.verdicts:
        against = f" against {limit}" if (limit := limit_text(verdict)) else ""
        yield clean(
            f"  {verdict.check:15} {verdict.result:10} "
            f"{verdict.measured}{against}: {verdict.evidence}"
        )
    if attempt.error is not None:
        yield clean(f"{attempt.error.tried} on {attempt.error.host}: {attempt.error.said}")
