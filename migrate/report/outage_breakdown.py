"""What the longest outage each way consists of, over the attempts of a run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from migrate.analysis.figures import longest_outage
from migrate.model import DIRECTIONS, Attempt, Direction, Explained
from migrate.report.table_model import (
    IN_FLOOR,
    NOT_MEASURED,
    NOT_THERE,
    Cell,
    Grid,
    GridRow,
    GridSection,
)


def explained_or_reason(attempt: Attempt, way: Direction) -> Explained | str:
    """The spans of the longest gap this way, or why there are none."""
    for gap in attempt.explained or ():
        if gap.direction == way:
            return gap
    outage = longest_outage(attempt, way)
    quiet = attempt.explained is not None and outage is not None and outage.ms == 0
    return IN_FLOOR if quiet else NOT_MEASURED


def outage_breakdown(groups: Mapping[str, Sequence[Attempt]]) -> tuple[GridSection, ...]:
    """Per direction: a row for each cause of outage, a column for each case."""
    return tuple(section for way in DIRECTIONS if (section := _breakdown(groups, way)) is not None)


def _breakdown(groups: Mapping[str, Sequence[Attempt]], way: Direction) -> GridSection | None:
    contents = {
        label: [explained_or_reason(a, way) for a in group] for label, group in groups.items()
    }
    gaps = {
        label: [gap for gap in gaps_of_row if isinstance(gap, Explained)]
        for label, gaps_of_row in contents.items()
    }
    every = [gap for gaps_of_row in gaps.values() for gap in gaps_of_row]
    if not every:
        return None
    longest_first = sorted(every, key=lambda gap: len(gap.spans), reverse=True)
    whats = dict.fromkeys(s.what for gap in longest_first for s in gap.spans if s.explained)
    rows: list[GridRow] = [
        (Cell(what), *(_length_cell(gaps_of_row, what) for gaps_of_row in gaps.values()))
        for what in sorted(whats, key=lambda what: _mean_position(every, what))
    ]
    rows.append(
        (
            Cell("unexplained"),
            *(_median_cell(gaps_of_row, "ms") for gaps_of_row in contents.values()),
        )
    )
    rows.append(
        (
            Cell("explained, %"),
            *(_median_cell(gaps_of_row, "share") for gaps_of_row in contents.values()),
        )
    )
    title = f"Where the outage went, {way}: medians over the attempts, ms"
    return GridSection(title, Grid(("what kept it", *gaps), tuple(rows)))


def _mean_position(every: Sequence[Explained], what: str) -> float:
    """How far into their gaps spans of this kind begin: the mean, from 0 to 1."""
    return statistics.mean(
        number / len(gap.spans)
        for gap in every
        for number, span in enumerate(gap.spans)
        if span.what == what
    )


def _length_cell(gaps: Sequence[Explained], what: str) -> Cell:
    lengths = [sum(s.length_ms for s in gap.spans if s.what == what) for gap in gaps]
    return _spread_cell([ms for ms in lengths if ms], len(gaps))


def _median_cell(contents: Sequence[Explained | str], which: str) -> Cell:
    """The median over the attempts whose gap is explained; where none is, why."""
    gaps = [gap for gap in contents if isinstance(gap, Explained)]
    if not gaps:
        return Cell(NOT_MEASURED if NOT_MEASURED in contents else IN_FLOOR)
    values = [100 * gap.share if which == "share" else gap.unexplained_ms for gap in gaps]
    return _spread_cell(values, len(contents))


def _spread_cell(values: Sequence[float], number: int) -> Cell:
    if not values:
        return Cell(NOT_THERE)
    missing = f" in {len(values)} of {number}" if len(values) < number else ""
    shown = f"[{min(values):.1f}..{max(values):.1f}]" if len(values) > 1 else ""
    return Cell(f"{statistics.median(values):.1f}", (shown + missing).strip())
