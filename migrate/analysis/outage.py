"""The meter: from what both probes logged to gaps, both directions on one axis.

Which packets were served is said in :mod:`migrate.analysis.deliveries`, what a gap is and how long
the outage in it was in :mod:`migrate.analysis.gaps`, what can be seen at all in
:mod:`migrate.analysis.floor`. A gap is never split, and gaps are never merged or added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from migrate.analysis.deliveries import Deliveries, SentPackets, fates, in_sequence
from migrate.analysis.floor import LATE_NS, DirectionFloor, Window, direction_floor, floor, jitter
from migrate.analysis.gaps import FLUSH_NS, Ruler, gaps, stood_still, threshold
from migrate.analysis.guest_clock import GuestClock, guest_stalls
from migrate.analysis.meter_losses import losses_of
from migrate.analysis.receipts import ENDED, LOST, behind_untold, unreceipted
from migrate.clock import Offset
from migrate.errors import MeasurementError
from migrate.model import DIRECTIONS, Direction, Floor, Gap, Phase, Stall, Stream, Unmeasured
from migrate.model.recording import Arrivals, Column, MeterLoss, Sends

# --- a direction's list -------------------------------------------------------------------------


def longest_gap(gaps: Iterable[Gap] | None, direction: Direction) -> Gap | None:
    """The longest gap of a direction; None if there was none, or nothing was measured."""
    candidates = (gap for gap in gaps or () if gap.direction == direction)
    return max(candidates, key=lambda gap: gap.length_ns, default=None)


def total_gap_ns(gaps: Iterable[Gap] | None, direction: Direction) -> int:
    """The sum of a direction's gaps in nanoseconds: beside the list, never in its place."""
    return sum(gap.length_ns for gap in gaps or () if gap.direction == direction)


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
    looped: bool = False
    """The guest sent ingress as well: the network returned its own stream."""
    unreceived_egress: Sends | None = None
    """When the guest sent what did not arrive, by its clock; None: not on record."""
    unreceived_ingress: Sends | None = None
    """When the peer sent what did not arrive, by its clock."""
    lost_by_peer: MeterLoss | None = None
    """Of egress, by the peer's probe itself; None: not known."""
    lost_by_guest: MeterLoss | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """The meter's result; None = not measured, and a note says why."""

    gaps: tuple[Gap, ...]
    streams: tuple[Stream, ...]
    stalls: tuple[Stall, ...] | None
    stalls_seen_from_ns: int | None
    """A shorter stall may not be among them; None: any may be missing."""
    floor: Floor | None
    clock_error_ns: int | None
    """Error of the guest's clock on the axis, the peer's own error included."""
    deliveries: tuple[Deliveries, ...] = ()
    """The fate of every packet, of each direction."""
    unmeasured: tuple[Unmeasured, ...] = ()
    """Stretches in which it can't be told whether a direction was served."""
    no_floor: tuple[str, ...] = ()
    """Why there is no floor; empty: there is one."""
    notes: tuple[str, ...] = ()


def measure(observation: TrafficObservation, clock: GuestClock | None = None) -> Measurement:
    """Judge both directions on the axis of time.

    ``clock``: the guest's, for whoever has it already. A direction without a floor is still judged,
    by its own median delay and two intervals; the floor is None then, and a note says so. Raises
    MeasurementError for a log that can't be true.
    """
    observation, notes = _counted_on(observation)
    clock = clock or _guest_clock(observation)
    sides = _sides(observation, clock)
    bases = [_floor_or_median(side, observation) for side in sides]
    no_floor = tuple(reason for _, reason in bases if reason)
    notes = [*no_floor, *notes]
    if clock is None:
        notes.append("no packet arrived either way: the guest's clock is unknown")
    if observation.from_receipts:
        notes.append(
            "ingress is rebuilt from the guest's receipts: what it received after the last of its "
            "own packets that arrived, or reported in none of them, is not known"
        )
    measured: list[Gap] = []
    blanks: list[Unmeasured] = []
    deliveries: list[Deliveries] = []
    for side, (base, _) in zip(sides, bases, strict=True):
        packets = side.packets
        if observation.from_receipts and packets.direction == "ingress" and clock:
            packets = _without_receipts(observation, packets, clock, base.delay_ns)
        delivery = fates(packets, base.delay_ns, observation.late_ns)
        ruler = _ruler(observation, side, base, sides[1].packets.arrivals, bases[1][0].delay_ns)
        ruler = replace(ruler, window=_until_served(delivery, observation.window))
        found, unknown, left_out = gaps(delivery, ruler, observation.phases)
        if left_out:
            notes.append(f"{left_out} shorter gaps of {packets.direction} are not listed")
        measured += found
        blanks += unknown
        deliveries.append(delivery)
    return Measurement(
        gaps=tuple(sorted(measured, key=_place)),
        streams=tuple(delivery.stream() for delivery in deliveries),
        deliveries=tuple(deliveries),
        stalls=guest_stalls(clock, observation.jumps)
        if clock and observation.jumps is not None
        else None,
        stalls_seen_from_ns=clock.stalls_seen_from_ns(observation.interval_ns) if clock else None,
        floor=None if no_floor else floor(bases[0][0], bases[1][0], observation.floor_window),
        no_floor=no_floor,
        clock_error_ns=clock.error_ns + observation.peer.error_ns if clock else None,
        unmeasured=tuple(sorted(blanks, key=_place)),
        notes=tuple(notes),
    )


def _until_served(delivery: Deliveries, window: Window) -> Window:
    """A packet that was sent after the end and served shows that no silence went on from there.

    Of a log that was cut short, what came then is not known anyway.
    """
    if delivery.cut_short:
        return window
    after = delivery.sent_ns[delivery.served & (delivery.sent_ns > window[1])]
    return window[0], int(after.min()) if len(after) else window[1]


def _place(stretch: Gap | Unmeasured) -> tuple[int, str]:
    return stretch.begin_ns, stretch.direction


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One direction on the axis, and the errors of its sender's clock."""

    packets: SentPackets
    difference_error: Callable[[int, int], int]
    place_error: Callable[[int], int]
    sent_by_guest: bool


def _counted_on(observation: TrafficObservation) -> tuple[TrafficObservation, list[str]]:
    """With numbers that go on past 32 bits, and past a sender that began anew."""
    notes = []
    for direction in DIRECTIONS:
        arrivals: Arrivals = getattr(observation, direction)
        seq, restarts = in_sequence(arrivals)
        update: dict[str, Any] = {direction: replace(arrivals, seq=seq)}
        if restarts:
            update[f"sent_{direction}"] = update[f"unreceived_{direction}"] = None
            notes.append(
                f"the sender of {direction} restarted {restarts} times: how many packets it sent "
                "in all is not known"
            )
        observation = replace(observation, **update)
    return observation, notes


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
    egress, ingress = observation.egress, observation.ingress
    out, into = observation.unreceived_egress, observation.unreceived_ingress
    out, into = out or Sends.empty(), into or Sends.empty()
    at_peer = losses_of(observation.lost_by_peer, egress, "peer")
    at_guest = losses_of(observation.lost_by_guest, ingress, "guest")
    placed_in = Arrivals(ingress.seq, ingress.sent_ns + peer.offset_ns, ingress.received_ns)
    placed_out = Arrivals(egress.seq, egress.sent_ns, egress.received_ns + peer.offset_ns)
    doubts = [np.zeros(len(arrivals), dtype=np.int64) for arrivals in (egress, ingress)]
    sent_out, sent_in = Sends.empty(), Sends(into.seq, into.sent_ns + peer.offset_ns)
    if clock:
        doubts = [_doubts(clock, observation, at) for at in (egress.sent_ns, ingress.received_ns)]
        placed_in = replace(placed_in, received_ns=clock.to_axis(ingress.received_ns))
        placed_out = replace(placed_out, sent_ns=clock.to_axis(egress.sent_ns))
        sent_out = Sends(out.seq, clock.to_axis(out.sent_ns))
    across = clock.difference_error if clock else lambda _begin, _end: 0
    by_guest = clock is not None and observation.looped
    own_in = egress.sent_ns if by_guest else placed_in.sent_ns
    own_sends = out.sent_ns if by_guest else sent_in.sent_ns
    return (
        _Side(
            SentPackets(
                "egress",
                placed_out,
                egress.sent_ns,
                doubts[0],
                observation.sent_egress,
                sent_out,
                out.sent_ns,
                *at_peer,
            ),
            across,
            lambda at: peer.error_ns + (clock.error_across(at, at) if clock else 0),
            sent_by_guest=True,
        ),
        _Side(
            SentPackets(
                "ingress",
                placed_in,
                own_in,
                doubts[1],
                observation.sent_ingress,
                sent_in,
                own_sends,
                *at_guest,
            ),
            across,  # it is the guest's clock that tells late from on time
            lambda _at: peer.error_ns,
            sent_by_guest=by_guest,
        ),
    )


def _doubts(clock: GuestClock, observation: TrafficObservation, readings: Column) -> Column:
    """How much of each packet's delay, held against the floor's, may be the guest's clock's."""
    floor_at = clock.segment_at(sum(observation.floor_window) // 2)
    errors = [clock.relative_error(floor_at, other) for other in range(len(clock.segments))]
    return np.array(errors, dtype=np.int64)[clock.segments_of(readings)]


def _without_receipts(
    observation: TrafficObservation, packets: SentPackets, clock: GuestClock, delay_ns: float
) -> SentPackets:
    """Numbers that the guest may have received and could not tell of any more."""
    arrivals = packets.arrivals
    missing = np.setdiff1d(np.arange(int(arrivals.seq.max(initial=-1)) + 1), arrivals.seq)
    known = np.concatenate([arrivals.seq, packets.sends.seq])
    order = np.argsort(known, kind="stable")
    stamps = np.concatenate([arrivals.sent_ns, packets.sends.sent_ns])[order]
    sent = np.interp(missing, known[order], stamps - observation.window[0])
    waited = arrivals.received_ns - arrivals.sent_ns - delay_ns > FLUSH_NS
    doubtful = behind_untold(observation.egress, observation.ingress) & waited
    return replace(
        packets,
        error_ns=packets.error_ns + np.where(doubtful, observation.late_ns, 0),
        lost_by_meter=unreceipted(
            observation.egress,
            observation.ingress,
            missing,
            np.rint(sent).astype(np.int64) + observation.window[0],
            clock,
            delay_ns + observation.late_ns,
        ),
        meter_loss=LOST,
        cut_short=ENDED,
    )


def _floor_or_median(side: _Side, observation: TrafficObservation) -> tuple[DirectionFloor, str]:
    """A direction's floor; or, with a note why there is none, the median delay of all packets."""
    try:
        return direction_floor(side.packets, observation.floor_window, observation.late_ns), ""
    except MeasurementError as missing:
        arrivals = side.packets.arrivals
        delays = arrivals.received_ns - arrivals.sent_ns
        if not len(delays):
            return DirectionFloor(0, 0.0, 0), str(missing)
        return DirectionFloor(0, float(np.median(delays)), len(delays), jitter(delays)), str(
            missing
        )


def _ruler(
    observation: TrafficObservation,
    side: _Side,
    base: DirectionFloor,
    ingress: Arrivals,
    ingress_delay_ns: float,
) -> Ruler:
    interval_ns = observation.interval_ns
    seen = stood_still(ingress, ingress_delay_ns, interval_ns, observation.phases)
    return Ruler(
        interval_ns,
        threshold(base.longest_ns, interval_ns),
        observation.window,
        side.difference_error,
        side.place_error,
        "guest" if side.sent_by_guest else "peer",
        base.delay_ns,
        base.jitter_ns,
        base.lost_in_a_row,
        _lateness(side.packets, interval_ns),
        seen if side.sent_by_guest else lambda _begin, _end, _silent: 0,
    )


def _lateness(packets: SentPackets, interval_ns: int) -> int:
    """By how much nearly all packets are sent late in their slots, at most an interval."""
    order = np.argsort(packets.arrivals.seq, kind="stable")
    seq, own = packets.arrivals.seq[order], packets.own_ns[order]
    spacing = np.diff(own)[np.diff(seq) == 1]
    if not len(spacing):
        return 0
    return int(np.quantile(np.clip(spacing - interval_ns, 0, interval_ns), 0.95))
