"""What logs tell of a move, as events: QEMU's trace points, and what OVS-DPDK's vhost-user did.

QEMU's log backend writes ``<pid>@<seconds>.<microseconds>:<trace point> <arguments>`` by its host's
wall clock (docs/devel/tracing); OVS writes UTC with milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from migrate.clock import Offset
from migrate.model import Event

CHECKPOINT, SAVED, LOADED = "downtime-checkpoint", "downtime-save", "downtime-load"
READY = "vhost-user-ready"
"""The backend has the rings, and its port serves."""
QUEUE = "vhost-user-queue"
"""The backend enables a queue, or disables it."""
_TRACED = re.compile(r"^\d+@(\d+)\.(\d{6}):vmstate_downtime_(checkpoint|save|load) (.*)$")
_PAIRS = re.compile(r"(\w+)=(\S+)")
_OVS = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z\|[^|]*\|[^|]*\|[^|]*\|(.*)$")
_MESSAGE = re.compile(r"VHOST_CONFIG: \(\S+\) (?:read message (VHOST_USER_\w+)|(vring base .*))$")
_QUEUE = re.compile(r"State of queue (\d+) .* changed to '(\w+)'")
_UP = re.compile(r"VHOST_CONFIG: \(\S+\) virtio is now ready for processing")


def of_qemu(log: str, host: str, wall: Offset) -> Iterator[Event]:
    """The trace points in QEMU's log; one whose line was cut short or mixed is left out."""
    for line in log.splitlines():
        if (found := _TRACED.match(line)) is None:
            continue
        seconds, micros, kind, rest = found.groups()
        data = {"checkpoint": rest} if kind == "checkpoint" else dict(_PAIRS.findall(rest))
        if kind != "checkpoint" and not {"idstr", "type", "downtime"} <= data.keys():
            continue
        yield Event(
            at_ns=wall.to_axis(int(seconds) * 10**9 + int(micros) * 1000),
            error_ns=wall.error_ns + 1000,
            clock=f"{host}.wall",
            source="qemu",
            host=host,
            name=f"downtime-{kind}",
            data=data,
        )


def of_ovs(log: str, host: str, wall: Offset) -> Iterator[Event]:
    """Messages of vhost-user, ring states and the port's readiness in the log of OVS-DPDK."""
    for line in log.splitlines():
        if (found := _OVS.match(line)) is None:
            continue
        stamp, text = found.groups()
        name, data = _told(text)
        if not name:
            continue
        at = datetime.fromisoformat(f"{stamp}+00:00")
        at_ns = round(at.timestamp() * 1000) * 10**6
        yield Event(
            # Cut to the millisecond: laid on its middle.
            at_ns=wall.to_axis(at_ns + 500_000),
            error_ns=wall.error_ns + 500_000,
            clock=f"{host}.wall",
            source="backend",
            host=host,
            name=name,
            data=data,
        )


def _told(text: str) -> tuple[str, dict[str, str]]:
    if _UP.search(text):
        return READY, {}
    if found := _MESSAGE.search(text):
        return "vhost-user-message", {"message": found[1] or found[2]}
    if found := _QUEUE.search(text):
        return QUEUE, {"queue": found[1], "state": found[2]}
    return "", {}
