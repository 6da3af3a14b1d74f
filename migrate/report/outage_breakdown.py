"""What the longest outage each way consists of, over the attempts of a run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from migrate.analysis.figures import longest_outage
from migrate.model import DIRECTIONS, Attempt, Direction, GapExplanation, Span
from migrate.report.table_model import (
    IN_FLOOR,
    NOT_MEASURED,
    NOT_THERE,
    Cell,
    Grid,
    GridRow,
    GridSection,
)
from migrate.statistics.censored import Interval, bounds_text, median, quantile

NO_SUM = (
    "Medians of parts do not add up to the median outage: each is of other attempts. "
    "The parts of one attempt do."
)


def explained_or_reason(attempt: Attempt, way: Direction) -> GapExplanation | str:
    """The spans of the longest gap this way, or why there are none."""
    for gap in attempt.explained or ():
        if gap.direction == way:
            return gap
    outage = longest_outage(attempt, way)
    quiet = attempt.explained is not None and outage is not None and outage.only_floor
    return IN_FLOOR if quiet else NOT_MEASURED


def outage_breakdown(groups: Mapping[str, Sequence[Attempt]]) -> tuple[GridSection, ...]:
    """Per direction: a row for each cause of outage, a column for each case."""
    made = [section for way in DIRECTIONS if (section := _breakdown(groups, way)) is not None]
    return (*made[:-1], replace(made[-1], lines=(NO_SUM,))) if made else ()


def _breakdown(groups: Mapping[str, Sequence[Attempt]], way: Direction) -> GridSection | None:
    contents = {
        label: [explained_or_reason(a, way) for a in group] for label, group in groups.items()
    }
    gaps = {
        label: [gap for gap in gaps_of_row if isinstance(gap, GapExplanation)]
        for label, gaps_of_row in contents.items()
    }
    endless = open_ended(groups, way)
    every = [gap for gaps_of_row in gaps.values() for gap in gaps_of_row]
    if not every:
        return None
    longest_first = sorted(every, key=lambda gap: len(gap.spans), reverse=True)
    whats = dict.fromkeys(s.what for gap in longest_first for s in gap.spans if s.explained)
    rows: list[GridRow] = [
        (Cell(what), *(_length_cell(of_row, what, endless) for of_row in gaps.values()))
        for what in sorted(whats, key=lambda what: mean_position(every, what))
    ]
    rows.append(
        (
            Cell("unexplained"),
            *(_unexplained_cell(of_row, endless) for of_row in contents.values()),
        )
    )
    rows.append(
        (
            Cell("explained, %"),
            *(_share_cell(of_row) for of_row in contents.values()),
        )
    )
    title = f"Where the outage went, {way}: medians over the attempts, ms"
    return GridSection(title, Grid(("cause", *gaps), tuple(rows)))


def mean_position(every: Sequence[GapExplanation], what: str) -> float:
    """How far into their gaps spans of this kind begin: the mean, from 0 to 1."""
    return statistics.mean(
        number / len(gap.spans)
        for gap in every
        for number, span in enumerate(gap.spans)
        if span.what == what
    )


def open_ended(groups: Mapping[str, Sequence[Attempt]], way: Direction) -> set[tuple[int, int]]:
    """Begins and lengths of gaps that had not ended when the observation did."""
    every = (gap for group in groups.values() for attempt in group for gap in attempt.gaps or ())
    return {(g.begin_ns, g.length_ns) for g in every if g.direction == way and g.open_ended}


def _length(gap: GapExplanation, endless: set[tuple[int, int]], what: str | None) -> Interval:
    """How long it was ``what``, None: unexplained; at least, if the gap broke off in that."""

    def of_that(span: Span) -> bool:
        return not span.explained if what is None else span.what == what

    length = sum(span.length_ms for span in gap.spans if of_that(span))
    breaks_off = (gap.begin_ns, gap.length_ns) in endless and of_that(gap.spans[-1])
    return length, math.inf if breaks_off else length


def _length_cell(gaps: Sequence[GapExplanation], what: str, endless: set[tuple[int, int]]) -> Cell:
    lengths = [_length(gap, endless, what) for gap in gaps]
    return _spread_cell([length for length in lengths if length[1]], len(gaps))


def _unexplained_cell(
    contents: Sequence[GapExplanation | str], endless: set[tuple[int, int]]
) -> Cell:
    """Of the attempts whose gap is explained; where none is, why."""
    gaps = [gap for gap in contents if isinstance(gap, GapExplanation)]
    if not gaps:
        return _reason_cell(contents)
    return _spread_cell([_length(gap, endless, None) for gap in gaps], len(contents))


def _share_cell(contents: Sequence[GapExplanation | str]) -> Cell:
    gaps = [gap for gap in contents if isinstance(gap, GapExplanation)]
    if not gaps:
        return _reason_cell(contents)
    return _spread_cell([(100 * gap.share, 100 * gap.share) for gap in gaps], len(contents))


def _reason_cell(contents: Sequence[GapExplanation | str]) -> Cell:
    return Cell(NOT_MEASURED if NOT_MEASURED in contents else IN_FLOOR)


def _spread_cell(values: Sequence[Interval], number: int) -> Cell:
    middle = median(values)
    if middle is None:
        return Cell(NOT_THERE)
    missing = f" in {len(values)} of {number}" if len(values) < number else ""
    ends = [_text(quantile(values, share) or middle) for share in (0, 1)]
    shown = f"[{'..'.join(ends)}]" if len(values) > 1 else ""
    return Cell(_text(middle), (shown + missing).strip())


def _text(bounds: Interval) -> str:
    low, high = bounds
    return f"{low:.1f}" if low == high else bounds_text(bounds)
