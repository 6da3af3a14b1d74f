"""Both hosts' events on one axis, listened to before anything is done.

QEMU stamps its events with its host's wall clock; the offset to the axis is measured when the
listener begins, and :mod:`migrate.analysis.host_clocks` has the last word on their places when all
is over. libvirt's own events carry no stamp: they are placed when they arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from migrate.clock import Deadline, Offset, now_ns
from migrate.drivers.libvirt import Hypervisor
from migrate.lab.api import Host
from migrate.model import ClockReading, Event, PhaseName
from migrate.recorder.clocks import reading

STATUS_PHASES: Mapping[str, PhaseName] = {
    "setup": "setup",
    "wait-unplug": "wait-unplug",
    "active": "precopy",
    "pre-switchover": "pre-switchover",
    "device": "device",
    "postcopy-active": "postcopy",
}
"""Of QEMU's MIGRATION event on the source."""


class Listener:
    """Collects events; whoever waits for one is woken by it."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._heard: dict[str, Hypervisor] = {}
        self._undo = ExitStack()
        self.walls: dict[str, Offset] = {}
        """By host: how its QEMU's stamps are laid on the axis."""
        self.first_readings: list[ClockReading] = []

    def add(self, event: Event) -> None:
        """Put an event on the axis; called from libvirt's thread or the controller's."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def events(self) -> tuple[Event, ...]:
        """All so far, in time order."""
        with self._changed:
            return tuple(sorted(self._events, key=lambda event: event.at_ns))

    def mark(self) -> int:
        """How many events there are: what comes later is new."""
        with self._changed:
            return len(self._events)

    def wait(
        self, wanted: Callable[[Event], bool], deadline: Deadline, since: int = 0
    ) -> Event | None:
        """The first event from number ``since`` on that is wanted; None at the deadline."""
        with self._changed:
            seen = since
            while True:
                for event in self._events[seen:]:
                    if wanted(event):
                        return event
                seen = len(self._events)
                if not self._changed.wait(deadline.left()) and deadline.passed():
                    return None

    def hear(self, host: Host, hypervisor: Hypervisor) -> None:
        """Listen to a host's QEMU and libvirt from now on, until :meth:`close`."""
        if (wall := self.walls.get(host.name)) is None:
            wall = self.walls[host.name] = host.wall_clock()
            self.first_readings.append(reading(host.name, wall))
        on_qemu = _qemu_to(self, host.name, wall.to_axis, wall.error_ns)
        self._undo.enter_context(hypervisor.events(on_qemu, _libvirt_to(self, host.name)))
        self._heard[host.name] = hypervisor

    def hear_again(self, *hosts: Host) -> tuple[str, ...]:
        """Listen anew to those whose connection broke, and what was not heard by that."""
        deaf = [host for host in hosts if not self._heard[host.name].answers()]
        for host in deaf:
            self.hear(host, self._undo.enter_context(host.connect()))
        return tuple(
            f"the connection to libvirt on {host.name} broke: what happened there after that was "
            "not heard"
            for host in deaf
        )

    def close(self) -> None:
        """Listen no more."""
        self._undo.close()


@contextmanager
def listening(hosts: Mapping[str, tuple[Host, Hypervisor]]) -> Iterator[Listener]:
    """Listen to every host's QEMU and libvirt while the block runs."""
    listener = Listener()
    try:
        for host, hypervisor in hosts.values():
            listener.hear(host, hypervisor)
        yield listener
    finally:
        listener.close()


def _qemu_to(
    listener: Listener, host: str, to_axis: Callable[[int], int], error_ns: int
) -> Callable[[str, int, dict[str, Any]], None]:
    def add(name: str, stamp_ns: int, data: dict[str, Any]) -> None:
        listener.add(
            Event(
                at_ns=to_axis(stamp_ns),
                # QEMU gives microseconds.
                error_ns=error_ns + 1000,
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
        listener.add(Event(at_ns=now_ns(), source="libvirt", host=host, name=name, data=data))

    return add


def phase_of(event: Event, source: str) -> PhaseName | None:
    """The phase that an event begins by itself, None for most events.

    The target negotiates failover while it loads the guest's state, so ``replug`` is seen at the
    end of the stop: :func:`migrate.analysis.phases.phases` lays its begin on the resume.
    """
    if event.source != "qemu":
        return None
    if event.name == "RESUME":
        return "resumed"
    if event.host != source:
        return "replug" if event.name == "FAILOVER_NEGOTIATED" else None
    if event.name == "STOP":
        return "stopped"
    if event.name == "MIGRATION":
        return STATUS_PHASES.get(str(event.data.get("status")))
    return None


@dataclass(slots=True)
class Begins:
    """The phases that the events of one move begin: asked event by event, in their order.

    One status can begin two: ``active`` after ``wait-unplug`` is ``standby`` and ``precopy``.
    """

    source: str
    _unplugging: bool = False

    def phases(self, event: Event) -> tuple[PhaseName, ...]:
        """All that ``event`` begins; none for most events."""
        found = phase_of(event, self.source)
        begun: tuple[PhaseName, ...] = (found,) if found else ()
        status = (event.source, event.host, event.name) == ("qemu", self.source, "MIGRATION")
        if status and self._unplugging:
            begun = ("standby", *begun)
        if status:
            self._unplugging = found == "wait-unplug"
        return begun
