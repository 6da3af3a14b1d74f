"""Which packets of a direction were served, which were not, and of which that is not known.

A packet is *served* if its first copy arrived no later than ``late_ns`` past the floor's median
delay, and not behind a late one out of the same queue: what was due before a late packet was let
go and arrived behind it waited with it, though it may have waited less than the limit. So a queue
that was held for 300 ms and flushed is an outage of 300 ms, not of 300 ms less the limit; and what
was still on its way when the queue was flushed did not wait, however long that way is.

*Not known*: a packet that the meter itself may have lost (its log was full, its socket dropped
some), or one whose delay lies so near the limit that the guest's clock can't tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from migrate.errors import MeasurementError
from migrate.model import Direction, Stream
from migrate.model.recording import Arrivals, Column, Flags, Sends

MOST_NUMBERS = 1 << 26
"""Of one direction: 18 hours of a packet a millisecond. A log holds 4 million."""
_WRAP = 1 << 32


@dataclass(frozen=True, slots=True, eq=False)
class SentPackets:
    """What is known of the packets that one side sent; rows of ``arrivals`` in their order.

    Both stamps of ``arrivals`` are on the axis; ``own_ns`` has, row by row, the sender's stamp by
    the clock that stood still when the sender did. ``error_ns`` is how much of a row's delay, held
    against the floor's, may be the clock's. ``sent``: how many there were, numbered from 0; None:
    not known. ``sends``: stamps of packets that did not arrive, on the axis and by the sender's
    clock, where those are on record.
    """

    direction: Direction
    arrivals: Arrivals
    own_ns: Column
    error_ns: Column
    sent: int | None
    sends: Sends
    own_sends_ns: Column
    lost_by_meter: Column
    """Numbers that may have arrived, and were lost by the meter."""
    meter_loss: str = ""
    """How it lost them."""
    cut_short: str = ""
    """Why nothing is known of what arrived after the last row; empty: that nothing arrived is."""

    @classmethod
    def of(cls, direction: Direction, arrivals: Arrivals, sent: int | None) -> SentPackets:
        """Where all is known that can be: no clock is in doubt, and the meter lost nothing."""
        nothing, none = np.zeros(len(arrivals), dtype=np.int64), np.empty(0, dtype=np.int64)
        return cls(direction, arrivals, arrivals.sent_ns, nothing, sent, Sends.empty(), none, none)


@dataclass(frozen=True, slots=True, eq=False)
class Deliveries:
    """The fate of every packet of one direction; columns are indexed by number.

    ``sent_ns`` (on the axis) and ``own_ns`` (by the sender's clock) are stamps where ``stamped``,
    else they lie evenly between the stamps next to them. ``copies`` counts the arrivals after the
    first. ``late`` is all that arrived and was surely not served. ``tail``: how many more were
    sent after the last column; lost, or unknown if the log was ``cut_short``.
    """

    direction: Direction
    sent_ns: Column
    own_ns: Column
    received_ns: Column
    stamped: Flags
    arrived: Flags
    served: Flags
    unknown: Flags
    reordered: Flags
    copies: Column
    tail: int = 0
    meter_loss: str = ""
    cut_short: str = ""
    counted: bool = False
    """Whether the sender said how many it sent."""

    @property
    def late(self) -> Flags:
        """Arrived, but too late to be of use."""
        return self.arrived & ~self.served & ~self.unknown

    def stream(self) -> Stream:
        """Counts; ``received`` counts numbers, not copies, so received + lost + unknown = sent."""
        missing = ~self.arrived
        lost, unknown = int((missing & ~self.unknown).sum()), int((missing & self.unknown).sum())
        if self.cut_short:
            unknown += self.tail
        else:
            lost += self.tail
        return Stream(
            direction=self.direction,
            sent=len(self.arrived) + self.tail,
            received=int(self.arrived.sum()),
            lost=lost,
            late=int(self.late.sum()),
            duplicated=int(self.copies.sum()),
            reordered=int(self.reordered.sum()),
            unknown=unknown,
        )


def fates(packets: SentPackets, delay_ns: float, late_ns: float) -> Deliveries:
    """Which packets were served, late by no more than ``late_ns`` past the usual ``delay_ns``.

    Raises MeasurementError for a number that was never sent, or numbers that no stream reaches.
    """
    size, tail = _extent(packets)
    rows = _first_copies(packets.arrivals)
    firsts = packets.arrivals.select(rows)
    seq = firsts.seq
    sent_ns, own_ns, received_ns, error_ns = np.zeros((4, size), dtype=np.int64)
    arrived, stamped, reordered, missed = np.zeros((4, size), dtype=np.bool_)
    arrived[seq] = stamped[seq] = True
    sent_ns[seq], own_ns[seq] = firsts.sent_ns, packets.own_ns[rows]
    received_ns[seq], error_ns[seq] = firsts.received_ns, packets.error_ns[rows]
    reordered[seq] = seq < np.maximum.accumulate(seq)
    fresh = ~arrived[packets.sends.seq]
    known = packets.sends.seq[fresh]
    stamped[known] = True
    sent_ns[known], own_ns[known] = packets.sends.sent_ns[fresh], packets.own_sends_ns[fresh]
    missed[packets.lost_by_meter] = True
    excess = received_ns - sent_ns - delay_ns
    late = arrived & (excess - error_ns > late_ns)
    doubtful = arrived & ~late & (excess + error_ns > late_ns)
    waited = arrived & _behind_late(
        sent_ns + round(delay_ns) + error_ns, received_ns, received_ns[late]
    )
    unknown = (doubtful & ~waited) | (missed & ~arrived)
    return Deliveries(
        packets.direction,
        _filled(sent_ns, stamped),
        _filled(own_ns, stamped),
        received_ns,
        stamped,
        arrived,
        arrived & ~late & ~waited & ~unknown,
        unknown,
        reordered,
        np.maximum(np.bincount(packets.arrivals.seq, minlength=size) - 1, 0),
        tail,
        packets.meter_loss,
        packets.cut_short,
        packets.sent is not None,
    )


def _extent(packets: SentPackets) -> tuple[int, int]:
    """How many numbers get a column, and how many more were sent."""
    highest = int(packets.arrivals.seq.max(initial=-1))
    sent = highest + 1 if packets.sent is None else packets.sent
    if highest >= sent or int(packets.arrivals.seq.min(initial=0)) < 0:
        raise MeasurementError(
            f"judge {packets.direction}",
            said=f"numbers up to {highest} arrived, but only {sent} packets were sent",
            remedy="stop the sender before its count is read, and give every run a new stream id",
        )
    last = max(highest, int(packets.sends.seq.max(initial=-1)))
    if last >= min(sent, MOST_NUMBERS):
        raise MeasurementError(
            f"judge {packets.direction}",
            said=f"numbers up to {last} are on record: no stream of ours is that long",
            remedy="keep the probe's log: what it says is not true",
        )
    return last + 1, sent - last - 1


def in_sequence(arrivals: Arrivals) -> tuple[Column, int]:
    """Each row's number counted on past 32 bits and past a sender that began anew; how often that.

    A sender's clock does not go back: where a later stamp has a lower number, the numbers have
    wrapped, or the sender was started again. Then they go on right after the highest one before.
    """
    seq, stamp = arrivals.seq, arrivals.sent_ns
    order = np.lexsort((seq, stamp))
    step = np.diff(seq[order])
    wrapped = step < -(_WRAP // 2)
    restarted = (step < 0) & ~wrapped & (np.diff(stamp[order]) > 0)
    shift = np.where(wrapped, _WRAP, 0) + np.where(restarted, 1 - step, 0)
    counted = seq.copy()
    counted[order] += np.concatenate([[0], np.cumsum(shift)])[: len(seq)]
    if len(counted) and counted.min() > _WRAP // 2:
        counted -= counted.min()
    return counted, int(restarted.sum())


def _first_copies(arrivals: Arrivals) -> Column:
    """Rows of the first copy of every number, in the order of arrival."""
    return np.sort(np.unique(arrivals.seq, return_index=True)[1])


def _behind_late(due_ns: Column, received_ns: Column, let_go_ns: Column) -> Flags:
    """Due before a late packet was let go, yet received behind it."""
    if not len(let_go_ns):
        return np.zeros(len(due_ns), dtype=np.bool_)
    let_go = np.sort(let_go_ns)
    last = np.searchsorted(let_go, received_ns, side="right") - 1
    return np.asarray((last >= 0) & (let_go[last] > due_ns), dtype=np.bool_)


def _filled(stamps: Column, known: Flags) -> Column:
    """Stamps that are not known, evenly between those that are."""
    if known.all() or not known.any():
        return stamps
    places = np.flatnonzero(known)
    base = int(stamps[places[0]])
    between = np.interp(np.arange(len(stamps)), places, (stamps[places] - base).astype(np.float64))
    return np.where(known, stamps, np.rint(between).astype(np.int64) + base)
