"""Packets that came late or not at all, and that no outage accounts for: window by window.

What is lost in a gap is the outage's, and is judged by its length. But a network that loses every
second packet has no gap, and one that loses nine of ten has nothing but gaps: so a gap counts as an
outage only if the stream was served right before it or right after it for as long as it lasted,
:data:`SUSTAINED_NS` at most, if it is of a switchover, in which no network could serve the guest,
or if it is the longest of its part of its move. What was lost in any other gap is loss. What came
late in one is not: a busy machine is late in bouts.

Shares are held against the floor's in :mod:`migrate.analysis.excess_loss`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from migrate.analysis.deliveries import Deliveries
from migrate.analysis.gaps import Window
from migrate.model import Gap, Loss, LossWindow
from migrate.model.recording import Column, Flags, Recording

SUSTAINED_NS = 150_000_000
"""As much service beside a gap makes any gap an outage of its own."""


@dataclass(frozen=True, slots=True)
class NamedWindow:
    """A stretch of the axis, and which one it is: ``hop`` counts moves, 0 is the floor's."""

    name: LossWindow
    hop: int
    window: Window


def windows(recording: Recording) -> tuple[NamedWindow, ...]:
    """The floor; each move, with what was done before it; the time after the last one."""
    edges = [recording.start.floor_window[1], *(hop.end_ns for hop in recording.hops)]
    moves = [NamedWindow("move", hop, edge) for hop, edge in enumerate(pairwise(edges), 1)]
    after = (edges[-1], max(edges[-1], recording.traffic.end_ns))
    return (
        NamedWindow("floor", 0, recording.start.floor_window),
        *moves,
        NamedWindow("after", len(moves), after),
    )


# --- counting -----------------------------------------------------------------------------------


def losses(
    delivery: Deliveries, gaps: Sequence[Gap], parts: Sequence[NamedWindow], interval_ns: int
) -> tuple[Loss, ...]:
    """The account of each window with no outage in it. ``gaps``: of this direction, by begin."""
    sent_ns = _sent_ns(delivery, interval_ns)
    served_ns = sent_ns[delivery.served]
    outages = set(_outages(gaps, served_ns, parts))
    counts, between = np.stack([~delivery.unknown, ~delivery.unknown])
    for gap in gaps:
        inside = _inside(sent_ns, _borders(gap, served_ns)) & ~delivery.served
        between &= ~inside
        if gap in outages:
            counts &= ~inside
    return tuple(
        Loss(
            direction=delivery.direction,
            window=part.name,
            hop=part.hop,
            begin_ns=part.window[0],
            end_ns=part.window[1],
            sent=int((counts & within).sum()),
            lost=int((~delivery.arrived & counts & within).sum()),
            late=int((delivery.late & between & within).sum()),
            late_in_gaps=int((delivery.late & counts & ~between & within).sum()),
        )
        for part in parts
        for within in [_inside(sent_ns, part.window)]
    )


def _inside(at_ns: Column, window: Window) -> Flags:
    return np.asarray((at_ns >= window[0]) & (at_ns < window[1]), dtype=np.bool_)


def _borders(gap: Gap, served_ns: Column) -> Window:
    """The packets served before a gap and after it: all between was not."""
    after = int(np.searchsorted(served_ns, gap.begin_ns + gap.length_ns // 2))
    ends = np.concatenate([[np.iinfo(np.int64).min], served_ns, [np.iinfo(np.int64).max]])
    return int(ends[after]), int(ends[after + 1])


def _sent_ns(delivery: Deliveries, interval_ns: int) -> Column:
    """When each packet was sent; before the first stamp, one an interval."""
    known = np.flatnonzero(delivery.stamped)
    if not len(known):
        return np.full(len(delivery.sent_ns), np.iinfo(np.int64).min, dtype=np.int64)
    ahead = np.minimum(np.arange(len(delivery.sent_ns)) - known[0], 0)
    return np.asarray(delivery.sent_ns + ahead * interval_ns, dtype=np.int64)


def _outages(gaps: Sequence[Gap], served_ns: Column, parts: Sequence[NamedWindow]) -> Iterator[Gap]:
    """Gaps with service beside them, those of a switchover, and the longest of each other part of
    each move."""

    def place(gap: Gap) -> tuple[int, str]:
        return max((p.hop for p in parts if p.window[0] <= gap.begin_ns), default=0), gap.part

    ends = [gap.begin_ns + gap.length_ns for gap in gaps]
    first = int(served_ns[0]) if len(served_ns) else 0
    last = int(served_ns[-1]) if len(served_ns) else 0
    longest = {place(gap): gap for gap in sorted(gaps, key=lambda gap: gap.length_ns)}
    for number, gap in enumerate(gaps):
        before = gap.begin_ns - (ends[number - 1] if number else first)
        after = (gaps[number + 1].begin_ns if number + 1 < len(gaps) else last) - ends[number]
        of_move = gap.part == "switchover" or (gap.part != "none" and longest[place(gap)] is gap)
        if of_move or max(before, after) >= min(gap.length_ns, SUSTAINED_NS):
            yield gap
