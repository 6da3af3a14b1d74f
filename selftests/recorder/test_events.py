"""Events of both hosts: each by its name, its data and the clock that it is told by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import libvirt
import libvirt_qemu
import pytest

from migrate.clock import Offset
from migrate.drivers.libvirt import Hypervisor
from migrate.lab.api import Host
from migrate.model import Event
from migrate.recorder.events import listening

WALL = Offset("a.wall", 5, 70)


class Connection:
    """Takes callbacks, and gives them back by their event's number."""

    def __init__(self) -> None:
        self.heard: dict[int, Callable[..., None]] = {}

    def domainEventRegisterAny(  # noqa: N802  libvirt's name
        self, _domain: object, kind: int, callback: Callable[..., None], _opaque: object
    ) -> int:
        self.heard[kind] = callback
        return kind

    def domainEventDeregisterAny(self, number: int) -> None:  # noqa: N802  libvirt's name
        del self.heard[number]


class Here:
    """A host whose wall clock is known."""

    name = "a"

    def wall_clock(self) -> Offset:
        return WALL


QEMU = -1


@contextmanager
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Event]]:
    """Tells one event as libvirt does, and returns it as it is on record."""
    connection = Connection()

    def register(
        _connection: object, _domain: object, wanted: object, callback: Callable[..., None], *_: Any
    ) -> int:
        assert wanted is None  # all of them
        connection.heard[QEMU] = callback
        return QEMU

    def forget(_connection: object, number: int) -> None:
        del connection.heard[number]

    monkeypatch.setattr(libvirt_qemu, "qemuMonitorEventRegister", register)
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorEventDeregister", forget)
    hypervisor = Hypervisor(cast("libvirt.virConnect", connection), "a")
    with listening({"a": (cast("Host", Here()), hypervisor)}) as listener:

        def tell(kind: int, *args: Any) -> Event:
            connection.heard[kind](None, None, *args, None)
            return listener.events()[-1]

        yield tell
    assert not connection.heard


@pytest.mark.parametrize(
    "name",
    [
        *("NIC_RX_FILTER_CHANGED", "FAILOVER_NEGOTIATED", "UNPLUG_PRIMARY", "VFIO_MIGRATION"),
        *("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR"),
        *("MEMORY_DEVICE_SIZE_CHANGE", "AN_EVENT_OF_LATER_QEMUS"),
    ],
)
def test_every_event_of_qemus_is_kept_with_its_own_stamp(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with told(monkeypatch) as tell:
        event = tell(QEMU, name, 3, 7, '{"device": "ua-nic"}')
    assert (event.source, event.host, event.name) == ("qemu", "a", name)
    assert event.data == {"device": "ua-nic"}
    assert (event.clock, event.error_ns) == ("a.wall", WALL.error_ns + 1000)
    assert event.at_ns == WALL.to_axis(3 * 10**9 + 7000)


JOB = {"operation": 3, "downtime": 33, "downtime_net": 12, "data_total": 2**40, "success": True}


@pytest.mark.parametrize(
    ("kind", "args", "name", "data"),
    [
        (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, (2, 1), "started", {"detail": 1}),
        (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, (99, 1), "lifecycle-99", {"detail": 1}),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION,
            (2,),
            "migration-iteration",
            {"iteration": 2},
        ),
        (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, (JOB,), "job-completed", JOB),
        (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, ("nic",), "device-added", {"device": "nic"}),
        (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, ("nic",), "device-removed", {"device": "nic"}),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
            ("nic",),
            "device-removal-failed",
            {"device": "nic"},
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE,
            ("mem0", 1024),
            "memory-device-size",
            {"device": "mem0", "size_kib": 1024},
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
            (1, 2),
            "agent-lifecycle",
            {"state": "connected", "reason": "channel"},
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
            (9, 9),
            "agent-lifecycle",
            {"state": "state-9", "reason": "reason-9"},
        ),
    ],
)
def test_libvirts_own_events_are_placed_when_they_arrive(
    monkeypatch: pytest.MonkeyPatch, kind: int, args: tuple[Any, ...], name: str, data: Any
) -> None:
    with told(monkeypatch) as tell:
        event = tell(kind, *args)
    assert (event.source, event.host, event.clock) == ("libvirt", "a", "controller")
    assert (event.name, event.data) == (name, data)
