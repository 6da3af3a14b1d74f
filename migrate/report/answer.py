"""What a run has shown, in a few sentences: what it is made for, before any table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from migrate.model import Attempt
from migrate.report.ranking import LEAST_ATTEMPTS, ColumnRanks, RowRanks

ANSWERED = {
    "outage seen, egress": "Outage, guest to peer (egress)",
    "outage seen, ingress": "Outage, peer to guest (ingress)",
    "downtime reported": "Downtime reported",
}
"""The columns that are answered, by name, in the order of what matters."""
TOO_CLOSE = "too close to rank"
MOST_ROWS = 12
"""Rows that a sentence is of, at most."""
MOST_NAMED = 5
"""Rows that are named one by one in a sentence; of more, the ends alone."""


def answers(groups: Mapping[str, Sequence[Attempt]], ranks: RowRanks) -> tuple[str, ...]:
    """A sentence a column; ``groups``: of each row the attempts whose figures count."""
    return tuple(_answers({label: group for label, group in groups.items() if group}, ranks))


def _answers(groups: Mapping[str, Sequence[Attempt]], ranks: RowRanks) -> Iterator[str]:
    if not groups or len(groups) > MOST_ROWS:
        return
    for name, title in ANSWERED.items():
        column = ranks.column(name)
        if column is None:
            yield f"{title}: not measured."
        elif len(groups) == 1:
            (text,) = column.medians.values()
            yield f"{title}: {_ms(text)}{_median_of(ranks)}."
        else:
            yield f"{title}: {_compared(column, ranks)}."


def _ms(text: str) -> str:
    """A median with its unit, or the words that stand for it."""
    return f"{text} ms" if text[-1].isdigit() else text


def _median_of(ranks: RowRanks) -> str:
    return "" if ranks.attempts[1] == 1 else f", the median of {ranks.attempts[1]} attempts"


def _with_attempts(ranks: RowRanks) -> str:
    fewest, most = ranks.attempts
    number = str(most) if fewest == most else f"{fewest} to {most}"
    return f"with {number} attempt{'' if most == 1 else 's'}{' each' if fewest == most else ''}"


def _compared(column: ColumnRanks, ranks: RowRanks) -> str:
    """The rows, the lowest first, and which of them can't be told apart."""
    figures = {label: f"{label} {_ms(text)}" for label, text in column.medians.items()}
    if ranks.ranked and not ranks.incomparable and column.compared.issuperset(figures):
        sets = _chain(column)
        if sets is not None and len(sets) > 1 and len(figures) <= MOST_NAMED:
            return " < ".join(_set_text([figures[label] for label in labels]) for labels in sets)
    return f"{_listed([*figures.values()])}{_not_ranked(column, ranks)}"


def _listed(figures: Sequence[str]) -> str:
    if len(figures) <= MOST_NAMED:
        return ", ".join(figures)
    return f"from {figures[0]} to {figures[-1]}, {len(figures)} rows"


def _set_text(figures: Sequence[str]) -> str:
    return ", ".join(figures) + (f" ({TOO_CLOSE})" if len(figures) > 1 else "")


def _not_ranked(column: ColumnRanks, ranks: RowRanks) -> str:
    """What keeps rows, or some of them, from being ranked."""
    if not ranks.ranked or not column.compared.issuperset(column.medians):
        few = ranks.attempts[0] < LEAST_ATTEMPTS
        return f": not ranked{f', {_with_attempts(ranks)}' if few else ''}"
    if any(len(labels) == len(column.medians) for labels in column.alike):
        return f": {TOO_CLOSE} {_with_attempts(ranks)}"
    if ranks.incomparable:
        return ": not all of them can be ranked"
    if len(column.medians) > MOST_NAMED:
        return f"; those {TOO_CLOSE} have a letter in common in the report"
    pairs = "; ".join(" and ".join(labels) for labels in column.alike)
    return f"; {TOO_CLOSE} {_with_attempts(ranks)}: {pairs}"


def _chain(column: ColumnRanks) -> list[list[str]] | None:
    """Sets of rows that are alike, each set above the one before; None: they overlap."""
    sets: list[list[str]] = []
    letters = column.letters or {label: str(at) for at, label in enumerate(column.medians)}
    if any(len(names) != 1 for names in letters.values()) and column.alike:
        return None
    for label in column.medians:
        if sets and letters[sets[-1][0]] == letters[label]:
            sets[-1].append(label)
        else:
            sets.append([label])
    return sets if len(sets) == len(set(letters.values())) else None


def too_close_line(ranks: RowRanks) -> str:
    """All columns that have no sentence of their own, on one line; empty: nothing is too close."""
    parts = []
    for column in ranks.columns:
        if column.alike and column.column.name not in ANSWERED:
            sets = (
                "all rows" if len(labels) == len(column.medians) else " and ".join(labels)
                for labels in column.alike
            )
            parts.append(f"{column.column.name} ({'; '.join(sets)})")
    return f"Also {TOO_CLOSE}: {'; '.join(parts)}." if parts else ""
