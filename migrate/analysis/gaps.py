"""The gaps of a direction, how long its outages were, and what can't be told.

A *gap* runs from one served packet to the next. The outage in it is shorter: it began after the
last packet served and no later than the next one was sent, and it ended after the last packet not
served was sent and no later than the next one served. Where a packet is sent every interval, it is
the gap less one interval, give or take one interval. Where the *sender* was late at one of the two
ends, nobody knows what the network would have done meanwhile: that is in the error.

What was not sent tells of an outage only if the sender stood still: its clock lost time, QEMU had
stopped it, or what was sent to it meanwhile waited until it went on. A sender that was merely late
makes no gap; a stretch in which nothing was sent for longer than the threshold is *not measured*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from migrate.analysis.deliveries import Deliveries
from migrate.analysis.phases import gap_part, phase_label
from migrate.model import Gap, Phase, Unmeasured
from migrate.model.recording import Arrivals, Column

Window = tuple[int, int]
MOST_LISTED = 2000
"""Of the gaps of a direction and the stretches of it that are not measured."""
FLUSH_NS = 1_000_000
"""A queue may take so long to be emptied: what waits for that only is not out."""
_NEIGHBOURS = 5
"""Packets before a gap that tell how long those in it may have taken."""
_LONG_NS = 100_000_000
"""A guest that runs is not kept from sending for so long."""


@dataclass(frozen=True, slots=True)
class Ruler:
    """What a direction's gaps are measured with; all in nanoseconds.

    ``difference_error`` gives the error of the time between two points on the axis that were read
    off the sender's clock, ``place_error`` that of one such point; ``sender`` names the sender.
    ``delay_ns`` is how long packets take with nothing going on, ``jitter_ns`` by how much that
    differs, and with it the moments in which packets sent one interval apart pass any place.
    ``stood_still`` gives how long the sender was seen to stand still between two points, though
    its clock may have gone on.
    """

    interval_ns: int
    threshold_ns: int
    window: Window
    difference_error: Callable[[int, int], int]
    place_error: Callable[[int], int]
    sender: str = ""
    delay_ns: float = 0.0
    jitter_ns: int = 0
    lost_in_a_row: int = 0
    """So many packets next to the outage may have been lost by chance."""
    late_ns: int = 0
    """By how much a packet is sent late in its slot with nothing going on."""
    stood_still: Callable[[int, int, bool], int] = lambda _begin, _end, _silent: 0


def threshold(longest_ns: int, interval_ns: int) -> int:
    """A spacing must be longer than this to be a gap."""
    return max(longest_ns, 2 * interval_ns)


def gaps(
    delivery: Deliveries, ruler: Ruler, moved: Sequence[Phase] = ()
) -> tuple[tuple[Gap, ...], tuple[Unmeasured, ...], int]:
    """The gaps of one direction by begin, what is not measured of it, and how many are left out.

    All of them, or the MOST_LISTED longest of both.

    ``moved`` are the phases of the move. A stream that never starts is one gap, open-ended. At the
    window's begin a gap runs from it to the first packet served, at its end from the last one
    served, and is open-ended.
    """
    measured: list[Gap] = []
    blanks: list[Unmeasured] = []
    every = sorted(_stretches(delivery, ruler), key=lambda stretch: -stretch.length_ns)
    for stretch in sorted(every[:MOST_LISTED], key=lambda stretch: stretch.first_ns):
        if stretch.blank:
            blanks.append(_unmeasured(delivery, stretch, stretch.blank))
            continue
        gap = _gap(delivery, ruler, stretch)
        off_ns = gap.place_off_ns if gap else ruler.place_error(stretch.last_ns)
        if stretch.at_edge and stretch.length_ns <= ruler.threshold_ns + off_ns:
            continue  # The window's ends are no packets: they are known on another clock.
        if gap is None:
            blanks.append(
                _unmeasured(delivery, stretch, f"the {ruler.sender}'s probe sent nothing")
            )
        else:
            touched = overlapped_phases(gap, moved)
            labels = tuple(map(phase_label, touched))
            measured.append(gap.model_copy(update={"phases": labels, "part": gap_part(touched)}))
    return tuple(measured), tuple(blanks), max(0, len(every) - MOST_LISTED)


def overlapped_phases(gap: Gap, moved: Iterable[Phase]) -> tuple[Phase, ...]:
    """The phases that the gap may overlap, given the errors of both."""
    end_ns = gap.begin_ns + gap.length_ns
    return tuple(
        phase
        for phase in moved
        if gap.begin_ns - (slack := gap.place_off_ns + phase.error_ns) <= phase.end_ns
        and phase.begin_ns <= end_ns + slack
    )


# --- stretches in which no packet was surely served ---------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Between two packets that were served or may have been, or an end of the window.

    ``inside`` are the numbers between: none of them was served. ``blank`` is why the stretch can't
    be judged, empty if it can.
    """

    first_ns: int
    last_ns: int
    inside: range
    at_begin: bool = False
    at_end: bool = False
    blank: str = ""
    doubtful: bool = False
    """Whether one of the two packets only may have been served."""

    @property
    def length_ns(self) -> int:
        return self.last_ns - self.first_ns

    @property
    def at_edge(self) -> bool:
        return self.at_begin or self.at_end


def _stretches(delivery: Deliveries, ruler: Ruler) -> Iterator[_Stretch]:
    """All that are longer than the threshold, in order; and the rest of those with a doubt."""
    begin, end = ruler.window
    sent = delivery.sent_ns
    within = (sent >= begin) & (sent <= end)
    bounds = np.flatnonzero((delivery.served | delivery.unknown) & within)
    before, after = (int(np.count_nonzero(sent < begin)) - 1, len(sent))
    ahead = delivery.stamped & (sent > end)
    after = int(np.flatnonzero(ahead)[0]) if ahead.any() else len(sent)
    numbers = np.concatenate([[before], bounds, [after]])
    times = np.concatenate([[begin], sent[bounds], [end]])
    sure = np.concatenate([[True], ~delivery.unknown[bounds], [True]])
    if delivery.cut_short and after == len(sent):  # a doubt of its own, after the last column
        seen_until = min(end, int(sent[within].max(initial=begin)))
        numbers, sure = np.append(numbers, after), np.insert(sure, -1, False)
        times = np.insert(times, -1, seen_until)
    places = np.flatnonzero(sure)
    wide = np.flatnonzero(np.diff(times[places]) > ruler.threshold_ns)
    for first, last in zip(places[wide].tolist(), places[wide + 1].tolist(), strict=True):
        long = np.diff(times[first : last + 1]) > ruler.threshold_ns
        if delivery.cut_short and last == len(times) - 1:
            long[-1] = False
        edges = [first, *(first + int(at) + step for at in np.flatnonzero(long) for step in (0, 1))]
        for one, other in pairwise([*edges, last]):
            stretch = _Stretch(
                int(times[one]),
                int(times[other]),
                range(int(numbers[one]) + 1, int(numbers[other])),
                one == 0,
                other == len(times) - 1,
                doubtful=not (sure[one] and sure[other]),
            )
            if other == one + 1 and long[one - first]:
                yield stretch
            elif other > one:
                yield replace(stretch, blank=_doubt(delivery, stretch))


def _doubt(delivery: Deliveries, stretch: _Stretch) -> str:
    inside = slice(max(0, stretch.inside.start - 1), stretch.inside.stop + 1)
    doubtful = delivery.unknown[inside]
    if delivery.cut_short and (stretch.at_end or not doubtful.any()):
        return delivery.cut_short
    if (doubtful & ~delivery.arrived[inside]).any():
        return delivery.meter_loss
    return "whether packets came late can't be told: the guest's clock is not known well enough"


def _unmeasured(delivery: Deliveries, stretch: _Stretch, reason: str) -> Unmeasured:
    return Unmeasured(
        direction=delivery.direction,
        begin_ns=stretch.first_ns,
        length_ns=stretch.length_ns,
        reason=reason,
        open_ended=stretch.at_end,
    )


# --- the outage in one of them ------------------------------------------------------------------


def _gap(delivery: Deliveries, ruler: Ruler, stretch: _Stretch) -> Gap | None:
    """The outage in a stretch that is a gap; None if nothing tells that there was one."""
    inside = slice(stretch.inside.start, stretch.inside.stop)
    tail = delivery.tail if stretch.at_end else 0
    first_ns, last_ns = stretch.first_ns, stretch.last_ns
    idle_before, idle_after = _idle(delivery, ruler, stretch)
    clock_ns = ruler.difference_error(first_ns, last_ns)
    jitter_ns = max(ruler.jitter_ns, _slow_before(delivery, ruler, stretch))
    most = last_ns - first_ns + clock_ns + _slower(delivery, ruler, stretch)
    least = last_ns - first_ns - idle_before - idle_after - clock_ns - jitter_ns
    by_chance = ruler.lost_in_a_row * ruler.interval_ns if len(stretch.inside) else 0
    least -= 2 * by_chance
    if len(stretch.inside) + tail == 0 and least <= ruler.interval_ns:
        return None
    least = max(0, least)
    half = (most - least + 1) // 2
    begin_ns = first_ns + idle_before // 2
    # It is placed where packets are sent; the network may have been cut where they arrive.
    off = max(idle_before, idle_after) // 2 + jitter_ns + max(0, round(ruler.delay_ns))
    off += by_chance
    return Gap(
        direction=delivery.direction,
        begin_ns=begin_ns,
        length_ns=(most + least) // 2,
        error_ns=half,
        place_error_ns=off + max(ruler.place_error(first_ns), ruler.place_error(last_ns)),
        lost=int((~delivery.arrived[inside]).sum()) + tail,
        late=int(delivery.late[inside].sum()),
        duplicated=int(delivery.copies[inside].sum()),
        reordered=int(delivery.reordered[inside].sum()),
        open_ended=stretch.at_end,
        next_to_unmeasured=stretch.doubtful,
    )


def _idle(delivery: Deliveries, ruler: Ruler, stretch: _Stretch) -> tuple[int, int]:
    """For how long, at its two ends, the sender ran and sent nothing: what is not known there.

    At an end of the window there is nothing not to know, and where nothing was sent in between,
    all of it is one.
    """
    inside = stretch.inside
    before = None if stretch.at_begin else inside.start - 1
    after = None if stretch.at_end or _is_cut(delivery, stretch) else inside.stop
    if not len(inside):
        if before is None or after is None:
            edge = _at_window_edge(delivery, ruler, stretch)
            return (0, edge) if before is None else (edge, 0)
        return _ran(delivery, ruler, before, after, silent=True), 0
    stamped = inside.start + np.flatnonzero(delivery.stamped[inside.start : inside.stop])
    if len(stamped):
        head, foot = int(stamped[0]), _last_out(delivery, ruler, stamped)
        return (
            0
            if before is None
            else _ran(delivery, ruler, before, head) + _left_late(delivery, ruler, head),
            0 if after is None else _ran(delivery, ruler, foot, after),
        )
    if before is None or after is None:
        one = min(stretch.length_ns, 2 * ruler.interval_ns)
        return (0, one) if before is None else (one, 0)
    both = _ran(delivery, ruler, before, after, ends=2)
    return both // 2, both - both // 2


def _is_cut(delivery: Deliveries, stretch: _Stretch) -> bool:
    """Whether it ends where nothing more is known, and not at a packet."""
    return stretch.inside.stop >= len(delivery.sent_ns)


def _left_late(delivery: Deliveries, ruler: Ruler, number: int) -> int:
    """How long after its stamp a packet may have left, since nothing was sent after it for so long.

    A sender that is interrupted between the two sends the packet when it goes on.
    """
    if number + 1 >= len(delivery.stamped) or not delivery.stamped[number + 1]:
        return 0
    spacing = int(delivery.own_ns[number + 1] - delivery.own_ns[number])
    return max(0, spacing - ruler.interval_ns)


def _last_out(delivery: Deliveries, ruler: Ruler, inside: Column) -> int:
    """The last of the packets ``inside`` by which the outage had surely not ended.

    Those that came right behind a queue when it was flushed waited for what was before them in it;
    where that was hardly any time, the outage may have been over when they were due.
    """
    waited = delivery.received_ns[inside] - delivery.sent_ns[inside] - ruler.delay_ns
    out = inside[~delivery.arrived[inside] | (waited > FLUSH_NS + ruler.jitter_ns)]
    return int(out[-1]) if len(out) else int(inside[-1])


def _at_window_edge(delivery: Deliveries, ruler: Ruler, stretch: _Stretch) -> int:
    """Nothing was sent between an end of the window and a packet, as far as that is known.

    A sender that is gone for good, so that it can't be asked for its count, is out.
    """
    if not delivery.counted or stretch.at_begin or delivery.tail:
        return min(stretch.length_ns, ruler.interval_ns)
    return stretch.length_ns - ruler.stood_still(stretch.first_ns, stretch.last_ns, True)


def _ran(
    delivery: Deliveries,
    ruler: Ruler,
    first: int,
    last: int,
    ends: int = 1,
    *,
    silent: bool = False,
) -> int:
    """For how long the sender ran, at one end or both, between two stamps and packets without.

    ``silent``: nothing was sent in between, so that a guest which got no processor was out. At an
    end of an outage that the network made, it was a late sender. Of the packets between, whose
    stamps are not on record, each took an interval of its own; what the sender was late in all may
    have been all at the end that is asked about.
    """
    passed = int(delivery.own_ns[last] - delivery.own_ns[first])
    if passed > 2 * ruler.interval_ns:
        begin_ns, end_ns = int(delivery.sent_ns[first]), int(delivery.sent_ns[last])
        ran = end_ns - begin_ns - ruler.stood_still(begin_ns, end_ns, silent)
        passed = max(ruler.interval_ns, min(passed, ran))
    between = max(0, last - first - ends)
    if delivery.stamped[first + 1 : last].any():
        between = 0  # it is asked from a packet on that is not the last with a stamp
    slack = ruler.late_ns if between else 0
    return max(min(passed, ends * ruler.interval_ns), passed - between * ruler.interval_ns + slack)


def _slow_before(delivery: Deliveries, ruler: Ruler, stretch: _Stretch) -> int:
    """How much longer than usual the packets right before a stretch took, at most.

    The next ones, which were not served, may have taken as long, and been cut as late.
    """
    before = slice(max(0, stretch.inside.start - _NEIGHBOURS), stretch.inside.start)
    took = (delivery.received_ns - delivery.sent_ns)[before][delivery.served[before]]
    return max(0, round(float(took.max(initial=ruler.delay_ns)) - ruler.delay_ns))


def _slower(delivery: Deliveries, ruler: Ruler, stretch: _Stretch) -> int:
    """How much longer the first packet served again took than the last one before."""
    if stretch.at_edge or _is_cut(delivery, stretch):
        return ruler.jitter_ns
    pair = [stretch.inside.start - 1, stretch.inside.stop]
    if not delivery.arrived[pair].all():
        return ruler.jitter_ns
    delays = delivery.received_ns[pair] - delivery.sent_ns[pair]
    return max(0, int(delays[1] - delays[0]))


# --- a sender that stood still though its clock went on -----------------------------------------


def stood_still(
    received: Arrivals, delay_ns: float, interval_ns: int, moved: Sequence[Phase]
) -> Callable[[int, int, bool], int]:
    """How long the guest stood still between two points, by what was sent to it, or by QEMU.

    ``received`` has its ingress with both stamps on the axis. Where arrivals cease when it ceases
    to send, or what had been due meanwhile comes when it sends again, it did not run in between;
    where only one of the two pauses, it did. ``moved``: QEMU's STOP to RESUME. The third argument
    says whether arrivals count: they tell of a guest that got no processor as well.
    """
    order = np.argsort(received.received_ns, kind="stable")
    came = received.received_ns[order]
    due = received.sent_ns[order] + round(delay_ns)
    stops = [phase for phase in moved if phase.name == "stopped"]
    near_ns = 2 * interval_ns + FLUSH_NS

    def by_arrivals(begin_ns: int, end_ns: int) -> list[Window]:
        first, last = np.searchsorted(came, [begin_ns, end_ns + near_ns])
        rows = slice(int(first), int(last))
        if first in (0, last):
            return []
        before, until = came[rows.start - 1 : rows.stop - 1], came[rows]
        since = np.maximum(np.maximum(before, due[rows]), begin_ns)
        length = np.minimum(until, end_ns) - since
        with_sender = (before >= begin_ns - near_ns) | (until >= end_ns - near_ns)
        still = (length > near_ns) & (with_sender | (length > _LONG_NS))
        return list(zip(since[still].tolist(), until[still].tolist(), strict=True))

    def between(begin_ns: int, end_ns: int, silent: bool) -> int:
        by_qemu = [(stop.begin_ns + stop.error_ns, stop.end_ns - stop.error_ns) for stop in stops]
        total, reached = 0, begin_ns
        seen = by_arrivals(begin_ns, end_ns) if silent else []
        for since, until in sorted([*by_qemu, *seen]):
            total += max(0, min(until, end_ns) - max(since, reached))
            reached = max(reached, until)
        return total

    return between
