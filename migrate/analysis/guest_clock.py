"""The guest's clock laid on the axis of time by the arrivals of numbered packets.

Shapes: every column is a one-dimensional ``int64`` array of nanoseconds or sequence numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from migrate.analysis.clock_bounds import TOLERANCE_NS, OffsetBounds
from migrate.analysis.clock_steps import common_steps
from migrate.errors import MeasurementError
from migrate.model import Stall
from migrate.model.recording import Arrivals, Column

# --- the guest's clock --------------------------------------------------------------------------

TICK_LATE_NS = 10_000_000
"""The probe logs a tick that comes later than this: guest-images/probe/stream.c, JUMP_NS."""
UNKNOWN_DELAY_NS = 50_000_000
"""The error where nothing ever came back: a one-way delay looks like an offset."""


@dataclass(frozen=True, slots=True)
class ClockSegment:
    """From ``begin_guest_ns`` on, ``axis = guest + offset_ns + slope * (guest - begin_guest_ns)``.

    ``error_ns`` is half of the corridor that the evidence left, about half the best round trip:
    how a round trip splits into its two ways can't be known and is assumed even.
    ``scatter_ns`` is how far chance may have moved the middle of the corridor; None: there was no
    corridor, packets came one way only.
    """

    begin_guest_ns: int
    offset_ns: int
    slope: float
    error_ns: int
    scatter_ns: int | None = None

    def offset_at(self, guest_ns: int) -> int:
        """The offset at a reading of the guest's clock."""
        return self.offset_ns + round(self.slope * (guest_ns - self.begin_guest_ns))


@dataclass(frozen=True, slots=True)
class GuestClock:
    """The guest's clock on the axis: constant but for drift, with a jump wherever it stood still.

    It is found from both streams; the bounds that they give (:mod:`migrate.analysis.clock_bounds`)
    are hard, so a late packet never moves the clock."""

    segments: tuple[ClockSegment, ...]

    @classmethod
    def fit(cls, egress: Arrivals, ingress: Arrivals) -> GuestClock:
        """Find the segments.

        ``egress.sent_ns`` and ``ingress.received_ns`` are readings of the guest's clock,
        ``egress.received_ns`` and ``ingress.sent_ns`` points on the axis. Errors are relative to
        the clock that gave these points. Raises MeasurementError if nothing arrived either way.
        """
        if not len(egress) and not len(ingress):
            raise MeasurementError(
                "map the guest's clock to the common clock",
                said="no packet arrived in either direction",
                remedy="see whether the guest's link was up when the streams were started",
            )
        evidence = OffsetBounds.from_stamps(
            (egress.sent_ns, egress.received_ns), (ingress.received_ns, ingress.sent_ns)
        )
        starts: list[int] = []
        for begin, end in pairwise([*evidence.segment_starts(), len(evidence)]):
            starts += [begin, *(begin + step for step in common_steps(evidence.part(begin, end)))]
        pieces = [evidence.part(a, b) for a, b in pairwise([*starts, len(evidence)])]
        return cls(_join(_fit_segments(pieces), pieces))

    def to_axis(self, guest_ns: Column) -> Column:
        """Readings of the guest's clock, on the axis."""
        readings = np.asarray(guest_ns, dtype=np.int64)
        begins = np.array([segment.begin_guest_ns for segment in self.segments])
        offsets = np.array([segment.offset_ns for segment in self.segments])
        slopes = np.array([segment.slope for segment in self.segments])
        which = np.maximum(np.searchsorted(begins, readings, side="right") - 1, 0)
        drift = np.rint(slopes[which] * (readings - begins[which])).astype(np.int64)
        return np.asarray(readings + offsets[which] + drift, dtype=np.int64)

    def segments_of(self, guest_ns: Column) -> Column:
        """Which segment each reading is in."""
        begins = np.array([segment.begin_guest_ns for segment in self.segments])
        found = np.searchsorted(begins, np.asarray(guest_ns, dtype=np.int64), side="right") - 1
        return np.asarray(np.maximum(found, 0), dtype=np.int64)

    def error_across(self, begin_ns: int, end_ns: int) -> int:
        """Error of two points on the axis that the guest's clock stamped, each by itself.

        Nanoseconds. Within one segment it is the segment's; across a jump both errors add up.
        """
        first, last = self.segment_at(begin_ns), self.segment_at(end_ns)
        if first == last:
            return self.segments[first].error_ns
        return self.segments[first].error_ns + self.segments[last].error_ns

    def difference_error(self, begin_ns: int, end_ns: int) -> int:
        """Error of the time between two such points, in nanoseconds.

        Within one segment there is none: what is not known of the offset is the same at both.
        """
        return self.relative_error(self.segment_at(begin_ns), self.segment_at(end_ns))

    def relative_error(self, first: int, last: int) -> int:
        """Error of the time that was lost between two segments, in nanoseconds.

        Where the round trip took as long in both, so did each of its ways, and only chance moved
        the corridors. Where it took longer in one, either way may be what took longer.
        """
        if first == last:
            return 0
        one, other = self.segments[first], self.segments[last]
        if one.scatter_ns is None or other.scatter_ns is None:
            return one.error_ns + other.error_ns
        return abs(one.error_ns - other.error_ns) + one.scatter_ns + other.scatter_ns

    @property
    def error_ns(self) -> int:
        """The largest error of all segments."""
        return max(segment.error_ns for segment in self.segments)

    def stalls_seen_from_ns(self, interval_ns: int) -> int | None:
        """From which length on :func:`guest_stalls` has every stall; None: it may miss any.

        A clock that stands still for less than its corridor is wide contradicts no packet; a tick
        that comes less late is not logged.
        """
        if any(segment.scatter_ns is None for segment in self.segments):
            return None
        corridor_ns = max(2 * segment.error_ns for segment in self.segments)
        return max(corridor_ns + TOLERANCE_NS, interval_ns + TICK_LATE_NS)

    def segment_at(self, at_ns: int) -> int:
        """Which segment a point on the axis is in; the one before, if the clock stood still."""
        found = bisect_right(
            self.segments, at_ns, key=lambda segment: segment.begin_guest_ns + segment.offset_ns
        )
        return max(0, found - 1)


def _fit_segments(pieces: Sequence[OffsetBounds]) -> tuple[ClockSegment, ...]:
    """One segment a piece, in the middle of its corridor; the error is half of the width.

    A corridor that drift has narrowed counts as wide as a short look sees it. A one-sided piece
    borrows the nearest corridor's width, and all of it is its error.
    """
    drifts = [piece.drift() for piece in pieces]
    corridors = [piece.corridor(slope) for piece, (slope, _) in zip(pieces, drifts, strict=True)]
    widths = {
        index: max(abs(high - low), drifts[index][1])
        for index, (low, high) in enumerate(corridors)
        if np.isfinite(high - low)
    }
    segments: list[ClockSegment] = []
    known = sorted(widths)
    for index, piece in enumerate(pieces):
        low, high = corridors[index]
        if index in widths:
            middle, error = (low + high) / 2, widths[index] / 2
        else:
            nearest = _nearest(known, index)
            width = 0.0 if nearest is None else widths[nearest]
            error = UNKNOWN_DELAY_NS if nearest is None else width
            middle = low + width / 2 if np.isfinite(low) else high - width / 2
        begin, offset = int(piece.guest_ns[0]), piece.base_ns + round(middle)
        slope = drifts[index][0]
        scatter = round(piece.scatter(slope)) if index in widths else None
        segments.append(ClockSegment(begin, offset, slope, round(error), scatter))
    return tuple(segments)


def _nearest(known: Sequence[int], wanted: int) -> int | None:
    place = bisect_right(known, wanted)
    return min(known[max(0, place - 1) : place + 1], key=lambda at: abs(at - wanted), default=None)


def _join(
    segments: Sequence[ClockSegment], pieces: Sequence[OffsetBounds]
) -> tuple[ClockSegment, ...]:
    """Each begins where the evidence for the one before ends: the earliest that it can have."""
    joined = [segments[0]]
    for before, segment in zip(pieces, segments[1:], strict=False):
        begin = min(int(before.guest_ns[-1]) + 1, segment.begin_guest_ns)
        joined.append(replace(segment, begin_guest_ns=begin, offset_ns=segment.offset_at(begin)))
    return tuple(joined)


def guest_stalls(clock: GuestClock, jumps: Iterable[tuple[int, int]] = ()) -> tuple[Stall, ...]:
    """The guest's stalls, in the order of the axis.

    Stood still: its clock lost time against the axis; where no packet was seen around the stop,
    ``begin_ns`` is the earliest that it can have been. Jumped: its tick came ``delta_ns`` after
    the tick before it, at ``guest_ns`` of its clock; ``jumps`` is the guest's list of these.
    """
    stalls = []
    for before, after in pairwise(clock.segments):
        at = after.begin_guest_ns
        lost = after.offset_at(at) - before.offset_at(at)
        if lost > 0:
            error = before.error_ns + after.error_ns
            begin = at + before.offset_at(at)
            stalls.append(Stall(kind="stood-still", begin_ns=begin, length_ns=lost, error_ns=error))
    for guest_ns, delta_ns in jumps:
        begin = int(clock.to_axis(np.array([guest_ns]))[0])
        error = clock.error_across(begin, begin)
        stalls.append(Stall(kind="jumped", begin_ns=begin, length_ns=delta_ns, error_ns=error))
    return tuple(sorted(stalls, key=lambda stall: stall.begin_ns))
