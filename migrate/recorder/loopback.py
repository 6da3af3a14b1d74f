"""A stream that its network returns: both directions in one, stamped by the guest alone.

The guest's clock is laid on the axis by round trips over its channel, before and after each move.
In between it may have lost time at a stop of the guest, and when that was, QEMU's events tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from migrate.analysis.guest_clock import ClockSegment, GuestClock
from migrate.clock import Offset, now_ns
from migrate.guest.probe import Probe
from migrate.model.recording import Arrivals


@dataclass(frozen=True, slots=True)
class ClockLook:
    """The offset of the guest's clock, as it was read at a point on the axis."""

    at_ns: int
    offset: Offset


def look_at_clock(guest: Probe) -> ClockLook:
    """By a few round trips over the guest's channel."""
    return ClockLook(now_ns(), guest.clock_offset("guest.mono"))


def clock_by_looks(looks: Sequence[ClockLook], stops: Sequence[int]) -> GuestClock:
    """The guest's clock, from at least one look; both in order, on the axis.

    Each segment is the best of its looks; its error has the others' distance in it, which is drift.
    Of several stops between two looks it can't be told at which one the time was lost: the last one
    is taken for it, and all that was lost is error.
    """
    segments: list[ClockSegment] = []
    for begin_ns, doubt_ns, group in _between(looks, stops):
        best = min((look.offset for look in group), key=lambda offset: offset.error_ns)
        drift = max(abs(look.offset.offset_ns - best.offset_ns) for look in group)
        reading = begin_ns - (segments[-1].offset_ns if segments else best.offset_ns)
        segments.append(
            ClockSegment(reading, best.offset_ns, 0.0, best.error_ns + drift + doubt_ns)
        )
    return GuestClock(tuple(segments))


def _between(
    looks: Sequence[ClockLook], stops: Sequence[int]
) -> list[tuple[int, int, list[ClockLook]]]:
    """Looks that no stop lies between: when that began, how much is in doubt, and they."""
    groups = [(looks[0].at_ns, 0, [looks[0]])]
    for before, after in pairwise(looks):
        passed = [at_ns for at_ns in stops if before.at_ns < at_ns <= after.at_ns]
        if passed:
            lost = abs(after.offset.offset_ns - before.offset.offset_ns)
            groups.append((passed[-1], lost if len(passed) > 1 else 0, []))
        groups[-1][2].append(after)
    return groups


def both_ways(log: Arrivals, clock: GuestClock) -> tuple[Arrivals, Arrivals]:
    """A log with both stamps by the guest's clock, as egress and as ingress of a peer on the axis.

    What was sent arrives at "the peer" when it came back, and what came back was sent by it when it
    was sent: the whole way there and back is in each.
    """
    return (
        Arrivals(log.seq, log.sent_ns, clock.to_axis(log.received_ns)),
        Arrivals(log.seq, clock.to_axis(log.sent_ns), log.received_ns),
    )
