"""Which rows of a table can be ranked, and which are indistinguishable, in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from migrate.analysis.comparable import why_incomparable
from migrate.analysis.figures import COLUMNS, FLOOR, PART_COLUMNS, FigureColumn, FigureValue
from migrate.model import Attempt

RANKED = tuple(column for column in (*COLUMNS, *PART_COLUMNS) if column is not FLOOR)
"""The columns by which rows are ranked."""
MOST_ROWS_COMPARED = 12
"""More rows than this are not compared: the table is no comparison then."""
LEAST_ATTEMPTS = 3
"""Fewer attempts than this have no spread to compare."""
Pair = frozenset[str]


def ranking_notes(groups: Mapping[str, Sequence[Attempt]]) -> Iterator[str]:
    """Which rows may not be ranked against which, and by what, a line for each set of rows.

    ``groups``: of each row the attempts whose figures count.
    """
    several = {label: group for label, group in groups.items() if len(group) >= LEAST_ATTEMPTS}
    if len(several) < len(groups):
        yield (
            f"Rows with fewer than {LEAST_ATTEMPTS} figures have no spread worth the name: "
            "they can't be ranked."
        )
    if len(several) < 2:
        return
    if len(several) > MOST_ROWS_COMPARED:
        yield f"More than {MOST_ROWS_COMPARED} rows are not compared: none of them can be ranked."
        return
    reasons = _reasons(several)
    for (first, second), reason in reasons.items():
        yield f"{first} and {second} can't be ranked: {reason}."
    yield from _too_few(several)
    alike = _indistinguishable(several, {frozenset(pair) for pair in reasons})
    for labels, names in sorted(alike.items(), key=lambda item: -len(item[0])):
        yield f"{_listed(labels)} are indistinguishable in {'; '.join(names)}."
    yield (
        "What is not called indistinguishable is ranked. One level holds for the whole table: in "
        "at most 5 % of tables are any two rows that do not differ ranked in any column. "
        "Attempts are shuffled between rows, each figure widened by the meter's error."
    )


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
            f"With {most} attempts a row nothing can be ranked, however far apart it is: "
            f"{len(groups)} rows take at least {needed} attempts each."
        )


def _indistinguishable(
    groups: Mapping[str, Sequence[Attempt]], incomparable: set[Pair]
) -> dict[tuple[str, ...], list[str]]:
    """Sets of rows of which no two can be ranked, with the columns in which it is so."""
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
    alike: dict[tuple[str, ...], list[str]] = {}
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
        for names in _cliques(labels, pairs):
            # That two rows show nothing at all needs no line: both cells say so.
            if any(not value.in_floor and value.ms for name in names for value in measured[name]):
                alike.setdefault(names, []).append(column.name)
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


def _listed(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:-1])} and {labels[-1]}"
