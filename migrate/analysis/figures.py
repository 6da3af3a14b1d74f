"""What is measured of an attempt, column by column, and which rows can't be told apart in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from migrate.analysis.phases import parts
from migrate.model import DIRECTIONS, Attempt, Direction, Part

if TYPE_CHECKING:
    from migrate.statistics.spread import Span


@dataclass(frozen=True, slots=True)
class Measured:
    """A length in milliseconds, or its lower bound if the observation ended before it did.

    ``error_ms``: what it may be off; where nothing rose above the floor, it is the floor.
    """

    ms: float
    at_least: bool = False
    error_ms: float = 0.0
    part: Part = "none"


@dataclass(frozen=True, slots=True)
class Column:
    """``measure`` gives None for *not measured*; of an outage, 0 is *in the floor*."""

    name: str
    measure: Callable[[Attempt], Measured | None]
    outage: bool = False
    there: Callable[[Attempt], bool] = lambda _attempt: True
    """Whether the attempt had what is measured: one that was given up has no switchover."""

    @property
    def head(self) -> str:
        """With its unit."""
        return f"{self.name}, ms"


def longest(attempt: Attempt, direction: Direction, part: Part | None = None) -> Measured | None:
    """The longest gap in a direction; 0 if none rose above the floor, None if not measured."""
    if attempt.gaps is None:
        return None
    found = [
        gap
        for gap in attempt.gaps
        if gap.direction == direction and (part is None or gap.part == part)
    ]
    if not found:
        return Measured(0.0, error_ms=_floor_of(attempt, direction))
    most = max(found, key=lambda gap: gap.length_ns)
    return Measured(
        most.length_ms,
        at_least=any(gap.open_ended for gap in found),
        error_ms=most.error_ns / 1e6,
        part=most.part,
    )


def _floor_of(attempt: Attempt, direction: Direction) -> float:
    return attempt.floor.ms(direction) if attempt.floor else 0.0


def _stall(attempt: Attempt) -> Measured | None:
    if attempt.stalls is None:
        return None
    most = max(attempt.stalls, key=lambda stall: stall.length_ns, default=None)
    return Measured(most.length_ns / 1e6, error_ms=most.error_ns / 1e6) if most else Measured(0.0)


def _floor(attempt: Attempt) -> Measured | None:
    """The worse of the two ways."""
    floor = attempt.floor
    return None if floor is None else Measured(max(floor.egress_ms, floor.ingress_ms))


def _plain(value: float | None) -> Measured | None:
    return None if value is None else Measured(value)


def _outage(direction: Direction) -> Column:
    return Column(
        f"outage seen, {direction}", lambda attempt: longest(attempt, direction), outage=True
    )


def _part(direction: Direction, part: Part) -> Column:
    return Column(
        f"{part}, {direction}",
        lambda attempt: longest(attempt, direction, part),
        outage=True,
        there=lambda attempt: part in parts(attempt.phases),
    )


FLOOR = Column("floor", _floor)
COLUMNS: tuple[Column, ...] = (
    Column("downtime reported", lambda attempt: _plain(attempt.reported.downtime_ms)),
    *(_outage(way) for way in DIRECTIONS),
    Column("guest stall", _stall),
    Column("total time", lambda attempt: _plain(attempt.reported.total_ms)),
    FLOOR,
)
BY_PART: tuple[Column, ...] = tuple(
    _part(way, part) for way in DIRECTIONS for part in get_args(Part) if part != "none"
)
"""The longest gap of each part each way; never their sum."""

COMPARED = 12
"""More rows than this are not compared: the table is no comparison then."""
SEVERAL = 3
"""Fewer attempts than this have no spread to compare."""


def ranking(groups: Mapping[str, Sequence[Attempt]]) -> Iterator[str]:
    """Which rows may not be ranked against which, and by what, a line for each set of rows."""
    several = {label: group for label, group in groups.items() if len(group) >= SEVERAL}
    if len(several) < len(groups):
        yield f"Rows with n below {SEVERAL} have no spread worth the name: they can't be ranked."
    if len(several) < 2:
        return
    if len(several) > COMPARED:
        yield f"More than {COMPARED} rows are not compared: what overlaps can't be ranked."
        return
    found = _alike(several)
    for labels, names in sorted(found.items(), key=lambda item: -len(item[0])):
        yield f"{_listed(labels)} are indistinguishable in {'; '.join(names)}."
    if found:
        yield (
            "Indistinguishable: the intervals of their medians touch (95 %, or smallest to largest "
            "where that is all that so few attempts give: 75 % of three, 94 % of five), each "
            "widened by the meter's error."
        )


def _alike(groups: Mapping[str, Sequence[Attempt]]) -> dict[tuple[str, ...], list[str]]:
    from migrate.statistics.spread import together  # noqa: PLC0415 - numpy is heavy

    found: dict[tuple[str, ...], list[str]] = {}
    for column in (*COLUMNS, *BY_PART):
        if column is FLOOR:
            continue
        values = {label: _values(group, column) for label, group in groups.items()}
        spans = {label: span for label, of in values.items() if (span := _span(of)) is not None}
        for labels in together(spans):
            # That two rows show nothing at all needs no line: both cells say so.
            if any(value.ms for label in labels for value in values[label]):
                found.setdefault(labels, []).append(column.name)
    return found


def _values(group: Sequence[Attempt], column: Column) -> list[Measured]:
    measured = (column.measure(attempt) for attempt in group if column.there(attempt))
    return [value for value in measured if value is not None]


def _span(values: Sequence[Measured]) -> Span | None:
    from migrate.statistics.spread import span, spread  # noqa: PLC0415 - numpy is heavy

    found = span(
        spread(value.ms for value in values), max((value.error_ms for value in values), default=0.0)
    )
    if found and any(value.at_least for value in values):
        return found[0], float("inf")
    return found


def _listed(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:-1])} and {labels[-1]}"
