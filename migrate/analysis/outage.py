"""The meter: from arrival records to gaps, exactly by these definitions.

A packet is *served* if its first copy arrived no later than ``late_ns`` past the floor's median
delay, and not behind a late one out of the same queue: what was sent before a late packet was let
go and arrived behind it waited with it, though it may have waited less than the limit. So a queue
that was held for 300 ms and flushed is an outage of 300 ms, not of 300 ms less the limit.

A *gap* runs from one served packet to the next, by send time on the axis; it is one if that is
longer than the threshold: the longest spacing on the floor or two intervals, whichever is more.
Below that nothing is reported. A gap is never split and gaps are never merged or added up.

Its error is one interval (both ends fall between two packets) and the error of the clocks that
the send times were read from: it holds for the length and for the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from migrate.analysis.guest_clock import GuestClock, guest_stalls
from migrate.analysis.phases import gap_part, phase_label
from migrate.clock import Offset
from migrate.errors import MeasurementError
from migrate.model import Direction, Floor, Gap, Phase, Stall, Stream, Unmeasured
from migrate.model.recording import Arrivals, Column, Flags

LATE_NS = 20_000_000
LEAST_PACKETS = 100
"""Fewer in the floor's window make no floor."""

Window = tuple[int, int]


# --- which packets were served ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Deliveries:
    """The fate of every packet of one direction; columns are indexed by number, 0..sent-1.

    ``sent_ns`` is on the axis and means something only where ``arrived``; ``copies`` counts the
    arrivals after the first. ``late`` is all that arrived and was not served.
    """

    direction: Direction
    sent_ns: Column
    arrived: Flags
    served: Flags
    reordered: Flags
    copies: Column

    @property
    def late(self) -> Flags:
        """Arrived, but too late to be of use."""
        return self.arrived & ~self.served

    def stream(self) -> Stream:
        """Counts; ``received`` counts numbers, not copies, so received + lost = sent."""
        return Stream(
            direction=self.direction,
            sent=len(self.arrived),
            received=int(self.arrived.sum()),
            lost=int((~self.arrived).sum()),
            late=int(self.late.sum()),
            duplicated=int(self.copies.sum()),
            reordered=int(self.reordered.sum()),
        )


def deliveries(
    direction: Direction, arrivals: Arrivals, sent: int | None, on_time_ns: float
) -> Deliveries:
    """Which packets were served; both stamps on the axis, rows in the order of arrival.

    ``sent`` is how many packets the sender sent, numbered from 0; None if that is not known: then
    none is assumed to have been sent after the highest that arrived. ``on_time_ns`` is the longest
    delay that is served. Raises MeasurementError for a number that was never sent.
    """
    highest = int(arrivals.seq.max(initial=-1))
    sent = highest + 1 if sent is None else sent
    if highest >= sent or int(arrivals.seq.min(initial=0)) < 0:
        raise MeasurementError(
            f"judge {direction}",
            said=f"numbers up to {highest} arrived, but only {sent} packets were sent",
            remedy="stop the sender before its count is read, and give every run a new stream id",
        )
    first = _first_copies(arrivals)
    copies = arrivals.select(first)
    arrived = np.zeros(sent, dtype=np.bool_)
    sent_ns, received_ns = np.zeros((2, sent), dtype=np.int64)
    arrived[copies.seq] = True
    sent_ns[copies.seq] = copies.sent_ns
    received_ns[copies.seq] = copies.received_ns
    reordered = np.zeros(sent, dtype=np.bool_)
    reordered[copies.seq] = copies.seq < np.maximum.accumulate(copies.seq)
    late = arrived & (received_ns - sent_ns > on_time_ns)
    waited = _behind_late(sent_ns, received_ns, late)
    return Deliveries(
        direction,
        sent_ns,
        arrived,
        arrived & ~late & ~waited,
        reordered,
        np.maximum(np.bincount(arrivals.seq, minlength=sent) - 1, 0),
    )


def _first_copies(arrivals: Arrivals) -> Column:
    """Rows of the first copy of every number, in the order of arrival."""
    return np.sort(np.unique(arrivals.seq, return_index=True)[1])


def _behind_late(sent_ns: Column, received_ns: Column, late: Flags) -> Flags:
    """Sent after a late packet and before it was let go, yet received behind it."""
    let_go = np.maximum.accumulate(np.where(late, received_ns, np.iinfo(np.int64).min))
    return np.asarray((sent_ns < let_go) & (received_ns >= let_go), dtype=np.bool_)


# --- the floor ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DirectionFloor:
    """One direction with nothing going on: longest spacing, median delay, packets seen."""

    longest_ns: int
    delay_ns: float
    packets: int


def direction_floor(
    direction: Direction, arrivals: Arrivals, window: Window, late_ns: int = LATE_NS
) -> DirectionFloor:
    """Measure the floor of a direction in a window of send times, both stamps on the axis.

    Raises MeasurementError below LEAST_PACKETS.
    """
    within = _within(arrivals.sent_ns, window)
    firsts = arrivals.select(_first_copies(arrivals))
    delays = (firsts.received_ns - firsts.sent_ns)[_within(firsts.sent_ns, window)]
    if len(delays) < LEAST_PACKETS:
        raise MeasurementError(
            f"measure the floor of {direction}",
            said=f"{len(delays)} packets in its window, {LEAST_PACKETS} are needed",
            remedy="see whether the link was up before the move; lengthen workload.floor_s",
        )
    delay = float(np.median(delays))
    quiet = deliveries(direction, arrivals.select(within), None, delay + late_ns)
    spacing = np.diff(quiet.sent_ns[quiet.served])
    return DirectionFloor(int(spacing.max(initial=0)), delay, len(delays))


def floor(egress: DirectionFloor, ingress: DirectionFloor, window: Window) -> Floor:
    """The floor of both directions, as an attempt stores it."""
    return Floor(
        egress_ms=egress.longest_ns / 1e6,
        ingress_ms=ingress.longest_ns / 1e6,
        egress_delay_ms=egress.delay_ns / 1e6,
        ingress_delay_ms=ingress.delay_ns / 1e6,
        seconds=(window[1] - window[0]) / 1e9,
        packets=egress.packets + ingress.packets,
    )


def _within(at_ns: Column, window: Window) -> Flags:
    return np.asarray((at_ns >= window[0]) & (at_ns <= window[1]), dtype=np.bool_)


# --- gaps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ruler:
    """What a direction's gaps are measured with.

    ``clock_error`` gives the error of a difference between two points on the axis that were read
    off the sender's clock.
    """

    interval_ns: int
    threshold_ns: int
    window: Window
    clock_error: Callable[[int, int], int]

    def error_ns(self, begin_ns: int, end_ns: int) -> int:
        """Error of a length between two send times, and of their place."""
        return self.interval_ns + self.clock_error(begin_ns, end_ns)


def threshold(longest_ns: int, interval_ns: int) -> int:
    """A spacing must be longer than this to be a gap."""
    return max(longest_ns, 2 * interval_ns)


def gaps(delivery: Deliveries, ruler: Ruler, moved: Sequence[Phase] = ()) -> tuple[Gap, ...]:
    """All gaps of one direction by begin; a stream that never starts is one, open-ended.

    ``moved`` are the phases of the move. At the window's begin a gap runs from it to the first
    packet served, at its end from the last one served, and is open-ended.
    """
    begin, end = ruler.window
    numbers = np.flatnonzero(delivery.served & _within(delivery.sent_ns, ruler.window))
    numbers = np.concatenate([[-1], numbers, [len(delivery.served)]])
    times = np.concatenate([[begin], delivery.sent_ns[numbers[1:-1]], [end]])
    measured = []
    for index in np.flatnonzero(np.diff(times) > ruler.threshold_ns):
        inside = slice(int(numbers[index]) + 1, int(numbers[index + 1]))
        first, last = int(times[index]), int(times[index + 1])
        error = ruler.error_ns(first, last)
        if index in (0, len(times) - 2) and last - first <= ruler.threshold_ns + error:
            continue  # the window's ends are no packets: they are known on another clock
        gap = Gap(
            direction=delivery.direction,
            begin_ns=first,
            length_ns=last - first,
            error_ns=error,
            lost=int((~delivery.arrived[inside]).sum()),
            late=int(delivery.late[inside].sum()),
            duplicated=int(delivery.copies[inside].sum()),
            reordered=int(delivery.reordered[inside].sum()),
            open_ended=int(index) == len(times) - 2,
        )
        touched = overlapped_phases(gap, moved)
        measured.append(
            gap.model_copy(
                update={"phases": tuple(map(phase_label, touched)), "part": gap_part(touched)}
            )
        )
    return tuple(measured)


def overlapped_phases(gap: Gap, moved: Iterable[Phase]) -> tuple[Phase, ...]:
    """The phases that the gap may overlap, given the errors of both."""
    end_ns = gap.begin_ns + gap.length_ns
    return tuple(
        phase
        for phase in moved
        if gap.begin_ns - (slack := gap.error_ns + phase.error_ns) <= phase.end_ns
        and phase.begin_ns <= end_ns + slack
    )


def longest_gap(gaps: Iterable[Gap] | None, direction: Direction) -> Gap | None:
    """The longest gap of a direction; None if there was none, or nothing was measured."""
    candidates = (gap for gap in gaps or () if gap.direction == direction)
    return max(candidates, key=lambda gap: gap.length_ns, default=None)


def total_gap_ns(gaps: Iterable[Gap] | None, direction: Direction) -> int:
    """The sum of a direction's gaps in nanoseconds: beside the list, never in its place."""
    return sum(gap.length_ns for gap in gaps or () if gap.direction == direction)


def longest_possible_ns(
    gaps: Iterable[Gap] | None, unmeasured: Iterable[Unmeasured], direction: Direction
) -> int:
    """How long an outage of a direction there may have been, in nanoseconds; 0: none was seen.

    What a gap and the stretches that are not measured next to it make together; it is no shorter
    than the longest gap at its most. A gap that is open-ended counts as long as it was seen.
    """
    ours = [gap for gap in gaps or () if gap.direction == direction]
    pieces = [(gap.begin_ns - gap.error_ns, gap.begin_ns + gap.most_ns, False) for gap in ours] + [
        (blank.begin_ns, blank.begin_ns + blank.length_ns, True)
        for blank in unmeasured
        if blank.direction == direction
    ]
    longest = max((gap.most_ns for gap in ours), default=0)
    begin, end, has_blank = 0, -1, False
    for first, last, is_blank in sorted(pieces):
        if first > end:
            begin, end, has_blank = first, last, is_blank
        end, has_blank = max(end, last), has_blank or is_blank
        if has_blank:
            longest = max(longest, end - begin)
    return longest


# --- both directions ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class TrafficObservation:
    """All that was logged in one attempt.

    ``egress`` has its ``sent_ns`` by the guest's clock and its ``received_ns`` by the peer's;
    ``ingress`` the other way round. Windows are points on the axis; ``window`` ends no later than
    the senders stopped. ``sent_*`` counts the packets really sent, None if that is not known.
    ``jumps`` is the tick list of the guest, None if it is unavailable. ``from_receipts``: the
    guest is gone, and ``ingress`` was rebuilt from the receipts in its egress packets.
    """

    egress: Arrivals
    ingress: Arrivals
    peer: Offset
    sent_egress: int | None
    sent_ingress: int | None
    interval_ns: int
    floor_window: Window
    window: Window
    phases: tuple[Phase, ...] = ()
    jumps: tuple[tuple[int, int], ...] | None = ()
    late_ns: int = LATE_NS
    from_receipts: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """The meter's result; None = not measured, and a note says why."""

    gaps: tuple[Gap, ...]
    streams: tuple[Stream, ...]
    stalls: tuple[Stall, ...] | None
    floor: Floor | None
    clock_error_ns: int | None
    """Error of the guest's clock on the axis, the peer's own error included."""
    unmeasured: tuple[Unmeasured, ...] = ()
    notes: tuple[str, ...] = ()


def measure(observation: TrafficObservation) -> Measurement:
    """Judge both directions on the axis of time.

    A direction without a floor is still judged, by its own median delay and two intervals; the
    floor is None then, and a note says so. Raises MeasurementError for a log that can't be true.
    """
    clock = _guest_clock(observation)
    sides = _sides(observation, clock)
    bases = [_floor_or_median(side, observation) for side in sides]
    notes = [note for _, note in bases if note]
    if clock is None:
        notes.append("no packet arrived either way: the guest's clock is unknown")
    if observation.from_receipts:
        notes.append(
            "ingress is rebuilt from the guest's receipts: what it received after the last of its "
            "own packets that arrived is not known"
        )
    measured: list[Gap] = []
    streams = []
    for side, (base, _) in zip(sides, bases, strict=True):
        delivery = deliveries(
            side.direction, side.arrivals, side.sent, base.delay_ns + observation.late_ns
        )
        limit = threshold(base.longest_ns, observation.interval_ns)
        ruler = Ruler(observation.interval_ns, limit, observation.window, side.clock_error)
        measured += gaps(delivery, ruler, observation.phases)
        streams.append(delivery.stream())
    floored = not any(note for _, note in bases)
    return Measurement(
        gaps=tuple(sorted(measured, key=lambda gap: gap.begin_ns)),
        streams=tuple(streams),
        stalls=guest_stalls(clock, observation.jumps)
        if clock and observation.jumps is not None
        else None,
        floor=floor(bases[0][0], bases[1][0], observation.floor_window) if floored else None,
        clock_error_ns=clock.error_ns + observation.peer.error_ns if clock else None,
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One direction, both stamps on the axis."""

    direction: Direction
    arrivals: Arrivals
    sent: int | None
    clock_error: Callable[[int, int], int]


def _guest_clock(observation: TrafficObservation) -> GuestClock | None:
    if not len(observation.egress) and not len(observation.ingress):
        return None
    offset = observation.peer.offset_ns
    egress, ingress = observation.egress, observation.ingress
    return GuestClock.fit(
        Arrivals(egress.seq, egress.sent_ns, egress.received_ns + offset),
        Arrivals(ingress.seq, ingress.sent_ns + offset, ingress.received_ns),
    )


def _sides(observation: TrafficObservation, clock: GuestClock | None) -> tuple[_Side, _Side]:
    """Egress, ingress; a sender's clock gives the error of a direction's send times."""
    peer = observation.peer
    if clock is None:
        nothing = Arrivals.empty()
        return (
            _Side("egress", nothing, observation.sent_egress, lambda _begin, _end: peer.error_ns),
            _Side("ingress", nothing, observation.sent_ingress, lambda _begin, _end: peer.error_ns),
        )
    egress, ingress = observation.egress, observation.ingress
    return (
        _Side(
            "egress",
            Arrivals(
                egress.seq, clock.to_axis(egress.sent_ns), egress.received_ns + peer.offset_ns
            ),
            observation.sent_egress,
            lambda begin, end: peer.error_ns + clock.error_across(begin, end),
        ),
        _Side(
            "ingress",
            Arrivals(
                ingress.seq, ingress.sent_ns + peer.offset_ns, clock.to_axis(ingress.received_ns)
            ),
            observation.sent_ingress,
            lambda _begin, _end: peer.error_ns,
        ),
    )


def _floor_or_median(side: _Side, observation: TrafficObservation) -> tuple[DirectionFloor, str]:
    """A direction's floor; or, with a note why there is none, the median delay of all packets."""
    try:
        return direction_floor(
            side.direction, side.arrivals, observation.floor_window, observation.late_ns
        ), ""
    except MeasurementError as missing:
        delays = side.arrivals.received_ns - side.arrivals.sent_ns
        delay = float(np.median(delays)) if len(delays) else 0.0
        return DirectionFloor(0, delay, len(delays)), str(missing)
