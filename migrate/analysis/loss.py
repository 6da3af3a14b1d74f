"""Packets that came late or not at all, and that no outage accounts for: window by window.

What is lost in a gap is the outage's, and is judged by its length. But a network that loses every
second packet has no gap, and one that loses nine of ten has nothing but gaps: so a gap counts as an
outage only if the stream was served right before it or right after it for as long as it lasted,
:data:`SUSTAINED_NS` at most, or if it is the longest of its part of the move. What was lost in any
other gap is loss. What came late in one is not: a busy machine is late in bouts.

Shares are held against those of the floor's window, by the same meter in the same attempt: both
have the error of what was counted (:mod:`migrate.statistics.shares`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from migrate.analysis.outage import Deliveries, Window
from migrate.model import Direction, Gap, Loss, LossWindow
from migrate.model.recording import Column, Flags, Recording
from migrate.statistics.shares import Share, difference, share

SUSTAINED_NS = 100_000_000
"""As much service beside a gap makes any gap an outage of its own."""
HEAVY = 0.05
"""Share of packets: where more is lost than on the floor, a loss can't be told from an outage."""
LEAST_PACKETS = 200
"""A window with fewer packets is held against the floor together with the one after it."""


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
    outages = set(_outages(gaps, served_ns))
    counts, between = np.ones((2, len(sent_ns)), dtype=np.bool_)
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
    """When each packet was sent; of one that did not arrive, by those around it that did."""
    numbers = np.arange(len(delivery.arrived))
    known = np.flatnonzero(delivery.arrived)
    if not len(known):
        return np.full(len(numbers), np.iinfo(np.int64).min, dtype=np.int64)
    between = np.interp(numbers, known, delivery.sent_ns[known]).astype(np.int64)
    beyond = np.minimum(numbers - known[0], 0) + np.maximum(numbers - known[-1], 0)
    return np.asarray(between + beyond * interval_ns, dtype=np.int64)


def _outages(gaps: Sequence[Gap], served_ns: Column) -> Iterator[Gap]:
    """Gaps with service beside them, and the longest of each part of the move."""
    ends = [gap.begin_ns + gap.length_ns for gap in gaps]
    first = int(served_ns[0]) if len(served_ns) else 0
    last = int(served_ns[-1]) if len(served_ns) else 0
    longest = {gap.part: gap for gap in sorted(gaps, key=lambda gap: gap.length_ns)}
    for number, gap in enumerate(gaps):
        before = gap.begin_ns - (ends[number - 1] if number else first)
        after = (gaps[number + 1].begin_ns if number + 1 < len(gaps) else last) - ends[number]
        of_move = gap.part != "none" and longest[gap.part] is gap
        if of_move or max(before, after) >= min(gap.length_ns, SUSTAINED_NS):
            yield gap


# --- against the floor --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Excess:
    """By how much a larger share was lost or late in a window than on the floor."""

    loss: Loss
    share: Share


def floor_loss(losses: Iterable[Loss], direction: Direction) -> Loss | None:
    """The floor's account of a direction; None: there is none."""
    return next(
        (loss for loss in losses if loss.direction == direction and loss.window == "floor"), None
    )


def excesses(losses: Sequence[Loss], direction: Direction) -> tuple[Excess, ...]:
    """Each window after the floor's against it; none without a floor."""
    floor = floor_loss(losses, direction)
    if floor is None:
        return ()
    return tuple(
        Excess(loss, difference(_share(loss), _share(floor)))
        for loss in losses
        if loss.direction == direction and loss.window != "floor"
    )


def joined(losses: Sequence[Loss], direction: Direction) -> tuple[Loss, ...]:
    """The same with windows of few packets joined to the one after; the time after stays."""
    result: list[Loss] = []
    for loss in losses:
        if loss.direction == direction:
            few = result and result[-1].window == "move" and result[-1].sent < LEAST_PACKETS
            result.append(_sum(result.pop(), loss) if few else loss)
    return tuple(result)


def _sum(first: Loss, second: Loss) -> Loss:
    return second.model_copy(
        update={
            "begin_ns": first.begin_ns,
            "sent": first.sent + second.sent,
            "lost": first.lost + second.lost,
            "late": first.late + second.late,
            "late_in_gaps": first.late_in_gaps + second.late_in_gaps,
        }
    )


def _share(loss: Loss) -> Share:
    return share(loss.lost + loss.late, loss.sent)


def unserved_after(losses: Sequence[Loss], direction: Direction) -> Share | None:
    """Of the packets after the last move, but for outages, those not served; None: not counted."""
    after = [loss for loss in losses if (loss.direction, loss.window) == (direction, "after")]
    if not after:
        return None
    return share(after[0].lost + after[0].late + after[0].late_in_gaps, after[0].sent)


def heavy_loss(losses: Sequence[Loss] | None, direction: Direction) -> float | None:
    """The largest share of a window that was lost or late, if it is more than on the floor by
    :data:`HEAVY` at least: that no gap was seen tells of no outage then. None: it is not.
    """
    heavy = [
        _share(excess.loss).value
        for excess in excesses(losses or (), direction)
        if excess.share.low > HEAVY
    ]
    return max(heavy, default=None)
