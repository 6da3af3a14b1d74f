"""What the receipts in a lost guest's packets can't tell of what it received.

Each packet of the guest carries the newest 16 numbers that it had received. While its own packets
are lost it may receive more than that: the receipts of those went with them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from migrate.analysis.guest_clock import ClockSegment, GuestClock
from migrate.model.recording import Arrivals, Column, Flags

RECEIPTS = 16
"""That a packet carries at most (guest-images/probe/stream.c)."""
_CERTAIN = RECEIPTS - 2
"""So many new ones in a packet leave no doubt that it also had old ones. A receipt that came while
the packet was made up is in the next one."""

LOST = "the receipts of it were lost with the guest's own packets"
ENDED = "the guest is gone: no packet of its own tells what it received from then on"


def unreceipted(
    egress: Arrivals,
    receipts: Arrivals,
    numbers: Column,
    sent_ns: Column,
    clock: GuestClock,
    served_ns: float,
) -> Column:
    """Which of ``numbers``, sent at ``sent_ns`` on the axis, may have been received and served.

    ``egress`` and ``receipts`` (what is known to have been received) have the guest's stamps by
    the guest's clock; ``served_ns``: the longest delay that is served. Of numbers that have no
    receipt some were received where no packet of the guest could tell of them.
    """
    may = np.zeros(len(numbers), dtype=np.bool_)
    sent = np.maximum.accumulate(sent_ns)
    for begin_ns, end_ns, _ in _untold(egress, receipts):
        for first, last in _on_axis(clock, begin_ns, end_ns):
            may[slice(*np.searchsorted(sent, [first - served_ns, last]))] = True
    return numbers[may]


def behind_untold(egress: Arrivals, receipts: Arrivals) -> Flags:
    """Which receipts came together with others that are lost: what was before them is not known."""
    behind = np.zeros(len(receipts), dtype=np.bool_)
    order = np.argsort(receipts.received_ns, kind="stable")
    came = receipts.received_ns[order]
    for _, first_ns, last_ns in _untold(egress, receipts):
        behind[order[slice(*np.searchsorted(came, [first_ns, last_ns + 1]))]] = True
    return behind


def _untold(egress: Arrivals, receipts: Arrivals) -> Iterator[tuple[int, int, int]]:
    """Stretches by the guest's clock in which it may have received more than it told of.

    From the last receipt before to the first one after, and the last one that came with that.
    """
    told = np.unique(egress.sent_ns)
    came = np.sort(receipts.received_ns)
    fresh = np.searchsorted(came, told, side="right")
    for before, after in zip([0, *fresh.tolist()], fresh.tolist(), strict=False):
        if after - before >= _CERTAIN and before:
            yield int(came[before - 1]), int(came[before]), int(came[after - 1])


def _on_axis(clock: GuestClock, begin_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
    """A stretch of the guest's clock as stretches of the axis: none while it stood still."""
    begins = (bisect_right(clock.segments, at, key=_begin) for at in (begin_ns, end_ns))
    inside = clock.segments[slice(*begins)]
    edges = [begin_ns, *(segment.begin_guest_ns for segment in inside), end_ns]
    for first, last in pairwise(edges):
        low, high = clock.to_axis(np.array([first, max(first, last - 1)])).tolist()
        yield low, high


def _begin(segment: ClockSegment) -> int:
    return segment.begin_guest_ns
