"""Events of a move from logs: QEMU's trace points, and vhost-user messages of OVS-DPDK.

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


def parse_qemu_log(log: str, host: str, wall: Offset) -> Iterator[Event]:
    """The trace points in QEMU's log; one whose line was cut short or mixed is left out."""
    for line in log.splitlines():
        if (match := _TRACED.match(line)) is None:
            continue
        seconds, micros, kind, arguments = match.groups()
        data = (
            {"checkpoint": arguments} if kind == "checkpoint" else dict(_PAIRS.findall(arguments))
        )
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


def parse_ovs_log(log: str, host: str, wall: Offset) -> Iterator[Event]:
    """Messages of vhost-user, ring states and the port's readiness in the log of OVS-DPDK."""
    for line in log.splitlines():
        if (match := _OVS.match(line)) is None:
            continue
        stamp, text = match.groups()
        name, data = _ovs_event(text)
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


def _ovs_event(text: str) -> tuple[str, dict[str, str]]:
    if _UP.search(text):
        return READY, {}
    if match := _MESSAGE.search(text):
        return "vhost-user-message", {"message": match[1] or match[2]}
    if match := _QUEUE.search(text):
        return QUEUE, {"queue": match[1], "state": match[2]}
    return "", {}
