"""The figures of an attempt, column by column, and which rows are indistinguishable by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from migrate.analysis.excess_loss import heavy_loss
from migrate.analysis.phases import move_parts
from migrate.model import DIRECTIONS, Attempt, Direction, Part

if TYPE_CHECKING:
    from migrate.statistics.spread import Interval


@dataclass(frozen=True, slots=True)
class FigureValue:
    """A length in milliseconds, or its lower bound if the observation ended before it did.

    ``error_ms``: what it may be off; where nothing rose above the floor, it is the floor.
    """

    ms: float
    at_least: bool = False
    error_ms: float = 0.0
    part: Part = "none"


@dataclass(frozen=True, slots=True)
class FigureColumn:
    """``measure`` gives None for *not measured*; of an outage, 0 is *in the floor*."""

    name: str
    measure: Callable[[Attempt], FigureValue | None]
    outage: bool = False
    applies: Callable[[Attempt], bool] = lambda _attempt: True
    """Whether the attempt has what is measured: one that was given up has no switchover."""

    @property
    def head(self) -> str:
        """The column's heading: its name and unit."""
        return f"{self.name}, ms"


def longest_outage(
    attempt: Attempt, direction: Direction, part: Part | None = None
) -> FigureValue | None:
    """The longest gap in a direction; 0 if none rose above the floor, None if not measured.

    Nor is it where there is no gap, and so much is lost that no outage could be told from that.
    """
    if attempt.gaps is None:
        return None
    gaps = [
        gap
        for gap in attempt.gaps
        if gap.direction == direction and (part is None or gap.part == part)
    ]
    if not gaps and heavy_loss(attempt.loss, direction) is not None:
        return None
    if not gaps:
        return FigureValue(0.0, error_ms=_floor_ms(attempt, direction))
    longest = max(gaps, key=lambda gap: gap.length_ns)
    return FigureValue(
        longest.length_ms,
        at_least=any(gap.open_ended for gap in gaps),
        error_ms=longest.error_ns / 1e6,
        part=longest.part,
    )


def _floor_ms(attempt: Attempt, direction: Direction) -> float:
    return attempt.floor.ms(direction) if attempt.floor else 0.0


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
        f"outage seen, {direction}", lambda attempt: longest_outage(attempt, direction), outage=True
    )


def _part(direction: Direction, part: Part) -> FigureColumn:
    return FigureColumn(
        f"{part}, {direction}",
        lambda attempt: longest_outage(attempt, direction, part),
        outage=True,
        applies=lambda attempt: part in move_parts(attempt.phases),
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

MOST_ROWS_COMPARED = 12
"""More rows than this are not compared: the table is no comparison then."""
LEAST_ATTEMPTS = 3
"""Fewer attempts than this have no spread to compare."""


def ranking_notes(groups: Mapping[str, Sequence[Attempt]]) -> Iterator[str]:
    """Which rows may not be ranked against which, and by what, a line for each set of rows."""
    several = {label: group for label, group in groups.items() if len(group) >= LEAST_ATTEMPTS}
    if len(several) < len(groups):
        yield (
            f"Rows with n below {LEAST_ATTEMPTS} have no spread worth the name: "
            "they can't be ranked."
        )
    if len(several) < 2:
        return
    if len(several) > MOST_ROWS_COMPARED:
        yield (
            f"More than {MOST_ROWS_COMPARED} rows are not compared: what overlaps can't be ranked."
        )
        return
    alike = _indistinguishable(several)
    for labels, names in sorted(alike.items(), key=lambda item: -len(item[0])):
        yield f"{_listed(labels)} are indistinguishable in {'; '.join(names)}."
    if alike:
        yield (
            "Indistinguishable: the intervals of their medians touch (95 %, or smallest to largest "
            "where that is all that so few attempts give: 75 % of three, 94 % of five), each "
            "widened by the meter's error."
        )


def _indistinguishable(groups: Mapping[str, Sequence[Attempt]]) -> dict[tuple[str, ...], list[str]]:
    from migrate.statistics.spread import overlapping_sets  # noqa: PLC0415 - numpy is heavy

    alike: dict[tuple[str, ...], list[str]] = {}
    for column in (*COLUMNS, *PART_COLUMNS):
        if column is FLOOR:
            continue
        values = {label: _values(group, column) for label, group in groups.items()}
        spans = {
            label: span
            for label, figures in values.items()
            if (span := _interval(figures)) is not None
        }
        for labels in overlapping_sets(spans):
            # That two rows show nothing at all needs no line: both cells say so.
            if any(value.ms for label in labels for value in values[label]):
                alike.setdefault(labels, []).append(column.name)
    return alike


def _values(group: Sequence[Attempt], column: FigureColumn) -> list[FigureValue]:
    measured = (column.measure(attempt) for attempt in group if column.applies(attempt))
    return [value for value in measured if value is not None]


def _interval(values: Sequence[FigureValue]) -> Interval | None:
    from migrate.statistics.spread import interval, spread  # noqa: PLC0415 - numpy is heavy

    widened = interval(
        spread(value.ms for value in values), max((value.error_ms for value in values), default=0.0)
    )
    if widened and any(value.at_least for value in values):
        return widened[0], float("inf")
    return widened


def _listed(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:-1])} and {labels[-1]}"
