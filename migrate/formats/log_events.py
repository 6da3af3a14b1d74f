"""Events of a move from logs: QEMU's trace points, and vhost-user messages of OVS-DPDK.

QEMU's log backend writes ``<pid>@<seconds>.<microseconds>:<trace point> <arguments>`` by its host's
wall clock (docs/devel/tracing); from 10.1 on, with libvirt's ``-msg timestamp=on``, a line begins
with a time in ISO 8601 to the microsecond in place of that, which the names of guest, program and
thread may follow (QEMU util/log.c, util/message.c). OVS writes UTC with milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from migrate.clock import Offset
from migrate.formats.log_lines import whole_lines
from migrate.model import Event

CHECKPOINT, SAVED, LOADED = "downtime-checkpoint", "downtime-save", "downtime-load"
READY = "vhost-user-ready"
"""The backend has the rings, and its port serves."""
QUEUE = "vhost-user-queue"
"""The backend enables a queue, or disables it."""
TRACED = (CHECKPOINT, SAVED, LOADED)
"""Events that QEMU's trace points make."""
_TRACE_POINT = re.compile(r"\bvmstate_downtime_(checkpoint|save|load) (.*)$")
_UNIX = re.compile(r"\d+@(\d{1,10})\.(\d{6}):$")
_ISO = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d(?::?\d\d)?) ")
_LAST_S = 1 << 33
"""Of the year 2242: a later stamp is none."""
_LONGEST = 1000
"""Characters before a trace point that are looked at: a guest's, a program's, a thread's name."""
_CHECKPOINT = re.compile(r"([\w-]+)\s*")
_DEVICE = re.compile(
    r"type=(?P<type>iterable|non-iterable) idstr=(?P<idstr>.+?) "
    r"instance_id=(?P<instance_id>-?\d{1,10}) downtime=(?P<downtime>\d{1,15})(?: .*)?\s*"
)
"""A newer QEMU may add fields at the end."""
_OVS = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})Z\|[^|]*\|[^|]*\|[^|]*\|(.*)$")
_VHOST = r"VHOST_CONFIG: (?:\(\S+\) )?"
"""DPDK 21.11 does not name the socket."""
_MESSAGE = re.compile(rf"{_VHOST}(?:read message (VHOST_USER_\w+)|(vring base .*))$")
_QUEUE = re.compile(r"State of queue ([0-9]{1,5}) .{1,400}changed to '(\w{1,40})'")
_UP = re.compile(rf"{_VHOST}virtio is now ready for processing")


def parse_qemu_log(log: str, host: str, wall: Offset) -> Iterator[Event]:
    """The trace points in QEMU's log; one whose line was cut short or mixed is left out."""
    for kind, prefix, arguments in _trace_points(log):
        stamp_ns, data = _when_ns(prefix), _arguments(kind, arguments)
        if stamp_ns is None or data is None:
            continue
        yield Event(
            at_ns=wall.to_axis(stamp_ns),
            error_ns=wall.error_ns + 1000,
            clock=f"{host}.wall",
            source="qemu",
            host=host,
            name=f"downtime-{kind}",
            data=data,
        )


def unreadable_trace_point(log: str) -> str:
    """The first line of QEMU's log with a trace point that can't be read; empty if there is none.

    One without a time is of a QEMU that was not told ``-msg timestamp=on``, as libvirt does unless
    its ``log_timestamp`` is 0.
    """
    for kind, prefix, arguments in _trace_points(log):
        if _when_ns(prefix) is None or _arguments(kind, arguments) is None:
            return f"{prefix}vmstate_downtime_{kind} {arguments}".strip()
    return ""


def _trace_points(log: str) -> Iterator[tuple[str, str, str]]:
    """Kind, what stands before it, and arguments; of whole lines: the last may be cut short."""
    for line in whole_lines(log):
        if match := _TRACE_POINT.search(line):
            yield match[1], line[: match.start()], match[2]


def _when_ns(prefix: str) -> int | None:
    """Nanoseconds since 1970 by the stamp that is nearest before a trace point; None: there is
    none."""
    near = prefix[-_LONGEST:]
    if unix := _UNIX.search(near[-40:]):
        return int(unix[1]) * 10**9 + int(unix[2]) * 1000 if int(unix[1]) < _LAST_S else None
    if not (stamps := _ISO.findall(near)):
        return None
    return _iso_ns(*stamps[-1])


def _iso_ns(day: str, fraction: str, zone: str) -> int | None:
    """Of ISO 8601: what is before the seconds' fraction, its digits, the time zone."""
    try:
        whole = int(datetime.fromisoformat(f"{day}{zone}").timestamp())
    except (ValueError, OverflowError):  # the 31st of February, the year 0
        return None
    return whole * 10**9 + int(fraction.ljust(9, "0")) if 0 <= whole < _LAST_S else None


def _arguments(kind: str, text: str) -> dict[str, str] | None:
    """What a trace point reports; None: it is cut short, or mixed with another line."""
    if kind == "checkpoint":
        checkpoint = _CHECKPOINT.fullmatch(text)
        return {"checkpoint": checkpoint[1]} if checkpoint else None
    device = _DEVICE.fullmatch(text)
    return device.groupdict() if device else None


def parse_ovs_log(log: str, host: str, wall: Offset) -> Iterator[Event]:
    """Messages of vhost-user, ring states and the port's readiness in the log of OVS-DPDK."""
    for line in whole_lines(log):
        if (match := _OVS.match(line)) is None:
            continue
        stamp_ns = _iso_ns(match[1], match[2], "Z")
        name, data = _ovs_event(match[3])
        if not name or stamp_ns is None:
            continue
        yield Event(
            # Cut to the millisecond: laid on its middle.
            at_ns=wall.to_axis(stamp_ns + 500_000),
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
