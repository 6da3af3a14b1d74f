"""What the probes logged, laid on the axis of time by the guest's clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from migrate.analysis.floor import Window
from migrate.analysis.guest_clock import GuestClock
from migrate.analysis.outage import TrafficObservation
from migrate.clock import Offset
from migrate.model import Direction, Event, Phase
from migrate.model.recording import Arrivals, TrafficLog


def observation(
    log: TrafficLog, interval_ns: int, floor_window: Window, phases: tuple[Phase, ...] = ()
) -> TrafficObservation:
    """As the meter wants it: from the floor's begin to the end of the workload."""
    return TrafficObservation(
        egress=log.egress,
        ingress=log.ingress,
        peer=log.looped or Offset("peer", 0, log.peer_error_ns),
        sent_egress=log.sent_egress,
        sent_ingress=log.sent_ingress,
        interval_ns=interval_ns,
        floor_window=floor_window,
        window=(floor_window[0], log.end_ns),
        phases=phases,
        jumps=log.jumps,
        from_receipts=log.from_receipts,
        looped=log.looped is not None,
        unreceived_egress=log.unreceived_egress,
        unreceived_ingress=log.unreceived_ingress,
        lost_by_peer=log.lost_by_peer,
        lost_by_guest=log.lost_by_guest,
    )


def guest_clock(log: TrafficLog) -> GuestClock | None:
    """The guest's clock on the axis; None if no packet arrived either way."""
    if not len(log.egress) and not len(log.ingress):
        return None
    return GuestClock.fit(log.egress, log.ingress)


def arrivals_on_axis(log: TrafficLog, clock: GuestClock | None = None) -> dict[str, Arrivals]:
    """Both streams with both stamps on the axis; nothing unless packets arrived both ways.

    ``clock``: the guest's, for whoever has it already.
    """
    if not len(log.egress) or not len(log.ingress):
        return {}
    clock = clock or GuestClock.fit(log.egress, log.ingress)
    return {
        "egress": replace(log.egress, sent_ns=clock.to_axis(log.egress.sent_ns)),
        "ingress": replace(log.ingress, received_ns=clock.to_axis(log.ingress.received_ns)),
    }


def arrival_error_ns(log: TrafficLog, way: Direction, at_ns: int, clock: GuestClock | None) -> int:
    """Of the place on the axis of a packet that arrived at ``at_ns``: by the guest's clock if it
    came in there, or if the network returned the guest's own stream."""
    if log.looped:
        return log.looped.error_ns
    if way == "egress" or clock is None:
        return log.peer_error_ns
    return log.peer_error_ns + clock.error_across(at_ns, at_ns)


def lower_events(log: TrafficLog) -> tuple[Event, ...]:
    """Which of the guest's devices came, went and carried its traffic, on the axis.

    None without a packet: the guest's clock can't be laid on the axis then.
    """
    if not log.lowers or (clock := guest_clock(log)) is None:
        return ()
    further_ns = log.looped.error_ns if log.looped else log.peer_error_ns
    places = clock.to_axis(np.array([change.at_ns for change in log.lowers])).tolist()
    return tuple(
        Event(
            at_ns=at_ns,
            error_ns=clock.error_across(at_ns, at_ns) + further_ns,
            clock="guest.mono",
            source="probe",
            host="guest",
            name="carried-by" if change.what == "carries" else f"lower-{change.what}",
            data=change.model_dump(exclude={"at_ns", "what"}, exclude_none=True),
        )
        for at_ns, change in zip(places, log.lowers, strict=True)
    )
