"""Events of a move from logs: QEMU's trace points, and vhost-user messages of OVS-DPDK.

QEMU's log backend writes ``<pid>@<seconds>.<microseconds>:<trace point> <arguments>`` by its host's
wall clock (docs/devel/tracing); from 10.1 on, with libvirt's ``-msg timestamp=on``, a line begins
with UTC in ISO 8601 to the microsecond in place of that. OVS writes UTC with milliseconds.
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
_TRACED = re.compile(
    r"^(?:\d+@(?P<unix>\d+\.\d{6}):"
    r"|(?P<utc>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)Z (?:\S+ )*?)"
    r"vmstate_downtime_(?P<kind>checkpoint|save|load) (?P<arguments>.*)$"
)
"""A newer QEMU may name its guest, program and thread before the trace point."""
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
        kind, arguments = match["kind"], match["arguments"]
        data = (
            {"checkpoint": arguments} if kind == "checkpoint" else dict(_PAIRS.findall(arguments))
        )
        if kind != "checkpoint" and not {"idstr", "type", "downtime"} <= data.keys():
            continue
        yield Event(
            at_ns=wall.to_axis(_unix_ns(match["unix"]) if match["unix"] else _utc_ns(match["utc"])),
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
        yield Event(
            # Cut to the millisecond: laid on its middle.
            at_ns=wall.to_axis(_utc_ns(stamp) + 500_000),
            error_ns=wall.error_ns + 500_000,
            clock=f"{host}.wall",
            source="backend",
            host=host,
            name=name,
            data=data,
        )


def _unix_ns(stamp: str) -> int:
    """Of seconds since 1970 with microseconds."""
    seconds, _, micros = stamp.partition(".")
    return int(seconds) * 10**9 + int(micros) * 1000


def _utc_ns(stamp: str) -> int:
    """Of ISO 8601 without its zone, to the microsecond."""
    seconds, _, fraction = stamp.partition(".")
    whole = int(datetime.fromisoformat(f"{seconds}+00:00").timestamp())
    return whole * 10**9 + int(fraction.ljust(9, "0"))


def _ovs_event(text: str) -> tuple[str, dict[str, str]]:
    if _UP.search(text):
        return READY, {}
    if match := _MESSAGE.search(text):
        return "vhost-user-message", {"message": match[1] or match[2]}
    if match := _QUEUE.search(text):
        return QUEUE, {"queue": match[1], "state": match[2]}
    return "", {}
