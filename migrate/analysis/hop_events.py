"""The events of one move, and what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from migrate.analysis.phases import switchover
from migrate.formats.log_events import QUEUE, TRACED
from migrate.model import Direction, Event
from migrate.model.recording import Column


@dataclass(frozen=True, slots=True)
class HopEvents:
    """The events of one move, in order, with the hosts it went from and to."""

    events: Sequence[Event]
    source: str
    target: str
    begin_ns: int = 0
    mac: str = ""
    """The guest's MAC address."""
    egress_ns: Column | None = None
    """When the guest's packets arrived at its peer, in order; None: not logged."""
    unplaced: tuple[str, ...] = ()
    """Why events of a host, or of the fabric, are missing: not received, or a clock was set."""

    def first_heard_ns(self, since_ns: int) -> int | None:
        """When the fabric first saw a frame of the guest from ``since_ns`` on; None: it did not."""
        points_ns = [
            event.at_ns
            for event in self.events
            if event.name in ("announce", "frame") and event.at_ns >= since_ns
        ]
        if self.egress_ns is not None:
            after = self.egress_ns[self.egress_ns >= since_ns]
            points_ns += [int(after.min())] if len(after) else []
        return min(points_ns, default=None)

    def queue_enabled(self, direction: Direction, since_ns: int, end_ns: int) -> Event | None:
        """When the backend, where the guest runs on, last enabled a queue of that direction.

        The guest receives by even queues, and sends by odd ones (virtio 1.3, 5.1.2).
        """
        odd = direction == "egress"
        events = [
            event
            for event in self.events
            if (event.name, event.host) == (QUEUE, self.runs_on)
            and event.data["state"] == "enabled"
            and int(event.data["queue"]) % 2 == odd
            and since_ns <= event.at_ns <= end_ns
        ]
        return events[-1] if events else None

    def first(self, name: str, host: str, since_ns: int, **data: str) -> Event | None:
        """The first event of a host from ``since_ns`` on that has these data."""
        for event in self.events:
            same = (event.name, event.host) == (name, host) and event.at_ns >= since_ns
            if same and data.items() <= event.data.items():
                return event
        return None

    def traced(self, host: str) -> bool:
        """Whether trace points of the stop are on record from a host's QEMU."""
        return any(event.host == host and event.name in TRACED for event in self.events)

    @property
    def runs_on(self) -> str:
        """The host of the RESUME that ended the switchover; without one, the target."""
        _, resume = self.switchover
        return resume.host if resume is not None else self.target

    @property
    def switchover(self) -> tuple[Event | None, Event | None]:
        """STOP and the RESUME that ended it, by the same rule as the phases."""
        return switchover(self.events, self.source, self.target)
