"""How long a direction's outages may have been: what was seen of them, and what was not.

A gap that had not ended may go on; a stretch that the meter can't judge may be an outage, and one
with the gaps beside it. So each outage that may have been lies between two ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from migrate.model import Attempt, Direction, Gap, Unmeasured

TOUCH_NS = 3_000_000
"""What is nearer than this, errors apart, may be one outage."""


@dataclass(frozen=True, slots=True)
class PossibleOutage:
    """One outage that may have been, of gaps and of stretches that were not measured.

    It lasted from ``least_ms`` to ``most_ms``; the latter is infinite if it may go on.
    """

    begin_ns: int
    end_ns: int
    gaps: tuple[Gap, ...]
    unmeasured: tuple[Unmeasured, ...]
    least_ms: float
    most_ms: float

    @property
    def longest(self) -> Gap | None:
        """The longest gap of it; None: nothing of it was seen."""
        return max(self.gaps, key=lambda gap: gap.length_ns, default=None)


def possible_outages(
    attempt: Attempt, direction: Direction, gaps: Sequence[Gap] | None = None
) -> tuple[PossibleOutage, ...]:
    """All of a direction, by begin; none without gaps on record. ``gaps``: of these alone."""
    listed = (attempt.gaps or ()) if gaps is None else gaps
    every: list[Gap | Unmeasured] = [*listed, *attempt.unmeasured]
    return outages_of(part for part in every if part.direction == direction)


def outages_of(parts: Iterable[Gap | Unmeasured]) -> tuple[PossibleOutage, ...]:
    """Of one direction's gaps and stretches, by begin."""
    ordered = sorted(parts, key=lambda part: part.begin_ns)
    return tuple(map(_outage, _touching(ordered)))


def _touching(parts: Iterable[Gap | Unmeasured]) -> Iterator[list[Gap | Unmeasured]]:
    """Stretches with what lies beside them; gaps without one between them are apart."""
    group: list[Gap | Unmeasured] = []
    for part in parts:
        if group and not _touch(group, part):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _touch(group: Sequence[Gap | Unmeasured], part: Gap | Unmeasured) -> bool:
    last = group[-1]
    if isinstance(last, Gap) and isinstance(part, Gap):
        return False
    between_ns = part.begin_ns - max(other.begin_ns + other.length_ns for other in group)
    return between_ns <= _error_ns(last) + _error_ns(part) + TOUCH_NS


def _error_ns(part: Gap | Unmeasured) -> int:
    return part.error_ns + part.place_off_ns if isinstance(part, Gap) else 0


def _outage(group: Sequence[Gap | Unmeasured]) -> PossibleOutage:
    gaps = tuple(part for part in group if isinstance(part, Gap))
    unmeasured = tuple(part for part in group if isinstance(part, Unmeasured))
    begin_ns = group[0].begin_ns
    end_ns = max(part.begin_ns + part.length_ns for part in group)
    goes_on = any(part.open_ended for part in group)
    most_ns = gaps[0].most_ns if not unmeasured else end_ns - begin_ns + _error_ns(group[0])
    return PossibleOutage(
        begin_ns,
        end_ns,
        gaps,
        unmeasured,
        max((gap.least_ns for gap in gaps), default=0) / 1e6,
        math.inf if goes_on else max(most_ns, max((g.most_ns for g in gaps), default=0)) / 1e6,
    )
