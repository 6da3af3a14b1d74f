"""libvirt's own events by names, and the loop that they come by.

libvirt has one event loop a process, so that one thread here is shared by all connections. See
https://libvirt.org/html/libvirt-libvirt-event.html.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

import libvirt

QemuEvent = Callable[[str, int | None, dict[str, Any]], None]
"""Called with the event's name, its wall-clock stamp in ns, if it has one, and its data."""
LibvirtEvent = Callable[[str, dict[str, Any]], None]
LIFECYCLE = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: "started",
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: "suspended",
    libvirt.VIR_DOMAIN_EVENT_RESUMED: "resumed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED: "stopped",
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_EVENT_CRASHED: "crashed",
}
AGENT_STATE = {
    libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED: "connected",
    libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_DISCONNECTED: "disconnected",
}
AGENT_REASON = {
    libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_UNKNOWN: "unknown",
    libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_DOMAIN_STARTED: "domain-started",
    libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_CHANNEL: "channel",
}
EVENTS: Mapping[int, Callable[..., tuple[str, dict[str, Any]]]] = {
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: lambda what, detail: (
        LIFECYCLE.get(what, f"lifecycle-{what}"),
        {"detail": detail},
    ),
    libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION: lambda number: (
        "migration-iteration",
        {"iteration": number},
    ),
    libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED: lambda fields: ("job-completed", dict(fields)),
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED: lambda device: ("device-added", {"device": device}),
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: lambda device: (
        "device-removed",
        {"device": device},
    ),
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED: lambda device: (
        "device-removal-failed",
        {"device": device},
    ),
    libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE: lambda device, size_kib: (
        "memory-device-size",
        {"device": device, "size_kib": size_kib},
    ),
    libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: lambda state, reason: (
        "agent-lifecycle",
        {
            "state": AGENT_STATE.get(state, f"state-{state}"),
            "reason": AGENT_REASON.get(reason, f"reason-{reason}"),
        },
    ),
}
"""libvirt's own events: the name of each and its data, by the arguments of libvirt's callback."""


@functools.cache
def ensure_event_loop() -> threading.Thread:
    """The thread that hands libvirt's events out; started at the first call."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def turn() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    thread = threading.Thread(target=turn, name="libvirt-events", daemon=True)
    thread.start()
    return thread
