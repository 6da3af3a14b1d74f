"""Which rows of a table can be ranked, and which are indistinguishable: column by column."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from migrate.analysis.comparable import why_incomparable
from migrate.analysis.figures import COLUMNS, FLOOR, PART_COLUMNS, FigureColumn, FigureValue
from migrate.model import Attempt
from migrate.statistics.censored import Interval, below_floor, bounds_text, median

RANKED = tuple(column for column in (*COLUMNS, *PART_COLUMNS) if column is not FLOOR)
"""The columns by which rows are ranked."""
MOST_ROWS_COMPARED = 12
"""More rows than this are not compared: the table is no comparison then."""
LEAST_ATTEMPTS = 3
"""Fewer attempts than this have no spread to compare."""
LEVEL_NOTE = (
    "Rows that are not called too close are ranked, at one level for the whole table: in at most "
    "5 % of tables are any two rows ranked in any column that do not differ (a permutation test, "
    "each figure widened by the meter's error)."
)
Pair = frozenset[str]


@dataclass(frozen=True, slots=True)
class ColumnRanks:
    """The rows with a figure in a column, the lowest median first."""

    column: FigureColumn
    medians: Mapping[str, str]
    """By row, in milliseconds, or in words."""
    compared: frozenset[str] = frozenset()
    """The rows with enough attempts to be ranked."""
    alike: tuple[tuple[str, ...], ...] = ()
    """The largest sets of rows of which no two can be told apart."""

    @property
    def letters(self) -> Mapping[str, str]:
        """A letter for each set of rows that are alike, as text by row; empty if no two are.

        A row that is like no other has a letter of its own, one that is not compared has none.
        """
        if not self.alike:
            return {}
        order = [label for label in self.medians if label in self.compared]
        alone = [(label,) for label in order if not any(label in s for s in self.alike)]
        sets = sorted((*self.alike, *alone), key=lambda labels: min(map(order.index, labels)))
        return {
            label: "".join(
                letter
                for letter, labels in zip(string.ascii_letters, sets, strict=False)
                if label in labels
            )
            for label in order
        }


@dataclass(frozen=True, slots=True)
class RowRanks:
    """What can be said of a table's rows against each other."""

    columns: tuple[ColumnRanks, ...] = ()
    ranked: bool = False
    """Whether there was anything to rank by: two rows with enough attempts."""
    attempts: tuple[int, int] = (0, 0)
    """Of the rows: the fewest, and the most."""
    incomparable: bool = False
    """Whether there are pairs that must not be compared."""
    limits: tuple[str, ...] = ()
    """Why rows, or pairs of them, can't be ranked: a line each."""

    def column(self, name: str) -> ColumnRanks | None:
        """That of a name, if any row has a figure there."""
        return next((ranks for ranks in self.columns if ranks.column.name == name), None)


def rank_rows(groups: Mapping[str, Sequence[Attempt]]) -> RowRanks:
    """``groups``: of each row the attempts whose figures count."""
    groups = {label: group for label, group in groups.items() if group}
    several = {label: group for label, group in groups.items() if len(group) >= LEAST_ATTEMPTS}
    sizes = [len(group) for group in groups.values()] or [0]
    attempts = (min(sizes), max(sizes))
    reasons = _reasons(several) if len(several) <= MOST_ROWS_COMPARED else {}
    limits = tuple(_limits(groups, several, reasons))
    compared = 2 <= len(several) <= MOST_ROWS_COMPARED
    if not compared:
        return RowRanks(_medians(groups), False, attempts, bool(reasons), limits)
    alike = _indistinguishable(several, {frozenset(pair) for pair in reasons})
    columns = tuple(
        ColumnRanks(
            ranks.column, ranks.medians, frozenset(several), alike.get(ranks.column.name, ())
        )
        for ranks in _medians(groups)
    )
    return RowRanks(columns, True, attempts, bool(reasons), limits)


def _limits(
    groups: Mapping[str, Sequence[Attempt]],
    several: Mapping[str, Sequence[Attempt]],
    reasons: Mapping[tuple[str, str], str],
) -> Iterator[str]:
    """What keeps rows from being ranked, whatever their figures are."""
    if len(several) < len(groups):
        yield (f"Rows with fewer than {LEAST_ATTEMPTS} attempts can't be ranked.")
    if len(several) > MOST_ROWS_COMPARED:
        yield f"More than {MOST_ROWS_COMPARED} rows are not compared, and so not ranked."
        return
    for (first, second), reason in reasons.items():
        yield f"{first} and {second} can't be ranked: {reason}."
    if len(several) >= 2:
        yield from _too_few(several)


def _reasons(groups: Mapping[str, Sequence[Attempt]]) -> dict[tuple[str, str], str]:
    """Pairs of rows that must not be compared, and why."""
    reasons = {}
    for first, second in itertools.combinations(groups, 2):
        if reason := why_incomparable([groups[first], groups[second]]):
            reasons[first, second] = reason
    return reasons


def _too_few(groups: Mapping[str, Sequence[Attempt]]) -> Iterator[str]:
    from migrate.statistics.ranking import least_attempts  # noqa: PLC0415 - numpy is heavy

    needed, most = least_attempts(len(groups)), max(map(len, groups.values()))
    if most < needed:
        yield (
            f"With {most} attempts a row nothing can be ranked, however far apart: "
            f"{len(groups)} rows take at least {needed} attempts each."
        )


def _medians(groups: Mapping[str, Sequence[Attempt]]) -> tuple[ColumnRanks, ...]:
    """Each column's medians, lowest first, of the rows that have one."""
    return tuple(
        ColumnRanks(column, dict(sorted_texts))
        for column in RANKED
        if (sorted_texts := _sorted_texts(groups, column))
    )


def _sorted_texts(
    groups: Mapping[str, Sequence[Attempt]], column: FigureColumn
) -> list[tuple[str, str]]:
    rows: list[tuple[Interval, str, str]] = []
    for label, group in groups.items():
        values = [value for attempt in group if (value := _value(attempt, column)) is not None]
        middle = median([value.bounds for value in values])
        if middle is not None:
            floor = max(value.floor_ms for value in values)
            rows.append((middle, label, bounds_text(middle, floor, below_floor(floor))))
    rows.sort(key=lambda row: row[0])
    return [(label, text) for _, label, text in rows]


def _indistinguishable(
    groups: Mapping[str, Sequence[Attempt]], incomparable: set[Pair]
) -> dict[str, tuple[tuple[str, ...], ...]]:
    """By column, sets of rows of which no two can be ranked there."""
    from migrate.statistics.ranking import rank  # noqa: PLC0415 - numpy is heavy

    values = {
        label: [[_value(attempt, column) for column in RANKED] for attempt in group]
        for label, group in groups.items()
    }
    ranking = rank(
        {
            label: [[None if value is None else value.widened for value in each] for each in row]
            for label, row in values.items()
        }
    )
    alike: dict[str, tuple[tuple[str, ...], ...]] = {}
    for number, column in enumerate(RANKED):
        measured = {
            label: [value for attempt in row if (value := attempt[number]) is not None]
            for label, row in values.items()
        }
        labels = [label for label, known in measured.items() if known]
        pairs = {
            frozenset(pair)
            for pair in itertools.combinations(labels, 2)
            if not ranking.may_rank(number, *pair)
        } - incomparable
        # That rows show nothing at all needs no mark: all their cells say so.
        alike[column.name] = tuple(
            names
            for names in _cliques(labels, pairs)
            if any(not value.in_floor and value.ms for name in names for value in measured[name])
        )
    return alike


def _value(attempt: Attempt, column: FigureColumn) -> FigureValue | None:
    return column.measure(attempt) if column.applies(attempt) else None


def _cliques(labels: Sequence[str], pairs: set[Pair]) -> list[tuple[str, ...]]:
    """The largest sets of two and more of which all pairs are in ``pairs``, in order.

    That a can't be ranked against b, nor b against c, says nothing of a and c. The method is that
    of Bron and Kerbosch 1973.
    """
    near = {
        label: {other for pair in pairs if label in pair for other in pair - {label}}
        for label in labels
    }
    largest: list[tuple[str, ...]] = []

    def grow(names: set[str], others: set[str], done: set[str]) -> None:
        if not others and not done and len(names) > 1:
            largest.append(tuple(label for label in labels if label in names))
            return
        busiest = max(others | done, key=lambda name: len(near[name] & others), default="")
        for name in sorted(others - near.get(busiest, set()), key=labels.index):
            grow(names | {name}, others & near[name], done & near[name])
            others = others - {name}
            done = done | {name}

    grow(set(), set(labels), set())
    return sorted(largest, key=lambda names: [*map(labels.index, names)])
