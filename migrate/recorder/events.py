"""Both hosts' events on one axis, listened to before anything is done.

QEMU stamps its events with its host's wall clock; the offset to the axis is measured when the
listener begins, and :mod:`migrate.analysis.host_clocks` has the last word on their places when all
is over. libvirt's own events carry no stamp: they are placed when they arrive."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from migrate.clock import Deadline, Offset, now_ns
from migrate.drivers.libvirt import Hypervisor
from migrate.lab.api import Host
from migrate.model import ClockReading, Event
from migrate.recorder.clocks import reading

MOST_EVENTS = 50_000
"""Of one host in an attempt; a move has some hundred."""


class Listener:
    """Collects events; whoever waits for one is woken by it."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._connections: dict[str, Hypervisor] = {}
        self._undo = ExitStack()
        self.walls: dict[str, Offset] = {}
        """By host: how its QEMU's stamps are laid on the axis."""
        self.first_readings: list[ClockReading] = []
        self._told: Counter[str] = Counter()
        """How many events each host told."""

    def add(self, event: Event) -> None:
        """Put an event on the axis; called from libvirt's thread or the controller's."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def hear(self, event: Event) -> None:
        """Put an event on the axis that a host told; of one that floods, no more than
        :data:`MOST_EVENTS`."""
        with self._changed:
            self._told[event.host] += 1
            if self._told[event.host] > MOST_EVENTS:
                return
        self.add(event)

    def events(self) -> tuple[Event, ...]:
        """All so far, in time order."""
        with self._changed:
            return tuple(sorted(self._events, key=lambda event: event.at_ns))

    def since(self, number: int) -> tuple[Event, ...]:
        """Those from this number on, in the order in which they came."""
        with self._changed:
            return tuple(self._events[number:])

    def mark(self) -> int:
        """How many events there are: what comes later is new."""
        with self._changed:
            return len(self._events)

    def wait(
        self, wanted: Callable[[Event], bool], deadline: Deadline, since: int = 0
    ) -> Event | None:
        """The first event from number ``since`` on that is wanted; None at the deadline."""
        with self._changed:
            number = since
            while True:
                for event in self._events[number:]:
                    if wanted(event):
                        return event
                number = len(self._events)
                if not self._changed.wait(deadline.left()) and deadline.passed():
                    return None

    def subscribe(self, host: Host, hypervisor: Hypervisor) -> None:
        """Receive the events of a host's QEMU and libvirt from now on, until :meth:`close`."""
        if (wall := self.walls.get(host.name)) is None:
            wall = self.walls[host.name] = host.wall_clock()
            self.first_readings.append(reading(host.name, wall))
        on_qemu = _qemu_to(self, host.name, wall.to_axis, wall.error_ns)
        self._undo.enter_context(hypervisor.events(on_qemu, _libvirt_to(self, host.name)))
        self._connections[host.name] = hypervisor

    def resubscribe(self, *hosts: Host) -> tuple[str, ...]:
        """Subscribe anew to those whose connection broke; says whose events were missed."""
        broken = [host for host in hosts if not self._connections[host.name].answers()]
        for host in broken:
            self.subscribe(host, self._undo.enter_context(host.connect()))
        lost = tuple(
            f"the connection to libvirt on {host.name} broke: what happened there after that was "
            "not heard"
            for host in broken
        )
        return (*lost, *self._not_kept())

    def _not_kept(self) -> tuple[str, ...]:
        return tuple(
            f"{host} told {told} events: no more than the first {MOST_EVENTS} are kept"
            for host, told in self._told.items()
            if told > MOST_EVENTS
        )

    def close(self) -> None:
        """Receive no more events."""
        self._undo.close()


@contextmanager
def listening(hosts: Mapping[str, tuple[Host, Hypervisor]]) -> Iterator[Listener]:
    """Listen to every host's QEMU and libvirt while the block runs."""
    listener = Listener()
    try:
        for host, hypervisor in hosts.values():
            listener.subscribe(host, hypervisor)
        yield listener
    finally:
        listener.close()


def _qemu_to(
    listener: Listener, host: str, to_axis: Callable[[int], int], error_ns: int
) -> Callable[[str, int | None, dict[str, Any]], None]:
    def add(name: str, stamp_ns: int | None, data: dict[str, Any]) -> None:
        listener.hear(
            Event(
                # One without a stamp is laid where it came, and when it happened is not known.
                at_ns=now_ns() if stamp_ns is None else to_axis(stamp_ns),
                # QEMU gives microseconds.
                error_ns=None if stamp_ns is None else error_ns + 1000,
                clock=f"{host}.wall",
                source="qemu",
                host=host,
                name=name,
                data=data,
            )
        )

    return add


def _libvirt_to(listener: Listener, host: str) -> Callable[[str, dict[str, Any]], None]:
    def add(name: str, data: dict[str, Any]) -> None:
        listener.hear(Event(at_ns=now_ns(), source="libvirt", host=host, name=name, data=data))

    return add
