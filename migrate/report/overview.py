"""The picture on top of a report: each case's attempts side by side, as values to be drawn.

A panel is a figure, a strip in it a case, a mark in that an attempt. All panels have one scale, so
that what is reported and what was seen can be held against each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from migrate.analysis.figures import COLUMNS, FigureColumn, FigureValue
from migrate.model import Attempt
from migrate.report.ranking import RowRanks
from migrate.report.scale import Scale, Tick, scale_for
from migrate.report.table_model import NOT_MEASURED
from migrate.statistics.censored import Interval, below_floor, bounds_text, median

PANELS: Mapping[str, tuple[str, str]] = {
    "downtime reported": ("Downtime reported", "what the hypervisor says"),
    "guest stall": ("Guest stall", "how long the guest's own clock stood still, or came late"),
    "outage seen, egress": ("Outage, egress", "guest to peer: what the network saw"),
    "outage seen, ingress": ("Outage, ingress", "peer to guest: what the network saw"),
}
"""Titles and what they mean, by the name of the figure, in the order in which they are drawn."""
LIMITS: Mapping[str, str] = {
    "downtime reported": "downtime_ms",
    "guest stall": "stall_ms",
    "outage seen, egress": "outage_egress_ms",
    "outage seen, ingress": "outage_ingress_ms",
}
"""The key of ``expect`` that limits a figure."""
JITTER = 0.618
"""Attempts are put at different heights by this share of the height, again and again."""
MarkKind = Literal["exact", "between", "endless", "failed"]
FIRST_CASES = 12
"""Cases that are drawn at once; further ones are folded away."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An attempt's figure. Places are per cent of the width; None: it has none.

    ``point``: the figure as it is most likely; without one it is known between ``begin`` and
    ``end`` only. ``endless``: it had not ended.
    """

    begin: float
    end: float
    point: float | None
    endless: bool
    height: int
    """From 0, the top of the strip, to 100."""
    passed: bool
    attempt: str
    """The anchor of the attempt in the page."""
    words: str

    @property
    def kinds(self) -> Iterator[MarkKind]:
        """What a legend has to explain of it."""
        yield "between" if self.point is None else "exact"
        if self.endless:
            yield "endless"
        if not self.passed:
            yield "failed"


@dataclass(frozen=True, slots=True)
class Strip:
    """A case in a panel."""

    case: str
    note: str
    """Beside the case's name: how many attempts, and what became of the others."""
    marks: tuple[Mark, ...]
    middle: tuple[float, float] | None
    """Where the median lies."""
    text: str
    """The median in words."""
    letters: str
    """Cases with a letter in common can't be told apart."""
    limit: float | None
    """Where the limit is that the case expects; None: there is none, or it is off the scale."""
    limit_words: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure, case by case."""

    title: str
    hint: str
    ticks: tuple[Tick, ...]
    strips: tuple[Strip, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """``logarithmic``: distances are ratios."""

    panels: tuple[Panel, ...]
    logarithmic: bool
    lettered: bool
    """Whether any strip has a letter."""
    limited: bool
    """Whether any limit is drawn."""
    kinds: frozenset[MarkKind]
    """Of the marks that are drawn."""


def overview(
    groups: Mapping[str, Sequence[Attempt]], notes: Mapping[str, str], ranks: RowRanks
) -> Overview:
    """``groups``: of each case the attempts whose figures count; ``notes``: beside its name."""
    scale = scale_for([*_extent(groups)])
    panels = tuple(
        Panel(
            *PANELS[column.name], scale.ticks(), tuple(_strips(groups, notes, ranks, column, scale))
        )
        for name in PANELS
        for column in COLUMNS
        if column.name == name
    )
    strips = [strip for panel in panels for strip in panel.strips]
    return Overview(
        panels,
        scale.logarithmic,
        any(strip.letters for strip in strips),
        any(strip.limit is not None for strip in strips),
        frozenset(kind for strip in strips for mark in strip.marks for kind in mark.kinds),
    )


def _extent(groups: Mapping[str, Sequence[Attempt]]) -> Iterator[float]:
    """All lengths that are drawn."""
    for column in COLUMNS:
        if column.name in PANELS:
            for group in groups.values():
                for value in filter(None, map(column.measure, group)):
                    yield from value.bounds
                    yield value.widened[1]


def _strips(
    groups: Mapping[str, Sequence[Attempt]],
    notes: Mapping[str, str],
    ranks: RowRanks,
    column: FigureColumn,
    scale: Scale,
) -> Iterator[Strip]:
    column_ranks = ranks.column(column.name)
    letters = column_ranks.letters if column_ranks else {}
    for label, group in groups.items():
        values = [(attempt, column.measure(attempt)) for attempt in group]
        known = [(attempt, value) for attempt, value in values if value is not None]
        middle = median([value.bounds for _, value in known])
        floor = max((value.floor_ms for _, value in known), default=0.0)
        limit = next((getattr(a.case.expect, LIMITS[column.name]) for a in group), None)
        yield Strip(
            label,
            notes.get(label, ""),
            tuple(_mark(attempt, value, scale) for attempt, value in known),
            None if middle is None else _places(middle, scale),
            NOT_MEASURED if middle is None else _with_unit(bounds_text(middle, floor)),
            letters.get(label, ""),
            scale.at(limit) if limit is not None and scale.low <= limit <= scale.high else None,
            f"limit {limit:g} ms" if limit is not None else "",
        )


def _places(bounds: Interval, scale: Scale) -> tuple[float, float]:
    return scale.at(bounds[0]), scale.at(min(bounds[1], scale.high))


def _mark(attempt: Attempt, value: FigureValue, scale: Scale) -> Mark:
    low, high = value.bounds
    begin, end = value.widened
    exact = low == high and not value.at_least and not value.in_floor
    place = f"{attempt.case.id}/{attempt.number}"
    return Mark(
        begin=scale.at(max(0.0, begin)),
        end=scale.at(min(end, scale.high)),
        point=scale.at(low) if exact or value.at_least else None,
        endless=math.isinf(high),
        height=round(100 * ((attempt.number * JITTER) % 1)),
        passed=attempt.passed,
        attempt=place,
        words=f"attempt {attempt.number}: {figure_words(value)}",
    )


def figure_words(value: FigureValue) -> str:
    """A figure with its error, in words."""
    text = _with_unit(bounds_text(value.bounds, value.floor_ms))
    if value.only_floor:
        return below_floor(value.floor_ms)
    return f"{text} ± {value.error_ms:.1f} ms" if value.error_ms and not value.in_floor else text


def _with_unit(text: str) -> str:
    return f"{text} ms" if text[-1].isdigit() else text
