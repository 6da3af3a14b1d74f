"""Tables as text: for a terminal in its width, for a pipe in columns that fit a log's line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from migrate.errors import visible
from migrate.report.table import PARTS_TITLE, RunTable
from migrate.report.table_model import Cell, Grid, GridRow, GridSection

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table as RichTable
    from rich.text import Text

WIDTH = 100
"""Letters of a line for a pipe; a word that is longer is not cut."""
SPACE = 2
"""Between two columns."""
MOST_CASES = 5
"""Of more than so many the tables of causes are not printed."""
MANY_CASES = (
    "Causes of each outage: `migrate-lab show RUN --case PATTERN` for up to "
    f"{MOST_CASES} cases, or report.html for all."
)
FREE = frozenset({"verdict", "evidence"})
"""Columns of words, which stand on the left."""


def clean(text: str) -> str:
    """The text without control characters, which a quoted log may have."""
    return visible(text)


# --- for a pipe -----------------------------------------------------------------------------------


def plain(table: RunTable, width: int = WIDTH) -> str:
    """The answers, and the table in columns of fixed width for a pipe; nothing is cut off."""
    lines = wrapped(table.answers, width)
    lines += [""] if lines else []
    lines += [*plain_grid(table, width), ""]
    if table.parts.rows:
        lines += [*_wrap(PARTS_TITLE, width), *plain_grid(table.parts, width), ""]
    for section in causes_to_print(table):
        lines += [*_section_lines(section, width), ""]
    below = (*table.skips, *table.remarks, *table.about, *table.notes)
    return "\n".join((*lines, *wrapped(below, width))) + "\n"


def causes_to_print(table: RunTable) -> tuple[GridSection, ...]:
    """Tables of causes, a column a case; of many cases where each one's are found."""
    if any(s.grid is not None and len(s.grid.heads) > 1 + MOST_CASES for s in table.went):
        return (GridSection("", lines=(MANY_CASES,)),)
    return table.went


def plain_sections(sections: Sequence[GridSection], width: int = WIDTH) -> str:
    """Sections as text for a pipe, or a terminal."""
    lines = [line for section in sections for line in (*_section_lines(section, width), "")]
    return "\n".join(lines) + "\n"


def _section_lines(section: GridSection, width: int) -> list[str]:
    grid = plain_grid(section.grid, width) if section.grid else []
    title = wrapped((section.title,), width) if section.title else []
    return [*title, *grid, *wrapped(section.lines, width)]


def wrapped(sentences: Sequence[str], width: int = WIDTH, indent: str = "  ") -> list[str]:
    """Sentences in lines no longer than ``width``; further lines of one are indented."""
    return [line for s in sentences for line in _sentence(clean(s), width, indent)]


def _sentence(text: str, width: int, indent: str) -> list[str]:
    """What a sentence is indented by itself is kept."""
    words = text.lstrip(" ")
    own = " " * (len(text) - len(words))
    return [own + line for line in _wrap(words, width - len(own), indent=indent)]


def plain_grid(grid: Grid, most: int = WIDTH) -> list[str]:
    """A line a row if that fits, else what stands beside a figure comes below it.

    Where that is too wide, the names of rows stand above them, or heads are broken behind a
    hyphen; where nothing of this fits, it is a line a cell.
    """
    rows = _cleaned(grid)
    lines = [grid.heads, *(tuple(cell.line() for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(grid.heads))]
    if _total(widths) <= most:
        body = [_line(line, widths) for line in lines]
        return [body[0], _rule(widths), *body[1:]]
    widths = _fitted(grid.heads, rows, most)
    if _total(widths) <= most:
        return _folded(grid.heads, rows, widths)
    widths = _fitted(grid.heads[1:], [row[1:] for row in rows], most - SPACE)
    if _total(widths) <= most - SPACE:
        return _named_above(grid.heads, rows, widths)
    widths = _fitted(grid.heads, rows, most, _HEAD_PIECE)
    if _total(widths) <= most:
        return _folded(grid.heads, rows, widths, _HEAD_PIECE)
    return wrapped([*_cell_lines(grid.heads, rows)], most, indent="    ")


def _folded(
    heads: Sequence[str],
    rows: Sequence[GridRow],
    widths: Sequence[int],
    head_piece: re.Pattern[str] | None = None,
) -> list[str]:
    """Each row in as many lines as its highest cell."""
    pieces = head_piece or _PIECE
    of_heads = [_wrap(head, w, pieces=pieces) for head, w in zip(heads, widths, strict=True)]
    body = [_line(line, widths) for line in _block(of_heads)]
    body.append(_rule(widths))
    for row in rows:
        cells = [
            [*_wrap(cell.text, width), *_wrap(cell.spread, width)]
            for cell, width in zip(row, widths, strict=True)
        ]
        body += [_line(line, widths) for line in _block(cells)]
    return body


def _named_above(heads: Sequence[str], rows: Sequence[GridRow], widths: Sequence[int]) -> list[str]:
    """Each row below its name, indented."""
    indent = " " * SPACE
    body = [heads[0], *(indent + line for line in _folded(heads[1:], [], widths))]
    for row in rows:
        _, _, *lines = _folded(tuple("-" for _ in widths), [row[1:]], widths)
        body += [row[0].line(), *(indent + line for line in lines)]
    return body


def _fitted(
    heads: Sequence[str],
    rows: Sequence[GridRow],
    most: int,
    head_piece: re.Pattern[str] | None = None,
) -> list[int]:
    """Widths of columns, the widest made less so that they fit together; no word is broken, so
    they may not fit."""
    cells = [
        [text for row in rows for text in (row[column].text, row[column].spread)]
        for column in range(len(heads))
    ]
    least = [
        max(_longest(of_column), _longest([head], head_piece or _PIECE), 1)
        for head, of_column in zip(heads, cells, strict=True)
    ]
    widths = [
        max(map(len, (head, *of_column))) for head, of_column in zip(heads, cells, strict=True)
    ]
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
_HEAD_PIECE = re.compile(r"[^\s-]+-*\s*|-+\s*")
"""Of a head that is a case's name: a part of it up to a hyphen."""


def _longest(texts: Sequence[str], pieces: re.Pattern[str] = _PIECE) -> int:
    """Letters of the longest piece."""
    every = (piece.rstrip() for text in texts for piece in pieces.findall(text))
    return max(map(len, every), default=0)


def _wrap(text: str, width: int, indent: str = "", pieces: re.Pattern[str] = _PIECE) -> list[str]:
    lines = [""]
    for piece in pieces.findall(text):
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

    above: list[RenderableType] = [Text(clean(line), "bold") for line in table.answers]
    above += [Text("")] if above else []
    below: list[RenderableType] = [Text("")]
    if table.parts.rows:
        below += [Text(PARTS_TITLE, "bold"), _draw_grid(table.parts, width), Text("")]
    for section in causes_to_print(table):
        below += [Text(clean(section.title), "bold")] if section.title else []
        below += [_draw_grid(section.grid, width)] if section.grid else []
        below += [*(Text(clean(line), "dim") for line in section.lines), Text("")]
    loud = [Text(clean(line), "yellow") for line in (*table.skips, *table.remarks)]
    about = [Text(clean(line), "bold") for line in table.about]
    return Group(
        *above,
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
        return Text("\n".join(plain_grid(grid, most)))
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
