"""Events of both hosts: each by its name, its data and the clock that it is told by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import libvirt
import libvirt_qemu
import pytest

from migrate.clock import Offset, now_ns
from migrate.drivers.libvirt import Hypervisor, event_data, stamp_ns
from migrate.lab.api import Host
from migrate.model import Event
from migrate.recorder import events as module
from migrate.recorder.events import Listener, listening

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


def test_of_a_host_that_floods_the_first_events_are_kept_and_the_rest_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", 3)
    listener = Listener()
    tell = module._qemu_to(listener, "a", lambda ns: ns, 10)
    for number in range(9):
        tell("STOP", number, {})
    listener.add(Event(at_ns=5, source="controller", host="a", name="call-ended"))
    assert len(listener.events()) == 4, "what we note ourselves is kept in any case"
    assert listener.resubscribe() == ("a told 9 events: no more than the first 3 are kept",)


def test_an_event_without_a_stamp_is_laid_where_it_came_and_its_error_is_not_known() -> None:
    listener, before = Listener(), now_ns()
    module._qemu_to(listener, "a", lambda ns: ns, 10)("STOP", None, {})
    (event,) = listener.events()
    assert before <= event.at_ns <= now_ns()
    assert event.error_ns is None


@pytest.mark.parametrize(("seconds", "micros"), [(-1, 2**32 - 1), (2**62, 0), (5, -1), (5, 10**6)])
def test_a_stamp_that_is_none_is_not_read(seconds: int, micros: int) -> None:
    """QEMU says -1 where it can't tell the time (docs/interop/qmp-spec)."""
    assert stamp_ns(seconds, micros) is None
    assert stamp_ns(5, 7) == 5_000_007_000


@pytest.mark.parametrize(
    "details", ["{", "[]", "7", "[" * 9000, '{"x": "\\ud800"}', '{"x": 1e999}']
)
def test_data_that_is_none_is_kept_as_words(details: str) -> None:
    (said,) = event_data(details).values()
    assert len(said) < 500
    assert event_data('{"status": "active"}') == {"status": "active"}
    assert event_data(None) == {}
