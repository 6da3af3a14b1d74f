"""Which device of a failover pair carried the guest's traffic, when, and how much of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from migrate.model import STANDBY_DRIVER, Carrier, CarrierCheckpoint, Event
from migrate.model.recording import Recording

_PREFIX = "lower-"


def failover_carriers(recording: Recording) -> tuple[Carrier, ...] | None:
    """The stretches in which a device carried, in order, by what the guest's probe noted.

    None if the interface has no standby, if nothing that was noted could be laid on the axis, or if
    the probe's log was full and began anew: who carried before is not known.
    """
    events = _noted(recording.events)
    if recording.traffic.lowers_missed:
        return None
    if not events or (recording.start.primaries is None and not _is_pair(events)):
        return None
    return tuple(_stretches(events, recording.traffic.end_ns))


def carrier_checkpoints(
    recording: Recording, carriers: Sequence[Carrier] | None
) -> tuple[CarrierCheckpoint, ...] | None:
    """Who carried just before the first move, and when the traffic ended."""
    if carriers is None:
        return None
    first, last = recording.hops[0], recording.hops[-1].result
    before_ns, end_ns = first.begin_ns, recording.traffic.end_ns
    points = [
        CarrierCheckpoint(
            when="before the move", host=first.source, carrier=_carrier_at(carriers, before_ns)
        )
    ]
    if len(last.held_by) == 1:
        points.append(
            CarrierCheckpoint(
                when="at the end", host=last.held_by[0], carrier=_carrier_at(carriers, end_ns)
            )
        )
    return tuple(points)


def _noted(events: Sequence[Event]) -> list[Event]:
    """What the probe noted of devices, in the order in which it did."""
    return [
        event
        for event in events
        if event.source == "probe"
        and event.error_ns is not None
        and (event.name == "carried-by" or event.name.startswith(_PREFIX))
    ]


def _is_pair(events: Sequence[Event]) -> bool:
    """Whether a virtio device and another one were there at once."""
    there: set[tuple[str, str]] = set()
    for event in events:
        device = (str(event.data.get("device")), str(event.data.get("driver")))
        if event.name == "lower-gone":
            there.discard(device)
        else:
            there.add(device)
        if len({driver == STANDBY_DRIVER for _, driver in there}) > 1:
            return True
    return False


@dataclass(slots=True)
class _Stretch:
    """One that goes on."""

    began: Event
    last: Event
    """The last of the device's events, with its counters."""

    def ended(self, end: Event | int) -> Carrier:
        """As a carrier, until an event or a point of the axis."""
        at_ns, off_ns = (end.at_ns, end.off_ns) if isinstance(end, Event) else (end, 0)
        return Carrier(
            device=str(self.began.data.get("device", "")),
            driver=str(self.began.data.get("driver", "")),
            begin_ns=self.began.at_ns,
            end_ns=max(at_ns, self.began.at_ns),
            error_ns=max(self.began.off_ns, off_ns),
            sent=self._grown("sent"),
            received=self._grown("received"),
        )

    def _grown(self, counter: str) -> int | None:
        before, after = self.began.data.get(counter), self.last.data.get(counter)
        return None if before is None or after is None else int(after) - int(before)


def _stretches(events: Sequence[Event], end_ns: int) -> Iterator[Carrier]:
    current: _Stretch | None = None
    for event in events:
        same = current is not None and event.data.get("device") == current.began.data.get("device")
        if current is not None and same:
            current.last = event
        if event.name == "carried-by":
            if current is not None and not same:
                yield current.ended(event)
            if not same:
                current = _Stretch(event, event)
        elif current is not None and same and event.name in ("lower-gone", "lower-down"):
            yield current.ended(event)
            current = None
    if current is not None:
        yield current.ended(end_ns)


def _carrier_at(carriers: Sequence[Carrier], at_ns: int) -> Carrier | None:
    """Who carried at a point, given the errors of the stretches' ends."""
    for carrier in reversed(carriers):
        if carrier.begin_ns - carrier.error_ns <= at_ns <= carrier.end_ns + carrier.error_ns:
            return carrier
    return None
