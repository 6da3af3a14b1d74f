"""The figures of an attempt, column by column, and which attempts' figures count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from migrate.analysis.excess_loss import heavy_loss
from migrate.analysis.phases import move_parts
from migrate.model import DIRECTIONS, Attempt, Direction, Gap, Part
from migrate.statistics.censored import Interval


@dataclass(frozen=True, slots=True)
class FigureValue:
    """A length in milliseconds, or its lower bound if the observation ended before it did.

    ``error_ms``: what it may be off; of one ``in_floor``, where nothing was seen, up to where
    nothing is. ``most_ms``: how long it may have been, where the meter could not tell for a while;
    None: it could all the time.
    """

    ms: float
    at_least: bool = False
    error_ms: float = 0.0
    part: Part = "none"
    in_floor: bool = False
    most_ms: float | None = None

    @property
    def bounds(self) -> Interval:
        """The least and the most that it can be, its error aside."""
        if self.at_least:
            return self.ms, math.inf
        return self.ms, max(self.floor_ms, self.ms, self.most_ms or 0.0)

    @property
    def only_floor(self) -> bool:
        """Nothing was seen, and all was looked at."""
        return self.in_floor and self.most_ms is None

    @property
    def floor_ms(self) -> float:
        """Up to where nothing is seen, for one that is in the floor; else 0."""
        return self.error_ms if self.in_floor else 0.0

    @property
    def widened(self) -> Interval:
        """The same with its error."""
        low, high = self.bounds
        return (low, high) if self.in_floor else (low - self.error_ms, high + self.error_ms)


@dataclass(frozen=True, slots=True)
class FigureColumn:
    """``measure`` gives None for *not measured*."""

    name: str
    measure: Callable[[Attempt], FigureValue | None]
    outage: bool = False
    applies: Callable[[Attempt], bool] = lambda _attempt: True
    """Whether the attempt has what is measured: one that was given up has no switchover."""
    why_none: Callable[[Attempt], str] = lambda _attempt: ""
    """Why it is not measured, in a word or two."""

    @property
    def head(self) -> str:
        """The column's heading: its name and unit."""
        return f"{self.name}, ms"


def longest_outage(
    attempt: Attempt, direction: Direction, part: Part | None = None
) -> FigureValue | None:
    """The longest gap in a direction; 0, ``in_floor``, if none rose above the floor.

    None: not measured. Without a floor nobody knows what of a gap is the meter's own; where there
    is no gap, and so much is lost that no outage could be told from that, nobody knows either.
    """
    seen_from_ms = attempt.seen_from_ms(direction)
    if attempt.gaps is None or seen_from_ms is None:
        return None
    gaps = [
        gap
        for gap in attempt.gaps
        if gap.direction == direction and (part is None or gap.part == part)
    ]
    most_ms = _most_ms(attempt, direction, gaps)
    if not gaps and heavy_loss(attempt.loss, direction) is not None:
        return None
    if not gaps:
        return FigureValue(0.0, error_ms=seen_from_ms, in_floor=True, most_ms=most_ms)
    longest = max(gaps, key=lambda gap: gap.length_ns)
    return FigureValue(
        longest.length_ms,
        at_least=any(gap.open_ended for gap in gaps),
        most_ms=most_ms,
        error_ms=longest.error_ns / 1e6,
        part=longest.part,
    )


def no_outage_known(attempt: Attempt, direction: Direction) -> str:
    """Why :func:`longest_outage` is None, if that is for what was lost; empty: it is not."""
    lost = heavy_loss(attempt.loss, direction)
    return f"{lost:.0%} lost" if lost is not None and attempt.gaps is not None else ""


def _most_ms(attempt: Attempt, direction: Direction, gaps: Sequence[Gap]) -> float | None:
    """How long an outage there may have been where the meter could not tell; None: it could."""
    if not any(stretch.direction == direction for stretch in attempt.unmeasured):
        return None
    from migrate.analysis.outage import longest_possible_ns  # noqa: PLC0415 - numpy is heavy

    return longest_possible_ns(gaps, attempt.unmeasured, direction) / 1e6


def ended_as_asked(attempt: Attempt) -> bool:
    """Whether its figures are of what was asked for: times of another end do not compare."""
    return attempt.outcome == attempt.case.expect.outcome and not attempt.void


def counted(attempts: Iterable[Attempt]) -> list[Attempt]:
    """The attempts whose figures go into medians, ranks and tests."""
    return [attempt for attempt in attempts if ended_as_asked(attempt)]


def _stall(attempt: Attempt) -> FigureValue | None:
    if attempt.stalls is None:
        return None
    most = max(attempt.stalls, key=lambda stall: stall.length_ns, default=None)
    return (
        FigureValue(most.length_ns / 1e6, error_ms=most.error_ns / 1e6)
        if most
        else FigureValue(0.0)
    )


def _floor(attempt: Attempt) -> FigureValue | None:
    """The worse of the two ways."""
    floor = attempt.floor
    return None if floor is None else FigureValue(max(floor.egress_ms, floor.ingress_ms))


def _plain(value: float | None) -> FigureValue | None:
    return None if value is None else FigureValue(value)


def _outage(direction: Direction) -> FigureColumn:
    return FigureColumn(
        f"outage seen, {direction}",
        lambda attempt: longest_outage(attempt, direction),
        outage=True,
        why_none=lambda attempt: no_outage_known(attempt, direction),
    )


def _part(direction: Direction, part: Part) -> FigureColumn:
    return FigureColumn(
        f"{part}, {direction}",
        lambda attempt: longest_outage(attempt, direction, part),
        outage=True,
        applies=lambda attempt: part in move_parts(attempt.phases),
        why_none=lambda attempt: no_outage_known(attempt, direction),
    )


FLOOR = FigureColumn("floor", _floor)
COLUMNS: tuple[FigureColumn, ...] = (
    FigureColumn("downtime reported", lambda attempt: _plain(attempt.reported.downtime_ms)),
    *(_outage(way) for way in DIRECTIONS),
    FigureColumn("guest stall", _stall),
    FigureColumn("total time", lambda attempt: _plain(attempt.reported.total_ms)),
    FLOOR,
)
PART_COLUMNS: tuple[FigureColumn, ...] = tuple(
    _part(way, part) for way in DIRECTIONS for part in get_args(Part) if part != "none"
)
"""The longest gap of each part each way; never their sum."""
