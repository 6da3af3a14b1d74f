"""Bounds of the guest's clock's offset, found from packets: where it jumped, how it drifts.

An egress packet can't arrive before it was sent: its pair of stamps bounds the offset (axis less
guest) from above. An ingress packet bounds it from below. The bounds are hard whatever the delays
are; only a lower bound above the upper one proves that the guest stood still, only an upper bound
below the lower one that its clock jumped ahead. Between the two lies a corridor as wide as the
round trip, and a jump that is shorter proves nothing; :mod:`migrate.analysis.clock_steps` finds it
where both bounds step together.

Work is in proportion to the rows: each row is looked at a fixed number of times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from migrate.errors import MeasurementError
from migrate.model.recording import Column, Flags

TOLERANCE_NS = 2_000_000
"""Evidence must contradict a segment by more than this before a new one begins."""
MOST_DRIFT = 1e-3
"""Maximum clock drift tolerated, as a ratio: 1000 ppm, a badly calibrated TSC."""
MOST_SEGMENTS = 4096
"""A clock that jumped more often is not followed."""
_LOOK_AHEAD_NS = 1_000_000_000
_RECENT = 500
_LEAST_TRAILING = 50
_BIN_NS = 100_000_000
_LEAST_BINS = 4
_MOST_BINS = 64
_CHANCE = 20
_FIRST_LOOK = 256
"""Rows that are looked at first for a contradiction; each further look is twice as long."""

Bounds = NDArray[np.float64]
Pairs = tuple[Column, Column]


@dataclass(frozen=True, slots=True, eq=False)
class OffsetBounds:
    """Bounds of the offset in the order of the guest's clock; one of the two is infinite."""

    guest_ns: Column
    base_ns: int
    """Taken off all bounds, so that floats hold them to the nanosecond."""
    upper: Bounds
    lower: Bounds

    @classmethod
    def from_stamps(cls, upper: Pairs, lower: Pairs) -> OffsetBounds:
        """From pairs of stamps, (guest's, the axis'): egress bounds from above, ingress below."""
        guest = np.concatenate([upper[0], lower[0]])
        offset = np.concatenate([upper[1], lower[1]]) - guest
        base = int(offset[0])
        bound = (offset - base).astype(np.float64)
        is_upper = np.arange(len(guest)) < len(upper[0])
        order = np.argsort(guest, kind="stable")
        return cls(
            guest[order],
            base,
            np.where(is_upper, bound, np.inf)[order],
            np.where(is_upper, -np.inf, bound)[order],
        )

    def __len__(self) -> int:
        return len(self.guest_ns)

    def part(self, begin: int, end: int) -> OffsetBounds:
        """The rows from ``begin`` up to ``end``."""
        rows = slice(begin, end)
        return OffsetBounds(self.guest_ns[rows], self.base_ns, self.upper[rows], self.lower[rows])

    def segment_starts(self) -> list[int]:
        """Indices at which segments begin by what the bounds prove, the first one 0.

        Raises MeasurementError for more than MOST_SEGMENTS.
        """
        starts = [0]
        while (contradiction := self._contradiction(starts[-1])) is not None:
            starts.append(self._break(starts[-1], contradiction))
            if len(starts) > MOST_SEGMENTS:
                raise MeasurementError(
                    "map the guest's clock to the common clock",
                    said=f"it jumped more than {MOST_SEGMENTS} times",
                    remedy="is the guest's clock source stable? see its kernel's log",
                )
        if (shifted := self._trailing(starts[-1])) is not None:
            starts.append(shifted)
        return starts

    def _contradiction(self, start: int, end: int | None = None) -> int | None:
        """The first row before ``end`` that can't be in one segment with all from ``start`` on.

        A bound loosens with its age by the drift that is tolerated.
        """
        ceiling, ground = np.inf, -np.inf
        for begin, until in looks(start, len(self) if end is None else end):
            ageing = (self.guest_ns[begin:until] - self.guest_ns[start]) * MOST_DRIFT
            highest = np.minimum(np.minimum.accumulate(self.upper[begin:until] - ageing), ceiling)
            lowest = np.maximum(np.maximum.accumulate(self.lower[begin:until] + ageing), ground)
            wrong = np.flatnonzero(lowest - highest - 2 * ageing > TOLERANCE_NS)
            if len(wrong):
                return begin + int(wrong[0])
            ceiling, ground = float(highest[-1]), float(lowest[-1])
        return None

    def _break(self, start: int, contradiction: int) -> int:
        """The row at which the clock jumped, at or before the first row that shows it.

        Rows between the last one that only the old offset explains and the one that contradicts
        it fit both: under the wrong offset each is delayed by the whole jump. The place that
        delays the fewest wins. (After a stop, egress may be back long before ingress shows the
        jump; before it, ingress may go on long after egress was cut.) A row that would be earlier
        under the old offset than all before it, as the second packet of a flush, speaks for the
        new one.
        """
        sign = 1 if np.isfinite(self.lower[contradiction]) else -1
        shows, opposes = (self.lower, self.upper) if sign > 0 else (-self.upper, -self.lower)
        after = self.guest_ns[contradiction] + _LOOK_AHEAD_NS
        soon = int(np.searchsorted(self.guest_ns, after, side="right"))
        soon = self._contradiction(contradiction, soon) or soon
        level = float(np.max(shows[contradiction:soon]))
        only_old = opposes[start:contradiction] < level - TOLERANCE_NS
        first = start + int(np.flatnonzero(only_old)[-1]) + 1
        usual = self._usual(shows, start, first, contradiction)
        score = np.concatenate([[0], np.cumsum(np.where(usual, 1, -1))])
        return first + int(np.argmax(score))

    def _usual(self, shows: Bounds, start: int, first: int, contradiction: int) -> Flags:
        """Which rows from ``first`` are no earlier than the latest ones before, but for drift."""
        before = start + np.flatnonzero(np.isfinite(shows[start:first]))[-_RECENT:]
        if not len(before):
            return np.zeros(contradiction - first, dtype=np.bool_)
        ageing = (self.guest_ns[first:contradiction] - self.guest_ns[before[-1]]) * MOST_DRIFT
        bound = shows[first:contradiction]
        usual: Flags = np.isfinite(bound) & (bound <= np.max(shows[before]) + ageing)
        return usual

    def _trailing(self, start: int) -> int | None:
        """Where all egress is shifted for good after ingress fell silent for good.

        A stop leaves no hard evidence then. That the guest stood still is far likelier than a
        path that became slower by more than the tolerance in the moment when ingress died.
        """
        heard = np.flatnonzero(np.isfinite(self.lower[start:]))
        if not len(heard) or not np.isfinite(self.upper[start : start + heard[-1]]).any():
            return None
        silent = start + int(heard[-1]) + 1
        ageing = (self.guest_ns[start:] - self.guest_ns[start]) * MOST_DRIFT
        known = float(np.min((self.upper[start:] - ageing)[: silent - start]))
        best_yet_to_come = np.minimum.accumulate(self.upper[silent:][::-1])[::-1]
        shifted = best_yet_to_come > known + ageing[silent - start :] + TOLERANCE_NS
        if np.count_nonzero(shifted) < _LEAST_TRAILING:
            return None
        return silent + int(np.flatnonzero(shifted)[0])

    def drift(self) -> tuple[float, float]:
        """The slope of the offset, and the width of the corridor as a short look sees it.

        Theil and Sen's slope over the middle of the corridor in bins, or over the one bound that
        there is. (0, 0) for too short a piece. A slope counts only if it widens the corridor.
        """
        span = int(self.guest_ns[-1] - self.guest_ns[0])
        bins = min(_MOST_BINS, span // _BIN_NS)
        if bins < _LEAST_BINS:
            return 0.0, 0.0
        edges = self.guest_ns[0] + np.arange(bins) * (span // bins)
        rows = np.unique(np.searchsorted(self.guest_ns, edges))
        upper = np.minimum.reduceat(self.upper, rows)
        lower = np.maximum.reduceat(self.lower, rows)
        widths = (upper - lower)[np.isfinite(upper - lower)]
        width = max(0.0, float(np.median(widths))) if len(widths) else 0.0
        courses = ((upper + lower) / 2, upper, lower)
        course = next((bound for bound in courses if np.isfinite(bound).sum() >= _LEAST_BINS), None)
        if course is None:
            return 0.0, width
        good = np.isfinite(course)
        slope = _theil_sen(self.guest_ns[rows][good].astype(np.float64), course[good])
        low, high = self.corridor(0.0)
        tilted_low, tilted_high = self.corridor(slope)
        if np.isfinite(high - low) and tilted_high - tilted_low < high - low:
            slope = 0.0
        return slope, width

    def corridor(self, slope: float) -> tuple[float, float]:
        """The highest lower and the lowest upper bound of the offset at the first row."""
        drift = slope * (self.guest_ns - self.guest_ns[0])
        return float(np.max(self.lower - drift)), float(np.min(self.upper - drift))

    def scatter(self, slope: float) -> float:
        """How far, at most, chance may have put the corridor's two edges from where they belong.

        An edge is the best of many packets. The best of ``n`` is off by an ``n``-th of what the
        usual one is off; so many times (queues make neighbours alike) is hardly ever too few.
        """
        drift = slope * (self.guest_ns - self.guest_ns[0])
        off = 0.0
        for excess in (self.upper - drift, drift - self.lower):
            finite = excess[np.isfinite(excess)]
            if len(finite):
                off += _CHANCE * float(np.median(finite) - np.min(finite)) / len(finite)
        return off


def looks(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Stretches of rows from ``start`` to ``end``, each twice as long as the one before."""
    size = _FIRST_LOOK
    while start < end:
        yield start, min(end, start + size)
        start, size = start + size, 2 * size


def _theil_sen(at: Bounds, course: Bounds) -> float:
    """The median of the slopes between all pairs, within the drift that is tolerated."""
    i, j = np.triu_indices(len(at), k=1)
    slopes = (course[j] - course[i]) / (at[j] - at[i])
    return float(np.clip(np.median(slopes), -MOST_DRIFT, MOST_DRIFT))
